"""The dashboard's process: what it is made of, and which path is answered by what."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

from tidegate.clock import Clock
from tidegate.dashboard.explained import Explainer
from tidegate.dashboard.figures import Figures, Row
from tidegate.dashboard.live import Live
from tidegate.dashboard.pages import FOLDER, SAFE, Pages
from tidegate.dashboard.parent import Parent
from tidegate.dashboard.queries import Queries
from tidegate.dashboard.store import Store
from tidegate.http.limits import Limits
from tidegate.http.origin import refuse_strangers
from tidegate.http.server import Exchange, Server
from tidegate.telemetry.log import Log
from tidegate.wire.board import TOKEN
from tidegate.wire.errors import BadRequest, error_body

_T = TypeVar("_T")

API: Final = "/api/dashboard/"
DECISIONS_OF: Final = "/decisions/"
DECISIONS: Final = ("/api" + DECISIONS_OF, "/api/dashboard" + DECISIONS_OF)
"""Beside a gateway, the first is answered by that."""
GATEWAY, JOURNAL = "gateway", "journal"
"""What it stands beside."""
# A policy's text has a megabyte at most, and as JSON twice that.
LIMITS: Final = Limits(body_bytes_max=2 * 1024 * 1024 + 1024, connections_max=100)
# Questions that wait for others: a page asks six at once.
WAITING_MAX: Final = 64
_JSON: Final = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), *SAFE)
_RETRY: Final = (b"retry-after", b"1")


class Dashboard:
    """Serves pages, and answers them from the index of a journal."""

    def __init__(
        self,
        journal: Path | None,
        clock: Clock,
        log: Log,
        *,
        parent: Parent | None = None,
        pages: Path = FOLDER,
    ) -> None:
        """With a `parent` it stands beside a gateway and answers that alone; without, this machine. Where there is no
        `journal`, all that it would tell is empty."""
        self._clock = clock
        self._log = log
        self._parent = parent
        self._token = None if parent is None else parent.begun.token.encode()
        self._store = Store(journal, lambda problem: self._log.event("error", problem))
        self._reader = self._store.reader()
        follower = self._store.follower
        mode = JOURNAL if parent is None else GATEWAY

        def now_s() -> float:
            """Yesterday's journal is seen as it was then."""
            return clock.now_s() if parent is not None or follower.last_s is None else follower.last_s

        self._figures = Figures(self._reader)
        self._queries = Queries(self._figures, follower, now_s, mode, journal=journal is not None)
        self._pages = Pages(pages)
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-query")
        self._waiting = 0
        self._explainer = Explainer(self._store.folder, self._found)
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._live = Live(self._ask, self._queries.tick, lambda: follower.changes, clock.now_s)
        self._server = Server(
            self._handle,
            limits=LIMITS,
            clock=clock,
            error_body=lambda status, text: (b"application/json", _error(status, text)),
            on_error=self._crashed,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def start(self, host: str, port: int) -> None:
        """Listen, and begin to read. OSError for an address that cannot be had."""
        await self._server.start(host, port)
        self._store.start()
        self._live.start()

    async def stop(self) -> None:
        """Answer no more."""
        self._live.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close(grace_s=0.0)
        self._asker.shutdown(wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self._store.close)
        self._reader.close()

    def _handle(self, exchange: Exchange) -> None:
        try:
            self._guard(exchange)
            if exchange.method not in ("GET", "HEAD"):
                raise BadRequest(f"{exchange.method} is not for {exchange.path[:200]}", status=405)
            if not self._pages.answer(exchange):
                self._get(exchange, exchange.path)
        except BadRequest as error:
            exchange.respond(error.status, (*_JSON, *error.headers), _error(error.status, error.message))

    def _guard(self, exchange: Exchange) -> None:
        if self._token is None:
            refuse_strangers(exchange.headers)
        elif not compare_digest(exchange.headers.get(TOKEN, b""), self._token):
            raise BadRequest("This is for the gateway alone; ask at its admin address.", status=403)

    def _get(self, exchange: Exchange, path: str) -> None:
        name = path.removeprefix(API)
        if path == API + "live":
            self._live.begin(exchange, self._queries.minutes(exchange.query))
        elif path.startswith(DECISIONS):
            request_id = unquote(path[path.index(DECISIONS_OF) + len(DECISIONS_OF) :])
            self._run(exchange, self._explainer.explain(request_id))
        elif path.startswith(API) and self._queries.answers(name):
            self._answer(exchange, lambda: self._queries.answer(name, exchange.query))
        else:
            raise BadRequest(f"There is nothing at {path[:200]}.", status=404)

    def _answer(self, exchange: Exchange, ask: Callable[[], bytes]) -> None:
        """With what a question comes to, asked in the thread that may take a while."""
        future = self._ask(ask)
        if future is None:
            raise BadRequest("Too many questions wait; ask again in a second.", status=503, headers=(_RETRY,))
        future.add_done_callback(lambda done: self._tell(exchange, done))

    def _run(self, exchange: Exchange, answer: Coroutine[None, None, bytes]) -> None:
        """With what comes of it, in a task that ends when whoever asks has left."""
        task = asyncio.get_running_loop().create_task(answer)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: self._tell(exchange, done))

        def left() -> None:
            task.cancel()

        exchange.on_left = left

    def _tell(self, exchange: Exchange, done: "asyncio.Future[bytes]") -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            exchange.respond(200, _JSON, done.result())
        elif isinstance(error, BadRequest):
            exchange.respond(error.status, (*_JSON, *error.headers), _error(error.status, error.message))
        else:
            # Its text may tell what is in the journal: the kind has to be enough.
            self._log.event("error", "a question failed", error=type(error).__name__)
            exchange.respond(500, _JSON, _error(500, "It met a bug of ours; the log has its kind."))

    async def _found(self, request_id: str) -> tuple[Row | None, str | None]:
        figures = self._figures
        future = self._ask(lambda: (figures.row(request_id), figures.segment_of(request_id)))
        return (None, None) if future is None else await future

    def _ask(self, ask: Callable[[], _T]) -> "asyncio.Future[_T] | None":
        """Have something asked; None where too much waits."""
        if self._waiting >= WAITING_MAX:
            return None
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._asker, ask)
        future.add_done_callback(self._asked)
        return future

    def _asked(self, _: object) -> None:
        self._waiting -= 1

    def _crashed(self, error: Exception) -> None:
        self._log.event("error", "handler failed", error=type(error).__name__)


def _error(status: int, message: str) -> bytes:
    return error_body(message, "invalid_request_error", None, f"http_{status}")
