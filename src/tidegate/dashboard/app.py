"""The dashboard's process: what it is made of, and which path is answered by what."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

import msgspec

from tidegate.clock import Clock
from tidegate.config.load import revision
from tidegate.dashboard.changed import Limit, changes
from tidegate.dashboard.explained import Explainer
from tidegate.dashboard.figures import Figures
from tidegate.dashboard.index import is_damage
from tidegate.dashboard.job import Worker
from tidegate.dashboard.live import Live
from tidegate.dashboard.pages import FOLDER, SAFE, Pages
from tidegate.dashboard.parent import Parent
from tidegate.dashboard.policy import Applied, Policies, policy_of
from tidegate.dashboard.queries import Nothing, Queries, asked
from tidegate.dashboard.requests import Requests, Row
from tidegate.dashboard.store import Store
from tidegate.dashboard.surface import Asked, Surfaces
from tidegate.http.limits import Limits
from tidegate.http.origin import refuse_forged, refuse_strangers
from tidegate.http.server import Exchange, Server
from tidegate.telemetry.log import Log
from tidegate.wire.board import LOADED, SHOWN, TOKEN, WHO
from tidegate.wire.errors import UNREADABLE, BadRequest, error_body

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
        config: Path | None = None,
        pages: Path = FOLDER,
        on_damage: Callable[[], None] = lambda: None,
    ) -> None:
        """With a `parent` it stands beside a gateway and answers that alone; without, this machine.

        Where there is no `journal`, all that it would tell is empty. Policies are those of the file `config`; None is
        one that is not known. `on_damage` is called where the index turns out to be damaged: it is removed, and the
        next dashboard makes it anew.
        """
        self._clock = clock
        self._log = log
        self._parent = parent
        self._on_damage = on_damage
        self._token = None if parent is None else parent.begun.token.encode()
        self._store = Store(journal, lambda problem: self._log.event("error", problem), self._damage_found)
        self._reader = self._store.reader()
        follower = self._store.follower
        mode = JOURNAL if parent is None else GATEWAY
        figures, self._requests = Figures(self._reader), Requests(self._reader)
        self._queries = Queries(figures, self._requests, follower, self._seen_s, mode, journal=journal is not None)
        self._pages = Pages(pages)
        self._surfaces = Surfaces(follower, clock.now_s)
        # Of its own: what takes a second, or a segment's replay, keeps nothing waiting that takes none.
        self._surveyor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-survey")
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-query")
        self._waiting = 0
        self.damaged = False
        self._explainer = Explainer(self._store.folder, self._found)
        self._policies = Policies(config, parent)
        self._previewer, self._auditor = Worker(self._now_s), Worker(self._now_s)
        self._journal = None if journal is None else str(journal)
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._live = Live(self._ask, self._queries.tick, lambda: follower.changes, clock.now_s)
        self._server = Server(
            self._handle,
            limits=LIMITS,
            clock=clock,
            error_body=lambda status, text: (b"application/json", _error(status, text)),
            knows=self._knows,
            on_error=self._crashed,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def start(self, host: str, port: int) -> None:
        """Listen, and begin to read. OSError for an address that cannot be had."""
        self._loop = asyncio.get_running_loop()
        await self._server.start(host, port)
        self._store.start()
        self._live.start()

    async def stop(self) -> None:
        """Answer no more."""
        self._live.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self._previewer.close(), self._auditor.close())
        await self._server.close(grace_s=0.0)
        for asker in (self._asker, self._surveyor):
            asker.shutdown(wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self._store.close)
        self._reader.close()

    def _now_s(self) -> float:
        """The system's time where that is ahead: while a machine sleeps, the clock that times answers stands still."""
        return self._clock.now_s() + max(0.0, self._clock.behind_s())

    def _seen_s(self) -> float:
        """Where windows end. Yesterday's journal is seen as it was then; a gateway's is ahead of this clock where the
        system's was put back after the gateway had started."""
        last_s = self._store.follower.last_s
        if last_s is None:
            return self._now_s()
        return last_s if self._parent is None else max(last_s, self._now_s())

    def _handle(self, exchange: Exchange) -> None:
        try:
            self._guard(exchange)
            if exchange.method == "POST":
                self._post(exchange, exchange.path.removeprefix(API))
            elif exchange.method not in ("GET", "HEAD"):
                raise BadRequest(f"{exchange.method} is not for {exchange.path[:200]}", status=405)
            elif not self._pages.answer(exchange):
                self._get(exchange, exchange.path)
        except BadRequest as error:
            exchange.respond(error.status, (*_JSON, *error.headers), _error(error.status, error.message))

    def _guard(self, exchange: Exchange) -> None:
        if self._token is None:
            refuse_strangers(exchange.headers)
        elif not self._knows(exchange.headers):
            raise BadRequest("This is for the gateway alone; ask at its admin address.", status=403)

    def _knows(self, headers: Mapping[bytes, bytes]) -> bool:
        return self._token is None or compare_digest(headers.get(TOKEN, b""), self._token)

    def _get(self, exchange: Exchange, path: str) -> None:
        name = path.removeprefix(API)
        if path == API + "live":
            self._live.begin(exchange, self._queries.minutes(exchange.query))
        elif path.startswith(DECISIONS):
            request_id = unquote(path[path.index(DECISIONS_OF) + len(DECISIONS_OF) :])
            self._run(exchange, self._explainer.explain(request_id))
        elif path == API + "policy":
            loaded = _loaded(exchange)
            self._answer(exchange, lambda: msgspec.json.encode(self._policies.told(loaded)))
        elif path == API + "policy/preview":
            exchange.respond(200, _JSON, msgspec.json.encode(self._previewer.last))
        elif path == API + "audit":
            exchange.respond(200, _JSON, msgspec.json.encode(self._auditor.last))
        elif path == API + "changes":
            limit = asked(exchange.query, Limit).limit
            self._answer(exchange, lambda: msgspec.json.encode(changes(self._store.folder, limit)))
        elif path == API + "surface":
            wanted = asked(exchange.query, Asked)
            self._answer(exchange, lambda: self._surfaces.answer(wanted), self._surveyor)
        elif path == API + "endpoints":
            self._run(exchange, self._endpoints(self._queries.minutes(exchange.query)))
        elif path.startswith(API) and self._queries.answers(name):
            self._answer(exchange, lambda: self._queries.answer(name, exchange.query))
        else:
            raise BadRequest(f"There is nothing at {path[:200]}.", status=404)

    def _post(self, exchange: Exchange, name: str) -> None:
        """What changes something, or takes long. Raises BadRequest."""
        refuse_forged(exchange.headers)
        if not exchange.headers.get(b"content-type", b"").startswith(b"application/json"):
            raise BadRequest("It takes JSON: content-type: application/json.", status=415)
        who = exchange.headers.get(WHO, b"").decode("ascii", "replace") or f"anybody at {exchange.peer}"
        shown, loaded = SHOWN in exchange.headers, _loaded(exchange)
        match name:
            case "policy/check":
                text = _read(exchange.body, Edited).text
                self._answer(
                    exchange, lambda: msgspec.json.encode(self._policies.check(text, shown=shown)), self._surveyor
                )
            case "policy/preview":
                whole = _read(exchange.body, Edited).text
                verb = "preview", "--json", "--journal", self._played
                self._begin(exchange, self._previewer, verb, policy_of(whole), revision(whole))
            case "policy/apply":
                edited = _read(exchange.body, Edited)
                change = self._policies.apply(edited.text, edited.revision, loaded, who, shown=shown)
                self._run(exchange, self._applied(change))
            case "policy/rollback":
                seen = _read(exchange.body, Seen)
                change = self._policies.roll_back(seen.revision, seen.to, loaded, who, shown=shown)
                self._run(exchange, self._applied(change))
            case "audit":
                _read(exchange.body, Nothing)
                self._begin(exchange, self._auditor, ("audit", "--json", "--journal", self._played))
            case _:
                raise BadRequest(f"There is nothing to be sent to {exchange.path[:200]}.", status=405)

    @property
    def _played(self) -> str:
        if self._journal is None:
            raise BadRequest("There is no journal to play; gateway.journal names a folder for one.", status=409)
        return self._journal

    def _begin(
        self, exchange: Exchange, worker: Worker, verb: tuple[str, ...], text: str | None = None, revision: str = ""
    ) -> None:
        exchange.respond(202, _JSON, msgspec.json.encode(worker.begin(verb, text, revision)))

    async def _endpoints(self, minutes: int) -> bytes:
        known = await self._ask_or_refuse(self._store.follower.known, self._surveyor)
        return await self._ask_or_refuse(lambda: self._queries.endpoints(minutes, known))

    async def _applied(self, change: Coroutine[None, None, Applied]) -> bytes:
        """It is seen through, whoever leaves meanwhile."""
        applied = await asyncio.shield(change)
        body = msgspec.json.encode(applied)
        if applied.problems:
            raise _Refused(body)
        return body

    def _answer(self, exchange: Exchange, ask: Callable[[], bytes], asker: ThreadPoolExecutor | None = None) -> None:
        """With what a question comes to, asked in the thread that may take a while."""
        self._ask_or_refuse(ask, asker).add_done_callback(lambda done: self._tell(exchange, done))

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
        elif isinstance(error, _Refused):
            exchange.respond(422, _JSON, error.body)
        elif isinstance(error, BadRequest):
            exchange.respond(error.status, (*_JSON, *error.headers), _error(error.status, error.message))
        elif is_damage(error):
            text = "The index was damaged, and is made anew; ask again in a second."
            exchange.respond(503, (*_JSON, _RETRY), _error(503, text))
        else:
            # Its text may tell what is in the journal: the kind has to be enough.
            self._log.event("error", "a question failed", error=type(error).__name__)
            exchange.respond(500, _JSON, _error(500, "It met a bug of ours; the log has its kind."))

    async def _found(self, request_id: str) -> tuple[Row | None, str | None]:
        requests = self._requests
        future = self._ask(lambda: (requests.row(request_id), requests.segment_of(request_id)))
        return (None, None) if future is None else await future

    def _ask(self, ask: Callable[[], _T], asker: ThreadPoolExecutor | None = None) -> "asyncio.Future[_T] | None":
        """Have something asked; None where too much waits."""
        if self._waiting >= WAITING_MAX:
            return None
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(asker or self._asker, ask)
        future.add_done_callback(self._asked)
        return future

    def _ask_or_refuse(self, ask: Callable[[], _T], asker: ThreadPoolExecutor | None = None) -> "asyncio.Future[_T]":
        """The same. Raises BadRequest where too much waits."""
        future = self._ask(ask, asker)
        if future is None:
            raise BadRequest("Too many questions wait; ask again in a second.", status=503, headers=(_RETRY,))
        return future

    def _asked(self, done: "asyncio.Future[_T]") -> None:
        self._waiting -= 1
        if not done.cancelled() and is_damage(done.exception()):
            self._discard()

    def _damage_found(self) -> None:
        """By the thread that reads the journal."""
        self._loop.call_soon_threadsafe(self._discard)

    def _discard(self) -> None:
        self.damaged = True
        self._store.discard()
        self._on_damage()

    def _crashed(self, error: Exception) -> None:
        self._log.event("error", "handler failed", error=type(error).__name__)


class Edited(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configuration as somebody has edited it, and of which revision; empty where that does not matter."""

    text: str
    revision: str = ""


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which revision somebody has before him, and to which he wants to go back; empty where that does not matter."""

    revision: str
    to: str = ""


class _Refused(Exception):
    """A change that is not in force, with what is wrong with it."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def _read(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise BadRequest(f"It cannot be read: {error}") from None


def _loaded(exchange: Exchange) -> str:
    """The revision that the gateway has loaded; empty without a gateway."""
    return exchange.headers.get(LOADED, b"").decode("ascii", "replace")


def _error(status: int, message: str) -> bytes:
    return error_body(message, "invalid_request_error", None, f"http_{status}")
