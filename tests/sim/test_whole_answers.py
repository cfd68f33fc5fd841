"""Answers in one piece, in a simulated world: nobody sees them begin, and what breaks in the middle is asked anew."""

import pytest

from tests import make as core
from tests.sim.days import LONG_S, Listed, OneAnswer
from tests.sim.make import job, profile
from tidegate.core.model import Capability, Ended, Ending, FirstToken, Price, Slo, Started
from tidegate.core.replay import replay
from tidegate.core.rows import Rows, attempt_usd
from tidegate.sim.engine import Engine
from tidegate.sim.place import Local
from tidegate.sim.world import World

PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)


class Asked(OneAnswer):
    """One answer, of which the desk is the first to be asked and may crash in its middle."""

    def __init__(
        self,
        *,
        stream: bool = False,
        streams: bool = False,
        crash_s: float | None = None,
        timeout_s: float = 600.0,
        output_tokens: int = 300,
        ttft_s: float = 1.0,
        needs: tuple[Capability, ...] = (),
    ) -> None:
        self.lines = []
        able = (Capability.CHAT, Capability.EMBEDDING)
        endpoints = [core.endpoint(name, streams=streams, capabilities=able, price=PRICE) for name in ("desk", "rack")]
        self.world = world = World(
            tuple(endpoints), core.policy(), journal=self.lines.append, request_timeout_s=timeout_s
        )
        places = {one.name: Local(one.name, Engine(profile()), world.loop, world) for one in endpoints}
        if crash_s is not None:
            world.loop.at(crash_s, places["desk"].crash, LONG_S)
        asked = job(
            "r", prompt_tokens=200, output_tokens=output_tokens, stream=stream, slo=Slo(ttft_s=ttft_s), needs=needs
        )
        world.run(places, Listed([asked]), probe_s=5.0, until_s=1_000.0)


def test_nobody_sees_it_begin_nor_can_say_whether_it_began_in_time() -> None:
    day = Asked()
    (sent,), (ended,) = day.facts(Started), day.facts(Ended)
    assert (sent.stream, day.facts(FirstToken)) == (False, [])
    assert (ended.ending, ended.ttft_s, ended.prompt_tokens, ended.output_tokens) == (Ending.OK, None, 200, 300)
    outcome = day.outcome
    assert (outcome.outcome, outcome.ttft_s, outcome.measured_s, outcome.judged) == ("ok", None, None, None)


def test_an_engine_that_streams_to_us_is_seen_to_begin() -> None:
    outcome, day = Asked(stream=True).outcome, Asked(streams=True)
    assert len(day.facts(FirstToken)) == 1
    assert (day.outcome.ttft_s, day.outcome.e2e_s) == (outcome.ttft_s, outcome.e2e_s)
    assert day.outcome.kept


@pytest.mark.parametrize("streams", [False, True])
def test_what_breaks_in_its_middle_is_made_good_elsewhere(streams: bool) -> None:
    day = Asked(streams=streams, crash_s=2.0)
    outcome, (broken, done) = day.outcome, day.facts(Ended)
    assert (outcome.outcome, outcome.endpoint, outcome.attempts) == ("ok", "rack", 2)
    assert (broken.cause, broken.ttft_s is not None, broken.output_tokens is not None) == ("reset", streams, streams)
    assert (done.ending, done.output_tokens) == (Ending.OK, 300)
    assert replay(day.lines).difference is None
    streamed = Asked(stream=True, crash_s=2.0).outcome
    assert (streamed.outcome, streamed.attempts) == ("failed_mid_stream", 1)


@pytest.mark.parametrize(("crash_s", "timeout_s"), [(None, 600.0), (2.0, 600.0), (None, 2.0)])
@pytest.mark.parametrize("streams", [False, True])
def test_it_costs_what_its_attempts_are_told_to_have_taken(
    streams: bool, crash_s: float | None, timeout_s: float
) -> None:
    day = Asked(streams=streams, crash_s=crash_s, timeout_s=timeout_s)
    usd = 0.0
    for sent, ended in zip(day.facts(Started), day.facts(Ended), strict=True):
        endpoint = day.world.endpoints[ended.endpoint]
        usd += attempt_usd(endpoint, day.outcome.request, sent, ended) + endpoint.running_usd(ended.e2e_s)
    assert day.outcome.usd == pytest.approx(usd)


def test_an_embedding_is_seen_when_it_is_there_and_may_be_late() -> None:
    day, rows = Asked(needs=(Capability.EMBEDDING,), output_tokens=1, ttft_s=0.01), Rows()
    outcome, (ended,) = day.outcome, day.facts(Ended)
    assert day.facts(FirstToken) == []
    assert outcome.e2e_s > 0.01
    assert (outcome.ttft_s, outcome.judged, ended.ttft_s) == (outcome.e2e_s, False, ended.e2e_s)
    (row,) = [row for line in day.lines for row in rows.feed(line)]
    assert (row.ttft_s, row.kept) == (outcome.ttft_s, False)
    assert replay(day.lines).difference is None
