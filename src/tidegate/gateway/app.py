"""The composition root: every object is made here and handed down; nothing is global."""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Set
from typing import Any

import msgspec

from tidegate import __version__
from tidegate.clock import Clock
from tidegate.config.address import is_loopback
from tidegate.config.build import Built, build
from tidegate.config.config import Config
from tidegate.config.door import Tls
from tidegate.config.schema import INTERACTIVE
from tidegate.core.begun import under_way
from tidegate.core.model import JOURNAL_VERSION, Overrides, Segment
from tidegate.core.profile import Profile
from tidegate.core.revive import reconfigured
from tidegate.core.router import Router
from tidegate.gateway.admin import Admin
from tidegate.gateway.auth import Auth
from tidegate.gateway.board import Board
from tidegate.gateway.catalogue import Catalogue
from tidegate.gateway.changes import Changes
from tidegate.gateway.control import Control, told
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.explainer import Explainer
from tidegate.gateway.fleet import Fleet, Member
from tidegate.gateway.handle import Handler
from tidegate.gateway.keep import Keeper
from tidegate.gateway.rehearsal import Rehearsal
from tidegate.gateway.reload import Reloader
from tidegate.gateway.spending import Spending
from tidegate.gateway.switchback import Switchback
from tidegate.gateway.tending import tended
from tidegate.gateway.timekeeper import Timekeeper
from tidegate.gateway.tracing import Tracing
from tidegate.http.limits import Limits
from tidegate.http.server import Server, check_free
from tidegate.state.keys import KeyFile, caps
from tidegate.state.ledger import Ledger
from tidegate.telemetry.journal import Journal
from tidegate.telemetry.log import Log, where
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.tick import Tick
from tidegate.wire.board import Wish
from tidegate.wire.errors import error_body
from tidegate.wire.intake import ClassTable

# A lease outlives its request by more than clocks and the last bytes take.
LEASE_MARGIN_S = 60.0
# A client that keeps its connection, and asks now and then, learns within this of a gateway that goes down from the
# answer to its last request, and not from a connection that is gone.
IDLE_S = 1.0
# Administration is for people and scrapers: small questions, few at a time.
# A configuration that is edited on a page has a megabyte at most, and as JSON twice that.
ADMIN_LIMITS = Limits(body_bytes_max=2 * 1024 * 1024 + 1024, connections_max=100)


