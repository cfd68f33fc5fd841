"""What compiled code looks up is what is there: build_hooks/lookups.h remembers where it was."""

import gc
import importlib.util
import os
import subprocess
import sys
import weakref
from abc import ABC
from collections import defaultdict
from collections.abc import Callable
from enum import Enum, StrEnum
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable
from unittest.mock import Mock

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

def write(record: Any, value: Any) -> None:
    record.x = value

thing: Any = "at first"

def name() -> Any:
    return thing

def item(of: dict[Any, Any], key: Any) -> Any:
    return of[key]

def one_of(value: Any, kind: Any) -> bool:
    return isinstance(value, kind)

def named(record: Any, name: str) -> Any:
    return getattr(record, name)

def named_or(record: Any, name: str, default: Any) -> Any:
    return getattr(record, name, default)
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
    flags = loaded(ROOT / "build_hooks" / "compiled.py", "compiled").flags(os.environ.get("CFLAGS"))
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


def test_what_is_no_slot_is_asked_for_each_time(read: Callable[[Any], Any]) -> None:
    class Counts:
        asked = 0

        @property
        def x(self) -> int:
            Counts.asked += 1
            return Counts.asked

    class Named:
        x = "of the class"

    record = Counts()
    assert [read(record) for _ in range(3)] == [1, 2, 3]
    assert [read(one) for one in (Named(), One(4), record, Named(), One(4), record)] == [
        *("of the class", 4, 4),
        *("of the class", 4, 5),
    ]
    own: Any = Named()
    assert read(own) == "of the class"
    own.x = "of its own"
    assert read(own) == "of its own"
    Named.x = "another"
    assert read(Named()) == read(Named()) == "another"
    Named.x = property(lambda _: "made")  # type: ignore[assignment]
    assert read(own) == read(Named()) == "made"


def test_two_classes_by_turns_are_both_known_and_a_slot_of_either_may_be_unset(read: Callable[[Any], Any]) -> None:
    empty: Any = Empty()
    other = Other(0, "two")
    for number in range(3):
        empty.x = number
        assert [read(empty), read(other), read(empty), read(other)] == [number, "two", number, "two"]
        del empty.x
        for _ in range(2):
            with pytest.raises(AttributeError, match="x"):
                read(empty)
            assert read(other) == "two"


def test_what_a_module_has_is_what_it_has_now(read: Callable[[Any], Any]) -> None:
    one: Any = ModuleType("one")
    other: Any = ModuleType("other")
    one.x, other.x = "of one", "of the other"
    for number in range(3):
        assert [read(one), read(one), read(other), read(other), read(One(number))] == [
            *("of one", "of one", "of the other", "of the other"),
            number,
        ]
    one.x = "new"
    one.y = "beside it"
    assert read(one) == read(one) == "new"
    del one.x
    for _ in range(2):
        with pytest.raises(AttributeError, match="x"):
            read(one)
    one.__getattr__ = lambda name: f"made {name}"
    assert read(one) == read(one) == "made x"
    one.x = "its own"
    assert read(one) == read(one) == "its own"


def test_a_module_has_no_more_of_what_it_lost(reader: Any) -> None:
    module: Any = ModuleType("of its own kind")
    module.x = Made()
    gone = weakref.ref(module.x)
    assert reader.read(module) is reader.read(module) is module.x
    before = sys.getrefcount(module.x)
    for _ in range(100):
        reader.read(module)
    after = sys.getrefcount(module.x)
    assert after == before
    del module.x
    assert gone() is None
    assert reader.named(module, "__dict__") is reader.named(module, "__dict__") is module.__dict__
    assert reader.named(module, "__class__") is ModuleType


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


class Wide(msgspec.Struct):
    """A record that the garbage collector is shown once it may be in a ring."""

    x: object = None


class Sealed(msgspec.Struct, frozen=True):
    """One that stays as it is."""

    x: object = None


class Judge:
    """Whose attributes are looked at when they are set."""

    __slots__ = ("x",)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, ("judged", value))


def test_an_attribute_is_set_as_in_python(reader: Any) -> None:
    one, other, usual = Wide(), Other(1, 2), Dict(0)
    empty: Any = Empty()
    judge: Any = Judge()
    for _ in range(2):
        for value in (1, 2.5, "text", None, [1], one, True):
            for record in (one, one, other, empty, usual):
                reader.write(record, value)
                assert record.x is value
            reader.write(judge, value)
            assert judge.x == ("judged", value)
            with pytest.raises(AttributeError):
                reader.write(Sealed(), value)
            with pytest.raises(AttributeError):
                reader.write(5, value)
    del empty.x
    reader.write(empty, 7)
    assert (empty.x, other.y) == (7, 1)


