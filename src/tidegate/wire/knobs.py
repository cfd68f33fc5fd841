"""Our own settings of a request: headers, or the object `tidegate` in its body. A header goes before the body."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from tidegate.core.model import Likeness, Record
from tidegate.wire.errors import UNREADABLE, BadRequest

# A day: what takes longer is a batch, and promises nothing.
# No engine does anything in less, and a number that is lost in the division by a thousand has no logarithm.
SLO_MS_MIN, SLO_MS_MAX = 0.001, 86_400_000.0
COST_USD_MAX = 1_000_000.0
SITES_MAX = 64


class DryRun(StrEnum):
    """Whether it is only asked what would be done, and what would make that another decision."""

    NO = "false"
    YES = "true"
    FLIPS = "flips"


class Knobs(Record, frozen=True, kw_only=True):
    """What a request says of itself, in seconds and dollars; None and False where it says nothing.

    `session` is the client's own name for the conversation.
    """

    klass: str | None = None
    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    slo_e2e_s: float | None = None
    cost_usd_max: float | None = None
    residency: tuple[str, ...] | None = None
    likeness: Likeness | None = None
    session: str = ""
    session_moves: bool | None = None
    dry_run: DryRun = DryRun.NO
    no_fallback: bool = False


_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?(?:[eE][-+]?[0-9]{1,3})?")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SESSION = re.compile(r"[\x21-\x7e]{1,256}")
_LIKENESS = {likeness.value: likeness for likeness in Likeness}
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def _seconds(text: str) -> float | None:
    ms = float(text) if _NUMBER.fullmatch(text) else 0.0
    return ms / 1000.0 if SLO_MS_MIN <= ms <= SLO_MS_MAX else None


def _dollars(text: str) -> float | None:
    usd = float(text) if _NUMBER.fullmatch(text) else -1.0
    return usd if 0.0 <= usd <= COST_USD_MAX else None


def _places(text: str) -> tuple[str, ...] | None:
    places = tuple(sorted({place.strip() for place in text.split(",")}))
    return places if len(places) <= SITES_MAX and all(map(_NAME.fullmatch, places)) else None


def _likeness(text: str) -> Likeness | None:
    return _LIKENESS.get(text)


def _name(text: str) -> str | None:
    return text if _NAME.fullmatch(text) else None


def _dry_run(text: str) -> DryRun | None:
    said = _BOOLS.get(text)
    if said is None:
        return DryRun.FLIPS if text == DryRun.FLIPS.value else None
    return DryRun.YES if said else DryRun.NO


def _session(text: str) -> str | None:
    return text if _SESSION.fullmatch(text) else None


_MILLISECONDS = "a number of milliseconds from 0.001 to a day (86400000)"
_FLAG = "true or false"

# Name in the body, with underscores, and in headers, with dashes: the field of `Knobs`, its reader, what is accepted.
_KNOBS: dict[str, tuple[str, Callable[[str], object], str]] = {
    "class": ("klass", _name, "the name of a class: letters, digits and ._-"),
    "slo_ttft_ms": ("slo_ttft_s", _seconds, _MILLISECONDS),
    "slo_tpot_ms": ("slo_tpot_s", _seconds, _MILLISECONDS),
    "slo_e2e_ms": ("slo_e2e_s", _seconds, _MILLISECONDS),
    "max_cost_usd": ("cost_usd_max", _dollars, "a number of US dollars from 0"),
    "residency": ("residency", _places, "anywhere, local, or names of sites, separated by commas"),
    "likeness": ("likeness", _likeness, f"one of {', '.join(_LIKENESS)}: the least alike model that will do"),
    "session": ("session", _session, "up to 256 printable ASCII characters without spaces"),
    "session_moves": ("session_moves", _BOOLS.get, _FLAG),
    "dry_run": ("dry_run", _dry_run, "true, false, or flips"),
    "no_fallback": ("no_fallback", _BOOLS.get, _FLAG),
}
_PREFIX = b"x-tidegate-"
_HEADERS = {_PREFIX + name.replace("_", "-").encode(): name for name in _KNOBS}
# What others call the same; ours goes first.
_ALIASES = {b"x-session-id": "session", b"x-llm-d-slo-ttft-ms": "slo_ttft_ms"}

_Value = str | bool | int | float | list[str] | None
_values = msgspec.json.Decoder(dict[str, _Value] | None).decode

_NONE = Knobs()


def read_knobs(headers: Mapping[bytes, bytes], body: msgspec.Raw | None) -> Knobs:
    """The settings of a request. Raises `BadRequest` for one that is not known or not acceptable.

    An unknown one is an error, not a passer-by: a slip in `residency` must not send data away.
    """
    found: dict[str, object] = {} if body is None else _from_body(body)
    for header, knob in _ALIASES.items():
        if header in headers:
            field, value = _read(knob, header.decode(), headers[header].decode("latin-1").strip())
            found[field] = value
    for header in headers:
        if header.startswith(_PREFIX):
            known = _HEADERS.get(header)
            if known is None:
                raise BadRequest(
                    f"`{header.decode('latin-1')[:80]}` is no header of ours; there are "
                    f"{', '.join(name.decode() for name in _HEADERS)}."
                )
            field, value = _read(known, header.decode(), headers[header].decode("latin-1").strip())
            found[field] = value
    return Knobs(**found) if found else _NONE  # type: ignore[arg-type]


def _from_body(body: msgspec.Raw) -> dict[str, object]:
    try:
        values = _values(body) or {}
    except UNREADABLE:
        raise BadRequest(
            "`tidegate` must be an object whose members are strings, numbers, booleans, or arrays of strings.",
            param="tidegate",
        ) from None
    found: dict[str, object] = {}
    for name, value in values.items():
        if name not in _KNOBS:
            raise BadRequest(
                f"`tidegate` has a member that it does not know; there are {', '.join(_KNOBS)}.", param="tidegate"
            )
        if value is not None:
            field, known = _read(name, f"tidegate.{name}", _text(value))
            found[field] = known
    return found


def _text(value: _Value) -> str:
    """A JSON value as a header would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def _read(name: str, place: str, text: str) -> tuple[str, object]:
    field, read, accepted = _KNOBS[name]
    value = read(text)
    if value is None:
        param = "tidegate" if place.startswith("tidegate.") else None
        raise BadRequest(f"`{place}` must be {accepted}.", param=param)
    return field, value
