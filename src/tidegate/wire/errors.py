"""Errors on the wire: ours as clients are told them, and an endpoint's as it told them."""

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

import msgspec

from tidegate.core.model import Record, replace

# What a client can use of an endpoint's words; the rest is noise, or a web page.
MESSAGE_CHARS_MAX = 500
# Longer than any rate limit window that is worth waiting out; beyond it a probe finds out.
RETRY_AFTER_S_MAX = 3600.0
# With these an endpoint says that it will not take a request now. 529 is Anthropic's, for an API that is overloaded.
REFUSALS = frozenset({429, 503, 529})

# What msgspec raises for bytes that are not what they should be.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class BadRequest(Exception):
    """The client's request cannot be served as it stands.

    `message` names the place by its JSON path or header and says what is accepted; it never quotes a prompt. `headers`
    tell an SDK what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers


def error_body(message: str, type: str, param: str | None = None, code: str | None = None) -> bytes:
    """An error as the OpenAI schema wants it: all four keys, always."""
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": param, "code": code}})


def error_event(message: str, type: str, param: str | None = None, code: str | None = None) -> bytes:
    """The same inside a stream, as its last event: no `[DONE]` may follow."""
    return b"data: %b\n\n" % error_body(message, type, param, code)


class ErrorInfo(Record, frozen=True, kw_only=True):
    """What an endpoint said went wrong.

    `context_exceeded`: the prompt, with its output, is too long for it; `unfit`: it cannot do what is asked, and others
    may, as where there is an `unknown_field`, or where what is asked is `unserved` by all behind it; `flagged`: it will
    not answer such a prompt; `of_the_account`: our key there is no good, or was not paid for; `absent`: its model is
    not there, not loaded, or has crashed.
    """

    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None
    context_exceeded: bool = False
    unfit: bool = False
    unknown_field: bool = False
    unserved: bool = False
    flagged: bool = False
    of_the_account: bool = False
    absent: bool = False


def read_error(status: int, body: bytes, content_type: bytes = b"", *, content_encoding: bytes = b"") -> ErrorInfo:
    """What an endpoint meant by an answer other than 200. Never raises, never relays markup or what is compressed."""
    said = _told(status, body.removeprefix(BOM_UTF8), content_type, content_encoding)
    # A server that fails may say the like of what went wrong within it.
    return replace(said, unfit=True) if said.unknown_field and status < 500 else said


def _told(status: int, body: bytes, content_type: bytes, content_encoding: bytes) -> ErrorInfo:
    try:
        found = find_error(msgspec.json.decode(body))
    except UNREADABLE:
        found = None
    if found is not None:
        return found
    said = body.strip()
    if not said:
        return ErrorInfo(message=f"the endpoint answered {status} without a word")
    if b"html" in content_type.lower() or said.startswith(b"<"):
        return ErrorInfo(message="the endpoint answered HTML")
    if content_encoding.lower() not in (b"", b"identity"):
        return ErrorInfo(message=f"the endpoint answered {status}, compressed")
    if said.startswith((b"{", b"[")):
        return ErrorInfo(message=f"the endpoint answered {status} with JSON that names no error")
    return _error(said.decode("utf-8", "replace"))


def find_error(value: object) -> ErrorInfo | None:
    """The error in decoded JSON, in any of the usual shapes; None where there is none.

    `{"error": {...}}` is OpenAI's and llama.cpp's, `{"error": "..."}` Ollama's, `{"object": "error", "message": ...}`
    vLLM's and SGLang's, `{"detail": ...}` FastAPI's, and Mistral has that as a `message`. Some gateways wrap any of
    them into a list, and OpenRouter quotes in its own what the provider behind it has answered.
    """
    said = _found(value)
    quoted = _quoted(value) if said is not None else None
    return said if said is None or quoted is None else _joined(said, quoted)


def _quoted(value: object) -> ErrorInfo | None:
    """What the provider behind OpenRouter found wrong; what that quotes in turn is not looked at.

    Of an account nothing is taken: it is OpenRouter's own there, or for those who run it.
    """
    for name in ("error", "metadata", "raw"):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        text = value[:_QUOTED_CHARS_MAX].strip()
        try:
            value = msgspec.json.decode(text)
        except UNREADABLE:
            # What is left is a web page, or JSON that is cut.
            return None if not text or text.startswith(("<", "{", "[")) else _kept(_error(text))
    return _kept(_found(value))


def _kept(quoted: ErrorInfo | None) -> ErrorInfo | None:
    return None if quoted is None or quoted.of_the_account else quoted


def _joined(said: ErrorInfo, quoted: ErrorInfo) -> ErrorInfo:
    return replace(
        said,
        message=_printable(f"{said.message}: {quoted.message}"),
        context_exceeded=said.context_exceeded or quoted.context_exceeded,
        unfit=said.unfit or quoted.unfit,
        unknown_field=said.unknown_field or quoted.unknown_field,
        flagged=said.flagged or quoted.flagged,
    )


def _found(value: object) -> ErrorInfo | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None
    inner = value.get("error")
    if isinstance(inner, dict) and inner:
        message = inner.get("message") or inner.get("detail") or inner.get("type")
        return _error(message or "the endpoint gave no message", inner)
    if isinstance(inner, str) and inner:
        message = value.get("message")
        return _error(message if isinstance(message, str) else inner, value)
    if value.get("object") == "error" or value.get("type") == "error" or inner:
        return _error(value.get("message") or "the endpoint gave no message", value)
    if "detail" in value:
        return _error(_detail(value["detail"]), value)
    if isinstance(value.get("message"), str):
        return _error(value["message"], value)
    return None


# How servers say that a prompt is too long: llama.cpp (an input for embeddings has to fit its batch, which it takes for
# a fault of its own), OpenAI and vLLM, vLLM, SGLang, Ollama, Anthropic, TGI, vLLM, Google, xAI, LM Studio; Ollama's
# newer words, SGLang's, Moonshot's, MiniMax's, Bedrock's, DashScope's, Z.ai's.
_TOO_LONG = re.compile(
    r"exceeds? the available context size"
    r"|too large to process"
    r"|larger than the max context size"
    r"|maximum context length"
    r"|model'?s context length is only"
    r"|cannot be greater than max_model_len"
    r"|longer than the model'?s context length"
    r"|exceeds? (?:the )?(?:maximum )?context (?:length|window|size|limit)"
    r"|prompt is too long"
    r"|`?inputs`? (?:tokens \+ `?max_new_tokens`? )?must (?:be <=|have less than)"
    r"|longer than the maximum model length"
    r"|exceeds the maximum number of tokens allowed"
    r"|maximum prompt length is"
    r"|context[ _](?:length|window)[ _]exceeded"
    r"|trying to keep the first \d+ tokens when context"
    r"|tokens to keep from the initial prompt is greater than the context length"
    r"|exceeded (?:max )?context length"
    r"|exceeds the maximum allowed length \(\d+ tokens"
    r"|request exceeded model token limit"
    r"|context window exceeds limit"
    r"|input is too long for requested model"
    r"|range of input length should be \["
    r"|prompt exceeds max length",
    re.IGNORECASE,
)
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# Of a moderation that a vendor has, by which it does not answer a prompt: Azure's, OpenAI's, DashScope's.
_FLAGGED_CODES = frozenset({"content_filter", "content_policy_violation", "data_inspection_failed"})
# What a model does not take that others do: OpenAI's codes, and Groq's where its model made no call or JSON of it; how
# llama.cpp says that its chat template has no place for a message, which it takes for a fault of its own, how Gemini
# misses its signature at a call, or finds another's, and how llama.cpp and vLLM say that they were started without
# tools, or take no images or fewer; how llama.cpp refuses log-probabilities of a stream with tools, Mistral the id that
# another's call has, how DeepSeek and Moonshot miss what was thought before a call, and how newer models of OpenAI's
# refuse tools in a chat where they think, of Anthropic's to be told how they sample, and to read what another model has
# sealed.
UNFIT_CODES = _FLAGGED_CODES | {
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "model_not_found",
    "tool_use_failed",
    "json_validate_failed",
    "invalid_encrypted_content",
}
_UNFIT = re.compile(
    r"jinja exception|raise_exception|roles must alternate|thought[_ ]signature"
    r"|tool(?:s|_choice) param requires --jinja flag"
    r"|requires --(?:enable-auto-tool-choice|tool-call-parser)\b"
    r"|(?:image|audio|video) input is not supported"
    r"|at most \d+ (?:image|audio|video)\(s\) may be provided"
    r"|logprobs is not supported with tools"
    r"|but must be a-z, a-z, 0-9, with a length of"
    r"|missing `reasoning_content` field"
    r"|`reasoning_content` in the thinking mode must be passed back"
    r"|reasoning_content is missing in assistant"
    r"|function tools with reasoning_effort are not supported"
    r"|`?(?:temperature|top_p|top_k)`? is deprecated for this model"
    r"|invalid `(?:signature|data)` in `(?:redacted_)?thinking` block",
    re.IGNORECASE,
)
# How Ollama and vLLM say so of a model, and xAI, Groq and Ollama of a parameter of it, and nothing else: these words
# are not enough where a client is quoted.
_UNFIT_WHOLLY = re.compile(
    r"\s*(?:\S+ (?:does not support (?:tools|thinking)|is not a multimodal model)(?: none)?"
    r"|model \S+ does not support parameter \w+"
    r"|argument not supported on this model: \w+"
    r"|`\w+` is not supported with this model"
    r"|`reasoning_effort` must be one of [^.]{1,80}"
    r"|think value \S+ is not supported for this model)\.?\s*",
    re.IGNORECASE,
)
# How OpenRouter says that none of those behind it does what is asked.
_UNSERVED = re.compile(r"\s*no endpoints found that (?:support|can handle)\b", re.IGNORECASE)
# How OpenAI, Google, Groq, Anthropic (and Mistral) and NVIDIA say that they do not know a field.
_UNKNOWN_FIELD = re.compile(
    r"unrecognized request argument"
    r"|unknown (?:parameter|name)\b"
    r"|property '[^']*' is unsupported"
    r"|extra inputs are not permitted"
    r"|unsupported parameter\(s\)",
    re.IGNORECASE,
)
# Some vendors take what is wrong with an account for a bad request: Anthropic, Google, OpenAI, xAI.
_ACCOUNT_CODES = frozenset(
    {"invalid_api_key", "insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "account_deactivated"}
)
# What is said of a request may quote its client, who is to shut nobody out by that: these are how a sentence begins.
_ACCOUNT = re.compile(
    r"\s*(?:(?:your )?credit balance is too low|incorrect api key|api key not valid|api key expired)", re.IGNORECASE
)
# Some engines take what is wrong with their model for a bad request: LM Studio, whose sentences begin so, and a
# llama.cpp of several models, older ones of it, and llama-swap, which say nothing else.
_ABSENT = re.compile(
    r"\s*(?:no models loaded|failed to load model|model is unloaded|model unloaded by user|the model has crashed)\b",
    re.IGNORECASE,
)
_ABSENT_WHOLLY = re.compile(
    r"\s*(?:model is not loaded|model(?: '[^']*')? not found|could not find real modelid for \S+)\.?\s*", re.IGNORECASE
)
# How OpenRouter and xAI say that they do not like a prompt; the first has its reasons, too.
_FLAGGED = re.compile(r"requires moderation|input was flagged|content violates usage guidelines", re.IGNORECASE)
_REASONS = ("reasons", "flagged_input")
# How DeepSeek does, and says nothing else: see `_UNFIT_WHOLLY`.
_FLAGGED_WHOLLY = re.compile(r"\s*content exists risk\.?\s*", re.IGNORECASE)
# Of what OpenRouter quotes: an error that is longer says no more.
_QUOTED_CHARS_MAX = 16_384

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_MARKUP = re.compile(r"<[/!]?[a-zA-Z][^<>]*>")


def _error(message: object, fields: Mapping[str, object] | None = None) -> ErrorInfo:
    fields = fields or {}
    if isinstance(message, dict):  # Mistral's
        message = message.get("detail")
    said = _detail(message)
    kind, code, param = (_word(fields.get(name)) for name in ("type", "code", "param"))
    looked_at = said[:4096]
    unserved = bool(_UNSERVED.match(looked_at))
    risky = bool(_FLAGGED_WHOLLY.fullmatch(looked_at))
    return ErrorInfo(
        message=_printable(said),
        type=kind,
        code=code,
        param=param,
        context_exceeded=kind in _TOO_LONG_CODES or code in _TOO_LONG_CODES or bool(_TOO_LONG.search(looked_at)),
        unfit=(
            (unserved or risky or code in UNFIT_CODES)
            or bool(_UNFIT.search(looked_at) or _UNFIT_WHOLLY.fullmatch(looked_at))
        ),
        unknown_field=bool(_UNKNOWN_FIELD.search(looked_at)),
        unserved=unserved,
        flagged=(
            (risky or code in _FLAGGED_CODES)
            or _has_reasons(fields.get("metadata"))
            or bool(_FLAGGED.search(looked_at))
        ),
        of_the_account=code in _ACCOUNT_CODES or bool(_ACCOUNT.match(looked_at)),
        absent=bool(_ABSENT.match(looked_at) or _ABSENT_WHOLLY.fullmatch(looked_at)),
    )


def _has_reasons(metadata: object) -> bool:
    return isinstance(metadata, dict) and any(name in metadata for name in _REASONS)


def _detail(detail: object) -> str:
    """FastAPI's detail: a string, or what failed to validate. Its `input` is the prompt, and stays where it is."""
    if not isinstance(detail, list):
        return detail if isinstance(detail, str) else "the endpoint gave no message"
    told = []
    for item in detail[:3]:
        if isinstance(item, dict) and isinstance(item.get("msg"), str):
            place = item.get("loc")
            steps = place if isinstance(place, list) else []
            path = ".".join(str(step) for step in steps if isinstance(step, str | int))
            told.append(f"{path}: {item['msg']}" if path else item["msg"])
    return "; ".join(told) or "the endpoint gave no message"


