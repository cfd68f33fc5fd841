"""The dashboard's process, as the gateway keeps it: started when it is first asked for, started again where it ends,
and asked on behalf of operators.

Until somebody looks it would cost memory and a part of each request, for nobody. What it has missed stands in the
journal.

It listens on loopback and answers who knows a secret that is made for each start and handed over on its input, by whose
end it learns that the gateway is gone. What it says on its output are lines: its port first, and then what it wants the
gateway to do.
"""

import asyncio
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from tidegate.clock import Clock
from tidegate.gateway.reply import JSON
from tidegate.http.client import Call, Origin, Pool, TransportError
from tidegate.http.server import Exchange
from tidegate.telemetry.log import Log
from tidegate.wire.board import DASHBOARD, LINE_BYTES_MAX, LOADED, SHOWN, TOKEN, WHO, Begun, Fulfilled, Ready, Wish
from tidegate.wire.errors import error_body

# How long after its end it is started again: at first at once, and no oftener than this where it keeps ending.
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
# What lived so long was well.
WELL_S: Final = 60.0
# It imports, and opens its index, on a machine that may be busy.
START_S: Final = 60.0
STOP_S: Final = 1.0  # what it has can be made anew
# So many wait until it is there; who asks beyond them asks again.
WAITING_MAX: Final = 32
# A decision is explained in two processes one after the other, at most.
ANSWER_S = 90.0
# What of a browser's request matters to it.
_ASKED: Final[tuple[bytes, ...]] = (b"accept-encoding", b"content-type", b"if-none-match", DASHBOARD)
# Where one hop of a connection ends; the rest of what it says goes on as it is.
_HOP: Final = frozenset((b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"))
_RETRY: Final = (b"retry-after", b"1")


class Board:
    """One such process, and what is asked of it. `pid` and `port` are its own, None while it is not there."""

    def __init__(
        self,
        journal: Path | None,
        config: Path,
        fulfil: Callable[[Wish], Awaitable[bytes]],
        loaded: Callable[[], str],
        *,
        clock: Clock,
        log: Log,
    ) -> None:
        """`fulfil` does what it wants, and gives what that came to as JSON; `loaded` tells which revision of the file
        was loaded last."""
        self._journal, self._config = journal, config
        self._fulfil, self._loaded = fulfil, loaded
        self._clock = clock
        self._log = log
        self._pool: Pool | None = None
        self._token = b""
        self._relayed: set[_Relayed] = set()
        self._wanted = asyncio.Event()
        # What came before it was there, in its order: who asks, and whether the admin's secret was shown.
        self._waiting: dict[Exchange, tuple[str, bool]] = {}
        self._rests = False  # after it has ended
        self.pid: int | None = None
        self.port: int | None = None

    async def watch(self) -> None:
        """Keep it running, from when somebody wants it."""
        await self._wanted.wait()
        retry_s = RETRY_S_MIN
        while True:
            began_s = self._clock.now_s()
            reason = await self._once()
            if self._clock.now_s() - began_s >= WELL_S:
                retry_s = RETRY_S_MIN
            self._log.event("warning", "the dashboard has ended; it is started again", reason=reason, after_s=retry_s)
            self._rests = True
            await asyncio.sleep(retry_s)
            self._rests = False
            retry_s = min(2.0 * retry_s, RETRY_S_MAX)

    def relay(self, exchange: Exchange, who: str, *, shown: bool) -> None:
        """Answer with what it answers, as it comes; `who` asks, who has `shown` the admin's secret or had not to."""
        pool = self._pool
        if pool is None:
            self._wait(exchange, who, shown=shown)
            return
        target = exchange.path if not exchange.query else f"{exchange.path}?{exchange.query}"
        headers: list[tuple[bytes, bytes]] = [(TOKEN, self._token), (WHO, who.encode("ascii", "replace"))]
        headers.append((LOADED, self._loaded().encode()))
        headers += [(SHOWN, b"1")] if shown else []
        headers += [(name, exchange.headers[name]) for name in _ASKED if name in exchange.headers]
        relayed = _Relayed(exchange, who, self._relayed)
        relayed.call = pool.send(
            exchange.method.encode(),
            target.encode(),
            headers,
            exchange.body,
            relayed,
            first_byte_timeout_s=ANSWER_S,
            # It is on this machine, and ends with its connections; a clock that is put forward ends none of them.
            idle_timeout_s=inf,
        )
        self._relayed.add(relayed)
        exchange.on_left = relayed.left
        exchange.on_pause, exchange.on_resume = relayed.call.pause, relayed.call.resume

    def _wait(self, exchange: Exchange, who: str, *, shown: bool) -> None:
        """Until it is there."""
        self._wanted.set()
        if len(self._waiting) < WAITING_MAX and not self._rests:
            self._waiting[exchange] = (who, shown)
            exchange.on_left = partial(self._forget, exchange)
        else:
            _not_yet(exchange)

    def hang_up(self, who: str = "") -> None:
        """Tell no more to those whose name begins like this: what they have shown opens nothing any more."""
        self._send_away(who)
        for relayed in [one for one in self._relayed if one.who.startswith(who)]:
            relayed.hang_up()

    def _forget(self, exchange: Exchange) -> None:
        del self._waiting[exchange]

    def _send_away(self, who: str = "") -> None:
        """Those of them who wait."""
        for exchange in [one for one, (name, _) in self._waiting.items() if name.startswith(who)]:
            del self._waiting[exchange]
            _not_yet(exchange)

    async def _once(self) -> str:
        """Start it, and do what it wants until it ends; why it did."""
        verb = ("-P", "-m", "tidegate.cli.main", "dashboard", "--beside")
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, *verb, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX
            )
        except OSError as error:
            self._send_away()
            return f"it cannot be started: {error.strerror}"
        self.pid = child.pid
        try:
            return await self._talk(child)
        except Exception as error:  # whatever it is, nobody else starts it again
            return type(error).__name__
        finally:
            pool, self._pool, self.pid, self.port = self._pool, None, None, None
            self._send_away()
            if pool is not None:
                await pool.close()
            await _end(child)

    async def _talk(self, child: Process) -> str:
        assert child.stdin is not None, "it was asked for"
        assert child.stdout is not None, "it was asked for"
        token = secrets.token_hex(32)
        begun = Begun(token=token, journal=str(self._journal or ""), config=str(self._config))
        child.stdin.write(msgspec.json.encode(begun) + b"\n")
        async with asyncio.timeout(START_S):
            line = await child.stdout.readline()
        if not line:
            return "it did not come up"
        self.port = msgspec.json.decode(line, type=Ready).port
        self._token, self._pool = token.encode(), Pool(Origin("127.0.0.1", self.port), clock=self._clock)
        waiting, self._waiting = self._waiting, {}
        for exchange, (who, shown) in waiting.items():
            self.relay(exchange, who, shown=shown)
        while line := await child.stdout.readline():
            wish = msgspec.json.decode(line, type=Wish)
            fulfilled = Fulfilled(number=wish.number, outcome=msgspec.Raw(await self._fulfil(wish)))
            child.stdin.write(msgspec.json.encode(fulfilled) + b"\n")
        return f"status {await child.wait()}"


class _Relayed:
    """Hands an answer over, piece by piece."""

    def __init__(self, exchange: Exchange, who: str, others: "set[_Relayed]") -> None:
        """`who` asks. It is taken out of the `others` when it ends."""
        self._exchange = exchange
        self._others = others
        self.who = who
        self.call: Call
        self._hung_up = False

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """It begins."""
        if self._hung_up and headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            # That would never be over.
            self.left()
            self._exchange.abort()
            return
        self._exchange.start(status, [(name, value) for name, value in headers.items() if name not in _HOP])

    def on_data(self, data: bytes) -> None:
        """It goes on."""
        self._exchange.write(data)

    def on_end(self) -> None:
        """It is whole."""
        self._others.discard(self)
        self._exchange.end()

    def on_error(self, _: TransportError) -> None:
        """It will never be."""
        self._others.discard(self)
        if self._exchange.started:
            self._exchange.abort()
        else:
            body = error_body("The dashboard does not answer; try again.", "server_error", None, "http_502")
            self._exchange.respond(502, (JSON, _RETRY), body)

    def left(self) -> None:
        """Nobody wants it any more."""
        self._others.discard(self)
        self.call.cancel()

    def hang_up(self) -> None:
        """What has not begun is soon over, and may be told of the very change that ends it."""
        self._hung_up = True
        if self._exchange.started:
            self.left()
            self._exchange.abort()


def _not_yet(exchange: Exchange) -> None:
    text = "The dashboard is being started; ask again in a second."
    # A browser shows for ever what it was told instead of a page, unless it is told to ask again.
    again = () if exchange.path.startswith("/api/") else ((b"refresh", b"1"),)
    exchange.respond(503, (JSON, _RETRY, *again), error_body(text, "server_error", None, "http_503"))


async def _end(child: Process) -> None:
    """It is told by the end of its input, and killed where it does not hear."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except (TimeoutError, asyncio.CancelledError) as error:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if isinstance(error, asyncio.CancelledError):  # the gateway ends, and waits for who watches it
            raise
