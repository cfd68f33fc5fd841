"""How far two readings of a canary are apart: what the same weights come to, and what others do.

    make bench-canary            prints a table and writes bench/results/canary.json

Real engines (llama.cpp) with SmolLM2-135M. The reference is the first reading of a fresh engine. `same` cases change
what operators change without touching the model: restarts, caches, threads, batches, slots, other work beside.
`rounding` cases compute the same in another order, or with one of three million scales changed by its last bit: what
other kernels do, on other machines or beside other work. `other` cases change the model: its quantisation, some of its
bits, positions, the chat template. The limits of `core/drift` stand above the first two. What of the third stays below
cannot be told from rounding by so short a reading.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bench import gguf
from bench.gguf import Gguf
from bench.record import record
from tidegate.clock import Clock
from tidegate.core.drift import FLIP_NATS_MAX, MEAN_NATS_MAX, Distance, Reading, distance, judge
from tidegate.core.model import Endpoint, replace
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.gateway.errand import ask
from tidegate.gateway.greedy import ANSWER_S_MAX, calls, spots_of
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec

HOST = "127.0.0.1"
READINGS = 5
MODEL = "smollm2"
PLAIN = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

ROUNDED = 40
CHANGES: dict[str, Callable[[Gguf], None]] = {
    "requantised to Q4_0": lambda file: file.rewrite(gguf.q4_0),
    "some tensors requantised to Q4_0": lambda file: file.rewrite(gguf.q4_0, "ffn_down"),
    "requantised to three bits": lambda file: file.rewrite(gguf.coarser),
    "one layer requantised to Q4_0": lambda file: file.rewrite(gguf.q4_0, "blk.14."),
    "lowest bit of 1 weight in 16 flipped": lambda file: file.rewrite(gguf.flipped(1.0)),
    "lowest bit of 1 weight in 50 flipped": lambda file: file.rewrite(gguf.flipped(0.32)),
    "lowest bit of 1 weight in 160 flipped": lambda file: file.rewrite(gguf.flipped(0.1)),
    "lowest bit of 1 weight in 1,600 flipped": lambda file: file.rewrite(gguf.flipped(0.01)),
    "rope base 10 % larger": lambda file: file.scale("llama.rope.freq_base", 1.1),
    "rope base twice as large": lambda file: file.scale("llama.rope.freq_base", 2.0),
}


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: the largest distance of its pairs of readings, in nats."""

    model: str
    case: str
    pairs: int
    mean_nats: float
    mean_nats_median: float
    flip_nats: float
    drifted: bool


@asynccontextmanager
async def engine(spec: Spec, folder: Path) -> AsyncIterator[Upstream]:
    """A fresh engine as the gateway would reach it."""
    async with Engine(spec, folder / "log") as running:
        pool = Pool(Origin(HOST, running.port), clock=Clock())
        known = Endpoint(name="e", site="s", local=True, models=(MODEL,), context_tokens=512, concurrency=spec.slots)
        try:
            yield Upstream(known, LlamaCpp("", None), pool, None, ())
        finally:
            await pool.close()


async def read(upstream: Upstream) -> Reading:
    """One reading, as the canary takes it."""
    return tuple([spots_of(await ask(upstream, call, ANSWER_S_MAX, 0.0)) for call in calls(MODEL)])


async def busy(upstream: Upstream, number: int) -> None:
    """Work beside: one request after the other, each with a prompt of its own."""
    turn = 0
    while True:
        turn += 1
        words = " ".join(f"{number} {turn} {n}" for n in range(turn % 7 * 10))
        body: dict[str, Any] = {"messages": [{"role": "user", "content": f"Tell me of {words}"}], "max_tokens": 40}
        try:
            made = msgspec.json.encode(body)
            await fetch(upstream.pool, b"POST", b"/v1/chat/completions", (), made, 60.0, 1 << 20)
        except TransportError:
            await asyncio.sleep(0.1)


def row(model: str, case: str, pairs: Iterable[tuple[Reading, Reading]]) -> Row:
    """The furthest of the pairs."""
    found = [d for d in (distance(*pair) for pair in pairs) if d is not None]
    worst = Distance(mean_nats=max(d.mean_nats for d in found), flip_nats=max(d.flip_nats for d in found))
    made = Row(
        model=model,
        case=case,
        pairs=len(found),
        mean_nats=round(worst.mean_nats, 5),
        mean_nats_median=round(median(d.mean_nats for d in found), 5),
        flip_nats=round(worst.flip_nats, 5),
        drifted=judge(worst),
    )
    print(
        f"{model:>8} {case:<45} {made.pairs:>4} {made.mean_nats_median:>8.4f} {made.mean_nats:>8.4f} "
        f"{made.flip_nats:>8.4f} {made.drifted!s:>6}",
        flush=True,
    )
    return made


async def measure(folder: Path) -> list[Row]:
    """Every case, one engine at a time."""
    usual = Spec(model=weights.fetch(), context_tokens=512)
    async with engine(usual, folder) as upstream:
        reference = await read(upstream)
        rows = [row("same", "warm, prompt cached", [(reference, await read(upstream)) for _ in range(READINGS)])]
    specs = {
        "another process": usual,
        "two threads": replace(usual, threads=2),
        "batches of 16": replace(usual, batch_tokens=16),
        "batches of 512": replace(usual, batch_tokens=512),
        "eight slots": replace(usual, slots=8),
        "a window of 2,048": replace(usual, context_tokens=2048),
    }
    for case, spec in specs.items():
        async with engine(spec, folder) as upstream:
            rows.append(row("same", case, [(reference, await read(upstream)) for _ in range(READINGS)]))
    for beside in (1, 3):
        async with engine(replace(usual, slots=beside + 1), folder) as upstream:
            work = [asyncio.create_task(busy(upstream, number)) for number in range(beside)]
            pairs = [(reference, await read(upstream)) for _ in range(READINGS * 4)]
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            rows.append(row("same", f"beside {beside} busy", pairs))
    async with engine(replace(usual, flash_attention=False), folder) as upstream:
        rows.append(row("rounding", "without flash attention", [(reference, await read(upstream))]))
    rounded = [reference, *[await altered(usual, partial(gguf.rounded, seed), folder) for seed in range(ROUNDED)]]
    rows.append(row("rounding", "one scale by its last bit, any two copies", combinations(rounded, 2)))
    plain = folder / "plain.jinja"
    plain.write_text(PLAIN)
    async with engine(replace(usual, template=plain), folder) as upstream:
        rows.append(row("other", "chat template without a system prompt", [(reference, await read(upstream))]))
    for case, change in CHANGES.items():
        rows.append(row("other", case, [(reference, await altered(usual, change, folder))]))
    return rows


async def altered(usual: Spec, change: Callable[[Gguf], None], folder: Path) -> Reading:
    """The reading of an engine whose weights were changed."""
    file = Gguf(usual.model)
    change(file)
    model = folder / "altered.gguf"
    model.write_bytes(file.data)
    async with engine(replace(usual, model=model), folder) as upstream:
        return await read(upstream)


def main() -> None:
    """Measure, print, write down."""
    with TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder)))
    found: dict[str, object] = {
        "limits": {"mean_nats": MEAN_NATS_MAX, "flip_nats": FLIP_NATS_MAX},
        "distances": [msgspec.to_builtins(one) for one in rows],
    }
    record("canary", found)


if __name__ == "__main__":
    main()
