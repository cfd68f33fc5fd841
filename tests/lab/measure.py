"""How fast the lab's engine is on this machine: `python -m tests.lab.measure [BATCH_TOKENS]`, some five minutes.

Wall seconds are what a client sees; CPU seconds are what the engine used, the same on a busy machine.
Prompts are random tokens of exact number, never seen before, so that nothing comes from a cache.
"""

import asyncio
import random
import sys
from pathlib import Path

import msgspec

from tests.lab.engines import real_engine
from tests.lab.raw import exchange
from tidegate.clock import tick_s
from tidegate.lab.llama import BATCH_TOKENS

PREFILL_TOKENS = (50, 100, 200, 500, 1000, 1900)
REPEATS = 3
CONTEXT_TOKENS = 2304
TOKEN_IDS = (1_000, 40_000)  # ordinary words of the vocabulary, far from the control tokens


class Timings(msgspec.Struct):
    """What llama.cpp says of one request."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float


class Completed(msgspec.Struct):
    """The part of a completion that is looked at."""

    timings: Timings


class Next(msgspec.Struct):
    """How far a slot's answer has come."""

    n_decoded: int


class Slot(msgspec.Struct):
    """The part of `/slots` that is looked at; a slot never used says less."""

    is_processing: bool
    next_token: list[Next] = []


class Bench:
    """One engine and a source of fresh prompts."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self._random = random.Random(7)

    def cpu_s(self) -> float:
        """CPU seconds the engine has used, over all its threads."""
        used = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in used) / 1e9

    def prompt(self, tokens: int) -> list[int]:
        """Fresh random words."""
        return [self._random.randrange(*TOKEN_IDS) for _ in range(tokens)]

    async def complete(self, prompt: list[int], output_tokens: int, slot: int = -1) -> Timings:
        """One request."""
        body = {"prompt": prompt, "n_predict": output_tokens, "ignore_eos": True, "temperature": 0}
        answer = await exchange(self.port, "POST", "/completion", body | {"id_slot": slot})
        return msgspec.json.decode(answer.body, type=Completed).timings


async def prefill(bench: Bench) -> None:
    """Seconds from sending a prompt to its first token, alone on the engine."""
    for tokens in PREFILL_TOKENS:
        wall_s, cpu_s = [], []
        for _ in range(REPEATS):
            before_s, started_s = bench.cpu_s(), tick_s()
            done = await bench.complete(bench.prompt(tokens), 1)
            assert (done.cache_n, done.prompt_n) == (0, tokens)
            wall_s.append(tick_s() - started_s)
            cpu_s.append(bench.cpu_s() - before_s)
        print(f"prefill {tokens:5d} tokens: wall {_all(wall_s)}  cpu {_all(cpu_s)}", flush=True)


async def decode(bench: Bench) -> None:
    """Seconds per output token, alone and beside a second stream, with the prompts in the slots already."""
    for prompt_tokens in (50, 500, 1000, 1900):
        for streams in (1, 2):
            prompts = [bench.prompt(prompt_tokens) for _ in range(streams)]
            for slot, prompt in enumerate(prompts):
                await bench.complete(prompt, 1, slot)
            each_s = []
            for _ in range(REPEATS):
                together = (bench.complete(prompt, 100, slot) for slot, prompt in enumerate(prompts))
                for done in await asyncio.gather(*together):
                    assert done.prompt_n == 1
                    each_s.append(done.predicted_ms / 1e3 / (done.predicted_n - 1))
            print(f"decode after {prompt_tokens:4d}, {streams} streams: {_all(each_s, digits=4)} s/token", flush=True)


async def prefill_beside_decode(bench: Bench) -> None:
    """How a prompt and a running answer slow each other."""
    for tokens in (200, 500, 1000):
        for _ in range(REPEATS):
            answer = asyncio.create_task(bench.complete(bench.prompt(50), 400))
            await _decoding(bench.port)
            before_s = bench.cpu_s()
            prompt = await bench.complete(bench.prompt(tokens), 1)
            cpu_s = bench.cpu_s() - before_s
            assert not answer.done()
            whole = await answer
            print(
                f"prefill {tokens:4d} beside decode: {prompt.prompt_ms / 1e3:.3f} s (cpu {cpu_s:.3f}); "
                f"the answer took {whole.predicted_ms / 1e3:.2f} s for {whole.predicted_n} tokens",
                flush=True,
            )


async def _decoding(port: int) -> None:
    """Return when some request has begun to answer."""
    while True:
        slots = msgspec.json.decode((await exchange(port, "GET", "/slots")).body, type=list[Slot])
        if any(slot.is_processing and slot.next_token[0].n_decoded > 0 for slot in slots):
            return


def _all(values: list[float], digits: int = 3) -> str:
    return " ".join(f"{value:.{digits}f}" for value in sorted(values))


async def main(batch_tokens: int) -> None:
    """Measure all, one thread on one core, two slots."""
    async with real_engine(context_tokens=CONTEXT_TOKENS, batch_tokens=batch_tokens) as engine:
        bench = Bench(engine.port, engine.pid)
        await prefill(bench)
        await decode(bench)
        await prefill_beside_decode(bench)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else BATCH_TOKENS))
