"""Traces of a gateway: what is told of its requests goes to a thread that sends it, and its trouble into the log."""

import asyncio

from tidegate.config.extra import installs
from tidegate.config.trace import Traces
from tidegate.telemetry.log import Log
from tidegate.telemetry.trace import Tracer


class Tracing:
    """The tracer of a gateway, with who sends what it tells. Raises OSError where that is not installed."""

    def __init__(self, traces: Traces, log: Log) -> None:
        try:
            from tidegate.telemetry.otlp import Sender
        except ImportError as error:
            # The configuration is refused for this; here, somebody has made one otherwise.
            raise OSError(f"nothing can be traced ({error}): {installs('otel')}") from None
        self._log = log
        self._loop = asyncio.get_running_loop()
        settings, secret = traces.table, traces.authorization
        self._sender = Sender(
            settings.endpoint,
            service=settings.service,
            authorization="" if secret is None else secret.reveal(),
            queue_spans=settings.queue_spans,
            every_s=settings.every_s,
            timeout_s=settings.timeout_s,
            on_problem=self._on_problem,
        )
        self.tracer = Tracer(settings.ratio, self._sender.tell, follow=settings.follow)

    def statistics(self) -> dict[str, int]:
        """Spans, by what became of them."""
        return self._sender.statistics

    async def close(self) -> None:
        """Send what is left, for a bounded time."""
        await self._loop.run_in_executor(None, self._sender.close)

    def _on_problem(self, failing: bool) -> None:
        self._loop.call_soon_threadsafe(self._tell, failing)

    def _tell(self, failing: bool) -> None:
        if failing:
            self._log.event("warning", "traces are lost: nobody takes them", see="trace.endpoint")
        else:
            self._log.event("info", "traces are taken again")
