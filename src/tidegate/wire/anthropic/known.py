"""What is known here of a request. What a later version of its client says besides is its vendor's to understand."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, inspect

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.hub import encode
from tidegate.wire.shape import quotable

# Shorter names are near many others, and none is longer.
_NAME_CHARS = range(4, 41)
# Who has more names that are not known in one object has misspelt none.
_SLIPS_MAX = 32

_object = msgspec.json.Decoder(dict[str, Raw]).decode
_array = msgspec.json.Decoder(list[Raw]).decode


def refuse_slips(names: Iterable[str], known: Mapping[str, object], path: str = "") -> None:
    """Raises `BadRequest` where one of the `names` in the object at `path` is a slip from one that is known: engines of
    other dialects would do without it, and nobody would be told."""
    unknown = [name for name in names if name not in known]
    for at, name in enumerate(unknown):
        # Some engines take a name in any case.
        meant = name.casefold() if name.casefold() in known else None
        if meant is None and at < _SLIPS_MAX:
            meant = _meant(name, tuple(known))
        if meant is not None:
            shown = quotable(name)
            place = f"{path}.{shown}" if path else shown
            param = path.split(".")[0].split("[")[0] or shown
            raise BadRequest(f"`{place}` is not known here: did you mean `{meant}`?", param=param)


def known_parts(fields: Mapping[str, Raw], body: type[msgspec.Struct]) -> dict[str, Raw]:
    """These fields of a `body`, without what the types of their blocks, tools and settings do not know.

    Raises `BadRequest` for a slip.
    """
    types = _types(body)
    return {name: _known(value, types[name], name) if name in types else value for name, value in fields.items()}


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType), "these are objects"
    types = {field.encode_name: field.type for field in info.fields}
    return types if info.tag_field is None else {info.tag_field: inspect.StrType(), **types}


def _known(value: Raw, told: inspect.Type, path: str) -> Raw:
    """As it came where it is of none of these types: whoever decodes it says so."""
    try:
        for one in told.types if isinstance(told, inspect.UnionType) else (told,):
            if isinstance(one, inspect.ListType) and _opens(value, b"["):
                items = _array(value)
                return _raw([_known(item, one.item_type, f"{path}[{at}]") for at, item in enumerate(items)])
            if isinstance(one, inspect.StructType) and _opens(value, b"{") and _is(fields := _object(value), one):
                return _raw(_known_fields(fields, _types(one.cls), path))
    except UNREADABLE:
        pass
    return value


def _known_fields(fields: Mapping[str, Raw], types: Mapping[str, inspect.Type], path: str) -> dict[str, Raw]:
    refuse_slips(fields, types, path)
    return {name: _known(value, types[name], f"{path}.{name}") for name, value in fields.items() if name in types}


def _is(fields: Mapping[str, Raw], told: inspect.StructType) -> bool:
    if told.tag_field is None:
        return True
    return told.tag_field in fields and msgspec.json.decode(fields[told.tag_field]) == told.tag


def _opens(value: Raw, bracket: bytes) -> bool:
    return memoryview(value)[:1] == bracket


def _raw(value: Any) -> Raw:
    return Raw(encode(value))


def _meant(name: str, known: tuple[str, ...]) -> str | None:
    """The known name of which a letter was left out, doubled, mistaken or put in another place; None where there is
    none."""
    if len(name) not in _NAME_CHARS:
        return None
    nearest = _nearest(known)
    return next((nearest[near] for near in (name, *_shortened(name)) if near in nearest), None)


@cache
def _nearest(known: tuple[str, ...]) -> dict[str, str]:
    return {near: name for name in known if len(name) in _NAME_CHARS for near in (name, *_shortened(name))}


def _shortened(name: str) -> list[str]:
    """All that it may be without one of its letters."""
    return [name[:at] + name[at + 1 :] for at in range(len(name))]
