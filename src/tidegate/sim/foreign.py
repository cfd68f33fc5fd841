"""The log of another gateway: LiteLLM's, or any that has OpenAI's requests and answers in it.

LiteLLM writes a `StandardLoggingPayload` for each request (litellm/types/utils.py; files in a bucket, arrays that are
posted), and rows of `LiteLLM_SpendLogs` (litellm/proxy/schema.prisma, GET /spend/logs). Everybody else has a request,
an answer, a time and a latency in some words; those of docs/explanation/shadowing.md are known here.
"""

import gzip
import os
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from enum import StrEnum
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import msgspec

from tidegate.config.moment import Moment, since_epoch_s
from tidegate.core.model import Capability
from tidegate.sim.lines import BadFile, lines_of

# One file as a whole: an array, or a record over several lines.
FILE_BYTES_MAX = 512 * 2**20
# A number beyond it is something else than tokens; a time beyond it is in milliseconds, and no time at all beyond that.
TOKENS_MAX = 100_000_000
SECONDS_MAX, MILLISECONDS_MAX = 1e11, 1e14
# Before that, in 2008, there was no gateway of that kind.
SECONDS_MIN = 1.2e9
# Dollars of a request, or seconds of it.
AMOUNT_MAX = 1e7
# What was cut out of a prompt in LiteLLM's table is not in its tokens either.
_CUT = b"litellm_truncated"
_KINDS = {
    "completion": Capability.CHAT,
    "acompletion": Capability.CHAT,
    "anthropic_messages": Capability.CHAT,
    "responses": Capability.CHAT,
    "aresponses": Capability.CHAT,
    "text_completion": Capability.COMPLETION,
    "atext_completion": Capability.COMPLETION,
}
_RATE_LIMITED, _FAILURES = 429, 400
# By these an engine finds fault with what it was asked.
_AT_FAULT = frozenset({"400", "422"})
_BEGINNING_BYTES = 1024
_SUCCESSES = frozenset({"success", "succeeded", "ok", "completed", "complete", "finished", "done"})
# What Anthropic counts beside the input.
_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")


class BadLog(BadFile):
    """A log that cannot be read; its text names file, line and what is expected there."""