def _printable(text: str) -> str:
    """One line without markup and control characters, of bounded length."""
    text = _UNPRINTABLE.sub(" ", _MARKUP.sub("", text[: 4 * MESSAGE_CHARS_MAX])).strip()
    if len(text) > MESSAGE_CHARS_MAX:
        text = text[: MESSAGE_CHARS_MAX - 1] + "…"
    return text or "the endpoint gave no message"


def _word(value: object) -> str | None:
    """A short identifier: llama.cpp's codes are numbers, OpenAI's are words."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return _printable(str(value))[:128]


_DIGITS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{0,9})?")


def retry_after_s(headers: Mapping[bytes, bytes], now_s: float) -> float | None:
    """Seconds after which an endpoint wants to be asked again, at most an hour; None where it does not say.

    `retry-after-ms` goes first, being finer; `retry-after` is a number of seconds or an HTTP date.
    """
    in_ms = headers.get(b"retry-after-ms", b"").strip()
    if _DIGITS.fullmatch(in_ms):
        return min(float(in_ms) / 1000.0, RETRY_AFTER_S_MAX)
    value = headers.get(b"retry-after", b"").strip()
    if _DIGITS.fullmatch(value):
        return min(float(value), RETRY_AFTER_S_MAX)
    wait_s = _until(value, now_s)
    return None if wait_s is None or wait_s < 0.0 else min(wait_s, RETRY_AFTER_S_MAX)


def _until(date: bytes, now_s: float) -> float | None:
    try:
        parsed = parsedate_tz(date[:64].decode("ascii"))
        return None if parsed is None else mktime_tz(parsed) - now_s
    except (ValueError, OverflowError, IndexError, TypeError):
        # What a date parser makes of hostile input is not documented.
        return None
