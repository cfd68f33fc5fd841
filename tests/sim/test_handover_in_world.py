"""Prompts computed elsewhere, in a simulated world: what that saves, and what becomes of it when something breaks."""

from pathlib import Path

import msgspec
import pytest

from tidegate.config.problem import ConfigError
from tidegate.core.model import Decision, Ended, Ending, Handover, Line, Prefill, Request, Shipped, Started, replace
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.sim import twin
from tidegate.sim.carrier import Carrier, CarrierProfile, Shipment, as_declared
from tidegate.sim.chance import Chance
from tidegate.sim.loop import Loop
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.observed import known, observe
from tidegate.sim.scenario import Scenario, load, parse
from tidegate.sim.schema import FaultKind, FaultTable
from tidegate.sim.stage import Played, play

FILE = Path("scenarios/remote-prefill.toml")
LINK = LinkProfile(rtt_s=0.02, upload_bytes_per_s=1e6, download_bytes_per_s=1e6)


def scenario(seconds: float = 300.0, **changes: object) -> Scenario:
    made = load(FILE)
    return replace(made, world=msgspec.structs.replace(made.world, duration_s=seconds), **changes)


def without(made: Scenario) -> Scenario:
    return replace(made, endpoints=tuple(replace(one, handovers=()) for one in made.endpoints))


def played(made: Scenario) -> tuple[Played, list[Line]]:
    lines: list[Line] = []
    return play(made, journal=lines.append), lines


def usd(found: Played) -> float:
    return sum(outcome.usd for outcome in found.outcomes)


def test_it_is_cheaper_than_either_side_alone_and_every_decision_comes_out_again() -> None:
    found, lines = played(scenario())
    alone, _ = played(without(scenario()))
    assert usd(found) < 0.9 * usd(alone)
    assert {outcome.outcome for outcome in found.outcomes} == {"ok"}
    firsts = [line.fact.plan[0] for line in lines if isinstance(line.fact, Decision) and line.fact.plan]
    assert sum(isinstance(step, Prefill) for step in firsts) > 10
    assert replay(lines).difference is None


def test_who_decodes_computes_one_token_of_what_has_come() -> None:
    _, lines = played(scenario())
    shipped = {line.fact.id for line in lines if isinstance(line.fact, Request) and line.fact.shipped}
    ended = [line.fact for line in lines if isinstance(line.fact, Ended) and line.fact.request_id in shipped]
    at_home = [one for one in ended if one.endpoint == "laptop" and one.ending is Ending.OK]
    assert at_home
    for one in at_home:
        assert one.prompt_tokens is not None
        assert one.cached_tokens == one.prompt_tokens - 1


def test_each_prompt_that_is_computed_comes_or_is_told_not_to() -> None:
    _, lines = played(scenario())
    begun = {line.fact.request_id for line in lines if isinstance(line.fact, Started) and line.fact.target}
    computed = {
        line.fact.request_id
        for line in lines
        if isinstance(line.fact, Ended)
        and line.fact.endpoint == "cluster"
        and line.fact.request_id in begun
        and line.fact.ending is Ending.OK
    }
    told = {line.fact.request_id for line in lines if isinstance(line.fact, Shipped)}
    assert told <= computed


def test_where_the_way_is_down_prompts_are_computed_otherwise() -> None:
    outage = FaultTable(kind=FaultKind.OUTAGE, endpoint="cluster", to="laptop", at_s=0.0, for_s=1000.0)
    found, lines = played(scenario(faults=(outage,)))
    assert {outcome.outcome for outcome in found.outcomes} == {"ok"}
    told = [line.fact for line in lines if isinstance(line.fact, Shipped)]
    assert told
    assert not any(one.ok for one in told)
    assert len(told) < 30, "after some, nobody tries any more but now and then"
    assert replay(lines).difference is None
    # Who has just computed the prompt has it cached, and may well be the best by now.
    facts = [line.fact for line in lines]
    for fact in told:
        since = (one for one in facts[facts.index(fact) :] if getattr(one, "request_id", "") == fact.request_id)
        again = next(one for one in since if isinstance(one, Decision | Started))
        assert isinstance(again, Decision), "it is decided anew"
        assert {step.endpoint for step in again.plan} == {"cluster", "laptop"}


