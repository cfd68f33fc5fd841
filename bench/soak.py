"""Half an hour of load and faults, and what of it stays in the gateway: `make bench-soak`.

    PYTHONPATH=build/compiled python -m bench.soak [--minutes 30]

The gateway, with everything on, has the first core; the load generators and four engines, each a process of its own,
have the last. Whole answers, large prompts and streams come at rates at which the gateway is busy for 70 % of its core,
a third of that for each, as measured before. All the while something goes wrong, drawn by a seed: an engine is killed
and comes back, an engine hangs, all clients of fifty streams leave at once, the configuration is read again.

Memory is looked at each five seconds. Its slope is the median of those between any two of its minutes, after the first
third, in which caches fill, with the interval that 95 of 100 such medians lie in (Theil and Sen). Before the load, and
three minutes after it, it is counted what the gateway has: attempts under way, requests held, sockets, and objects by
type, timers and tasks among them.
"""

import argparse
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Final
from urllib.request import urlopen

import msgspec
from scipy.stats import theilslopes

from bench.cpu import cpu_s, family_rss_mb
from bench.gateway import HOST, free_ports
from bench.loads import LOADS, Load
from bench.record import record
from bench.relay import raise_file_limit
from bench.relay_sitting import pinned
from bench.relays import Place, Relay, Running, Start, ours, running
from bench.rig import Ask, Rig, Said
from tidegate.clock import sleep_s, tick_s

SEED: Final = 11
BUSY: Final = 0.7  # of a core
ENGINES: Final = 4
SLICE_S: Final = 30.0  # a load generator's turn, after which its clients come anew
LOOK_S, BLOCKS = 5.0, 30  # the means of as many are compared: of half an hour, a minute each
SETTLES_S: Final = 180.0  # longer than anything idle is kept
FILLS_SHARE: Final = 1.0 / 3.0
FAULTS_S: Final = (5.0, 15.0)  # from one to the next
AWAY_S, HANGS_S, LEAVE_S = 3.0, 5.0, 0.5
TRIED_S, TRIES = 15.0, 3
# What is counted before and after; of connections a few stay, idle, for the next requests.
COUNTED: Final = ("TimerHandle", "Handle", "Task", "Future", "coroutine", "Connection", "Link", "Exchange", "Drive")
OPEN: Final = 100_000  # requests: more than a slice can send


def _streams() -> Load:
    return msgspec.structs.replace(LOADS["W4"], ask=Ask(connections=1000, requests=OPEN, chunks=50))


KINDS: Final = {
    "whole": (LOADS["W1"], 200.0),
    "large": (LOADS["W2"], 50.0),
    "streams": (_streams(), 20.0),
}
"""What is sent, and at how many a second it is tried what one takes."""


class Look(msgspec.Struct, frozen=True):
    """What a gateway has: MB of it and its dashboard, and what is counted."""

    gateway_mb: float
    all_mb: float
    sockets: int
    in_flight: int
    held: int
    objects: dict[str, int]


class Engines:
    """Four of them, that can be killed and hung."""

    def __init__(self, rig: Rig) -> None:
        self.ports = tuple(free_ports(ENGINES))
        self._rig = rig
        self._running = [rig.engine_at(port) for port in self.ports]

    def crash(self, number: int) -> None:
        """It is gone, with all that it had, and comes back."""
        self._end(number)
        sleep_s(AWAY_S)
        self._running[number] = self._rig.engine_at(self.ports[number])

    def hang(self, number: int) -> None:
        """It says nothing for a while."""
        self._running[number].send_signal(signal.SIGSTOP)
        sleep_s(HANGS_S)
        self._running[number].send_signal(signal.SIGCONT)

    def end(self) -> None:
        """All of them."""
        for number in range(ENGINES):
            self._end(number)

    def _end(self, number: int) -> None:
        self._running[number].kill()
        self._running[number].communicate()


