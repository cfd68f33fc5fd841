"""The client address: what is asked, by whom it is answered."""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec
from msgspec import structs

from tidegate.core.model import Fact, Line, Request, Segment
from tidegate.core.replay import explained
from tidegate.gateway.auth import Auth, Grant
from tidegate.gateway.catalogue import Catalogue
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.drive import Drive
from tidegate.gateway.explainer import BUSY, RETRY, Explainer
from tidegate.gateway.reply import JSON, ErrorReply, echo
from tidegate.gateway.routes import COUNTS, OLLAMA, ROUTES, Route, client_at
from tidegate.http.server import Exchange
from tidegate.wire.anthropic import request
from tidegate.wire.anthropic.client import counted
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import client_request_id, estimated_tokens, intake
from tidegate.wire.knobs import DryRun
from tidegate.wire.ollama import models
from tidegate.wire.translate import Client

_decisions = msgspec.json.Decoder(list[msgspec.Raw]).decode
# A body of so many bytes takes longer to read than most requests take in all: who has come before is decided before.
_LONG_BYTES = 64 * 1024
_ALIVE = frozenset({"/health", "/livez", "/readyz"})
_SERVED = sorted(path for path in ROUTES if path.startswith(("/v1/", "/api/")))


class Handler:
    """Answers every request on the client address."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        catalogue: Catalogue,
        auth: Auth,
        ready: Callable[[], bool],
        explainer: Explainer,
        segment: Callable[[], Segment],
        salt: bytes,
        instance: str,
    ) -> None:
        """`instance` begins every id, so that ids of two processes differ; `salt` keeps digests from being guessed.

        `segment` is what a journal that began now would begin with.
        """
        self._dispatch = dispatch
        self.catalogue = catalogue
        self._auth = auth
        self._ready = ready
        self._explainer = explainer
        self._segment = segment
        self._salt = salt
        self._instance = instance
        self._count = 0

    def __call__(self, exchange: Exchange) -> None:
        """Answer, now or later; nothing here waits."""
        path = exchange.path
        route = ROUTES.get(path)
        grant: Grant | None = None
        try:
            if path in _ALIVE:  # whoever watches over us has no key
                self._alive(exchange)
                return
            grant = self._auth.grant(exchange.headers, exchange.received_s)
            if route is not None:
                self._infer(exchange, route, grant)
            else:
                self._look_up(exchange, path, grant)
        except BadRequest as error:
            self._refuse(exchange, error, client_at(exchange.path), grant)

    def _look_up(self, exchange: Exchange, path: str, grant: Grant) -> None:
        """Answer what is no inference."""
        short = path[3:] if path.startswith("/v1/") else path
        if short == "/models" or short.startswith("/models/"):
            self._list(exchange, short, grant)
        elif path in COUNTS:
            _only(exchange, "POST")
            grant.admit(exchange.received_s)
            call = request.parse(_body(exchange), exchange.headers, counting=True)
            # How many bytes make a token is the model's own: one that is not served has no answer.
            group = self.catalogue.known(call.model).name
            grant.check(call.model, group)
            self._answer(exchange, counted(estimated_tokens(call, self._dispatch.ratio(group))), grant)
        elif path == "/api/tags":
            _only(exchange, "GET")
            self._answer(exchange, models.tags(self.catalogue.facts(name) for name in self._names(grant)), grant)
        elif path == "/api/show":
            _only(exchange, "POST")
            grant.admit(exchange.received_s)
            name = self._plain(models.shown(_body(exchange)))
            grant.check(name, self._canonical(name))
            self._answer(exchange, models.show(self.catalogue.facts(name)), grant)
        elif path == "/api/version":
            _only(exchange, "GET")
            self._answer(exchange, models.version(), grant)
        else:
            raise BadRequest(
                f"There is nothing at {path[:200]}; POST is served at {', '.join(_SERVED)}, GET at /v1/models.",
                status=404,
                code="not_found",
            )

    def _infer(self, exchange: Exchange, route: Route, grant: Grant) -> None:
        _only(exchange, "POST")
        grant.admit(exchange.received_s)
        if len(exchange.body) >= _LONG_BYTES:
            self._dispatch.catch_up()
        call = route.parse(_body(exchange), exchange.headers)
        if exchange.path.startswith(OLLAMA):
            call = structs.replace(call, model=self._plain(call.model))
        request_id = self._new_id()
        group = self.catalogue.group(call.model)
        asked, knobs = intake(
            call,
            exchange.headers,
            id=request_id,
            now_s=exchange.received_s,
            table=grant.classes,
            ratio=self._dispatch.ratio(call.model if group is None else group.name),
            salt=self._salt,
            group=group,
            residency=grant.profile.residency,
            budget_usd=self._dispatch.spending.headroom_usd(grant.profile.id, exchange.received_s),
            budgets=self._dispatch.spending.budgets(grant.profile.id),
            key=grant.profile.id,
            weight=grant.profile.weight,
        )
        grant.check(call.model, asked.model)
        grant.check_fields(call)
        echoed = client_request_id(exchange.headers) or request_id
        if knobs.dry_run is not DryRun.NO:
            self._dry_run(exchange, asked, echoed, grant, flips=knobs.dry_run is DryRun.FLIPS)
        else:
            grant.begin(asked, exchange.received_s)
            Drive(self._dispatch, exchange, call, asked, echoed, grant, route.client).begin()

    def _dry_run(self, exchange: Exchange, asked: Request, echoed: str, grant: Grant, *, flips: bool) -> None:
        """Say what would be done, and do nothing: nothing is sent, journalled or learned.

        `flips`: and what would make it another. That takes a while, elsewhere.
        """
        router, now_s = self._dispatch.router, exchange.received_s
        if flips and self._explainer.busy:
            raise BadRequest(BUSY, status=503, code="busy", headers=(RETRY,))
        found = explained(router, asked, router.decide(asked, now_s), now_s)
        headers, lines = (JSON, *echo(echoed, asked.id)), grant.lines(now_s)
        if not flips:
            exchange.respond(200, headers, msgspec.json.encode(found), lines)
            return

        def then(said: msgspec.Raw | None, _: str) -> None:
            exchange.on_left = None
            body = msgspec.json.encode(found if said is None else _decisions(said)[0])
            exchange.respond(200, headers, body, lines)

        # A journal of three lines, in which it was decided.
        facts: tuple[Fact, ...] = (self._segment(), asked, found.decision)
        journal = msgspec.json.Encoder().encode_lines([Line(at_s=now_s, fact=fact) for fact in facts])
        exchange.on_left = self._explainer.cancel
        self._explainer.begin(asked.id, then, lines=journal)

    def _list(self, exchange: Exchange, short: str, grant: Grant) -> None:
        _only(exchange, "GET")
        # Names of models have slashes, which SDKs quote and people do not.
        name = unquote(short.removeprefix("/models").removeprefix("/"))
        entry = self.catalogue.entry
        if name:
            grant.check(name, self._canonical(name))
            found = entry(name)
        else:
            found = {"object": "list", "data": [entry(one) for one in self._names(grant)]}
        self._answer(exchange, msgspec.json.encode(found), grant)

    def _answer(self, exchange: Exchange, body: bytes, grant: Grant) -> None:
        exchange.respond(200, (JSON, self._id_header(exchange)), body, grant.lines(exchange.received_s))

    def _names(self, grant: Grant) -> list[str]:
        """What this key may ask for."""
        return [name for name in self.catalogue.names() if grant.may_ask(name, self._canonical(name))]

    def _plain(self, name: str) -> str:
        """What is meant by the name that one of Ollama's clients has put a tag to, where there is no such name."""
        return models.untagged(name) if self.catalogue.group(name) is None else name

    def _canonical(self, name: str) -> str:
        group = self.catalogue.group(name)
        return name if group is None else group.name

    def _alive(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        good = exchange.path == "/livez" or self._ready()
        body = b'{"status":"ok"}' if good else b'{"status":"no endpoint is up"}'
        exchange.respond(200 if good else 503, (JSON,), body)

    def _refuse(self, exchange: Exchange, error: BadRequest, client: Client | None, grant: Grant | None) -> None:
        """`grant` is None where it was refused for want of one."""
        self._dispatch.metrics.bad_request(error.status)
        lines = b""
        if grant is not None:
            lines = grant.lines(exchange.received_s)
            if grant.profile.id:
                self._dispatch.metrics.key_refused(grant.profile.id, error.code or "bad_request")
        reply = ErrorReply(
            status=error.status, message=error.message, kind=error.type, param=error.param, code=error.code
        )
        headers = (*reply.headers(), *error.headers, self._id_header(exchange))
        exchange.respond(reply.status, headers, reply.body(client), lines)

    def _id_header(self, exchange: Exchange) -> tuple[bytes, bytes]:
        return b"x-request-id", (client_request_id(exchange.headers) or self._new_id()).encode()

    def _new_id(self) -> str:
        self._count += 1
        # Not `:x`, which compiled code parses at each request: more than twice the instructions.
        return f"{self._instance}-{hex(self._count)[2:]}"


def _only(exchange: Exchange, method: str) -> None:
    if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
        raise BadRequest(
            f"{exchange.path[:200]} takes {method}, not {exchange.method}.",
            status=405,
            code="method_not_allowed",
            headers=((b"allow", b"GET, HEAD" if method == "GET" else method.encode()),),
        )


def _body(exchange: Exchange) -> bytes:
    """The body, as it is to be read."""
    encoding = exchange.headers.get(b"content-encoding")
    if encoding and encoding.lower() != b"identity":
        raise BadRequest(
            "The body is compressed, which is not supported; send it without content-encoding.",
            status=415,
            code="unsupported_encoding",
        )
    return exchange.body
