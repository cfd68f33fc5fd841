"""Bodies decoded to types, and what a client is told of one that is not what it should be."""

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from tidegate.wire.asked import LOOKED_AT
from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.pieces import MARKS_MAX, has_too_many
from tidegate.wire.surrogates import replace_lone_surrogates

_T = TypeVar("_T")

_TOO_MANY: Final = (
    f"The body has more than {MARKS_MAX:,} quotes, opening brackets and commas outside of its strings: fewer messages, "
    "parts, tools, prompts or inputs can be sent at once."
)
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def read_fields(body: bytes, *, tokens: bool = False) -> tuple[dict[str, Raw], bytes]:
    """The fields of a JSON object, each as it came, and the body that they are of. Raises `BadRequest`.

    Both have U+FFFD for half of a surrogate pair: a client that was streamed such a half sends it back with the
    conversation, and engines would refuse it. No name is one of those that mean something here in another case.
    A prompt may come as `tokens`: see `has_too_many`.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The body is not UTF-8: byte {error.start} is out of place.") from None
    if len(body) > MARKS_MAX and has_too_many(body, tokens=tokens):
        raise BadRequest(_TOO_MANY)
    try:
        fields = _fields(body)
    except UNREADABLE:
        body = replace_lone_surrogates(body)
        try:
            fields = _fields(body)
        except UNREADABLE as error:
            raise BadRequest(_malformed(error)) from None
    for name in fields:
        if name not in LOOKED_AT and name.casefold() in LOOKED_AT:
            raise _other_case(name)
    return fields, body


def read_body(body: bytes, decoder: msgspec.json.Decoder[_T], accepted: Mapping[str, str]) -> _T:
    """A body, such as `read_fields` returns, as a type. `accepted` says per field what is. Raises `BadRequest`."""
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise bad_field(str(error), accepted) from None


def quotable(name: str) -> str:
    """A name of the client's as it is told of it: in ASCII, and of bounded length."""
    return name.encode("ascii", "replace").decode()[:64]


def known_only(fields: Collection[str], known: Collection[str], dialect: str) -> None:
    """Raises `BadRequest` for a field that the dialect does not have: it would be dropped in silence."""
    for name in fields:
        if name not in known:
            shown = quotable(name)
            raise BadRequest(
                f"`{shown}` is not a field that {dialect} requests have here; leave it out. "
                "docs/reference/dialects.md lists those that are known.",
                param=shown,
            )


def _other_case(name: str) -> BadRequest:
    """The error for a name that would pass here unread, and that engines take for the one that was read."""
    shown = quotable(name)
    return BadRequest(
        f"`{shown}` is no field, and some engines would take it for `{name.casefold()}`: write it like that, or leave "
        "it out.",
        param=shown,
    )


def _malformed(error: Exception) -> str:
    """What is wrong with a body that is no JSON object. msgspec names bytes and types, never values."""
    if isinstance(error, msgspec.ValidationError):
        return "The body must be a JSON object."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    if isinstance(error, msgspec.DecodeError):
        return f"The body is not JSON: {str(error).removeprefix('JSON is malformed: ')}."
    return "The body is not UTF-8."


def bad_field(told: str, accepted: Mapping[str, str], root: str = "") -> BadRequest:
    """The error for a field that is not what it should be, from msgspec's words: `Expected ... - at `$.path``."""
    what, _, place = told.partition(" - at `$")
    path = (root + place.rstrip("`")).lstrip(".")
    named = what.startswith(("Object missing required field `", "Object contains unknown field `"))
    if named:
        missing = what.startswith("Object missing")
        path = f"{path}.{what.split('`')[1][:64]}".lstrip(".")
        what = "is missing" if missing else "is not known here, and would be dropped; leave it out"
    elif what.startswith(("Invalid value", "Invalid enum value")):
        # msgspec quotes the value, which is the client's own.
        what = "is none of the kinds that can be carried"
    elif "recursion" in what:
        what = "is nested too deeply"
    param = path.split(".")[0].split("[")[0] or None
    rule = accepted.get(param or "")
    message = f"`{path}`: {what[:1].lower()}{what[1:]}" if path else what
    return BadRequest(f"{message}. `{param}` {rule}." if rule else f"{message}.", param=param)
