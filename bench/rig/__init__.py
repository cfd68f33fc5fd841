"""An engine without a model and a load generator, in C: neither is what limits a relay between them.

`engine.c` and `load.c` say how they are asked. Both are built here, by the system's C compiler, and run on loopback.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.gateway import free_ports

SOURCES = Path(__file__).parent
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
PARTS = {
    "engine": ("engine.c", "answers.c", "http.c", "net.c"),
    "load": ("load.c", "asked.c", "samples.c", "http.c", "net.c"),
}
LOOK_S = 0.25  # between two looks at memory while a load runs


class Times(msgspec.Struct, frozen=True):
    """Microseconds that so many of a hundred did not exceed; all 0 where nothing was measured."""

    p50: float
    p90: float
    p99: float
    max: float


class Said(msgspec.Struct, frozen=True):
    """What became of a load: times of whole answers and first chunks since requests were due, and of chunks' ways."""

    ok: int
    seconds: float
    per_s: float
    chunks: int
    connects: int
    errors: dict[str, int]
    latency_us: Times
    ttft_us: Times
    transit_us: Times

    @property
    def failed(self) -> int:
        """Requests without a right answer."""
        return sum(self.errors.values())


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator is to do: `load.c` tells what each means."""

    connections: int
    requests: int
    seconds: float | None = None
    chunks: int = 0
    ramp_s: float = 0.0
    rate_per_s: float = 0.0
    timeout_s: float = 60.0

    def arguments(self) -> list[str]:
        """As its command line has them."""
        return [
            *("--connections", str(self.connections), "--requests", str(self.requests)),
            *("--chunks", str(self.chunks), "--ramp", str(self.ramp_s)),
            *("--rate", str(self.rate_per_s), "--timeout", str(self.timeout_s)),
            *(("--seconds", str(self.seconds)) if self.seconds is not None else ()),
        ]


class Rig:
    """The two programs, built into a folder; `prefix` is put before each command, to pin it to a core."""

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self._folder = folder
        self._prefix = list(prefix)
        for name, parts in PARTS.items():
            sources = [str(SOURCES / part) for part in parts]
            subprocess.run(["gcc", *FLAGS, "-o", str(folder / name), *sources], check=True)

    @contextmanager
    def engine(self, count: int) -> Iterator[tuple[int, ...]]:
        """An engine that listens on so many ports, as if it were several."""
        ports = free_ports(count)
        with self.engine_at(*ports) as child:
            try:
                yield tuple(ports)
            finally:
                child.kill()

    def engine_at(self, *ports: int) -> subprocess.Popen[bytes]:
        """An engine that listens on these ports. Whoever starts it ends it."""
        command = [*self._prefix, str(self._folder / "engine"), *map(str, ports)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline(), "the engine has said why it does not listen"
        return child

    def load(
        self, port: int, body: Path, ask: Ask, headers: Sequence[str] = (), look: Callable[[], None] = lambda: None
    ) -> Said:
        """Send it; `look` is called now and then meanwhile. CalledProcessError where the generator itself fails."""
        with self.begin(port, body, ask, headers) as child:
            said = _said(child, look)
        if child.returncode != 0:
            raise subprocess.CalledProcessError(child.returncode, child.args)
        return msgspec.json.decode(said, type=Said)

    def begin(self, port: int, body: Path, ask: Ask, headers: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Begin to send it. Where the generator is killed, all of its clients leave at once."""
        named = [part for header in headers for part in ("--header", header)]
        command = [*self._prefix, str(self._folder / "load"), "--port", str(port), "--body", str(body)]
        return subprocess.Popen([*command, *ask.arguments(), *named], stdout=subprocess.PIPE)


def _said(child: subprocess.Popen[bytes], look: Callable[[], None]) -> bytes:
    while True:
        try:
            return child.communicate(timeout=LOOK_S)[0]
        except subprocess.TimeoutExpired:
            look()
