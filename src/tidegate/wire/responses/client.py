"""Clients that speak the Responses API: `POST /v1/responses`."""

from collections.abc import Callable, Mapping

from tidegate.wire import errors
from tidegate.wire.openai import Call
from tidegate.wire.responses import answer, request
from tidegate.wire.responses.stream import ResponseStream


class Responses:
    """See `Client`. Errors are those of the other OpenAI addresses."""

    content_type = b"text/event-stream; charset=utf-8"

    def parse(self, body: bytes, headers: Mapping[bytes, bytes]) -> Call:  # noqa: ARG002 - none of them matters here
        """See `Client`."""
        return request.parse(body)

    def stream(self, call: Call, now_s: Callable[[], float]) -> ResponseStream:
        """See `Client`."""
        return ResponseStream(call, now_s())

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:
        """See `Client`."""
        return lambda body: answer.whole(body, call, now_s())

    def error_body(self, status: int, message: str, kind: str, param: str | None, code: str | None) -> bytes:  # noqa: ARG002
        """See `Client`."""
        return errors.error_body(message, kind, param, code)
