"""Errors as Messages clients are told them."""

from tidegate.wire.hub import encode

_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_BY_CODE = {
    "upstream_overloaded": "overloaded_error",
    "no_endpoint_available": "overloaded_error",
    "gateway_stopping": "overloaded_error",
    "upstream_timeout": "timeout_error",
    "request_timeout": "timeout_error",
}
_KINDS = frozenset(_BY_STATUS.values())
# A code of the vendor's own: its SDK's tool runner then sends the whole conversation, without `thread`.
THREAD_UNSUPPORTED = "thread_unsupported_request"


# By these words Claude Code knows that it has to make the conversation shorter.
_TOO_LONG = ("prompt is too long", "input length and `max_tokens` exceed context limit")


def error_body(status: int, message: str, code: str | None = None) -> bytes:
    """The body of an answer that is an error; its type is the status's. Of codes it has the vendor's own."""
    fallback = "invalid_request_error" if status < 500 else "api_error"
    more = {"details": {"error_code": code}} if code == THREAD_UNSUPPORTED else {}
    return _body(_BY_STATUS.get(status, fallback), _in_its_words(message, code), **more)


def error_event(message: str, kind: str, code: str | None) -> bytes:
    """The same inside a stream, as its last event. `kind` and `code` are those of an OpenAI error."""
    own = _BY_CODE.get(code or "") or (kind if kind in _KINDS else "api_error")
    return b"event: error\ndata: %b\n\n" % _body(own, _in_its_words(message, code))


def _in_its_words(message: str, code: str | None) -> str:
    if code != "context_length_exceeded" or any(words in message.lower() for words in _TOO_LONG):
        return message
    return f"prompt is too long: {message}"


def _body(kind: str, message: str, **more: object) -> bytes:
    return encode({"type": "error", "error": {"type": kind, "message": message, **more}})
