"""What an engine's dialect must do: make a request, judge an answer, and say how to probe it.

A dialect is one file and one line in kinds.py. It touches no socket: the gateway sends what it makes and hands it
what comes back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from tidegate.core.health import CONTEXT_EXCEEDED, UNFIT
from tidegate.core.memory import COUNT_MAX
from tidegate.core.model import Capability, Ending, Fingerprint, Record, replace
from tidegate.wire.errors import UNFIT_CODES, UNREADABLE, BadRequest, ErrorInfo
from tidegate.wire.openai import Call
from tidegate.wire.rest import Continuing
from tidegate.wire.translate import EngineStream

CONTEXT_TOKENS_MAX = 100_000_000  # as in the configuration

_T = TypeVar("_T")

Header = tuple[bytes, bytes]


class Outgoing(Record, frozen=True, kw_only=True):
    """A request as it goes to the engine. `streamed`: the answer is an event stream."""

    target: bytes
    headers: tuple[Header, ...]
    body: bytes
    streamed: bool


class Failure(Record, frozen=True, kw_only=True):
    """Why an attempt did not give an answer.

    `status`, `message`, `kind` and `code` are what the client would be told, were it the last attempt. `final`: the
    request itself is at fault, so that no other endpoint would do better. `cause` is for records: a closed, short word.
    `aside` is what was said of our key or account there, which is for operators alone.
    """

    ending: Ending
    cause: str
    status: int
    message: str
    kind: str = "api_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    final: bool = False
    aside: str = ""


def overflow(message: str) -> Failure:
    """Prompt and output did not fit after all. Not final: another endpoint may have a larger window."""
    return Failure(
        ending=Ending.REFUSED,
        cause=CONTEXT_EXCEEDED,
        status=400,
        message=message,
        kind="invalid_request_error",
        code="context_length_exceeded",
        param="messages",
    )


def unfit(said: ErrorInfo, status: int = 400, code: str | None = None) -> Failure:
    """This endpoint will not serve what is asked, and nothing is wrong with it. Not final: another one may."""
    return Failure(
        ending=Ending.REFUSED,
        cause=UNFIT,
        status=status,
        message=said.message,
        kind="invalid_request_error",
        # What else a code may be, an engine could have from the prompt; this one is written down.
        code=code or (said.code if said.code in UNFIT_CODES else None),
        param=said.param,
    )


def in_our_form(fault: Failure) -> Failure:
    """A fault that was found with a request as we put it. Not final: it may be one of the form, which others take."""
    code = fault.code if fault.code in UNFIT_CODES else None
    return replace(fault, ending=Ending.REFUSED, cause=UNFIT, code=code, final=False)


UNCARRIED = "uncarried"


def uncarried(refusal: BadRequest) -> Failure:
    """This engine's dialect cannot say what is asked. Not final: another's may; nothing was sent."""
    return Failure(
        ending=Ending.REFUSED,
        cause=UNCARRIED,
        status=refusal.status,
        message=refusal.message,
        kind=refusal.type,
        code="unsupported_capability",
        param=refusal.param,
    )


class ProbeRequest(Record, frozen=True, kw_only=True):
    """One GET of a probe. `essential`: the endpoint counts as down where it fails.

    `wakes`: some builds load a model that is unloaded in order to answer, so an engine that has just told that it is so
    is not asked. `lists`: what it answers may be longer than anybody needs, so that its head is enough. `former`: the
    target of older builds, asked where this one answers 404.
    """

    target: bytes
    former: bytes = b""
    essential: bool = False
    wakes: bool = False
    lists: bool = False


class ProbeAnswer(Record, frozen=True, kw_only=True):
    """What came back: status and body."""

    status: int
    body: bytes


class Signals(Record, frozen=True, kw_only=True):
    """What a probe tells. None is unknown, never zero.

    `media` are the kinds besides text that the model takes. `fingerprint` is what the engine tells of its model.
    `resident`: whether that is loaded; `loading`: it will be; `lacks`: the name by which it lists none. The KV cache
    holds `kv_tokens_max` tokens, of which the share `kv_share` is in use and cannot be evicted; `slots` requests run at
    once, and `preemptions` had to give way since the engine was started.
    """

    up: bool
    context_tokens: int | None = None
    media: tuple[Capability, ...] | None = None
    running: int | None = None
    queued: int | None = None
    fingerprint: Fingerprint | None = None
    resident: bool | None = None
    loading: bool = False
    lacks: str = ""
    kv_tokens_max: int | None = None
    kv_share: float | None = None
    slots: int | None = None
    preemptions: int | None = None


def read_or_none(answer: ProbeAnswer | None, shape: type[_T], status: int | None = None) -> _T | None:
    """The body as that; None where it is anything else, or where the status is another than is named."""
    if answer is None or status not in (None, answer.status):
        return None
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except UNREADABLE:
        return None


def read(answer: ProbeAnswer | None, shape: type[_T], status: int | None = None) -> _T:
    """The same, with the shape's defaults for None."""
    return read_or_none(answer, shape, status) or shape()


def recognised(fingerprint: Fingerprint) -> Fingerprint | None:
    """The fingerprint, None where the engine told nothing of its model."""
    return None if fingerprint == Fingerprint(context_tokens=fingerprint.context_tokens) else fingerprint


def counted(told: float | None) -> int | None:
    """A count that an engine tells, None where it can be none."""
    return int(told) if told is not None and 0 <= told <= COUNT_MAX else None


def narrowest(told: Iterable[int | None]) -> int | None:
    """The smallest of the windows that an engine tells, None where it tells none.

    A number beyond all bounds is none: so some say that they have no limit.
    """
    return min((w for w in told if w is not None and 0 < w <= CONTEXT_TOKENS_MAX), default=None)


def share(told: float | None) -> float | None:
    """A share that an engine tells, None where it can be none."""
    return told if told is not None and 0.0 <= told <= 1.0 else None


class Dialect(Protocol):
    """How one kind of engine is spoken to. `fetches`: it gets KV caches from others of its kind by itself."""

    name: str
    fetches: bool

    def headers(self, given: Sequence[Header]) -> tuple[Header, ...]:
        """The headers that go with every request and probe, the key among them, as this engine wants them.

        Doing it twice changes nothing.
        """
        ...

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """The request as this engine wants it; `model` is the endpoint's own name for it.

        Raises `BadRequest` for what its dialect cannot say: see `uncarried`.
        """
        ...

    @property
    def continuing(self) -> Continuing | None:
        """How it is asked to go on with the last message of a chat; None where it begins another one."""
        ...

    def translator(self, *, streamed: bool, now_s: float) -> EngineStream | None:
        """What makes the hub's answer of this engine's; None where it is that already. `now_s` dates it."""
        ...

    def failure(self, status: int, headers: Mapping[bytes, bytes], body: bytes, now_s: float) -> Failure:
        """What an answer other than 200 means."""
        ...

    def probes(self) -> tuple[ProbeRequest, ...]:
        """What to ask, in order. Never a model load, never a paid token."""
        ...

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """What the answers to `probes` tell; None where a probe got no answer."""
        ...
