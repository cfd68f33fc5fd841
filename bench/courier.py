"""How quick couriers are, beside iperf3 on the same link, and what a real engine makes of a thousand spoilt blobs:
`make bench-courier`.

Of each link, blobs are sent between two `tidegate courier` beside stand-ins for engines, each in a process and (but for
the loopback) in a network namespace of its own, by turns with one stream of iperf3. `gbit` are medians: what the
receiving courier had verified, by the time from the first byte asked for to its answer. Both sides share the cores of
this machine; on two machines each would have its own.

The hand-over and the siege are with two real llama.cpp: see tests/live.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import uvloop
from tests.courier.harness import SECRET, House
from tests.live.couriers import PROMPT, Real, besieged, real

from bench.record import record
from tidegate.clock import tick_s
from tidegate.engines.courier import CourierClient
from tidegate.http.client import Origin, Pool
from tidegate.wire.courier import Restore, Ship
from tidegate.wire.ticket import sign

NEAR, FAR, LOCAL = "10.77.0.1", "10.77.0.2", "127.0.0.1"
RATES_GBIT = 1, 4, 8
# A bucket that holds what a tick of the kernel lets pass, by Gbit/s.
BURST_KB = 256
TOKENS, BYTES_PER_TOKEN = 2_000, 134_218  # 256 MiB
ENGINE_PORTS, COURIER_PORTS, IPERF_PORT = (7801, 7802), (8491, 8492), 5201
ROUNDS, IPERF_S = 5, 2
BLOBS = 1_000
SHARE_MIN = 0.7


class Link(msgspec.Struct, kw_only=True):
    """One link: medians, and the couriers' share of what iperf3 makes of it."""

    link: str
    iperf3_gbit: float
    courier_gbit: float
    share: float
    courier_gbit_each: list[float]


def run(*command: str) -> None:
    """It works, or ends this."""
    subprocess.run(" ".join(command).split(), check=True)


@contextmanager
def began(command: list[str], says: str) -> Iterator[int]:
    """A process that has said a line that begins so."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(says), line
            yield process.pid
        finally:
            process.kill()


@contextmanager
def couriers(home: House, there: list[str], host: str) -> Iterator[None]:
    """One here, with a prompt in its engine's first slot, and one there."""
    with ExitStack() as stack:
        for name, prefix, address, engine, port in zip(
            "ab", ([], there), (LOCAL, host), ENGINE_PORTS, COURIER_PORTS, strict=True
        ):
            words = [*prefix, sys.executable, "-m"]
            stand_in = [str(engine), str(home.saves_of(name)), str(home.model), str(TOKENS), str(BYTES_PER_TOKEN)]
            stack.enter_context(began([*words, "tests.courier.standin", *stand_in], "listens"))
            url, listen = f"http://{LOCAL}:{engine}", f"{address}:{port}"
            file = home.configured(name, url, listen=listen, space_mib=1024)
            verb = ["tidegate.cli.main", "courier", "--json", "--config", str(file)]
            stack.enter_context(began([*words, *verb], "{"))
        yield


async def shipped(home: House, host: str) -> float:
    """One blob from here to there; Gbit/s."""
    a, b = COURIER_PORTS
    here = Pool(Origin(LOCAL, a, home.tls("gateway").client(), "a"), clock=home.clock)
    there = Pool(Origin(host, b, home.tls("gateway").client(), "b"), clock=home.clock)
    fingerprint = (await CourierClient(there).health(10.0)).fingerprint or ""
    ticket = home.ticket(fingerprint, bytes_max=1 << 29)
    order = Ship(slot=0, tokens=TOKENS, to=f"{host}:{b}", ticket=sign(ticket, SECRET))
    told = await CourierClient(here).ship(order, 60.0)
    await CourierClient(there).discard(told.name, 10.0)
    await here.close()
    await there.close()
    return told.size_bytes * 8 / told.transfer_s / 1e9


