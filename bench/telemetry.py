"""What metrics and journal take of a request's CPU: `make bench-telemetry`.

One request is told as `gateway/dispatch` and `gateway/account` tell it: the request, a decision, its start, first token
and end to the journal, which writes after each of these moments, as where they are milliseconds apart, to a real disk;
and everything of it that is counted, with what its answer would have cost elsewhere. CPU time of the loop's thread, not
elapsed, less that of the same loop in which those who are told do nothing, each in the quietest of rounds in which all
take turns: a neighbour on the same core may halve its speed. `alone`: each of its three moments is a tick of its own,
with a write; `together`: sixteen requests share each tick, as under load. A yardstick, a fixed loop timed after each
round, tells how quiet it was. Of a chunk of a stream neither is told: a test keeps it.
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

import msgspec

from bench.decide import NOW_S, endpoints, request, seasoned, yardstick_us
from bench.record import record
from tidegate import clock
from tidegate.clock import Clock
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ended,
    Ending,
    Fact,
    FirstToken,
    Policy,
    Request,
    Run,
    Segment,
    Started,
    replace,
)
from tidegate.core.promise import was_kept
from tidegate.core.reserve import Reservation
from tidegate.core.router import Router
from tidegate.core.why import Why
from tidegate.telemetry.journal import Journal
from tidegate.telemetry.metrics import Metrics

REQUESTS = 64  # as many as are in a gateway's caches, as what it has just dealt with is
PASSES = 64
ROUNDS = 7
TOGETHER = 16
BUDGET_US = 8.0
KINDS = ("nothing", "metrics", "journal", "both")


class Told(msgspec.Struct):
    """What is told of one request in its three moments."""

    request: Request
    decision: Decision
    started: Started
    first: FirstToken
    ended: Ended
    sent: Reservation
    local: bool


def told(router: Router, count: int) -> list[Told]:
    """So many requests that went well, each at the endpoint of its turn."""
    draw, names, found = Random(11), [e.name for e in router.endpoints], []
    for index in range(count):
        asked = replace(request(index, draw), prefix=(draw.getrandbits(32),), key="alice-1")
        name, ttft_s = names[index % len(names)], draw.lognormvariate(-1.0, 0.5)
        started = Started(
            request_id=asked.id,
            endpoint=name,
            klass=asked.klass,
            prompt_tokens=asked.prompt_tokens,
            prompt_bytes=asked.prompt_bytes,
            output_tokens_max=asked.output_tokens_max,
            model=asked.model,
            key=asked.key,
        )
        router.observe(started, NOW_S)
        sent = router.reserved(name, asked.id)
        assert sent is not None, "it was told just now"
        ended = Ended(
            request_id=asked.id,
            endpoint=name,
            ending=Ending.OK,
            e2e_s=ttft_s + 3.0,
            ttft_s=ttft_s,
            prompt_tokens=asked.prompt_tokens,
            output_tokens=int(draw.lognormvariate(4.5, 0.6)) + 2,
        )
        router.observe(ended, NOW_S)
        step = Run(endpoint=name, timeout_s=30.0, cutover_s=2.5)
        decision = Decision(request_id=asked.id, plan=(step, step), why=Why.CHEAPEST_ON_TIME)
        first = FirstToken(request_id=asked.id, endpoint=name, ttft_s=ttft_s)
        found.append(Told(asked, decision, started, first, ended, sent, router.endpoint(name).endpoint.local))
    return found


class Deaf:
    """Is called as metrics, journal and router are, and does nothing: what calling takes is the bench's own."""

    def decided(self, why: Why, spent_s: float, *, refused: bool) -> None:
        """See `Metrics`."""

    def attempt_ended(self, fact: Ended, usd: float, sent: Reservation | None, *, hedge: bool) -> None:
        """See `Metrics`."""

    def request_ended(
        self,
        request: Request,
        outcome: str,
        endpoint: str,
        local: bool | None,
        kept: bool | None,
        ttft_s: float | None,
        e2e_s: float,
        output_tokens: int | None,
    ) -> None:
        """See `Metrics`."""

    def compared(self, usd: float, all_local_usd: float, all_remote_usd: float) -> None:
        """See `Metrics`."""

    def key_ended(self, key: str, outcome: str, tokens: int, usd: float) -> None:
        """See `Metrics`."""

    def append(self, fact: Fact, at_s: float) -> None:
        """See `Journal`."""

    def after_write(self, release: Callable[[], None]) -> None:
        """See `Journal`."""

    def flush(self) -> None:
        """See `Journal`."""

    def alone_usd(
        self, request: Request, prompt_tokens: int, output_tokens: int, *, local: bool, now_s: float
    ) -> tuple[str, float] | None:
        """See `Router`."""

    def was_kept(
        self,
        request: Request,
        decision: Decision,
        ending: Ending,
        *,
        ttft_s: float | None,
        e2e_s: float,
        output_tokens: int | None,
    ) -> bool | None:
        """See `core.promise`."""


