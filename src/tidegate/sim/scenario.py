"""Reads a scenario: a configuration's tables, and the world in which it is to prove itself."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidegate.config import build, groups
from tidegate.config.cap import Cap
from tidegate.config.config import Config
from tidegate.config.convert import convert, listed, unknown
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import TABLES, checked, document, policy_tables, read
from tidegate.config.moment import since_epoch_s
from tidegate.config.problem import ConfigError, Problems, join, nearest
from tidegate.core.model import Endpoint, Likeness, Policy, RequestClass, replace
from tidegate.core.ruling import Rule
from tidegate.sim import checks, profiles
from tidegate.sim.endpoint import CarrierTable, PlaceTable
from tidegate.sim.profiles import Stands
from tidegate.sim.recorded import TraceFormat
from tidegate.sim.schema import BoundsTable, FaultTable, TrafficTable, WorldTable

INTERACTIVE = {"interactive": 1.0}
"""The classes of who names none."""
OWN = ("world", "traffic", "fault", "bounds")
"""The tables that a configuration does not have."""
TELL_RESIDENCY = frozenset({EngineKind.LLAMACPP, EngineKind.OLLAMA})
TELL_MEMORY = frozenset({EngineKind.VLLM, EngineKind.SGLANG})
READ_BY_SLOT = frozenset({EngineKind.LLAMACPP})
"""The kinds of engines whose probes tell whether a model is loaded, and that load it by themselves."""
_ABSENT = "name the file, or one of those in scenarios/"
MANY_MAX = 128  # of [[traffic]], for which identities of blocks are kept apart; more [[fault]] than that are a script


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A world, what is decided in it and how, and what must hold at its end. Relative paths start at the file's folder.

    `likeness` is that of each model's name. `bounds` are by class, and under the empty name for all.
    """

    file: Path
    world: WorldTable
    start_s: float
    policy: Policy
    endpoints: tuple[Endpoint, ...]
    classes: dict[str, RequestClass]
    rules: tuple[Rule, ...]
    likeness: dict[str, Likeness]
    caps: tuple[Cap, ...]
    paced: bool
    stands: dict[str, Stands]
    traffic: tuple[TrafficTable, ...]
    faults: tuple[FaultTable, ...]
    bounds: dict[str, BoundsTable]

    @property
    def name(self) -> str:
        """What it is called: its file's name."""
        return self.file.stem


def load(
    path: str | os.PathLike[str],
    *,
    policy: Path | None = None,
    trace: tuple[Path, TraceFormat] | None = None,
    seed: int | None = None,
) -> Scenario:
    """The scenario in the file at `path`; ConfigError tells everything that is wrong with it.

    What a file `policy` says in [policy], [class] and [[rule]] takes the place of what the scenario says there. A
    `trace` takes the place of its traffic: its requests ask for the model of the first, and are of the classes of all.
    `seed` is the world's.
    """
    shown = os.fspath(path)
    return parse(read(shown, _ABSENT), shown, policy=policy, trace=trace, seed=seed)


def parse(
    text: str,
    path: str,
    *,
    policy: Path | None = None,
    trace: tuple[Path, TraceFormat] | None = None,
    seed: int | None = None,
) -> Scenario:
    """The scenario in `text`, which is or would be the content of the file at `path`. As `load` otherwise."""
    file, tables = Path(path), document(text, path)
    problems = Problems(path if policy is None else f"{path} with {policy}")
    stated = _world(tables, problems)
    world = stated if stated is not None else WorldTable()
    tables = _configured(tables, file.parent, stated, problems) | tables
    if policy is not None:
        tables |= policy_tables(policy)
    unknown(tables, (*TABLES, *OWN), problems)
    config = checked(_configuration(tables, world), file, problems, None)
    read_in = _Reading(tables, file.parent, world, config, problems)
    stands = read_in.places()
    traffic = read_in.traffic(trace)
    faults = read_in.faults(stands)
    bounds = read_in.bounds(traffic)
    checks.start(world, problems)
    start_s = since_epoch_s(world.start)
    built = None if problems.found or config is None else build.build(config, start_s)
    if built is not None:
        stands = read_in.carried(stands, built.endpoints, faults)
    if problems.found or config is None or built is None:
        raise ConfigError(problems.found)
    if seed is not None:
        world = msgspec.structs.replace(world, seed=seed)
    return Scenario(
        file=file,
        world=world,
        start_s=start_s,
        policy=built.policy,
        endpoints=built.endpoints,
        classes=built.classes,
        rules=built.rules,
        likeness={name: group.likeness for name, group in groups.groups(config.models, config.endpoints).items()},
        caps=built.caps,
        paced=built.paced,
        stands=stands,
        traffic=traffic,
        faults=faults,
        bounds=bounds,
    )


