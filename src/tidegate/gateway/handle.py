"""The client address: what is asked, by whom it is answered."""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from tidegate.core.model import Capability, Request
from tidegate.core.replay import Explained
from tidegate.gateway.auth import Auth, Grant, no_model
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.drive import Drive
from tidegate.gateway.reply import JSON, ErrorReply, echo
from tidegate.http.server import Exchange
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import client_request_id, intake
from tidegate.wire.openai import model_body, models_body, parse

_KINDS = {"/chat/completions": Capability.CHAT, "/completions": Capability.COMPLETION}
_ALIVE = frozenset({"/health", "/livez", "/readyz"})


class Handler:
    """Answers every request on the client address."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        auth: Auth,
        ready: Callable[[], bool],
        salt: bytes,
        instance: str,
    ) -> None:
        """`instance` begins every id, so that ids of two processes differ; `salt` keeps digests from being guessed."""
        self._dispatch = dispatch
        self._auth = auth
        self._ready = ready
        self._salt = salt
        self._instance = instance
        self._count = 0
        self._created_s = int(dispatch.clock.now_s())

    def __call__(self, exchange: Exchange) -> None:
        """Answer, now or later; nothing here waits."""
        path = exchange.path
        short = path[3:] if path.startswith("/v1/") else path
        kind = _KINDS.get(short)
        grant: Grant | None = None
        try:
            if path in _ALIVE:  # whoever watches over us has no key
                self._alive(exchange)
                return
            grant = self._auth.grant(exchange.headers, exchange.received_s)
            if kind is not None:
                self._infer(exchange, kind, grant)
            elif short == "/models" or short.startswith("/models/"):
                self._list(exchange, short, grant)
            else:
                raise BadRequest(
                    f"There is nothing at {path[:200]}; POST /v1/chat/completions, POST /v1/completions and "
                    "GET /v1/models are served here.",
                    status=404,
                    code="not_found",
                )
        except BadRequest as error:
            self._refuse(exchange, error, grant)

    def _infer(self, exchange: Exchange, kind: Capability, grant: Grant) -> None:
        _only(exchange, "POST")
        grant.admit(exchange.received_s)
        encoding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            raise BadRequest(
                "The body is compressed, which is not supported; send it without content-encoding.",
                status=415,
                code="unsupported_encoding",
            )
        call = parse(exchange.body, kind)
        grant.check(call.model)
        request_id = self._new_id()
        request, knobs = intake(
            call,
            exchange.headers,
            id=request_id,
            now_s=exchange.received_s,
            table=grant.classes,
            ratio=self._dispatch.ratio(call.model),
            salt=self._salt,
            residency=grant.profile.residency,
            key=grant.profile.id,
        )
        echoed = client_request_id(exchange.headers) or request_id
        if knobs.dry_run:
            self._dry_run(exchange, request, echoed, grant)
        else:
            grant.begin(request, exchange.received_s)
            Drive(self._dispatch, exchange, call, request, echoed, grant).begin()

    def _dry_run(self, exchange: Exchange, request: Request, echoed: str, grant: Grant) -> None:
        """Say what would be done, and do nothing: nothing is sent, journalled or learned."""
        router, now_s = self._dispatch.router, exchange.received_s
        found = Explained(
            at_s=now_s,
            request=request,
            decision=router.decide(request, now_s),
            candidates=tuple(router.candidates(request, now_s)),
        )
        headers = (JSON, *echo(echoed, request.id))
        exchange.respond(200, headers, msgspec.json.encode(found), grant.lines(now_s))

    def _list(self, exchange: Exchange, short: str, grant: Grant) -> None:
        _only(exchange, "GET")
        # Names of models have slashes, which SDKs quote and people do not.
        name = unquote(short.removeprefix("/models").removeprefix("/"))
        if not name:
            body = models_body(grant.models, self._created_s)
        elif name in grant.models:
            body = model_body(name, self._created_s)
        else:
            raise no_model()
        exchange.respond(200, (JSON, self._id_header(exchange)), body, grant.lines(exchange.received_s))

    def _alive(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        good = exchange.path == "/livez" or self._ready()
        body = b'{"status":"ok"}' if good else b'{"status":"no endpoint is up"}'
        exchange.respond(200 if good else 503, (JSON,), body)

    def _refuse(self, exchange: Exchange, error: BadRequest, grant: Grant | None) -> None:
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
        exchange.respond(reply.status, headers, reply.body(), lines)

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
