"""Values for the types of an SDK, made from the types themselves: no field can be forgotten."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from docs.openai_fields import alternatives, fields, items

_SIMPLE: dict[Any, list[Any]] = {
    str: ['a "quoted" word, é'],
    int: [1],
    float: [0.5],
    bool: [True, False],
    type(None): [None],
    object: [{"type": "object"}],
    Any: ["anything"],
}


def values(kind: Any) -> list[Any]:
    """Values of a type, so many that every alternative in it occurs in one of them."""
    return [value for one in alternatives(kind) for value in _of(one)]


def _of(kind: Any) -> list[Any]:
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if (inside := items(kind)) is not None:
        return [values(inside)]
    below = fields(kind)
    if below is None:
        assert issubclass(get_origin(kind) or kind, Mapping), f"what is a {kind}?"
        _, held = get_args(kind)
        return [{f"key {at}": value for at, value in enumerate(values(held))}]
    choices = {name: values(one) for name, one in below.items()}
    # As many as the field with most has, the others in turn: the product of all would be millions.
    count = max(map(len, choices.values()))
    return [{name: one[at % len(one)] for name, one in choices.items()} for at in range(count)]


def paths_of(value: Any, place: str = "") -> Iterator[str]:
    """Every field in a value, by its path, as the reference names it."""
    if isinstance(value, list):
        for one in value:
            yield from paths_of(one, f"{place}[]")
    elif isinstance(value, dict):
        for name, below in value.items():
            path = f"{place}.{name}" if place else name
            yield path
            yield from paths_of(below, path)
