"""`tidegate demo`: two real engines, couriers beside them, an emulated WAN, a gateway, and a tour of real requests."""

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape

from tidegate.clock import Clock, tick_s
from tidegate.core.model import Price
from tidegate.core.replay import Explained
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.command import CommandError, running
from tidegate.lab.couriers import Couriers, CouriersError
from tidegate.lab.guide import Guide
from tidegate.lab.link import Link
from tidegate.lab.llama import BATCH_TOKENS, Engine, EngineDiedError, Spec
from tidegate.lab.tour import MODEL, Ask, Scene, handing_over, scenes
from tidegate.lab.trip import Trip, lost, trips
from tidegate.lab.wan import Wan, control_server
from tidegate.telemetry.journal import read
from tidegate.wire.sse import DONE_FRAME

HOST = "127.0.0.1"
GATEWAY_PORT, ADMIN_PORT, LINK_PORT = 8400, 8401, 8404
# What a small model costs at an API, times ten, so that a tour's spending can be read.
PRICE = Price(usd_per_input_token=1.0e-6, usd_per_output_token=4.0e-6)
# A home line to a region on the same continent.
LINK = Link(rtt_s=0.06, jitter_s=0.005, rate_bytes_per_s=20e6 / 8)
# The way back, on which KV caches come: such lines bring ten times as much as they take.
DOWN = Link(rtt_s=LINK.rtt_s, jitter_s=LINK.jitter_s, rate_bytes_per_s=200e6 / 8)
KV_KIB_PER_TOKEN = 22.5  # of SmolLM2 135M: 30 layers, 3 heads of 64 for keys and values each, in 16 bits
HOME, CLOUD = "home", "cloud"
CONFIG = "demo.toml"
REQUEST_S_MAX = 300.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
_T = TypeVar("_T")

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
_COURIERS = """
[gateway.couriers]
secret = {{ file = "couriers/tickets.key" }}
tls = {{ cert = "couriers/gateway.pem", key = "couriers/gateway.key", ca = "couriers/ca.pem" }}

[endpoint.local.courier]
name = "{home}"
address = "{home_at}"

[endpoint.remote.courier]
name = "{cloud}"
address = "{cloud_at}"
"""
_HANDOVER = """
[[endpoint.remote.handover]]
to = "local"
kv_kib_per_token = {kv}
mbit_per_s = {mbit}
"""


def demo(*, once: bool, verify: bool, as_json: bool) -> int:
    """Run it. 0 when every request of the tour was served and every reason printed, 130 when it was ended before."""
    console = Console(highlight=False, stderr=as_json)
    try:
        return asyncio.run(_demo(Guide(console), once=once, verify=verify, as_json=as_json))
    except (weights.WeightsError, EngineDiedError, CommandError, DemoError) as error:
        console.print(f"[bold red]tidegate demo:[/] {escape(str(error))}", soft_wrap=True)
        return 1


class DemoError(Exception):
    """The demo cannot run; the message says why and what helps."""


async def _demo(guide: Guide, *, once: bool, verify: bool, as_json: bool) -> int:
    started_s = tick_s()
    stop = asyncio.Event()
    for name in _endings():
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        parts = await _unless(stop, _parts(guide, stack))
        if parts is None:
            return 130
        folder, without_couriers = parts
        guide.ready(tick_s() - started_s, without_couriers)
        played = [*scenes()] if without_couriers else [*scenes(), handing_over()]
        toured = await _unless(stop, _tour(guide, folder, played, verify=verify))
        if toured is None:
            return 130
        found, verified = toured
        served = guide.closing(found, PRICE)
        if as_json:
            print(msgspec.json.encode({"trips": found, "verified": verified}).decode(), flush=True)
        if not once:
            guide.invite(HOST, GATEWAY_PORT, ADMIN_PORT, LINK_PORT, MODEL, folder)
            await stop.wait()
        return 0 if served else 1


