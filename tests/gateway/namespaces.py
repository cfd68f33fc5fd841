"""Two network namespaces and a pair of interfaces between them: what `test_moving_link` runs in a process of its own.

    unshare -rn python -m tests.gateway.namespaces moving|losing FOLDER

The rate is the kernel's own (a token bucket filter), so that its TCP acknowledges what has really been carried; a relay
in user space stands between where the round trip is changed, since not every kernel can delay.
"""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from itertools import pairwise
from pathlib import Path

from tests.gateway.harness import House, Place, chat, house, local, remote
from tidegate.core.breaker import OPEN_S_MAX
from tidegate.engines.fake import FakeEngine, Script
from tidegate.lab.wan import LOCAL, Link, Wan

NEAR, FAR, PORT = "10.77.0.1", "10.77.0.2", 8000
# A bucket holds what a tick of the kernel lets pass, and no more: what fits it is as quick as anything.
QUICK, SLOW = "rate 100mbit burst 64kb latency 2000ms", "rate 2mbit burst 3kb latency 2000ms"
PROMPT = "word " * 20_000  # 100 KB: 8 ms, or 0.4 s
TTFT_MS = "300"
EVERY_S, WITHIN_S, AFTER_S, PROBE_S = 0.2, 10.0, 4.0, 5.0
LAPTOP_S, RACK_S = 0.15, 0.03
SOON_S, FLAPS, FLAP_S = 6.0, 5, 2.0
FREE = {"usd_per_1m_input_tokens": 0, "usd_per_1m_output_tokens": 0}
KNOWN = {"upload_mbit_per_s": 100, "sigma": 0.1, "prefill_tokens_per_s": 1e7}


def run(*command: str) -> None:
    """It works, or says why not."""
    done = subprocess.run(" ".join(command).split(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)


async def answered(home: House, seconds: float) -> list[str]:
    """Who answered, in the order of asking."""
    tasks = []
    for _ in range(round(seconds / EVERY_S)):
        tasks.append(asyncio.create_task(home.ask(chat(PROMPT, max_tokens=2), x_tidegate_slo_ttft_ms=TTFT_MS)))
        await asyncio.sleep(EVERY_S)
    answers = await asyncio.gather(*tasks)
    assert {answer.status for answer in answers} <= {200}
    return [answer.endpoint for answer in answers]


async def settles(home: House, better: str, change: str, within_s: float = WITHIN_S) -> None:
    """So long after a change, requests go to the better side."""
    before, after = await answered(home, within_s), await answered(home, AFTER_S)
    assert after.count(better) >= 0.95 * len(after), (change, before, after)
    print(change, before.count(better), after.count(better), flush=True)


def rack(url: str, rtt_ms: float) -> Place:
    """An engine at the other end, which costs nothing to run."""
    prior = KNOWN | {"rtt_ms": rtt_ms, "overhead_ms": RACK_S * 1000}
    return remote(
        url=url,
        engine="openai",
        model="fake",
        price=FREE,
        context_tokens=100_000,
        probe_s=PROBE_S,
        owned=True,
        prior=prior,
    )


def laptop() -> Place:
    """An engine here, which costs more, and is slower."""
    prior = KNOWN | {"rtt_ms": 0.1, "overhead_ms": LAPTOP_S * 1000}
    return local(
        Script(first_s=LAPTOP_S, tokens=2),
        context_tokens=100_000,
        concurrency=16,
        price={"usd_per_1m_input_tokens": 0.5, "usd_per_1m_output_tokens": 0.5},
        prior=prior,
    )


async def moving(folder: Path) -> None:
    """The rate, and then the round trip, becomes bad and good again under requests."""
    (folder / "rate").mkdir()
    (folder / "rtt").mkdir()
    async with house(folder / "rate", laptop=laptop(), rack=rack(f"http://{FAR}:{PORT}", 0.1)) as home:
        for rate, better in ((QUICK, "rack"), (SLOW, "laptop"), (QUICK, "rack")):
            run(f"tc qdisc change dev near root tbf {rate}")
            await settles(home, better, rate)
    async with AsyncExitStack() as stack:
        wan = await stack.enter_async_context(Wan((LOCAL, 0), (FAR, PORT), Link(rtt_s=0.02)))
        home = await stack.enter_async_context(house(folder / "rtt", laptop=laptop(), rack=rack(wan.url, 20.0)))
        for rtt_s, better in ((0.02, "rack"), (0.4, "laptop"), (0.02, "rack")):
            await wan.change(rtt_s=rtt_s)
            await settles(home, better, f"{rtt_s} s")


async def losing(folder: Path, there: str) -> None:
    """The way is lost and found: here, so that the other end is unreachable at once; there, in silence; and by turns.

    No request fails, all go to who can be reached within seconds, and back when both can.
    """
    ways = {
        "here": ("ip link set near down", "ip link set near up"),
        "there": (f"{there} ip link set far down", f"{there} ip link set far up"),
    }
    async with house(folder, laptop=laptop(), rack=rack(f"http://{FAR}:{PORT}", 0.1)) as home:
        await settles(home, "rack", "up")
        for where, (down, up) in ways.items():
            run(down)
            await settles(home, "laptop", f"down {where}", SOON_S)
            run(up)
            await settles(home, "rack", f"up {where}", SOON_S)
        asking = asyncio.create_task(answered(home, 2.0 * FLAPS * FLAP_S))
        for _ in range(FLAPS):
            run(ways["there"][0])
            await asyncio.sleep(FLAP_S)
            run(ways["there"][1])
            await asyncio.sleep(FLAP_S)
        switches = sum(a != b for a, b in pairwise(await asking))
        print("switches", switches, flush=True)
        assert switches <= 2 * FLAPS
        # Who has failed again and again is left alone for longer each time.
        async with asyncio.timeout(OPEN_S_MAX):
            while (await answered(home, EVERY_S)) != ["rack"]:
                pass
        await settles(home, "rack", "up after flaps", 0.0)


async def engine() -> None:
    """The other end."""
    made = FakeEngine(Script(first_s=RACK_S, tokens=2), context_tokens=100_000)
    await made._server.start(FAR, PORT)
    print("listens", flush=True)
    await asyncio.sleep(600.0)


def main(what: str, folder: Path) -> None:
    """This process is in a namespace of its own, and makes the other one."""
    run("ip link set lo up")
    with ExitStack() as stack:
        holder = began(stack, ["unshare", "-n", "sh", "-c", "echo made; exec sleep 600"], b"made\n")
        there = f"nsenter -t {holder} -n"
        run(f"ip link add dev near type veth peer name far netns {holder}")
        run(f"ip addr add {NEAR}/24 dev near")
        run("ip link set near up")
        run(there, "ip link set lo up")
        run(there, f"ip addr add {FAR}/24 dev far")
        run(there, "ip link set far up")
        run(f"tc qdisc add dev near root tbf {QUICK}")
        began(stack, [*there.split(), sys.executable, "-m", "tests.gateway.namespaces"], b"listens\n")
        asyncio.run(moving(folder) if what == "moving" else losing(folder, there))


def began(stack: ExitStack, command: list[str], says: bytes) -> int:
    """A process that has said this; it ends with the stack."""
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == says
    return process.pid


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        asyncio.run(engine())
