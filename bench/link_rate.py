"""What the client measures of a link's rate, before an emulated link whose rate is known: `make bench-link_rate`.

Sender, link and receiver are three processes. Of each rate, round trip and size are reported the median and the worst
error of the seconds that were told, against when the last byte was there, less half the round trip; how much later than
size / rate that was in the median, since on a busy machine the emulated link itself is late; how many transfers were
told to be too quick to be timed; and the least rate that any of them was told to have. Losing cases come first. A rate
of 0 is no limit: what counts there is that the link never seems slow.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import msgspec
import uvloop

from bench.record import record
from tidegate.clock import Clock, tick_s
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server

LOCAL = "127.0.0.1"
RATES_MBIT = (1, 10, 100, 0)
RTTS_MS = (0, 20, 100)
SIZES = (65_536, 131_072, 524_288, 2_097_152)
REPEATS = 5
# So that the slowest case takes two minutes and not ten.
TRANSFER_S_MAX = 5.0
PAUSE_S = 0.1


class Row(msgspec.Struct, kw_only=True):
    """One rate, round trip and size. Errors are of the seconds told, over what they were, less one."""

    rate_mbit: int
    rtt_ms: int
    size_bytes: int
    error: float | None
    error_worst: float | None
    link_late: float | None
    timed: int
    too_quick: int
    untold: int
    least_mbit: float | None


class Receiver:
    """Waits for a response."""

    def __init__(self) -> None:
        self.over: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._said = b""

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """See `http.Receiver`."""

    def on_data(self, data: bytes) -> None:
        """See `http.Receiver`."""
        self._said += data

    def on_end(self) -> None:
        """See `http.Receiver`."""
        self.over.set_result(float(self._said))

    def on_error(self, error: TransportError) -> None:
        """See `http.Receiver`."""
        self.over.set_exception(error)


async def serve() -> None:
    """The far end: takes what comes, and says when it was there; Linux has one steady clock for all processes."""

    def answer(exchange: Exchange) -> None:
        exchange.respond(200, [(b"content-type", b"text/plain")], b"%.9f" % tick_s())

    server = Server(answer, limits=Limits(), clock=Clock(), error_body=lambda _, m: (b"text/plain", m.encode()))
    await server.start(LOCAL, 0)
    print(f"http://{LOCAL}:{server.port}", flush=True)
    await asyncio.Event().wait()


@contextmanager
def process(*words: str) -> Iterator[int]:
    """A child that prints where it listens; its port."""
    child = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield int(child.stdout.readline().rpartition(":")[2])
    finally:
        child.kill()
        child.wait()


async def measure(port: int, rate_mbit: int, rtt_ms: int) -> list[Row]:
    """All sizes, on one connection."""
    pool, rows = Pool(Origin(LOCAL, port), clock=Clock()), []
    # The emulated hand-shake takes its time only when the first bytes are there already.
    await fetch(pool, b"GET", b"/", (), b"", 10.0, 1000)
    for size in SIZES:
        true_s = size * 8 / (rate_mbit * 1e6) if rate_mbit else 0.0
        if true_s > TRANSFER_S_MAX:
            continue
        told: list[tuple[int, float, bool]] = []
        errors, late = [], []
        for _ in range(REPEATS):
            receiver, sent_s, before = Receiver(), tick_s(), len(told)
            pool.send(
                b"POST",
                b"/",
                (),
                bytes(size),
                receiver,
                first_byte_timeout_s=60.0,
                idle_timeout_s=60.0,
                uploaded=lambda *what: told.append(what),  # noqa: B023 - called before the next one
            )
            took_s = await receiver.over - sent_s - rtt_ms / 2e3
            late.append(took_s / true_s - 1.0 if rate_mbit else 0.0)
            errors += [seconds / took_s - 1.0 for _, seconds, at_most in told[before:] if not at_most]
            await asyncio.sleep(PAUSE_S)
        errors.sort(key=abs)
        least = min((done * 8 / seconds / 1e6 for done, seconds, _ in told), default=None)
        rows.append(
            Row(
                rate_mbit=rate_mbit,
                rtt_ms=rtt_ms,
                size_bytes=size,
                error=round(median(errors), 3) if errors else None,
                error_worst=round(errors[-1], 3) if errors else None,
                link_late=round(median(late), 3) if rate_mbit else None,
                timed=len(errors),
                too_quick=len(told) - len(errors),
                untold=REPEATS - len(told),
                least_mbit=None if least is None else round(least, 2),
            )
        )
    await pool.close()
    return rows


def main() -> None:
    """All links."""
    rows = []
    with process("bench.link_rate", "--serve") as far:
        for rate_mbit in RATES_MBIT:
            for rtt_ms in RTTS_MS:
                words = ["--to", f"{LOCAL}:{far}", "--rtt-ms", str(rtt_ms)]
                words += ["--rate-mbit", str(rate_mbit)] if rate_mbit else []
                with process("tidegate.lab.wan", *words) as port:
                    rows += uvloop.run(measure(port, rate_mbit, rtt_ms))
    rows.sort(key=lambda row: -abs(row.error or 0.0))
    for row in rows:
        print(
            f"{row.rate_mbit:5} Mbit/s {row.rtt_ms:4} ms {row.size_bytes:8} B  error {row.error!s:>7} worst "
            f"{row.error_worst!s:>7}  link late {row.link_late!s:>6}  "
            f"timed {row.timed}, too quick {row.too_quick}, untold {row.untold}, "
            f"at least {row.least_mbit} Mbit/s"
        )
    record("link_rate", {"repeats": REPEATS, "rows": msgspec.to_builtins(rows)})


if __name__ == "__main__":
    if "--serve" in sys.argv:
        uvloop.run(serve())
    else:
        main()
