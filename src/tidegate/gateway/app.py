"""The composition root: every object is made here and handed down; nothing is global."""

import asyncio
import os
from collections.abc import Iterable

from tidegate import __version__
from tidegate.clock import Clock
from tidegate.config.address import is_loopback
from tidegate.config.build import Built
from tidegate.config.secret import Secret
from tidegate.core.model import JOURNAL_VERSION, Endpoint, Segment
from tidegate.core.profile import Profile
from tidegate.core.router import Router
from tidegate.engines.kinds import KINDS
from tidegate.gateway.admin import Admin
from tidegate.gateway.auth import Auth
from tidegate.gateway.canary import Canary
from tidegate.gateway.catalogue import Catalogue
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.handle import Handler
from tidegate.gateway.keep import Keeper
from tidegate.gateway.probe import Prober
from tidegate.gateway.spending import Spending
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Origin, Pool
from tidegate.http.limits import Limits
from tidegate.http.server import Server
from tidegate.state.keys import KeyFile, caps
from tidegate.state.ledger import Ledger
from tidegate.telemetry.journal import Journal
from tidegate.telemetry.log import Log
from tidegate.telemetry.metrics import Metrics
from tidegate.wire.errors import error_body
from tidegate.wire.intake import ClassTable

# Fail-over may fill an endpoint beyond its concurrency, and probes come on top.
PROBE_CONNECTIONS = 64
# The class of a request that names none: someone waits for it.
DEFAULT_CLASS = "interactive"
# A lease outlives its request by more than clocks and the last bytes take.
LEASE_MARGIN_S = 60.0
# Administration is for people and scrapers: small questions, few at a time.
ADMIN_LIMITS = Limits(body_bytes_max=64 * 1024, connections_max=100)


