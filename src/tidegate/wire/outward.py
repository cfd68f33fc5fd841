"""What a chat completion may not ask of an engine whose dialect is another one: others may serve it."""

from collections.abc import Collection, Mapping

from msgspec import Raw

from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import Call
from tidegate.wire.shape import quotable

_NULL = Raw(b"null")


def check(call: Call, known: Collection[str], refused: Mapping[str, str]) -> None:
    """Raises `BadRequest` for a field that the dialect does not know, or that is `refused` for a reason; and for what
    is no chat, has several choices or log-probabilities."""
    if call.kind is not Capability.CHAT:
        raise BadRequest(f"This endpoint serves chat completions alone, not {call.kind.value}.")
    for name, value in call.fields.items():
        if value != _NULL and name not in known:
            why = refused.get(name, "its dialect has no such field")
            shown = quotable(name)
            raise BadRequest(f"`{shown}` cannot be carried to this endpoint: {why}. Leave it out.", param=shown)
    if call.completions > 1:
        raise BadRequest("`n`: this endpoint gives one choice. Ask for 1.", param="n")
    if Capability.LOGPROBS in call.needs:
        raise BadRequest("`logprobs`: this endpoint has none. Leave it out.", param="logprobs")
