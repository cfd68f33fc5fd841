"""A gateway in front of two real llama.cpp with couriers between them."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from bench.gateway import free_ports

from tests.courier.harness import HOST
from tests.live.couriers import Real, real
from tests.live.stack import get_any
from tidegate.clock import Clock
from tidegate.core.model import Line
from tidegate.http.client import Origin, Pool, fetch
from tidegate.telemetry.reading import read

# What is believed of the laptop is far too slow, so that a long prompt is not left to it; the rack's output is dear.
CONFIG = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
log = "gateway.log"
[gateway.couriers]
secret = {{ file = "tickets.key" }}
tls = {{ cert = "gateway.pem", key = "gateway.key", ca = "ca.pem" }}
[site.home]
local = true
[site.rack]
local = false
[class.interactive]
slo = {{ ttft_ms = 2000 }}
worth_usd = 0.05
late_usd_per_s = 0.001
[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "{laptop}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
courier = {{ name = "b", address = "{there}" }}
prior = {{ prefill_tokens_per_s = 5, decode_tokens_per_s = 30, sigma = 0.1 }}
[endpoint.rack]
site = "rack"
engine = "llamacpp"
url = "{rack}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
price = {{ usd_per_1m_input_tokens = 0.1, usd_per_1m_output_tokens = 1000.0 }}
courier = {{ name = "a", address = "{here}" }}
prior = {{ prefill_tokens_per_s = 150, decode_tokens_per_s = 30, sigma = 0.1 }}
[[endpoint.rack.handover]]
to = "laptop"
kv_kib_per_token = 23
mbit_per_s = 1000
"""


class Handing:
    """The gateway in a process of its own, in front of `home`."""

    def __init__(self, home: Real, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.port, self.admin = free_ports(2)
        self._process: Process | None = None

    async def start(self, **replaced: str) -> None:
        text = CONFIG.format(
            port=self.port,
            admin=self.admin,
            laptop=self.home.engines["b"].url,
            rack=self.home.engines["a"].url,
            here=replaced.get("here") or self.home.to("a"),
            there=self.home.to("b"),
        )
        (self.folder / "tidegate.toml").write_text(text)
        command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--json"]
        command += ["--config", str(self.folder / "tidegate.toml")]
        self._process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), (self.folder / "gateway.log").read_text()

    async def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert await self._process.wait() == 0

    async def chat(self, text: str, *, stream: bool = False, tokens: int = 24) -> tuple[dict[bytes, bytes], bytes]:
        asked = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": stream,
            "stream_options": {"include_usage": True} if stream else None,
        }
        return await _posted(self.port, {key: value for key, value in asked.items() if value is not None})

    async def at_home(self, text: str, *, tokens: int = 24) -> bytes:
        """What the laptop says to the same, asked past the gateway."""
        messages = [{"role": "user", "content": text}]
        asked = {"messages": messages, "max_tokens": tokens, "temperature": 0, "cache_prompt": True}
        return (await _posted(self.home.engines["b"].port, asked))[1]

    async def state(self) -> Any:
        """`/api/state`."""
        return await get_any(self.admin, b"/api/state")

    def lines(self) -> list[Line]:
        return list(read(self.folder / "journal"))

    def facts(self) -> list[Any]:
        return [line.fact for line in self.lines()]


async def _posted(port: int, asked: Any) -> tuple[dict[bytes, bytes], bytes]:
    pool = Pool(Origin(HOST, port), clock=Clock())
    try:
        body = msgspec.json.encode(asked)
        status, headers, said = await fetch(pool, b"POST", b"/v1/chat/completions", (), body, 600.0, 1 << 22)
    finally:
        await pool.close()
    assert status == 200, said
    return headers, said


@asynccontextmanager
async def handing(
    folder: Path, context_tokens: tuple[int, int] = (2048, 1024), space_mib: int = 64, **replaced: str
) -> AsyncIterator[Handing]:
    async with real(folder, context_tokens, space_mib) as home:
        found = Handing(home, folder)
        await found.start(**replaced)
        try:
            yield found
        finally:
            await found.stop()
