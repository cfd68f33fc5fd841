"""Clients that speak the Messages API: `POST /v1/messages` and `/v1/messages/count_tokens`."""

from collections.abc import Callable, Mapping

from tidegate.wire.anthropic import answer, errors, request
from tidegate.wire.hub import encode
from tidegate.wire.openai import Call


class Messages:
    """See `Client`."""

    content_type = b"text/event-stream; charset=utf-8"

    def parse(self, body: bytes, headers: Mapping[bytes, bytes]) -> Call:
        """See `Client`."""
        return request.parse(body, headers)

    def stream(self, call: Call, now_s: Callable[[], float]) -> answer.MessageStream:  # noqa: ARG002 - others ask it
        """See `Client`."""
        return answer.MessageStream()

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:  # noqa: ARG002 - others ask them
        """See `Client`."""
        return answer.whole

    def error_body(self, status: int, message: str, kind: str, param: str | None, code: str | None) -> bytes:  # noqa: ARG002
        """See `Client`. The type is the status's, the place in the message, and the vendor's own code in `details`."""
        return errors.error_body(status, message, code)


def counted(tokens: int) -> bytes:
    """The answer to `count_tokens`. It is our estimate from bytes, and says so: no tokenizer is asked."""
    return encode({"input_tokens": tokens, "estimated": True})
