"""The scenarios that are shipped: each says what it is about, keeps its bounds, and comes out the same again."""

from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from tidegate.core.baseline import BASELINES
from tidegate.core.model import Line, Request, Started
from tidegate.core.replay import replay
from tidegate.core.rules import may_go_to
from tidegate.sim.report import ALL, Report, report
from tidegate.sim.rival import Rival
from tidegate.sim.scenario import load
from tidegate.sim.stage import play

pytestmark = pytest.mark.slow

FOLDER = Path("scenarios")
FILES = sorted(FOLDER.glob("*.toml"))
OWN = "own"


def played(file: Path, policy: str = OWN) -> tuple[Report, list[Line]]:
    scenario = load(file)
    lines: list[Line] = []
    rule = BASELINES.get(policy)
    decider = None if rule is None else Rival(rule, scenario.endpoints, scenario.policy)
    return report(scenario, policy, play(scenario, decider=decider, journal=lines.append)), lines


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_scenario_keeps_its_bounds_and_its_journal_replays(file: Path) -> None:
    found, lines = played(file)
    assert found.bounds
    assert [mark for mark in found.bounds if not mark.holds] == []
    assert file.read_text().startswith("# ")
    again = replay(lines)
    assert again.difference is None
    assert again.decisions >= found.groups[0].requests


@pytest.mark.parametrize("seed", [1, 8])
def test_a_vendor_that_turns_away_three_in_ten_is_still_sent_what_is_late_at_home(tmp_path: Path, seed: int) -> None:
    text = (FOLDER / "overloaded-vendor.toml").read_text().replace("errors = 0.1", "errors = 0.3")
    file = tmp_path / "overloaded.toml"
    file.write_text(text.replace("[world]", f"[world]\nseed = {seed}"))
    found, _ = played(file)
    whole = found.groups[0]
    assert whole.kept >= 0.91 * whole.requests
    assert whole.refused <= 0.005 * whole.requests


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_figures_add_up(file: Path) -> None:
    found, _ = played(file)
    whole, *classes = found.groups
    assert whole.name == ALL
    assert whole.requests == whole.served + whole.refused + whole.failed + whole.timed_out
    assert whole.requests == sum(one.requests for one in classes) == sum(one.arrivals for one in found.timeline)
    assert whole.requests == sum(one.ended for one in found.timeline) == sum(found.reasons.values())
    assert whole.kept == sum(one.kept for one in classes) == sum(one.kept for one in found.timeline)
    assert whole.served == sum(one.served for one in found.endpoints)
    assert whole.usd == pytest.approx(sum(one.usd for one in found.endpoints))
    assert whole.usd == pytest.approx(sum(one.usd for one in found.timeline))
    for endpoint in found.endpoints:
        assert endpoint.attempts == sum(endpoint.endings.values())
        stretches = [b.at_s for b in found.timeline] + [found.elapsed_s]
        means = [b.in_flight[endpoint.name] for b in found.timeline]
        area = sum(mean * (late - early) for mean, (early, late) in zip(means, pairwise(stretches), strict=True))
        assert endpoint.in_flight_mean == pytest.approx(area / found.elapsed_s)


@pytest.mark.parametrize("policy", BASELINES)
def test_a_baseline_serves_it_too_and_sends_no_data_where_it_may_not_go(policy: str) -> None:
    file = FOLDER / "slow-wan.toml"  # some of whose requests have to stay
    found, lines = played(file, policy)
    endpoints = {endpoint.name: endpoint for endpoint in load(file).endpoints}
    requests = {line.fact.id: line.fact for line in lines if isinstance(line.fact, Request)}
    sent = [line.fact for line in lines if isinstance(line.fact, Started)]
    assert found.groups[0].requests == len(requests)
    assert sent
    for fact in sent:
        assert may_go_to(requests[fact.request_id], endpoints[fact.endpoint])


def test_the_decisions_are_better_than_the_static_rule_where_a_laptop_is_shared() -> None:
    file = FOLDER / "laptop-and-cloud.toml"
    own, static = played(file)[0].groups[0], played(file, "local-first")[0].groups[0]
    assert own.attainment > static.attainment + 0.1


def test_a_wrong_prior_is_unlearned() -> None:
    found, _ = played(FOLDER / "bad-prior.toml")
    laptop = next(one for one in found.endpoints if one.name == "laptop")
    assert laptop.prediction is not None
    assert laptop.prediction.error_p50 < 1.3


def test_the_same_seed_gives_the_same_journal_and_another_one_another() -> None:
    def digest(seed: int) -> str:
        lines: list[Line] = []
        play(load(FOLDER / "crash-at-peak.toml", seed=seed), journal=lines.append)
        return blake2b(b"\n".join(map(msgspec.json.encode, lines))).hexdigest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)