class Gateway:
    """One gateway: two addresses, the endpoints behind it, and what it has learned of them."""

    def __init__(self, built: Built, clock: Clock) -> None:
        settings = built.gateway
        self._built = built
        self.clock = clock
        self.metrics = Metrics()
        self.log = Log.to(settings.log, clock)
        self.keeper = Keeper(built, clock, self.log)
        self.router = Router(built.endpoints, built.policy, self.keeper.restored.state)
        self.journal = None
        if settings.journal is not None:
            self.journal = Journal(
                settings.journal,
                segment_bytes=settings.journal_segment_bytes,
                total_bytes=settings.journal_total_bytes,
                clock=clock,
                header=self._segment,
                on_problem=lambda text: self.log.event("error", text),
            )
        self.spending = Spending(
            self._ledger(), capped=bool(built.caps), on_problem=lambda text: self.log.event("error", text)
        )
        # The pools belong to a running loop, so the rest is made in `start`.
        self._upstreams: dict[str, Upstream] = {}
        self.canaries: dict[str, Canary] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._admin: Admin
        self.auth: Auth
        self.dispatch: Dispatch
        self.server: Server
        self.admin: Server

    async def start(self) -> None:
        """Listen, having probed every endpoint once."""
        settings = self._built.gateway
        auth = self.auth = self._auth()
        for endpoint in self._built.endpoints:
            self._upstreams[endpoint.name] = self._upstream(endpoint)
        dispatch = self.dispatch = Dispatch(
            clock=self.clock,
            policy=self._built.policy,
            router=self.router,
            upstreams=self._upstreams,
            journal=self.journal,
            metrics=self.metrics,
            log=self.log,
            spending=self.spending,
            request_timeout_s=settings.request_timeout_s,
        )
        self.keeper.begin(dispatch)
        probers = [self._prober(dispatch, name, upstream) for name, upstream in self._upstreams.items()]
        await asyncio.gather(*(p.once() for p in probers))
        for name, upstream in self._upstreams.items():
            self.canaries[name] = Canary(dispatch, upstream, self.clock, self._built.upstreams[name].canary_s)
        handler = Handler(
            dispatch,
            catalogue=Catalogue(self._built.groups, self.router, self.clock.now_s()),
            auth=auth,
            ready=self.ready,
            salt=os.urandom(16),
            instance=os.urandom(4).hex(),
        )
        limits = Limits(body_bytes_max=settings.body_bytes_max, connections_max=settings.connections_max)
        self.server = Server(
            handler,
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
            canaries=self.canaries,
            servers=self._servers,
            key=settings.admin_key,
        )
        self.admin = Server(
            self._admin, limits=ADMIN_LIMITS, clock=self.clock, error_body=_error_body, on_error=self._crashed
        )
        tls = None if settings.tls is None else settings.tls.context()
        await self.server.start(settings.listen.host, settings.listen.port, tls)
        await self.admin.start(settings.admin.host, settings.admin.port, tls)
        watches = [*(p.run() for p in probers), *(c.run() for c in self.canaries.values())]
        self._tasks = [asyncio.create_task(job) for job in (auth.watch(), *watches)]
        if tls is None and not (is_loopback(settings.listen.host) and is_loopback(settings.admin.host)):
            self.log.event("warning", "keys and prompts cross the network in the clear; set gateway.tls")
        self.log.event("info", "listening", port=self.server.port, admin_port=self.admin.port, version=__version__)

    async def stop(self) -> None:
        """Finish what is under way, for a bounded time, then close everything."""
        self._draining = True
        await self.server.close(self._built.gateway.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.admin.close(0.0)
        await self._admin.close()
        self.auth.close()
        self.dispatch.close()
        await self.keeper.close()
        for upstream in self._upstreams.values():
            await upstream.pool.close()
        if self.journal is not None:
            await self.journal.close()
        self.spending.close()
        self.log.event("info", "stopped")
        self.log.close()

    def ready(self) -> bool:
        """Whether a request may be sent here: some endpoint is up, and the gateway is not going down."""
        return not self._draining and any(self.router.endpoint(n).state.up for n in self._upstreams)

    def _auth(self) -> Auth:
        """Raises KeysError where the file of keys cannot be read."""
        settings = self._built.gateway
        return Auth(
            None if settings.keys is None else KeyFile(settings.keys),
            models=tuple(sorted(self._built.groups)),
            classes=ClassTable(classes=self._built.classes, default=DEFAULT_CLASS),
            clock=self.clock,
            log=self.log,
            on_change=self._budgets,
        )

    def _budgets(self, profiles: Iterable[Profile]) -> None:
        """The budgets of keys hold beside that of all."""
        self.spending.limit((*self._built.caps, *caps(profiles)))

    def _servers(self) -> tuple[Server, Server]:
        return self.server, self.admin

    def _segment(self) -> Segment:
        return Segment(
            version=JOURNAL_VERSION,
            software=f"tidegate {__version__}",
            policy=self._built.policy,
            endpoints=self._built.endpoints,
            state=self.router.snapshot(),
        )

    def _ledger(self) -> Ledger | None:
        """What was spent is known wherever anything costs money. Raises LedgerError."""
        built = self._built
        if not built.caps and not any(endpoint.price.asks_money for endpoint in built.endpoints):
            return None
        return Ledger.open(built.ledger, built.caps, built.gateway.request_timeout_s + LEASE_MARGIN_S)

    def _upstream(self, endpoint: Endpoint) -> Upstream:
        table = self._built.upstreams[endpoint.name]
        assert table.url is not None, "every endpoint has an address"
        pool = Pool(
            Origin(table.url.host, table.url.port, table.tls()),
            clock=self.clock,
            connections_max=endpoint.concurrency + PROBE_CONNECTIONS,
            connect_timeout_s=table.connect_timeout_s,
        )
        dialect = KINDS[table.engine.value](table.url.path, table.model or None)
        return Upstream(endpoint, dialect, pool, table.model or None, dialect.headers(_key(table.key)))

    def _prober(self, dispatch: Dispatch, name: str, upstream: Upstream) -> Prober:
        table = self._built.upstreams[name]
        written = None if table.asks_context else upstream.endpoint.context_tokens
        return Prober(dispatch, upstream, self.clock, table.probe_s, written, asks_media=table.asks_media)

    def _crashed(self, error: Exception) -> None:
        self.metrics.crashed()
        # The type alone: a message may quote what the client sent.
        self.log.event("error", "handler failed", error=type(error).__name__)


def _key(secret: Secret | None) -> tuple[tuple[bytes, bytes], ...]:
    if secret is None:
        return ()
    return ((b"authorization", b"Bearer " + secret.reveal().encode()),)


def _error_body(status: int, message: str) -> tuple[bytes, bytes]:
    kind = "invalid_request_error" if status < 500 else "api_error"
    return b"application/json", error_body(message, kind, None, f"http_{status}")
