"""One short greedy answer with its log-probabilities, asked of an endpoint."""

import msgspec

from tidegate.core.drift import SPOTS_MAX, TOP_MAX, Spot
from tidegate.core.model import Capability
from tidegate.gateway.errand import Errands, Fault, NoAnswerError, Reply
from tidegate.wire.logprobs import read_logprobs
from tidegate.wire.openai import Call, parse
from tidegate.wire.sse import BadStream

# A fact, a rule to follow and a sentence in another script: templates, weights and tokenizers show in different ones.
PROMPTS = (
    "Name the capital of France and the river that flows through it.",
    "Continue: 2, 4, 8, 16,",
    "Übersetze ins Deutsche: The cat sleeps on the warm roof.",
)
# A small model on one core takes half a second; beyond half a minute an engine is not idle, or not well.
ANSWER_S_MAX = 30.0


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


async def first_spots(errands: Errands, call: Call) -> tuple[Spot, ...]:
    """The first tokens of the answer, within `ANSWER_S_MAX`. Raises `NoAnswerError`."""
    return spots_of(await errands.ask(call, ANSWER_S_MAX))


def spots_of(reply: Reply) -> tuple[Spot, ...]:
    """Those of an answer. Raises `NoAnswerError`."""
    try:
        spots = read_logprobs(reply.result)
    except BadStream:
        raise NoAnswerError(Fault.BROKEN, billed=True) from None
    if not spots:
        raise NoAnswerError(Fault.NO_LOGPROBS, billed=True)
    return spots
