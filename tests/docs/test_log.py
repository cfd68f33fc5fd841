"""The page of the log names every field of a request's line and every event of a gateway."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidegate.telemetry.event import WideEvent

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "log.md").read_text()


def events() -> Iterator[str]:
    """Of the gateway's process, as they stand in the code."""
    for folder in ("gateway", "cli", "telemetry"):
        for file in (ROOT / "src" / "tidegate" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "event":
                    yield from said(node.args[1])


def said(name: ast.expr) -> Iterator[str]:
    """What an event may be called, where that is written out."""
    if isinstance(name, ast.Constant):
        yield str(name.value)
    elif isinstance(name, ast.IfExp):
        yield from (*said(name.body), *said(name.orelse))


def test_it_names_each_field_of_a_request() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    for field in msgspec.structs.fields(WideEvent):
        assert any(f"`{field.name}`" in row for row in rows), field.name


def test_it_names_each_event() -> None:
    found = set(events())
    assert len(found) > 40
    for event in found:
        assert event.removeprefix("switchback: ") in PAGE, event
