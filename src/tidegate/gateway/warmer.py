"""Loads an endpoint's model for nobody in particular, when the core says so: no client who leaves ends that."""

import asyncio
from typing import Final

import msgspec

from tidegate.core.model import Capability, Warmed, Warming
from tidegate.core.warmup import within_s
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.errand import Errands, Fault, NoAnswerError
from tidegate.gateway.upstream import Upstream
from tidegate.wire.openai import parse

# What a load came to, beside the faults of an errand.
SERVED, GIVEN_UP = "served", "given_up"
# So often it is looked whether a model that is kept is to be used for nobody: within the last fifth of the time after
# which its engine unloads it, also where that is five seconds.
KEEP_S: Final = 1.0


class Warmer:
    """Of one model of one engine. One load at a time."""

    def __init__(self, dispatch: Dispatch, upstream: Upstream) -> None:
        self._dispatch, self._clock = dispatch, dispatch.clock
        self._name = upstream.endpoint.name
        self.reach_by(upstream)
        self._call = parse(
            msgspec.json.encode(
                {
                    "model": upstream.first_called,
                    "messages": [{"role": "user", "content": "Hello"}],
                    "max_tokens": 1,
                }
            ),
            Capability.CHAT,
        )
        self._task: asyncio.Task[None] | None = None
        self._begun_s = 0.0  # while it is being loaded, since when

    def reach_by(self, upstream: Upstream) -> None:
        """Ask for it by another way, or at another price, from the next load on."""
        self._errands = Errands(self._dispatch, upstream, "warm-up")

    async def keep(self) -> None:
        """Have it used for nobody whenever it would be unloaded else, for as long as this runs: nothing is told while
        nobody asks and probes rest, upon which that would be seen."""
        while True:
            await asyncio.sleep(KEEP_S)
            self._dispatch.warm_up(self._clock.now_s())

    def begin(self) -> None:
        """Load it, or use it so that it stays loaded; what comes of it is told."""
        if self._task is None:
            self._begun_s = self._clock.now_s()
            self._dispatch.tell(Warming(endpoint=self._name), self._begun_s)
            self._task = asyncio.create_task(self._load())

    def give_up(self) -> None:
        """Load it no more, and tell that; the engine may go on with it."""
        if self._task is not None:
            self._task.cancel()
            self._over(GIVEN_UP)

    async def close(self) -> None:
        """The same, and wait until its connection is let go."""
        task = self._task
        self.give_up()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _load(self) -> None:
        outcome = Fault.BROKEN.value
        try:
            cold = self._dispatch.router.endpoint(self._name).cold
            await self._errands.ask(self._call, within_s(cold, self._begun_s))
            outcome = SERVED
        except NoAnswerError as error:
            outcome = error.fault.value
        finally:
            # Else it was given up, and another may be under way.
            if self._task is asyncio.current_task():
                self._over(outcome)

    def _over(self, outcome: str) -> None:
        self._task = None
        now_s, served, given_up = self._clock.now_s(), outcome == SERVED, outcome == GIVEN_UP
        self._dispatch.metrics.warmed(self._name, outcome)
        if not (served or given_up):
            self._dispatch.log.event("warning", "model not loaded", endpoint=self._name, reason=outcome)
        took_s = now_s - self._begun_s
        self._dispatch.tell(Warmed(endpoint=self._name, took_s=took_s, served=served, given_up=given_up), now_s)
