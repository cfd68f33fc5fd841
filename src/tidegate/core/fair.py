"""The schedule where several tenants or classes are held: whom it makes late, and that nobody waits for ever.

Where all can be in time, they go in the order of promises, as in `hold`. Where somebody would be late, work of tenants
that have had more of our engines goes behind that of others whose slack is running out. And of an engine's seconds a
share is kept for those that are late or were promised nothing, so that they come to an end however many others are
promised something.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from tidegate.core.hold import Elsewhere, Table, ranked, turn
from tidegate.core.shares import flow_of
from tidegate.core.starts import Item, Place, Pool

# Behind work of who has had more, others wait for half of their slack at most, where not all can be in time.
SOON: Final = 0.5
_IN_TIME: Final = 0


class Standing(msgspec.Struct):
    """What was given of late, as far as the order needs it.

    By id of request, the seconds that its tenant has had for each unit of its weight; by `flow_of`, those of its class.
    At the endpoints `owed`, less than its share went to those that are late or were promised nothing; it is due to who
    came before `came_s`.
    """

    tenants_s: dict[str, float]
    flows_s: dict[str, float]
    owed: Collection[str]
    came_s: float


class _Order:
    """Who goes first: those who start in the share that is kept for the `rest`, then who can be in time, then the rest.

    `tags` are what their tenants will have had, for each unit of weight, when their turn comes; `takes_s` what each
    takes of an engine.
    """

    __slots__ = ("first", "rest", "tags", "takes_s", "timely")

    def __init__(
        self, first: list[Item], timely: list[Item], rest: list[Item], tags: dict[str, float], takes_s: dict[str, float]
    ) -> None:
        self.first = first
        self.timely = timely
        self.rest = rest
        self.tags = tags
        self.takes_s = takes_s


class _Before:
    """Work that is placed before others, and could go behind them."""

    __slots__ = ("request_id", "tag", "takes_s", "tenant")

    def __init__(self, tag: float, tenant: str, takes_s: float, request_id: str) -> None:
        self.tag = tag
        self.tenant = tenant
        self.takes_s = takes_s
        self.request_id = request_id


def schedule(
    items: list[Item],
    pools: Mapping[str, Pool],
    rooms: dict[str, int],
    elsewhere: Elsewhere,
    standing: Standing,
    now_s: float,
) -> dict[str, Place]:
    """Where each item goes, by request id, as `hold.schedule` says; nothing of what it is given is changed."""
    order = _order(items, pools, standing, now_s)
    in_order = [*order.first, *order.timely, *order.rest]
    due = {one.request.id for one in order.first}
    table = Table(in_order, pools, dict(rooms), elsewhere, now_s, order.tags, due)
    table.settle()
    behind = _behind(order, table)
    if behind:
        stay = [one for one in order.timely if one.request.id not in behind]
        back = [one for one in order.timely if one.request.id in behind]
        table.reorder([*order.first, *stay, *back, *order.rest])
        table.settle()
    for name in behind:
        table.places[name].behind = True
    for one in order.first:
        table.places[one.request.id].owed = True
    return table.places


def _order(items: list[Item], pools: Mapping[str, Pool], standing: Standing, now_s: float) -> _Order:
    takes_s = {one.request.id: min([fit.takes_s(pools[name].slots) for name, fit in one.own.items()]) for one in items}
    in_order = ranked(items, now_s)
    timely = [one for one in in_order if turn(one, now_s) == _IN_TIME]
    rest = _by_class([one for one in in_order if turn(one, now_s) != _IN_TIME], takes_s, standing.flows_s)
    tags: dict[str, float] = {}
    spent: dict[str, float] = {}
    for one in [*timely, *rest]:
        request = one.request
        tag = tags[request.id] = spent.get(request.key, standing.tenants_s[request.id])
        spent[request.key] = tag + takes_s[request.id] / request.weight
    rest = [rest[place] for _, place in sorted([(tags[one.request.id], place) for place, one in enumerate(rest)])]
    first = _owed(timely, rest, standing)
    rest = [one for one in rest if one not in first]
    return _Order(first, timely, rest, tags, takes_s)


def _by_class(rest: list[Item], takes_s: Mapping[str, float], flows_s: Mapping[str, float]) -> list[Item]:
    """Of each tenant's classes the one first that has had least; within a class as they are."""
    spent = dict(flows_s)
    keys: list[tuple[float, int]] = []
    for place, one in enumerate(rest):
        flow = flow_of(one.request)
        had_s = spent[flow]
        keys.append((had_s, place))
        spent[flow] = had_s + takes_s[one.request.id]
    return [rest[place] for _, place in sorted(keys)]


def _owed(timely: list[Item], rest: list[Item], standing: Standing) -> list[Item]:
    """Of the rest, who starts at each of the `owed` before those that are in time, where these are others' work."""
    found: list[Item] = []
    for name in sorted(standing.owed):
        flows = {flow_of(one.request) for one in timely if name in one.own}
        for one in rest:
            mine = flow_of(one.request)
            if name in one.own and one.request.arrived_s <= standing.came_s and any(flow != mine for flow in flows):
                if one not in found:
                    found.append(one)
                break
    return found


def _behind(order: _Order, table: Table) -> set[str]:
    """Whom others go before: where somebody would be late, work of tenants that will have had more, as long as that of
    others has more than `SOON` of its slack behind it when it starts.

    What starts at the last moment is late as soon as a slot is free later than was thought; under a flood that is
    nearly everybody, and who sends little would pay for it as dearly as who sends much.
    """
    behind: set[str] = set()
    if len({one.request.key for one in order.timely}) < 2 or not any(table.is_late(one) for one in order.timely):
        return behind
    before: dict[str, list[_Before]] = {}
    freed_s: dict[str, float] = {}
    for one in order.timely:
        request, place = one.request, table.places[one.request.id]
        if place.away:
            continue
        name, tag = place.endpoint, order.tags[request.id]
        candidates = before.setdefault(name, [])
        over_s = place.feared_s - freed_s.get(name, 0.0) - _soon_s(one, name)
        chosen = _making_way(candidates, tag, request.key, over_s)
        if chosen:
            behind |= {each.request_id for each in chosen}
            freed_s[name] = freed_s.get(name, 0.0) + sum([each.takes_s for each in chosen])
            before[name] = candidates = [each for each in candidates if each.request_id not in behind]
        candidates.append(_Before(tag, request.key, order.takes_s[request.id], request.id))
    return behind


def _soon_s(one: Item, endpoint: str) -> float:
    """When so much of its slack is over as it may wait for who has had more."""
    arrived_s = one.request.arrived_s
    return arrived_s + SOON * (one.own[endpoint].latest_start_s - arrived_s)


def _making_way(candidates: list[_Before], tag: float, tenant: str, over_s: float) -> list[_Before]:
    """Those of other tenants that will have had most, until so many seconds are free, or all."""
    chosen: list[_Before] = []
    if over_s <= 0.0:
        return chosen
    more = [each for each in candidates if each.tag > tag and each.tenant != tenant]
    for each in sorted(more, key=lambda each: (-each.tag, each.request_id)):
        if over_s <= 0.0:
            break
        chosen.append(each)
        over_s -= each.takes_s
    return chosen