def _configured(tables: dict[str, Any], folder: Path, world: WorldTable | None, problems: Problems) -> dict[str, Any]:
    """The tables of the configuration that a scenario names, which has to be sound in its world."""
    raw = tables.get("world")
    named = raw.get("config") if isinstance(raw, dict) else None
    if not isinstance(named, str) or not named:
        # What is no text is told with everything else that is wrong.
        return {}
    if world is None:
        # Nobody knows whether it is sound in a world that is not.
        raise ConfigError(problems.found)
    path = os.fspath(folder / named)
    found, wrong = document(read(path), path), Problems(path)
    unknown(found, ("gateway", "switchback", "trace", *TABLES), wrong)
    # What is wrong with it is told of it, and not of the scenario.
    if checked(_configuration(found, world), folder / named, wrong, None) is None:
        raise ConfigError(wrong.found)
    return {key: value for key, value in found.items() if key in TABLES}


def _world(tables: dict[str, Any], problems: Problems) -> WorldTable | None:
    """[world], without what stands in it below a name of its own."""
    raw = tables.get("world", {})
    if isinstance(raw, dict):
        raw = {key: value for key, value in raw.items() if key != "endpoint"}
    return convert(raw, "world", WorldTable, problems)


def _configuration(tables: dict[str, Any], world: WorldTable) -> dict[str, Any]:
    """What a configuration would hold. Its service is not there, but for how long a request lives."""
    service = {"gateway": {"request_timeout_s": world.request_timeout_s, "journal": ""}}
    return {key: value for key, value in tables.items() if key in TABLES} | service


