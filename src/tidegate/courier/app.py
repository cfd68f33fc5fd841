"""The courier: where its parts are put together, and who is answered what."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from tidegate.clock import Clock
from tidegate.config.courier import CourierConfig
from tidegate.courier.admission import Admission
from tidegate.courier.counts import Counts
from tidegate.courier.engine import Engine, Look
from tidegate.courier.folder import Folder
from tidegate.courier.refusal import EXPIRED, STATUS, RefusalError
from tidegate.courier.source import Source
from tidegate.courier.target import Target
from tidegate.http.client import Origin, Pool
from tidegate.http.server import Exchange, Limits, Server
from tidegate.telemetry.log import Log
from tidegate.wire.courier import MESSAGE_BYTES_MAX, Health, Received, Refused, Restore, Restored, Ship, Shipped, Why
from tidegate.wire.errors import UNREADABLE

BLOBS = "/v1/blobs"
SWEEP_S = 1.0  # how much later than it should a blob may be removed
STOP_S_MAX = 2.0  # for what is under way, and for answers that are being written
CLOCK_OFF_S = 1.0  # tickets may be from a clock that is ahead by more than that
BACK = (
    "the system's clock was put back; tickets are judged by the time before, by which they expire sooner or have "
    "expired, until it is there again or the courier is restarted"
)
_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]

# Few machines talk to a courier, and what they say fits into a packet or two, but for blobs.
_LIMITS = Limits(
    header_bytes_max=MESSAGE_BYTES_MAX,
    headers_max=32,
    target_bytes_max=1024,
    body_bytes_max=MESSAGE_BYTES_MAX,
    body_timeout_s=10.0,
    connections_max=256,
)

Answer = Received | Shipped | Restored
_T = TypeVar("_T", Ship, Restore)


class Courier:
    """One courier, running between `start` and `stop`."""

    def __init__(self, config: CourierConfig, clock: Clock) -> None:
        courier, url = config.courier, config.engine_url
        self._config = config
        self._clock = clock
        self._folder = Folder(config.folder, courier.space_mib << 20, courier.unclaimed_s)
        self._pool = Pool(Origin(url.host, url.port), clock=clock)
        self._engine = Engine(self._pool, url.path, config.engine, config.engine_key)
        admission = Admission(config.secret.reveal(), courier.transfers_max, clock.now_s())
        self._source = Source(courier.name, self._engine, self._folder, admission, clock, config.tls.client())
        self._target = Target(courier.name, self._engine, self._folder, admission, clock)
        self._counts = Counts(lambda: self._folder.free_bytes, lambda: self._folder.held)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._swept = True  # the last time; once is said that it could not be
        self._unseen = ""  # why it was not seen what the engine is; empty where it was
        self._told_s = 0.0  # how far behind the system's clock was found, and told
        self._log: Log
        self._server = Server(
            self._handle,
            limits=_LIMITS,
            clock=clock,
            error_body=lambda _, message: (_JSON[0][1], _refused(Why.BAD_REQUEST, message)),
            streams=lambda method, target: method == b"PUT" and target == BLOBS.encode(),
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def start(self, log: Log) -> None:
        """Listen. Raises `FolderError`, or `OSError` for an address that cannot be had."""
        self._folder.open()
        self._log = log
        listen = self._config.listen
        await self._server.start(listen.host, listen.port, self._config.tls.server())
        self._sweep()
        # A large model's file takes a minute to hash: better now than in the first request.
        task = asyncio.get_running_loop().create_task(self._look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End what is under way, and leave no blob behind, nor a name under which an engine could still save one."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._tasks:
            # A slot that is being saved is in the folder when it is saved, whoever still waits for it.
            await asyncio.wait(self._tasks, timeout=STOP_S_MAX)
        await self._end_tasks()
        await self._server.close(grace_s=STOP_S_MAX)
        await self._end_tasks()  # what was asked meanwhile
        await self._pool.close()
        self._folder.close()

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handle(self, exchange: Exchange) -> None:
        match exchange.method, exchange.path:
            case "PUT", "/v1/blobs":
                self._run(exchange, "receive", self._receive)
            case "POST", "/v1/ship":
                self._run(exchange, "ship", self._ship)
            case "POST", "/v1/restore":
                self._run(exchange, "restore", self._restore)
            case "DELETE", path if path.startswith(f"{BLOBS}/"):
                self._run(exchange, "discard", self._discard)
            case "GET", "/health":
                self._run(exchange, "health", self._health)
            case "GET", "/metrics":
                exchange.respond(200, _TEXT, self._counts.text())
            case _:
                exchange.respond(404, _JSON, _refused(Why.BAD_REQUEST, "a courier is not asked for that"))

    def _run(self, exchange: Exchange, verb: str, answer: Callable[[Exchange], Awaitable[Answer | None]]) -> None:
        """In a task, which ends when the asker leaves."""

        async def run() -> None:
            try:
                done = await answer(exchange)
            except RefusalError as refusal:
                self._refuse(exchange, verb, refusal)
            except TimeoutError:
                self._refuse(exchange, verb, RefusalError(Why.TIMEOUT, EXPIRED))
            except Exception as error:
                # Its text may tell what this process holds: the kind has to be enough.
                self._log.event("error", f"{verb} failed", error=type(error).__name__)
                exchange.abort()
            else:
                if done is not None:
                    self._counts.done(verb, done.size_bytes)
                    fields = msgspec.structs.asdict(done)
                    fields.pop("name", None)  # whoever knows it may have it restored
                    self._log.event("info", f"{verb} done", **fields)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def left() -> None:
            self._counts.left(verb)
            self._log.event("warning", f"{verb} ended: whoever asked has left")
            task.cancel()

        exchange.on_left = left

    def _refuse(self, exchange: Exchange, verb: str, refusal: RefusalError) -> None:
        self._counts.failed(verb, refusal.why)
        self._log.event("warning", f"{verb} refused", why=refusal.why, reason=refusal.message)
        exchange.respond(STATUS[refusal.why], _JSON, _refused(refusal.why, refusal.message, refusal.sent_bytes))

    # ------------------------------------------------------------------ what is asked

    async def _receive(self, exchange: Exchange) -> Received:
        received = await self._target.receive(exchange)
        exchange.respond(201, _JSON, msgspec.json.encode(received))
        return received

    async def _ship(self, exchange: Exchange) -> Shipped:
        self._only_the_gateway(exchange)
        shipped = await self._source.ship(_decoded(exchange.body, Ship))
        exchange.respond(200, _JSON, msgspec.json.encode(shipped))
        return shipped

    async def _restore(self, exchange: Exchange) -> Restored:
        self._only_the_gateway(exchange)
        restored = await self._target.restore(_decoded(exchange.body, Restore))
        exchange.respond(200, _JSON, msgspec.json.encode(restored))
        return restored

    async def _discard(self, exchange: Exchange) -> None:
        self._only_the_gateway(exchange)
        self._target.discard(exchange.path.removeprefix(f"{BLOBS}/"))
        self._counts.done("discard")
        exchange.respond(204, [], b"")

    async def _health(self, exchange: Exchange) -> None:
        look = await self._look()
        health = Health(
            name=self._config.courier.name,
            fingerprint=None if look is None else look.kv.digest,
            kv=None if look is None else look.kv,
            slot_tokens_max=0 if look is None else look.slot_tokens_max,
            space_bytes=self._folder.space_bytes,
            free_bytes=self._folder.free_bytes,
            reason=self._unseen,
        )
        exchange.respond(200, _JSON, msgspec.json.encode(health))

    async def _look(self) -> Look | None:
        """What the engine is, None where that cannot be seen; why is logged whenever it is another reason."""
        look: Look | None = None
        reason = ""
        try:
            look = await self._engine.look()
        except RefusalError as refusal:
            reason = refusal.message
        if reason != self._unseen:
            self._unseen = reason
            if reason:
                self._log.event("warning", "nothing can be handed over", reason=reason)
            else:
                self._log.event("info", "the engine answers")
        return look

    def _only_the_gateway(self, exchange: Exchange) -> None:
        if self._config.courier.gateway not in exchange.peer_names:
            raise RefusalError(Why.FORBIDDEN, "only the gateway may ask for that, by its certificate")

    def _keep_time(self) -> None:
        """After a sleep of the machine tickets are from the future, and none would ever be taken again.

        A clock that was put back is told, and not followed: tickets that were used would be good once more.
        """
        behind_s = self._clock.behind_s()
        if behind_s > CLOCK_OFF_S and not self._tasks and not self._folder.held:
            self._clock.catch_up()
            self._log.event("warning", "clock put forward: the machine slept, or its clock was set", by_s=behind_s)
        elif behind_s >= -CLOCK_OFF_S:
            self._told_s = 0.0
        elif abs(behind_s - self._told_s) > CLOCK_OFF_S:
            self._told_s = behind_s
            self._log.event("warning", BACK, by_s=-behind_s)

    def _sweep(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self._keep_time()
        try:
            expired = self._folder.sweep(self._clock.now_s())
        except OSError as error:
            # No file can be opened for a moment, say: what lies there is somebody's prompt, and goes next time.
            if self._swept:
                self._log.event("error", "the folder cannot be swept", error=error.strerror)
            self._swept = False
            return
        self._swept = True
        for _ in range(expired):
            self._counts.done("expire")


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise RefusalError(Why.BAD_REQUEST, f"what is asked cannot be read: {error}") from error


def _refused(why: Why, message: str, sent_bytes: int = 0) -> bytes:
    return msgspec.json.encode(Refused(why=why, message=message, sent_bytes=sent_bytes))
