"""How many times as much CPU one relay takes as another, both at once: `make bench-beside`.

    PYTHONPATH=build/compiled python -m bench.beside [--relays "tidegate vllm-router nginx"] [--loads "W1 W4"] [--tls]

What one relay takes for a request differs by half from minute to minute where other machines share the hardware, and
so the quotient of two that have turns (`bench.relay`) does, too. Here all of them run at the same time on the first
core, each with a load of its own and with an equal part of its connections, and in each round the CPU of each is
divided by that of the first: whatever befalls the core befalls all. Who begins later finds more of what it waits for at
a time, and takes less: of the same build twice 0.98, and 0.9 of W4 over TLS. So each round begins with the next of
them, and there are to be as many rounds with one in the lead as with another. They also take each other's lines out of
the core's caches, which a relay with much code minds more than others do; for what a relay takes alone see
`bench.relay`.

Two builds of the gateway are compared alike: `NAME=FOLDER` is the gateway with the package in that folder.
"""

import argparse
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.cpu import family_cpu_ns, spent_us
from bench.loads import LOADS, Load, behind_tls
from bench.peers import PEERS
from bench.record import RESULTS, chosen, record
from bench.relay import named, present, raise_file_limit
from bench.relay_figures import Figures, Summary, summed
from bench.relay_sitting import pinned
from bench.relays import Absent, Relay, Running, gateway_of, ours, running
from bench.rig import Ask, Rig
from bench.terminator import terminated

ENDPOINTS = 4
WARM_REQUESTS = 1_000
REQUESTS_MAX = 10_000_000


def main() -> None:
    """Run them, print each round, and write down what came of it."""
    options, choice = _options()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    raise_file_limit()
    relays, versions, absent = present([relay_of(name) for name in options.relays.split()])
    if absent:
        raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in absent.items()))
    loads = [LOADS[name] for name in named(options.loads, list(LOADS), "load")]
    if options.tls:
        loads = [behind_tls(load) for load in loads]
    rows = {load.name: _rows(load, relays, options.rounds) for load in loads}
    about = {load.name: f"{load.about}; CPU per {load.unit}" for load in loads}
    told = {"rounds": options.rounds, "loads": about, "versions": versions, "rows": msgspec.to_builtins(rows)}
    record("beside", told, options.out or RESULTS, choice)


def _options() -> tuple[argparse.Namespace, str]:
    """Those, and what was chosen for the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relays", default="tidegate vllm-router nginx", help="those of bench.relay, or NAME=FOLDER")
    parser.add_argument("--loads", default="W1 W4", help=f"of {' '.join(LOADS)}")
    parser.add_argument("--tls", action="store_true", help="the engines stand behind TLS")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, help="folder of the result, in place of where it belongs")
    options = parser.parse_args()
    return options, chosen(parser, options)


def relay_of(name: str) -> Relay:
    """One of `bench.relay`, or with NAME=FOLDER a build of the gateway."""
    if "=" in name:
        name, folder = name.split("=", 1)
        return gateway_of(name, {"PYTHONPATH": folder}, Path(folder) / "tidegate")
    known = {relay.name: relay for relay in (*ours(), *PEERS)}
    if name not in known:
        raise SystemExit(f"no relay {name}; there are {', '.join(known)}")
    return known[name]


def _rows(load: Load, relays: Sequence[Relay], rounds: int) -> dict[str, dict[str, Summary]]:
    """By relay, CPU of a request or chunk, and how much that is of what the first relay takes."""
    ask = msgspec.structs.replace(load.ask, connections=load.ask.connections // len(relays))
    if ask.seconds is not None:
        # All go on until the time is up, since who is done before leaves the core to the others.
        ask = msgspec.structs.replace(ask, requests=REQUESTS_MAX)
    found: dict[str, list[Figures]] = {relay.name: [] for relay in relays}
    with tempfile.TemporaryDirectory() as folder:
        rig, body = Rig(Path(folder), pinned(-1)), Path(folder) / "body"
        body.write_bytes(load.body())
        with ExitStack() as stack:
            engines, ca = stack.enter_context(rig.engine(ENDPOINTS)), None
            if load.tls:
                behind = stack.enter_context(terminated(engines, Path(folder), pinned(-1)))
                engines, ca = behind.ports, behind.ca
            for number in range(rounds):
                first = number % len(relays)
                taken = _round(rig, body, ask, [*relays[first:], *relays[:first]], engines, ca)
                for name, us in taken.items():
                    found[name].append({"cpu_us": us, "percent": 100.0 * us / taken[relays[0].name]})
                said = ", ".join(f"{relay.name} {taken[relay.name]:.1f} us" for relay in relays)
                print(f"{load.name} round {number + 1}: {said}", flush=True)
    return {name: summed(ones) for name, ones in found.items()}


def _round(
    rig: Rig, body: Path, ask: Ask, relays: Sequence[Relay], engines: tuple[int, ...], ca: Path | None
) -> dict[str, float]:
    """CPU of each for a request, or chunk. Where the kernel puts a process is a matter of chance that lasts as long as
    the process does and is worth five per cent, so that each round begins them anew."""
    with ExitStack() as stack:
        try:
            ones = {relay.name: stack.enter_context(running(relay, engines, ca, pinned(0))) for relay in relays}
        except Absent as reason:
            raise SystemExit(str(reason)) from None
        warm = msgspec.structs.replace(ask, requests=WARM_REQUESTS)
        for one in ones.values():
            rig.load(one.port, body, warm, one.headers)
        with ThreadPoolExecutor(len(ones)) as pool:
            taken = pool.map(lambda one: _us(rig, body, ask, one), ones.values())
            return dict(zip(ones, taken, strict=True))


def _us(rig: Rig, body: Path, ask: Ask, one: Running) -> float:
    before = family_cpu_ns(one.pid)
    said = rig.load(one.port, body, ask, one.headers)
    assert not said.failed, f"{said.failed} requests failed: {said.errors}"
    return spent_us(before, family_cpu_ns(one.pid)) / (said.chunks if ask.chunks else said.ok)


if __name__ == "__main__":
    main()
