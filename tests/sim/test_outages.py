"""While a way is down nothing comes by it, and what would have come does so as soon as it is up again."""

import pytest

from tests import make as core
from tests.sim.days import LONG_S, Listed, OneAnswer, Way
from tests.sim.make import job, profile
from tidegate.core.model import Ended, Line, Probed
from tidegate.engines.openai import OpenAI
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.place import Local, Remote
from tidegate.sim.world import World

RTT_S, STALL_S = 0.02, 60.0


class Cut(OneAnswer):
    """One answer from the far end of a way that is down for some time: its tokens take about as long as it says."""

    def __init__(self, *downs: tuple[float, float], answer_s: float = 20.0, own: bool = True) -> None:
        tokens = round(answer_s / 0.01)
        self.lines = []
        endpoint = core.endpoint("far", local=False, context_tokens=100_000)
        self.world = world = World((endpoint,), core.policy(stall_s=STALL_S), journal=self.lines.append)
        place: Local | Remote
        if own:
            place = Local("far", Engine(profile()), world.loop, world, Way(RTT_S))
        else:
            api = Api(ApiProfile(ttft_s=0.5, tpot_s=0.01), Chance(0), "far")
            place = Remote("far", api, world.loop, world, Way(RTT_S))
        for from_s, to_s in downs:
            world.loop.at(from_s, place.cut)
            world.loop.at(to_s, place.mend)
        asked = job("r", prompt_tokens=200, output_tokens=tokens)
        world.run({"far": place}, Listed([asked]), probe_s=5.0, until_s=LONG_S)


@pytest.mark.parametrize("own", [True, False])
def test_first_content_that_falls_into_an_outage_comes_at_its_end(own: bool) -> None:
    usual, late = Cut(own=own).outcome, Cut((0.012, 1.0), own=own).outcome
    assert usual.ttft_s is not None
    assert usual.ttft_s < 1.0
    assert late.outcome == "ok"
    assert late.ttft_s == pytest.approx(1.0 + RTT_S / 2)
    assert late.e2e_s == pytest.approx(usual.e2e_s)


@pytest.mark.parametrize("own", [True, False])
def test_so_does_the_end_and_an_outage_before_it_delays_nothing_but_tokens(own: bool) -> None:
    usual = Cut(own=own).outcome
    before = Cut((3.0, 10.0), own=own).outcome
    assert (before.outcome, before.ttft_s, before.e2e_s) == ("ok", usual.ttft_s, usual.e2e_s)
    up_s = usual.e2e_s + 5.0
    late = Cut((usual.e2e_s - 1.0, up_s), own=own).outcome
    assert (late.outcome, late.ttft_s, late.output_tokens) == ("ok", usual.ttft_s, usual.output_tokens)
    assert late.e2e_s == pytest.approx(up_s + RTT_S / 2)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_a_status_of_an_api_ends_an_attempt_as_it_does_in_a_gateway(status: int) -> None:
    lines: list[Line] = []
    world = World((core.endpoint("far", local=False),), core.policy(), journal=lines.append)
    api = Api(ApiProfile(ttft_s=0.5, tpot_s=0.01, errors=1.0, error_status=status), Chance(0), "far")
    place = Remote("far", api, world.loop, world, Way(RTT_S))
    world.run({"far": place}, Listed([job("r")]), probe_s=5.0, until_s=LONG_S)
    (ended,) = [line.fact for line in lines if isinstance(line.fact, Ended)]
    failure = OpenAI("", None).failure(status, {}, b"", 0.0)
    assert (ended.ending, ended.cause) == (failure.ending, failure.cause)


@pytest.mark.parametrize("own", [True, False])
def test_an_answer_of_which_nothing_comes_for_too_long_is_given_up(own: bool) -> None:
    day = Cut((20.0, 190.0), answer_s=240.0, own=own)
    (ended,) = day.facts(Ended)
    assert (day.outcome.outcome, ended.cause) == ("failed_mid_stream", "stalled")
    # What had come when it was looked at after a minute, and nothing at the next look.
    assert day.outcome.e2e_s == pytest.approx(2.0 * STALL_S, abs=1.0)


@pytest.mark.parametrize(("probe_s", "away", "found_s"), [(5.0, 4, 71.0), (60.0, 1, 72.0)])
def test_who_was_away_is_looked_for_five_times_as_often_as_it_is_probed(
    probe_s: float, away: int, found_s: float
) -> None:
    lines: list[Line] = []
    world = World((core.endpoint("far", local=False),), core.policy(), journal=lines.append)
    place = Local("far", Engine(profile()), world.loop, world, Way(RTT_S))
    world.loop.at(52.5, place.cut)
    world.loop.at(70.3, place.mend)
    world.run({"far": place}, Listed([job("r", arrived_s=200.0)]), probe_s=probe_s, until_s=LONG_S)
    seen = [(line.at_s, line.fact.up) for line in lines if isinstance(line.fact, Probed)]
    assert sum(not up for _, up in seen) == away
    assert next(at_s for at_s, up in seen if up and at_s > 60.0) == found_s