def iperf3(there: list[str], host: str) -> float:
    """One stream of TCP from here to there; Gbit/s."""
    serving = [*there, "iperf3", "--server", "--one-off", "--bind", host, "--port", str(IPERF_PORT), "--forceflush"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            continue
        asking = ["iperf3", "--client", host, "--port", str(IPERF_PORT), "--time", str(IPERF_S), "--json"]
        said = subprocess.run(asking, check=True, capture_output=True, text=True).stdout
        server.communicate()
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def measured(link: str, home: House, there: list[str], host: str) -> Link:
    """By turns, since the machine does other things besides."""
    ours, theirs = [], []
    with couriers(home, there, host):
        for _ in range(ROUNDS):
            ours.append(uvloop.run(shipped(home, host)))
            theirs.append(iperf3(there, host))
    return Link(
        link=link,
        iperf3_gbit=round(median(theirs), 3),
        courier_gbit=round(median(ours), 3),
        share=round(median(ours) / median(theirs), 3),
        courier_gbit_each=[round(one, 3) for one in ours],
    )


def links() -> None:
    """This process is in a namespace of its own, and makes the other one; its last line is what was measured."""
    run("ip link set lo up")
    with ExitStack() as stack:
        holder = stack.enter_context(began(["unshare", "-n", "sh", "-c", "echo made; exec sleep 900"], "made"))
        there = f"nsenter -t {holder} -n"
        run(f"ip link add dev near type veth peer name far netns {holder}")
        run(f"ip addr add {NEAR}/24 dev near")
        run("ip link set near up")
        run(there, "ip link set lo up")
        run(there, f"ip addr add {FAR}/24 dev far")
        run(there, "ip link set far up")
        files = Path(stack.enter_context(TemporaryDirectory()))
        home = House(files, Path(stack.enter_context(TemporaryDirectory(dir="/dev/shm"))))
        rows = [measured("veth", home, there.split(), FAR)]
        for gbit in RATES_GBIT:
            run(f"tc qdisc replace dev near root tbf rate {gbit}gbit burst {gbit * BURST_KB}kb latency 50ms")
            rows.append(measured(f"veth at {gbit} Gbit/s", home, there.split(), FAR))
        rows.append(measured("loopback", home, [], LOCAL))
    print(msgspec.json.encode(rows).decode())


async def handed_over(home: Real) -> dict[str, Any]:
    """A prompt that one engine has prefilled is gone on with by the other."""
    began_s = tick_s()
    tokens = await home.prefilled()
    prefilled_s = tick_s() - began_s
    ticket = home.ticket((await home.client("b").health(10.0)).fingerprint or "")
    told = await home.client("a").ship(home.order(ticket, tokens=tokens), 60.0)
    restored = await home.client("b").restore(Restore(name=told.name, slot=1), 60.0)
    there = await home.complete("b", PROMPT, slot=1, tokens=32)
    here = await home.complete("a", PROMPT, slot=0, tokens=32)
    return {
        "tokens": tokens,
        "size_bytes": told.size_bytes,
        "prefill_s": round(prefilled_s, 3),
        "save_s": round(told.save_s, 3),
        "transfer_s": round(told.transfer_s, 3),
        "restore_s": round(restored.restore_s, 3),
        "cache_n": there["timings"]["cache_n"],
        "same_text_as_a_local_hit": there["content"] == here["content"],
    }


async def siege() -> dict[str, Any]:
    """Real engines."""
    with TemporaryDirectory() as folder:
        async with real(Path(folder)) as home:
            hand_over = await handed_over(home)
            began_s = tick_s()
            refused, served, failed = await besieged(home, BLOBS)
            siege = {"blobs": BLOBS, "refused": refused, "served_meanwhile": served, "failed_meanwhile": failed}
            return {"hand_over": hand_over, "siege": siege | {"seconds": round(tick_s() - began_s, 1)}}


def main() -> None:
    """Links, then engines."""
    found = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "bench.courier", "links"], check=True, stdout=subprocess.PIPE
    )
    rows = msgspec.json.decode(found.stdout.splitlines()[-1], type=list[Link])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # engines die with another thread
        real_ones = runner.run(siege())
    record("courier", {"rounds": ROUNDS, "share_min": SHARE_MIN, "links": msgspec.to_builtins(rows), **real_ones})


if __name__ == "__main__":
    if sys.argv[1:] == ["links"]:
        links()
    else:
        main()
