"""One sitting of the bench of relays: engines, load generator and bodies, and each relay's turn before them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import msgspec

from bench.cpu import family_cpu_ns, family_rss_mb, spent_us
from bench.gateway import HOST
from bench.loads import Load
from bench.relay_figures import DIRECT, IDLE, Figures, Used, bare, figures, lag_s_p99
from bench.relays import Absent, Relay, Running, running
from bench.rig import Ask, Rig, Said
from bench.terminator import Behind
from tidegate.clock import sleep_s

LOOK_S, LOOKS_MAX = 1.0, 30  # what starts beside a relay takes some seconds
SETTLED = 0.01  # of memory, by which two looks may differ
# What is loaded and allocated with the first request, or stream, belongs to an idle relay.
WARM = {
    "warm": Load(name="warm", about="requests", ask=Ask(connections=8, requests=200)),
    "warm streams": Load(name="warm", about="streams", ask=Ask(connections=8, requests=40, chunks=16)),
}


class Sitting(msgspec.Struct, frozen=True):
    """What stays the same in all rounds: the rig and its engines, with and without TLS, and what is sent."""

    rig: Rig
    engines: tuple[int, ...]
    behind: Behind | None
    loads: Mapping[str, Load]
    bodies: Path

    def prepare(self) -> None:
        """Write down the bodies."""
        for name, load in {**WARM, **self.loads}.items():
            self._body(name).write_bytes(load.body())

    def round(self, relays: Sequence[Relay], absent: dict[str, str]) -> Iterator[tuple[str, str, Figures]]:
        """Load, relay and figures, as they come. Who turns out not to answer is put down as absent."""
        direct = {name: self._ask(self.engines[0], name) for name in self.loads}
        yield from ((name, DIRECT, bare(self.loads[name], said)) for name, said in direct.items())
        for relay in relays:
            try:
                for name, found in self._turn(relay, direct):
                    yield name, relay.name, found
            except Absent as reason:
                absent[relay.name] = str(reason)

    def _turn(self, relay: Relay, direct: Mapping[str, Said]) -> Iterator[tuple[str, Figures]]:
        able = {name: load for name, load in self.loads.items() if load.name in relay.loads}
        yield from self._loaded(relay, [name for name, load in able.items() if not load.tls], direct, None)
        if self.behind is not None and relay.tls:
            yield from self._loaded(relay, [name for name, load in able.items() if load.tls], direct, self.behind)

    def _loaded(
        self, relay: Relay, names: Sequence[str], direct: Mapping[str, Said], behind: Behind | None
    ) -> Iterator[tuple[str, Figures]]:
        if not names:
            return
        engines, ca = (behind.ports, behind.ca) if behind is not None else (self.engines, None)
        with running(relay, engines, ca, pinned(0)) as one:
            for name, load in WARM.items():
                self.rig.load(one.port, self._body(name), load.ask, one.headers)
            idle_mb = _settled_mb(one.pid)
            if behind is None:
                yield IDLE, {"rss_mb": idle_mb}
            for name in names:
                said, used = self._measured(one, name, relay.has_metrics)
                yield name, figures(self.loads[name], said, direct[name], used)

    def _measured(self, one: Running, name: str, has_metrics: bool) -> tuple[Said, Used]:
        lag_before = _metrics(one) if has_metrics else ""
        rss_mb = [family_rss_mb(one.pid)]
        before = family_cpu_ns(one.pid)
        said = self._ask(one.port, name, one.headers, lambda: rss_mb.append(family_rss_mb(one.pid)))
        cpu_us = spent_us(before, family_cpu_ns(one.pid))
        rss_mb.append(family_rss_mb(one.pid))
        lag_s = lag_s_p99(lag_before, _metrics(one)) if has_metrics else None
        return said, Used(cpu_us, rss_mb[0], max(rss_mb), lag_s)

    def _ask(self, port: int, name: str, headers: Sequence[str] = (), look: Callable[[], None] = lambda: None) -> Said:
        return self.rig.load(port, self._body(name), self.loads[name].ask, headers, look)

    def _body(self, name: str) -> Path:
        return self.bodies / f"{name}.json"


def pinned(index: int) -> list[str]:
    """What is put before a command to have it on this core of those that there are: the first, or with -1 the last."""
    return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[index])]


def _settled_mb(pid: int) -> float:
    """Resident memory once it no longer grows: what runs beside, as the gateway's dashboard, may still be starting."""
    before_mb, now_mb = 0.0, family_rss_mb(pid)
    for _ in range(LOOKS_MAX):
        if abs(now_mb - before_mb) < SETTLED * now_mb:
            break
        sleep_s(LOOK_S)
        before_mb, now_mb = now_mb, family_rss_mb(pid)
    return now_mb


def _metrics(one: Running) -> str:
    with urlopen(f"http://{HOST}:{one.admin}/metrics", timeout=10.0) as answer:
        return str(answer.read().decode())
