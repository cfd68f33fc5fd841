"""Faults of a scenario happen where, when and for as long as it says."""

import pytest

from tidegate.core.model import Ended, Line, Overrides, Probed
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

TEXT = """
[world]
duration_s = 100
probe_s = 1
[world.endpoint.own]
engine = { slots = 32, kv_tokens = 65536, step = { base_s = 0.03, per_token_s = 0 } }
link = { rtt_s = 0, upload_bytes_per_s = 1e9, download_bytes_per_s = 1e9 }
[world.endpoint.far]
api = { ttft_s = 0.2, tpot_s = 0.01 }
[site.home]
local = true
[site.cloud]
local = false
[endpoint.own]
site = "home"
engine = "vllm"
serves = ["o", "m"]
context_tokens = 8192
concurrency = 32
[endpoint.far]
site = "cloud"
engine = "openai"
serves = ["f", "m"]
context_tokens = 8192
concurrency = 64
price = "free"
"""


def asked(model: str, fault: str, rate_per_s: int = 20) -> tuple[list[Outcome], list[Line], float]:
    """Short requests, twenty a second, while something goes wrong from 40.25 s, between two probes, to 60.25 s."""
    traffic = f'[[traffic]]\nname = "t"\nmodel = "{model}"\nrate_per_s = {rate_per_s}\n'
    traffic += "prompt_tokens = 50\noutput_tokens = 10\n"
    scenario = parse(f"{TEXT}{traffic}[[fault]]\nat_s = 40.25\nfor_s = 20\n{fault}\n", "trouble.toml")
    lines: list[Line] = []
    played = play(scenario, journal=lines.append)
    for outcome in played.outcomes:
        assert outcome.request.arrived_s >= scenario.start_s
    return played.outcomes, lines, scenario.start_s


def within(outcomes: list[Outcome], start_s: float, begin_s: float, end_s: float) -> list[Outcome]:
    return [o for o in outcomes if begin_s <= o.request.arrived_s - start_s < end_s]


