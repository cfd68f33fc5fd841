"""Do requests go to the better side when a link changes under them, how soon, and do they stay there?

    python -m bench.moving_link

A gateway in a process of its own; a laptop's engine, which costs what it draws, and a rack behind the project's WAN
relay, which costs less and is quicker while the link is good. Both are made up (the engine without a model), and answer
100 KB of prompt after 0.2 s and 0.05 s, as is written of them at first; real sockets and a real relay carry them. First
content is promised within 0.25 s, at five requests a second. The link goes from 20 to 300 ms and back, and from 100 to
2 Mbit/s and back, each for forty seconds: where it is good, the rack is the better side, and else the laptop.

Reported are, of each change, the share of requests on the better side from ten seconds after it on, after how many
seconds all went there, and how often requests changed sides. Written down before anything was changed for it.
"""

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.gateway import HOST, LISTENS, free_ports, served
from bench.record import record
from tidegate.clock import Clock
from tidegate.engines.fake import FakeEngine, Script
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab.wan import Link, Wan

PER_S, PHASE_S, WITHIN_S = 5.0, 40.0, 10.0
PROMPT_BYTES = 100_000
MBIT_S = 1e6 / 8.0
TTFT_S = 0.25
HEADERS = ((b"content-type", b"application/json"), (b"x-tidegate-slo-ttft-ms", b"%d" % (TTFT_S * 1000.0)))
GOOD = Link(rtt_s=0.02, jitter_s=0.002, rate_bytes_per_s=100.0 * MBIT_S)
CHANGES = {
    "20 ms, 100 Mbit/s": (GOOD, "rack"),
    "to 300 ms": (msgspec.structs.replace(GOOD, rtt_s=0.3), "laptop"),
    "back to 20 ms": (GOOD, "rack"),
    "to 2 Mbit/s": (msgspec.structs.replace(GOOD, rate_bytes_per_s=2.0 * MBIT_S), "laptop"),
    "back to 100 Mbit/s": (GOOD, "rack"),
}
_CONFIG = (
    LISTENS
    + """\
[site.home]
local = true
[site.office]
local = false
[endpoint.laptop]
site = "home"
engine = "openai"
url = "{laptop}"
model = "fake"
serves = ["m"]
context_tokens = 131072
concurrency = 8
prior = {{ prefill_tokens_per_s = 250000, overhead_ms = 100 }}
running_cost = {{ usd_per_hour = 0.3 }}
[endpoint.rack]
site = "office"
engine = "openai"
url = "{rack}"
model = "fake"
serves = ["m"]
context_tokens = 131072
concurrency = 32
prior = {{ prefill_tokens_per_s = 1000000, overhead_ms = 25, rtt_ms = 20, upload_mbit_per_s = 100 }}
owned = true
price = {{ usd_per_1m_input_tokens = 0.0, usd_per_1m_output_tokens = 0.0 }}
"""
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when it was sent, in seconds from the beginning, and who answered after which time."""

    sent_s: float
    status: int
    endpoint: str
    took_s: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one change; `settled_s` is None where requests never stayed on the better side."""

    change: str
    better: str
    requests: int
    on_better: float
    settled_s: float | None
    switches: int
    in_time: float


async def played() -> list[Found]:
    """All changes, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder, (port, admin) = Path(name), free_ports(2)
        quick, slow = Script(first_s=0.05, tokens=4), Script(first_s=0.2, tokens=4)
        async with (
            FakeEngine(slow, context_tokens=131_072) as laptop,
            FakeEngine(quick, context_tokens=131_072) as rack,
            Wan((HOST, 0), (HOST, rack.port), GOOD) as wan,
        ):
            config = folder / "tidegate.toml"
            urls = {"laptop": laptop.url, "rack": f"http://{HOST}:{wan.address[1]}"}
            config.write_text(_CONFIG.format(host=HOST, port=port, admin=admin, **urls))
            gateway = await served(config)
            try:
                return await _under_way(wan, port)
            finally:
                gateway.terminate()
                await gateway.wait()


async def _under_way(wan: Wan, port: int) -> list[Found]:
    clock, found = Clock(), list[Found]()
    pool = Pool(Origin(HOST, port), clock=clock, connections_max=256)
    body = msgspec.json.encode(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "word " * (PROMPT_BYTES // 5)}],
            "max_tokens": 4,
            "stream": True,
        }
    )
    for change, (link, better) in CHANGES.items():
        await wan.change(**msgspec.structs.asdict(link))
        begun_s, asked = clock.now_s(), list[Asked]()
        tasks = []
        while (now_s := clock.now_s()) < begun_s + PHASE_S:
            tasks.append(asyncio.create_task(_ask(pool, clock, body, now_s - begun_s, asked)))
            await asyncio.sleep(1.0 / PER_S)
        await asyncio.gather(*tasks)
        found.append(_judged(change, better, sorted(asked, key=lambda one: one.sent_s)))
    await pool.close()
    return found


async def _ask(pool: Pool, clock: Clock, body: bytes, sent_s: float, asked: list[Asked]) -> None:
    begun_s, first_s = clock.now_s(), list[float]()
    try:
        status, headers, _ = await fetch(
            pool, b"POST", b"/v1/chat/completions", HEADERS, body, 60.0, 1 << 20,
            lambda _: first_s.append(clock.now_s()),
        )  # fmt: skip
    except TransportError:
        status, headers = 0, {}
    endpoint = headers.get(b"x-tidegate-endpoint", b"").decode()
    took_s = (first_s[0] if first_s else clock.now_s()) - begun_s
    asked.append(Asked(sent_s=sent_s, status=status, endpoint=endpoint, took_s=took_s))


def _judged(change: str, better: str, asked: list[Asked]) -> Found:
    late = [one for one in asked if one.sent_s >= WITHIN_S]
    sides = [one.endpoint for one in asked]
    wrong = [one.sent_s for one in asked if one.endpoint != better]
    settled_s = 0.0 if not wrong else next((one.sent_s for one in asked if one.sent_s > wrong[-1]), None)
    return Found(
        change=change,
        better=better,
        requests=len(asked),
        on_better=sum(one.endpoint == better for one in late) / len(late),
        settled_s=settled_s,
        switches=sum(a != b for a, b in pairwise(sides)),
        in_time=sum(one.status == 200 and one.took_s <= TTFT_S for one in late) / len(late),
    )


def main() -> None:
    """Shown and written down."""
    results = asyncio.run(played())
    table = Table("change", "better", "requests", "on the better side", "settled after", "switches", "in time")
    for one in results:
        settled = "never" if one.settled_s is None else f"{one.settled_s:.1f} s"
        table.add_row(
            one.change, one.better, str(one.requests), f"{one.on_better:.1%}", settled, str(one.switches),
            f"{one.in_time:.1%}",
        )  # fmt: skip
    Console().print(table)
    record("moving_link", {"changes": [msgspec.structs.asdict(one) for one in results]})


if __name__ == "__main__":
    main()
