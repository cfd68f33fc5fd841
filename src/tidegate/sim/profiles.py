"""What stands behind an endpoint, from a scenario's tables: presets, files, and what is written beside them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from tidegate.config.convert import convert, unknown
from tidegate.config.handover import KIB
from tidegate.config.load import document, read
from tidegate.config.problem import ConfigError, Problems, nearest
from tidegate.config.table import Table
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import Setup
from tidegate.core.model import Handover, Record, replace
from tidegate.sim import api, engines, network
from tidegate.sim.api import ApiProfile
from tidegate.sim.carrier import CarrierProfile, as_declared
from tidegate.sim.endpoint import ApiTable, CarrierTable, EngineTable, HardwareTable, LinkTable, PlaceTable
from tidegate.sim.engine import EngineProfile
from tidegate.sim.hardware import profile
from tidegate.sim.network import LinkProfile
from tidegate.sim.profile import REMEDY, Network

_P = TypeVar("_P", EngineProfile, ApiProfile, LinkProfile)
KINDS = ("engine", "hardware", "api")
PROFILE_TABLES = ("engine", "network", "confidence", "measured")
"""What stands in a profile's file; an engine is made of the first."""


class Stands(Record, frozen=True, kw_only=True):
    """What stands there, an engine or an API, and the way to it, None where it is here.

    `tells_residency`: the engine is of a kind that tells whether its model is loaded; `tells_memory`: of one that tells
    how much memory for contexts it has, and how much of it is in use; `reads_by_slot`: of one that computes prompts by
    the numbers of their slots. Its `carriers` take KV caches to those who decode.
    """

    engine: EngineProfile | None = None
    api: ApiProfile | None = None
    link: LinkProfile | None = None
    tells_residency: bool = False
    tells_memory: bool = False
    reads_by_slot: bool = False
    carriers: tuple[tuple[str, CarrierProfile], ...] = ()


def stands(path: str, table: PlaceTable, folder: Path, problems: Problems) -> Stands | None:
    """What the table says; None where that is wrong, which is noted."""
    there = [key for key in KINDS if getattr(table, key) is not None]
    if len(there) != 1:
        said = f"{' and '.join(there)} stand" if there else "nothing stands"
        problems.add(path, f"{said} behind this endpoint", f"write one of {', '.join(KINDS)}")
        return None
    before = len(problems.found)
    written, measured = table.engine, None
    if isinstance(written, str) and written.endswith(".toml"):
        written, measured = _from_file(f"{path}.engine", folder / written, problems)
    engine = _profile(f"{path}.engine", written, EngineTable, EngineProfile, engines.PRESETS, problems)
    if table.hardware is not None:
        engine = _declared(f"{path}.hardware", table.hardware, problems)
    made = Stands(
        engine=engine,
        api=_profile(f"{path}.api", table.api, ApiTable, ApiProfile, api.PRESETS, problems),
        link=_way(f"{path}.link", table.link, problems) or measured,
    )
    return made if len(problems.found) == before else None


def carriers(
    path: str, tables: tuple[CarrierTable, ...], handovers: tuple[Handover, ...], problems: Problems
) -> tuple[tuple[str, CarrierProfile], ...]:
    """What is true of each handover: as it was declared, unless something else is written."""
    found = {handover.target: as_declared(handover) for handover in handovers}
    for index, table in enumerate(tables):
        place = f"{path}[{index}]"
        if table.to not in found:
            problems.add(f"{place}.to", "no handover goes there", nearest(table.to, found))
            continue
        true = found[table.to]
        if (link := _way(f"{place}.link", table.link, problems)) is not None:
            true = replace(true, link=link)
        if table.kv_kib_per_token is not None:
            true = replace(true, kv_bytes_per_token=table.kv_kib_per_token * KIB)
        found[table.to] = true
    return tuple(found.items())


def _way(path: str, written: str | LinkTable | None, problems: Problems) -> LinkProfile | None:
    return _profile(path, written, LinkTable, LinkProfile, network.PRESETS, problems)


def _declared(path: str, table: HardwareTable, problems: Problems) -> EngineProfile | None:
    """The engine that a model and its hardware make."""
    if table.model not in MODELS:
        problems.add(f"{path}.model", "there is no such model", nearest(table.model, MODELS))
    if table.accelerator not in ACCELERATORS:
        problems.add(f"{path}.accelerator", "there is no such accelerator", nearest(table.accelerator, ACCELERATORS))
    if table.model not in MODELS or table.accelerator not in ACCELERATORS:
        return None
    model = MODELS[table.model]
    if table.weight_bytes is not None:
        model = replace(model, weight_bytes=table.weight_bytes)
    setup = Setup(
        tensor_parallel=table.tensor_parallel,
        data_parallel=table.data_parallel,
        slots=table.slots,
        batch_tokens=table.batch_tokens,
        memory_share=table.memory_share,
    )
    try:
        return profile(model, ACCELERATORS[table.accelerator], setup)
    except ValueError as error:
        message, _, remedy = str(error).partition(": ")
        problems.add(path, message, remedy)
        return None


def _from_file(path: str, file: Path, problems: Problems) -> tuple[EngineTable | None, LinkProfile | None]:
    """The engine of a profile's file, and the way to it where that was measured; problems are noted by its name."""
    own = Problems(os.fspath(file))
    table = link = None
    try:
        tables = document(read(os.fspath(file)), os.fspath(file))
    except ConfigError as error:
        problems.found += error.problems
        return None, None
    unknown(tables, PROFILE_TABLES, own)
    if "engine" in tables:
        table = convert(tables["engine"], "engine", EngineTable, own)
    else:
        problems.add(path, f"{file} holds no [engine]", "name a file that `tidegate calibrate` has written")
    if "network" in tables:
        try:
            link = msgspec.convert(tables["network"], Network).link
        except msgspec.ValidationError as error:
            own.add("network", str(error), REMEDY)
    problems.found += own.found
    return table, link


def _profile(
    path: str,
    written: str | Table | None,
    kind: type[Table],
    made: type[_P],
    presets: Mapping[str, _P],
    problems: Problems,
) -> _P | None:
    """The preset with what is written in its place; without one, all that has no default has to be written."""
    if written is None:
        return None
    table = msgspec.convert({"preset": written}, kind) if isinstance(written, str) else written
    given = {key: value for key, value in msgspec.to_builtins(table).items() if value is not None}
    name = given.pop("preset")
    base: dict[str, object] = {}
    if name:
        if name not in presets:
            problems.add(path, f"there is no preset `{name[:64]}`", nearest(name, presets))
            return None
        base = msgspec.to_builtins(presets[name])
    else:
        needed = [one.name for one in msgspec.structs.fields(made) if one.required]
        missing = [key for key in needed if key not in given]
        if missing:
            lacking = ", ".join(f"`{key}`" for key in missing)
            problems.add(path, f"without a preset, {lacking} must be written", "write them, or name a preset")
            return None
    try:
        return msgspec.convert(base | given, made)
    except msgspec.ValidationError as error:  # what the fields have to do with each other
        problems.add(path, str(error), "see the reference of scenarios")
        return None
