"""A gateway before the provider that misbehaves, on a clock that a test can put forward."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.gateway.dialects import SPEECHES
from tests.gateway.harness import Answer, House, house, local, remote
from tests.http.harness import eventually
from tidegate.clock import Clock
from tidegate.core.model import FirstToken, Probed
from tidegate.engines.faults import FAULTS, Fault, Kind
from tidegate.lab.chaos import Chaos
from tidegate.lab.misdeeds import Pace

PACE = Pace(tokens=6, tokens_good=2, token_s=0.0, trickle_s=0.002, comment_s=0.002)
GOOD = "w1 w2 w3 w4 w5 w6 "  # what the provider says; the alternative says two words less

# How an answer is asked for, and by which dialect: llama.cpp's is streamed upstream whatever the client wants.
WAYS = {"streamed": (True, "openai"), "whole": (False, "openai"), "gathered": (False, "llamacpp")}
ASKED = ("chat", "completions")  # the engine's own dialect, in which every fault is met
TRANSLATED = ("messages", "responses", "ollama_chat")


class Ahead(Clock):
    """A clock that runs as ever, and can be put forward."""

    __slots__ = ("_ahead_s",)

    def __init__(self) -> None:
        super().__init__()
        self._ahead_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self._ahead_s

    @property
    def forward_s(self) -> float:
        return super().forward_s + self._ahead_s

    def skip(self, seconds: float) -> None:
        self._ahead_s += seconds


@asynccontextmanager
async def passing(clock: Ahead, until: Callable[[], bool]) -> AsyncIterator[None]:
    """Meanwhile hours pass, until something is true: what waits for time need not be waited for."""

    async def pass_on() -> None:
        while not until():
            clock.skip(5.0)  # half of what an attempt is given at the least
            await asyncio.sleep(0.01)  # a turn for everything that looks at the clock

    task = asyncio.create_task(pass_on())
    try:
        yield
    finally:
        task.cancel()


class Met:
    """A house whose laptop commits a fault."""

    def __init__(self, fault: Fault, chaos: Chaos, home: House, clock: Ahead) -> None:
        self.fault = fault
        self.chaos = chaos
        self.home = home
        self._clock = clock

    async def ask(self, asked: str, way: str) -> Answer:
        """Ask once, and read all of the answer."""
        speech = SPEECHES[asked]
        asking = asyncio.create_task(self.home.ask(speech.body(stream=WAYS[way][0]), path=speech.path))
        told = FAULTS[self.fault]
        if told.waits and told.kind is Kind.AFTER_CONTENT and way != "whole":
            await eventually(lambda: any(isinstance(line.fact, FirstToken) for line in self.home.journal()))
        time = passing(self._clock, lambda: self.at_alternative) if told.waits else nullcontext()
        async with time:
            return await asking

    @property
    def at_alternative(self) -> bool:
        """Whether the alternative works on it: from then on time is real again."""
        router = self.home.gateway.router
        return "cloud" in self.home.engines and bool(router.endpoint("cloud").state.reservations)


@asynccontextmanager
async def meeting(folder: Path, fault: Fault, way: str, *, alternative: bool) -> AsyncIterator[Met]:
    """When it is left, nothing may be under way at the provider any more."""
    clock, started = Ahead(), asyncio.Event()
    async with (
        Chaos(pace=PACE) as chaos,
        # The first probe of an endpoint that never answers waits too.
        passing(clock, lambda: started.is_set() or not FAULTS[fault].below_http),
        house(folder, clock=clock, **_places(chaos.base_url(fault), way, alternative=alternative)) as home,
    ):
        started.set()
        # It was up when it was last probed, and broke since: else it would not be asked at all.
        home.gateway.dispatch.probed(Probed(endpoint="laptop", up=True))
        yield Met(fault, chaos, home, clock)
        if fault is not Fault.IGNORES_CANCEL:

            def is_alone() -> bool:
                return chaos.seen[fault].in_flight == 0

            # Whoever was late is probed again, and that may wait as well.
            async with passing(clock, is_alone):
                await eventually(is_alone)


def _places(url: str, way: str, *, alternative: bool) -> dict[str, Any]:
    # The event loop's own time bounds a handshake: as little of it as may be written down.
    places = {"laptop": local(url=url, engine=WAYS[way][1], connect_timeout_s=0.1 if url.startswith("https") else 5)}
    return {**places, "cloud": remote()} if alternative else places
