"""What is left of a vendor's limits, from the headers of its answers.

OpenAI and those who follow it say `x-ratelimit-remaining-requests`, `x-ratelimit-limit-requests` and
`x-ratelimit-reset-requests` (`1s`, `6m0s`, `20ms`), and the same of tokens; Anthropic `anthropic-ratelimit-requests-
remaining`, with a time of day for the reset. What cannot be read says nothing.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import mktime_tz

from tidegate.core.model import Headroom

_COUNT = re.compile(rb"[0-9]{1,12}")
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{0,9})?)"
_SPAN = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_MOMENT = re.compile(
    rb"([0-9]{4})-([01][0-9])-([0-3][0-9])[Tt]([0-2][0-9]):([0-5][0-9]):([0-6][0-9])(\.[0-9]{1,9})?"
    rb"(?:[Zz]|([+-])([0-2][0-9]):([0-5][0-9]))"
)
_OPENAI, _ANTHROPIC = b"x-ratelimit-remaining-", b"anthropic-ratelimit-"
# Anthropic tells of tokens in all, or of those of prompts alone.
_TOKENS = (b"tokens", b"input-tokens")
# Looked for in each answer, and mostly not there.
_OPENAI_REQUESTS, _OPENAI_TOKENS = _OPENAI + b"requests", _OPENAI + b"tokens"
_ANTHROPIC_REQUESTS = _ANTHROPIC + b"requests-remaining"
_ANTHROPIC_TOKENS, _ANTHROPIC_INPUT = (_ANTHROPIC + what + b"-remaining" for what in _TOKENS)


def read_headroom(headers: Mapping[bytes, bytes], endpoint: str, now_s: Callable[[], float]) -> Headroom | None:
    """What the headers say, None where they say nothing of it. Their names are in lower case; the clock is read where
    they tell a time of day."""
    if _OPENAI_REQUESTS in headers or _OPENAI_TOKENS in headers:
        requests, tokens = (_openai(headers, what) for what in (b"requests", b"tokens"))
    elif _ANTHROPIC_REQUESTS in headers or _ANTHROPIC_TOKENS in headers or _ANTHROPIC_INPUT in headers:
        at_s = now_s()
        requests = _anthropic(headers, b"requests", at_s)
        tokens = next((t for t in (_anthropic(headers, what, at_s) for what in _TOKENS) if t[0] is not None), _NOTHING)
    else:
        return None
    return Headroom(
        endpoint=endpoint,
        requests_left=requests[0],
        requests_max=requests[1],
        requests_full_s=requests[2],
        tokens_left=tokens[0],
        tokens_max=tokens[1],
        tokens_full_s=tokens[2],
    )


_Told = tuple[int | None, int | None, float | None]
_NOTHING: _Told = (None, None, None)


def _openai(headers: Mapping[bytes, bytes], what: bytes) -> _Told:
    left, most = _count(headers.get(_OPENAI + what)), _count(headers.get(b"x-ratelimit-limit-" + what))
    return left, most, _span_s(headers.get(b"x-ratelimit-reset-" + what, b""))


def _anthropic(headers: Mapping[bytes, bytes], what: bytes, now_s: float) -> _Told:
    left, most = (_count(headers.get(b"%b%b-%b" % (_ANTHROPIC, what, of))) for of in (b"remaining", b"limit"))
    return left, most, _until_s(headers.get(b"%b%b-reset" % (_ANTHROPIC, what), b""), now_s)


def _count(value: bytes | None) -> int | None:
    return int(value) if value is not None and _COUNT.fullmatch(value) else None


def _span_s(value: bytes) -> float | None:
    """`6m0s`, `1.5s`, `20ms`, or a bare number of seconds."""
    text = value[:64].decode("latin-1").strip()
    found = _SPAN.fullmatch(text if not text.replace(".", "", 1).isdigit() else f"{text}s")
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0.0) for part in found.groups())
    return hours * 3600.0 + minutes * 60.0 + seconds + milliseconds / 1000.0


def _until_s(value: bytes, now_s: float) -> float | None:
    """A time of day in RFC 3339."""
    found = _MOMENT.fullmatch(value[:64])
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    sign, hours, minutes = found.group(8) or b"+", int(found.group(9) or 0), int(found.group(10) or 0)
    offset_s = (hours * 60 + minutes) * (-60 if sign == b"-" else 60)
    try:
        at_s = mktime_tz((year, month, day, hour, minute, second, 0, 1, -1, offset_s))
    except (ValueError, OverflowError):
        return None
    return max(0.0, at_s + float(found.group(7) or 0.0) - now_s)
