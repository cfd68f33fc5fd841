"""Reads the configuration file: everything that is wrong with it, at once, and never a traceback."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidegate.config import door, expected
from tidegate.config.check import Draft, check
from tidegate.config.config import Config
from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.problem import ConfigError, Problem, Problems, join, nearest
from tidegate.config.schema import (
    CLASSES,
    NAME,
    RESERVED,
    BudgetTable,
    ClassTable,
    GatewayTable,
    PolicyTable,
    SiteTable,
    Table,
)

FILE_BYTES_MAX = 1024 * 1024  # a thousand endpoints take a quarter of it
NAME_REMEDY = "use lower-case letters, digits, `.`, `_` and `-`, 64 at most, a letter or digit first"
PROBLEMS_PER_TABLE_MAX = 50  # more than anybody repairs in one go

_NAMED = ("class", "site", "model", "endpoint")
_NAME = re.compile(NAME)
_T = TypeVar("_T", bound=Table)

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


def load(path: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file at `path`; ConfigError tells everything that is wrong with it.

    Keys are looked up in `variables`, by default the process's environment.
    """
    shown = os.fspath(path)
    return parse(_read(shown), shown, variables)


def parse(text: str, path: str, variables: Mapping[str, str] | None = None) -> Config:
    """The configuration in `text`, which is or would be the content of the file at `path`. As `load` otherwise."""
    problems = Problems(path)
    variables = os.environ if variables is None else variables
    draft = _sections(Path(path).parent, _parse(path, text), problems)
    admin_key = None if draft.gateway is None else door.check(draft.gateway, draft.folder, problems, variables)
    secrets = check(draft, problems, variables)
    if problems.found:
        raise ConfigError(problems.found)
    assert draft.gateway is not None
    assert draft.policy is not None
    assert draft.budget is not None
    return Config(
        file=Path(path),
        gateway=draft.gateway,
        policy=draft.policy,
        budget=draft.budget,
        classes=draft.classes,
        sites=draft.sites,
        models=draft.models,
        endpoints=draft.endpoints,
        secrets=secrets,
        admin_key=admin_key,
    )


def _read(path: str) -> str:
    if not path or "\0" in path:
        raise _refuse(path, "this is not the name of a file", "name the configuration file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise _refuse(path, "there is no such file", "name the file, or copy one from examples/") from None
    except IsADirectoryError:
        raise _refuse(path, "this is a folder", "name a file in it") from None
    except PermissionError:
        raise _refuse(path, "it cannot be read by this user", f"chmod u+r {path}, or start as its owner") from None
    except OSError as error:
        raise _refuse(path, f"it cannot be read: {error.strerror}", "name a readable file") from None
    if len(content) > FILE_BYTES_MAX:
        raise _refuse(path, "it is larger than 1 MiB", "name a configuration file, which has a few KiB")
    if content.startswith(b"\xef\xbb\xbf"):
        raise _refuse(path, "it begins with a byte order mark", "save it as UTF-8 without BOM")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refuse(path, f"line {line} is not UTF-8", "save it as UTF-8") from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise _refuse(
            path, message[0].lower() + message[1:], "repair this line; https://toml.io shows the syntax"
        ) from None
    except RecursionError:
        raise _refuse(path, "it is nested too deeply", "tables are at most three deep here") from None
    except ValueError:  # the one other that tomllib lets through: whole numbers of thousands of digits
        raise _refuse(path, "it holds a number that is too long", "write numbers of a few digits") from None


def _refuse(path: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file=path, path="", message=message, remedy=remedy)])


def _sections(folder: Path, document: dict[str, Any], problems: Problems) -> Draft:
    """Turn each table into its type on its own, so that one broken table does not hide the next."""
    known = ["gateway", "policy", "budget", *_NAMED]
    for key in document:
        if key not in known:
            problems.add(join(key), "there is no such table", nearest(key, known))
    return Draft(
        folder=folder,
        gateway=_convert(document.get("gateway", {}), ("gateway",), GatewayTable, problems),
        policy=_convert(document.get("policy", {}), ("policy",), PolicyTable, problems),
        budget=_convert(document.get("budget", {}), ("budget",), BudgetTable, problems),
        classes=_named(document, "class", ClassTable, problems, CLASSES),
        sites=_named(document, "site", SiteTable, problems, {}),
        models=_named(document, "model", ModelTable, problems, {}),
        endpoints=_named(document, "endpoint", EndpointTable, problems, {}),
        written={key: _names(document, key) for key in _NAMED},
    )


def _names(document: dict[str, Any], key: str) -> set[str]:
    """What is named there, whether or not it is well-formed: a broken site still exists for those who refer to it."""
    tables = document.get(key)
    return set(tables) if isinstance(tables, dict) else set()


