"""A measured engine as a file: what it is, how far away, how sure that is. `tidegate calibrate` writes such files."""

import json
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import Record
from tidegate.sim.engine import EngineProfile
from tidegate.sim.network import LinkProfile

FILE_BYTES_MAX = 64 * 1024  # a profile has one or two KiB
REMEDY = "let `tidegate calibrate URL --out FILE` write it anew"

_Seconds = Annotated[float, Meta(ge=0, le=1e6)]


class Interval(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """Where nine in ten of the values lie that the measurements support; `high` is None where nothing bounds it."""

    low: float
    high: float | None = None


class Network(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """The way there: the least round trip, and the rate of uploads, at least.

    `request_s` passes with each request besides the engine's iterations and a round trip: to take it in and to begin.
    """

    rtt_s: _Seconds
    upload_bytes_per_s: Annotated[float, Meta(gt=0)]
    request_s: _Seconds = 0.0

    @property
    def link(self) -> LinkProfile:
        """The same for a simulated world, where each request has its `request_s` on the way; answers are small."""
        rate = self.upload_bytes_per_s
        return LinkProfile(rtt_s=self.rtt_s + self.request_s, upload_bytes_per_s=rate, download_bytes_per_s=rate)


class Measured(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """When and at what it was measured, and what that took.

    `error` is how far the measurements are from the constants: the root of the mean square of relative errors.
    `assumed` names what was not measured; `remarks` warn.
    """

    at: str
    url: str
    software: str
    model: str
    requests: int
    tokens: int
    seconds: float
    usd: float = 0.0
    error: float = 0.0
    assumed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Profile(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """An engine behind an address. `confidence` is by the constant's name, as in `step.base_s`."""

    engine: EngineProfile
    network: Network
    confidence: dict[str, Interval] = msgspec.field(default_factory=dict)
    measured: Measured | None = None


def profile(path: str | Path) -> Profile:
    """The profile in the file at `path`. Raises ConfigError with the file, the setting and a remedy."""
    shown = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise _refusal(shown, "", "it is larger than 64 KiB")
        tables = tomllib.loads(content.decode())
    except OSError as error:
        raise _refusal(shown, "", f"it cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refusal(shown, "", f"it is no TOML: {error}") from None
    try:
        read = msgspec.convert(tables, Profile)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise _refusal(shown, where.strip("`."), message[:1].lower() + message[1:]) from None
    for name, wrong in _faults(read.engine, tables["engine"]):
        raise _refusal(shown, name, wrong)
    return read


def toml(made: Profile) -> str:
    """The same as a file."""
    tables = msgspec.to_builtins(made)
    lines = ["# Made by `tidegate calibrate`. Intervals hold nine in ten of the values that the measurements support."]
    for name, table in tables.items():
        if table:
            lines += _table(name, table)
    return "\n".join(lines) + "\n"


def _faults(engine: EngineProfile, written: dict[str, object]) -> list[tuple[str, str]]:
    """What no engine is: settings that there are not, and numbers out of any bound."""
    faults = []
    step = written["step"]
    assert isinstance(step, dict)
    for prefix, record, keys in (("engine", engine, written), ("engine.step", engine.step, step)):
        known = {field.name for field in msgspec.structs.fields(record)}
        faults += [(f"{prefix}.{key}", "there is no such setting") for key in keys if key not in known]
        for name in sorted(known):
            value = getattr(record, name)
            if isinstance(value, int | float) and not 0 <= value < 1e12:
                faults.append((f"{prefix}.{name}", "it must be a number from 0"))
    least = {"slots": engine.slots, "batch_tokens": engine.batch_tokens, "kv_tokens": engine.kv_tokens}
    faults += [(f"engine.{name}", "it must be 1 at least") for name, value in least.items() if value < 1]
    if engine.step.base_s + engine.step.per_token_s <= 0.0:
        faults.append(("engine.step", "an iteration must take time: both `base_s` and `per_token_s` are 0"))
    return faults


def rounded(value: float) -> float:
    """Four digits: more than any measurement supports."""
    return float(f"{value:.4g}")


def _table(name: str, table: dict[str, object]) -> list[str]:
    lines, inner = ["", f"[{name}]"], []
    for key, value in table.items():
        if isinstance(value, dict) and name == "engine":
            inner += _table(f"{name}.{key}", value)
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines + inner


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)


def _value(value: object) -> str:
    """JSON writes these as TOML has them; but for tables, and None, which is left out."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items() if one is not None) + " }"
    # All but this character, which JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _refusal(file: str, path: str, message: str) -> ConfigError:
    return ConfigError([Problem(file=file, path=path, message=message, remedy=REMEDY)])
