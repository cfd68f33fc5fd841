"""Mirrored requests are decided in a world that keeps pace: what is said to be sent is under way for a while."""

from itertools import pairwise

import pytest

from tests import make as core
from tidegate.config.cap import Cap, Period
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ended,
    Line,
    Price,
    Request,
    Segment,
    Slo,
    Started,
    replace,
)
from tidegate.core.replay import replay
from tidegate.core.router import Router
from tidegate.core.rules import budget_usd_bound
from tidegate.core.why import Why
from tidegate.sim.mirrored import Mirrored
from tidegate.sim.purse import Purse

START_S = 1_700_000_000.0
OWN = core.endpoint("own", concurrency=2, usd_per_s=1e-5)
CLOUD = core.endpoint("cloud", local=False, price=Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6))


def request(number: int, at_s: float) -> Request:
    return core.request(
        f"m{number}",
        arrived_s=START_S + at_s,
        prompt_tokens=500,
        prompt_bytes=2000,
        slo=Slo(ttft_s=2.0),
        worth_usd=0.01,
    )


def mirrored(lines: list[Line] | None = None, now: str | None = None, seed: int = 0) -> Mirrored:
    write = (lambda _: None) if lines is None else lines.append
    return Mirrored((CLOUD, OWN), core.policy(), start_s=START_S, now=now, journal=write, seed=seed)


def went(decision: Decision) -> str:
    return decision.plan[0].endpoint


def test_what_would_be_under_way_fills_an_engine_and_leaves_it_again() -> None:
    mirror = mirrored()
    # Nobody is in a hurry who comes at once: three go where two have room, and the others wait or go away.
    first = [mirror.take(request(number, 0.0)) for number in range(6)]
    assert [went(one) for one in first[:2]] == ["own", "own"]
    assert all(one.why is not Why.CHEAPEST_ON_TIME for one in first[2:])
    assert went(mirror.take(request(9, 600.0))) == "own"
    assert mirror.told().requests == 7
    assert sum(mirror.told().by_endpoint.values()) == 6


def test_one_that_is_told_of_late_is_decided_all_the_same() -> None:
    mirror = mirrored(now="cloud")
    mirror.pass_until(START_S + 10.0)
    assert went(mirror.take(request(0, 9.0))) == "own"
    mirror.pass_until(START_S + 900.0)
    assert mirror.told().ours.requests == 1


def test_what_it_tells_is_what_both_worlds_come_to() -> None:
    mirror = mirrored(now="cloud")
    for number in range(40):
        mirror.take(request(number, 3.0 * number))
    mirror.pass_until(START_S + 900.0)
    found = mirror.told()
    assert found.theirs is not None
    assert found.saved_usd_per_1k is not None
    assert found.ours.requests == found.theirs.requests == 40
    assert found.theirs.away == 1.0
    assert found.ours.away < 0.5
    saved = found.theirs.usd_per_1k - found.ours.usd_per_1k
    assert found.saved_usd_per_1k.figure == pytest.approx(saved)
    assert saved > 0.0
    assert found.gained == found.missed == 0


def test_what_tidegate_may_spend_it_does_not_spend_twice_and_who_it_is_beside_spends_all_it_wants() -> None:
    most = budget_usd_bound(request(0, 0.0), CLOUD, CLOUD.context_tokens)
    purse = Purse([Cap(usd=1.5 * most, period=Period.DAY)])
    mirror = Mirrored((CLOUD,), core.policy(), start_s=START_S, now="cloud", purse=purse)
    for number in range(2):
        mirror.take(request(number, 0.0))
    mirror.pass_until(START_S + 900.0)
    found = mirror.told()
    assert found.theirs is not None
    assert (found.ours.served, found.theirs.served) == (0.5, 1.0)
    # Somebody could serve it, so a promise was missed.
    assert (found.missed, found.ours.kept, found.theirs.kept) == (1, 0.5, 1.0)


def test_nothing_is_compared_where_nobody_said_where_all_goes() -> None:
    mirror = mirrored()
    mirror.take(request(0, 0.0))
    found = mirror.told()
    assert (found.theirs, found.saved_usd_per_1k, found.missed, found.gained) == (None, None, None, None)