def _named(
    document: dict[str, Any], key: str, table: type[_T], problems: Problems, existing: dict[str, dict[str, object]]
) -> dict[str, _T]:
    """All `[key.NAME]` tables that are well-formed, by name; those in `existing` need not be written down."""
    tables = document.get(key, {})
    if not isinstance(tables, dict):
        problems.add(key, "this is not a table", f"write [{key}.NAME], with a name of your choice")
        return {}
    made: dict[str, _T] = {}
    for name in sorted({*tables, *existing}):
        if key == "site" and name in RESERVED:
            problems.add(join(key, name), f"`{name}` already has a meaning in `residency`", "choose another name")
            continue
        if key != "model" and not _NAME.match(name):  # a model has the name that clients send
            problems.add(join(key, name), "this name cannot be a metric label", NAME_REMEDY)
            continue
        given = tables.get(name, {})
        raw = {**existing.get(name, {}), **given} if isinstance(given, dict) else given
        if (one := _convert(raw, (key, name), table, problems)) is not None:
            made[name] = one
    return made


def _convert(raw: Any, path: tuple[str, ...], table: type[_T], problems: Problems) -> _T | None:
    """The table as its type, or None and every problem in it.

    msgspec stops at the first error: the offending key is taken out and the rest tried again.
    """
    if not isinstance(raw, dict):
        problems.add(join(*path), "this is not a table", f"write [{join(*path)}] and its settings below")
        return None
    rest = _copy(raw)
    for _ in range(PROBLEMS_PER_TABLE_MAX):
        try:
            made = msgspec.convert(rest, table)
        except msgspec.ValidationError as error:
            if not _explain(str(error), rest, path, table, problems):
                return None
        else:
            return made if rest == raw else None
    return None


def _copy(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _copy(value) for key, value in raw.items()}
    return [_copy(value) for value in raw] if isinstance(raw, list) else raw


def _explain(
    error: str, raw: dict[str, Any], path: tuple[str, ...], table: type[msgspec.Struct], problems: Problems
) -> bool:
    """Note what msgspec found and take the key out of `raw`; False where trying again would not help."""
    where = _AT.search(error)
    steps = [int(index) if index else key for index, key in _STEP.findall(where[1])] if where else []
    if missing := _MISSING.search(error):
        field = expected.at(table, [*_keys(steps), missing[1]])
        remedy = f"{expected.description(field)} Write {expected.words(field.type)}."
        if not any(problem.path == _place(path, [*steps, missing[1]]) for problem in problems.found):  # taken out here
            problems.add(_place(path, steps), f"`{missing[1]}` is missing", remedy)
        return False
    if unknown := _UNKNOWN.search(error):
        owner = expected.tables(expected.at(table, _keys(steps)).type)[0] if steps else table
        problems.add(
            _place(path, [*steps, unknown[1]]),
            "there is no such setting",
            _better_key(unknown[1]) or nearest(unknown[1], [field.encode_name for field in expected.fields(owner)]),
        )
        return _take_out(raw, [*steps, unknown[1]])
    field = expected.at(table, _keys(steps))
    kind = expected.bare(field.type)
    if isinstance(steps[-1], int):
        shown = f"number {steps.pop() + 1} of this list"
        kind = kind.item_type if isinstance(kind, msgspec.inspect.VarTupleType) else kind
    else:
        shown = _shown(_value(raw, steps))
    problems.add(_place(path, steps), f"{shown} is not {expected.words(kind)}", expected.description(field))
    return _take_out(raw, steps)


def _keys(steps: list[str | int]) -> list[str]:
    return [step for step in steps if isinstance(step, str)]


def _place(path: tuple[str, ...], steps: list[str | int]) -> str:
    """The path of a setting, with the places in lists counted from 0 as in `price[1].from`."""
    place = join(*path)
    for step in steps:
        place += f"[{step}]" if isinstance(step, int) else f".{join(step)}"
    return place


def _better_key(key: str) -> str:
    """Advice for a setting that does not exist for a reason."""
    if "key" in key or key == "token" or "secret" in key:
        return "keys do not stand in this file: use `api_key_env` or `api_key_file`"
    return ""


def _value(raw: dict[str, Any], steps: list[str | int]) -> Any:
    value: Any = raw
    for step in steps:
        value = value[step]
    return value


def _take_out(raw: dict[str, Any], steps: list[str | int]) -> bool:
    table = _value(raw, steps[:-1])
    return isinstance(table, dict) and table.pop(steps[-1], None) is not None


def _shown(value: Any) -> str:
    """A value in an error message. Text is not repeated: it may be a secret in the wrong place."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)[:40]
    if isinstance(value, str):
        return "this text" if value else "empty text"
    if isinstance(value, list):
        return "this list" if value else "an empty list"
    return "this table" if isinstance(value, dict) else "this"
