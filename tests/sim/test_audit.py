"""An audit is within its bound, takes the gap apart without a rest, and recommends what is better."""

from itertools import pairwise

import msgspec
import pytest

from tests import make as core
from tests.sim.make import job, profile
from tests.sim.week import API, Week
from tidegate.core.model import Handover, Line, Policy, Price, Probed, Ruling, Slo, replace
from tidegate.core.step import StepTime
from tidegate.sim import audit as audited
from tidegate.sim.api import ApiProfile
from tidegate.sim.audit import LEAD_S, Audit, audit, busiest, stretch
from tidegate.sim.observed import ObservedError
from tidegate.sim.schema import FaultKind, FaultTable
from tidegate.sim.twin import PROBE_S, Stand, Twin
from tidegate.sim.twin import played as play


@pytest.fixture(scope="module")
def played() -> Audit:
    week = Week(count=30)
    return audit(week.twin(), week.observed().policy)


@pytest.mark.lengthy
def test_nobody_exceeds_the_bound_and_the_best_is_what_was_reached(played: Audit) -> None:
    rows = [played.policy, *played.rules, *played.changes]
    assert all(one.value_per_1k <= played.reached.value_per_1k + 1e-9 for one in rows)
    assert played.reached.value_per_1k <= played.bound_per_1k + 1e-6
    assert 0.0 <= played.wide < 0.5
    assert list(played.rules) == sorted(played.rules, key=lambda one: -one.value_per_1k)


def test_the_parts_of_the_gap_add_up_to_it(played: Audit) -> None:
    gap = played.gap
    parts = gap.staleness + gap.prediction + gap.myopia + gap.slack
    assert parts == pytest.approx(played.bound_per_1k - played.policy.value_per_1k)


def test_the_policy_is_no_better_than_itself(played: Audit) -> None:
    better = played.policy.better
    assert (better.figure, better.low, better.high) == (0.0, 0.0, 0.0)


@pytest.mark.lengthy
def test_of_requests_that_come_at_once_nothing_is_better_or_worse_beyond_chance() -> None:
    made = asked(Week(count=12, engine=profile(slots=1)).twin(), arrived_s=1_000.0)
    found = audit(made, core.policy())
    rows = [*found.rules, found.reached, *found.changes]
    assert any(one.better.figure for one in rows)
    assert all(one.better.low <= 0.0 <= one.better.high for one in rows)
    assert found.recommended is None


def test_what_changes_nothing_here_may_change_a_promise_on_another_day(played: Audit) -> None:
    same = [one for one in played.changes if one.better.figure == 0.0]
    assert same
    assert all(one.better.low < 0.0 < one.better.high for one in same)


def test_what_is_recommended_is_better_beyond_chance(played: Audit) -> None:
    found = [one for one in played.changes if one.better.low > 0.0]
    assert played.recommended == (found[0].name if found else None)
    assert list(played.changes) == sorted(played.changes, key=lambda one: -one.value_per_1k)


def test_progress_goes_up_to_the_end() -> None:
    told: list[float] = []
    week = Week(count=8)
    audit(week.twin(), core.policy(), told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] <= 1.0


