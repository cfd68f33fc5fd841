"""The admin address: cheap state only. What takes long runs in a process of its own."""

from collections.abc import Callable, Mapping
from hmac import compare_digest
from math import ceil, inf

import msgspec

from tidegate.config.secret import Secret
from tidegate.core.handover import HandoverModel
from tidegate.core.memory import Memory
from tidegate.core.model import RequestClass
from tidegate.core.others import Others
from tidegate.core.state import WarmUp
from tidegate.core.why import WHY_TEXT, Why
from tidegate.gateway.auth import CHALLENGE, bearer
from tidegate.gateway.board import Board
from tidegate.gateway.canary import Canary
from tidegate.gateway.control import ROUTES, Control
from tidegate.gateway.dispatch import Dispatch, Recent
from tidegate.gateway.explainer import BUSY, RETRY, Explainer
from tidegate.gateway.keep import Keeper
from tidegate.gateway.rehearsal import Rehearsed
from tidegate.gateway.reply import JSON, Headers
from tidegate.gateway.sessions import Sessions, cookie
from tidegate.http.origin import refuse_forged, refuse_strangers
from tidegate.http.server import Exchange, Server
from tidegate.state.cap import Cap, Status
from tidegate.state.keys import digest
from tidegate.telemetry.counts import LABELS_MAX
from tidegate.telemetry.explain import may_be_id, says_nowhere
from tidegate.telemetry.exposition import HttpCounts, MoneyCounts, exposition
from tidegate.telemetry.journal import Journal
from tidegate.wire.errors import UNREADABLE, BadRequest, error_body

# Kubernetes' probes carry no secret, and learn nothing.
_UNGUARDED = frozenset({"/livez", "/readyz"})
NO_STORE = (b"cache-control", b"no-store")
_ROUTES = f"/livez, /readyz, /metrics, /api/state, /api/decisions/ID, /api/switchback, {ROUTES}"


