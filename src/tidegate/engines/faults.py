"""Every way in which an upstream is known to let its callers down, and what a correct caller makes of it.

The one list of faults: the fake engine and `tidegate chaos` commit them, the tests and the reference page read it.
"""

from enum import StrEnum

from tidegate.core.model import Record


class Kind(StrEnum):
    """When a fault shows, which decides what can still be done about it."""

    BEFORE_CONTENT = "before_content"
    AFTER_CONTENT = "after_content"
    HARMLESS = "harmless"
    FINAL = "final"


EXPECTED = {
    Kind.BEFORE_CONTENT: "served elsewhere, unseen; without an alternative an error, in bounded time",
    Kind.AFTER_CONTENT: "a stream ends with an error, never as if complete; what is not streamed is served elsewhere",
    Kind.HARMLESS: "served as if nothing were wrong, and completely",
    Kind.FINAL: "told as it stands, and tried nowhere else, unless it was translated: the request itself is at fault",
}
"""What a correct caller does, by kind."""


class Fault(StrEnum):
    """How an answer goes wrong. One that is not streamed goes wrong in its one piece."""

    REFUSED = "refused"
    DNS = "dns"
    TLS_STALL = "tls_stall"
    UNREAD = "unread"
    SILENT = "silent"
    HEAD_ONLY = "head_only"
    COMMENTS = "comments"
    STALL = "stall"
    HTML = "html"
    EMPTY = "empty"
    GZIP = "gzip"
    STATUS_401 = "status_401"
    STATUS_402 = "status_402"
    STATUS_403 = "status_403"
    STATUS_404 = "status_404"
    STATUS_408 = "status_408"
    STATUS_409 = "status_409"
    STATUS_413 = "status_413"
    STATUS_422 = "status_422"
    STATUS_429 = "status_429"
    STATUS_429_SECONDS = "status_429_seconds"
    STATUS_429_DATE = "status_429_date"
    STATUS_429_MS = "status_429_ms"
    STATUS_500 = "status_500"
    STATUS_502 = "status_502"
    STATUS_503 = "status_503"
    STATUS_529 = "status_529"
    STALL_LATER = "stall_later"
    CUT = "cut"
    UNFINISHED = "unfinished"
    HALF_BODY = "half_body"
    MALFORMED = "malformed"
    ERROR_EVENT = "error_event"
    HUGE_FRAME = "huge_frame"
    TRICKLE = "trickle"
    USAGE_WITH_CHOICES = "usage_with_choices"
    USAGE_MISSING = "usage_missing"
    USAGE_ZERO = "usage_zero"
    DONE_TWICE = "done_twice"
    DONE_MISSING = "done_missing"
    WORDLESS = "wordless"
    IGNORES_CANCEL = "ignores_cancel"

    @property
    def status(self) -> int | None:
        """The status that this fault answers with, None where it is not about a status."""
        return int(self.value[7:10]) if self.value.startswith("status_") else None


class Meaning(Record, frozen=True, kw_only=True):
    """What a fault is.

    `waits`: the upstream neither goes on nor closes, so that only the caller's own time-out ends it. `below_http`: it
    shows before a path is sent, and needs an address of its own.
    """

    kind: Kind
    text: str
    waits: bool = False
    below_http: bool = False


def _before(text: str, *, waits: bool = False, below_http: bool = False) -> Meaning:
    return Meaning(kind=Kind.BEFORE_CONTENT, text=text, waits=waits, below_http=below_http)


def _after(text: str, *, waits: bool = False) -> Meaning:
    return Meaning(kind=Kind.AFTER_CONTENT, text=text, waits=waits)


def _harmless(text: str) -> Meaning:
    return Meaning(kind=Kind.HARMLESS, text=text)


FAULTS: dict[Fault, Meaning] = {
    Fault.REFUSED: _before("the connection is refused", below_http=True),
    Fault.DNS: _before("the name does not resolve", below_http=True),
    Fault.TLS_STALL: _before("the TLS handshake gets no answer", waits=True, below_http=True),
    Fault.UNREAD: _before("the connection is accepted, and nothing is ever read from it", waits=True, below_http=True),
    Fault.SILENT: _before("the request is taken, and nothing ever comes", waits=True),
    Fault.HEAD_ONLY: _before("the head of the answer, and then nothing", waits=True),
    Fault.COMMENTS: _before("keep-alive comments (not streamed: blank lines), and no word", waits=True),
    Fault.STALL: _before("a role, and then nothing", waits=True),
    Fault.HTML: _before("200 and a web page"),
    Fault.EMPTY: _before("200 and a body of no bytes"),
    Fault.GZIP: _before("a compressed answer, although only identity was accepted"),
    Fault.STATUS_401: _before("401: the key is not known"),
    Fault.STATUS_402: _before("402: the account is empty"),
    Fault.STATUS_403: _before("403: the key may not do this"),
    Fault.STATUS_404: _before("404: the model is not there"),
    Fault.STATUS_408: _before("408: the request took too long to arrive"),
    Fault.STATUS_409: _before("409: a conflict"),
    Fault.STATUS_413: _before("413: the body is too large"),
    Fault.STATUS_422: Meaning(kind=Kind.FINAL, text="422: a field of the request is not valid"),
    Fault.STATUS_429: _before("429: too many requests, without a time to come back"),
    Fault.STATUS_429_SECONDS: _before("429 with retry-after in seconds"),
    Fault.STATUS_429_DATE: _before("429 with retry-after as a date"),
    Fault.STATUS_429_MS: _before("429 with retry-after-ms"),
    Fault.STATUS_500: _before("500: an error of the server"),
    Fault.STATUS_502: _before("502 and the web page of a proxy"),
    Fault.STATUS_503: _before("503: overloaded, or loading its model"),
    Fault.STATUS_529: _before("529: overloaded, as Anthropic says it"),
    Fault.STALL_LATER: _after("a few tokens (not streamed: half the body), and then nothing", waits=True),
    Fault.CUT: _after("the connection closes after a few tokens"),
    Fault.UNFINISHED: _after("the body ends cleanly after a few tokens, without a finish (not streamed: half a JSON)"),
    Fault.HALF_BODY: _after("a content-length that is longer than what comes"),
    Fault.MALFORMED: _after("a chunk that is no JSON after a few tokens"),
    Fault.ERROR_EVENT: _after("an error inside the stream after a few tokens (not streamed: 200 and an error)"),
    Fault.HUGE_FRAME: _after("a frame without end after a few tokens (not streamed: a body without end)"),
    Fault.TRICKLE: _harmless("one token a second, to the end of a short answer"),
    Fault.USAGE_WITH_CHOICES: _harmless("usage comes with the last choice, not in a chunk of its own"),
    Fault.USAGE_MISSING: _harmless("no usage, although it was asked for"),
    Fault.USAGE_ZERO: _harmless("a usage of zero tokens"),
    Fault.DONE_TWICE: _harmless("[DONE] comes twice"),
    Fault.DONE_MISSING: _harmless("the stream ends after its finish, without [DONE]"),
    Fault.WORDLESS: _harmless("a complete answer of no words"),
    Fault.IGNORES_CANCEL: _harmless("work goes on after the client has left"),
}