@pytest.mark.lengthy
def test_what_may_not_leave_is_bounded_as_if_nobody_were_elsewhere() -> None:
    # An engine that serves one after the other, and is asked for far more than it can do.
    week = Week(count=15, rate=12.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    stays = [msgspec.structs.replace(job, request=replace(job.request, residency=("local",))) for job in made.jobs]
    late = msgspec.structs.replace(made.stands["api"], api=ApiProfile(ttft_s=1_000.0, tpot_s=1.0))
    nobody = msgspec.structs.replace(made, stands={**made.stands, "api": late})
    found = audit(msgspec.structs.replace(made, jobs=tuple(stays)), policy)
    assert found.bound_per_1k == pytest.approx(audit(nobody, policy).bound_per_1k)
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6


@pytest.mark.lengthy
def test_several_inputs_that_memory_cannot_hold_together_are_within_the_bound() -> None:
    week = Week(count=6, rate=0.1)
    made, policy = week.twin(), week.observed().policy
    own = msgspec.structs.replace(made.stands["own"], engine=profile(kv_tokens=8_192))
    many = {"prompt_tokens": 20_000, "prompts": 40, "output_tokens_max": 0, "residency": ("local",), "worth_usd": 1.0}
    jobs = tuple(
        msgspec.structs.replace(
            one, request=replace(one.request, slo=Slo(ttft_s=60.0), **many), prompt_tokens=20_000, blocks=()
        )
        for one in made.jobs
    )
    small = msgspec.structs.replace(made, jobs=jobs, stands={**made.stands, "own": own})
    found = audit(small, policy)
    assert found.policy.value_per_1k == pytest.approx(1_000.0, rel=1e-3)
    assert found.policy.value_per_1k <= found.bound_per_1k == pytest.approx(1_000.0)


@pytest.mark.lengthy
def test_of_several_vendors_the_bound_has_the_one_that_is_in_time() -> None:
    week = Week(count=15, rate=60.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    slow = Stand(link=made.stands["api"].link, api=ApiProfile(ttft_s=100.0, tpot_s=1.0))
    cheap = replace(API, name="cheap", price=Price(usd_per_input_token=1e-8, usd_per_output_token=1e-8))
    both = msgspec.structs.replace(made, endpoints=(*made.endpoints, cheap), stands={**made.stands, "cheap": slow})
    found = audit(both, policy)
    assert found.policy.value_per_1k <= found.reached.value_per_1k <= found.bound_per_1k + 1e-6


@pytest.mark.lengthy
def test_whom_a_limit_lets_in_is_for_who_decides_and_binds_no_bound() -> None:
    week = Week(count=15, rate=60.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    api = made.stands["api"].api
    assert api is not None
    few = msgspec.structs.replace(made.stands["api"], api=replace(api, requests_per_minute=5.0))
    limited = msgspec.structs.replace(made, stands={**made.stands, "api": few})
    assert audit(limited, policy).bound_per_1k == pytest.approx(audit(made, policy).bound_per_1k)


@pytest.mark.lengthy
def test_what_an_engine_elsewhere_can_take_is_for_who_decides_and_binds_no_bound() -> None:
    # Whoever goes there with all others is late; with few he is not.
    week = Week(count=60, rate=60.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    busy = Stand(link=made.stands["api"].link, engine=profile(slots=1))
    idle = Stand(link=made.stands["api"].link, engine=profile(slots=64))
    found, free = (
        audit(msgspec.structs.replace(made, stands={**made.stands, "api": one}), policy) for one in (busy, idle)
    )
    assert found.policy.value_per_1k <= found.reached.value_per_1k <= found.bound_per_1k + 1e-6
    assert found.bound_per_1k == pytest.approx(free.bound_per_1k)


@pytest.mark.lengthy
def test_prompts_that_wait_for_others_on_their_way_bind_no_bound() -> None:
    week = Week(count=15, rate=60.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    stand = made.stands["api"]
    slow = msgspec.structs.replace(stand, link=replace(stand.link, upload_bytes_per_s=4_000.0))
    narrow = msgspec.structs.replace(made, stands={**made.stands, "api": slow})
    assert audit(narrow, policy).bound_per_1k == pytest.approx(audit(made, policy).bound_per_1k)


def away_for_a_while() -> Twin:
    """An engine that serves one after the other, and a vendor that is away while all of them come."""
    slow = profile(slots=1, step=StepTime(base_s=0.3, per_token_s=0.002))
    made = asked(Week(count=12).twin(), slo=Slo(ttft_s=40.0), worth_usd=0.05)
    own = msgspec.structs.replace(made.stands["own"], engine=slow)
    away = FaultTable(kind=FaultKind.UNAVAILABLE, endpoint="api", at_s=0.0, for_s=15.0)
    return msgspec.structs.replace(made, stands={**made.stands, "own": own}, faults=(away,))


@pytest.mark.lengthy
def test_whoever_waits_for_a_vendor_to_come_back_does_not_exceed_the_bound() -> None:
    made = away_for_a_while()
    found = audit(made, core.policy())
    assert found.reached.kept > 0.5
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6
    # Nobody waits for less than it costs there.
    there = audit(msgspec.structs.replace(made, faults=()), core.policy())
    assert found.bound_per_1k == pytest.approx(there.bound_per_1k)


@pytest.mark.lengthy
@pytest.mark.parametrize("fails", [{"errors": 0.5}, {"broken": 0.5}], ids=["at once", "in the midst of an answer"])
def test_whoever_asks_a_vendor_again_that_fails_does_not_exceed_the_bound(fails: dict[str, float]) -> None:
    # Nobody else may serve them.
    made = msgspec.structs.replace(asked(away_for_a_while(), residency=("api",)), faults=())
    stand = made.stands["api"]
    assert stand.api is not None
    poor = msgspec.structs.replace(stand, api=msgspec.structs.replace(stand.api, **fails))
    found = audit(msgspec.structs.replace(made, stands={**made.stands, "api": poor}), core.policy())
    assert 0.3 < found.reached.kept < 0.9
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6
    # As if none failed: what a later attempt draws is not known.
    assert found.bound_per_1k == pytest.approx(audit(made, core.policy()).bound_per_1k)


@pytest.mark.lengthy
def test_while_a_vendor_is_away_until_a_promise_is_broken_nobody_is_served_there() -> None:
    made = asked(away_for_a_while(), residency=("api",))
    long = msgspec.structs.replace(made, faults=(replace(made.faults[0], for_s=1_000.0),))
    found = audit(long, core.policy())
    assert found.reached.value_per_1k <= found.bound_per_1k <= 0.0


@pytest.mark.lengthy
def test_what_no_rule_ever_lets_go_there_makes_no_bound_wider() -> None:
    week = Week(count=15, rate=60.0, engine=profile(slots=1))
    made, policy = week.twin(), week.observed().policy
    cheap = replace(API, name="cheap", price=Price(), context_tokens=5)
    stands = {**made.stands, "cheap": made.stands["api"]}
    both = msgspec.structs.replace(made, endpoints=(*made.endpoints, cheap), stands=stands)
    found = audit(both, policy)
    assert found.bound_per_1k == pytest.approx(audit(made, policy).bound_per_1k)
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6


def asked(made: Twin, **changes: object) -> Twin:
    jobs = [msgspec.structs.replace(job, request=replace(job.request, **changes)) for job in made.jobs]
    return msgspec.structs.replace(made, jobs=tuple(jobs))


def declared(made: Twin, name: str, **changes: object) -> Twin:
    endpoints = [replace(one, **changes) if one.name == name else one for one in made.endpoints]
    return msgspec.structs.replace(made, endpoints=tuple(endpoints))


def broken(endpoint: str, at_s: float, for_s: float) -> FaultTable:
    return FaultTable(kind=FaultKind.CRASH, endpoint=endpoint, at_s=at_s, for_s=for_s)


@pytest.fixture(scope="module")
def alone() -> Audit:
    made = Week(count=15).twin()
    return audit(msgspec.structs.replace(made, faults=(broken("own", 0.0, 1e6),)), core.policy())


@pytest.mark.lengthy
@pytest.mark.parametrize("kept_from", ["rule", "site", "model", "window", "bound"])
def test_what_an_engine_of_ours_may_not_serve_is_bounded_as_if_that_were_away(kept_from: str, alone: Audit) -> None:
    made = Week(count=15).twin()
    barred = {
        "rule": lambda: asked(made, rulings=(Ruling(rule="long", to=("api",)),)),
        "site": lambda: asked(made, residency=("api",)),
        "model": lambda: asked(declared(made, "api", models=("m", "large")), model="large"),
        "window": lambda: declared(made, "own", context_tokens=5),
        # Whoever is told how long answers are would send it there.
        "bound": lambda: asked(declared(made, "own", context_tokens=8_192), output_tokens_max=30_000),
    }[kept_from]()
    found = audit(barred, core.policy())
    assert found.bound_per_1k == pytest.approx(alone.bound_per_1k)
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6


@pytest.mark.lengthy
def test_of_two_engines_with_other_models_each_serves_its_own() -> None:
    week = Week(count=15)
    made, policy = week.twin(), core.policy()
    own, api = made.endpoints
    # As quick, and nobody asks for what it serves.
    idle = replace(own, name="idle", models=("other",))
    both = msgspec.structs.replace(made, endpoints=(own, idle, api), stands={**made.stands, "idle": made.stands["own"]})
    gone = (broken("own", 0.0, 1e6),)
    found, single = (audit(msgspec.structs.replace(one, faults=gone), policy) for one in (both, made))
    assert found.bound_per_1k == pytest.approx(single.bound_per_1k)
    assert found.reached.value_per_1k <= found.bound_per_1k + 1e-6


def test_where_prompts_may_be_computed_elsewhere_it_is_said_that_no_bound_knows_of_it(played: Audit) -> None:
    handover = Handover(target="own", kv_bytes_per_token=1e5, bytes_per_s=1e9)
    made = declared(Week(count=8).twin(), "api", handovers=(handover,))
    assert audit(made, core.policy()).handed
    assert not played.handed


def test_in_a_stretch_of_a_long_journal_engines_are_probed_as_often_as_a_gateway_does() -> None:
    made, lines = Week(count=200).twin(), list[Line]()
    month = msgspec.structs.replace(made, end_s=made.end_s + 30 * 86_400.0)
    play(stretch(month), core.policy(), journal=lines.append)
    times = [one.at_s for one in lines if isinstance(one.fact, Probed) and one.fact.endpoint == "own"]
    assert len(times) > (made.end_s - made.start_s) / PROBE_S
    assert all(later_s - at_s <= PROBE_S + 1e-9 for at_s, later_s in pairwise(times))


def test_a_stretch_has_what_befalls_it_and_begins_before_it_with_what_was_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audited, "REQUESTS_MAX", 3)
    made = Week(count=8).twin()
    start_s = made.start_s
    times = (0.0, 500.0, 1_000.0, 1_001.0, 1_002.0, 2_000.0)
    jobs = tuple(job(f"r{at_s:g}", arrived_s=start_s + at_s) for at_s in times)
    faults = (
        *(broken("own", 100.0, 50.0), broken("own", 900.0, 100.5)),
        *(broken("own", 1_001.0, 7.0), broken("own", 1_003.0 + made.timeout_s, 7.0)),
    )
    cut = stretch(msgspec.structs.replace(made, jobs=jobs, faults=faults, end_s=start_s + 3_000.0))
    assert cut.jobs == jobs[2:5]
    assert (cut.start_s, cut.end_s) == (start_s + 1_000.0 - LEAD_S, start_s + 1_002.0)
    assert [(one.at_s, one.for_s) for one in cut.faults] == [(0.0, 60.5), (61.0, 7.0)]
    assert cut.state == made.state
    # Before the first of all there is nothing to know.
    assert stretch(msgspec.structs.replace(made, jobs=jobs[:2])).start_s == start_s


@pytest.mark.lengthy
def test_answers_in_one_piece_are_judged_as_if_they_were_streamed(played: Audit) -> None:
    week = Week(count=30)
    found = audit(asked(week.twin(), stream=False), week.observed().policy)
    assert (found.policy.kept, found.bound_per_1k) == (played.policy.kept, played.bound_per_1k)
    assert played.policy.kept > 0.0


def test_where_every_client_went_away_there_is_nothing_to_judge() -> None:
    made = Week(count=8).twin()
    left = frozenset(job.request.id for job in made.jobs)
    with pytest.raises(ObservedError, match="every client went away"):
        audit(msgspec.structs.replace(made, left=left), core.policy())


@pytest.mark.parametrize("keeps", ["own", "api"])
def test_where_there_is_one_endpoint_there_is_nothing_to_choose(keeps: str) -> None:
    made = Week(count=8).twin()
    (endpoint,) = (one for one in made.endpoints if one.name == keeps)
    alone = Twin(
        endpoints=(endpoint,),
        stands={keeps: made.stands[keeps]},
        jobs=made.jobs,
        faults=(),
        state=made.state,
        start_s=made.start_s,
        end_s=made.end_s,
        left=frozenset(),
    )
    with pytest.raises(ObservedError, match="nothing to choose"):
        audit(alone, Policy())


def test_the_busiest_stretch_is_where_requests_came_closest_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "REQUESTS_MAX", 3)
    times = (0.0, 10.0, 20.0, 21.0, 22.0, 40.0)
    jobs = [job(f"r{at_s:g}", arrived_s=at_s) for at_s in times]
    assert [one.request.arrived_s for one in busiest(jobs)] == [20.0, 21.0, 22.0]
    assert busiest(jobs[:2]) == jobs[:2]
