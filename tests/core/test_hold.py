"""Late binding: the order of what is held, and what is sent away so that the rest is in time."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.base import Base
from tidegate.core.hold import schedule
from tidegate.core.latency import PARTS, Sent
from tidegate.core.model import Slo
from tidegate.core.output import Length
from tidegate.core.starts import Item, Place, Pool, item, latest_start_s
from tidegate.core.value import value_usd


def base(first_s: float = 1.0, occupies_s: float = 10.0, cost_usd: float = 0.0, queue_s: float = 0.0) -> Base:
    """Known almost exactly: `first_s` to first content, with a queue of `queue_s`, and `occupies_s` in a slot."""
    return Base(
        network_s=0.0,
        queue_s=queue_s,
        prefill_s=first_s - queue_s,
        prefill_s_mean=first_s - queue_s,
        first_s=first_s,
        sigma=0.01,
        deviations=0.0,
        tpot_s=0.01,
        tpot_sigma=0.01,
        decode_s=occupies_s - first_s,
        decode_s_mean=occupies_s - first_s,
        length=Length(10.0, 10.0, 10.0, sigma=0.01),
        cost_usd=cost_usd,
        ttft=sent(first_s),
        tpot=sent(0.01),
    )


def sent(seconds: float) -> Sent:
    return Sent(
        parts=[seconds] + [0.0] * (PARTS - 1),
        raw_s=seconds,
        median_s=seconds,
        mean_ratio=1.0,
        sigma=0.01,
        trust=1.0,
        row=0,
        column=0,
    )


def work(
    name: str,
    *,
    ttft_s: float | None = None,
    occupies_s: float = 10.0,
    away_usd: float | None = 0.001,
    worth_usd: float = 0.01,
    own: tuple[str, ...] = ("own",),
) -> Item:
    """A piece of work that may wait for `own`, or go to the cloud at once for `away_usd`, where it is in time."""
    request = make.request(name, slo=Slo(ttft_s=ttft_s), worth_usd=worth_usd, late_usd_per_s=0.0)
    cloud = base(first_s=0.5, cost_usd=away_usd or 0.0)
    elsewhere = [] if away_usd is None else [(value_usd(request, cloud, worth_usd, 0.0), "cloud")]
    return item(request, worth_usd, {n: base(occupies_s=occupies_s) for n in own}, elsewhere)


def run(
    *items: Item,
    slots_s: tuple[float, ...] = (0.0,),
    rooms: int = 9,
    now_s: float = 0.0,
    elsewhere: Callable[..., list[tuple[float, str]]] = lambda request: [],
) -> dict[str, Place]:
    return schedule(list(items), {"own": Pool(list(slots_s))}, {"cloud": rooms}, elsewhere, now_s)


def away(places: dict[str, Place]) -> set[str]:
    return {name for name, place in places.items() if place.away}


def test_the_latest_start_that_keeps_the_promise_goes_first() -> None:
    places = run(work("patient", ttft_s=500.0), work("urgent", ttft_s=5.0), work("whenever"))
    assert [places[n].start_s for n in ("urgent", "patient", "whenever")] == [0.0, 10.0, 20.0]
    assert away(places) == set()


def test_who_is_late_already_lets_all_go_before_that_can_still_be_in_time() -> None:
    late, promised = work("late", ttft_s=0.5, away_usd=None), work("promised", ttft_s=5.0, away_usd=None)
    nothing = work("nothing", away_usd=None)
    places = run(nothing, late, promised)
    assert [places[name].start_s for name in ("promised", "late", "nothing")] == [0.0, 10.0, 20.0]


def test_the_latest_start_counts_from_arrival_and_with_the_upper_quantile() -> None:
    request = make.request(arrived_s=100.0, slo=Slo(ttft_s=5.0, e2e_s=30.0))
    certain = base(first_s=2.0, occupies_s=10.0)
    assert latest_start_s(request, certain) == 103.0
    uncertain = base(first_s=2.0, occupies_s=10.0)
    uncertain.deviations, uncertain.sigma = 1.0, 0.5
    assert latest_start_s(request, uncertain) < 102.0
    assert latest_start_s(make.request(slo=Slo()), certain) == float("inf")


def test_nothing_is_sent_away_while_everything_is_in_time() -> None:
    items = [work(f"r{i}", ttft_s=12.0 * i + 2.0, away_usd=0.0) for i in range(8)]
    assert away(run(*items)) == set()


def test_what_would_be_late_goes_elsewhere_where_that_pays() -> None:
    places = run(work("first", ttft_s=2.0, away_usd=None), work("late", ttft_s=3.0))
    assert away(places) == {"late"}
    assert not places["late"].shed


def test_what_would_be_late_stays_where_the_promise_is_worth_less_than_its_price() -> None:
    places = run(work("first", ttft_s=2.0, away_usd=None), work("late", ttft_s=3.0, away_usd=0.05))
    assert away(places) == set()
    assert places["late"].start_s == 10.0


def with_headroom(*items: Item, slots_s: tuple[float, ...], now_s: float = 0.0) -> dict[str, Place]:
    return schedule(list(items), {"own": Pool(list(slots_s), headroom=True)}, {}, lambda request: [], now_s)


def test_what_can_wait_leaves_the_last_free_slot_to_who_cannot() -> None:
    patient = work("patient", ttft_s=500.0)
    assert with_headroom(patient, slots_s=(0.0, 0.0))["patient"].start_s == 0.0
    assert with_headroom(patient, slots_s=(0.0, 30.0, 20.0))["patient"].start_s == 20.0
    assert with_headroom(work("urgent", ttft_s=5.0), slots_s=(0.0, 30.0))["urgent"].start_s == 0.0
    assert with_headroom(work("whenever"), slots_s=(0.0, 30.0))["whenever"].start_s == 30.0


def test_what_can_wait_no_longer_takes_the_last_slot() -> None:
    patient = work("patient", ttft_s=500.0)
    assert with_headroom(patient, slots_s=(490.0, 600.0), now_s=490.0)["patient"].start_s == 490.0


def test_where_leaving_a_slot_free_would_make_patient_work_late_none_is_left() -> None:
    items = [work(f"r{i}", ttft_s=100.0, occupies_s=40.0) for i in range(4)]
    assert [place.start_s for place in with_headroom(*items, slots_s=(0.0, 0.0)).values()] == [0.0, 0.0, 40.0, 40.0]
    fewer = with_headroom(*items[:2], slots_s=(0.0, 0.0))
    assert sorted(place.start_s for place in fewer.values()) == [0.0, 40.0]


def test_patient_work_that_would_be_late_at_one_engine_takes_no_slot_that_another_leaves() -> None:
    crowd = [work(f"r{i}", ttft_s=100.0, occupies_s=40.0, own=("full",)) for i in range(4)]
    patient = work("patient", ttft_s=500.0, own=("calm",))
    pools = {"full": Pool([0.0, 0.0], headroom=True), "calm": Pool([0.0, 30.0], headroom=True)}
    places = schedule([*crowd, patient], pools, {}, lambda request: [], 0.0)
    assert [places[f"r{i}"].start_s for i in range(4)] == [0.0, 0.0, 40.0, 40.0]
    assert places["patient"].start_s == 30.0


def test_the_slot_that_is_left_is_taken_by_who_is_late_already() -> None:
    patient = [work(f"r{i}", ttft_s=500.0) for i in range(3)]
    for one in patient:
        one.own["own"].prompt_s = 5.0
    places = with_headroom(*patient, work("late", ttft_s=0.5, away_usd=None), slots_s=(0.0, 30.0))
    assert places["late"].start_s == 0.0
    assert places["r0"].start_s == 30.0


def test_an_engine_with_one_slot_has_no_headroom() -> None:
    assert with_headroom(work("patient", ttft_s=500.0), slots_s=(0.0,))["patient"].start_s == 0.0


def test_cheap_work_makes_way_for_dear_work_that_would_be_late() -> None:
    places = run(work("cheap", ttft_s=2.0, away_usd=0.001), work("dear", ttft_s=3.0, away_usd=0.009))
    assert away(places) == {"cheap"}
    assert places["cheap"].shed
    assert places["dear"].start_s == 0.0


def test_of_those_before_it_the_cheapest_that_frees_enough_makes_way() -> None:
    places = run(
        work("dear", ttft_s=2.0, occupies_s=10.0, away_usd=0.004),
        work("small", ttft_s=13.0, occupies_s=0.2, away_usd=0.0),
        work("cheap", ttft_s=14.0, occupies_s=10.0, away_usd=0.002),
        work("late", ttft_s=15.0, away_usd=None),
    )
    assert away(places) == {"cheap"}


def test_more_is_sent_away_until_the_late_one_is_in_time() -> None:
    early = [work(f"r{i}", ttft_s=3.0 + 12.0 * i, away_usd=0.001) for i in range(3)]
    places = run(*early, work("late", ttft_s=27.5, away_usd=None, worth_usd=1.0))
    assert len(away(places)) == 1
    places = run(*early, work("late", ttft_s=27.5, away_usd=None, worth_usd=1.0), slots_s=(9.5,))
    assert places["late"].start_s <= 23.0


def test_no_more_makes_way_than_lets_the_late_one_start() -> None:
    early = [work(f"r{i}", ttft_s=2.0, away_usd=0.001) for i in range(2)]
    places = run(*early, work("late", ttft_s=2.5, away_usd=None, worth_usd=1.0), slots_s=(0.0, 0.0))
    assert len(away(places)) == 1
    assert places["late"].start_s == 0.0


def test_nothing_makes_way_where_not_enough_of_it_can_leave() -> None:
    early = [work(f"r{i}", ttft_s=1.5 + 4.5 * i, occupies_s=4.0) for i in range(2)]
    stays = work("stays", ttft_s=10.4, occupies_s=6.0, away_usd=None)
    late = work("late", ttft_s=11.0, away_usd=None, worth_usd=1.0)
    assert away(run(*early, stays, late, rooms=2)) == {"r0", "r1"}
    assert away(run(*early, stays, late, rooms=1)) == set()


def test_no_more_is_sent_away_than_there_is_room() -> None:
    items = [work(f"r{i}", ttft_s=2.0) for i in range(6)]
    assert len(away(run(*items, rooms=3))) == 3
    assert len(away(run(*items, rooms=0))) == 0


def test_where_the_best_other_endpoint_is_full_the_next_best_will_do() -> None:
    items = [work(f"r{i}", ttft_s=2.0) for i in range(3)]
    for one in items:
        one.elsewhere = [(0.009, "near"), (0.008, "far")]
    places = schedule(items, {"own": Pool([0.0])}, {"near": 1, "far": 1}, lambda request: [], 0.0)
    assert {p.endpoint for p in places.values() if p.away} == {"near", "far"}


def test_each_of_several_engines_is_used_by_when_it_shows_content() -> None:
    quick, slow = base(first_s=1.0), base(first_s=5.0)
    request = make.request("r", slo=Slo(ttft_s=100.0))
    both = item(request, 0.01, {"a": slow, "b": quick}, [])
    assert schedule([both], {"a": Pool([0.0]), "b": Pool([0.0])}, {}, lambda r: [], 0.0)["r"].endpoint == "b"
    assert schedule([both], {"a": Pool([0.0]), "b": Pool([30.0])}, {}, lambda r: [], 0.0)["r"].endpoint == "a"


def test_what_others_have_waiting_makes_an_engine_no_sooner_than_now() -> None:
    request = make.request("r", slo=Slo(ttft_s=2.0))
    both = item(request, 0.01, {"a": base(first_s=9.3, queue_s=9.0), "b": base(first_s=0.3)}, [])
    place = schedule([both], {"a": Pool([0.0]), "b": Pool([0.0])}, {}, lambda r: [], 0.0)["r"]
    assert (place.endpoint, place.as_if_s) == ("b", 0.0)
    alone = item(request, 0.01, {"a": base(first_s=9.3, queue_s=9.0)}, [(0.005, "cloud")])
    assert schedule([alone], {"a": Pool([0.0])}, {"cloud": 1}, lambda r: [], 0.0)["r"].away


def prompts(name: str, ttft_s: float, prompt_s: float, away_usd: float | None = 0.001) -> Item:
    """A piece of work whose prompt keeps the engine busy."""
    made = work(name, ttft_s=ttft_s, occupies_s=1.0 + prompt_s, away_usd=away_usd)
    made.own["own"].prompt_s = prompt_s
    return made


def test_prompts_are_computed_one_after_the_other_however_many_slots_there_are() -> None:
    items = [prompts(f"r{index}", 90.0 + index, 4.0) for index in range(3)]
    places = schedule(items, {"own": Pool([0.0] * 8, prompts_done_s=0.0, ahead_s=1.0)}, {}, lambda r: [], 0.0)
    assert [places[f"r{index}"].start_s for index in range(3)] == [0.0, 3.0, 7.0]
    assert [places[f"r{index}"].as_if_s for index in range(3)] == [0.0, 4.0, 8.0]


def test_what_would_be_late_behind_prompts_goes_elsewhere() -> None:
    items = [prompts("first", 5.0, 4.0, away_usd=None), prompts("second", 6.0, 4.0)]
    assert away(run(*items, slots_s=(0.0,) * 8)) == set()
    for one in items:
        one.own["own"].queue_s = 4.0
    busy = Pool([0.0] * 8, prompts_done_s=4.0, ahead_s=1.0)
    assert away(schedule(items, {"own": busy}, {"cloud": 9}, lambda r: [], 0.0)) == {"second"}


def test_prompts_that_are_gone_by_then_delay_nobody() -> None:
    waits = prompts("waits", 90.0, 0.0)
    waits.own["own"].queue_s = 4.0
    pool = Pool([20.0], prompts_done_s=4.0, ahead_s=1.0)
    place = schedule([waits], {"own": pool}, {}, lambda r: [], 0.0)["waits"]
    assert (place.start_s, place.as_if_s) == (20.0, 16.0)


def test_of_prompts_that_may_come_after_it_those_that_it_is_not_sent_before_are_over_then() -> None:
    # Of a hundred seconds of prompts ten are left when it is sent; which of those come before it is not known.
    waits = prompts("waits", 900.0, 0.0)
    waits.own["own"].queue_s = 90.0 + 6.25
    pool = Pool([0.0] * 8, prompts_done_s=100.0, ahead_s=10.0)
    place = schedule([waits], {"own": pool}, {}, lambda r: [], 0.0)["waits"]
    assert (place.start_s, place.as_if_s) == (90.0, 0.0)


def test_of_two_that_could_make_way_it_is_the_one_that_takes_more_of_the_engine() -> None:
    quick, long = prompts("quick", 3.0, 0.1), prompts("long", 4.0, 6.0)
    late = prompts("late", 7.5, 1.0, away_usd=None)
    pool = Pool([0.0] * 8, prompts_done_s=0.0, ahead_s=1.0)
    assert away(schedule([quick, long, late], {"own": pool}, {"cloud": 9}, lambda r: [], 0.0)) == {"long"}


def test_what_lies_elsewhere_is_only_asked_where_something_is_late() -> None:
    asked: list[str] = []

    def elsewhere(request: object) -> list[tuple[float, str]]:
        asked.append(str(request))
        return []

    calm = [work(f"r{i}", ttft_s=100.0) for i in range(3)]
    for one in calm:
        one.elsewhere = None
    run(*calm, elsewhere=elsewhere)
    assert asked == []


works = st.lists(
    st.builds(
        lambda ttft_s, occupies_s, away_usd, worth_usd: (ttft_s, occupies_s, away_usd, worth_usd),
        st.none() | st.floats(0.5, 60.0),
        st.floats(1.1, 30.0),
        st.none() | st.floats(0.0, 0.02),
        st.floats(0.0, 0.05),
    ),
    max_size=14,
)


def made(drawn: list[tuple[float | None, float, float | None, float]]) -> list[Item]:
    return [work(f"r{i:02}", ttft_s=t, occupies_s=o, away_usd=a, worth_usd=w) for i, (t, o, a, w) in enumerate(drawn)]


def total_usd(items: list[Item], places: dict[str, Place]) -> float:
    usd = 0.0
    for one in items:
        place = places[one.request.id]
        if place.away:
            assert one.elsewhere is not None
            usd += next(v for v, name in one.elsewhere if name == place.endpoint)
        else:
            usd += value_usd(one.request, one.own["own"].base, one.worth_usd, place.feared_s)
    return usd


@pytest.mark.lengthy
@given(works, st.lists(st.floats(0.0, 20.0), min_size=1, max_size=3), st.integers(0, 5))
def test_sending_away_never_loses_money_against_sending_nothing_away(
    drawn: list[tuple[float | None, float, float | None, float]], slots_s: list[float], rooms: int
) -> None:
    stay = run(*made(drawn), slots_s=tuple(slots_s), rooms=0)
    places = run(*made(drawn), slots_s=tuple(slots_s), rooms=rooms)
    assert total_usd(made(drawn), places) >= total_usd(made(drawn), stay) - 1e-4


@given(works, st.lists(st.floats(0.0, 20.0), min_size=1, max_size=3), st.integers(0, 5))
def test_every_item_has_a_place_and_rooms_are_kept(
    drawn: list[tuple[float | None, float, float | None, float]], slots_s: list[float], rooms: int
) -> None:
    items = made(drawn)
    places = run(*items, slots_s=tuple(slots_s), rooms=rooms, now_s=3.0)
    assert set(places) == {one.request.id for one in items}
    assert len(away(places)) <= rooms
    assert all(place.start_s >= 3.0 for place in places.values())
    # No slot serves two at once.
    busy = [(p.start_s, items[int(n[1:])].own["own"].occupies_s) for n, p in places.items() if not p.away]
    for start_s, _ in busy:
        assert sum(s <= start_s < s + o - 1e-9 for s, o in busy) <= len(slots_s)


@given(works, st.permutations(range(14)))
def test_the_order_in_which_work_is_named_changes_no_place(
    drawn: list[tuple[float | None, float, float | None, float]], order: list[int]
) -> None:
    items = made(drawn)
    shuffled = [items[i] for i in order if i < len(items)]
    assert run(*shuffled, rooms=2) == run(*made(drawn), rooms=2)