def _endings() -> set[signal.Signals]:
    """What ends it: a terminal that is closed, too, unless `nohup` says that it shall not."""
    endings = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    return endings - {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else endings


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """What comes of it; None where `stop` is set before: then it has been cancelled, and is over."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        stopped.cancel()
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)  # where the terminal is closed, with an OSError
    return None


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Until this is left, the folder is this demo's alone; it begins empty. Raises `DemoError` if it is another's."""
    with weights.operating_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock").open("w")
    with lock:
        if not weights.locked(lock):
            raise DemoError(f"another `tidegate demo` has its files in {folder}; end that one first")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield


def _look_for_ports() -> None:
    """Raise `DemoError` where a port that the demo has to have is taken."""
    for port, whose in (
        (GATEWAY_PORT, "gateway"),
        (ADMIN_PORT, "gateway's admin address"),
        (LINK_PORT, "link's control"),
    ):
        try:
            socket.create_server((HOST, port)).close()
        except OSError as error:
            raise DemoError(
                f"port {port} of the {whose} is taken; end what listens there, which `ss -ltnp` names"
            ) from error


async def _parts(guide: Guide, stack: AsyncExitStack) -> tuple[Path, str]:
    """Start the engines, the link, the couriers and the gateway; the folder where their logs and the journal are, and
    why there are no couriers, empty where there are."""
    ended = threading.Event()
    stack.callback(ended.set)
    folder = weights.cache_dir() / "demo"
    stack.enter_context(_emptied(folder))
    _look_for_ports()  # after the lock: they may be those of another demo
    with guide.doing("fetching the model") as tell:
        model = await asyncio.to_thread(weights.fetch, tell, ended=ended)
    couriers, without_couriers = Couriers(folder / "couriers", (HOME, CLOUD)), ""
    try:
        stack.enter_context(couriers)
    except CouriersError as error:
        without_couriers = str(error)
    saves = {name: None if without_couriers else couriers.saves(name) for name in (HOME, CLOUD)}
    cpus = sorted(os.sched_getaffinity(0))
    # Disjoint cores where there are two: an engine's threads wait by spinning, and take what they can get.
    first, last = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    with guide.doing("starting two llama.cpp engines, an emulated WAN and the gateway"):
        spec = Spec(model=model, context_tokens=2048, cpu=first, alias=MODEL, saves=saves[HOME])
        local = Engine(spec, folder / "local.log")
        spec = Spec(model=model, context_tokens=8192, cpu=last, alias=MODEL, saves=saves[CLOUD])
        remote = Engine(spec, folder / "remote.log")
        await asyncio.gather(stack.enter_async_context(local), stack.enter_async_context(remote))
        wan = await stack.enter_async_context(Wan((HOST, 0), (HOST, remote.port), LINK))
        control = control_server(wan, Clock())
        try:
            await control.start(HOST, LINK_PORT)
        except OSError as error:
            raise DemoError(f"port {LINK_PORT} of the link's control is taken; end what listens there") from error
        stack.push_async_callback(control.close, 0.0)
        text = _CONFIG.format(
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
        if not without_couriers:
            try:
                text += await _couriers(couriers, local, remote, stack)
            except CommandError as error:
                without_couriers = str(error)
        config = folder / CONFIG
        config.write_text(text)
        await stack.enter_async_context(running("serve", "--json", "--config", str(config), said=folder / "said"))
    return folder, without_couriers


async def _couriers(couriers: Couriers, local: Engine, remote: Engine, stack: AsyncExitStack) -> str:
    """Start both, each at its end of the WAN; what the gateway's file says of them."""
    home_port, cloud_port = await asyncio.gather(
        stack.enter_async_context(couriers.beside(HOME, local.url)),
        stack.enter_async_context(couriers.beside(CLOUD, remote.url)),
    )
    # The cloud's is asked over the same line as its engine, and what it sends comes by the way back.
    asked = await stack.enter_async_context(Wan((HOST, 0), (HOST, cloud_port), LINK))
    sent = await stack.enter_async_context(Wan((HOST, 0), (HOST, home_port), DOWN))
    return _COURIERS.format(
        home=HOME,
        home_at="{}:{}".format(*sent.address),
        cloud=CLOUD,
        cloud_at="{}:{}".format(*asked.address),
    )


async def _tour(guide: Guide, folder: Path, played: Sequence[Scene], *, verify: bool) -> tuple[list[Trip], list[Trip]]:
    """Send the requests, scene by scene; what became of each, and of the other choices where asked for."""
    pool = Pool(Origin(HOST, GATEWAY_PORT), clock=Clock())
    found: list[Trip] = []
    verified: list[Trip] = []
    try:
        for scene in played:
            if scene.hands_over:
                await _allow_handing_over(folder)
            done = await _play(guide, pool, folder, scene)
            if not scene.warm_up:
                found += done
        if verify:
            verified = await _verify(guide, pool, folder, played, found)
    finally:
        await pool.close()
    return found, verified


async def _allow_handing_over(folder: Path) -> None:
    """From now on a prompt may be computed at the remote engine for the local one: an edited file, put in force."""
    assert DOWN.rate_bytes_per_s is not None
    config = folder / CONFIG
    text = config.read_text() + _HANDOVER.format(kv=KV_KIB_PER_TOKEN, mbit=DOWN.rate_bytes_per_s * 8 / 1e6)
    config.write_text(text)
    pool = Pool(Origin(HOST, ADMIN_PORT), clock=Clock())
    try:
        status, _, body = await fetch(pool, b"POST", b"/api/config", (), b"", REQUEST_S_MAX, ANSWER_BYTES_MAX)
    finally:
        await pool.close()
    if status != 200:
        raise DemoError(f"the gateway does not take the edited file: {body.decode(errors='replace')[:500]}")


async def _play(guide: Guide, pool: Pool, folder: Path, scene: Scene) -> list[Trip]:
    if not scene.warm_up:
        guide.scene(scene.text)
    found: list[Trip] = []
    for asks in [scene.asks] if scene.together else [(ask,) for ask in scene.asks]:
        with guide.doing(asks[0].title if len(asks) == 1 else scene.text):
            tasks = []
            for index, ask in enumerate(asks):
                promised = ask if ask.share_of_home is None else await _promised(pool, ask, ask.share_of_home)
                tasks.append(asyncio.create_task(_ask(pool, promised)))
                if scene.after_first and index == 0:
                    await _under_way(tasks[0])
            ids = await asyncio.gather(*tasks)
        known = trips(read(folder / "journal"))
        for request_id, ask in zip(ids, asks, strict=True):
            trip = (
                msgspec.structs.replace(known[request_id], title=ask.title) if request_id in known else lost(ask.title)
            )
            guide.trip(trip, warm_up=scene.warm_up)
            if ask.share_of_home is not None and trip.endpoint is not None and not trip.handed_over:
                guide.not_handed_over(trip, folder)
            found.append(trip)
    return found


async def _under_way(asking: "asyncio.Task[str]") -> None:
    """Return when the admin address says that a request is in flight at the local engine, or this one is over."""
    pool = Pool(Origin(HOST, ADMIN_PORT), clock=Clock())
    try:
        while not asking.done():
            _, _, body = await fetch(pool, b"GET", b"/api/state", (), b"", 5.0, ANSWER_BYTES_MAX)
            if msgspec.json.decode(body)["endpoints"]["local"]["in_flight"]:
                return
            await asyncio.sleep(0.02)
    finally:
        await pool.close()


async def _promised(pool: Pool, ask: Ask, share: float) -> Ask:
    """The same with a promise of its first content: this share of what it is predicted to take at home."""
    asked = ((b"content-type", b"application/json"), *ask.headers)
    headers = (*asked, (b"x-tidegate-dry-run", b"true"))
    _, _, body = await fetch(
        pool, b"POST", b"/v1/chat/completions", headers, ask.body(), REQUEST_S_MAX, ANSWER_BYTES_MAX
    )
    found = msgspec.json.decode(body, type=Explained).candidates
    home = next((one.estimate for one in found if one.endpoint == "local"), None)
    if home is None:
        return ask
    promise = b"x-tidegate-slo-ttft-ms", b"%d" % (1e3 * share * home.ttft_s)
    return msgspec.structs.replace(ask, headers=(*ask.headers, promise))


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


async def _verify(guide: Guide, pool: Pool, folder: Path, played: Sequence[Scene], found: list[Trip]) -> list[Trip]:
    """Really run the choices that were not taken, one by one, where a rule allows it."""
    verified = []
    asks = [a for s in played if not s.warm_up for a in s.asks]
    for trip, ask in zip(found, asks, strict=True):
        if any(c.excluded for c in trip.others):
            continue
        kept = tuple(h for h in ask.headers if h[0] != b"x-tidegate-residency")
        for other in (b"cloud" if one.endpoint == "remote" else b"local" for one in trip.others):
            headers = (*kept, (b"x-tidegate-residency", other))
            # Both sides have the prompt of a handover: with another beginning, it is computed again.
            prompt = f"{other.decode()}: {ask.prompt}" if trip.prefilled else ask.prompt
            again = msgspec.structs.replace(ask, headers=headers, prompt=prompt, share_of_home=None)
            scene = Scene(text=f"Verifying: {ask.title}, this time {other.decode()}", asks=(again,))
            verified += await _play(guide, pool, folder, scene)
    return verified