class Unused(StrEnum):
    """Why a record is in no figure."""

    CACHED = "answered from the gateway's own cache"
    OTHER_KIND = "no chat and no text completion"
    INTERNAL = "asked by the gateway itself"
    UNREADABLE = "no JSON object"
    UNKNOWN = "of no known form, or with a latency that has no unit"
    NO_TIMES = "without a time or a latency"
    NO_TOKENS = "without a count of tokens, and without a prompt"
    RETRIED = "a failed attempt at what was served then"
    AGAIN = "logged twice"
    ELSEWHERE = "served by what is no endpoint of the configuration"
    UNSERVED = "asked for a model that no endpoint serves"
    OLDER = "before the last ones that are looked at"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What another gateway has written of one request.

    `model` is the name that the client asked for, `deployment` that of the model which served it, at `base`. Times
    count from its arrival; `ttft_s` is None where nobody saw first content. Counts are None where they were not told,
    `usd` where it was not billed, `stream` where nobody knows. One that is `at_fault` came to nothing by itself.
    `fields` are those of its body that were kept.
    """

    id: str
    arrived_s: float
    e2e_s: float
    ttft_s: float | None
    kind: Capability
    model: str
    deployment: str
    base: str
    ok: bool
    at_fault: bool = False
    rate_limited: bool = False
    stream: bool | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    usd: float | None = None
    key: str = ""
    trace: str = ""
    headers: dict[str, str] = {}
    fields: dict[str, Any] = {}


def read(path: Path) -> Iterator[Served | Unused]:
    """Each record of a file, or of all files in a folder: what it says, or why it cannot be used.

    A file has an object on each line, or one object or array; of several, some may be empty. Raises `BadLog` where a
    file cannot be read, and once all was read and nothing in it is of a known form.
    """
    try:
        files = _files(path)
    except OSError as error:
        remedy = "name one that is there and yours to read"
        raise BadLog(f"{error.filename}: cannot be read ({error.strerror}); {remedy}") from error
    if not files:
        raise BadLog(f"{path}: the folder is empty; name the one that the log is in")
    refused: BadLog | None = None
    known = False
    for file in files:
        name = path.name if file == path else file.relative_to(path).as_posix()
        for number, record in _values(file):
            try:
                found = _record(file, number, record, name)
            except BadLog as error:
                # Of a log, a record that is none is one of many: cut by a crash, or written by something else.
                refused = refused or error
                yield Unused.UNKNOWN if isinstance(record, dict) else Unused.UNREADABLE
                continue
            known = True
            yield found
    if not known:
        raise refused or BadLog.at(files[0], 1, "the first line of a log; the file is empty")


def _files(path: Path) -> list[Path]:
    """Those in a folder and in the folders there, but for hidden ones; of a file, itself. Raises OSError."""
    if not path.is_dir():
        return [path]
    # Path.rglob passes over folders that may not be looked into, and a part of a log would be taken for all of it.
    walked = os.walk(path, onerror=_raise)
    files = (Path(where, name) for where, _, names in walked for name in names if not name.startswith("."))
    return sorted(file for file in files if file.is_file())


def _raise(error: OSError) -> None:
    raise error


def _values(path: Path) -> Iterator[tuple[int, object]]:
    """What a file has, one after the other, each with its line or its place; None for a line that is no object."""
    # One line may have all of an array, and be longer than a line may.
    array = _begins_an_array(path)
    if array and (whole := _whole(path)) is not None:
        yield from enumerate(whole, 1)
        return
    lines = lines_of(path, "log", BadLog)
    begins = next(lines, None)
    if begins is None:
        return
    number, line = begins[0], begins[1].removeprefix(BOM_UTF8)
    first = _object(line)
    # What begins otherwise is the rest of a line that was cut.
    whole = _whole(path) if first is None and not array and line.startswith((b"[", b"{")) else None
    if whole is not None:
        yield from enumerate(whole, 1)
        return
    yield number, first
    for number, line in lines:
        yield number, _object(line)


def _begins_an_array(path: Path) -> bool:
    """Whether it may be one; what cannot be read is said by who reads it."""
    try:
        with _opened(path) as file:
            return file.read(_BEGINNING_BYTES).removeprefix(BOM_UTF8).lstrip().startswith(b"[")
    except (OSError, EOFError, zlib.error):
        return False


def _opened(path: Path) -> BufferedIOBase:
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _whole(path: Path) -> list[Any] | None:
    """The records of a file that is one array, or one record; None where it is no JSON, or too large for one record.

    Raises `BadLog` where it cannot be read, or is too large an array.
    """
    try:
        with _opened(path) as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadLog(f"{path}: cannot be read ({error}); name a log that is there and whole") from error
    too_large = len(content) > FILE_BYTES_MAX
    content = content.removeprefix(BOM_UTF8)
    if too_large:
        if not content.lstrip().startswith(b"["):
            return None
        raise BadLog(f"{path}: is larger than {FILE_BYTES_MAX} bytes in one piece; write one record on each line")
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, list) else [found]


def _record(path: Path, number: int, record: object, name: str) -> Served | Unused:
    """What it says. Raises `BadLog` where it is of no known form."""
    if not isinstance(record, dict):
        raise BadLog.at(path, number, "a JSON object on each line, or one array of them")
    # A bucket's file has the payload alone; callbacks of one's own put it into an envelope.
    inner = record.get("standard_logging_object")
    if isinstance(inner, dict):
        record = inner
    if "request_id" in record and "spend" in record:
        return _spend_row(record)
    if "startTime" in record and "call_type" in record:
        if not isinstance(record.get("metadata"), dict):
            raise BadLog.at(path, number, "LiteLLM's StandardLoggingPayload; `generic_api_use_v1` writes an older form")
        return _payload(record, f"{name}-{number}")
    request = _first_of(record, "request", "input", "request_body", "body")
    if request is not None or "messages" in record or "prompt_tokens" in record or "usage" in record:
        return _pair(path, number, record, _object(request) or {}, f"{name}-{number}")
    raise BadLog.at(path, number, "LiteLLM's record, or an object with `request`, `response`, `time`, `latency_ms`")


# --- LiteLLM ------------------------------------------------------------------------------------------------------


def _payload(record: Mapping[str, Any], unnamed: str) -> Served | Unused:
    metadata = _object(record.get("metadata")) or {}
    hidden = _object(record.get("hidden_params")) or {}
    asked = _object(record.get("model_parameters")) or {}
    messages = record.get("messages")
    error = _object(record.get("error_information")) or {}
    return _litellm(
        record,
        metadata,
        id=str(record.get("litellm_call_id") or record.get("id") or unnamed),
        base=str(record.get("api_base") or hidden.get("api_base") or ""),
        usd=_amount(record.get("response_cost")),
        trace=str(record.get("trace_id") or ""),
        error=error,
        stream=record.get("stream") if isinstance(record.get("stream"), bool) else asked.get("stream"),
        fields=asked | ({"messages": messages} if isinstance(messages, list) else {}),
    )


def _spend_row(record: Mapping[str, Any]) -> Served | Unused:
    metadata = _object(record.get("metadata")) or {}
    told = record.get("proxy_server_request")
    fields = {} if isinstance(told, str) and _CUT in told.encode() else _object(told) or {}
    return _litellm(
        record,
        metadata,
        id=str(record["request_id"]),
        base=str(record.get("api_base") or ""),
        usd=_amount(record.get("spend")),
        trace=str(record.get("session_id") or ""),
        error=_object(metadata.get("error_information")) or {},
        stream=fields.get("stream"),
        fields=fields,
    )


def _litellm(
    record: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    id: str,
    base: str,
    usd: float | None,
    trace: str,
    error: Mapping[str, Any],
    stream: object,
    fields: dict[str, Any],
) -> Served | Unused:
    kind = _KINDS.get(str(record.get("call_type") or "acompletion"))
    if kind is None:
        return Unused.OTHER_KIND
    if str(record.get("cache_hit")).lower() == "true":
        return Unused.CACHED
    if metadata.get("is_silent_experiment") or metadata.get("internal_call_origin"):
        return Unused.INTERNAL
    arrived_s, ended_s = _time_s(record.get("startTime")), _time_s(record.get("endTime"))
    if arrived_s is None or ended_s is None or ended_s <= arrived_s:
        return Unused.NO_TIMES
    first_s = _time_s(record.get("completionStartTime"))
    # Where it saw no first content, it puts the end there.
    seen = first_s is not None and arrived_s < first_s < ended_s
    ok = str(record.get("status") or "success") == "success"
    deployment = str(record.get("model") or "")
    code = str(error.get("error_code") or "")
    return Served(
        id=id,
        arrived_s=arrived_s,
        e2e_s=ended_s - arrived_s,
        ttft_s=first_s - arrived_s if seen and first_s is not None else None,
        kind=kind,
        model=str(record.get("model_group") or deployment),
        deployment=deployment,
        base=base,
        ok=ok,
        at_fault=not ok and code in _AT_FAULT,
        rate_limited=not ok and code == str(_RATE_LIMITED),
        stream=stream if isinstance(stream, bool) else None,
        prompt_tokens=_count(record.get("prompt_tokens")) or None,
        output_tokens=_count(record.get("completion_tokens")),
        cached_tokens=_cached(metadata.get("usage_object"), metadata.get("additional_usage_values"), record),
        # It writes nothing where it knows no price.
        usd=usd or None,
        key=str(metadata.get("user_api_key_alias") or metadata.get("user_api_key_hash") or "")[:64],
        trace=trace,
        headers=_headers(metadata.get("requester_custom_headers")),
        fields=fields,
    )


# --- requests and answers -----------------------------------------------------------------------------------------

_SECONDS = {"latency_s": 1.0, "duration_s": 1.0, "latency_ms": 1e-3, "duration_ms": 1e-3, "delay_ms": 1e-3}
_FIRST_SECONDS = {"ttft_s": 1.0, "time_to_first_token_s": 1.0, "ttft_ms": 1e-3, "time_to_first_token_ms": 1e-3}
_NO_UNIT = ("latency", "duration", "response_time")


def _pair(path: Path, number: int, record: Mapping[str, Any], request: dict[str, Any], unnamed: str) -> Served | Unused:
    told = _object(_first_of(record, "response", "output", "response_body")) or {}
    # What a batch has written is one deeper.
    answer = _object(told.get("body")) or told
    usage = _object(_first_of(record, "usage")) or _object(answer.get("usage")) or record
    if "messages" in record and not request:
        request = {"messages": record["messages"]}
    times = ("time", "timestamp", "created_at", "request_created_at", "started_at", "created")
    arrived_s = _time_s(_first_of(record, *times))
    e2e_s = _seconds(record, _SECONDS)
    if e2e_s is None and (found := next((name for name in _NO_UNIT if name in record), None)):
        raise BadLog.at(path, number, f"a latency with its unit: `latency_ms` or `latency_s` in place of `{found}`")
    output_tokens = _count(_first_of(usage, "completion_tokens", "output_tokens"))
    status = _first_of(record, "status", "status_code", "response_status") or told.get("status_code")
    failed = bool(record.get("error")) or _is_failure(status)
    if output_tokens is None and not failed and "messages" not in request and "prompt" not in request:
        # Whatever generates nothing: embeddings, moderation.
        return Unused.OTHER_KIND
    if arrived_s is None or not e2e_s:
        return Unused.NO_TIMES
    ttft_s = _seconds(record, _FIRST_SECONDS)
    if ttft_s is None and "delay_ms" in record:
        ttft_s = _seconds(record, {"time_to_first_token": 1e-3})
    stream = request.get("stream")
    model = str(request.get("model") or _first_of(record, "model", "request_model") or answer.get("model") or "")
    return Served(
        id=str(_first_of(record, "id", "request_id", "custom_id") or unnamed),
        arrived_s=arrived_s,
        e2e_s=e2e_s,
        ttft_s=ttft_s if ttft_s is not None and 0.0 < ttft_s < e2e_s else None,
        kind=Capability.COMPLETION if "prompt" in request else Capability.CHAT,
        model=model,
        deployment=str(_first_of(record, "response_model") or answer.get("model") or model),
        base=_base(record),
        ok=not failed,
        at_fault=str(_count(status)) in _AT_FAULT,
        rate_limited=_count(status) == _RATE_LIMITED,
        stream=stream if isinstance(stream, bool) else None,
        prompt_tokens=_prompt_tokens(usage) or None,
        output_tokens=output_tokens,
        cached_tokens=_cached(usage, None, record),
        usd=_amount(_first_of(record, "cost_usd", "costUSD", "usd")),
        key=str(_first_of(record, "key", "user", "request_user_id") or "")[:64],
        trace=str(_first_of(record, "trace_id", "trace") or ""),
        fields=request,
    )


# --- values -------------------------------------------------------------------------------------------------------


def _is_failure(status: object) -> bool:
    """Whether a status says so, in a number or a word."""
    number = _count(status)
    if number is not None:
        return number >= _FAILURES
    return isinstance(status, str) and status.lower() not in _SUCCESSES


def _prompt_tokens(usage: Mapping[str, Any]) -> int | None:
    """All of the prompt's: Anthropic does not count what is cached, or written to the cache, among its input."""
    told = _count(usage.get("prompt_tokens"))
    if told is not None:
        return told
    parts = [_count(usage.get(name)) for name in ("input_tokens", *_BESIDE)]
    return None if parts[0] is None else sum(part or 0 for part in parts)


