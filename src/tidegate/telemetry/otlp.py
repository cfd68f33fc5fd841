"""Sends traces to whoever takes OTLP, by OpenTelemetry's SDK, in its thread. Loaded only where something is traced."""

import logging
from collections.abc import Callable, Sequence
from threading import Timer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from tidegate import __version__
from tidegate.telemetry.event import WideEvent
from tidegate.telemetry.trace import CONVENTIONS, DECISION, Attempted, Trace, attributes

# As the SDK has it: some 300 KB.
BATCH_SPANS = 512
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCHEMA = f"https://opentelemetry.io/schemas/{CONVENTIONS}"
_SCOPE = InstrumentationScope("tidegate", __version__, _SCHEMA)
_FAILED = Status(StatusCode.ERROR)
_UNSET = Status(StatusCode.UNSET)


class Sender:
    """Makes spans of requests that are over, and has them sent. What is not taken in time is lost, and counted."""

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        authorization: str,
        queue_spans: int,
        every_s: float,
        timeout_s: float,
        on_problem: Callable[[bool], None],
    ) -> None:
        """`on_problem` is called in a thread of its own: with True once nobody takes them, and False once they do."""
        headers = {"authorization": authorization} if authorization else None
        self._exporter = _Exporter(OTLPSpanExporter(endpoint, headers=headers, timeout=timeout_s), on_problem)
        # What the SDK would say in words of its own is not even made: the log is lines of JSON, and has one of it, and
        # a full queue would have a line for each span.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._queue = BatchSpanProcessor(
            self._exporter,
            max_queue_size=queue_spans,
            schedule_delay_millis=every_s * 1000.0,
            max_export_batch_size=BATCH_SPANS,
        )
        self._timeout_s = timeout_s
        self._resource = Resource({"service.name": service, "service.version": __version__}, _SCHEMA)
        self._made = 0

    @property
    def statistics(self) -> dict[str, int]:
        """How many spans were `made`, and how many of them `sent` so far, or refused and so `lost`."""
        return {"made": self._made, "sent": self._exporter.sent, "lost": self._exporter.lost}

    def tell(self, trace: Trace, event: WideEvent) -> None:
        """A request is over, and its trace is told."""
        trace_id = int(trace.trace_id, 16)
        own = _context(trace_id, trace.span_id)
        parent = _context(trace_id, trace.parent_id, is_remote=True) if trace.parent_id else None
        failed = event.status >= 500 or event.outcome == "failed_mid_stream"
        decisions = [
            Event(DECISION, attributes=attributes("decision", one), timestamp=_ns(one.at_s)) for one in trace.decisions
        ]
        self._put(
            ReadableSpan(
                name=f"{trace.came.method} {trace.came.path}",
                context=own,
                parent=parent,
                resource=self._resource,
                attributes=attributes("came", trace.came) | attributes("request", event),
                events=decisions,
                kind=SpanKind.SERVER,
                status=_FAILED if failed else _UNSET,
                start_time=_ns(event.at_s - event.e2e_s),
                end_time=_ns(event.at_s),
                instrumentation_scope=_SCOPE,
            )
        )
        for one in trace.attempts:
            self._put(self._attempt(one, trace_id, own))

    def close(self) -> None:
        """Send what is left; returns when it is taken, or after as long as two sendings may take: by then the one that
        was under way has ended, and whoever takes nothing is asked for nothing more."""
        # The SDK itself would go on for 30 s, batch after batch.
        enough = Timer(self._timeout_s, self._exporter.shutdown)
        enough.start()
        self._queue.shutdown()  # type: ignore[no-untyped-call]  # it has no types of its own
        enough.cancel()

    def _attempt(self, one: Attempted, trace_id: int, parent: SpanContext) -> ReadableSpan:
        return ReadableSpan(
            name=f"{one.operation} {one.model}",
            context=_context(trace_id, one.span_id),
            parent=parent,
            resource=self._resource,
            attributes=attributes("attempt", one),
            kind=SpanKind.CLIENT,
            status=_UNSET if one.error is None else _FAILED,
            start_time=_ns(one.started_s),
            end_time=_ns(one.ended_s),
            instrumentation_scope=_SCOPE,
        )

    def _put(self, span: ReadableSpan) -> None:
        self._made += 1
        self._queue.on_end(span)


class _Exporter(SpanExporter):
    """Passes spans on, counts them, and tells when nobody takes them."""

    def __init__(self, exporter: SpanExporter, on_problem: Callable[[bool], None]) -> None:
        self._exporter = exporter
        self._on_problem = on_problem
        self._failing = False
        self.sent = self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            found = self._exporter.export(spans)
        except Exception:
            found = SpanExportResult.FAILURE
        failing = found is not SpanExportResult.SUCCESS
        if failing:
            self.lost += len(spans)
        else:
            self.sent += len(spans)
        if failing is not self._failing:
            self._failing = failing
            self._on_problem(failing)
        return found

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(trace_id: int, span_id: str, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, int(span_id, 16), is_remote, _SAMPLED)


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)
