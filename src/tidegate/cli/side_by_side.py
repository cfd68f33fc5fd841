"""Two plays of one twin at the same time, in processes of their own."""

import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import msgspec

from tidegate.cli.output import Bar, lines_into
from tidegate.config.problem import ConfigError
from tidegate.core.model import Endpoint, Policy
from tidegate.core.state import State
from tidegate.sim.changed import Changed
from tidegate.sim.decider import Decider
from tidegate.sim.observed import ObservedError
from tidegate.sim.outcome import Outcome
from tidegate.sim.purse import Purse
from tidegate.sim.twin import Twin, played


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that is played, what it makes of each request, who decides in the router's place, what it may spend, the
    segment that its journal goes into, and the bar that moves."""

    policy: Policy
    bar: Bar
    changed: Changed | None = None
    decider: Callable[[tuple[Endpoint, ...], Policy, State], Decider] | None = None
    purse: Purse | None = None
    segment: Path | None = None


def side_by_side(world: Twin, plays: Sequence[Play]) -> list[list[Outcome]]:
    """What it comes to under each, in their order. Raises `ObservedError` where one of them came to nothing, and
    ConfigError where its journal cannot be written."""
    context = get_context("spawn")
    bars: dict[Connection, Bar] = {}
    done: dict[Connection, list[Outcome]] = {}
    processes = []
    for one in plays:
        here, there = context.Pipe(duplex=False)
        told = (world, one.policy, one.changed, one.decider, one.purse, one.segment)
        process = context.Process(target=_play, args=(there, *told), daemon=True)
        process.start()
        there.close()
        bars[here] = one.bar
        processes.append(process)
    order = list(bars)
    try:
        while len(done) < len(order):
            for pipe in wait([one for one in order if one not in done]):
                assert isinstance(pipe, Connection)
                try:
                    found = pipe.recv()
                except EOFError:
                    raise ObservedError("a simulation ended before its end; is there memory enough?") from None
                if isinstance(found, ConfigError):
                    raise found
                if isinstance(found, float):
                    bars[pipe](found)
                else:
                    done[pipe] = found
    finally:
        for process in processes:
            process.kill()
    return [done[pipe] for pipe in order]


def _play(
    pipe: Connection,
    world: Twin,
    policy: Policy,
    changed: Changed | None,
    decider: Callable[[tuple[Endpoint, ...], Policy, State], Decider] | None,
    purse: Purse | None,
    segment: Path | None,
) -> None:
    found: list[Outcome] | ConfigError
    # Who is interrupted ends those that play, and they say nothing of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with lines_into(segment) as write:
            found = played(
                world, policy, changed=changed, decider=decider, purse=purse, journal=write, progress=pipe.send
            )
    except ConfigError as error:
        found = error
    pipe.send(found)