class Gateway:
    """One gateway: two addresses, the endpoints behind it, and what it has learned of them."""

    def __init__(self, config: Config, clock: Clock, source: Callable[[], Config] | None = None) -> None:
        """`source` gives the configuration as it is now, for a reload; None where there is nothing to read again."""
        built = self._built = build(config, clock.now_s())
        settings = built.gateway
        self.clock = clock
        self.metrics = Metrics()
        # All that comes in a tick shares its end, and each step of that.
        self._tick = Tick()
        self.log = Log.to(settings.log, clock, self._tick)
        self.keeper = Keeper(built, clock, self.log)
        self.router = Router(built.endpoints, built.policy, self.keeper.restored.state)
        # Begun in `start`, when nothing else is in the way of it.
        self.journal: Journal | None = None
        self.spending = Spending(
            _open_ledger(built),
            capped=bool(built.caps),
            paced=built.paced,
            on_problem=lambda text: self.log.event("error", text),
            tick=self._tick,
        )
        changes = self._changes = Changes(settings.journal, clock=clock, log=self.log)
        self.reloader = Reloader(
            config, source, self.put_in_force, clock=clock, log=self.log, metrics=self.metrics, changes=changes
        )
        self.board = None
        if settings.dashboard:
            self.board = Board(settings.journal, config.file, self._fulfil, self._loaded, clock=clock, log=self.log)
        self.switchback = Switchback(config, self.reloader.put, clock=clock, log=self.log)
        self.rehearsal = Rehearsal(
            settings.journal, settings.backtest_s, clock=clock, log=self.log, metrics=self.metrics
        )
        self.switchback.overrides = lambda: self.router.overrides
        # The pools belong to a running loop, so the rest is made in `start`.
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        # Requests that were under way where a reload has taken the endpoint out.
        self._elsewhere: Set[str] = frozenset()
        self._tls: ssl.SSLContext | None = None
        self._admin: Admin
        self._explainer: Explainer
        self._handler: Handler
        self.auth: Auth
        self.dispatch: Dispatch
        self.fleet: Fleet
        self.server: Server
        self.admin: Server
        self.timekeeper: Timekeeper
        self.tracing: Tracing | None = None

    async def start(self) -> None:
        """Listen, having probed every endpoint once. Raises OSError where an address or the journal's folder cannot be
        had, KeysError where the file of keys cannot be read."""
        built, settings = self._built, self._built.gateway
        auth = self.auth = self._auth()
        tls = self._tls = None if settings.tls is None else settings.tls.context()
        # Whoever has these may be another gateway with the same journal: one that cannot start leaves nothing in it.
        for address in (settings.listen, settings.admin):
            await check_free(address.host, address.port)
        self.journal = self._journal()
        dispatch = self.dispatch = Dispatch(
            clock=self.clock,
            policy=built.policy,
            router=self.router,
            journal=self.journal,
            metrics=self.metrics,
            log=self.log,
            spending=self.spending,
            request_timeout_s=settings.request_timeout_s,
            tick=self._tick,
        )
        dispatch.couriers = Couriers(settings.couriers, self.clock, self.log)
        dispatch.couriers.configure(built.upstreams)
        dispatch.switchback, self.switchback.unseen = self.switchback, dispatch.unseen
        if settings.traces is not None:
            self.tracing = Tracing(settings.traces, self.log)
            dispatch.tracer = self.tracing.tracer
        self.keeper.begin(dispatch)
        self.fleet = Fleet(dispatch)
        self._take_over(await self.fleet.prepare(built))
        explainer = self._explainer = Explainer()
        self._handler = Handler(
            dispatch,
            catalogue=self._catalogue(),
            auth=auth,
            ready=self.ready,
            explainer=explainer,
            segment=self._segment,
            salt=os.urandom(16),
            instance=os.urandom(4).hex(),
        )
        limits = Limits(body_bytes_max=settings.body_bytes_max, connections_max=settings.connections_max)
        self.server = Server(
            self._handler,
            limits=limits,
            clock=self.clock,
            error_body=_error_body,
            knows=auth.knows,
            on_error=self._crashed,
        )
        self._admin = Admin(
            dispatch,
            ready=self.ready,
            journal=self.journal,
            keeper=self.keeper,
            canaries=self.fleet.canaries,
            rehearsed=lambda: self.rehearsal.last,
            classes=lambda: self._built.classes,
            control=Control(dispatch, self.reloader, self.keeper, self._changes),
            server=self.server,
            spans=lambda: {} if self.tracing is None else self.tracing.statistics(),
            key=settings.admin_key,
            board=self.board,
            secure=settings.tls is not None,
        )
        self.admin = Server(
            self._admin,
            limits=ADMIN_LIMITS,
            clock=self.clock,
            error_body=_error_body,
            knows=self._admin.knows,
            on_error=self._crashed,
        )
        await self.server.start(settings.listen.host, settings.listen.port, tls)
        await self.admin.start(settings.admin.host, settings.admin.port, tls)
        self.timekeeper = Timekeeper(self.clock, self.log, self._is_quiet)
        watchers = (auth, self.reloader, self.timekeeper, self.switchback, self.rehearsal, self.log)
        self._tasks = [tended(one.watch) for one in (*watchers, *(() if self.board is None else (self.board,)))]
        if tls is None and not (is_loopback(settings.listen.host) and is_loopback(settings.admin.host)):
            self.log.event("warning", "keys and prompts cross the network in the clear; set gateway.tls")
        if (overrides := self.router.overrides) != Overrides():
            self.log.event("warning", "overrides in force from before", **told(overrides))
        self.log.event("info", "listening", port=self.server.port, admin_port=self.admin.port, version=__version__)

    async def put_in_force(self, config: Config, *, by_hand: bool) -> Config:
        """Go on with other settings; requests under way are not touched. Returns what is in force then: where a trial
        of these settings goes on, the arm whose turn it is.

        `by_hand`: operators have asked for it, and so vouch for the models as they are now. OSError or LedgerError
        where they cannot be put in force; then those before still are.
        """
        if by_hand:
            file, config = config, self.switchback.turn_of(config)
        else:
            file = self.switchback.file_settings(config)
        built = build(config, self.clock.now_s())
        if self._tls is not None and built.gateway.tls is not None:
            self._renew(self._tls, built.gateway.tls)
        doubted, vouched = self._vouched() if by_hand else (frozenset[str](), frozenset[str]())
        if built == self._built and not vouched:
            if by_hand:
                self.switchback.configure(file, config)
            return config
        members = await self.fleet.prepare(built, doubted)
        try:
            ledger = _open_ledger(built) if self.spending.ledger is None else None
        except BaseException:
            await self.fleet.discard(members)
            raise
        # From here on nothing waits and nothing fails: no request sees half of it.
        self.fleet.release(members)
        if ledger is not None:
            self.spending.open(ledger)
        if self.journal is None:
            self._configure(built, members, vouched)
        else:
            self.journal.turn(lambda: self._configure(built, members, vouched))
        self._take_over(members)
        self.auth.serve(tuple(sorted(built.groups)), _class_table(built), _sites(built))
        self._budgets(self.auth.spenders())
        self._handler.catalogue = self._catalogue()
        self._admin.guard(built.gateway.admin_key)
        # What is learned under a candidate is the file's all the same: a restart goes on with that.
        self.keeper.configure(built if file is config else build(file, self.clock.now_s()))
        self.metrics.forget(frozenset(members))
        if by_hand:
            self.switchback.configure(file, config)
        return config

    async def _fulfil(self, wish: Wish) -> bytes:
        """The dashboard has changed the file for an operator."""
        return msgspec.json.encode(await self.reloader.reload(wish.who, what=wish.what))

    def _loaded(self) -> str:
        """Which revision of the file that was read last and not refused."""
        return self.reloader.config.revision

    def _vouched(self) -> tuple[frozenset[str], frozenset[str]]:
        """Endpoints whose models are known not to be what they were at first, and all that may not be: one whose engine
        was just started with another is told apart by no probe yet, and by none while that is loaded."""
        models = [self.router.endpoint(name) for name in self.dispatch.upstreams]
        doubted = frozenset(model.name for model in models if model.identity.doubts or model.state.drifted)
        return doubted, doubted.union(model.name for model in models if model.state.trusted is not None)

    def _renew(self, context: ssl.SSLContext, tls: Tls) -> None:
        """Also where the file says what it said: certificates are renewed in place."""
        try:
            tls.renew(context)
        except (OSError, ValueError) as error:
            # A reload has found them good; the prices of a new day do not wait for who is writing them just now.
            self.log.event("error", "certificate not renewed; the one before is shown", reason=str(error))

    def _configure(self, built: Built, members: dict[str, Member], vouched: frozenset[str]) -> None:
        """The router goes on with what it knows, as far as that still holds; a journal segment begins with it."""
        before, after = self._built, built
        known = {e.name: e for e in before.endpoints}
        both = [e for e in after.endpoints if e.name in known]
        fingerprints = self.keeper.fingerprints(before), self.keeper.fingerprints(after)
        same = {e.name for e in both if fingerprints[0][e.name] == fingerprints[1][e.name]}
        reached = {e.name for e in both if before.upstreams[e.name].reaches(after.upstreams[e.name])}
        rekeyed = {e.name for e in both if before.upstreams[e.name].key != after.upstreams[e.name].key}
        state = reconfigured(
            self.router.state,
            after.endpoints,
            after.policy,
            before.policy,
            same,
            reached - same,
            vouched,
            rekeyed,
            before.endpoints,
            self.clock.now_s(),
        )
        self._built = after
        self._elsewhere = self.dispatch.live - under_way(state)
        self.router = Router(after.endpoints, after.policy, state)
        self.dispatch.configure(
            self.router,
            {name: member.upstream for name, member in members.items()},
            reached,
            after.policy,
            after.gateway.request_timeout_s,
        )
        self.dispatch.couriers.configure(after.upstreams)

    def _take_over(self, members: dict[str, Member]) -> None:
        self.dispatch.upstreams = {name: member.upstream for name, member in members.items()}
        for seen, outage in self.fleet.take_over(members):
            self.dispatch.probed(seen, outage)

    async def stop(self) -> None:
        """Finish what is under way, for a bounded time, tell who has to go without, then close everything."""
        self._draining = True
        await self.server.close(self._built.gateway.drain_s, IDLE_S, self.dispatch.stop)
        await self.reloader.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.switchback.close()
        await self.admin.close(0.0)
        await self._admin.close()
        await self._explainer.close()
        await self._changes.close()
        self.auth.close()
        self.dispatch.close()
        await self.keeper.close()
        await self.dispatch.couriers.close()
        await self.fleet.close()
        if self.tracing is not None:
            await self.tracing.close()
        if self.journal is not None:
            await self.journal.close()
        self.spending.close()
        self.log.event("info", "stopped")
        self.log.close()

    def ready(self) -> bool:
        """Whether a request may be sent here: some endpoint is up and not drained, and we do not go down."""
        models = [self.router.endpoint(name) for name in self.dispatch.upstreams]
        return not self._draining and any(model.state.up and not model.drained for model in models)

    def _is_quiet(self) -> bool:
        """Whether nothing is under way that is timed: no request nor a part of one, no answer, no probe, no errand."""
        pools = [upstream.pool.statistics() for upstream in self.dispatch.upstreams.values()]
        asked = not all(pool.open == pool.idle and not pool.waiting for pool in pools)
        return not self.dispatch.in_flight and not asked and self.server.idle and self.admin.idle

    def _journal(self) -> Journal | None:
        """It begins with what is known. Raises `OSError` where its folder cannot be used."""
        settings = self._built.gateway
        if settings.journal is None:
            return None
        return Journal(
            settings.journal,
            segment_bytes=settings.journal_segment_bytes,
            total_bytes=settings.journal_total_bytes,
            clock=self.clock,
            header=self._segment,
            packs=settings.journal_packs,
            on_problem=lambda text: self.log.event("error", text),
            tick=self._tick,
        )

    def _auth(self) -> Auth:
        """Raises KeysError where the file of keys cannot be read."""
        settings = self._built.gateway
        return Auth(
            None if settings.keys is None else KeyFile(settings.keys),
            models=tuple(sorted(self._built.groups)),
            classes=_class_table(self._built),
            sites=_sites(self._built),
            clock=self.clock,
            log=self.log,
            on_change=self._budgets,
        )

    def _budgets(self, profiles: Iterable[Profile]) -> None:
        """The budgets of keys hold beside that of all."""
        self.spending.limit((*self._built.caps, *caps(profiles)), paced=self._built.paced)

    def _segment(self) -> Segment:
        return Segment(
            version=JOURNAL_VERSION,
            software=f"tidegate {__version__}",
            policy=self._built.policy,
            endpoints=self._built.endpoints,
            state=self.router.snapshot(),
            # There is no dispatch yet when the first one begins.
            going_on=tuple(sorted(self._elsewhere & self.dispatch.live)) if self._elsewhere else (),
        )

    def _catalogue(self) -> Catalogue:
        return Catalogue(self._built.groups, self.router, self.clock.now_s())

    def escaped(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For a loop, as what it calls with exceptions that nobody has caught: its own way to tell of one quotes what
        the exception says, and with it maybe what a client has sent."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self._crashed(error)
        else:
            self.log.event("error", "told by the loop", message=context["message"])

    def _crashed(self, error: Exception) -> None:
        self.metrics.crashed()
        self.log.event("error", "fault of ours", error=where(error))


def _class_table(built: Built) -> ClassTable:
    return ClassTable(classes=built.classes, default=INTERACTIVE, rules=built.rules)


def _sites(built: Built) -> frozenset[str]:
    """Where anything is."""
    return frozenset(endpoint.site for endpoint in built.endpoints)


def _open_ledger(built: Built) -> Ledger | None:
    """What was spent is known wherever anything costs money. Raises LedgerError."""
    if not built.caps and not any(endpoint.price.asks_money for endpoint in built.endpoints):
        return None
    return Ledger.open(built.ledger, built.caps, built.gateway.request_timeout_s + LEASE_MARGIN_S)


def _error_body(status: int, message: str) -> tuple[bytes, bytes]:
    kind = "invalid_request_error" if status < 500 else "api_error"
    return b"application/json", error_body(message, kind, None, f"http_{status}")
