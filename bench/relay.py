"""What relays cost, the gateway with everything on and others beside it: `make bench-relay`.

    PYTHONPATH=build/compiled python -m bench.relay [--peers "nginx haproxy"] [--loads "W1 W4"] [--rounds 3] [--tls]

A relay has the first core; the engines, in one process, and the load generator (`bench/rig`) have the last. In each
round every relay has its turn under every load, after the same loads without one, to which its times are compared.
CPU is what the kernel counted for all threads of all its processes while a load ran, by request or chunk that came.
"""

import argparse
import resource
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from bench.loads import LOADS, Load, behind_tls, small
from bench.peers import PEERS
from bench.record import RESULTS, chosen, record
from bench.relay_figures import IDLE, Figures, Rows, summed, table
from bench.relay_plot import plot
from bench.relay_sitting import Sitting, pinned
from bench.relays import Absent, Relay, ours
from bench.rig import Rig
from bench.terminator import terminated

TLS = ("W1", "W4")  # those that are sent behind TLS, too: what it takes of a request, and of a chunk
PLOT = Path("docs/images/relay.svg")
PLOTTED = {"W1": "CPU of a request of 1 KB, in microseconds", "W4": "CPU of a chunk of 500 streams, in microseconds"}
TABLE_COLUMNS = 160


def main() -> None:
    """Run every load against all, in turn; write down what came of it, and print it."""
    options, choice = _options()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # what was measured for an hour is not to be lost for that
    raise_file_limit()
    loads = _loads(options)
    relays, versions, absent = present([*ours(), *_chosen(options.peers)])
    found: dict[str, dict[str, list[Figures]]] = {name: {} for name in [IDLE, *loads]}
    with ExitStack() as stack:
        sitting = _sitting(options, loads, stack)
        for number in range(options.rounds):
            for name, relay, one in sitting.round(relays, absent):
                found[name].setdefault(relay, []).append(one)
                said = ", ".join(f"{figure} {value:.1f}" for figure, value in one.items())
                print(f"round {number + 1} {name:7} {relay}: {said}", flush=True)
    rows = {name: {relay: summed(rounds) for relay, rounds in by.items()} for name, by in found.items()}
    _write(rows, loads, options, choice, {"versions": versions, "absent": absent})
    units = {name: load.unit for name, load in loads.items()}
    Console(width=TABLE_COLUMNS).print(table(rows, units))
    for relay, reason in absent.items():
        print(f"{relay}: {reason}")


def raise_file_limit() -> None:
    """As many open files as the system lets us have, for relays, too: thousands of streams take two sockets each."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _options() -> tuple[argparse.Namespace, str]:
    """Those, and what was chosen for the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = " ".join(relay.name for relay in PEERS)
    parser.add_argument("--peers", default="", help=f"other relays, of {names}, or `none`; left out, all of them")
    parser.add_argument("--loads", default="", help=f"of {' '.join(LOADS)}; left out, all of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--endpoints", type=int, default=4, help="engines to choose from")
    parser.add_argument("--tls", action="store_true", help=f"{' and '.join(TLS)} with TLS to the engines, too")
    parser.add_argument("--quick", action="store_true", help="whether all works: the figures mean nothing")
    parser.add_argument("--out", type=Path, help="folder of the result and its plot, in place of where they belong")
    options = parser.parse_args()
    return options, chosen(parser, options)


def _loads(options: argparse.Namespace) -> dict[str, Load]:
    chosen = named(options.loads, list(LOADS), "load")
    loads = {name: LOADS[name] for name in chosen}
    if options.tls:
        loads |= {f"{name} TLS": behind_tls(LOADS[name]) for name in chosen if name in TLS}
    return {name: small(load) for name, load in loads.items()} if options.quick else loads


def _chosen(peers: str) -> list[Relay]:
    chosen = [] if peers == "none" else named(peers, [relay.name for relay in PEERS], "peer")
    return [relay for relay in PEERS if relay.name in chosen]


def named(said: str, known: Sequence[str], kind: str) -> list[str]:
    """Those of the known that are named, in their order."""
    names = said.split() or known
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"no {kind} {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def present(relays: Sequence[Relay]) -> tuple[list[Relay], dict[str, str], dict[str, str]]:
    """Those that are here, with their versions, and why the others are not."""
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    for relay in relays:
        try:
            versions[relay.name] = relay.ready()
        except Absent as reason:
            absent[relay.name] = str(reason)
    return [relay for relay in relays if relay.name in versions], versions, absent


def _sitting(options: argparse.Namespace, loads: Mapping[str, Load], stack: ExitStack) -> Sitting:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    rig = Rig(folder, pinned(-1))
    engines = stack.enter_context(rig.engine(options.endpoints))
    behind = stack.enter_context(terminated(engines, folder, pinned(-1))) if options.tls else None
    sitting = Sitting(rig, engines, behind, loads, folder)
    sitting.prepare()
    return sitting


def _write(
    rows: Rows, loads: Mapping[str, Load], options: argparse.Namespace, choice: str, more: dict[str, object]
) -> None:
    """The result and its plot: where they belong, unless somewhere else is named; what was quick belongs nowhere."""
    if options.quick and options.out is None:
        return
    about = {name: f"{load.about}; CPU per {load.unit}" for name, load in loads.items()}
    found = {
        "rounds": options.rounds,
        "endpoints": options.endpoints,
        "loads": about,
        **more,
        "rows": msgspec.to_builtins(rows),
    }
    record("relay", found, options.out or RESULTS, choice)
    (options.out / PLOT.name if options.out else PLOT).write_text(plot(rows, PLOTTED))


if __name__ == "__main__":
    main()
