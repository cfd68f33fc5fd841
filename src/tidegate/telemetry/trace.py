"""Traces: which request belongs to which, by W3C's headers, and what is told of one that is over. Never a prompt.

`TABLE` says which of our fields becomes which attribute, under the names of OpenTelemetry's semantic conventions for
generative AI where these have one; the reference page is made from it. Nothing here needs OpenTelemetry: `otlp` does.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from tidegate.core.model import Decision, Ended, Ending, Record, Wait
from tidegate.core.promise import is_left
from tidegate.telemetry.event import WideEvent

CONVENTIONS: Final = "1.44.0"
"""The version of the semantic conventions that names are from; those of generative AI are in development."""

# What is held is decided again and again: the first of these tell why, and the last of all is in the request itself.
DECISIONS_MAX: Final = 8
# An attempt for each step of a plan, and as many again where an answer was resumed or its prompt computed elsewhere.
ATTEMPTS_MAX: Final = 16
# W3C has everybody pass on as much; what is longer is left out.
STATE_BYTES_MAX: Final = 512

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(rb"[\x20-\x7e]+")
_NOTHING: Final = (b"0" * 32, b"0" * 16)
_RANGE: Final = 1 << 64

OPERATIONS: Final[Mapping[str, str]] = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
"""What is asked, as the conventions call it."""


class Attribute(Record, frozen=True, kw_only=True):
    """One attribute: of the `request` (or of what was known when it `came`), of an `attempt`, or of a `decision`."""

    name: str
    of: str
    field: str
    help: str


class Arrival(Record, frozen=True, kw_only=True):
    """What is known of a request before anything is decided."""

    method: str
    path: str
    operation: str
    output_tokens_max: int | None
    completions: int | None


class Decided(Record, frozen=True, kw_only=True):
    """One decision. Of its first step, what was predicted; None where nothing was, as under the static rule."""

    at_s: float
    why: str
    endpoint: str | None
    waits: bool | None
    steps: int
    candidates: int
    propensity: float
    predicted_ttft_s: float | None
    predicted_usd: float | None


class Attempted(Record, frozen=True, kw_only=True):
    """One call to an endpoint, from its sending to its end."""

    span_id: str
    started_s: float
    ended_s: float
    endpoint: str
    tier: str
    site: str
    engine: str
    host: str
    port: int
    model: str
    operation: str
    stream: bool
    output_tokens_max: int | None
    status: int | None
    ending: str
    error: str | None
    hedge: bool | None
    target: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    ttft_s: float | None
    predicted_ttft_s: float | None
    predicted_ttft_s_high: float | None
    cost_usd: float


TABLE: tuple[Attribute, ...] = (
    Attribute(name="http.request.method", of="came", field="method", help="As it came."),
    Attribute(name="url.path", of="came", field="path", help="What was asked for, without a query."),
    Attribute(
        name="gen_ai.operation.name", of="came", field="operation", help="`chat`, `text_completion`, `embeddings`."
    ),
    Attribute(name="gen_ai.request.max_tokens", of="came", field="output_tokens_max", help="The client's bound."),
    Attribute(name="gen_ai.request.choice.count", of="came", field="completions", help="Where it is not one."),
    Attribute(name="http.response.status_code", of="request", field="status", help="499: the client left."),
    Attribute(name="error.type", of="request", field="code", help="Its code, as the client was told."),
    Attribute(name="gen_ai.request.model", of="request", field="model", help="As the configuration calls it."),
    Attribute(name="gen_ai.request.stream", of="request", field="stream", help="Whether it is streamed."),
    Attribute(name="gen_ai.usage.input_tokens", of="request", field="prompt_tokens", help="Reported, else estimated."),
    Attribute(name="gen_ai.usage.output_tokens", of="request", field="output_tokens", help="As reported."),
    Attribute(
        name="gen_ai.response.time_to_first_chunk", of="request", field="ttft_s", help="With content, in seconds."
    ),
    Attribute(name="tidegate.request.id", of="request", field="request_id", help="The client's own id, or ours."),
    Attribute(name="tidegate.decision.id", of="request", field="decision_id", help="What `tidegate explain` takes."),
    Attribute(name="tidegate.key", of="request", field="key", help="The id of the client's key; never the key."),
    Attribute(name="tidegate.class", of="request", field="klass", help="Its class."),
    Attribute(name="tidegate.endpoint", of="request", field="endpoint", help="Who answered."),
    Attribute(name="tidegate.why", of="request", field="why", help="The reason of the last decision."),
    Attribute(name="tidegate.outcome", of="request", field="outcome", help="How it ended."),
    Attribute(name="tidegate.cause", of="request", field="cause", help="What went wrong last, if anything."),
    Attribute(name="tidegate.attempts", of="request", field="attempts", help="Attempts that were sent."),
    Attribute(name="tidegate.hedged", of="request", field="hedged", help="Whether one was sent beside another."),
    Attribute(name="tidegate.resumed", of="request", field="resumed", help="Whether its rest was asked for."),
    Attribute(name="tidegate.held_s", of="request", field="held_s", help="Seconds that it waited for a slot."),
    Attribute(name="tidegate.predicted_ttft_s", of="request", field="predicted_ttft_s", help="Of the first attempt."),
    Attribute(name="tidegate.cost_usd", of="request", field="cost_usd", help="Dollars, of all attempts."),
    Attribute(name="gen_ai.operation.name", of="attempt", field="operation", help="As above."),
    Attribute(name="gen_ai.provider.name", of="attempt", field="engine", help="The dialect in which it is asked."),
    Attribute(name="gen_ai.request.model", of="attempt", field="model", help="As the endpoint calls it."),
    Attribute(name="gen_ai.request.max_tokens", of="attempt", field="output_tokens_max", help="As above."),
    Attribute(name="gen_ai.request.stream", of="attempt", field="stream", help="Whether the engine streams it."),
    Attribute(name="gen_ai.usage.input_tokens", of="attempt", field="prompt_tokens", help="As reported."),
    Attribute(name="gen_ai.usage.cache_read.input_tokens", of="attempt", field="cached_tokens", help="Of these."),
    Attribute(
        name="gen_ai.usage.cache_creation.input_tokens", of="attempt", field="cache_write_tokens", help="Of these."
    ),
    Attribute(name="gen_ai.usage.output_tokens", of="attempt", field="output_tokens", help="Reported, else counted."),
    Attribute(name="gen_ai.usage.reasoning.output_tokens", of="attempt", field="reasoning_tokens", help="Of these."),
    Attribute(
        name="gen_ai.response.time_to_first_chunk", of="attempt", field="ttft_s", help="With content, in seconds."
    ),
    Attribute(name="http.response.status_code", of="attempt", field="status", help="Of the engine, if it answered."),
    Attribute(name="server.address", of="attempt", field="host", help="Where the endpoint listens."),
    Attribute(name="server.port", of="attempt", field="port", help="Where the endpoint listens."),
    Attribute(
        name="error.type", of="attempt", field="error", help="Its cause, or else its ending, where it is none of ours."
    ),
    Attribute(name="tidegate.endpoint", of="attempt", field="endpoint", help="Its name."),
    Attribute(name="tidegate.site", of="attempt", field="site", help="Where it is."),
    Attribute(name="tidegate.tier", of="attempt", field="tier", help="`local` or `remote`."),
    Attribute(name="tidegate.ending", of="attempt", field="ending", help="What it teaches."),
    Attribute(name="tidegate.hedge", of="attempt", field="hedge", help="Where it was sent beside another."),
    Attribute(name="tidegate.target", of="attempt", field="target", help="For whom it computed the prompt alone."),
    Attribute(
        name="tidegate.predicted_ttft_s", of="attempt", field="predicted_ttft_s", help="At its sending, the median."
    ),
    Attribute(
        name="tidegate.predicted_ttft_s_high", of="attempt", field="predicted_ttft_s_high", help="And the upper bound."
    ),
    Attribute(name="tidegate.cost_usd", of="attempt", field="cost_usd", help="Dollars."),
    Attribute(name="tidegate.why", of="decision", field="why", help="Its reason."),
    Attribute(name="tidegate.endpoint", of="decision", field="endpoint", help="Its first step; none is a refusal."),
    Attribute(name="tidegate.waits", of="decision", field="waits", help="Where it is held for that one."),
    Attribute(name="tidegate.steps", of="decision", field="steps", help="Steps of the plan."),
    Attribute(name="tidegate.candidates", of="decision", field="candidates", help="Endpoints that serve the model."),
    Attribute(name="tidegate.propensity", of="decision", field="propensity", help="With which probability it was so."),
    Attribute(name="tidegate.predicted_ttft_s", of="decision", field="predicted_ttft_s", help="At the first step."),
    Attribute(name="tidegate.predicted_cost_usd", of="decision", field="predicted_usd", help="At the first step."),
)
_FIELDS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    of: tuple((one.name, one.field) for one in TABLE if one.of == of)
    for of in ("came", "request", "attempt", "decision")
}
DECISION: Final = "tidegate.decision"
"""The name of the event that is a decision."""


def attributes(of: str, record: Record) -> dict[str, str | bool | int | float]:
    """What is known of it, by attribute."""
    found = ((name, getattr(record, field)) for name, field in _FIELDS[of])
    return {name: value for name, value in found if value is not None}


class Trace:
    """One request in its trace: gathers what is told of it at its end, as far as its trace is told at all."""

    __slots__ = ("_state", "_under_way", "attempts", "came", "decisions", "parent_id", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, state: bytes, came: Arrival, *, sampled: bool) -> None:
        """`parent_id` is the client's own span, empty where it told of none; `state` what it wants passed on."""
        self.trace_id, self.parent_id, self.span_id = trace_id, parent_id, os.urandom(8).hex()
        self.came = came
        self.sampled = sampled
        self.decisions: list[Decided] = []
        self.attempts: list[Attempted] = []
        self._state = state
        self._under_way: dict[str, str] = {}

    def lines(self, endpoint: str, *, local: bool) -> bytes:
        """The header lines of an attempt that is sent there: from now on it is a span of its own.

        What clients want passed on stays with us: what is in it is their affair, and no vendor's.
        """
        span_id = self._under_way[endpoint] = os.urandom(8).hex()
        found = b"traceparent: 00-%b-%b-0%d\r\n" % (self.trace_id.encode(), span_id.encode(), self.sampled)
        return found + b"tracestate: %b\r\n" % self._state if self._state and local else found

    def decided(self, decision: Decision, candidates: int, predicted: tuple[float, float] | None, now_s: float) -> None:
        """It was decided about; of the first step the time to first token and the dollars are `predicted`, if any."""
        if len(self.decisions) < DECISIONS_MAX:
            first = decision.plan[0] if decision.plan else None
            self.decisions.append(
                Decided(
                    at_s=now_s,
                    why=decision.why,
                    endpoint=None if first is None else first.endpoint,
                    waits=isinstance(first, Wait) or None,
                    steps=len(decision.plan),
                    candidates=candidates,
                    propensity=decision.propensity,
                    predicted_ttft_s=None if predicted is None else predicted[0],
                    predicted_usd=None if predicted is None else predicted[1],
                )
            )

    def span_of(self, endpoint: str) -> str | None:
        """The span of the attempt that ends there; None where nothing was sent, or more than is told."""
        span_id = self._under_way.pop(endpoint, None)
        return span_id if len(self.attempts) < ATTEMPTS_MAX else None