@pytest.mark.parametrize("endpoint", ["cluster", "laptop"])
def test_an_engine_that_dies_loses_nothing_that_another_can_do(endpoint: str) -> None:
    crash = FaultTable(kind=FaultKind.CRASH, endpoint=endpoint, at_s=60.0, for_s=30.0)
    found, lines = played(scenario(faults=(crash,)))
    lost = [one for one in found.outcomes if one.outcome != "ok"]
    begun = {one.request.id for one in lost if one.outcome == "failed_mid_stream"}
    hopeless = {one.request.id for one in lost if one.why is Why.TOO_LATE}
    assert begun | hopeless == {one.request.id for one in lost}, "but what its client had begun to see"
    assert replay(lines).difference is None


# --- the way itself -------------------------------------------------------------------------------------------------


def carried(shipping: CarrierProfile, *sizes: tuple[int, float]) -> list[tuple[float, int, int, float | None]]:
    loop = Loop(0.0)
    carrier = Carrier(shipping, Link(shipping.link, Chance(1), "way"), loop)
    found: list[tuple[float, int, int, float | None]] = []
    for tokens, prefill_s in sizes:
        carrier.send(Shipment(tokens, prefill_s, lambda *told: found.append((loop.now_s, *told))))
    loop.run(1e6)
    return found


def test_one_is_carried_after_the_other() -> None:
    shipping = CarrierProfile(link=LINK, kv_bytes_per_token=1000.0)
    found = carried(shipping, (1000, 1.0), (2000, 1.0))
    assert [told[1] for told in found] == [1_000_000, 2_000_000]
    assert [told[3] for told in found] == [pytest.approx(1.01), pytest.approx(2.01)], "without the wait for others"
    assert found[1][0] == pytest.approx(3.02)


def test_layers_go_while_others_are_computed() -> None:
    shipping = CarrierProfile(link=LINK, kv_bytes_per_token=1000.0, layers=10)
    assert carried(shipping, (1000, 0.4))[0][1:3] == (1_000_000, 600_000)
    assert carried(shipping, (1000, 60.0))[0][2] == 100_000, "the last one cannot be sent before it is computed"


def test_who_is_not_wanted_any_more_is_passed_over() -> None:
    loop = Loop(0.0)
    carrier = Carrier(CarrierProfile(link=LINK, kv_bytes_per_token=1000.0), Link(LINK, Chance(1), "way"), loop)
    found: list[float] = []
    shipments = [Shipment(1000, 1.0, lambda *told: found.append(loop.now_s)) for _ in range(3)]
    for shipment in shipments:
        carrier.send(shipment)
    shipments[1].over = True
    loop.run(1e6)
    assert found == [pytest.approx(1.01), pytest.approx(2.02)]


def test_a_way_that_is_as_declared_takes_as_long_as_that_says() -> None:
    handover = Handover(target="laptop", kv_bytes_per_token=500.0, kv_bytes_fixed=1e6, bytes_per_s=2e6)
    assert carried(as_declared(handover), (2000, 1.0)) == [(1.0, 2_000_000, 2_000_000, 1.0)]


# --- its file -------------------------------------------------------------------------------------------------------


def test_what_is_true_of_a_handover_that_is_not_declared_is_refused() -> None:
    text = FILE.read_text().replace('to = "laptop"\nlink', 'to = "cluster"\nlink')
    with pytest.raises(ConfigError, match="no handover goes there"):
        parse(text, str(FILE))


def test_a_way_that_is_not_there_cannot_be_down() -> None:
    text = (
        FILE.read_text()
        + """
[[fault]]
kind = "outage"
endpoint = "cluster"
to = "cloud"
at_s = 1
for_s = 1
"""
    )
    with pytest.raises(ConfigError, match="no handover goes there"):
        parse(text, str(FILE))


# --- its twin -------------------------------------------------------------------------------------------------------


def test_a_journal_with_handovers_has_a_twin_whose_figures_are_near() -> None:
    made = scenario(900.0)
    found, lines = played(made)
    seen = observe(lines)
    assert len(seen.asked) == len(found.outcomes), "who is decided again is no other request"
    assert {one.outcome.request.id: one.outcome.usd for one in seen.asked} == {
        one.request.id: pytest.approx(one.usd) for one in found.outcomes
    }
    again = twin.played(twin.twin(seen, known(lines)), made.policy)
    assert len(again) == len(found.outcomes)
    assert sum(one.usd for one in again) == pytest.approx(usd(found), rel=0.1)
    at_home = [sum(one.endpoint == "laptop" for one in outcomes) for outcomes in (again, found.outcomes)]
    assert at_home[0] == pytest.approx(at_home[1], rel=0.15)
