"""What metrics and journal take of a request's CPU: `make bench-telemetry`.

One request is told as `gateway/dispatch` and `gateway/account` tell it: the request, a decision, its start, first token
and end to the journal, which writes once per tick of the loop, to a real disk; and everything of it that is counted,
with what its answer would have cost elsewhere. CPU time of the loop's thread, not elapsed, less that of the same loop
with nothing told: medians of rounds in which all kinds take turns. `alone`: each of its three moments is a tick of its
own, with a write; `together`: sixteen requests share each tick, as under load. A yardstick, a fixed loop timed after
each round, tells how quiet it was. Of a chunk of a stream nobody is told, so that it takes nothing.
"""

import asyncio
import tempfile
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

REQUESTS = 4000
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
        found.append(Told(asked, decision, started, first, ended, sent))
    return found


def begin(one: Told, metrics: Metrics | None, journal: Journal | None) -> None:
    """It is decided and sent."""
    if metrics is not None:
        metrics.decided(one.decision.why, 2e-5, refused=False)
    if journal is not None:
        journal.append(one.request, NOW_S)
        journal.append(one.decision, NOW_S)
        journal.append(one.started, NOW_S)


def end(one: Told, router: Router, metrics: Metrics | None, journal: Journal | None) -> None:
    """It is over."""
    asked, ended = one.request, one.ended
    if journal is not None:
        journal.append(ended, NOW_S)
    if metrics is not None:
        is_local = router.endpoint(ended.endpoint).endpoint.local
        prompt_tokens, output_tokens = ended.prompt_tokens or 0, ended.output_tokens or 0
        metrics.attempt_ended(ended, 0.001, one.sent, hedge=False)
        ttft_s, e2e_s = ended.ttft_s, ended.e2e_s
        kept = was_kept(asked, one.decision, ended.ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens)
        metrics.request_ended(asked, "ok", ended.endpoint, is_local, kept, ttft_s, e2e_s, output_tokens)
        for local in (True, False):
            router.alone_usd(asked, prompt_tokens, output_tokens, local=local, now_s=NOW_S)
        metrics.compared(0.001, 0.0, 0.002)
        metrics.key_ended(asked.key, "ok", prompt_tokens + output_tokens, 0.001)
    if journal is not None:
        journal.after_write(_release)


def _release() -> None:
    """The final bytes of an answer."""


async def us(
    requests: list[Told], router: Router, metrics: Metrics | None, journal: Journal | None, size: int
) -> float:
    """CPU microseconds of one of these requests, so many of which share each tick."""
    begun_s = clock.cpu_s()
    for at in range(0, len(requests), size):
        group = requests[at : at + size]
        for one in group:
            begin(one, metrics, journal)
        await asyncio.sleep(0)
        if journal is not None:
            for one in group:
                journal.append(one.first, NOW_S)
        await asyncio.sleep(0)
        for one in group:
            end(one, router, metrics, journal)
        await asyncio.sleep(0)
    return (clock.cpu_s() - begun_s) * 1e6 / len(requests)


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
        metrics = Metrics()
        metrics.hold_to(0.9)
        for _ in range(ROUNDS):
            for size, count in (("alone", 1), ("together", TOGETHER)):
                for kind in KINDS:
                    counted = metrics if kind in ("metrics", "both") else None
                    written = journal if kind in ("journal", "both") else None
                    found[size][kind].append(await us(requests, router, counted, written, count))
            yardsticks.append(yardstick_us())
        await journal.close()
    return {
        "endpoints": candidates,
        **{
            size: {
                kind: round(median(a - b for a, b in zip(by[kind], by["nothing"], strict=True)), 2)
                for kind in KINDS[1:]
            }
            for size, by in found.items()
        },
        "yardstick_us": median(yardsticks),
    }


def main() -> None:
    """Measure, print, write down."""
    rows = [asyncio.run(measured(candidates)) for candidates in (4, 16)]
    record("telemetry", {"budget_us": BUDGET_US, "cpu_us_per_request": rows, "cpu_us_per_chunk": 0})


if __name__ == "__main__":
    main()
