"""What has to be true between the tables of a scenario: who asks for what, what can go wrong where, what is bounded."""

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from tidegate.config.moment import Moment, since_epoch_s
from tidegate.config.problem import Problems, join, nearest
from tidegate.sim.profiles import Stands
from tidegate.sim.schema import BoundsTable, FaultKind, FaultTable, Law, SizeTable, TrafficTable, WorldTable

AGENTS = "coding-agents"
_SIZES = ("prompt_tokens", "output_tokens", "turns", "new_tokens", "think_s")
_ALWAYS = frozenset(
    {"name", "model", "classes", "key", "weight", "output_tokens_max", "begins_s", "ends_s", "requests_max"}
)
_LENGTHS = frozenset({"prompt_tokens", "output_tokens", "correlation", "common_tokens"})
_MAY = {
    "preset": frozenset({"preset", "rate_per_s", "hours"}),
    AGENTS: frozenset({"preset", "users"}),
    "trace": frozenset({"trace", "format", "speed"}),
    "kvct": frozenset({"trace", "format", "speed", "users"}),
    "users": _LENGTHS | {"users", "turns", "new_tokens", "think_s"},
    "rate_per_s": _LENGTHS | {"rate_per_s", "law", "cv", "hours"},
}
"""What may be written of each kind of traffic, besides what always may."""
START_MIN = Moment(1970, 1, 2)  # what is learned has an age, and times before the epoch are none
START_MAX = Moment(9990, 1, 1)  # a calendar of four digits has room for the whole world behind it
_OF_ENGINES = frozenset({FaultKind.CRASH, FaultKind.FREEZE})
_OF_APIS = frozenset({FaultKind.UNAVAILABLE, FaultKind.RATE_LIMIT})
_NEEDS = {FaultKind.SLOW: "factor", FaultKind.RATE_LIMIT: "requests_per_minute"}


def start(world: WorldTable, problems: Problems) -> None:
    """Note a beginning that no clock shows, or that is too near to the last day that one does."""
    if not since_epoch_s(START_MIN) <= since_epoch_s(world.start) <= since_epoch_s(START_MAX):
        problems.add(
            "world.start",
            "no clock shows this time",
            f"write one from {START_MIN:%Y-%m-%d} to {START_MAX:%Y-%m-%d}, as in 2026-12-01T08:00:00Z",
        )


def kind_of(table: TrafficTable) -> str:
    """Which of the kinds of traffic this is, by what is written."""
    if table.preset is not None:
        return AGENTS if table.preset == AGENTS else "preset"
    if table.trace:
        return "kvct" if table.format == "kvct" else "trace"
    return "users" if table.users is not None else "rate_per_s"


def traffic(
    path: str,
    table: TrafficTable,
    *,
    classes: Collection[str],
    models: Collection[str],
    duration_s: float,
    folder: Path,
    problems: Problems,
) -> None:
    """Note what contradicts itself or the rest of the scenario in one traffic."""
    if table.model not in models:
        problems.add(f"{path}.model", "no endpoint serves this model", nearest(table.model, models))
    for name in table.classes or ():
        if name not in classes:
            problems.add(f"{path}.classes", f"there is no class `{name[:64]}`", nearest(name, classes))
    if table.classes and not any(table.classes.values()):
        problems.add(f"{path}.classes", "all weights are 0", "give one of them a weight")
    if table.begins_s >= duration_s:
        problems.add(
            f"{path}.begins_s", f"the world ends after {duration_s:g} s", "write less, or raise world.duration_s"
        )
    if table.ends_s is not None and table.ends_s <= table.begins_s:
        problems.add(f"{path}.ends_s", "it ends before it begins", "write more than begins_s")
    _source(path, table, problems)
    for key in _SIZES:
        size = getattr(table, key)
        if isinstance(size, SizeTable) and not (
            0.0 < size.median <= (size.most if size.most is not None else size.median)
        ):
            problems.add(f"{path}.{key}", "its median is 0, or above `most`", "write a median between them")
    if table.trace and not (folder / table.trace).is_file():
        problems.add(f"{path}.trace", f"there is no file {folder / table.trace}", "name a trace file that is there")


