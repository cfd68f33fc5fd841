"""The pair of `bench.throttled_pair`: two real engines, one of them throttled, with links, couriers and gateways."""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.gateway import HOST, free_ports
from bench.throttle import throttled
from bench.throttled_pair_settings import SEED
from tidegate.clock import Clock, tick_s
from tidegate.config.build import build
from tidegate.config.load import load
from tidegate.core.model import Price
from tidegate.core.replay import Explained
from tidegate.gateway.couriers import Couriers
from tidegate.lab import weights
from tidegate.lab.command import running
from tidegate.lab.couriers import Couriers as Pair
from tidegate.lab.llama import Engine, Spec
from tidegate.lab.wan import Link, Wan
from tidegate.telemetry.log import Log

SHARE = 0.25  # of a core, for the engine at home
PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)
# As a class has them by default.
WORTH_USD, WORTH_USD_PER_1K, LATE_USD_PER_S = 0.002, 0.004, 0.0005
RTT_S = 0.02
MBIT_WARM = 200
CONTEXT_TOKENS, SPACE_MIB = 8_192, 512
KV_KIB_PER_TOKEN = 22.5
CALL_S_MAX = 1_800.0
IDLE_S_MAX = 600.0  # a batch of 2,048 tokens takes a quarter of a core five minutes
HOME, RACK = "home", "rack"
WORDS_PER_TOKEN = 0.97  # of this text, by the model's own count
STORY = (
    "river stone window garden letter market engine silver bridge winter table forest signal harbor teacher camera "
    "mountain paper island music doctor kitchen machine summer village number ocean pocket mirror railway"
)
CONFIG = """
[gateway]
listen = "{host}:{port}"
admin = "{host}:{admin}"
log = "gateway.log"
[gateway.couriers]
secret = {{ file = "{couriers}/tickets.key" }}
tls = {{ cert = "{couriers}/gateway.pem", key = "{couriers}/gateway.key", ca = "{couriers}/ca.pem" }}
[site.home]
local = true
[site.away]
local = false
[class.interactive]
worth_usd = {worth}
worth_usd_per_1k_tokens = {worth_1k}
late_usd_per_s = {late}
[endpoint.local]
site = "home"
engine = "llamacpp"
url = "{local}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
courier = {{ name = "home", address = "{home_at}" }}
[endpoint.remote]
site = "away"
engine = "llamacpp"
url = "{remote}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
price = {{ usd_per_1m_input_tokens = {price_in}, usd_per_1m_output_tokens = {price_out} }}
courier = {{ name = "rack", address = "{rack_at}" }}
[[endpoint.remote.handover]]
to = "local"
kv_kib_per_token = {kv}
mbit_per_s = {mbit}
"""


class Action(StrEnum):
    """What can be done with a request."""

    HOME = "whole at home"
    REMOTE = "whole remote"
    HANDOVER = "prefilled remote, decoded at home"