def test_what_is_set_is_held_once_and_what_was_there_no_more(reader: Any) -> None:
    first, second = str(object()), str(object())
    record = Other(0, None)
    before = sys.getrefcount(first), sys.getrefcount(second)
    for _ in range(50):
        reader.write(record, first)
        reader.write(record, second)
    assert (sys.getrefcount(first), sys.getrefcount(second)) == (before[0], before[1] + 1)
    reader.write(record, None)
    assert sys.getrefcount(second) == before[1]


def test_the_garbage_collector_is_shown_a_record_that_is_given_what_it_knows(reader: Any) -> None:
    for _ in range(3):
        record = Wide()
        assert not gc.is_tracked(record)
        reader.write(record, 1)
        assert not gc.is_tracked(record)
        reader.write(record, [1])
        assert gc.is_tracked(record)
        reader.write(record, 2)
        assert record.x == 2


def test_a_class_that_changes_is_set_as_it_has_become(reader: Any) -> None:
    parent = type("Parent", (), {"__slots__": ("x",)})
    child = type("Child", (parent,), {})
    record: Any = child()
    reader.write(record, 1)
    reader.write(record, 2)
    said: list[object] = []
    child.x = property(lambda _: "of the child", lambda _, value: said.append(value))  # type: ignore[attr-defined]
    reader.write(record, 3)
    assert (said, parent.__dict__["x"].__get__(record)) == ([3], 2)
    del child.x  # type: ignore[attr-defined]
    reader.write(record, 4)
    assert record.x == 4
    changed: Any = child
    changed.__setattr__ = lambda self, name, value: said.append((name, value))
    reader.write(record, 5)
    assert (said[-1], record.x) == (("x", 5), 4)


def test_members_of_enumerations_are_themselves(read: Callable[[Any], Any]) -> None:
    class Kind(StrEnum):
        x = "of kind"

    class Sort(Enum):
        y = 1
        x = 2

    class Named:
        x = "of the class"

    for _ in range(3):
        assert [read(of) for of in (Kind, Kind, Sort, Named, Kind, One(1), Sort, Sort)] == [
            *(Kind.x, Kind.x, Sort.x, "of the class"),
            *(Kind.x, 1, Sort.x, Sort.x),
        ]
    Named.x = "another"
    assert read(Named) == "another"
    for number in range(300):

        class Brief(Enum):
            x = number

        assert read(Brief) is read(Brief) is Brief.x
        assert Brief.x.value == number


def test_an_attribute_is_that_of_the_name_that_is_asked_for(reader: Any) -> None:
    record, other = Other(1, "of x"), One(5)
    for _ in range(3):
        for name, value in (("x", "of x"), ("x", "of x"), ("y", 1), ("".join(["x"]), "of x")):
            assert reader.named(record, name) == reader.named_or(record, name, None) == value
        assert reader.named(other, "x") == 5
        assert reader.named_or(other, "y", "none") == reader.named_or(record, "z", "none") == "none"
        with pytest.raises(AttributeError):
            reader.named(other, "y")


def test_an_object_that_is_let_go_while_it_is_read_is_read(read: Callable[[Any], Any]) -> None:
    class Once:
        @property
        def x(self) -> object:
            kept.clear()
            return "read"

    kept = [Once()]
    assert read(kept[0]) == "read"
    assert not kept


def test_numbers_are_read_as_numbers(reader: Any) -> None:
    for value, expected in ((1.5, 1.5), (-1.0, -1.0), (2, 2.0), (True, 1.0)):
        found = reader.number(Other(0, value))
        assert isinstance(found, float)
        assert found == expected
    with pytest.raises(TypeError):
        reader.number(Other(0, "text"))


def test_a_name_of_a_module_is_what_it_was_last_assigned(reader: Any) -> None:
    names = vars(reader)
    for value in ("again", 7, None, reader):
        names["thing"] = value
        assert reader.name() is reader.name() is value
        names["other"] = value
        assert reader.name() is value
    del names["thing"]
    for _ in range(2):
        with pytest.raises((NameError, KeyError)):
            reader.name()
    names["thing"] = "back"
    assert reader.name() == "back"


def test_items_of_several_dictionaries_are_found_at_one_place(reader: Any) -> None:
    one, other = {"a": 1, "b": 2, 1: "one"}, {"a": 3}
    for _ in range(3):
        found = [
            reader.item(*each) for each in ((one, "a"), (one, "a"), (one, "b"), (other, "a"), (one, 1), (one, "a"))
        ]
        assert found == [1, 1, 2, 3, "one", 1]
    one["a"] = 4
    assert reader.item(one, "a") == 4
    with pytest.raises(KeyError):
        reader.item(other, "b")
    usual: Any = defaultdict(list)
    assert reader.item(usual, "a") == []


