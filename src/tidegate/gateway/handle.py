"""The client address: what is asked, by whom it is answered."""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from tidegate.core.model import Capability, Request
from tidegate.core.replay import Explained
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.drive import Drive
from tidegate.gateway.reply import JSON, ErrorReply, echo
from tidegate.http.server import Exchange
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import ClassTable, client_request_id, intake
from tidegate.wire.openai import model_body, models_body, parse

_KINDS = {"/chat/completions": Capability.CHAT, "/completions": Capability.COMPLETION}
_ALIVE = frozenset({"/health", "/livez", "/readyz"})


class Handler:
    """Answers every request on the client address."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        models: tuple[str, ...],
        classes: ClassTable,
        ready: Callable[[], bool],
        salt: bytes,
        instance: str,
    ) -> None:
        """`instance` begins every id, so that ids of two processes differ; `salt` keeps digests from being guessed."""
        self._dispatch = dispatch
        self._models = models
        self._classes = classes
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
        try:
            if kind is not None:
                self._infer(exchange, kind)
            elif short == "/models" or short.startswith("/models/"):
                self._list(exchange, short)
            elif path in _ALIVE:
                self._alive(exchange)
            else:
                raise BadRequest(
                    f"There is nothing at {path[:200]}; POST /v1/chat/completions, POST /v1/completions and "
                    "GET /v1/models are served here.",
                    status=404,
                    code="not_found",
                )
        except BadRequest as error:
            self._refuse(exchange, error)

    def _infer(self, exchange: Exchange, kind: Capability) -> None:
        _only(exchange, "POST")
        encoding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if encoding != b"identity":
            raise BadRequest(
                "The body is compressed, which is not supported; send it without content-encoding.",
                status=415,
                code="unsupported_encoding",
            )
        call = parse(exchange.body, kind)
        request_id = self._new_id()
        request, knobs = intake(
            call,
            exchange.headers,
            id=request_id,
            now_s=exchange.received_s,
            table=self._classes,
            ratio=self._dispatch.ratio(call.model),
            salt=self._salt,
        )
        echoed = client_request_id(exchange.headers) or request_id
        if knobs.dry_run:
            self._dry_run(exchange, request, echoed)
        else:
            Drive(self._dispatch, exchange, call, request, echoed).begin()

    def _dry_run(self, exchange: Exchange, request: Request, echoed: str) -> None:
        """Say what would be done, and do nothing: nothing is sent, journalled or learned."""
        router, now_s = self._dispatch.router, exchange.received_s
        found = Explained(
            at_s=now_s,
            request=request,
            decision=router.decide(request, now_s),
            candidates=tuple(router.candidates(request, now_s)),
        )
        headers = (JSON, *echo(echoed, request.id))
        exchange.respond(200, headers, msgspec.json.encode(found))

    def _list(self, exchange: Exchange, short: str) -> None:
        _only(exchange, "GET")
        # Names of models have slashes, which SDKs quote and people do not.
        name = unquote(short.removeprefix("/models").removeprefix("/"))
        if not name:
            body = models_body(self._models, self._created_s)
        elif name in self._models:
            body = model_body(name, self._created_s)
        else:
            raise BadRequest(
                "This model is not served here; GET /v1/models lists what is.",
                status=404,
                code="model_not_found",
                param="model",
            )
        exchange.respond(200, (JSON, self._id_header(exchange)), body)

    def _alive(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        good = exchange.path == "/livez" or self._ready()
        body = b'{"status":"ok"}' if good else b'{"status":"no endpoint is up"}'
        exchange.respond(200 if good else 503, (JSON,), body)

    def _refuse(self, exchange: Exchange, error: BadRequest) -> None:
        self._dispatch.metrics.bad_request(error.status)
        reply = ErrorReply(
            status=error.status, message=error.message, kind=error.type, param=error.param, code=error.code
        )
        exchange.respond(reply.status, (*reply.headers(), self._id_header(exchange)), reply.body())

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