def _source(path: str, table: TrafficTable, problems: Problems) -> None:
    """That there is one source of requests, with what it needs and nothing else."""
    kind = kind_of(table)
    empty = msgspec.structs.asdict(TrafficTable(model="-"))
    written = {key for key, value in msgspec.structs.asdict(table).items() if value != empty[key]}
    for key in sorted(written - _ALWAYS - _MAY[kind]):
        problems.add(
            f"{path}.{key}", f"it means nothing where `{_beside(kind)}` is", f"remove it, or `{_beside(kind)}`"
        )
    if kind in ("users", "rate_per_s"):
        if kind not in written:
            problems.add(path, "it is not said where requests come from", "write preset, trace, rate_per_s or users")
        for key in ("prompt_tokens", "output_tokens"):
            if key not in written:
                problems.add(path, f"`{key}` is missing", "write a number, or { median = ..., sigma = ... }")
    if table.trace and table.format is None:
        problems.add(f"{path}.format", "it is missing", 'write "azure", "mooncake" or "kvct"')
    scatters = table.law in (Law.GAMMA, Law.WEIBULL)
    if scatters != (table.cv is not None):
        problems.add(f"{path}.cv", "`gamma` and `weibull` need it, and only they", "write both law and cv, or none")


def _beside(kind: str) -> str:
    return {AGENTS: "preset", "kvct": "trace"}.get(kind, kind)


def fault(
    path: str,
    table: FaultTable,
    stands: Mapping[str, Stands],
    names: Collection[str],
    world: WorldTable,
    problems: Problems,
) -> None:
    """Note what cannot happen."""
    kind = table.kind
    for key in ("factor", "requests_per_minute"):
        needed = _NEEDS.get(kind) == key
        if needed and getattr(table, key) is None:
            problems.add(f"{path}.{key}", f"`{kind.value}` needs it", "write how much")
        elif not needed and getattr(table, key) is not None:
            problems.add(f"{path}.{key}", f"it means nothing to `{kind.value}`", "remove it")
    if table.to and kind is not FaultKind.OUTAGE:
        problems.add(f"{path}.to", f"it means nothing to `{kind.value}`", "remove it")
    if table.at_s > world.duration_s + world.request_timeout_s:
        problems.add(f"{path}.at_s", "by then all is over", "write less, or raise world.duration_s")
    if kind is FaultKind.STATIC:
        if table.endpoint:
            problems.add(f"{path}.endpoint", "the static rule is in force everywhere", "remove it")
        return
    if table.endpoint not in names:
        problems.add(
            f"{path}.endpoint", f"there is no endpoint `{table.endpoint[:64]}`", nearest(table.endpoint, names)
        )
        return
    there = stands.get(table.endpoint)
    if there is None:  # it is broken itself
        return
    if kind in _OF_ENGINES and there.engine is None:
        problems.add(
            f"{path}.kind", f"an API stands there, and `{kind.value}` is for engines", "write unavailable or slow"
        )
    elif kind in _OF_APIS and there.api is None:
        problems.add(f"{path}.kind", f"an engine stands there, and `{kind.value}` is for APIs", "write crash or slow")
    elif kind is FaultKind.OUTAGE and there.link is None and not table.to:
        problems.add(
            f"{path}.kind",
            "there is no way to that endpoint which could be down",
            f"write {join('world', 'endpoint', table.endpoint)}.link, or another kind",
        )


def bounds(tables: Mapping[str, BoundsTable], asked: Collection[str], problems: Problems) -> None:
    """Note bounds on what nobody asks for; the empty name is all requests."""
    for name, table in tables.items():
        path = join("bounds", "class", name) if name else "bounds"
        if name and name not in asked:
            problems.add(path, "no traffic has requests of this class", nearest(name, asked))
        if name and table == BoundsTable():
            problems.add(path, "it bounds nothing", "write a bound, or remove it")
