"""`tidegate demo`: two real engines, an emulated WAN, a gateway, and a tour of real requests through them."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from tidegate.clock import Clock, tick_s
from tidegate.core.model import Price
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.guide import Guide
from tidegate.lab.link import Link
from tidegate.lab.llama import BATCH_TOKENS, Engine, EngineDiedError, Spec
from tidegate.lab.tour import MODEL, Ask, Scene, scenes
from tidegate.lab.trip import Trip, lost, trips
from tidegate.lab.wan import Wan, control_server
from tidegate.telemetry.journal import read
from tidegate.wire.sse import DONE_FRAME

HOST = "127.0.0.1"
GATEWAY_PORT, ADMIN_PORT, LINK_PORT = 8400, 8401, 8402
# What a small model costs at an API, times ten, so that a tour's spending can be read.
PRICE = Price(usd_per_input_token=1.0e-6, usd_per_output_token=4.0e-6)
# A home line to a region on the same continent.
LINK = Link(rtt_s=0.06, jitter_s=0.005, rate_bytes_per_s=20e6 / 8)
START_S_MAX = 30.0
REQUEST_S_MAX = 300.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024

_CONFIG = """\
# Written by `tidegate demo`; a working example of the format.
[gateway]
listen = "{host}:{gateway}"
admin = "{host}:{admin}"
journal = "journal"
log = "gateway.log"

[site.home]
local = true

[site.cloud]
local = false

[endpoint.local]
site = "home"
engine = "llamacpp"
url = "{local}"
model = "{model}"
serves = ["{model}"]
concurrency = 2
probe_s = 3
prior = {{ batch_tokens = {batch} }}

[endpoint.remote]
site = "cloud"
engine = "llamacpp"
url = "{remote}"
model = "{model}"
serves = ["{model}"]
concurrency = 2
probe_s = 3
price = {{ usd_per_1m_input_tokens = {price_in}, usd_per_1m_output_tokens = {price_out} }}
prior = {{ rtt_ms = 60, upload_mbit_per_s = 20, batch_tokens = {batch} }}
"""


def demo(*, once: bool, verify: bool, as_json: bool) -> int:
    """Run it. 0 when every request of the tour was served and every reason printed."""
    console = Console(highlight=False, stderr=as_json)
    try:
        return asyncio.run(_demo(Guide(console), once=once, verify=verify, as_json=as_json))
    except (weights.WeightsError, EngineDiedError, DemoError) as error:
        console.print(f"[bold red]tidegate demo:[/] {error}")
        return 1


class DemoError(Exception):
    """The demo cannot run; the message says why and what helps."""


async def _demo(guide: Guide, *, once: bool, verify: bool, as_json: bool) -> int:
    started_s = tick_s()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        folder = await _parts(guide, stack)
        guide.ready(tick_s() - started_s)
        tour = asyncio.ensure_future(_tour(guide, folder, verify=verify))
        ended = asyncio.ensure_future(stop.wait())
        await asyncio.wait([tour, ended], return_when=asyncio.FIRST_COMPLETED)
        if not tour.done():
            tour.cancel()
            return 130
        ended.cancel()
        found, verified = tour.result()
        served = guide.closing(found, PRICE)
        if as_json:
            print(msgspec.json.encode({"trips": found, "verified": verified}).decode(), flush=True)
        if not once:
            guide.invite(HOST, GATEWAY_PORT, ADMIN_PORT, LINK_PORT, MODEL, folder)
            await stop.wait()
        return 0 if served else 1


async def _parts(guide: Guide, stack: AsyncExitStack) -> Path:
    """Start the engines, the link and the gateway; the folder where their logs and the journal are."""
    with guide.doing("fetching the model") as tell:
        model = await asyncio.to_thread(weights.fetch, tell)
    folder = weights.cache_dir() / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cpus = sorted(os.sched_getaffinity(0))
    # Disjoint cores where there are two: an engine's threads wait by spinning, and take what they can get.
    first, last = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    with guide.doing("starting two llama.cpp engines, an emulated WAN and the gateway"):
        local = Engine(Spec(model=model, context_tokens=2048, cpu=first, alias=MODEL), folder / "local.log")
        remote = Engine(Spec(model=model, context_tokens=8192, cpu=last, alias=MODEL), folder / "remote.log")
        await asyncio.gather(stack.enter_async_context(local), stack.enter_async_context(remote))
        wan = await stack.enter_async_context(Wan((HOST, 0), (HOST, remote.port), LINK))
        control = control_server(wan, Clock())
        try:
            await control.start(HOST, LINK_PORT)
        except OSError as error:
            raise DemoError(f"port {LINK_PORT} of the link's control is taken; end what listens there") from error
        stack.push_async_callback(control.close, 0.0)
        config = folder / "demo.toml"
        config.write_text(
            _CONFIG.format(
                host=HOST,
                gateway=GATEWAY_PORT,
                admin=ADMIN_PORT,
                local=local.url,
                remote=wan.url,
                model=MODEL,
                batch=BATCH_TOKENS,
                price_in=PRICE.usd_per_input_token * 1e6,
                price_out=PRICE.usd_per_output_token * 1e6,
            )
        )
        await stack.enter_async_context(_gateway(config))
    return folder


@asynccontextmanager
async def _gateway(config: Path) -> AsyncIterator[None]:
    """The gateway in a process of its own, as a user runs it; returns when it says that it listens."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate.cli.main", "serve", "--json", "--config", str(config),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            if not await child.stdout.readline():
                said = (await child.stderr.read()).decode(errors="replace").strip()
                raise DemoError(f"the gateway did not start: {said[-500:]}")
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _tour(guide: Guide, folder: Path, *, verify: bool) -> tuple[list[Trip], list[Trip]]:
    """Send the requests, scene by scene; what became of each, and of the other choices where asked for."""
    pool = Pool(Origin(HOST, GATEWAY_PORT), clock=Clock())
    found: list[Trip] = []
    verified: list[Trip] = []
    try:
        for scene in scenes():
            done = await _play(guide, pool, folder, scene)
            if not scene.warm_up:
                found += done
        if verify:
            verified = await _verify(guide, pool, folder, found)
    finally:
        await pool.close()
    return found, verified