class Admin:
    """Answers every request on the admin address."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        ready: Callable[[], bool],
        journal: Journal | None,
        keeper: Keeper,
        canaries: Callable[[], Mapping[str, Canary]],
        rehearsed: Callable[[], Rehearsed | None],
        classes: Callable[[], Mapping[str, RequestClass]],
        control: Control,
        server: Server,
        spans: Callable[[], Mapping[str, int]],
        key: Secret | None,
        board: Board | None,
        secure: bool,
    ) -> None:
        """`key` opens everything but the two questions whether we live; without one, all of it is open.

        Pages are those of the `board`, None where there are none. `secure`: TLS guards the way to us.
        """
        self._dispatch = dispatch
        self._ready = ready
        self._journal = journal
        self._keeper = keeper
        self._canaries = canaries
        self._rehearsed = rehearsed
        self._classes = classes
        self._server = server
        self._spans = spans
        self._control = control
        # Its own: what clients ask keeps no operator waiting.
        self._explainer = Explainer()
        self._board = board
        self._sessions = Sessions(dispatch.clock, self._left)
        self._secure = secure
        self._digest: bytes | None = None
        self.guard(key)

    def guard(self, key: Secret | None) -> None:
        """This secret opens it from now on; who has logged in with another does so again."""
        wanted = None if key is None else digest(key.reveal().encode())
        if wanted != self._digest:
            self._sessions.end_all()
            if self._board is not None:
                self._board.hang_up()
        self._digest = wanted

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether who sends these may do what it asks for."""
        return self._opens(bearer(headers)) or self._sessions.name(headers) is not None

    async def close(self) -> None:
        """Stop explaining, and reloading."""
        await self._control.close()
        await self._explainer.close()

    def __call__(self, exchange: Exchange) -> None:
        """Answer, now or later."""
        path = exchange.path
        try:
            if path in _UNGUARDED:
                self._answer(exchange, path)
            elif path in ("/login", "/logout") and exchange.method == "POST":
                self._log_in(exchange)
            elif (who := self._who(exchange, path)) is None:
                self._turn_away(exchange, path)
            elif self._board is not None and _is_page(path):
                self._board.relay(exchange, who, shown=self._digest is not None)
            elif not self._control.answers(exchange, who):
                self._answer(exchange, path)
        except BadRequest as error:
            _error(exchange, error.status, error.message, error.headers, error.code)

    def _who(self, exchange: Exchange, path: str) -> str | None:
        """Who asks, in words for people; None who has shown nothing. Raises BadRequest for pages of others."""
        headers, reads = exchange.headers, exchange.method in ("GET", "HEAD")
        if self._digest is None:
            refuse_strangers(headers)
            return f"anybody at {exchange.peer}"
        if self._opens(bearer(headers)):
            return f"admin_key from {exchange.peer}"
        if (name := self._sessions.name(headers)) is not None:
            if not reads:
                refuse_forged(headers)
            return f"session {name} from {exchange.peer}"
        # There is nothing in them but what a browser needs to show to log in.
        return "" if reads and (path == "/login" or _is_asset(path)) and self._board is not None else None

    def _turn_away(self, exchange: Exchange, path: str) -> None:
        if path == "/" and self._board is not None and exchange.method in ("GET", "HEAD"):
            exchange.respond(303, ((b"location", b"/login"), NO_STORE), b"")
        else:
            text = "The admin address asks for `Authorization: Bearer` and its secret."
            _error(exchange, 401, text, (CHALLENGE,))

    def _log_in(self, exchange: Exchange) -> None:
        """Or out. Raises BadRequest."""
        refuse_forged(exchange.headers)
        if exchange.path == "/logout":
            self._sessions.end(exchange.headers)
            exchange.respond(204, (cookie("", exchange.headers, secure=self._secure), NO_STORE), b"")
            return
        if self._digest is None or self._board is None:
            raise BadRequest("Nobody has to log in here: there is no gateway.admin_key, or no dashboard.", status=404)
        if (wait_s := self._sessions.wait_s(exchange.peer)) > 0.0:
            retry = (b"retry-after", b"%d" % ceil(wait_s))
            raise BadRequest("Too many have failed to log in; wait a little.", status=429, headers=(retry,))
        try:
            shown = msgspec.json.decode(exchange.body, type=_Shown)
        except UNREADABLE:
            raise BadRequest('POST /login takes {"key": "..."}.') from None
        if not self._opens(shown.key.encode()):
            self._sessions.fail(exchange.peer)
            self._dispatch.log.event("warning", "somebody failed to log in", peer=exchange.peer)
            raise BadRequest("This is not the secret of gateway.admin_key.", status=401)
        self._dispatch.log.event("info", "logged in", peer=exchange.peer)
        given = cookie(self._sessions.begin(), exchange.headers, secure=self._secure)
        exchange.respond(204, (given, NO_STORE), b"")

    def _left(self, session: str) -> None:
        """A session has ended, and with it what is told to it."""
        if self._board is not None:
            self._board.hang_up(f"session {session} ")

    def _answer(self, exchange: Exchange, path: str) -> None:
        if exchange.method not in ("GET", "HEAD"):
            _error(
                exchange, 405, f"{exchange.method} changes nothing here; GET {_ROUTES}.", ((b"allow", b"GET, HEAD"),)
            )
        elif path == "/livez":
            exchange.respond(200, (JSON,), b'{"status":"ok"}')
        elif path == "/readyz":
            good = self._ready()
            exchange.respond(200 if good else 503, (JSON,), b'{"ready":true}' if good else b'{"ready":false}')
        elif path == "/metrics":
            exchange.respond(200, ((b"content-type", b"text/plain; version=0.0.4"),), self._exposition())
        elif path == "/api/state":
            exchange.respond(200, (JSON,), msgspec.json.encode(self._state()))
        elif path == "/api/switchback":
            switchback = self._dispatch.switchback
            exchange.respond(200, (JSON,), msgspec.json.encode(None if switchback is None else switchback.told))
        elif path.startswith("/api/decisions/"):
            self._decision(exchange, path.removeprefix("/api/decisions/"))
        else:
            _error(exchange, 404, f"There is nothing at {path[:200]}; there are {_ROUTES}.")

    def _opens(self, given: bytes | None) -> bool:
        if self._digest is None:
            return True
        # Of digests, so that not even the length of the secret shows in the time that it takes.
        return given is not None and compare_digest(digest(given), self._digest)

    def _exposition(self) -> bytes:
        dispatch = self._dispatch
        seen = self._server.statistics()
        return exposition(
            dispatch.metrics,
            now_s=dispatch.clock.now_s(),
            endpoints=[dispatch.router.endpoint(n) for n in dispatch.upstreams],
            handovers=dispatch.router.handovers,
            held=dispatch.router.held,
            in_flight=dispatch.in_flight,
            worth_factors={name: one["worth_factor"] for name, one in self._targets().items()},
            hedge_left_usd=dispatch.router.hedge_left_usd,
            hedge_price=dispatch.router.hedge_price,
            distances_nats={
                name: canary.status.distance
                for name, canary in self._canaries().items()
                if canary.status.distance is not None
            },
            shares=dispatch.router.shares(dispatch.clock.now_s()),
            overrides=dispatch.router.overrides,
            spans=self._spans(),
            http=HttpCounts(
                connections=seen.open,
                connections_refused=seen.refused,
                protocol_errors=dict(seen.protocol_errors),
            ),
            journal=None if self._journal is None else self._journal.statistics(),
            money=self._money(),
            spending_problem=bool(dispatch.spending.problem),
            log_dropped=dispatch.log.dropped,
        )

    def _targets(self) -> dict[str, dict[str, float]]:
        """The classes with a target, and what of the most one of their promises is worth now."""
        router, now_s = self._dispatch.router, self._dispatch.clock.now_s()
        return {
            name: {"attainment": one.attainment, "worth_factor": router.worth_share(name, now_s)}
            for name, one in self._classes().items()
            if one.attainment is not None
        }

    def _spent(self) -> Status | None:
        """Of many keys, each with budgets of its own, those that run out first are what there is to know."""
        ledger = self._dispatch.spending.ledger
        return None if ledger is None else ledger.status(self._dispatch.clock.now_s(), LABELS_MAX)

    def _money(self) -> MoneyCounts | None:
        ledger, status = self._dispatch.spending.ledger, self._spent()
        if ledger is None or status is None:
            return None
        return MoneyCounts(
            left_usd={(told.cap.period.value, told.cap.key or ""): told.left_usd for told in status.caps},
            prices={(cap.period.value, cap.key or ""): price for cap, price in self._prices(status).items()},
            overruns=status.overruns - ledger.overruns_before,
        )

    def _prices(self, status: Status) -> dict[Cap, float]:
        """What a dollar of each budget is worth beyond itself, of those that are watched."""
        router = self._dispatch.router
        return {
            told.cap: router.budget_price(told.cap.name)
            for told in status.caps
            if told.cap.name in router.state.budgets
        }

    def _state(self) -> dict[str, object]:
        dispatch, now_s = self._dispatch, self._dispatch.clock.now_s()
        canaries, endpoints = self._canaries(), {}
        for name, upstream in dispatch.upstreams.items():
            model = dispatch.router.endpoint(name)
            state = model.state
            endpoints[name] = {
                "site": upstream.endpoint.site,
                "local": upstream.endpoint.local,
                "models": upstream.endpoint.models,
                "up": state.up,
                "down_because": dispatch.outages.because(name),
                "drained": model.drained,
                "pinned": name in dispatch.router.overrides.pinned,
                "breaker": state.breaker.state,
                "breaker_open_for_s": max(0.0, state.breaker.open_until_s - now_s),
                "context_tokens": model.context_tokens,
                "in_flight": len(state.reservations),
                "concurrency": upstream.endpoint.concurrency,
                "at_once": model.places,
                "failing": model.health.failing(now_s),
                "others": _others(model.others, now_s),
                "memory": _memory(model.memory, now_s),
                "rtt_s": model.network.rtt_s,
                "upload_bytes_per_s": model.network.upload_bytes_per_s,
                "cold_start": model.cold.at(now_s, len(state.reservations)),
                "warm_up": _warm_up(state.cold.warm_up, now_s),
                "fingerprint": model.identity.fingerprint,
                "trusted": state.trusted,
                "contradicts": model.identity.doubts,
                "pool": upstream.pool.statistics(),
                "drifted": state.drifted,
                "canary": canaries[name].status,
            }
        return {
            "at_s": now_s,
            "ready": self._ready(),
            "in_flight": dispatch.in_flight,
            "held": dispatch.router.held,
            "static": dispatch.router.overrides.static,
            "static_for_s": max(0.0, dispatch.router.state.static_until_s - now_s),
            "sessions": dispatch.router.sessions,
            "spending_problem": dispatch.spending.problem,
            "budget": (spent := self._spent()),
            "budget_prices": {} if spent is None else {c.name: p for c, p in self._prices(spent).items()},
            "targets": self._targets(),
            "handovers": {one.name: _handover(one, now_s) for one in dispatch.router.handovers},
            "hedging": {
                "left_usd": dispatch.router.hedge_left_usd,
                "price": price if (price := dispatch.router.hedge_price) < inf else None,
            },
            "shares": dispatch.router.shares(now_s),
            "endpoints": endpoints,
            "learned": self._keeper.status(),
            "simulator": self._rehearsed(),
        }

    def _decision(self, exchange: Exchange, decision_id: str) -> None:
        """What the journal tells, and the candidates, which replay recomputes, by a process of its own; without a
        journal, what is remembered."""
        if self._journal is None:
            if (known := self._dispatch.recent.get(decision_id)) is None:
                _error(exchange, 404, "No recent decision has this id; of older ones a journal would tell.")
            else:
                exchange.respond(200, (JSON,), _remembered(known))
        elif not may_be_id(decision_id):
            _error(exchange, 404, "This is no id of a decision.")
        elif self._explainer.busy:
            _error(exchange, 503, BUSY, (RETRY,))
        else:

            def then(said: msgspec.Raw | None, problem: str) -> None:
                exchange.on_left = None
                told = None if said is None else _told(said)
                if told is not None:
                    exchange.respond(200, (JSON,), told)
                elif says_nowhere(problem, decision_id):
                    lost = self._journal.statistics().lost if self._journal is not None else 0
                    more = f"; {lost} of its lines were lost" if lost else ""
                    _error(exchange, 404, f"The journal has no decision of this id{more}.")
                else:
                    _error(exchange, 503, f"The journal cannot tell of this decision: {problem}.")

            exchange.on_left = self._explainer.cancel
            self._explainer.begin(decision_id, then, journal=self._journal.folder)


