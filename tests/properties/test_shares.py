"""Laws of shares: one tenant changes nothing, who can be in time is not touched, nobody starves, no slot idles, and
places in a full queue are those of who has less than its share."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.core.test_hold import base
from tests.properties.storm import Storm
from tidegate.core import fair, hold, shares
from tidegate.core.fair import Standing
from tidegate.core.model import Request, Slo
from tidegate.core.places import below_share, displaced
from tidegate.core.revive import fault, revived
from tidegate.core.shares import FLOWS_MAX, REST_SHARE, Served, Shares, combined, flow_of, give, had_s, owed
from tidegate.core.starts import Item, Place, Pool, item

NOW_S = 1e6
WEIGHTS = {"a": 1.0, "b": 3.0, "c": 0.5, "d": 1.0}
seeds = st.integers(0, 100_000)


def asked(number: int, key: str, ttft_s: float | None, *, arrived_s: float = NOW_S, klass: str = "chat") -> Request:
    slo = Slo(ttft_s=ttft_s)
    weight = WEIGHTS.get(key, 1.0)
    return make.request(f"r{number}", arrived_s=arrived_s, key=key, weight=weight, slo=slo, klass=klass, worth_usd=0.01)


def work(request: Request, *, seconds: float, away_usd: float | None = None) -> Item:
    """It has its content after a tenth of a second, and a slot for so many."""
    elsewhere = [] if away_usd is None else [(away_usd, "cloud")]
    return item(request, 0.01, {"own": base(first_s=0.1, occupies_s=seconds)}, elsewhere)


def drawn(draw: Random, keys: Sequence[str], *, klasses: Sequence[str] = ("chat", "batch")) -> list[Item]:
    """Work of these tenants, of which some came a while ago and some was promised nothing."""
    found = []
    for number in range(draw.randint(1, 20)):
        request = asked(
            number,
            draw.choice(keys),
            draw.choice((None, 1.0, 3.0, 10.0, 60.0)),
            arrived_s=NOW_S - draw.choice((0.0, 0.5, 2.0, 40.0)),
            klass=draw.choice(klasses),
        )
        found.append(work(request, seconds=draw.choice((0.2, 1.0, 5.0)), away_usd=draw.choice((None, 0.004, -0.02))))
    return found


def standing(items: Sequence[Item], draw: Random, *, due: bool) -> Standing:
    had_s = {key: draw.choice((0.0, 3.0, 50.0)) for key in sorted({one.request.key for one in items})}
    return Standing(
        tenants_s={one.request.id: had_s[one.request.key] for one in items},
        flows_s={flow_of(one.request): draw.choice((0.0, 5.0)) for one in items},
        owed=["own"] if due else [],
        came_s=NOW_S - 30.0,
    )


def pools(draw: Random) -> dict[str, Pool]:
    return {"own": Pool([NOW_S + draw.choice((0.0, 0.0, 1.0, 4.0)) for _ in range(draw.randint(1, 4))], ahead_s=1e3)}


def both(items: list[Item], draw: Random, *, due: bool) -> tuple[dict[str, Place], dict[str, Place]]:
    """The schedule with shares, and the one that knows of none."""
    there = pools(draw)
    found = fair.schedule(items, there, {"cloud": 3}, lambda _: [], standing(items, draw, due=due), NOW_S)
    return found, hold.schedule(items, there, {"cloud": 3}, lambda _: [], NOW_S)


@given(seeds, st.booleans())
def test_where_there_is_one_class_of_one_tenant_nothing_is_another_way(seed: int, due: bool) -> None:
    draw = Random(seed)
    found, before = both(drawn(draw, "a", klasses=("chat",)), draw, due=due)
    assert found == before


@given(seeds)
def test_where_all_can_be_in_time_the_order_is_that_of_their_promises(seed: int) -> None:
    draw = Random(seed)
    items = [one for one in drawn(draw, "abc") if one.latest_start_s > NOW_S + 1_000.0 or draw.random() < 0.3]
    items = [one for one in items if one.latest_start_s != float("inf")]
    if not items:
        return
    found, before = both(items, draw, due=False)
    if all(place.away or place.feared_s <= one.latest_start_s for one, place in _placed(items, before)):
        assert found == before


@given(seeds, st.booleans())
def test_everybody_has_one_place_and_no_slot_idles_while_somebody_waits(seed: int, due: bool) -> None:
    draw = Random(seed)
    items = drawn(draw, "abcd")
    there = pools(draw)
    found = fair.schedule(items, there, {"cloud": 3}, lambda _: [], standing(items, draw, due=due), NOW_S)
    assert found.keys() == {one.request.id for one in items}
    here = [place for place in found.values() if not place.away]
    free = sum(at_s <= NOW_S for at_s in there["own"].slots_s)
    assert sum(place.start_s <= NOW_S for place in here) == min(free, len(here))


@given(seeds, st.booleans())
def test_the_order_in_which_it_is_asked_changes_nothing(seed: int, due: bool) -> None:
    draw = Random(seed)
    items = drawn(draw, "abcd")
    there, given_s = pools(draw), standing(items, draw, due=due)
    mixed = items.copy()
    draw.shuffle(mixed)
    one, other = (fair.schedule(each, there, {"cloud": 3}, lambda _: [], given_s, NOW_S) for each in (items, mixed))
    assert one == other


class Engine:
    """One slot, and who starts there by the schedule; every request takes a second of it."""

    def __init__(self, held: list[Request]) -> None:
        self.now_s, self.held = NOW_S, held
        self.shares = Shares({}, {})
        self.given, self.rest = Served(), Served()
        self.started: list[Request] = []

    def step(self, arrived: list[Request], patience_s: float) -> None:
        """So many come, and the next one starts."""
        self.held += arrived
        items = [work(one, seconds=1.0) for one in self.held]
        given_s = Standing(
            tenants_s={one.id: self.shares.tenant_s(one, self.now_s) for one in self.held},
            flows_s={flow_of(one): self.shares.flow_s(flow_of(one), self.now_s) for one in self.held},
            owed=["own"] if owed(self.rest, self.given, self.now_s) else [],
            came_s=self.now_s - patience_s,
        )
        pool = {"own": Pool([self.now_s], ahead_s=1e3)}
        found = fair.schedule(items, pool, {}, lambda _: [], given_s, self.now_s)
        for one in items:
            if found[one.request.id].start_s <= self.now_s:
                self._start(one)
        self.now_s += 1.0

    def _start(self, one: Item) -> None:
        request = one.request
        self.held.remove(request)
        self.started.append(request)
        self.shares.add(request.key, request.klass, 1.0, self.now_s)
        give(self.given, 1.0, self.now_s)
        if not self.now_s <= one.latest_start_s < float("inf"):
            give(self.rest, 1.0, self.now_s)


@given(seeds, st.integers(1, 4), st.integers(0, 3), st.sampled_from((0.0, 0.0, 2.0, 6.0)))
def test_nobody_starves_however_many_others_come(seed: int, tenants: int, own_before: int, had_s: float) -> None:
    """Once it has waited for long, within eleven times the work of its own before it, one request of each other tenant,
    and for each of these what its own has had."""
    draw = Random(seed)
    mine = [asked(number, "a", None, klass="night") for number in range(own_before + 1)]
    engine = Engine(mine.copy())
    engine.shares.add("a", "night", had_s, NOW_S)
    patience_s = 5.0
    most_s = patience_s + (own_before + 1 + tenants * (1.0 + had_s)) * (1.0 + 1.0 / REST_SHARE)
    number = 100
    while mine[-1] in engine.held:
        assert engine.now_s - NOW_S <= most_s
        arrived = []
        for _ in range(draw.choice((1, 1, 2, 5))):
            number += 1
            key = f"flood{draw.randrange(tenants)}"
            arrived.append(asked(number, key, draw.choice((1.0, 3.0, None)), arrived_s=engine.now_s))
        engine.step(arrived, patience_s)


@pytest.mark.lengthy
@given(seeds)
def test_two_that_flood_are_served_by_their_weights(seed: int) -> None:
    draw = Random(seed)
    engine = Engine([])
    for number in range(120):
        arrived = [
            asked(10 * number + place, draw.choice("ab"), draw.choice((2.0, 3.0)), arrived_s=engine.now_s)
            for place in range(4)
        ]
        engine.held = engine.held[-30:]
        engine.step(arrived, 1e9)
    counts = {key: sum(one.key == key for one in engine.started[20:]) for key in "ab"}
    assert 2.4 <= counts["b"] / counts["a"] <= 3.6


def _placed(items: Sequence[Item], places: dict[str, Place]) -> list[tuple[Item, Place]]:
    return [(one, places[one.request.id]) for one in items]


# --- what was served ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5.0, 50.0), max_size=20), st.randoms())
def test_what_is_served_in_a_moment_has_no_order(seconds: list[float], draw: Random) -> None:
    mixed, made = seconds.copy(), []
    draw.shuffle(mixed)
    for order in (seconds, mixed):
        served = Served(10.0, 0, NOW_S)
        for each in order:
            give(served, each, NOW_S + 3.0)
        made.append(served)
    assert made[0] == made[1]


@given(st.floats(0.0, 1e5), st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_it_fades_and_is_never_less_than_nothing(seconds: float, taken: float, later_s: float) -> None:
    served = Served(seconds, 0, NOW_S)
    give(served, -taken, NOW_S)
    assert 0.0 <= had_s(served, NOW_S + later_s) <= had_s(served, NOW_S) <= seconds


@given(st.integers(0, 3 * FLOWS_MAX))
def test_no_more_tenants_are_known_than_there_is_room_for_and_those_with_most_stay(count: int) -> None:
    tenants: dict[str, Served] = {}
    known = Shares(tenants, {})
    known.add("most", "chat", 1e6, NOW_S)
    for number in range(count):
        known.add(f"k{number}", "chat", 1.0, NOW_S)
    assert len(tenants) <= FLOWS_MAX
    assert "most" in tenants
    assert shares.fault(tenants) == ""


def some(seed: int, most: int = 5) -> dict[str, Served]:
    draw = Random(seed)
    return {
        f"k{draw.randrange(400)}": Served(draw.random() * 50.0, 0, NOW_S + draw.randrange(100)) for _ in range(most)
    }


@given(seeds, seeds, st.sampled_from((0, 5, 200)))
def test_two_gateways_make_one_whichever_comes_first(first: int, second: int, most: int) -> None:
    a, b = some(first, most), some(second, most)
    assert combined(a, b) == combined(b, a)
    assert shares.fault(combined(a, b)) == ""
    assert msgspec.json.decode(msgspec.json.encode(combined(a, b)), type=dict[str, Served]) == combined(a, b)


@pytest.mark.lengthy
@given(seeds)
def test_a_restart_keeps_what_everybody_has_had_and_no_clock_set_back_makes_it_more(seed: int) -> None:
    storm = Storm(seed).run(150)
    state, names = storm.router.state, [one.name for one in storm.endpoints]
    for now_s in (storm.now_s, storm.now_s - 100.0, storm.now_s + 100.0):
        after = revived(state, names, now_s)
        assert fault(after) == ""
        for known, kept in ((state.tenants, after.tenants), (state.flows, after.flows)):
            assert known.keys() == kept.keys()
            assert all(had_s(kept[name], kept[name].at_s) == had_s(one, one.at_s) for name, one in known.items())
            assert all(one.at_s <= now_s for one in kept.values())


@given(seeds)
def test_what_no_router_has_made_is_told(seed: int) -> None:
    state = Storm(seed).run(30).router.state
    state.tenants["a"] = Served(-1.0, 0, NOW_S)
    assert "`tenants`" in fault(state)
    state.tenants = {f"k{number}": Served() for number in range(FLOWS_MAX + 1)}
    assert "`tenants`" in fault(state)


# --- places ---------------------------------------------------------------------------------------------------------

holds = st.lists(st.sampled_from("abcd"), min_size=1, max_size=24)


@given(holds, st.integers(1, 12))
def test_who_has_no_more_than_its_share_of_the_places_keeps_them(keys: list[str], held_max: int) -> None:
    held = [asked(number, key, 5.0) for number, key in enumerate(keys)]
    gone = displaced(held, held_max, NOW_S)
    total = sum(WEIGHTS[key] for key in sorted(set(keys)))
    for key in sorted(set(keys)):
        left = sum(one.key == key and one.id not in gone for one in held)
        assert left >= min(keys.count(key), int(held_max * WEIGHTS[key] / total))
    assert len(gone) <= max(0, len(held) - held_max)
    assert not gone or len(set(keys)) > 1


@given(holds, st.sampled_from("abcd"), st.integers(1, 12))
def test_who_comes_below_its_share_takes_a_place_and_then_there_are_no_more_than_before(
    keys: list[str], key: str, held_max: int
) -> None:
    held = [asked(number, one, 5.0) for number, one in enumerate(keys[:held_max])]
    new = asked(99, key, 5.0)
    if len(held) == held_max and below_share(new, held, held_max):
        gone = displaced([*held, new], held_max, NOW_S)
        assert len(gone) == 1
        assert new.id not in gone
        assert all(one.key != key for one in held if one.id in gone)


@given(holds)
def test_one_tenant_has_every_place_while_it_is_alone(keys: list[str]) -> None:
    held = [asked(number, "a", 5.0) for number, _ in enumerate(keys)]
    assert not below_share(asked(99, "a", 5.0), held, len(held))
    assert displaced(held, 1, NOW_S) == set()