SLOW = replace(OWN, prior=replace(OWN.prior, prefill_s_per_token=0.02, decode_s_per_token=2.0))


@pytest.mark.lengthy
def test_nothing_is_compared_of_what_may_still_be_in_time_and_no_dollars_before_both_have_ended() -> None:
    mirror = Mirrored((CLOUD, SLOW), core.policy(), start_s=START_S, now="own")
    assert went(mirror.take(request(0, 0.0))) == "cloud"
    mirror.pass_until(START_S + 1.9)
    found = mirror.told()
    assert found.theirs is not None
    assert (found.ours.requests, found.theirs.requests, found.missed, found.gained) == (0, 0, 0, 0)
    mirror.pass_until(START_S + 60.0)
    found = mirror.told()
    assert found.theirs is not None
    assert (found.ours.requests, found.theirs.requests) == (1, 1)
    assert (found.saved_usd_per_1k, found.missed, found.gained) == (None, 0, 1)
    mirror.pass_until(START_S + 90_000.0)
    assert mirror.told().saved_usd_per_1k is not None


def test_what_is_stuck_where_all_goes_now_has_missed_its_promise() -> None:
    silent = replace(SLOW, concurrency=100, prior=replace(SLOW.prior, prefill_s_per_token=1.0))
    mirror = Mirrored((CLOUD, silent), core.policy(), start_s=START_S, now="own")
    for number in range(100):
        mirror.take(request(number, 0.1 * number))
    mirror.pass_until(START_S + 30.0)
    found = mirror.told()
    assert found.theirs is not None
    assert found.ours.requests == found.theirs.requests == 100
    assert (found.ours.kept, found.theirs.kept, found.theirs.served) == (1.0, 0.0, 0.0)
    assert (found.missed, found.gained) == (0, 100)
    # What it costs nobody knows before its end.
    assert (found.saved_usd_per_1k, found.ours.usd_per_1k, found.theirs.usd_per_1k) == (None, 0.0, 0.0)


def test_after_one_request_no_saving_is_certain() -> None:
    mirror = mirrored(now="cloud")
    mirror.take(request(0, 0.0))
    mirror.pass_until(START_S + 900.0)
    saved = mirror.told().saved_usd_per_1k
    assert saved is not None
    assert saved.low < 0.0 < saved.figure < saved.high


def test_where_nothing_differs_one_dear_request_still_may() -> None:
    mirror = mirrored(now="own")
    for number in range(20):
        mirror.take(request(number, 10.0 * number))
    mirror.pass_until(START_S + 900.0)
    saved = mirror.told().saved_usd_per_1k
    assert saved is not None
    assert saved.low < saved.figure == 0.0 < saved.high


def test_where_all_goes_now_may_be_where_it_may_not_go_here() -> None:
    mirror = mirrored(now="cloud")
    assert went(mirror.take(replace(request(0, 0.0), residency=("local",)))) == "own"
    assert went(mirror.take(request(1, 1.0))) == "own"
    mirror.pass_until(START_S + 900.0)
    theirs = mirror.told().theirs
    assert theirs is not None
    assert (theirs.requests, theirs.served, theirs.away) == (2, 1.0, 1.0)


def test_its_journal_is_a_gateways_and_comes_out_again() -> None:
    lines: list[Line] = []
    mirror = mirrored(lines, now="cloud")
    for number in range(30):
        mirror.take(request(number, 0.2 * number))
    mirror.pass_until(START_S + 900.0)
    header = Segment(
        version=JOURNAL_VERSION,
        software="mirror",
        policy=core.policy(),
        endpoints=(CLOUD, OWN),
        state=Router((CLOUD, OWN), core.policy()).snapshot(),
    )
    report = replay([Line(at_s=START_S, fact=header), *lines])
    assert report.difference is None
    assert report.decisions >= 30
    assert all(one.at_s <= other.at_s for one, other in pairwise(lines))
    assert len([1 for line in lines if isinstance(line.fact, Started)]) == len(
        [1 for line in lines if isinstance(line.fact, Ended)]
    )
