"""OpenAI's Responses API, and others that speak it: where OpenAI's newer models take tools and think at once.

What a client asks in the same dialect goes on as it came, sealed thoughts included; what others ask is translated, and
so is every answer. Nothing is ever stored there. Answers are streamed only where the client streams.
"""

from collections.abc import Sequence

from tidegate.config.address import api_path
from tidegate.engines.base import Header, Outgoing
from tidegate.engines.openai import FIXED_HEADERS, OpenAI
from tidegate.wire.openai import Call
from tidegate.wire.responses.inward import EventStream, WholeResponse
from tidegate.wire.responses.outward import responses_body
from tidegate.wire.responses.shapes import NAME
from tidegate.wire.translate import EngineStream


class Responses:
    """The Responses dialect. It serves chats alone."""

    name = NAME
    fetches = False
    continuing = None  # a last message of the assistant is one before its next one

    def __init__(self, base_path: str, model: str | None) -> None:
        """See `OpenAI`, whose keys, probes and errors it has."""
        self._base = api_path(base_path).encode()
        openai = OpenAI(base_path, model)
        self.failure = openai.failure
        self.headers = openai.headers
        self.probes = openai.probes
        self.signals = openai.signals

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`."""
        return Outgoing(
            target=self._base + b"/responses",
            headers=(*FIXED_HEADERS, *headers),
            body=responses_body(call, model=model, stream=call.stream),
            streamed=call.stream,
        )

    def translator(self, *, streamed: bool, now_s: float) -> EngineStream:
        """See `Dialect`."""
        return EventStream(int(now_s)) if streamed else WholeResponse(int(now_s))
