"""From what a TOML file holds to the types of its tables: every problem of a table at once, with place and remedy."""

import difflib
import re
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from tidegate.config import expected
from tidegate.config.problem import Problems, join, nearest
from tidegate.config.table import NAME, RESERVED, Table

NAME_REMEDY = "use lower-case letters, digits, `.`, `_` and `-`, 64 at most, a letter or digit first"
PROBLEMS_PER_TABLE_MAX = 50  # more than anybody repairs in one go

_NAME = re.compile(NAME)
_T = TypeVar("_T", bound=Table)

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


def unknown(document: dict[str, Any], known: Collection[str], problems: Problems) -> None:
    """Note the tables of a file that there are not."""
    for key in document:
        if key not in known:
            problems.add(join(key), "there is no such table", nearest(key, known))


def names(document: dict[str, Any], key: str) -> set[str]:
    """What is named there, whether or not it is well-formed: a broken site still exists for those who refer to it."""
    tables = document.get(key)
    return set(tables) if isinstance(tables, dict) else set()


def named(
    document: dict[str, Any],
    key: str,
    table: type[_T],
    problems: Problems,
    existing: dict[str, dict[str, object]] | None = None,
) -> dict[str, _T]:
    """All `[key.NAME]` tables that are well-formed, by name; those in `existing` need not be written down."""
    tables = document.get(key, {})
    if not isinstance(tables, dict):
        problems.add(key, "this is not a table", f"write [{key}.NAME], with a name of your choice")
        return {}
    made: dict[str, _T] = {}
    existing = existing or {}
    settings = _settings(table)
    for name in sorted({*tables, *existing}):
        if key == "site" and name in RESERVED:
            problems.add(join(key, name), f"`{name}` already has a meaning in `residency`", "choose another name")
            continue
        if key != "model" and not _NAME.match(name):  # a model has the name that clients send
            problems.add(join(key, name), "this name cannot be a metric label", NAME_REMEDY)
            continue
        written = given = tables.get(name, {})
        while isinstance(given, dict) and (rest := _rest_of_name(given, settings)):
            whole = join(key, ".".join((name, *rest)))
            problems.add(
                join(key, name, rest[0]), "there is no such setting", f"a name with a dot is quoted: [{whole}]"
            )
            given = {setting: value for setting, value in given.items() if setting != rest[0]}
        if written and not given:
            continue  # of a table that nobody has written nothing is missing
        raw = {**existing.get(name, {}), **given} if isinstance(given, dict) else given
        if (one := convert(raw, join(key, name), table, problems)) is not None:
            made[name] = one
    return made


def _rest_of_name(table: dict[str, Any], settings: Collection[str]) -> list[str]:
    """How the name of a table goes on that TOML has split at its dots: the keys that are no settings, nor meant to be,
    and lead to such a table. Empty where the name is whole."""
    for key, value in table.items():
        if not isinstance(value, dict) or key in settings or difflib.get_close_matches(key[:80], settings, n=1):
            continue
        if any(setting in settings for setting in value):
            return [key]
        if rest := _rest_of_name(value, settings):
            return [key, *rest]
    return []


def listed(document: dict[str, Any], key: str, table: type[_T], most: int, problems: Problems) -> list[tuple[str, _T]]:
    """The well-formed tables of `[[key]]`, of which there may be so many, with their paths."""
    raw = document.get(key, [])
    if not isinstance(raw, list) or len(raw) > most:
        problems.add(key, f"this is no list of at most {most} tables", f"write [[{key}]] for each of them")
        return []
    made = [(f"{key}[{i}]", convert(one, f"{key}[{i}]", table, problems)) for i, one in enumerate(raw)]
    return [(path, one) for path, one in made if one is not None]


def convert(raw: Any, path: str, table: type[_T], problems: Problems) -> _T | None:
    """The table as its type, or None and every problem in it.

    msgspec stops at the first error: the offending key is taken out and the rest tried again.
    """
    if not isinstance(raw, dict):
        problems.add(path, "this is not a table", f"write [{path}] and its settings below")
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


def _explain(error: str, raw: dict[str, Any], path: str, table: type[msgspec.Struct], problems: Problems) -> bool:
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
        settings = _settings(owner)
        problems.add(
            _place(path, [*steps, unknown[1]]),
            "there is no such setting",
            _better_key(unknown[1], settings) or nearest(unknown[1], settings),
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


def _settings(table: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in expected.fields(table)]


def _keys(steps: list[str | int]) -> list[str]:
    return [step for step in steps if isinstance(step, str)]


def _place(path: str, steps: list[str | int]) -> str:
    """The path of a setting, with the places in lists counted from 0 as in `price[1].from`."""
    place = path
    for step in steps:
        place += f"[{step}]" if isinstance(step, int) else f".{join(step)}"
    return place


def _better_key(key: str, known: Collection[str]) -> str:
    """Advice for a setting that does not exist for a reason: the key itself, where it is told where keys stand."""
    if "api_key_env" in known and (key == "token" or key.endswith(("key", "secret"))):
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