def test_a_dictionary_that_changes_is_looked_at_again(reader: Any) -> None:
    changed: dict[str, object] = {"a": 0}
    changes: tuple[Callable[[], object], ...] = (
        lambda: changed.update(a=1),
        lambda: changed.__ior__({"a": 2}),
        lambda: changed.pop("a"),
        lambda: changed.setdefault("a", 3),
        lambda: changed.popitem(),
        lambda: changed.__setitem__("a", 4),
        lambda: changed.clear(),
        lambda: changed.setdefault("a", 5),
    )
    for change in changes:
        change()
        for _ in range(2):
            if "a" in changed:
                assert reader.item(changed, "a") == changed["a"]
            else:
                with pytest.raises(KeyError):
                    reader.item(changed, "a")


def test_what_an_object_has_is_found_in_its_dictionary_when_it_changes(reader: Any) -> None:
    record = Dict(1)
    found = vars(record)
    for value in range(10):
        record.x = value
        assert reader.item(found, "x") == reader.item(found, "x") == value
    setattr(record, "x", "set")  # noqa: B010 - another way than above
    assert reader.item(found, "x") == "set"
    del record.x
    with pytest.raises(KeyError):
        reader.item(found, "x")


def test_no_two_of_many_keys_are_taken_for_each_other(reader: Any) -> None:
    many = {f"key {number}": number for number in range(5_000)}
    for number in range(5_000):
        key = sys.intern(f"key {number}")
        assert reader.item(many, key) == reader.item(many, key) == number
        assert reader.item({key: -number}, key) == -number


def test_names_are_held_as_often_as_they_are_used(reader: Any) -> None:
    value = object()
    vars(reader)["thing"] = value
    before = sys.getrefcount(value)
    held = [reader.name() for _ in range(100)]
    assert sys.getrefcount(value) == before + 100
    del held
    vars(reader)["thing"] = None
    assert sys.getrefcount(value) == before - 1


class Watched(type):
    """Has no opinion of what is of its classes, until it gets one."""


class Loose(ABC):  # noqa: B024 - what is asked of it is whether it has an opinion
    """Integers are said to be of it."""


class Own(type):
    """Has an opinion."""

    def __instancecheck__(cls, instance: object) -> bool:
        return instance == 5


@runtime_checkable
class Closes(Protocol):
    """What can be closed."""

    def close(self) -> None: ...


Loose.register(int)
Plain, Mine = Watched("Plain", (), {}), Own("Mine", (), {})
Child = Watched("Child", (Plain,), {})


def test_what_is_of_a_class_is_so_in_compiled_code(reader: Any) -> None:
    values = (1, True, 5, "text", None, One(1), Other(1, 2), Plain(), Child(), Mine(), int, Own, Path(), StringIO())
    kinds: tuple[Any, ...] = (int, bool, str, object, One, Other, msgspec.Struct, Plain, Child, Mine, Loose, type, Own)
    for _ in range(2):
        for kind in (*kinds, Closes, (One, str), (int, (Plain, Loose)), int | str, ()):
            for value in values:
                assert reader.one_of(value, kind) == isinstance(value, kind), f"{value!r} of {kind!r}"
    for wrong in (5, "int", (int, 5)):
        with pytest.raises(TypeError):
            reader.one_of("text", wrong)


def test_who_pretends_to_be_of_a_class_is_believed_as_in_python(reader: Any) -> None:
    class Pretends:
        __class__ = One  # type: ignore[assignment]

    plain = Plain()
    for value in (Mock(spec=One), Pretends(), weakref.proxy(plain), One(1)):
        for kind in (One, Other, Plain, Pretends):
            for _ in range(2):
                assert reader.one_of(value, kind) == isinstance(value, kind), f"{type(value)} of {kind}"


def test_metaclasses_that_come_and_go_are_told_apart(reader: Any) -> None:
    for number in range(300):
        names = {"__instancecheck__": lambda cls, instance: True} if number % 2 else {}
        kind = type(f"Meta{number}", (type,), names)("Brief", (), {})
        assert reader.one_of("text", kind) == bool(number % 2)


def test_a_metaclass_that_gets_an_opinion_is_asked_from_then_on(reader: Any) -> None:
    assert not reader.one_of(7, Plain)
    Watched.__instancecheck__ = lambda cls, instance: instance == 7  # type: ignore[method-assign]
    try:
        assert reader.one_of(7, Plain)
        assert not reader.one_of(8, Plain)
    finally:
        del Watched.__instancecheck__
    assert not reader.one_of(7, Plain)
