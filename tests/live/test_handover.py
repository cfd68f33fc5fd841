"""A gateway that has long prompts computed by one real llama.cpp and decoded by another, with couriers between them."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from bench.gateway import free_ports

from tests.courier.harness import HOST, SECRET
from tests.live.couriers import Real, real
from tidegate.clock import Clock
from tidegate.core.model import Decision, Ended, Prefill, Shipped
from tidegate.core.replay import replay
from tidegate.http.client import Origin, Pool, fetch
from tidegate.telemetry.reading import read

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

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
slo = {{ ttft_ms = 30000 }}
worth_usd = 0.05
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
TEXT = "Once upon a time a lighthouse keeper counted the ships that came home. " * 24


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
        pool = Pool(Origin(HOST, self.port), clock=Clock())
        try:
            body = msgspec.json.encode({key: value for key, value in asked.items() if value is not None})
            status, headers, said = await fetch(pool, b"POST", b"/v1/chat/completions", (), body, 200.0, 1 << 22)
        finally:
            await pool.close()
        assert status == 200, said
        return headers, said

    def facts(self) -> list[Any]:
        return [line.fact for line in read(self.folder / "journal")]


@asynccontextmanager
async def handing(folder: Path, **replaced: str) -> AsyncIterator[Handing]:
    async with real(folder) as home:
        found = Handing(home, folder)
        await found.start(**replaced)
        try:
            yield found
        finally:
            await found.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    """On the main thread's loop, since engines die with the thread that started them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_long_prompt_is_computed_at_the_rack_and_decoded_at_home(tmp_path: Path, stream: bool) -> None:
    async def main() -> None:
        async with handing(tmp_path) as gateway:
            headers, said = await gateway.chat(TEXT, stream=stream)
            assert headers[b"x-tidegate-endpoint"] == b"laptop"
            assert SECRET.encode() not in said
            again, hit = await gateway.chat(TEXT, stream=stream)
            assert again[b"x-tidegate-endpoint"] == b"laptop", "it is cached at home now"
            assert _text(said, stream=stream) == _text(hit, stream=stream), "as from a cache of its own"
        facts = gateway.facts()
        plans = [fact.plan for fact in facts if isinstance(fact, Decision)]
        assert isinstance(plans[0][0], Prefill)
        assert all(fact.ok for fact in facts if isinstance(fact, Shipped))
        ended = [fact for fact in facts if isinstance(fact, Ended)]
        assert [one.endpoint for one in ended[:2]] == ["rack", "laptop"]
        assert ended[1].cached_tokens == (ended[1].prompt_tokens or 0) - 1, "one token was computed at home"
        assert replay(read(tmp_path / "journal")).difference is None
        assert not [file for file in gateway.home.saves.rglob("*") if file.is_file()], "nothing is left"
        assert "lighthouse" not in (tmp_path / "gateway.log").read_text()

    run(main())


def test_where_no_courier_answers_the_request_is_served_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        (nobody,) = free_ports(1)
        async with handing(tmp_path, here=f"{HOST}:{nobody}") as gateway:
            for number in range(4):
                await gateway.chat(f"{number} {TEXT}", tokens=4)
        told = [fact for fact in gateway.facts() if isinstance(fact, Shipped)]
        assert told
        assert not any(one.ok for one in told)
        assert replay(read(tmp_path / "journal")).difference is None

    run(main())


def _text(said: bytes, *, stream: bool) -> str:
    if not stream:
        return str(msgspec.json.decode(said)["choices"][0]["message"]["content"])
    found = ""
    for line in said.splitlines():
        if line.startswith(b"data: {"):
            choices = msgspec.json.decode(line[6:])["choices"]
            found += (choices[0]["delta"].get("content") or "") if choices else ""
    return found
