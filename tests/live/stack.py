"""Two real llama.cpp engines, an emulated WAN and a gateway in a process of its own: what `tidegate demo` runs."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

import msgspec
from bench.gateway import free_ports

from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, fetch
from tidegate.lab import weights
from tidegate.lab.link import Link
from tidegate.lab.llama import Engine, Spec
from tidegate.lab.wan import Wan

HOST = "127.0.0.1"
MODEL = "smollm2"
TEMPLATE = Path(__file__).parents[1] / "lab" / "tools.jinja"

CONFIG = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
log = "log"
[site.home]
local = true
[site.cloud]
local = false
[endpoint.local]
site = "home"
engine = "llamacpp"
url = "{local}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
[endpoint.remote]
site = "cloud"
engine = "llamacpp"
url = "{remote}"
serves = ["smollm2"]
concurrency = 2
probe_s = 2
price = {{ usd_per_1m_input_tokens = 1.0, usd_per_1m_output_tokens = 4.0 }}
"""


class Stack:
    """All of it, running. `url` is the base URL for an OpenAI SDK, `root` for those of other dialects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin_port, local_port = free_ports(3)
        model = weights.fetch()
        cpus = sorted(os.sched_getaffinity(0))
        # A port of its own, so that the engine comes back where it was; the model's own template knows no tools.
        local = Spec(model=model, port=local_port, context_tokens=2048, cpu=cpus[0], template=TEMPLATE)
        self.local = Engine(local, folder / "local.log")
        self.remote = Engine(Spec(model=model, context_tokens=8192, cpu=cpus[-1]), folder / "remote.log")
        self._wan: Wan | None = None
        self._gateway: Process | None = None

    @property
    def url(self) -> str:
        """The base URL that clients are given."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """The same without a version, for those that write it themselves."""
        return f"http://{HOST}:{self.port}"

    @property
    def journal(self) -> Path:
        """Where the gateway writes its journal."""
        return self.folder / "journal"

    async def start(self) -> None:
        """Return when the gateway listens."""
        await asyncio.gather(self.local.start(), self.remote.start())
        self._wan = Wan((HOST, 0), (HOST, self.remote.port), Link(rtt_s=0.03, rate_bytes_per_s=2.5e6))
        await self._wan.start()
        config = self.folder / "tidegate.toml"
        config.write_text(
            CONFIG.format(port=self.port, admin=self.admin_port, local=self.local.url, remote=self._wan.url)
        )
        command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--json", "--config", str(config)]
        self._gateway = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, start_new_session=True
        )
        assert self._gateway.stdout is not None
        assert await self._gateway.stdout.readline(), "the gateway did not start"

    async def stop(self) -> int:
        """Stop everything; the gateway's exit status."""
        assert self._gateway is not None
        assert self._wan is not None
        self._gateway.terminate()
        status = await self._gateway.wait()
        await self._wan.stop()
        await asyncio.gather(self.local.stop(), self.remote.stop())
        return status

    async def both_up(self) -> None:
        """Return when the last probes have reached both engines."""
        for _ in range(300):
            if all(one["up"] for one in (await self.state())["endpoints"].values()):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the gateway does not reach both engines")

    async def state(self) -> Any:
        """`/api/state`."""
        return await get_any(self.admin_port, b"/api/state")


async def get_any(port: int, path: bytes) -> Any:
    """The JSON at a path."""
    pool = Pool(Origin(HOST, port), clock=Clock())
    try:
        _, _, body = await fetch(pool, b"GET", path, (), b"", 10.0, 1 << 20)
    finally:
        await pool.close()
    return msgspec.json.decode(body)
