"""What compiled code reads of records is what they have: build_hooks/attributes.h remembers where a slot was."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
READER = """
from typing import Any

def read(record: Any) -> Any:
    return record.x

def number(record: Any) -> float:
    value: float = record.x
    return value
"""
SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(name="reader", ext_modules=mypycify(["reader.py"], opt_level="3"))
"""

pytestmark = pytest.mark.slow


def loaded(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.py").write_text(READER)
    (folder / "setup.py").write_text(SETUP)
    flags = loaded(ROOT / "build_hooks" / "attributes.py", "attributes").flags(os.environ.get("CFLAGS"))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=os.environ | {"CFLAGS": flags}, check=True, capture_output=True)
    (found,) = folder.glob("reader.*.so")
    assert b"tidegate_look_up" in found.read_bytes(), "the header was included"
    return loaded(found, "reader")


@pytest.fixture
def read(reader: Any) -> Callable[[Any], Any]:
    """Always at one place in the code, which may have seen anything before."""
    return lambda record: reader.read(record)


class One(msgspec.Struct, frozen=True):
    """A record."""

    x: int


class Other(msgspec.Struct):
    """Another, which has it elsewhere."""

    y: int
    x: object


class Empty:
    """A slot that may be unset."""

    __slots__ = ("x",)


class Dict:
    """No slots."""

    def __init__(self, x: object) -> None:
        self.x = x


class Made:
    """Whose attributes are made when they are read."""

    def __getattr__(self, name: str) -> str:
        return f"made {name}"


def test_records_of_several_kinds_are_read_at_one_place(read: Callable[[Any], Any]) -> None:
    one, other = One(1), Other(2, "two")
    for _ in range(3):
        assert [read(record) for record in (one, one, other, other, Dict(3), Made(), one)] == [
            *(1, 1, "two", "two"),
            *(3, "made x", 1),
        ]
    other.x = "three"
    assert read(other) == "three"


def test_a_slot_that_is_not_set_is_an_error(read: Callable[[Any], Any]) -> None:
    record: Any = Empty()
    for _ in range(2):
        with pytest.raises(AttributeError, match="x"):
            read(record)
        record.x = 5
        assert read(record) == read(record) == 5
        del record.x


def test_a_class_that_changes_is_looked_at_again(read: Callable[[Any], Any]) -> None:
    parent = type("Parent", (), {"__slots__": ("x",)})
    child = type("Child", (parent,), {})
    record: Any = child()
    record.x = 1
    slot = parent.__dict__["x"]
    assert read(record) == read(record) == 1
    child.x = property(lambda _: "of the child")  # type: ignore[attr-defined]
    assert read(record) == read(record) == "of the child"
    del child.x  # type: ignore[attr-defined]
    assert read(record) == read(record) == 1
    parent.x = property(lambda _: "of the parent")  # type: ignore[attr-defined]
    assert read(record) == "of the parent"
    parent.x = slot  # type: ignore[attr-defined]
    assert read(record) == read(record) == 1


def test_no_two_of_many_classes_are_taken_for_each_other(read: Callable[[Any], Any]) -> None:
    for number in range(5_000):
        slots = ("x",) if number % 2 else ("before", "x")
        record: Any = type("Brief", (), {"__slots__": slots})()
        record.x = number
        assert read(record) == read(record) == number


def test_what_is_read_is_held_as_often_as_it_is_used(read: Callable[[Any], Any]) -> None:
    value = object()
    record = Other(0, value)
    before = sys.getrefcount(value)
    held = [read(record) for _ in range(100)]
    assert sys.getrefcount(value) == before + 100
    del held
    assert sys.getrefcount(value) == before


def test_numbers_are_read_as_numbers(reader: Any) -> None:
    for value, expected in ((1.5, 1.5), (-1.0, -1.0), (2, 2.0), (True, 1.0)):
        found = reader.number(Other(0, value))
        assert isinstance(found, float)
        assert found == expected
    with pytest.raises(TypeError):
        reader.number(Other(0, "text"))