class _Reading:
    """One scenario's own tables on the way to their types, as far as they are sound."""

    def __init__(
        self, tables: dict[str, Any], folder: Path, world: WorldTable, config: Config | None, problems: Problems
    ) -> None:
        self._tables = tables
        self._folder = folder
        self._world = world
        self._config = config
        self._problems = problems
        endpoints = tables.get("endpoint")
        self._endpoints = sorted(endpoints) if isinstance(endpoints, dict) else []
        # What is written of the handovers of each endpoint.
        self._written: dict[str, tuple[CarrierTable, ...]] = {}

    def places(self) -> dict[str, Stands]:
        """What stands behind each endpoint."""
        world, problems = self._tables.get("world"), self._problems
        raw = world.get("endpoint", {}) if isinstance(world, dict) else {}
        if not isinstance(raw, dict):
            problems.add("world.endpoint", "this is not a table", "write [world.endpoint.NAME] for each endpoint")
            return {}
        made: dict[str, Stands] = {}
        for name in sorted({*raw, *self._endpoints}):
            path = join("world", "endpoint", name)
            if name not in self._endpoints:
                problems.add(path, "there is no such endpoint", nearest(name, self._endpoints))
            elif name not in raw:
                problems.add(path, "it is missing", "write what stands there: an engine, hardware or an API")
            elif (table := convert(raw[name], path, PlaceTable, problems)) is not None:
                self._written[name] = table.handover
                there = profiles.stands(path, table, self._folder, problems)
                if there is not None:
                    made[name] = replace(
                        there,
                        tells_residency=self._is_of(TELL_RESIDENCY, name),
                        tells_memory=self._is_of(TELL_MEMORY, name),
                        reads_by_slot=self._is_of(READ_BY_SLOT, name),
                    )
        return made

    def carried(
        self, stands: dict[str, Stands], endpoints: tuple[Endpoint, ...], faults: tuple[FaultTable, ...]
    ) -> dict[str, Stands]:
        """The same with the way of each handover, which some of these may take down."""
        found = dict(stands)
        for endpoint in endpoints:
            path = join("world", "endpoint", endpoint.name, "handover")
            true = profiles.carriers(path, self._written[endpoint.name], endpoint.handovers, self._problems)
            found[endpoint.name] = replace(found[endpoint.name], carriers=true)
        for index, fault in enumerate(faults):
            ways = [target for target, _ in found[fault.endpoint].carriers] if fault.to else []
            if fault.to and fault.to not in ways:
                self._problems.add(f"fault[{index}].to", "no handover goes there", nearest(fault.to, ways))
        return found

    def _is_of(self, kinds: frozenset[EngineKind], name: str) -> bool:
        table = None if self._config is None else self._config.endpoints.get(name)
        return table is not None and table.engine in kinds

    def traffic(self, trace: tuple[Path, TraceFormat] | None) -> tuple[TrafficTable, ...]:
        """Who asks: what is written, or a trace instead."""
        made = [table for _, table in listed(self._tables, "traffic", TrafficTable, MANY_MAX, self._problems)]
        if not self._tables.get("traffic"):
            self._problems.add("traffic", "there is none", "write [[traffic]] with its model and where it comes from")
        if trace is not None and made:
            made = [_recorded(made, *trace)]
        config = self._config
        if config is None:
            return tuple(made)
        served = [groups.names(name, table, config.models) for name, table in config.endpoints.items()]
        models = {name for names in served for name in names}
        for index, table in enumerate(made):
            checks.traffic(
                f"traffic[{index}]",
                table,
                classes=config.classes,
                models=models,
                duration_s=self._world.duration_s,
                folder=self._folder,
                problems=self._problems,
            )
        names = [table.called(index) for index, table in enumerate(made)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problems.add("traffic", f"two are called `{name[:64]}`", "give each a name of its own")
        return tuple(made)

    def faults(self, stands: Mapping[str, Stands]) -> tuple[FaultTable, ...]:
        """What happens, in the order in which it is written."""
        made = listed(self._tables, "fault", FaultTable, MANY_MAX, self._problems)
        for path, table in made:
            checks.fault(path, table, stands, self._endpoints, self._world, self._problems)
        return tuple(table for _, table in made)

    def bounds(self, traffic: tuple[TrafficTable, ...]) -> dict[str, BoundsTable]:
        """What must hold, by class, and for all under the empty name."""
        raw, problems = self._tables.get("bounds", {}), self._problems
        if not isinstance(raw, dict):
            problems.add("bounds", "this is not a table", "write [bounds] and its settings below")
            return {}
        whole = convert({key: value for key, value in raw.items() if key != "class"}, "bounds", BoundsTable, problems)
        made = {} if whole is None else {"": whole}
        classes = raw.get("class", {})
        if not isinstance(classes, dict):
            problems.add("bounds.class", "this is not a table", "write [bounds.class.NAME]")
            return made
        for name, one in sorted(classes.items()):
            table = convert(one, join("bounds", "class", name), BoundsTable, problems)
            if table is not None:
                made[name] = table
        asked = {name for table in traffic for name in table.classes or INTERACTIVE}
        if self._config is not None and any(table.classes is None for table in traffic):
            asked |= {rule.klass for rule in self._config.rules if rule.klass}
        checks.bounds(made, asked, problems)
        return made


def _recorded(instead_of: Sequence[TrafficTable], file: Path, kind: TraceFormat) -> TrafficTable:
    """A trace whose requests ask as the first of these do, and are of the classes of all, each traffic's as often."""
    classes: dict[str, float] = {}
    named = any(table.classes is not None for table in instead_of)
    for table in instead_of:
        weights = table.classes or INTERACTIVE
        total = sum(weights.values())
        for name, weight in weights.items():
            classes[name] = classes.get(name, 0.0) + (weight / total if total else 0.0)
    first = instead_of[0]
    return TrafficTable(
        model=first.model,
        classes=classes if named else None,
        output_tokens_max=first.output_tokens_max,
        trace=os.fspath(file.absolute()),
        format=kind,
    )
