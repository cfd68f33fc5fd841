"""Loads an endpoint's model for nobody in particular, when the core says so: no client who leaves ends that."""

import asyncio

import msgspec

from tidegate.clock import Clock
from tidegate.core.model import Capability, Warmed, Warming
from tidegate.core.warmup import within_s
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.errand import Errands, Fault, NoAnswerError
from tidegate.gateway.upstream import Upstream
from tidegate.wire.openai import parse


class Warmer:
    """Of one endpoint. One load at a time."""

    def __init__(self, dispatch: Dispatch, upstream: Upstream, clock: Clock) -> None:
        self._dispatch, self._clock = dispatch, clock
        self._name = upstream.endpoint.name
        self._errands = Errands(dispatch, upstream, clock, "warm-up")
        self._call = parse(
            msgspec.json.encode(
                {
                    "model": upstream.model or upstream.endpoint.models[0],
                    "messages": [{"role": "user", "content": "Hello"}],
                    "max_tokens": 1,
                }
            ),
            Capability.CHAT,
        )
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Load it, or use it so that it stays loaded; what comes of it is told."""
        if self._task is None:
            self._dispatch.tell(Warming(endpoint=self._name), self._clock.now_s())
            self._task = asyncio.create_task(self._load())

    def give_up(self) -> None:
        """Load it no more; the engine may go on with it."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """The same, and wait until that is told."""
        self.give_up()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _load(self) -> None:
        begun_s, fault = self._clock.now_s(), Fault.BROKEN
        served = False
        try:
            cold = self._dispatch.router.endpoint(self._name).cold
            await self._errands.ask(self._call, within_s(cold, begun_s))
            served = True
        except NoAnswerError as error:
            fault = error.fault
        finally:
            self._task = None
            now_s = self._clock.now_s()
            self._dispatch.metrics.warmed(self._name, "served" if served else fault.value)
            if not served:
                self._dispatch.log.event("warning", "model not loaded", endpoint=self._name, reason=fault.value)
            self._dispatch.tell(Warmed(endpoint=self._name, took_s=now_s - begun_s, served=served), now_s)
