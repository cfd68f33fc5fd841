"""The log-probabilities of a chat completion, as the core knows them."""

import msgspec

from tidegate.core.drift import LOGPROB_MIN, SPOTS_MAX, TOP_MAX, Spot
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.sse import BadStream, Cause

# Rounding makes a certain token a little more than certain.
_LOGPROB_MAX = 0.01


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Answer).decode


def read_logprobs(body: bytes) -> tuple[Spot, ...]:
    """The first tokens of the first choice of a whole answer; empty where there are none.

    Raises `BadStream` for what cannot be read, and for numbers that are no log-probabilities.
    """
    try:
        answer = _decode(body)
    except UNREADABLE:
        raise BadStream(Cause.MALFORMED, "sent log-probabilities that cannot be read") from None
    told = answer.choices[0].logprobs if answer.choices else None
    tokens = (told.content if told is not None else None) or []
    return tuple(_spot(token) for token in tokens[:SPOTS_MAX])


def _spot(token: _Token) -> Spot:
    likely = sorted(token.top_logprobs or (), key=lambda t: -t.logprob)[:TOP_MAX]
    # Two tokens may have one text, as halves of a character do: the likelier one counts.
    top = {t.token: _nats(t.logprob) for t in reversed(likely)}
    top.setdefault(token.token, _nats(token.logprob))
    return Spot(token=token.token, top=top)


def _nats(logprob: float) -> float:
    # Servers write -9999 for what they did not compute.
    if not logprob <= _LOGPROB_MAX:
        raise BadStream(Cause.MALFORMED, "sent numbers that are no log-probabilities")
    return max(LOGPROB_MIN, min(0.0, logprob))
