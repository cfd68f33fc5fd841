"""Tenants who share an engine of ours in a simulated world: one sends more than it can ever do, the others are modest.

`python -m tests.sim.test_shares` prints what docs/explanation/shares.md quotes.
"""

from collections.abc import Sequence

import msgspec
import pytest
from msgspec.structs import replace

from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.core.model import Decision, Line
from tidegate.core.replay import replay as replayed
from tidegate.core.shares import REST_SHARE
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

DURATION_S = 300.0
CLASSES = (
    "[class.interactive]\nslo = { ttft_ms = 3000 }\nworth_usd = 0.002\n"
    "[class.standard]\nslo = { ttft_ms = 6000 }\nworth_usd = 0.002\n"
    "[class.night]\nslo = { tpot_ms = 1000 }\nworth_usd = 0.002\n"
)
SMALL = HEAD.replace("concurrency = 4", "concurrency = 2")
ALONE = SMALL[: SMALL.index("[site.cloud]")] + SMALL[SMALL.index("[endpoint.own]") : SMALL.index("[endpoint.far]")]


class Sends(msgspec.Struct, frozen=True, kw_only=True):
    """Whose requests come how often. All of one `key` are one tenant."""

    name: str
    key: str
    rate_per_s: float
    weight: float = 1.0
    klass: str = "interactive"

    @property
    def table(self) -> str:
        return (
            f'[[traffic]]\nname = "{self.name}"\nmodel = "m"\nkey = "{self.key}"\nweight = {self.weight}\n'
            f"classes = {{ {self.klass} = 1 }}\nrate_per_s = {self.rate_per_s}\noutput_tokens = 100\n"
            "prompt_tokens = { median = 900, sigma = 1.0, most = 3000 }\n"
        )


FLOOD = Sends(name="flood", key="flood", rate_per_s=6.0)
MODEST = Sends(name="modest", key="modest", rate_per_s=0.4)


def played(
    *sends: Sends, seed: int = 1, paid: bool = False, duration_s: float = DURATION_S, policy: str = ""
) -> tuple[list[Outcome], list[Line]]:
    world = f"[world]\nduration_s = {duration_s}\nseed = {seed}\n{policy}"
    engines = SMALL + OWN + FAR if paid else ALONE + OWN
    lines: list[Line] = []
    text = world + CLASSES + engines + "".join([one.table for one in sends])
    return play(parse(text, "s.toml"), journal=lines.append).outcomes, lines


def of(outcomes: Sequence[Outcome], sends: Sends) -> list[Outcome]:
    return [one for one in outcomes if one.request.id.startswith(f"{sends.name}-")]


def kept(outcomes: Sequence[Outcome], sends: Sends) -> float:
    """The share of its promises that was kept."""
    mine = of(outcomes, sends)
    return sum(one.kept for one in mine) / len(mine)


def served(outcomes: Sequence[Outcome], sends: Sends) -> float:
    """How many of its requests our own engine began a second, while all of them came."""
    end_s = min(one.request.arrived_s for one in outcomes) + DURATION_S
    mine = [one for one in of(outcomes, sends) if one.endpoint == "own"]
    return sum(one.request.arrived_s + one.held_s < end_s for one in mine) / DURATION_S


THREE = Sends(name="three", key="three", rate_per_s=4.0, weight=3.0)
ONE = Sends(name="one", key="one", rate_per_s=4.0)
DAY = Sends(name="day", key="", rate_per_s=6.0)
NIGHT = Sends(name="night", key="", rate_per_s=2.0, klass="night")
"""Each alone is more than the engine can do."""
ROOM = "[policy]\nheld_max = 10000\n"
"""Nobody is refused for want of a place."""


@pytest.fixture(scope="module")
def beside() -> list[Outcome]:
    return played(MODEST, FLOOD)[0]


@pytest.mark.slow
def test_a_modest_key_keeps_its_promises_beside_one_that_floods(beside: list[Outcome]) -> None:
    alone = kept(played(MODEST)[0], MODEST)
    assert kept(beside, MODEST) >= alone - 0.02
    assert all(one.outcome == "ok" for one in of(beside, MODEST))


@pytest.mark.slow
def test_so_it_does_where_an_api_takes_the_rest() -> None:
    alone, two = played(MODEST, paid=True)[0], played(MODEST, FLOOD, paid=True)[0]
    assert kept(two, MODEST) >= kept(alone, MODEST) - 0.02


@pytest.mark.slow
def test_the_engine_does_as_much_as_for_one_tenant(beside: list[Outcome]) -> None:
    one = played(replace(MODEST, key=""), replace(FLOOD, key=""))[0]
    assert sum(each.outcome == "ok" for each in beside) >= 0.98 * sum(each.outcome == "ok" for each in one)


@pytest.mark.slow
def test_two_that_flood_are_served_by_their_weights() -> None:
    outcomes, _ = played(THREE, ONE)
    assert served(outcomes, THREE) / served(outcomes, ONE) == pytest.approx(3.0, rel=0.1)


@pytest.mark.slow
def test_a_class_without_a_promise_goes_on_under_a_flood_of_another() -> None:
    outcomes, _ = played(DAY, NIGHT, policy=ROOM)
    day, night = served(outcomes, DAY), served(outcomes, NIGHT)
    assert night / (day + night) == pytest.approx(REST_SHARE, rel=0.2)


@pytest.mark.lengthy
def test_a_reader_sees_that_the_share_decided() -> None:
    _, lines = played(MODEST, FLOOD, duration_s=60.0)
    whys = {line.fact.why for line in lines if isinstance(line.fact, Decision)}
    assert {Why.WAITS_FOR_SHARE, Why.SHARE_FULL, Why.KEPT_SHARE} <= whys


@pytest.mark.slow
def test_a_journal_with_several_tenants_replays() -> None:
    _, lines = played(MODEST, THREE, NIGHT, duration_s=30.0)
    assert replayed(lines).difference is None


def table() -> None:
    """What becomes of a modest key beside a flood, and of both as one tenant."""
    for paid in (False, True):
        for seed in (1, 2, 3):
            alone = kept(played(MODEST, seed=seed, paid=paid)[0], MODEST)
            two, _ = played(MODEST, FLOOD, seed=seed, paid=paid)
            one, _ = played(replace(MODEST, key=""), replace(FLOOD, key=""), seed=seed, paid=paid)
            print(
                f"{'with' if paid else 'without'} an API, seed {seed}: modest keeps {alone:.1%} alone, "
                f"{kept(two, MODEST):.1%} beside the flood, {kept(one, MODEST):.1%} as one tenant with it; "
                f"the flood keeps {kept(two, FLOOD):.1%} and {kept(one, FLOOD):.1%}; "
                f"${sum(each.usd for each in two):.3f} and ${sum(each.usd for each in one):.3f}",
                flush=True,
            )
    for seed in (1, 2, 3):
        outcomes, _ = played(THREE, ONE, seed=seed)
        print(f"weights 3 to 1, seed {seed}: {served(outcomes, THREE) / served(outcomes, ONE):.2f} to 1", flush=True)
        outcomes, _ = played(DAY, NIGHT, seed=seed, policy=ROOM)
        day, night = served(outcomes, DAY), served(outcomes, NIGHT)
        print(f"night under day, seed {seed}: {night / (day + night):.1%} of what is served", flush=True)


if __name__ == "__main__":
    table()
