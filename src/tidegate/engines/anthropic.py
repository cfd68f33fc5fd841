"""Anthropic's own API, and others that speak its Messages dialect.

What a client asks in the same dialect goes on as it came, `cache_control` and thinking included; what others ask is
translated, and so is every answer, beside which clients of the same dialect have what it says in no other. Answers are
streamed only where the client streams.
"""

from collections.abc import Sequence

import msgspec

from tidegate.engines.base import Header, Outgoing, ProbeAnswer, ProbeRequest, Signals, narrowest, read
from tidegate.engines.openai import FIXED_HEADERS, OpenAI, is_down
from tidegate.wire.anthropic.inward import EventStream, WholeMessage
from tidegate.wire.anthropic.outward import messages_body
from tidegate.wire.anthropic.shapes import NAME
from tidegate.wire.openai import Call
from tidegate.wire.translate import EngineStream

# The only version since 2023; what is new comes as fields of it.
VERSION = b"2023-06-01"
_BEARER = b"bearer "


class _Model(msgspec.Struct):
    id: str = ""
    max_input_tokens: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class Anthropic:
    """The Messages dialect. It serves chats alone."""

    name = NAME
    fetches = False
    continuing = None  # its newer models refuse a last message of the assistant

    def __init__(self, base_path: str, model: str | None) -> None:
        """See `OpenAI`."""
        self._base = base_path.rstrip("/").removesuffix("/v1").encode()
        self._model = model
        # Status for status the same, 529 included; the shape of the body is among the usual ones.
        self.failure = OpenAI(base_path, model).failure

    def headers(self, given: Sequence[Header]) -> tuple[Header, ...]:
        """See `Dialect`. The key stands in `x-api-key`, and there is a version."""
        found = []
        for name, value in given:
            if name.lower() == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
                found.append((b"x-api-key", value[len(_BEARER) :]))
            elif name.lower() != b"anthropic-version":
                found.append((name, value))
        return (*found, (b"anthropic-version", VERSION))

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`."""
        own = call.native.headers if call.native is not None and call.native.dialect == NAME else ()
        return Outgoing(
            target=self._base + b"/v1/messages",
            headers=(*FIXED_HEADERS, *self.headers(headers), *own),
            body=messages_body(call, model=model, stream=call.stream),
            streamed=call.stream,
        )

    def translator(self, *, streamed: bool, now_s: float) -> EngineStream:
        """See `Dialect`."""
        return EventStream(int(now_s)) if streamed else WholeMessage(int(now_s))

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`. Listing models is free, and tells whether the key is good."""
        return (ProbeRequest(target=self._base + b"/v1/models?limit=1000", essential=True, lists=True),)

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. `max_input_tokens` is the window, where a model tells it."""
        (models,) = answers
        if is_down(models):
            return Signals(up=False)
        known = (m.max_input_tokens for m in read(models, _Models).data if self._model in (None, m.id))
        return Signals(up=True, context_tokens=narrowest(known))
