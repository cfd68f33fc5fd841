"""The client address: what is asked, by whom it is answered."""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from tidegate.core.model import Request
from tidegate.core.replay import Explained
from tidegate.gateway.catalogue import Catalogue
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.drive import Drive
from tidegate.gateway.reply import JSON, ErrorReply, echo
from tidegate.gateway.routes import COUNTS, ROUTES, Route, client_at
from tidegate.http.server import Exchange
from tidegate.wire.anthropic import request
from tidegate.wire.anthropic.client import counted
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import ClassTable, client_request_id, estimated_tokens, intake
from tidegate.wire.ollama import models
from tidegate.wire.translate import Client

_ALIVE = frozenset({"/health", "/livez", "/readyz"})
_SERVED = sorted(path for path in ROUTES if path.startswith(("/v1/", "/api/")))


class Handler:
    """Answers every request on the client address."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        catalogue: Catalogue,
        classes: ClassTable,
        ready: Callable[[], bool],
        salt: bytes,
        instance: str,
    ) -> None:
        """`instance` begins every id, so that ids of two processes differ; `salt` keeps digests from being guessed."""
        self._dispatch = dispatch
        self._catalogue = catalogue
        self._classes = classes
        self._ready = ready
        self._salt = salt
        self._instance = instance
        self._count = 0

    def __call__(self, exchange: Exchange) -> None:
        """Answer, now or later; nothing here waits."""
        route = ROUTES.get(exchange.path)
        try:
            if route is not None:
                self._infer(exchange, route)
            else:
                self._look_up(exchange, exchange.path)
        except BadRequest as error:
            self._refuse(exchange, error, client_at(exchange.path))

    def _look_up(self, exchange: Exchange, path: str) -> None:
        """Answer what is no inference."""
        short = path[3:] if path.startswith("/v1/") else path
        if short == "/models" or short.startswith("/models/"):
            self._list(exchange, short)
        elif path in _ALIVE:
            self._alive(exchange)
        elif path in COUNTS:
            _only(exchange, "POST")
            call = request.parse(exchange.body, exchange.headers, counting=True)
            # How many bytes make a token is the model's own: one that is not served has no answer.
            tokens = estimated_tokens(call, self._dispatch.ratio(self._catalogue.known(call.model).name))
            self._answer(exchange, counted(tokens))
        elif path == "/api/tags":
            _only(exchange, "GET")
            self._answer(exchange, models.tags(self._catalogue.facts(name) for name in self._catalogue.names()))
        elif path == "/api/show":
            _only(exchange, "POST")
            self._answer(exchange, models.show(self._catalogue.facts(models.shown(exchange.body))))
        elif path == "/api/version":
            _only(exchange, "GET")
            self._answer(exchange, models.version())
        else:
            raise BadRequest(
                f"There is nothing at {path[:200]}; POST is served at {', '.join(_SERVED)}, GET at /v1/models.",
                status=404,
                code="not_found",
            )

    def _infer(self, exchange: Exchange, route: Route) -> None:
        _only(exchange, "POST")
        encoding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            raise BadRequest(
                "The body is compressed, which is not supported; send it without content-encoding.",
                status=415,
                code="unsupported_encoding",
            )
        call = route.parse(exchange.body, exchange.headers)
        request_id = self._new_id()
        group = self._catalogue.group(call.model)
        asked, knobs = intake(
            call,
            exchange.headers,
            id=request_id,
            now_s=exchange.received_s,
            table=self._classes,
            ratio=self._dispatch.ratio(call.model if group is None else group.name),
            salt=self._salt,
            group=group,
        )
        echoed = client_request_id(exchange.headers) or request_id
        if knobs.dry_run:
            self._dry_run(exchange, asked, echoed)
        else:
            Drive(self._dispatch, exchange, call, asked, echoed, route.client).begin()

    def _dry_run(self, exchange: Exchange, asked: Request, echoed: str) -> None:
        """Say what would be done, and do nothing: nothing is sent, journalled or learned."""
        router, now_s = self._dispatch.router, exchange.received_s
        found = Explained(
            at_s=now_s,
            request=asked,
            decision=router.decide(asked, now_s),
            candidates=tuple(router.candidates(asked, now_s)),
        )
        headers = (JSON, *echo(echoed, asked.id))
        exchange.respond(200, headers, msgspec.json.encode(found))

    def _list(self, exchange: Exchange, short: str) -> None:
        _only(exchange, "GET")
        # Names of models have slashes, which SDKs quote and people do not.
        name = unquote(short.removeprefix("/models").removeprefix("/"))
        entry = self._catalogue.entry
        found = entry(name) if name else {"object": "list", "data": [entry(one) for one in self._catalogue.names()]}
        self._answer(exchange, msgspec.json.encode(found))

    def _answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(200, (JSON, self._id_header(exchange)), body)

    def _alive(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        good = exchange.path == "/livez" or self._ready()
        body = b'{"status":"ok"}' if good else b'{"status":"no endpoint is up"}'
        exchange.respond(200 if good else 503, (JSON,), body)

    def _refuse(self, exchange: Exchange, error: BadRequest, client: Client | None) -> None:
        self._dispatch.metrics.bad_request(error.status)
        reply = ErrorReply(
            status=error.status, message=error.message, kind=error.type, param=error.param, code=error.code
        )
        exchange.respond(reply.status, (*reply.headers(), self._id_header(exchange)), reply.body(client))

    def _id_header(self, exchange: Exchange) -> tuple[bytes, bytes]:
        return b"x-request-id", (client_request_id(exchange.headers) or self._new_id()).encode()

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._instance}-{self._count:x}"


def _only(exchange: Exchange, method: str) -> None:
    if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
        raise BadRequest(
            f"{exchange.path[:200]} takes {method}, not {exchange.method}.", status=405, code="method_not_allowed"
        )
