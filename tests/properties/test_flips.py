"""What is said to make a decision another one does so, nothing nearer does, and asking changes nothing."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.storm import Storm
from tidegate.core.flips import Copy, Flip, Walk, first, flips, vanish, walks
from tidegate.core.model import Decision, Request
from tidegate.core.router import Router
from tidegate.core.state import EndpointState

seeds = st.integers(0, 10_000)
# Each looks at some decisions of a storm, along up to some twenty axes.
few = settings(max_examples=8)
EVERY, NEARER = 25, 12


def looked(seed: int, steps: int = 120) -> list[tuple[Copy, Request, float]]:
    """Some decisions of a storm, each with a copy of what was known when it was made."""
    found: list[tuple[Copy, Request, float]] = []
    count = 0

    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        nonlocal count
        count += 1
        if count % EVERY == 0:
            before = bytes(router.snapshot())
            copy = Copy(router)
            if decision.propensity == 1.0:
                assert copy.asked(request, now_s) == first(decision)
            assert bytes(router.snapshot()) == before
            found.append((copy, request, now_s))

    Storm(seed, check).run(steps)
    assert found
    return found


def between(walk: Walk, flip: Flip, draw: Random) -> list[float]:
    """Values that are nearer than the flip."""
    near, far = sorted((walk.now, flip.at))
    if walk.whole:
        return [float(draw.randint(int(near), int(far))) for _ in range(NEARER)]
    # The flip itself is known to a part in a million, which may be all that it is away.
    sure = max(0.0, 1.0 - 1e-5 - 1e-6 * abs(flip.at / (flip.at - walk.now)))
    return [walk.now + (flip.at - walk.now) * draw.uniform(0.0, sure) for _ in range(NEARER)]


@pytest.mark.lengthy
@few
@given(seeds)
def test_every_flip_flips_and_nothing_nearer_does(seed: int) -> None:
    check_flips(seed)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(10_001, 1_000_000))
def test_every_flip_flips_in_more_storms(seed: int) -> None:
    check_flips(seed)


def check_flips(seed: int) -> None:
    draw = Random(seed)
    for copy, request, now_s in looked(seed):
        here = copy.asked(request, now_s)
        by_axis = {(walk.axis, walk.endpoint): walk for walk in walks(copy, request, now_s)}
        for flip in flips(copy, request, now_s):
            walk = by_axis[flip.axis, flip.endpoint]
            assert walk.now == flip.now
            answer = walk.ask(flip.at)
            assert answer != here
            assert (answer.endpoint, answer.waits) == (flip.goes_to, flip.waits)
            for value in between(walk, flip, draw):
                assert value == flip.at or walk.ask(value) == here, f"{flip} flips at {value} already"


def taught(state: EndpointState) -> bytes:
    """All that the end of an attempt may teach."""
    cold, strikes = state.cold, (state.breaker.strikes, state.breaker.openings)
    of_loads = (cold.idle, cold.levels, cold.resident, cold.away, cold.loads)
    of_times = (state.ttft, state.tpot, state.e2e, state.late, state.prompts.kept)
    return msgspec.json.encode((strikes, of_loads, of_times, state.limit, state.network, state.given))


@pytest.mark.lengthy
@settings(max_examples=60)
@given(seeds)
def test_who_is_thought_away_teaches_nothing(seed: int) -> None:
    storm = Storm(seed).run(120)
    now_s, router = storm.now_s + 30.0, Copy(storm.router).router
    for name in [endpoint.name for endpoint in storm.endpoints]:
        state = router.endpoint(name).state
        before = taught(state)
        for request_id in list(state.reservations):
            vanish(router, name, request_id, now_s)
        assert not state.reservations
        assert taught(state) == before


@pytest.mark.lengthy
@settings(max_examples=3)
@given(seeds)
def test_looking_for_flips_changes_nothing(seed: int) -> None:
    for copy, request, now_s in looked(seed):
        before = bytes(copy.router.snapshot())
        once = flips(copy, request, now_s)
        assert flips(copy, request, now_s) == once
        assert bytes(copy.router.snapshot()) == before
