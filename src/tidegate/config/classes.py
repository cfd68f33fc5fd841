"""Classes by name, each with what it takes over from the one that it is like."""

from typing import Any

from tidegate.config.convert import convert, named
from tidegate.config.problem import Problems, join, nearest
from tidegate.config.schema import CLASSES, INTERACTIVE, ClassTable


def read(document: dict[str, Any], problems: Problems) -> dict[str, ClassTable]:
    """All `[class.NAME]` tables that are well-formed, and those that need not be written down, by name."""
    tables = document.get("class", {})
    written = tables if isinstance(tables, dict) else {}
    above = {name: _above(name, written, problems) for name in sorted({*written, *CLASSES})}
    return named(document, "class", ClassTable, problems, above)


def _above(name: str, written: dict[str, Any], problems: Problems) -> dict[str, object]:
    """The settings of a class where it says nothing itself."""
    found: dict[str, object] = {}
    for ancestor in reversed(_ancestors(name, written, problems)):
        found |= CLASSES.get(ancestor, {}) | _sound(written.get(ancestor, {}))
    found.pop("like", None)
    return found | CLASSES.get(name, {})


def _ancestors(name: str, written: dict[str, Any], problems: Problems) -> list[str]:
    """What a class is like, and what that is like, up to `interactive`."""
    if name == INTERACTIVE:
        if "like" in _own(name, written):
            problems.add("class.interactive.like", "it is what other classes are like in the end", "remove it")
        return []
    found: list[str] = []
    known = {*written, *CLASSES}
    at = name
    while at != INTERACTIVE:
        like = _own(at, written).get("like", INTERACTIVE)
        if not isinstance(like, str) or like not in known or like == name or like in found:
            if at == name or like == name:
                _wrong(name, like, known, problems)
            return [INTERACTIVE]
        found.append(like)
        at = like
    return found


def _wrong(name: str, like: object, known: set[str], problems: Problems) -> None:
    """Note a class that is like nothing; what is no text is noted where settings are read."""
    path = join("class", name) + ".like"
    if like == name or like in known:
        problems.add(path, "it is like itself in the end", "name a class that is like another one, or nothing")
    elif isinstance(like, str):
        problems.add(path, f"there is no class `{like[:64]}`", nearest(like, known - {name}))


def _own(name: str, written: dict[str, Any]) -> dict[str, Any]:
    table = written.get(name)
    return table if isinstance(table, dict) else {}


def _sound(table: Any) -> dict[str, object]:
    """What others may take over: nothing of what is refused, which is said once, and there."""
    return table if convert(table, "", ClassTable, Problems("")) is not None else {}