def _base(record: Mapping[str, Any]) -> str:
    """Who served it, by an address or a name: a path, as some write for `endpoint`, is neither."""
    told = (record.get(name) for name in ("endpoint", "api_base", "base_url", "provider"))
    return next((str(one) for one in told if one and not str(one).startswith("/")), "")


def _first_of(record: Mapping[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _object(value: object) -> dict[str, Any] | None:
    """An object, or the one that a text holds; None for anything else."""
    if isinstance(value, str | bytes):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX else None


def _amount(value: object) -> float | None:
    """A number that is not negative, or the one that a text holds."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0.0 <= value <= AMOUNT_MAX else None


def _seconds(record: Mapping[str, Any], units: Mapping[str, float]) -> float | None:
    for name, unit in units.items():
        value = _amount(record.get(name))
        if value is not None:
            return value * unit
    return None


def _time_s(value: object) -> float | None:
    """Seconds since 1970, of a number (in milliseconds, where it is that large) or of a date, by default UTC's."""
    if isinstance(value, str):
        try:
            value = since_epoch_s(Moment.fromisoformat(value))
        except (ValueError, OverflowError):
            return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < MILLISECONDS_MAX:
        return None
    seconds = value / 1000.0 if value > SECONDS_MAX else float(value)
    # One that is none would make a log of decades.
    return seconds if seconds >= SECONDS_MIN else None


def _cached(usage: object, more: object, record: Mapping[str, Any]) -> int | None:
    """Tokens of the prompt that the vendor had in its cache, wherever that stands."""
    answer = _object(_first_of(record, "response", "response_body")) or {}
    for told in (usage, more, answer.get("usage")):
        known = _object(told) or {}
        details = _object(_first_of(known, "prompt_tokens_details", "input_tokens_details")) or {}
        found = _count(details.get("cached_tokens"))
        if found is None:
            found = _count(_first_of(known, "cache_read_input_tokens", "prompt_cache_read_tokens"))
        if found is not None:
            return found
    return None


def _headers(value: object) -> dict[str, str]:
    known = _object(value) or {}
    return {str(name).lower(): text for name, text in known.items() if isinstance(text, str)}
