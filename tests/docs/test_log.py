"""The page of the log names every field of a request's line and every event of a gateway."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidegate.telemetry.event import WideEvent

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "log.md").read_text()


# What is given to these is an event's name.
TELLS = {"event": 1, "_tell": 1, "_warn_of": 1}


def events() -> Iterator[str]:
    """Of the gateway's process, as they stand in the code."""
    for folder in ("gateway", "cli", "telemetry"):
        for file in (ROOT / "src" / "tidegate" / folder).rglob("*.py"):
            tree = ast.parse(file.read_text())
            constants = {
                target.id: node.value
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TELLS:
                    yield from said(node.args[TELLS[node.func.attr] :], constants)


def said(given: list[ast.expr], constants: dict[str, ast.expr]) -> Iterator[str]:
    """What an event may be called, where that is written out, or is a constant of its module."""
    match given:
        case [ast.Constant(value=str(name)), *_]:
            yield name
        case [ast.IfExp(body=one, orelse=other), *_]:
            yield from (*said([one], constants), *said([other], constants))
        case [ast.Name(id=name), *_] if name in constants:
            yield from said([constants[name]], constants)


def test_it_names_each_field_of_a_request() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    for field in msgspec.structs.fields(WideEvent):
        assert any(f"`{field.name}`" in row for row in rows), field.name


def test_it_names_each_event() -> None:
    found = set(events())
    assert len(found) > 40
    assert [event for event in sorted(found) if not named(event.removeprefix("switchback: "))] == []


def named(event: str) -> bool:
    """Whether the page has it, up to its first semicolon at least."""
    return f"`{event}`" in PAGE or f"`{event.partition(';')[0]}; ...`" in PAGE
