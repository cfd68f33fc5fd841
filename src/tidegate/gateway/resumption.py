"""What a client has of its answer, so that the rest can be asked for where it breaks off."""

from collections.abc import Callable
from functools import partial

from tidegate.core.model import Request, replace
from tidegate.core.resume import rest_of
from tidegate.engines.base import Dialect
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.dispatch import Dispatch
from tidegate.wire.openai import Call
from tidegate.wire.rest import Seam, kept, rest, unresumable
from tidegate.wire.said import Said
from tidegate.wire.stream import Reader
from tidegate.wire.translate import ClientStream, Translated, reader

_NOBODY = "nobody is known to have the same model, and to go on with a text"
_BROKEN = "it cannot be told in the client's dialect"


def never(call: Call, request: Request) -> str:
    """Why the rest of its answer is not asked for, whatever comes of it; empty where it may be."""
    return unresumable(call) if request.failover else "one attempt only was asked for"


class Resumption:
    """The answer so far, by all attempts that gave a part of it, to a request whose rest may be asked for: see `never`.

    fault    why its rest cannot be asked for; empty where it can
    call     what is asked for now, and `request` the same for the core
    tokens   about how many the client had when it broke off last
    broken   the attempt that gave the last part; None as long as nothing has broken off
    """

    __slots__ = (
        "_came",
        "_dispatch",
        "_head",
        "_parts",
        "_stream",
        "_text",
        "_wanted",
        "broken",
        "call",
        "fault",
        "request",
        "tokens",
    )

    def __init__(self, dispatch: Dispatch, call: Call, request: Request) -> None:
        self._dispatch = dispatch
        self._wanted, self._came = call, request
        self._parts: dict[str, Said] = {}
        self._head = b""
        self._text = ""
        self._stream: ClientStream | None = None
        self.fault = ""
        self.call, self.request = call, request
        self.tokens = 0
        self.broken: Attempt | None = None

    def asked(self, dialect: Dialect) -> tuple[Call, str]:
        """What is asked of an engine now, and with which blanks it may begin although the client has them."""
        continuing = dialect.continuing
        if self.broken is None or continuing is None:
            return self.call, ""
        call = rest(self._wanted, self._text, self.tokens, continuing)
        return call, self._text[len(kept(self._text, continuing)) :]

    def reader(self, endpoint: str, again: str) -> Callable[..., Reader]:
        """`wire.translate.reader` for an attempt there: it gathers what passes, and joins it to what has passed."""
        said = self._parts[endpoint] = Said()
        if self.broken is None:
            return partial(reader, said=said)
        most = self._wanted.output_tokens_max
        full = most is not None and self.tokens >= most
        seam = Seam(self._head, said, tokens=self.tokens, again=again, full=full)
        return partial(reader, seam=seam, stream=self._stream)

    def may(self, attempt: Attempt) -> bool:
        """Whether somebody could be asked for the rest of what this attempt has not given; else `fault` says why."""
        self.fault = self._fault(attempt)
        return not self.fault

    def _fault(self, attempt: Attempt) -> str:
        stream = attempt.reader.stream if isinstance(attempt.reader, Translated) else None
        said = self._parts[attempt.endpoint]
        if attempt.reader.finished:
            return "it had come to its end"
        if stream is not None and stream.failure is not None:
            return _BROKEN
        if said.fault or not (said.head or self._head):
            return said.fault or "it is not text alone"
        return "" if self._others(attempt.endpoint) else _NOBODY

    def broke(self, attempt: Attempt, spent_usd: float, now_s: float) -> None:
        """It broke off there: from now on its rest is asked for. `spent_usd` is what it has cost so far."""
        said = self._parts.pop(attempt.endpoint)
        self._head = self._head or said.head
        self._text += said.text
        self.tokens += said.tokens
        if isinstance(attempt.reader, Translated):
            self._stream = attempt.reader.stream
        self.broken = attempt
        self.call = rest(self._wanted, self._text, self.tokens)
        came = self._came
        request = rest_of(
            came,
            said_tokens=self.tokens,
            said_bytes=len(self._text.encode()),
            spent_usd=spent_usd,
            to=self._others(attempt.endpoint),
            now_s=now_s,
        )
        # What its budget is to hold is counted as it is written: what was said stands in JSON.
        most = came.prompt_tokens_most and self.call.prompt_tokens_most
        self.request = replace(request, prompt_tokens_most=most)

    def _others(self, endpoint: str) -> tuple[str, ...]:
        """Who has the same model and goes on with a text: the one that broke off only where nobody else may serve."""
        dispatch = self._dispatch
        now_s = dispatch.now_s()
        alike = [n for n in dispatch.router.alike(endpoint) if dispatch.upstreams[n].dialect.continuing is not None]
        others = [n for n in alike if n != endpoint and dispatch.forbids(self._came, n, now_s) is None]
        return tuple(others or alike)