class Said(msgspec.Struct, kw_only=True):
    """An answer, as its client saw it."""

    first_s: float = inf
    ended_s: float = inf
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    endpoint: str = ""
    served: bool = False

    @property
    def tpot_s(self) -> float:
        """Of the tokens after the first."""
        return (self.ended_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else inf


class Engines:
    """The one at home, throttled, the one at the rack, and the couriers and links between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.how = ""
        self.local = self.remote = self.home_at = self.rack_at = ""
        self._wans: list[Wan] = []

    async def start(self, model: Path, stack: AsyncExitStack) -> None:
        """Begin them."""
        self.folder.mkdir()
        pair = stack.enter_context(Pair(self.folder / "couriers", (HOME, RACK), SPACE_MIB))
        cpus = sorted(os.sched_getaffinity(0))
        engines = []
        for name, cpu in ((HOME, cpus[0]), (RACK, cpus[-1])):
            spec = Spec(model=model, context_tokens=CONTEXT_TOKENS, cpu=cpu, saves=pair.saves(name))
            engines.append(await stack.enter_async_context(Engine(spec, self.folder / f"{name}-engine.log")))
        self.how = stack.enter_context(throttled(engines[0].pid, SHARE))
        ports = [
            await stack.enter_async_context(pair.beside(name, engine.url))
            for name, engine in zip((HOME, RACK), engines, strict=True)
        ]
        for port in (engines[1].port, *ports):
            wan = Wan((HOST, 0), (HOST, port), Link(rtt_s=RTT_S))
            self._wans.append(await stack.enter_async_context(wan))
        remote, home, rack = self._wans
        self.local, self.remote = engines[0].url, remote.url
        self.home_at, self.rack_at = ("{}:{}".format(*wan.address) for wan in (home, rack))

    async def link(self, mbit_per_s: int) -> None:
        """Have links of this rate."""
        for wan in self._wans:
            await wan.change(rate_bytes_per_s=mbit_per_s * 1e6 / 8)


class Rig:
    """A gateway before two engines, and two more like them for what is done past it: engines tell what they are busy
    with, so that it would take that for somebody else's work and expect more of it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.port, self._admin = free_ports(2)
        self._stack = stack
        self._client = httpx.AsyncClient(timeout=CALL_S_MAX)
        self._asked, self._past = Engines(folder / "asked"), Engines(folder / "past")
        self._number = 0

    @property
    def how(self) -> str:
        """By what the engine at home is throttled."""
        return self._asked.how

    async def start(self) -> None:
        """Begin all engines."""
        model = await asyncio.to_thread(weights.fetch)
        for engines in (self._asked, self._past):
            await engines.start(model, self._stack)
        self._stack.push_async_callback(self._client.aclose)

    @asynccontextmanager
    async def gateway(self, mbit_per_s: int, learned: Path | None) -> AsyncIterator[Path]:
        """One before this link, which knows what is in the file `learned`; the folder of its files."""
        for engines in (self._asked, self._past):
            await engines.link(mbit_per_s)
        folder = self.folder / f"gateway-{'warm' if learned is None else mbit_per_s}"
        folder.mkdir()
        if learned is not None:
            shutil.copy(learned, folder / learned.name)
        config = self._config(self._asked, mbit_per_s, folder / "tidegate.toml")
        async with running("serve", "--json", "--config", str(config), said=folder / "said"):
            known = (await self._both_up())["learned"]
            assert learned is None or (known["restored_at_s"] and not known["dropped"]), f"nothing is known: {known}"
            yield folder

    def _config(self, engines: Engines, mbit_per_s: int, file: Path) -> Path:
        file.write_text(
            CONFIG.format(
                host=HOST,
                port=self.port,
                admin=self._admin,
                couriers=engines.folder / "couriers",
                worth=WORTH_USD,
                worth_1k=WORTH_USD_PER_1K,
                late=LATE_USD_PER_S,
                local=engines.local,
                remote=engines.remote,
                home_at=engines.home_at,
                rack_at=engines.rack_at,
                price_in=PRICE.usd_per_input_token * 1e6,
                price_out=PRICE.usd_per_output_token * 1e6,
                kv=KV_KIB_PER_TOKEN,
                mbit=mbit_per_s,
            )
        )
        return file

    @asynccontextmanager
    async def couriers(self, folder: Path, mbit_per_s: int) -> AsyncIterator[Couriers]:
        """Those past the gateway, asked as the one of this folder asks its own."""
        config = self._config(self._past, mbit_per_s, folder / "past.toml")
        built = build(load(config), Clock().now_s())
        couriers = Couriers(built.gateway.couriers, Clock(), Log.to(None, Clock()))
        couriers.configure(built.upstreams)
        try:
            yield couriers
        finally:
            await couriers.close()

    def body(self, tokens: int, output_tokens: int) -> dict[str, Any]:
        """A prompt of about so many tokens that begins like no other, and whose answer goes on to its last one."""
        self._number += 1
        chance = random.Random(SEED + self._number)
        words = STORY.split()
        text = " ".join(chance.choice(words) for _ in range(int(tokens * WORDS_PER_TOKEN)))
        return {
            "model": "smollm2",
            "messages": [{"role": "user", "content": f"{self._number} {text}"}],
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def through(self, body: dict[str, Any], headers: dict[str, str]) -> Said:
        """Sent through the gateway."""
        return await self._said(f"http://{HOST}:{self.port}", body, headers)

    async def foreseen(self, body: dict[str, Any], headers: dict[str, str]) -> Explained:
        """What the gateway would decide now."""
        url = f"http://{HOST}:{self.port}/v1/chat/completions"
        told = await self._client.post(url, json=body, headers=headers | {"x-tidegate-dry-run": "true"})
        return msgspec.json.decode(told.content, type=Explained)

    async def run(self, action: Action, body: dict[str, Any], couriers: Couriers, begins: Callable[[], None]) -> Said:
        """Do this, past the gateway; `begins` is told when its first content is there."""
        if action is not Action.HANDOVER:
            return await self._said(self._past.local if action is Action.HOME else self._past.remote, body, {}, begins)
        in_slot = body | {"id_slot": 0, "cache_prompt": True}
        began_s = tick_s()
        one = await self._said(self._past.remote, in_slot | {"max_tokens": 1}, {})
        size_bytes = one.prompt_tokens * KV_KIB_PER_TOKEN * 1024.0
        sent = await couriers.ship("remote", "local", slot=0, tokens=one.prompt_tokens, size_bytes=size_bytes)
        await couriers.restore("local", sent.name, 0)
        before_s = tick_s() - began_s
        said = await self._said(self._past.local, in_slot, {}, begins)
        assert said.cached_tokens == said.prompt_tokens - 1, "the KV cache was of use"
        said.first_s += before_s
        said.ended_s += before_s
        return said

    async def idle(self) -> None:
        """Return when nothing is computed any more: who was cut short leaves after a batch."""
        async with asyncio.timeout(IDLE_S_MAX):
            while True:
                urls = [url for one in (self._asked, self._past) for url in (one.local, one.remote)]
                if not any([await self._busy(url) for url in urls]):
                    return
                await asyncio.sleep(0.1)

    async def _busy(self, url: str) -> bool:
        slots = (await self._client.get(f"{url}/slots")).json()
        return any(slot["is_processing"] for slot in slots)

    async def _said(
        self, url: str, body: dict[str, Any], headers: dict[str, str], begins: Callable[[], None] = lambda: None
    ) -> Said:
        found, began_s = Said(), tick_s()
        async with self._client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            found.endpoint = answer.headers.get("x-tidegate-endpoint", "")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = msgspec.json.decode(line[6:])
                if chunk["choices"] and chunk["choices"][0]["delta"].get("content") and found.first_s == inf:
                    found.first_s = tick_s() - began_s
                    begins()
                if usage := chunk.get("usage"):
                    found.prompt_tokens, found.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
                    found.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        found.ended_s = tick_s() - began_s
        found.served = answer.status_code == 200 and found.output_tokens > 0
        return found

    async def _both_up(self) -> Any:
        """`/api/state`, once it says so."""
        url = f"http://{HOST}:{self._admin}/api/state"
        async with asyncio.timeout(IDLE_S_MAX):
            while True:
                state = (await self._client.get(url)).json()
                ends = state["endpoints"].values()
                if all(one["up"] for one in ends) and all(one["one_model"] for one in state["handovers"].values()):
                    return state
                await asyncio.sleep(0.1)
