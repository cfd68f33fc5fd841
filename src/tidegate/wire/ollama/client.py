"""Clients that speak Ollama's API: `POST /api/chat` and `/api/generate`."""

from collections.abc import Callable, Mapping

from tidegate.wire.ollama import answer, request
from tidegate.wire.openai import Call


class Ollama:
    """See `Client`. One of the two requests."""

    content_type = b"application/x-ndjson"

    def __init__(self, parse: Callable[[bytes], Call], form: answer.Form) -> None:
        self._parse = parse
        self._form = form

    def parse(self, body: bytes, headers: Mapping[bytes, bytes]) -> Call:  # noqa: ARG002 - none of them matters here
        """See `Client`. It is streamed where the request does not say."""
        return self._parse(body)

    def stream(self, call: Call, now_s: Callable[[], float]) -> answer.LineStream:
        """See `Client`."""
        return answer.LineStream(call, self._form, now_s)

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:
        """See `Client`."""
        started_s = now_s()
        return lambda body: answer.whole(body, call, self._form, started_s, now_s())

    def error_body(self, status: int, message: str, kind: str, param: str | None, code: str | None) -> bytes:  # noqa: ARG002
        """See `Client`. This dialect has a message and no more."""
        return answer.error_body(message)


OLLAMA_CHAT = Ollama(request.parse_chat, answer.Form(chat=True))
OLLAMA_GENERATE = Ollama(request.parse_generate, answer.Form(chat=False))
