"""An answer that breaks off in a simulated world is completed by who has the same model, token by token."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import make as core
from tests.sim.days import LONG_S, Listed, OneAnswer, Way
from tests.sim.make import profile
from tidegate.core.model import Ended, Ending, Fingerprint, Request, Started
from tidegate.core.replay import replay
from tidegate.core.resume import RULE
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.place import Local
from tidegate.sim.world import World

TOKENS, STALL_S = 600, 3.0


class Broken(OneAnswer):
    """One answer of the desk's that something befalls in its middle; the other endpoint has this model."""

    def __init__(
        self, befalls: Callable[[Local, float], None], *, other: str = "one", at_s: float = 2.0, **settings: object
    ) -> None:
        desk = core.endpoint("desk", fingerprint=Fingerprint(weights="one"))
        rack = core.endpoint("rack", fingerprint=Fingerprint(weights=other))
        self.lines = []
        self.world = world = World((desk, rack), core.policy(stall_s=STALL_S, **settings), journal=self.lines.append)
        places = {name: Local(name, Engine(profile()), world.loop, world, Way(0.0)) for name in ("desk", "rack")}
        request = core.request("r", output_tokens_max=800)
        world.loop.at(at_s, lambda: befalls(places["desk"], world.loop.now_s))
        job = Job(request=request, prompt_tokens=200, output_tokens=TOKENS)
        world.run(places, Listed([job]), probe_s=5.0, until_s=LONG_S)


def crashes(desk: Local, now_s: float) -> None:
    desk.crash(now_s + 60.0)


def freezes(desk: Local, now_s: float) -> None:
    desk.freeze(now_s + 60.0)


def is_cut_off(desk: Local, now_s: float) -> None:
    desk.cut()


def test_a_long_answer_is_not_given_up_while_its_tokens_come() -> None:
    outcome = Broken(lambda desk, now_s: None).outcome
    assert (outcome.outcome, outcome.endpoint, outcome.attempts) == ("ok", "desk", 1)
    assert outcome.e2e_s > 2.0 * STALL_S


@pytest.mark.parametrize("befalls", [crashes, freezes])
def test_the_rest_is_asked_of_who_has_the_same_model(befalls: Callable[[Local, float], None]) -> None:
    day = Broken(befalls, resume=True)
    outcome = day.outcome
    assert (outcome.outcome, outcome.endpoint, outcome.output_tokens, outcome.attempts) == ("ok", "rack", TOKENS, 2)
    came, rest = day.facts(Request)
    broken, done = day.facts(Ended)
    assert broken.output_tokens == rest.said_tokens
    assert 0 < rest.said_tokens < TOKENS
    assert (done.ending, done.prompt_tokens, done.output_tokens) == (
        Ending.OK,
        200 + rest.said_tokens,
        TOKENS - rest.said_tokens,
    )
    assert (rest.prompt_tokens, rest.output_tokens_max) == (
        came.prompt_tokens + rest.said_tokens,
        800 - rest.said_tokens,
    )
    assert (rest.rulings[-1].rule, rest.rulings[-1].to) == (RULE, ("rack",))
    assert [one.said_tokens for one in day.facts(Started)] == [0, rest.said_tokens]
    assert replay(day.lines).difference is None


def test_what_was_made_while_nothing_could_come_is_asked_for_again() -> None:
    day = Broken(is_cut_off, resume=True)
    _, came = Broken(crashes, resume=True).facts(Request)
    _, rest = day.facts(Request)
    broken, _ = day.facts(Ended)
    assert (day.outcome.outcome, day.outcome.output_tokens, rest.said_tokens) == ("ok", TOKENS, came.said_tokens)
    assert broken.output_tokens == rest.said_tokens


@pytest.mark.parametrize("settings", [{"resume": False}, {"resume": True, "other": "another"}])
def test_where_it_may_not_be_resumed_or_nobody_can_it_has_failed(settings: dict[str, Any]) -> None:
    day = Broken(crashes, **settings)
    # The desk itself has its model, and is away.
    assert day.outcome.outcome == "failed_mid_stream"
    assert "rack" not in {one.endpoint for one in day.facts(Started)}
    assert replay(day.lines).difference is None


def test_what_broke_off_after_its_last_token_lacks_its_end_alone() -> None:
    whole = Broken(lambda desk, now_s: None).outcome
    day = Broken(freezes, resume=True, at_s=whole.e2e_s - 1e-6)
    assert day.outcome.outcome == "ok"
    assert TOKENS <= day.outcome.output_tokens <= TOKENS + 1
