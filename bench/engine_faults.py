"""What clients see of it when the local engine dies, or stops, under twenty streams, and how soon it is used again.

    python -m bench.engine_faults

A real llama.cpp with eight slots stays on one core; a gateway in a process of its own, a made-up vendor who charges
(the good endpoint of `tidegate chaos`) and twenty clients share the machine with it. Each client streams an answer, and
asks again at once. After a while the engine is killed (SIGKILL), or stopped (SIGSTOP), and comes back later. A request
whose answer had not begun must be served all the same; one whose answer had begun ends with an error in so many words,
unless it was the vendor's. Written down before anything was changed for it.
"""

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from bench.gateway import HOST, LISTENS, free_ports, served
from bench.record import record
from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.chaos import Chaos
from tidegate.lab.llama import Engine, Spec
from tidegate.lab.misdeeds import Pace

MODEL = "smollm2"
CLIENTS, SLOTS, TOKENS = 20, 8, 32
WARM_S, AWAY_S, AFTER_S = 20.0, 20.0, 25.0
BACK_S_MAX = 5.0
_CONFIG = (
    LISTENS
    + """\
[site.home]
local = true
[site.cloud]
local = false
[endpoint.local]
site = "home"
engine = "llamacpp"
url = "{local}"
serves = ["smollm2"]
concurrency = {slots}
[endpoint.vendor]
site = "cloud"
engine = "openai"
url = "{vendor}"
serves = ["smollm2"]
context_tokens = 8192
price = {{ usd_per_1m_input_tokens = 1.0, usd_per_1m_output_tokens = 4.0 }}
"""
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when it was sent and over, in seconds from the fault; who answered, and how it ended."""

    sent_s: float
    over_s: float
    status: int
    endpoint: str
    complete: bool
    told: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one fault. `silent` are streams that were cut without a word; `back_s` is from when the engine was
    there again to the first request that it was given and answered."""

    fault: str
    requests: int
    by_local: int
    lost_uncommitted: int
    ended_with_error: int
    silent: int
    back_s: float | None
    median_away_s: float
    slowest_away_s: float


async def played(fault: signal.Signals) -> Found:
    """One run."""
    with tempfile.TemporaryDirectory() as name:
        folder, (port, admin, engine_port) = Path(name), free_ports(3)
        cpu = min(os.sched_getaffinity(0))
        spec = Spec(model=weights.fetch(), port=engine_port, context_tokens=512, slots=SLOTS, cpu=cpu)
        engine = Engine(spec, folder / "engine.log")
        async with Chaos(pace=Pace(tokens=TOKENS, token_s=0.02)) as vendor:
            await engine.start()
            config = folder / "tidegate.toml"
            urls = {"local": engine.url, "vendor": vendor.base_url(None).removesuffix("/v1")}
            config.write_text(_CONFIG.format(host=HOST, port=port, admin=admin, slots=SLOTS, **urls))
            gateway = await served(config)
            try:
                return await _under_load(fault, engine, port)
            finally:
                gateway.terminate()
                await gateway.wait()
                await engine.kill()


async def _under_load(fault: signal.Signals, engine: Engine, port: int) -> Found:
    clock, asked = Clock(), list[Asked]()
    pool = Pool(Origin(HOST, port), clock=clock, connections_max=CLIENTS)
    fault_s = clock.now_s() + WARM_S
    end_s = fault_s + AWAY_S + AFTER_S
    clients = [asyncio.create_task(_client(pool, clock, number, fault_s, end_s, asked)) for number in range(CLIENTS)]
    await asyncio.sleep(WARM_S)
    if fault is signal.SIGKILL:
        await engine.kill()
        await asyncio.sleep(AWAY_S)
        await engine.start()
    else:
        os.kill(engine.pid, fault)
        await asyncio.sleep(AWAY_S)
        os.kill(engine.pid, signal.SIGCONT)
    returned_s = clock.now_s() - fault_s
    await asyncio.gather(*clients)
    await pool.close()
    away = [one for one in asked if 0.0 <= one.sent_s < returned_s]
    again = [one.sent_s for one in asked if one.endpoint == "local" and one.complete and one.sent_s >= returned_s]
    took_s = [one.over_s - one.sent_s for one in away]
    return Found(
        fault=fault.name,
        requests=len(asked),
        by_local=sum(one.endpoint == "local" for one in asked),
        lost_uncommitted=sum(one.status != 200 for one in asked),
        ended_with_error=sum(one.status == 200 and not one.complete and one.told for one in asked),
        silent=sum(one.status == 200 and not one.complete and not one.told for one in asked),
        back_s=min(again) - returned_s if again else None,
        median_away_s=median(took_s),
        slowest_away_s=max(took_s),
    )


async def _client(pool: Pool, clock: Clock, number: int, fault_s: float, end_s: float, asked: list[Asked]) -> None:
    count = 0
    while (sent_s := clock.now_s()) < end_s:
        count += 1
        text = f"Tell me something about the number {number * 1000 + count}, and why it is worth knowing."
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS,
            "seed": count,
            "stream": True,
        }
        try:
            status, headers, raw = await fetch(
                pool, b"POST", b"/v1/chat/completions", ((b"content-type", b"application/json"),),
                msgspec.json.encode(body), 120.0, 1 << 20,
            )  # fmt: skip
        except TransportError:
            status, headers, raw = 0, {}, b""
        asked.append(
            Asked(
                sent_s=sent_s - fault_s,
                over_s=clock.now_s() - fault_s,
                status=status,
                endpoint=headers.get(b"x-tidegate-endpoint", b"").decode(),
                complete=raw.rstrip().endswith(b"[DONE]"),
                told=b'data: {"error"' in raw,
            )
        )


def main() -> None:
    """Both faults, shown and written down."""
    results = [asyncio.run(played(fault)) for fault in (signal.SIGKILL, signal.SIGSTOP)]
    table = Table(
        "fault", "requests", "by the engine", "lost uncommitted", "ended with an error", "cut in silence", "back after",
        "median while away", "slowest while away",
    )  # fmt: skip
    for one in results:
        back = "never" if one.back_s is None else f"{one.back_s:.1f} s"
        table.add_row(
            one.fault, str(one.requests), str(one.by_local), str(one.lost_uncommitted), str(one.ended_with_error),
            str(one.silent), back, f"{one.median_away_s:.1f} s", f"{one.slowest_away_s:.1f} s",
        )  # fmt: skip
    Console().print(table)
    record("engine_faults", {"faults": [msgspec.structs.asdict(one) for one in results]})


if __name__ == "__main__":
    main()
