"""Errors as Messages clients are told them."""

import re

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


# By the first of these words Claude Code knows that it has to make the conversation shorter, by the others and their
# numbers that it has to ask for less.
_TOO_LONG = ("prompt is too long", "input length and `max_tokens` exceed context limit")
# So many a window has to have left for it then, of which 1,000 are for counts that are wrong. With less it gives up at
# the other words, although a shorter conversation would go on.
_ROOM_TOKENS_MIN = 4000
# How that is said with numbers: by the gateway and the vendor, OpenAI and vLLM, vLLM, SGLang; and of a prompt alone by
# the gateway, llama.cpp and SGLang. Where vLLM says `at least`, the number is none of the prompt's.
_SIZED = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?:the )?input length and `max_tokens` exceed context limit: (?P<prompt>\d+) \+ (?P<output>\d+)"
        r" > (?P<window>\d+)",
        r"this model's maximum context length is (?P<window>\d+) tokens\. However, you requested \d+ tokens"
        r" \((?P<prompt>\d+) in the messages, (?P<output>\d+) in the completion\)",
        r"'max_tokens' or 'max_completion_tokens' is too large: (?P<output>\d+)\. This model's maximum context length"
        r" is (?P<window>\d+) tokens and your request has (?P<prompt>\d+) input tokens(?: \(\d+ > \d+ - \d+\))?",
        r"requested token count exceeds the model's maximum context length of (?P<window>\d+) tokens\. You requested a"
        r" total of \d+ tokens: (?P<prompt>\d+) tokens from the input messages and (?P<output>\d+) tokens for the"
        r" completion",
        r"the prompt is too long: about (?P<prompt>\d+) tokens(?=, and this model's maximum context length is"
        r" (?P<window>\d+))",
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<window>\d+) tokens\)",
        r"the input \((?P<prompt>\d+) tokens\) is longer than the model's context length \((?P<window>\d+) tokens\)",
    )
)


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
    if code != "context_length_exceeded":
        return message
    for form in _SIZED:
        if (told := form.search(message)) is not None:
            return message[: told.start()] + _sized(**told.groupdict()) + message[told.end() :]
    if any(words in message.lower() for words in _TOO_LONG):
        return message
    return f"prompt is too long: {message}"


def _sized(prompt: str, window: str, output: str = "") -> str:
    """What is too long for a window, in the vendor's words: the prompt, or what is asked for with it."""
    most = int(window) - _ROOM_TOKENS_MIN
    if int(prompt) >= int(window) or not output:
        return f"prompt is too long: {prompt} tokens > {window} maximum"
    if int(prompt) > most > 0:
        return f"prompt is too long: {prompt} tokens > {most} maximum, with room for an answer"
    return f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {window}"


def _body(kind: str, message: str, **more: object) -> bytes:
    return encode({"type": "error", "error": {"type": kind, "message": message, **more}})