async def _play(guide: Guide, pool: Pool, folder: Path, scene: Scene) -> list[Trip]:
    if not scene.warm_up:
        guide.scene(scene.text)
    found: list[Trip] = []
    for asks in [scene.asks] if scene.together else [(ask,) for ask in scene.asks]:
        with guide.doing(asks[0].title if len(asks) == 1 else scene.text):
            tasks = []
            for index, ask in enumerate(asks):
                tasks.append(asyncio.create_task(_ask(pool, ask)))
                if scene.after_first and index == 0:
                    await _under_way()
            ids = await asyncio.gather(*tasks)
        known = trips(read(folder / "journal"))
        for request_id, ask in zip(ids, asks, strict=True):
            trip = (
                msgspec.structs.replace(known[request_id], title=ask.title) if request_id in known else lost(ask.title)
            )
            guide.trip(trip, warm_up=scene.warm_up)
            found.append(trip)
    return found


async def _under_way() -> None:
    """Return when the admin address says that a request is in flight at the local engine."""
    pool = Pool(Origin(HOST, ADMIN_PORT), clock=Clock())
    try:
        while True:
            _, _, body = await fetch(pool, b"GET", b"/api/state", (), b"", 5.0, ANSWER_BYTES_MAX)
            if msgspec.json.decode(body)["endpoints"]["local"]["in_flight"]:
                return
            await asyncio.sleep(0.02)
    finally:
        await pool.close()


async def _ask(pool: Pool, ask: Ask) -> str:
    """Send one request and read its answer to the end; its decision id, or nothing where it failed."""
    headers = ((b"content-type", b"application/json"), *ask.headers)
    try:
        status, answered, body = await fetch(
            pool, b"POST", b"/v1/chat/completions", headers, ask.body(), REQUEST_S_MAX, ANSWER_BYTES_MAX
        )
    except TransportError:
        return ""
    complete = body.endswith(DONE_FRAME) if ask.stream else body.startswith(b"{")
    return answered.get(b"x-tidegate-decision", b"").decode() if status == 200 and complete else ""


async def _verify(guide: Guide, pool: Pool, folder: Path, found: list[Trip]) -> list[Trip]:
    """Really run the choice that was not taken, one by one, where a rule allows it."""
    verified = []
    asks = [a for s in scenes() if not s.warm_up for a in s.asks]
    for trip, ask in zip(found, asks, strict=True):
        other = b"local" if trip.endpoint == "remote" else b"cloud"
        if any(c.excluded for c in trip.others):
            continue
        kept = tuple(h for h in ask.headers if h[0] != b"x-tidegate-residency")
        again = msgspec.structs.replace(ask, headers=(*kept, (b"x-tidegate-residency", other)))
        scene = Scene(text=f"Verifying: {ask.title}, this time {other.decode()}", asks=(again,))
        verified += await _play(guide, pool, folder, scene)
    return verified
