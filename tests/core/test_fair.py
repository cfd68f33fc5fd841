"""The schedule with shares: who goes behind, who is not sent away for others, and whose turn it is of the rest."""

from msgspec.structs import replace as changed

from tests import make
from tests.core.test_hold import away, base
from tidegate.core import fair
from tidegate.core.fair import Standing
from tidegate.core.model import Slo
from tidegate.core.shares import flow_of
from tidegate.core.starts import Item, Place, Pool, item
from tidegate.core.value import value_usd


def work(
    name: str,
    key: str,
    ttft_s: float | None,
    *,
    weight: float = 1.0,
    klass: str = "chat",
    away_usd: float | None = None,
    worth_usd: float = 0.01,
) -> Item:
    """It takes ten seconds of a slot, and shows something after the first; elsewhere it is in time for `away_usd`."""
    request = make.request(
        name, key=key, weight=weight, klass=klass, slo=Slo(ttft_s=ttft_s), worth_usd=worth_usd, late_usd_per_s=0.0
    )
    cloud = base(first_s=0.5, cost_usd=away_usd or 0.0)
    elsewhere = [] if away_usd is None else [(value_usd(request, cloud, worth_usd, 0.0), "cloud")]
    return item(request, worth_usd, {"own": base(occupies_s=10.0)}, elsewhere)


def run(
    *items: Item, had_s: dict[str, float] | None = None, flows_s: dict[str, float] | None = None, owed: bool = False
) -> dict[str, Place]:
    had_s, flows_s = had_s or {}, flows_s or {}
    standing = Standing(
        tenants_s={one.request.id: had_s.get(one.request.key, 0.0) for one in items},
        flows_s={flow_of(one.request): flows_s.get(flow_of(one.request), 0.0) for one in items},
        owed=["own"] if owed else [],
        came_s=0.0,
    )
    return fair.schedule(list(items), {"own": Pool([0.0])}, {"cloud": 9}, lambda _: [], standing, 0.0)


def order(places: dict[str, Place]) -> list[str]:
    return sorted(places, key=lambda name: places[name].start_s)


def test_who_has_had_more_goes_behind_who_would_be_late() -> None:
    places = run(work("flood", "f", 4.0), work("modest", "m", 5.0), had_s={"f": 60.0})
    assert order(places) == ["modest", "flood"]
    assert places["flood"].behind
    assert not places["modest"].behind


def test_who_has_had_less_does_not_go_behind() -> None:
    places = run(work("flood", "f", 5.0), work("modest", "m", 4.0), had_s={"f": 60.0})
    assert order(places) == ["modest", "flood"]
    assert not any(place.behind for place in places.values())


def test_while_all_are_in_time_it_does_not_matter_who_has_had_more() -> None:
    places = run(work("flood", "f", 4.0), work("modest", "m", 50.0), had_s={"f": 60.0})
    assert order(places) == ["flood", "modest"]


def test_behind_a_flood_half_of_the_slack_is_waited_for_and_no_more() -> None:
    late = [work("flood-1", "f", 2.0), work("flood-2", "f", 3.0)]
    soon = run(*late, work("modest", "m", 30.0), had_s={"f": 60.0})
    assert order(soon)[0] != "modest"
    assert soon["modest"].start_s <= 15.0
    sooner = run(*late, work("modest", "m", 15.0), had_s={"f": 60.0})
    assert order(sooner)[0] == "modest"


def test_each_start_counts_so_that_the_next_one_is_anothers() -> None:
    flood = [work(f"flood-{n}", "f", 12.0 + n) for n in range(3)]
    modest = [work(f"modest-{n}", "m", 13.0 + n) for n in range(3)]
    assert order(run(*flood, *modest, had_s={"f": 5.0}))[0] == "modest-0"
    assert order(run(*flood, *modest[1:], had_s={"f": 5.0, "m": 10.0}))[0] == "flood-0"


def test_of_two_that_have_had_nothing_the_one_of_more_weight_has_more_in_time() -> None:
    heavy = [work(f"heavy-{n}", "h", 31.0 + n, weight=3.0) for n in range(6)]
    light = [work(f"light-{n}", "l", 30.0 + n) for n in range(6)]
    first = [name.partition("-")[0] for name in order(run(*heavy, *light))[:4]]
    assert first.count("heavy") >= 2
    even = [name.partition("-")[0] for name in order(run(*[_weighing_one(one) for one in heavy], *light))[:4]]
    assert even.count("heavy") < first.count("heavy")


def test_who_has_had_less_is_not_sent_away_for_who_has_had_more() -> None:
    modest, dear = work("modest", "m", 2.0, away_usd=0.001), work("dear", "f", 3.0, away_usd=0.009)
    assert away(run(modest, dear, had_s={"f": 60.0})) == {"dear"}
    assert away(run(modest, dear, had_s={"m": 60.0})) == {"modest"}


def test_the_rest_waits_until_its_share_is_owed() -> None:
    promised, night = work("promised", "d", 5.0), work("night", "d", None, klass="night")
    assert order(run(night, promised)) == ["promised", "night"]
    places = run(night, promised, owed=True)
    assert order(places) == ["night", "promised"]
    assert places["night"].owed


def test_of_the_rest_who_has_had_less_comes_first() -> None:
    many = [work(f"many-{n}", "f", None) for n in range(3)]
    few = work("z-few", "m", None)
    assert order(run(*many, few, had_s={"f": 1.0}))[0] == "z-few"
    assert order(run(*many, few, had_s={"m": 1.0}))[0] == "many-0"
    assert order(run(*many, few))[:2] == ["many-0", "z-few"]


def test_of_one_tenants_rest_the_class_that_has_had_less_comes_first() -> None:
    late, night = work("late", "d", 0.5), work("night", "d", None, klass="night")
    assert order(run(late, night, flows_s={"d/chat": 60.0})) == ["night", "late"]
    assert order(run(late, night, flows_s={"d/night": 60.0})) == ["late", "night"]


def _weighing_one(one: Item) -> Item:
    return Item(changed(one.request, weight=1.0), one.worth_usd, one.own, one.latest_start_s, one.elsewhere)
