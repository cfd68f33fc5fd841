"""A target for attainment in a simulated world: an engine of ours that is too small for what comes at once, and an API
that is quick and asks money. `python -m tests.sim.test_target` prints what docs/explanation/targets.md quotes.
"""

import pytest

from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.core.model import Judged, Line
from tidegate.core.replay import replay
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

pytestmark = pytest.mark.slow

DURATION_S = 1500.0
BURSTS = (
    '[[traffic]]\nmodel = "m"\nrate_per_s = 1.3\nlaw = "gamma"\ncv = 3\noutput_tokens = 100\n'
    "prompt_tokens = { median = 900, sigma = 1.0, most = 3000 }\n"
)
STEADY = BURSTS.replace('rate_per_s = 1.3\nlaw = "gamma"\ncv = 3\n', "rate_per_s = 2.5\n")
"""More than the engine can ever do."""
TARGETS = (0.8, 0.9, 0.97)


def played(
    says: str, *, seed: int = 1, duration_s: float = DURATION_S, traffic: str = BURSTS
) -> tuple[list[Outcome], list[Line]]:
    world = f"[world]\nduration_s = {duration_s}\nseed = {seed}\n"
    klass = f"[class.interactive]\nslo = {{ ttft_ms = 2000 }}\n{says}\n"
    small = HEAD.replace("concurrency = 4", "concurrency = 2")
    lines: list[Line] = []
    scenario = parse(world + klass + small + OWN + FAR + traffic, "s.toml")
    return play(scenario, journal=lines.append).outcomes, lines


def second_half(outcomes: list[Outcome], duration_s: float = DURATION_S) -> tuple[float, float]:
    """The share of promises kept, and the dollars, of those that came in it."""
    began_s = min(one.request.arrived_s for one in outcomes)
    late = [one for one in outcomes if one.request.arrived_s >= began_s + duration_s / 2.0]
    return sum(one.kept for one in late) / len(late), sum(one.usd for one in late)


@pytest.fixture(scope="module")
def found() -> dict[float, tuple[float, float]]:
    return {target: second_half(played(f"attainment = {target}")[0]) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_as_many_promises_are_kept_as_were_asked_for(target: float, found: dict[float, tuple[float, float]]) -> None:
    assert found[target][0] == pytest.approx(target, abs=0.02)


def test_keeping_more_of_them_costs_more(found: dict[float, tuple[float, float]]) -> None:
    usd = [found[target][1] for target in TARGETS]
    assert usd == sorted(usd)
    assert usd[-1] > 1.5 * usd[0]


def test_a_journal_with_targets_replays() -> None:
    outcomes, lines = played("attainment = 0.5", duration_s=400.0)
    told = [line.fact for line in lines if isinstance(line.fact, Judged)]
    assert len(told) == len(outcomes)
    assert {one.kept for one in told} >= {True, False}
    assert replay(lines).difference is None


def test_where_worth_is_given_nothing_is_told() -> None:
    _, lines = played("worth_usd = 0.002", duration_s=60.0)
    assert not [line for line in lines if isinstance(line.fact, Judged)]


def table() -> None:
    """What became of each target."""
    for name, traffic, seeds in (("bursts", BURSTS, (1, 2, 3)), ("steady", STEADY, (1,))):
        for seed in seeds:
            for target in TARGETS:
                kept, usd = second_half(played(f"attainment = {target}", seed=seed, traffic=traffic)[0])
                print(f"{name}, seed {seed}, target {target:.0%}: kept {kept:.1%}, ${usd:.3f}", flush=True)


if __name__ == "__main__":
    table()
