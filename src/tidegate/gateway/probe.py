"""Looks after the endpoints: are they up, how far away, how large their window, how long their queue."""

import asyncio

from tidegate.clock import Clock
from tidegate.core.model import Capability, Probed, replace
from tidegate.engines.base import ProbeAnswer, ProbeRequest, Signals
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import TransportError, fetch

# An answer to a probe is small; a metrics page of vLLM has some 100 KB.
PROBE_BYTES_MAX = 1024 * 1024
PROBE_TIMEOUT_S = 5.0

_MEDIA = frozenset({Capability.VISION, Capability.AUDIO})


class Prober:
    """Probes one endpoint for as long as it runs."""

    def __init__(
        self,
        dispatch: Dispatch,
        upstream: Upstream,
        clock: Clock,
        every_s: float,
        context_tokens_max: int | None = None,
        *,
        asks_media: bool = False,
        wakes: bool = False,
    ) -> None:
        """`context_tokens_max` is the window that the operator wrote down: an engine may tell of a smaller one only.

        `asks_media`: the operator did not write down what the model can do, so the engine is believed. `wakes`: a probe
        starts what scales to zero, so that there is none but the first while nothing is in flight.
        """
        self._dispatch = dispatch
        self._context_tokens_max = context_tokens_max
        self._asks_media = asks_media
        self._wakes = wakes
        self._upstream = upstream
        self._clock = clock
        self._every_s = every_s
        # An endpoint is up once it has said so: the first probe may not be lost.
        self._up = False
        self._failures = 1

    async def run(self) -> None:
        """Probe until cancelled. The first time is one interval from now: `once` comes before."""
        while True:
            await asyncio.sleep(self._every_s)
            if not self._wakes or self._in_use():
                await self.once()

    async def once(self) -> None:
        """One probe, told to the router."""
        self._dispatch.probed(await self.look())

    def _in_use(self) -> bool:
        return bool(self._dispatch.router.endpoint(self._upstream.endpoint.name).state.reservations)

    async def introduce(self) -> Probed:
        """The first look, before the router is told of the endpoint: what the engine does not tell is as declared."""
        seen, endpoint = await self.look(), self._upstream.endpoint
        return replace(
            seen,
            context_tokens=seen.context_tokens or endpoint.context_tokens,
            capabilities=seen.capabilities or endpoint.capabilities,
        )

    async def look(self) -> Probed:
        """One probe, told to nobody."""
        answers: list[ProbeAnswer | None] = []
        rtt_s: float | None = None
        probes = self._upstream.dialect.probes()
        for probe in probes:
            if probe.wakes and self._signals(answers).resident is False:
                answers.append(None)
                continue
            # Known before the probe is sent: a connection that must be made first costs round trips of its own.
            warm = self._upstream.pool.statistics().idle > 0
            sent_s = self._clock.now_s()
            answer = await self._ask(probe)
            if answer is not None and warm:
                took_s = self._clock.now_s() - sent_s
                rtt_s = took_s if rtt_s is None else min(rtt_s, took_s)
            answers.append(answer)
            if answer is None and probe.essential:
                break
        signals = self._signals(answers)
        # One lost probe is bad luck; traffic itself finds out sooner, through the breaker. An engine that tells why it
        # cannot serve is believed at once.
        self._failures = 0 if signals.up else self._failures + 1
        self._up = signals.up or (self._up and self._failures < 2 and signals.resident is None)
        return Probed(
            endpoint=self._upstream.endpoint.name,
            up=self._up,
            rtt_s=rtt_s,
            context_tokens=self._window(signals.context_tokens),
            capabilities=self._capabilities(signals.media),
            running=signals.running,
            queued=signals.queued,
            fingerprint=signals.fingerprint,
            resident=signals.resident,
            loading=signals.loading,
        )

    def _signals(self, answers: list[ProbeAnswer | None]) -> Signals:
        """What the answers tell that there are so far."""
        dialect = self._upstream.dialect
        return dialect.signals([*answers, *[None] * (len(dialect.probes()) - len(answers))])

    def _capabilities(self, media: tuple[Capability, ...] | None) -> tuple[Capability, ...] | None:
        if media is None or not self._asks_media:
            return None
        usual = set(self._upstream.endpoint.capabilities) - _MEDIA
        return tuple(sorted(usual.union(media)))

    def _window(self, told: int | None) -> int | None:
        if told is None or self._context_tokens_max is None:
            return told
        return min(told, self._context_tokens_max)

    async def _ask(self, probe: ProbeRequest) -> ProbeAnswer | None:
        try:
            status, _, body = await fetch(
                self._upstream.pool,
                b"GET",
                probe.target,
                self._upstream.headers,
                b"",
                PROBE_TIMEOUT_S,
                PROBE_BYTES_MAX,
            )
        except TransportError:
            return None
        return ProbeAnswer(status=status, body=body)
