"""One short greedy answer with its log-probabilities, asked of an endpoint in its own dialect."""

from enum import StrEnum

import msgspec

from tidegate.core.drift import SPOTS_MAX, TOP_MAX, Spot
from tidegate.core.model import Capability
from tidegate.engines.base import Outgoing
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Cause, TransportError, fetch
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.chunks import Usage
from tidegate.wire.errors import BadRequest
from tidegate.wire.logprobs import read_logprobs
from tidegate.wire.openai import Call, parse
from tidegate.wire.sse import BadStream
from tidegate.wire.translate import Translated, reader
from tidegate.wire.whole import WholeReader

# A fact, a rule to follow and a sentence in another script: templates, weights and tokenizers show in different ones.
PROMPTS = (
    "Name the capital of France and the river that flows through it.",
    "Continue: 2, 4, 8, 16,",
    "Übersetze ins Deutsche: The cat sleeps on the warm roof.",
)
# Eight tokens with five candidates each are 12 KB as llama.cpp streams them.
ANSWER_BYTES_MAX = 128 * 1024
# A small model on one core takes half a second; beyond half a minute an engine is not idle, or not well.
ANSWER_S_MAX = 30.0


class Fault(StrEnum):
    """Why there is no answer to be compared. Closed, for dashboards."""

    UNCARRIED = "uncarried"  # its dialect has no log-probabilities
    UNREACHED = "unreached"  # nothing was sent
    REFUSED = "refused"  # it answered with an error
    BROKEN = "broken"  # too late, too large, cut or unreadable
    NO_LOGPROBS = "no_logprobs"  # an answer without them


class NoAnswerError(Exception):
    """There is nothing to compare. `billed`: the endpoint may have worked on it all the same."""

    def __init__(self, fault: Fault, *, billed: bool) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.billed = billed


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The first tokens of an answer, and what it took where the endpoint said it."""

    spots: tuple[Spot, ...]
    usage: Usage | None


def calls(model: str) -> tuple[Call, ...]:
    """The fixed set, as a client would send it: the same bytes each time, for a cache and for a comparison alike."""
    return tuple(parse(_body(model, prompt), Capability.CHAT) for prompt in PROMPTS)


def _body(model: str, prompt: str) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": SPOTS_MAX,
            "temperature": 0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": TOP_MAX,
        }
    )


async def ask(upstream: Upstream, call: Call, now_s: float) -> Answer:
    """Send it and read the answer, within `ANSWER_S_MAX` and `ANSWER_BYTES_MAX`. Raises `NoAnswerError`."""
    try:
        outgoing = upstream.dialect.outgoing(call, upstream.model or call.model, upstream.headers)
    except BadRequest:
        raise NoAnswerError(Fault.UNCARRIED, billed=False) from None
    try:
        status, _, body = await fetch(
            upstream.pool, b"POST", outgoing.target, outgoing.headers, outgoing.body, ANSWER_S_MAX, ANSWER_BYTES_MAX
        )
    except TransportError as error:
        sent = error.sent_bytes or error.cause is Cause.TOO_LARGE
        raise NoAnswerError(Fault.BROKEN if sent else Fault.UNREACHED, billed=sent) from None
    if status != 200:
        raise NoAnswerError(Fault.REFUSED, billed=False)
    return _read(upstream, call, outgoing, body, now_s)


def _read(upstream: Upstream, call: Call, outgoing: Outgoing, body: bytes, now_s: float) -> Answer:
    streamed = outgoing.streamed
    translate = upstream.dialect.translator(streamed=streamed, now_s=now_s)
    answer = reader(call, streamed=streamed, engine=translate, now_s=lambda: now_s)
    assert isinstance(answer, WholeReader | Aggregator | Translated), "no stream was asked for"
    answer.feed(body)
    if not answer.done:
        answer.end()
    try:
        if answer.failure is not None:
            raise answer.failure
        spots = read_logprobs(answer.result())
    except BadStream:
        raise NoAnswerError(Fault.BROKEN, billed=True) from None
    if not spots:
        raise NoAnswerError(Fault.NO_LOGPROBS, billed=True)
    return Answer(spots=spots, usage=answer.usage)
