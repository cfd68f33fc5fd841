"""What is kept from one question to the next changes no answer: who begins with the same state says the same."""

import msgspec
import pytest

from tests.sim.days import Stage
from tidegate.core.model import Decision, Segment
from tidegate.core.replay import Replay
from tidegate.core.router import Router
from tidegate.core.state import State

EACH = 3
"""Of lines, one in so many is looked at twice: a snapshot takes as long as many decisions."""


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", range(4))
def test_a_router_that_was_asked_all_along_answers_as_one_that_begins(seed: int) -> None:
    core, compared, held = Replay(), 0, 0
    for number, line in enumerate(Stage(seed, count=80, trouble=seed % 2 == 1, explore_share=0.0).lines):
        core.feed(line)
        router = core.router
        if router is None or isinstance(line.fact, Segment | Decision):
            continue
        # Asked after each fact, so that what is kept of the moment is there when the next one comes.
        due = [request.id for request in router.due(line.at_s)]
        if number % EACH or not router.held:
            continue
        fresh = Router(router.endpoints, router.policy, msgspec.json.decode(router.snapshot(), type=State))
        assert [request.id for request in fresh.due(line.at_s)] == due
        for request in list(router.state.held.values()):
            assert router.decide(request, line.at_s) == fresh.decide(request, line.at_s)
            compared += 1
        held = max(held, router.held)
    assert compared > 50
    assert held > 3