def _remembered(recent: Recent) -> bytes:
    whys = {one.why: WHY_TEXT[one.why] for _, one in recent.decisions}
    facts = {"request": recent.request, "decisions": recent.decisions, "endings": recent.endings, "why": whys}
    return msgspec.json.encode({**facts, "explained": None})


class _Decided(msgspec.Struct, frozen=True):
    why: Why


class _Explained(msgspec.Struct, frozen=True):
    """Of what `explain` prints of a decision, what is told as facts."""

    at_s: float
    request: msgspec.Raw
    decision: msgspec.Raw
    endings: msgspec.Raw = msgspec.Raw(b"[]")


def _told(said: msgspec.Raw) -> bytes | None:
    """The same of a request whose decisions were explained; None where that broke off."""
    try:
        found = msgspec.json.decode(said, type=list[_Explained])
    except msgspec.MsgspecError:
        return None
    decisions = [(one.at_s, one.decision) for one in found]
    whys = {why: WHY_TEXT[why] for one in found if (why := msgspec.json.decode(one.decision, type=_Decided).why)}
    facts = {"request": found[0].request, "decisions": decisions, "endings": found[-1].endings, "why": whys}
    return msgspec.json.encode({**facts, "explained": said})


class _Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser logs in with."""

    key: str


def _is_page(path: str) -> bool:
    """Whether it is the dashboard that answers this."""
    return path in ("/", "/login") or path.startswith("/api/dashboard/") or _is_asset(path)


def _is_asset(path: str) -> bool:
    """Whether it is a file that comes with the package."""
    return path.startswith("/assets/") or path == "/favicon.ico"


def _warm_up(warm_up: WarmUp, now_s: float) -> dict[str, float | bool]:
    """Whether its model is being loaded for nobody in particular, for when none is begun, and what its absence has
    cost."""
    return {
        "under_way": warm_up.sent is not None,
        "not_for_s": max(0.0, warm_up.not_before_s - now_s),
        "missed_usd": warm_up.missed_usd,
    }


def _handover(one: HandoverModel, now_s: float) -> dict[str, object]:
    """What is on its way, how quick its link is believed to be, and how large caches are beside what is declared."""
    state = one.state
    return {
        "breaker": state.breaker.state,
        "breaker_open_for_s": max(0.0, state.breaker.open_until_s - now_s),
        "one_model": one.source.is_one_with(one.target),
        "under_way": len(state.under_way),
        "bytes_per_s": one.network.upload_bytes_per_s,
        "sent_bytes": state.sent_bytes,
        "sent_to_declared": state.sent_bytes / state.declared_bytes if state.declared_bytes else None,
    }


def _memory(memory: Memory, now_s: float) -> dict[str, int | None] | None:
    """Tokens of context that it has memory for, None where that is not known."""
    spare = memory.spare(now_s)
    if spare is None:
        return None
    return {"kv_tokens_max": spare.tokens_max, "kv_free_tokens": max(0, spare.free_tokens), "slots": memory.slots}


def _others(others: Others, now_s: float) -> dict[str, float] | None:
    """What others are believed to have there, None where no load was ever reported."""
    if not others.told:
        return None
    believed = others.at(now_s)
    return {
        "running": believed.running,
        "queued": believed.queued,
        "known": believed.known,
        "trust": others.trust,
    }


def _error(exchange: Exchange, status: int, message: str, headers: Headers = (), code: str | None = None) -> None:
    body = error_body(message, "invalid_request_error", None, code or f"http_{status}")
    exchange.respond(status, (JSON, *headers), body)