def median_s(outcomes: list[Outcome]) -> float:
    times = sorted(o.e2e_s for o in outcomes if o.outcome == "ok")
    return times[len(times) // 2]


def test_a_crashed_engine_loses_what_it_has_and_is_back() -> None:
    outcomes, lines, start_s = asked("o", 'kind = "crash"\nendpoint = "own"')
    lost = [line for line in lines if isinstance(line.fact, Ended) and line.fact.cause == "reset"]
    assert lost
    assert {round(line.at_s - start_s) for line in lost} == {40}
    assert all(o.outcome != "ok" for o in within(outcomes, start_s, 41, 59))
    assert all(o.outcome == "ok" for o in within(outcomes, start_s, 62, 100))


@pytest.mark.lengthy
def test_what_is_frozen_is_late() -> None:
    outcomes, _, start_s = asked("o", 'kind = "freeze"\nendpoint = "own"')
    assert median_s(within(outcomes, start_s, 0, 39)) < 0.5
    under_way = within(outcomes, start_s, 40.1, 40.25)
    assert under_way
    assert all(o.outcome != "ok" or o.e2e_s > 15.0 for o in under_way)
    assert median_s(within(outcomes, start_s, 75, 100)) < 0.5


def test_what_is_frozen_answers_no_probe_and_is_down_after_two() -> None:
    _, lines, start_s = asked("o", 'kind = "freeze"\nendpoint = "own"', rate_per_s=1)
    # Eleven seconds are as long as two lost probes take.
    assert found_down(lines, start_s) == list(range(52, 61))


@pytest.mark.lengthy
def test_what_is_slow_is_slow_for_as_long() -> None:
    for model, endpoint in (("o", "own"), ("f", "far")):
        outcomes, _, start_s = asked(model, f'kind = "slow"\nendpoint = "{endpoint}"\nfactor = 3')
        usual_s = median_s(within(outcomes, start_s, 0, 39))
        assert median_s(within(outcomes, start_s, 45, 59)) > 2.0 * usual_s
        assert median_s(within(outcomes, start_s, 75, 100)) < 1.5 * usual_s


def test_nobody_is_reached_while_the_way_is_down() -> None:
    outcomes, lines, start_s = asked("o", 'kind = "outage"\nendpoint = "own"')
    probes = [(line.at_s, line.fact) for line in lines if isinstance(line.fact, Probed)]
    seen = {round(at_s - start_s): probe.up for at_s, probe in probes if probe.endpoint == "own"}
    assert {at_s for at_s, up in seen.items() if not up} <= set(range(40, 61))
    assert not seen[50]
    assert all(o.outcome != "ok" for o in within(outcomes, start_s, 41, 59))
    assert all(o.outcome == "ok" for o in within(outcomes, start_s, 62, 100))


def test_an_api_that_is_unavailable_says_so() -> None:
    outcomes, lines, start_s = asked("f", 'kind = "unavailable"\nendpoint = "far"')
    assert any(isinstance(line.fact, Ended) and line.fact.cause == "status_503" for line in lines)
    assert all(o.outcome != "ok" for o in within(outcomes, start_s, 41, 59))
    assert all(o.outcome == "ok" for o in within(outcomes, start_s, 62, 100))


@pytest.mark.lengthy
def test_a_limit_holds_for_as_long_as_it_is_said() -> None:
    outcomes, _, start_s = asked("f", 'kind = "rate_limit"\nendpoint = "far"\nrequests_per_minute = 30')
    served = [o for o in within(outcomes, start_s, 40.25, 60.25) if o.outcome == "ok"]
    assert len(served) <= 30 + 10  # a minute's worth at once, and what the twenty seconds bring
    assert all(o.outcome == "ok" for o in within(outcomes, start_s, 65, 100))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param('kind = "drain"\nendpoint = "own"', Overrides(drained=("own",)), marks=pytest.mark.slow),
        pytest.param('kind = "pin"\nendpoint = "far"', Overrides(pinned=("far",)), marks=pytest.mark.slow),
        ('kind = "static"', Overrides(static=True)),
    ],
)
def test_operators_drain_pin_and_put_the_static_rule_in_force(kind: str, said: Overrides) -> None:
    outcomes, lines, start_s = asked("m", kind)
    told = [(line.at_s - start_s, line.fact) for line in lines if isinstance(line.fact, Overrides)]
    assert told == [(40.25, said), (60.25, Overrides())]
    expected = "own" if said.static else "far"
    assert {o.endpoint for o in within(outcomes, start_s, 40.25, 60.25)} == {expected}


def test_two_that_overlap_end_with_the_later_one() -> None:
    outcomes, lines, start_s = asked(
        "m",
        'kind = "drain"\nendpoint = "own"\n[[fault]]\nkind = "drain"\nendpoint = "own"\nat_s = 50\nfor_s = 20',
    )
    told = [(line.at_s - start_s, line.fact.drained) for line in lines if isinstance(line.fact, Overrides)]
    assert told == [(40.25, ("own",)), (50.0, ("own",)), (60.25, ("own",)), (70.0, ())]
    assert {o.endpoint for o in within(outcomes, start_s, 40.25, 70)} == {"far"}


def found_down(lines: list[Line], start_s: float) -> list[int]:
    """When probes found `own` down, in seconds."""
    probes = [(line.at_s - start_s, line.fact) for line in lines if isinstance(line.fact, Probed)]
    return [round(at_s) for at_s, probe in probes if probe.endpoint == "own" and not probe.up]


def test_a_crash_within_another_one_brings_nothing_back_sooner() -> None:
    outcomes, lines, start_s = asked(
        "o",
        'kind = "crash"\nendpoint = "own"\n[[fault]]\nkind = "crash"\nendpoint = "own"\nat_s = 45\nfor_s = 5',
    )
    assert found_down(lines, start_s) == list(range(41, 61))
    assert all(o.outcome != "ok" for o in within(outcomes, start_s, 41, 59))
    assert all(o.outcome == "ok" for o in within(outcomes, start_s, 62, 100))


def test_crashes_that_overlap_end_with_the_later_one() -> None:
    _, lines, start_s = asked(
        "o",
        'kind = "crash"\nendpoint = "own"\n[[fault]]\nkind = "crash"\nendpoint = "own"\nat_s = 50\nfor_s = 20.25',
    )
    assert found_down(lines, start_s) == list(range(41, 71))
