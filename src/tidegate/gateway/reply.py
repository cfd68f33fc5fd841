"""What a client is told: headers, and errors with a place and a remedy."""

from functools import lru_cache
from math import ceil

from tidegate.core.model import Decision, Record, Request
from tidegate.core.rules import longest_tokens
from tidegate.core.why import WHY_TEXT, Why
from tidegate.http.head import fields
from tidegate.wire.errors import BadRequest, error_body
from tidegate.wire.translate import Client

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_CACHE = (b"cache-control", b"no-cache")
_FREE = b"x-tidegate-cost-usd: 0.00000000\r\n"

Headers = tuple[tuple[bytes, bytes], ...]


class ErrorReply(Record, frozen=True, kw_only=True):
    """An error as the client gets it, whole or as the last event of a stream."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    # Whether an SDK should try again by itself, None where its own rule for the status is right.
    should_retry: bool | None = None

    def body(self, client: Client | None = None) -> bytes:
        """The JSON body, as this kind of client knows errors."""
        if client is not None:
            return client.error_body(self.status, self.message, self.kind, self.param, self.code)
        return error_body(self.message, self.kind, self.param, self.code)

    def headers(self) -> Headers:
        """Content type and what an SDK obeys."""
        found: list[tuple[bytes, bytes]] = [JSON]
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % max(1, ceil(self.retry_after_s))))
            # Whole seconds are long where a slot is free in a tenth of one; SDKs that know this one prefer it.
            found.append((b"retry-after-ms", b"%d" % max(1, ceil(self.retry_after_s * 1000.0))))
        if self.should_retry is not None:
            found.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return tuple(found)


# SDKs keep to `retry-after` up to here; beyond, they come back within seconds, to be refused once more.
SDK_RETRY_AFTER_S_MAX = 60.0

# Status, type and code per reason: 404 unknown model, 400 can never work, 429 all busy or over budget, 503 none up.
REFUSALS: dict[Why, tuple[int, str, str]] = {
    Why.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found"),
    Why.MUST_STAY_LOCAL: (400, "invalid_request_error", "must_stay_local"),
    Why.SITE_NOT_ALLOWED: (400, "invalid_request_error", "site_not_allowed"),
    Why.NOT_ALIKE: (400, "invalid_request_error", "model_not_alike"),
    Why.CONTEXT_TOO_LONG: (400, "invalid_request_error", "context_length_exceeded"),
    Why.MEMORY_TOO_SMALL: (400, "invalid_request_error", "context_length_exceeded"),
    Why.LACKS_CAPABILITY: (400, "invalid_request_error", "unsupported_capability"),
    Why.RULED_OUT: (400, "invalid_request_error", "ruled_out"),
    Why.OVER_MAX_COST: (400, "invalid_request_error", "max_cost_exceeded"),
    Why.OVER_BUDGET: (429, "insufficient_quota", "insufficient_quota"),
    Why.PINNED_ELSEWHERE: (503, "api_error", "no_endpoint_available"),
    Why.DRAINED: (503, "api_error", "no_endpoint_available"),
    Why.SESSION_ELSEWHERE: (503, "api_error", "session_elsewhere"),
    Why.DOWN: (503, "api_error", "no_endpoint_available"),
    Why.BREAKER_OPEN: (503, "api_error", "no_endpoint_available"),
    Why.TOLD_TO_WAIT: (429, "rate_limit_error", "rate_limit_exceeded"),
    Why.BUSY: (429, "rate_limit_error", "all_endpoints_busy"),
    Why.MEMORY_TAKEN: (429, "rate_limit_error", "all_endpoints_busy"),
    Why.HOLD_FULL: (429, "rate_limit_error", "all_endpoints_busy"),
    Why.SHARE_FULL: (429, "rate_limit_error", "all_endpoints_busy"),
    Why.TOO_LATE: (429, "rate_limit_error", "all_endpoints_busy"),
    Why.MODEL_FAILED: (503, "api_error", "internal_error"),
}
_REMEDIES: dict[Why, str] = {
    # A request may only narrow where its class and its key let the data go.
    Why.MUST_STAY_LOCAL: "allow another site with x-tidegate-residency, or ask operators to, where its class or key is "
    "the bound, or for a local endpoint that serves this model",
    Why.SITE_NOT_ALLOWED: "allow another site with x-tidegate-residency, or ask operators to, where its class or key "
    "is the bound, or for an endpoint at an allowed site",
    Why.NOT_ALIKE: "accept less with x-tidegate-likeness: same_family or substitute, or add an endpoint with the model",
    Why.MEMORY_TOO_SMALL: "shorten the prompt, or add an endpoint with more memory",
    Why.LACKS_CAPABILITY: "leave out what no endpoint can do, or add an endpoint that can",
    Why.RULED_OUT: "ask for another model or class, or have operators change the rule",
    Why.OVER_BUDGET: "lower max_tokens, wait until the budget is renewed, or add an endpoint that costs nothing",
    Why.SESSION_ELSEWHERE: "let it go on with another model by x-tidegate-session-moves: true, or name a new session",
    Why.OVER_MAX_COST: "raise x-tidegate-max-cost-usd, or set or lower max_tokens",
}


def refusal(request: Request, decision: Decision, windows: tuple[int, ...]) -> ErrorReply:
    """The error for a decision with an empty plan. `windows` are the context windows that are too small for it,
    where that is why."""
    why = decision.why
    status, kind, code = REFUSALS[why]
    param = None
    if why is Why.UNKNOWN_MODEL:
        message = f"The model `{request.model}` is not served here; GET /v1/models lists what is."
        param = "model"
    elif why is Why.CONTEXT_TOO_LONG:
        message = _too_long(request, max(windows, default=0))
        param = "messages"
    elif why is Why.SESSION_ELSEWHERE:
        message = f"No endpoint can take this now: {WHY_TEXT[why]}{_back(decision)}; {_REMEDIES[why]}."
        if decision.retry_after_s is None:
            status, kind = 400, "invalid_request_error"
    elif why in _REMEDIES:
        message = f"No endpoint can serve this: {WHY_TEXT[why]}; {_REMEDIES[why]}."
    else:
        message = f"No endpoint can take this now: {WHY_TEXT[why]}{_back(decision)}."
    return ErrorReply(
        status=status,
        message=message + _ruled(request, why),
        kind=kind,
        param=param,
        code=code,
        retry_after_s=decision.retry_after_s,
        should_retry=False if (decision.retry_after_s or 0.0) > SDK_RETRY_AFTER_S_MAX else None,
    )


def _too_long(request: Request, window: int) -> str:
    """That the largest window is too small, in vendors' words, by which libraries know it: Anthropic's and OpenAI's.

    Who reads that the prompt is too long shortens the conversation: it is not said where only `max_tokens` is.
    """
    prompt, limit = longest_tokens(request, request.prompt_tokens), request.output_tokens_max
    several = "" if request.prompts == 1 else f" in the mean of {request.prompts} prompts"
    if limit and prompt < window:
        return (
            f"The input length and `max_tokens` exceed context limit: {prompt} + {limit} > {window}{several}: "
            "lower max_tokens or shorten the prompt."
        )
    return (
        f"The prompt is too long: about {prompt} tokens{several}, and this model's maximum context length is {window} "
        "where it may be served: shorten the prompt."
    )


def _ruled(request: Request, why: Why) -> str:
    """Which rules have left nobody else to take it, where any have."""
    hard = [f"`{one.rule}`" for one in request.rulings if one.hard]
    if not hard or why is Why.UNKNOWN_MODEL:
        return ""
    return f" Operators' rule{'s' * (len(hard) > 1)} {', '.join(hard)} let{'s' * (len(hard) == 1)} it go nowhere else."


def _back(decision: Decision) -> str:
    return "" if decision.retry_after_s is None else f"; try again in {ceil(decision.retry_after_s)} s"


@lru_cache(maxsize=1024)  # a few of each endpoint and model
def lines_alike(why: Why, attempts: int, endpoint: str = "", model: str = "", likeness: str = "") -> bytes:
    """The header lines that many answers share; the last three where somebody gave it."""
    made = [(b"x-tidegate-why", why.encode()), (b"x-tidegate-attempts", b"%d" % attempts)]
    if endpoint:
        made += (
            (b"x-tidegate-endpoint", endpoint.encode()),
            (b"x-tidegate-model", model.encode()),
            (b"x-tidegate-likeness", likeness.encode()),
        )
    return fields(made)


def own_lines(request_id: str, decision_id: str, overhead_s: float) -> bytes:
    """The header lines that no two answers share; both ids are of letters, digits and `._-`."""
    ids = f"x-request-id: {request_id}\r\nx-tidegate-decision: {decision_id}\r\n"
    return f"{ids}x-tidegate-overhead-us: {int(max(0.0, overhead_s * 1e6))}\r\n".encode()


def cost_line(usd: float) -> bytes:
    """The header line that tells what an answer has cost."""
    return b"x-tidegate-cost-usd: %.8f\r\n" % usd if usd else _FREE


def echo(request_id: str, decision_id: str) -> Headers:
    """The headers that every answer to an inference request carries."""
    return ((b"x-request-id", request_id.encode()), (b"x-tidegate-decision", decision_id.encode()))


def no_model() -> BadRequest:
    """For a model that does not exist, at least not for this client."""
    return BadRequest(
        "This model is not served here; GET /v1/models lists what is.",
        status=404,
        code="model_not_found",
        param="model",
    )