class Listeners(msgspec.Struct):
    """Who is told, in one of the kinds that are measured."""

    metrics: Metrics | Deaf
    journal: Journal | Deaf
    router: Router | Deaf
    was_kept: Callable[..., bool | None]


def begin(one: Told, to: Listeners) -> None:
    """It is decided and sent."""
    to.metrics.decided(one.decision.why, 2e-5, refused=False)
    to.journal.append(one.request, NOW_S)
    to.journal.append(one.decision, NOW_S)
    to.journal.append(one.started, NOW_S)


def end(one: Told, to: Listeners) -> None:
    """It is over."""
    asked, ended, metrics = one.request, one.ended, to.metrics
    to.journal.append(ended, NOW_S)
    prompt_tokens, output_tokens = ended.prompt_tokens or 0, ended.output_tokens or 0
    metrics.attempt_ended(ended, 0.001, one.sent, hedge=False)
    ttft_s, e2e_s = ended.ttft_s, ended.e2e_s
    kept = to.was_kept(asked, one.decision, ended.ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens)
    metrics.request_ended(asked, "ok", ended.endpoint, one.local, kept, ttft_s, e2e_s, output_tokens)
    to.router.alone_usd(asked, prompt_tokens, output_tokens, local=True, now_s=NOW_S)
    to.router.alone_usd(asked, prompt_tokens, output_tokens, local=False, now_s=NOW_S)
    metrics.compared(0.001, 0.0, 0.002)
    metrics.key_ended(asked.key, "ok", prompt_tokens + output_tokens, 0.001)
    to.journal.after_write(_release)


def _release() -> None:
    """The final bytes of an answer."""


async def us(requests: list[Told], to: Listeners, size: int) -> float:
    """CPU microseconds of one of these requests, so many of which share each tick."""
    begun_s = clock.cpu_s()
    for at in [*range(0, len(requests), size)] * PASSES:
        group = requests[at : at + size]
        for one in group:
            begin(one, to)
        to.journal.flush()
        await asyncio.sleep(0)
        for one in group:
            to.journal.append(one.first, NOW_S)
        to.journal.flush()
        await asyncio.sleep(0)
        for one in group:
            end(one, to)
        await asyncio.sleep(0)
    return (clock.cpu_s() - begun_s) * 1e6 / len(requests) / PASSES


async def measured(candidates: int) -> dict[str, object]:
    """One row: what it takes where so many endpoints serve the model."""
    router = seasoned(candidates, 0, Random(7))
    segment = Segment(
        version=JOURNAL_VERSION,
        software="bench",
        policy=Policy(),
        endpoints=endpoints(candidates),
        state=router.snapshot(),
    )
    requests, yardsticks = told(router, REQUESTS), []
    found: dict[str, dict[str, list[float]]] = {size: {kind: [] for kind in KINDS} for size in ("alone", "together")}
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(
            Path(folder), segment_bytes=1 << 30, total_bytes=1 << 32, clock=Clock(), header=lambda: segment
        )
        metrics, deaf = Metrics(), Deaf()
        metrics.hold_to(0.9)
        kinds = {
            "nothing": Listeners(deaf, deaf, deaf, deaf.was_kept),
            "metrics": Listeners(metrics, deaf, router, was_kept),
            "journal": Listeners(deaf, journal, deaf, deaf.was_kept),
            "both": Listeners(metrics, journal, router, was_kept),
        }
        for _ in range(ROUNDS):
            for size, count in (("alone", 1), ("together", TOGETHER)):
                for kind, to in kinds.items():
                    found[size][kind].append(await us(requests, to, count))
            yardsticks.append(yardstick_us())
        await journal.close()
    return {
        "endpoints": candidates,
        **{
            size: {kind: round(min(by[kind]) - min(by["nothing"]), 2) for kind in KINDS[1:]}
            for size, by in found.items()
        },
        "yardstick_us": median(yardsticks),
    }


def main() -> None:
    """Measure, print, write down."""
    rows = [asyncio.run(measured(candidates)) for candidates in (4, 16)]
    record("telemetry", {"budget_us": BUDGET_US, "cpu_us_per_request": rows})


if __name__ == "__main__":
    main()
