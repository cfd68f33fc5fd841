"""The types of the schema in words, for error messages and for the reference page."""

from typing import Any

import msgspec
from msgspec import inspect


def fields(table: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The settings of a table, as msgspec sees them."""
    info = inspect.type_info(table)
    assert isinstance(info, inspect.StructType)
    return info.fields


def bare(kind: inspect.Type) -> inspect.Type:
    """The type without its description and without `None`: TOML has no null, a setting is left out instead."""
    if isinstance(kind, inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        (only,) = (t for t in kind.types if not isinstance(t, inspect.NoneType))
        return bare(only)
    return kind


def description(field: inspect.Field) -> str:
    """What the setting means, and why its default is what it is."""
    assert isinstance(field.type, inspect.Metadata), f"{field.name} has no description"
    assert field.type.extra_json_schema is not None
    return str(field.type.extra_json_schema["description"])


def words(kind: inspect.Type) -> str:
    """What may stand there, as in `a whole number from 1 to 256`."""
    kind = bare(kind)
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{noun} from {number(kind.ge)} to {number(kind.le)}"
    if isinstance(kind, inspect.StrType):
        least = f"at least {kind.min_length} and " if kind.min_length else ""
        return f"text of {least}at most {kind.max_length} characters"
    if isinstance(kind, inspect.EnumType):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind.cls)
    if isinstance(kind, inspect.VarTupleType):
        return f"a list{' of at least one' if kind.min_length else ''}, each {words(kind.item_type)}"
    assert isinstance(kind, inspect.StructType), kind
    return "a table of " + ", ".join(f"`{field.name}`" for field in kind.fields)


def number(value: float | None) -> str:
    """A bound without needless zeros."""
    assert value is not None, "every number has a bound"
    return f"{value:g}" if value < 1e6 and value != int(value) else str(int(value))


def at(table: type[msgspec.Struct], keys: list[str]) -> inspect.Field:
    """The setting that `keys` leads to; list indices are passed over."""
    (field,) = (f for f in fields(table) if f.name == keys[0])
    inner = bare(field.type)
    if len(keys) > 1 and isinstance(inner, inspect.StructType):
        return at(inner.cls, keys[1:])
    return field


def default(field: inspect.Field) -> Any:
    """The value that holds where the setting is left out, `msgspec.NODEFAULT` where it must not be."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
