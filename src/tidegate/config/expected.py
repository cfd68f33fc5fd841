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
        some = tuple(t for t in kind.types if not isinstance(t, inspect.NoneType))
        return bare(some[0]) if len(some) == 1 else inspect.UnionType(some)
    return kind


def tables(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    """The tables that may stand there, by themselves or in a list."""
    kind = bare(kind)
    if isinstance(kind, inspect.UnionType):
        return list(dict.fromkeys(table for one in kind.types for table in tables(one)))
    if isinstance(kind, inspect.VarTupleType):
        return tables(kind.item_type)
    return [kind.cls] if isinstance(kind, inspect.StructType) else []


def description(field: inspect.Field) -> str:
    """What the setting means, and why its default is what it is."""
    assert isinstance(field.type, inspect.Metadata), f"{field.name} has no description"
    assert field.type.extra_json_schema is not None
    return str(field.type.extra_json_schema["description"])


def words(kind: inspect.Type) -> str:
    """What may stand there, as in `a whole number from 1 to 256`."""
    kind = bare(kind)
    if isinstance(kind, inspect.UnionType):
        return ", or ".join(words(one) for one in kind.types)
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.DateType):
        return "a day, as in 2026-12-01"
    if isinstance(kind, inspect.DateTimeType):
        return "a time, as in 2026-12-01T08:00:00Z"
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(f'"{value}"' for value in sorted(map(str, kind.values)))
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
    if isinstance(kind, inspect.DictType):
        return f"a table of names{', at least one' if kind.min_length else ''}, each {words(kind.value_type)}"
    assert isinstance(kind, inspect.StructType), kind
    return "a table of " + ", ".join(f"`{field.encode_name}`" for field in kind.fields)


def number(value: float | None) -> str:
    """A bound without needless zeros."""
    assert value is not None, "every number has a bound"
    return f"{value:g}" if value < 1e6 and value != int(value) else str(int(value))


def at(table: type[msgspec.Struct], keys: list[str]) -> inspect.Field:
    """The setting that `keys` leads to, the indices of lists left out."""
    (field,) = (f for f in fields(table) if f.encode_name == keys[0])
    inner = tables(field.type)
    return at(inner[0], keys[1:]) if len(keys) > 1 and inner else field


def default(field: inspect.Field) -> Any:
    """The value that holds where the setting is left out, `msgspec.NODEFAULT` where it must not be."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