class Soak:
    """One gateway under load, and what becomes of it."""

    def __init__(self, rig: Rig, folder: Path, one: Running, engines: Engines) -> None:
        self._rig, self._folder, self._one, self._engines = rig, folder, one, engines
        self._over = Event()
        self._said: dict[str, list[Said]] = {name: [] for name in KINDS}
        self._faults: Counter[str] = Counter()
        for name, (load, _) in KINDS.items():
            self._body(name).write_bytes(load.body())
        # With it the dashboard's process begins.
        with urlopen(f"http://{HOST}:{one.admin}/api/dashboard/summary", timeout=90.0) as answer:
            answer.read()

    def look(self) -> Look:
        """At all that it has."""
        pid = self._one.pid
        objects = self._folder / "objects.json"
        objects.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        while not objects.exists():
            sleep_s(0.1)
        with urlopen(f"http://{HOST}:{self._one.admin}/api/state", timeout=30.0) as answer:
            state = msgspec.json.decode(answer.read())
        counts = msgspec.json.decode(objects.read_bytes(), type=dict[str, int])
        return Look(_rss_mb(pid), family_rss_mb(pid), _sockets(pid), state["in_flight"], state["held"], counts)

    def rates(self) -> dict[str, float]:
        """Of each kind, how many a second keep a core busy for its share."""
        found = {}
        for name, (_, per_s) in KINDS.items():
            busy, said = self._busy({name: per_s})
            found[name] = BUSY / len(KINDS) * said[name].ok / TRIED_S / busy
        # Each costs less beside the others, and the more there are.
        for _ in range(TRIES):
            busy, _ = self._busy(found)
            print(f"{busy:.0%} of a core at {found}", flush=True)
            found = {name: per_s * BUSY / busy for name, per_s in found.items()}
        return found

    def _busy(self, rates: Mapping[str, float]) -> tuple[float, dict[str, Said]]:
        """Of a core, with so many a second of each; and what became of them."""
        said: dict[str, Said] = {}

        def send(name: str, per_s: float) -> None:
            said[name] = self._send(name, per_s, TRIED_S)

        threads = [Thread(target=send, args=one) for one in rates.items()]
        before_s, began_s = cpu_s(self._one.pid), tick_s()
        for thread in threads:
            thread.start()
        sleep_s(TRIED_S)
        busy = (cpu_s(self._one.pid) - before_s) / (tick_s() - began_s)
        for thread in threads:
            thread.join()
        return busy, said

    def run(self, rates: Mapping[str, float], minutes: float) -> tuple[list[tuple[float, float, float]], float]:
        """Seconds and MB, of the gateway and with its dashboard, while it lasts; and how busy its core was."""
        threads = [Thread(target=self._sends, args=(name, per_s)) for name, per_s in rates.items()]
        threads.append(Thread(target=self._goes_wrong))
        began_s, before_s = tick_s(), cpu_s(self._one.pid)
        for thread in threads:
            thread.start()
        looks = []
        while (at_s := tick_s() - began_s) < 60.0 * minutes:
            looks.append((at_s, _rss_mb(self._one.pid), family_rss_mb(self._one.pid)))
            sleep_s(LOOK_S)
        busy = (cpu_s(self._one.pid) - before_s) / (tick_s() - began_s)
        self._over.set()
        for thread in threads:
            thread.join()
        return looks, busy

    def told(self) -> dict[str, object]:
        """What became of all requests, and what went wrong."""
        return {
            "requests": {
                name: {"ok": sum(said.ok for said in all_), **_summed([said.errors for said in all_])}
                for name, all_ in self._said.items()
            },
            "faults": dict(sorted(self._faults.items())),
        }

    def _sends(self, name: str, per_s: float) -> None:
        while not self._over.is_set():
            self._said[name].append(self._send(name, per_s, SLICE_S))

    def _send(self, name: str, per_s: float, seconds: float) -> Said:
        ask = msgspec.structs.replace(
            KINDS[name][0].ask, requests=OPEN, seconds=seconds, rate_per_s=per_s, ramp_s=0.0, timeout_s=seconds + 60.0
        )
        return self._rig.load(self._one.port, self._body(name), ask, self._one.headers)

    def _goes_wrong(self) -> None:
        draw = Random(SEED)
        while not self._over.wait(draw.uniform(*FAULTS_S)):
            kind, number = draw.choice(("crash", "hang", "leave", "reload")), draw.randrange(ENGINES)
            self._faults[kind] += 1
            match kind:
                case "crash":
                    self._engines.crash(number)
                case "hang":
                    self._engines.hang(number)
                case "leave":
                    self._leave()
                case _:
                    os.kill(self._one.pid, signal.SIGHUP)

    def _leave(self) -> None:
        ask = Ask(connections=50, requests=50, chunks=50)
        with self._rig.begin(self._one.port, self._body("streams"), ask, self._one.headers) as clients:
            try:
                clients.communicate(timeout=LEAVE_S)
            except subprocess.TimeoutExpired:
                clients.kill()

    def _body(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def main() -> None:
    """Soak one gateway, and write down what stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of fewer than 30 nothing is written down")
    minutes = parser.parse_args().minutes
    raise_file_limit()
    with tempfile.TemporaryDirectory() as name, _soaked(Path(name)) as soak:
        rates = soak.rates()
        sleep_s(min(SETTLES_S, 60.0 * minutes))
        before = soak.look()
        looks, busy = soak.run(rates, minutes)
        loaded = soak.look()
        sleep_s(min(SETTLES_S, 60.0 * minutes))
        after = soak.look()
        grown = Counter(after.objects)
        grown.subtract(before.objects)
        found = {
            "seed": SEED,
            "minutes": minutes,
            "busy": round(busy, 3),
            "rates_per_s": {kind: round(per_s, 1) for kind, per_s in rates.items()},
            **soak.told(),
            "slope_mb_per_hour": {
                "gateway": _slope([(at_s, mb) for at_s, mb, _ in looks]),
                "with_dashboard": _slope([(at_s, mb) for at_s, _, mb in looks]),
            },
            **{when: _shown(one) for when, one in (("before", before), ("loaded", loaded), ("after", after))},
            "most_grown": dict(grown.most_common(12)),
            "looks": [[round(value, 1) for value in look] for look in looks],
        }
    if minutes >= 30.0:
        record("soak", found)
    else:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())


@contextmanager
def _soaked(folder: Path) -> Iterator[Soak]:
    rig = Rig(folder, pinned(-1))
    engines = Engines(rig)
    try:
        with running(_counted(ours()[0], folder / "objects.json"), engines.ports, None, pinned(0)) as one:
            yield Soak(rig, folder, one, engines)
    finally:
        engines.end()


def _counted(relay: Relay, objects: Path) -> Relay:
    """The same gateway, in a process that can be asked what objects it has."""

    def start(place: Place) -> Start:
        found = relay.start(place)
        command = ["bench.soak_gateway" if part == "tidegate.cli.main" else part for part in found.command]
        return msgspec.structs.replace(found, command=command, environment={"OBJECTS": str(objects)})

    return msgspec.structs.replace(relay, start=start)


def _rss_mb(pid: int) -> float:
    """Resident memory of one process, without its children."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _sockets(pid: int) -> int:
    count = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(file.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # closed between two looks
    return count


def _summed(many: list[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in many:
        total.update(one)
    return {name: count for name, count in total.items() if count}


def _slope(looks: list[tuple[float, float]]) -> dict[str, float]:
    """MB an hour, of the means of minutes after the first third: the middle one, and the interval of 95 %."""
    since_s, block_s = FILLS_SHARE * looks[-1][0], looks[-1][0] / BLOCKS
    blocks: dict[int, list[float]] = {}
    for at_s, mb in looks:
        if at_s >= since_s:
            # The last look is of the last minute, and none of its own.
            blocks.setdefault(min(int(at_s / block_s), BLOCKS - 1), []).append(mb)
    hours = [block * block_s / 3600.0 for block in blocks]
    slope, _, low, high = theilslopes([sum(mbs) / len(mbs) for mbs in blocks.values()], hours, 0.95)
    return {"slope": round(float(slope), 2), "low": round(float(low), 2), "high": round(float(high), 2)}


def _shown(look: Look) -> dict[str, object]:
    counted = {name: look.objects.get(name, 0) for name in COUNTED}
    return {
        "gateway_mb": round(look.gateway_mb, 1),
        "all_mb": round(look.all_mb, 1),
        "sockets": look.sockets,
        "in_flight": look.in_flight,
        "held": look.held,
        "objects": counted,
    }


if __name__ == "__main__":
    main()
