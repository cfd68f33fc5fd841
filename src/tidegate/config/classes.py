"""Classes by name, each with what it takes over from the one that it is like."""

from typing import Any

from tidegate.config.convert import convert, named
from tidegate.config.problem import Problems, join, nearest
from tidegate.config.schema import CLASSES, INTERACTIVE, ClassTable

_TARGET = ("attainment", "worth_factor_max")
_WORTH = ("worth_usd", "worth_usd_per_1k_tokens")


def read(document: dict[str, Any], problems: Problems) -> dict[str, ClassTable]:
    """All `[class.NAME]` tables that are well-formed, and those that need not be written down, by name."""
    tables = document.get("class", {})
    written = tables if isinstance(tables, dict) else {}
    above = {name: _above(name, written, problems) for name in sorted({*written, *CLASSES})}
    for name in sorted(written):
        _one_of_two(name, _own(name, written), problems)
    return named(document, "class", ClassTable, problems, above)


def _above(name: str, written: dict[str, Any], problems: Problems) -> dict[str, object]:
    """The settings of a class where it says nothing itself."""
    found: dict[str, object] = {}
    for ancestor in reversed(_ancestors(name, written, problems)):
        found = _over(_over(found, _usual(ancestor, written)), _sound(written.get(ancestor, {})))
    found.pop("like", None)
    return _left_by(_own(name, written), _over(found, _usual(name, written)))


def _usual(name: str, written: dict[str, Any]) -> dict[str, object]:
    """What a class sets itself without being written down, unless it is written to be like another."""
    return {} if "like" in _own(name, written) else CLASSES.get(name, {})


def _over(above: dict[str, object], own: dict[str, object]) -> dict[str, object]:
    """What a class has that writes `own`, and what is `above` where it says nothing."""
    return _left_by(own, above) | own


def _left_by(own: dict[str, Any], above: dict[str, object]) -> dict[str, object]:
    """What is above, without the worth where a class names a target itself, or the other way round."""
    dropped = _WORTH if "attainment" in own else _TARGET if any(key in own for key in _WORTH) else ()
    return {key: value for key, value in above.items() if key not in dropped}


def _one_of_two(name: str, own: dict[str, Any], problems: Problems) -> None:
    """Note a class that names a target, and what a promise is worth beside it."""
    if "attainment" in own and (both := [key for key in _WORTH if key in own]):
        problems.add(
            join("class", name) + ".attainment",
            f"there is `{both[0]}` too, and with a target worth is learned",
            f"remove `attainment`, or {' and '.join(f'`{key}`' for key in both)}",
        )


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
    if not isinstance(like, str):
        return
    path = join("class", name) + ".like"
    if like == name or like in known:
        problems.add(path, "it is like itself in the end", "name a class that is like another one, or nothing")
    else:
        problems.add(path, f"there is no class `{like[:64]}`", nearest(like, known - {name}))


def _own(name: str, written: dict[str, Any]) -> dict[str, Any]:
    table = written.get(name)
    return table if isinstance(table, dict) else {}


def _sound(table: Any) -> dict[str, object]:
    """What others may take over: nothing of what is refused, which is said once, and there."""
    return table if convert(table, "", ClassTable, Problems("")) is not None else {}