def error_of(fact: Ended) -> str | None:
    """Why an attempt failed; None where it served, or nobody wanted it any more."""
    if fact.ending is Ending.OK or is_left(fact):
        return None
    return fact.cause or fact.ending.value


class Tracer:
    """Gives each request its trace, and has it told when it is over."""

    def __init__(self, ratio: float, tell: Callable[[Trace, WideEvent], None], *, follow: bool) -> None:
        """`tell` is called at the end of each request whose trace is told; it must not wait, nor raise."""
        self._least = int(ratio * _RANGE)
        self._tell = tell
        self._follow = follow

    def begin(self, headers: Mapping[bytes, bytes], came: Arrival) -> Trace:
        """The trace of a request with these headers: its client's, or else a new one.

        Whether it is told follows from its id alone where no client has decided, so that whoever else has a part in it
        and asks for as large a share tells the same ones.
        """
        found = _PARENT.fullmatch(headers.get(b"traceparent", b""))
        if found is None or not _is_valid(found):
            trace_id = os.urandom(16).hex()
            return Trace(trace_id, "", b"", came, sampled=self._falls(trace_id))
        trace_id, parent_id, flags = found[2].decode(), found[3].decode(), int(found[4], 16)
        sampled = bool(flags & 1) if self._follow else self._falls(trace_id)
        state = headers.get(b"tracestate", b"")
        if len(state) > STATE_BYTES_MAX or not _STATE.fullmatch(state):
            state = b""
        return Trace(trace_id, parent_id, state, came, sampled=sampled)

    def over(self, trace: Trace, event: WideEvent) -> None:
        """A request is over."""
        if trace.sampled:
            self._tell(trace, event)

    def _falls(self, trace_id: str) -> bool:
        return int(trace_id[16:], 16) < self._least


def _is_valid(parent: re.Match[bytes]) -> bool:
    """Versions after the first may say more behind it; the first may not, and none has the number 255."""
    version, rest = parent[1], parent[5]
    if version == b"ff" or (version == b"00" and rest is not None):
        return False
    return parent[2] != _NOTHING[0] and parent[3] != _NOTHING[1]


_TITLES = {
    "came": "The request, as a server's span: what it came with",
    "request": "The request: what came of it",
    "attempt": "An attempt, as a client's span within it",
    "decision": f"A decision, as an event `{DECISION}` of the request",
}


def reference() -> str:
    """The reference page of all attributes, in Markdown."""
    lines = [
        "# Attributes of traces",
        "",
        "What [traces](tracing.md) tell, and from which of our fields. Names are those of OpenTelemetry's semantic "
        f"conventions {CONVENTIONS}, where they have one; of those `gen_ai` is in development there.",
        "What is not known is left out.",
    ]
    for of, title in _TITLES.items():
        lines += ["", f"## {title}", "", "| attribute | from | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{one.name}` | `{one.field}` | {one.help} |" for one in TABLE if one.of == of]
    return "\n".join(lines) + "\n"
