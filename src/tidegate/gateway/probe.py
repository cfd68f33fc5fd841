"""Looks after the endpoints: are they up, how far away, how large their window, how long their queue."""

import asyncio

from tidegate.core.model import Capability, Probed, Uploaded, replace
from tidegate.core.network import LOOK_S, RATE_LOOK_BYTES, UPLOAD_S_LEAST, UPLOAD_S_SURE
from tidegate.engines.base import Header, ProbeAnswer, ProbeRequest, Signals
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.outage import UNKNOWN, Outage, lost, unfit
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Cause, TransportError, fetch

# An answer to a probe is small; a metrics page of vLLM has some 100 KB.
PROBE_BYTES_MAX = 1024 * 1024
PROBE_TIMEOUT_S = 5.0
AWAY_S = 1.0
# Some servers take no header of more than a few KiB.
_PADDING = tuple((b"x-padding-%d" % number, b"0" * (RATE_LOOK_BYTES // 4)) for number in range(4))

_TOO_MUCH = frozenset({Cause.TOO_LARGE, Cause.IDLE_TIMEOUT})
_MEDIA = frozenset({Capability.VISION, Capability.AUDIO})


class Prober:
    """Probes one endpoint for as long as it runs."""

    def __init__(
        self,
        dispatch: Dispatch,
        upstream: Upstream,
        every_s: float,
        context_tokens_max: int | None = None,
        *,
        asks_media: bool = False,
        wakes: bool = False,
    ) -> None:
        """`context_tokens_max` is the window that the operator wrote down: an engine may tell of a smaller one only.

        `asks_media`: the operator did not write down what the model can do, so the engine is believed. `wakes`: a probe
        starts what scales to zero, so that once it is up there is none while nothing is in flight.
        """
        self._dispatch = dispatch
        self._context_tokens_max = context_tokens_max
        self._asks_media = asks_media
        self._wakes = wakes
        self._upstream = upstream
        self._clock = dispatch.clock
        self._every_s = every_s
        self._doubted = asyncio.Event()
        self._looked_s = 0.0
        # An endpoint is up once it has said so: the first probe may not be lost.
        self._up = False
        self._failures = 1
        # What the last look met that found it down.
        self.outage = UNKNOWN

    async def run(self) -> None:
        """Probe until cancelled. The first time is one interval from now: `once` comes before."""
        while True:
            # Who may be away is looked for more often: what it would have served goes elsewhere, and is paid for.
            often = self._failures and not self._wakes
            due_s = self._clock.now_s() + (min(self._every_s, AWAY_S) if often else self._every_s)
            while await self._doubt_before(due_s):
                await self._measure()
            if self._may_ask():
                await self.once()

    def _may_ask(self) -> bool:
        # What is down is sent nothing, and would never be looked at again.
        if not (self._wakes and self._up):
            return True
        return bool(self._dispatch.router.endpoint(self._upstream.endpoint.name).state.reservations)

    def doubt(self) -> None:
        """The round trip may be another one by now: look at it, without waiting for the next probe."""
        self._doubted.set()

    async def _doubt_before(self, due_s: float) -> bool:
        """Whether the way is in doubt before the next probe is due. Returns when it may be looked at again, or then."""
        try:
            async with asyncio.timeout(due_s - self._clock.now_s()):
                await self._doubted.wait()
                await asyncio.sleep(self._looked_s + LOOK_S - self._clock.now_s())
        except TimeoutError:
            return False
        return True

    async def _measure(self) -> None:
        """The round trip alone, told to the router."""
        self._doubted.clear()
        if not self._may_ask():
            return
        rtt_s = await self._rtt_s()
        if self._up and rtt_s is not None:
            self._dispatch.probed(Probed(endpoint=self._upstream.endpoint.name, up=True, rtt_s=rtt_s))
            await self._measure_rate()

    async def once(self) -> None:
        """One probe, told to the router."""
        self._doubted.clear()
        seen = await self.look()
        if seen.up and seen.rtt_s is None and not self._failures:
            seen = replace(seen, rtt_s=await self._rtt_s())
        self._dispatch.probed(seen, self.outage)
        if seen.up:
            await self._measure_rate()

    async def _measure_rate(self) -> None:
        """By how much longer a question takes that has a head of some kilobytes, where the rate is in doubt."""
        router, name = self._dispatch.router, self._upstream.endpoint.name
        network = router.network(name)
        if network is None or not router.doubts_rate(name, self._clock.now_s()):
            return
        plain_s, padded_s = await self._rtt_s(), await self._rtt_s(_PADDING)
        if plain_s is None or padded_s is None:
            return
        seconds = max(padded_s - plain_s, UPLOAD_S_LEAST)
        at_most = seconds < UPLOAD_S_SURE
        if network.is_news(RATE_LOOK_BYTES, seconds, at_most=at_most):
            fact = Uploaded(
                request_id="",
                endpoint=name,
                upload_bytes=RATE_LOOK_BYTES,
                seconds=seconds,
                at_most=at_most,
            )
            self._dispatch.tell(fact, self._clock.now_s())
            if network.rate_unsettled:
                self.doubt()

    async def introduce(self) -> Probed:
        """The first look, before the router is told of the endpoint: what the engine does not tell is as declared.

        So is the round trip, mostly: all endpoints are asked at once, and would seem further away than they are.
        """
        seen, endpoint = await self.look(), self._upstream.endpoint
        return replace(
            seen,
            context_tokens=seen.context_tokens or endpoint.context_tokens,
            capabilities=seen.capabilities or endpoint.capabilities,
        )

    async def look(self) -> Probed:
        """One probe, told to nobody."""
        probes = self._upstream.dialect.probes()
        answers: list[ProbeAnswer | None] = []
        begun_s = self._clock.now_s()
        rtts_s: list[float] = []
        outage: Outage | None = None
        for probe in probes:
            if probe.wakes and self._signals(answers).resident is False:
                answers.append(None)
                continue
            answer, took_s = await self._timed(probe)
            if probe.former and isinstance(answer, ProbeAnswer) and answer.status == 404:
                answer, took_s = await self._timed(replace(probe, target=probe.former))
            if took_s is not None:
                rtts_s.append(took_s)
            if not isinstance(answer, Outage):
                answers.append(answer)
                continue
            answers.append(None)
            if probe.essential:
                outage = answer
                break
        signals = self._signals(answers)
        if not signals.up:
            self.outage = outage or unfit(answers, signals)
        else:
            self._dispatch.outages.listed(self._upstream, signals.lacks)
        if outage is not None and outage.ours:
            # Of the endpoint nothing else is known than before.
            self._dispatch.lacks_descriptors(begun_s)
        else:
            # One lost probe is bad luck; traffic itself finds out sooner, through the breaker. An engine that tells why
            # it cannot serve is believed at once.
            self._failures = 0 if signals.up else self._failures + 1
            self._up = signals.up or (self._up and self._failures < 2 and signals.resident is None)
        return Probed(
            endpoint=self._upstream.endpoint.name,
            up=self._up,
            rtt_s=min(rtts_s, default=None),
            context_tokens=self._window(signals.context_tokens),
            capabilities=self._capabilities(signals.media),
            running=signals.running,
            queued=signals.queued,
            fingerprint=signals.fingerprint,
            measured_s=None if signals.running is None else begun_s,
            resident=signals.resident,
            loading=signals.loading,
            kv_tokens_max=signals.kv_tokens_max,
            kv_share=signals.kv_share,
            slots=signals.slots,
            preemptions=signals.preemptions,
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

    async def _rtt_s(self, headers: tuple[Header, ...] = ()) -> float | None:
        """The round trip, on a connection that is there already, or by the second question; with these headers."""
        probe = self._upstream.dialect.probes()[0]
        for _ in range(2):
            answer, took_s = await self._timed(probe, headers)
            # Who does not answer the first question is not asked another.
            if isinstance(answer, Outage) or took_s is not None:
                return took_s
        return None

    async def _timed(
        self, probe: ProbeRequest, headers: tuple[Header, ...] = ()
    ) -> tuple[ProbeAnswer | Outage, float | None]:
        """What it answers, or why there is no answer, and how long that took to begin; None where a connection had to
        be made first, which costs round trips of its own."""
        warm = self._upstream.pool.statistics().idle > 0
        headed_s = sent_s = self._looked_s = self._clock.now_s()
        status, body = 0, b""

        def head(told: int) -> None:
            nonlocal headed_s, status
            headed_s, status = self._clock.now_s(), told

        try:
            _, _, body = await fetch(
                self._upstream.pool,
                b"GET",
                probe.target,
                self._upstream.headers + headers,
                b"",
                PROBE_TIMEOUT_S,
                PROBE_BYTES_MAX,
                head,
            )
        except TransportError as error:
            # Who answers is there: a list that is too long, or too long on its way, is no outage.
            if not (status and probe.lists and error.cause in _TOO_MUCH):
                return lost(error), None
        return ProbeAnswer(status=status, body=body), headed_s - sent_s if warm else None
