"""Why an endpoint is down, in words for people, and one line of the log when it goes down and when it is back; and one
where its engine lists other models than its own."""

from collections.abc import Collection, Sequence

from tidegate.core.model import Record
from tidegate.engines.base import ProbeAnswer, Signals
from tidegate.gateway.upstream import Upstream
from tidegate.http.errors import Cause, TransportError
from tidegate.telemetry.log import Log

# A certificate's fault, or what a system says of a connection, fits in.
DETAIL_CHARS_MAX = 160
# What to do where no file can be opened any more. The system as a whole has a limit, too.
MORE_FILES = "raise the limit (`ulimit -n`; LimitNOFILE of a service), or the system's (`fs.file-max`)"

_LISTENS = "look what listens there: `url` may lead elsewhere, or be http where it is https"
_HANGS = "look at the engine: it may hang, or have too much to do"
_LOST: dict[Cause, tuple[str, str]] = {
    Cause.DNS: ("its name does not resolve", "check the host in `url`, and the name service of this machine"),
    Cause.REFUSED: ("no connection is to be had", "check that it runs, and that `url` has its host and port"),
    Cause.TLS: ("the TLS handshake failed", "check that `url` leads to a port of https, and `tls_ca_file`"),
    Cause.CONNECT_TIMEOUT: ("no connection came about in time", "check that it runs, and the way there"),
    Cause.FIRST_BYTE_TIMEOUT: ("it did not answer in time", _HANGS),
    Cause.IDLE_TIMEOUT: ("it did not answer in time", _HANGS),
    Cause.RESET: ("it closed the connection without an answer", _LISTENS),
    Cause.PROTOCOL: ("what it answered is no HTTP", _LISTENS),
    Cause.TOO_LARGE: ("it answered with more than is read", _LISTENS),
    Cause.POOL_FULL: ("no connection became free", _HANGS),
    Cause.RECEIVER: ("its answer broke the gateway", "look at our log"),
    Cause.NO_DESCRIPTOR: ("the gateway has no file descriptor left", MORE_FILES),
}
# Of these the system or its libraries have more to say.
_DETAILED = frozenset({Cause.DNS, Cause.REFUSED, Cause.TLS, Cause.PROTOCOL})


class Outage(Record, frozen=True, kw_only=True):
    """What a probe has met, short and without a secret in it, and what to do about it. `ours`: it says nothing of the
    endpoint."""

    because: str
    remedy: str
    ours: bool = False


UNKNOWN = Outage(because="not known", remedy="look at its own log")


def lost(error: TransportError) -> Outage:
    """For a probe that got no answer."""
    because, remedy = _LOST[error.cause]
    if error.cause in _DETAILED:
        because += f" ({str(error.args[0])[:DETAIL_CHARS_MAX]})"
    return Outage(because=because, remedy=remedy, ours=error.cause is Cause.NO_DESCRIPTOR)


def unfit(answers: Sequence[ProbeAnswer | None], signals: Signals) -> Outage:
    """For one that got `answers`, by which the engine cannot serve: what is essential is asked first."""
    if signals.loading:
        return Outage(because="it is loading its model", remedy="wait until that is done")
    if signals.lacks:
        remedy = "have it fetch that, or mend `model`"
        return Outage(because=f"it has no model `{signals.lacks[:DETAIL_CHARS_MAX]}`", remedy=remedy)
    if signals.resident is False:
        return Outage(because="its model was put to sleep", remedy="wake it")
    answer = next((one for one in answers if one is not None and one.status != 200), answers[0])
    if answer is None:
        return UNKNOWN
    because = f"it answered {answer.status}"
    if answer.status in (401, 403):
        return Outage(because=f"{because}: our key is refused", remedy="check `api_key_env` or `api_key_file`")
    if answer.status >= 500:
        return Outage(because=because, remedy="look at its own log")
    return Outage(because=because, remedy="check `engine`, and the path in `url`")


class Outages:
    """Which endpoints are down. A reload that makes one anew has it told anew."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, tuple[Upstream, Outage]] = {}
        self._unlisted: dict[str, Upstream] = {}

    def because(self, name: str) -> str | None:
        """Why this endpoint is down, None while it is up."""
        known = self._known.get(name)
        return None if known is None else known[1].because

    def keep(self, names: Collection[str]) -> None:
        """Forget all but these endpoints."""
        self._known = {name: known for name, known in self._known.items() if name in names}
        self._unlisted = {name: known for name, known in self._unlisted.items() if name in names}

    def listed(self, upstream: Upstream, lacks: str) -> None:
        """One that is up lists its model, or others alone: it may answer to that name, or refuse whatever is asked."""
        name, address = upstream.endpoint.name, upstream.pool.origin.url
        if not lacks:
            self._unlisted.pop(name, None)
        elif self._unlisted.get(name) is not upstream:
            self._unlisted[name] = upstream
            remedy = "mend `model`, unless it is found by that name all the same"
            self._log.event("warning", "model not listed", endpoint=name, address=address, model=lacks, remedy=remedy)

    def probed(self, upstream: Upstream, outage: Outage | None) -> None:
        """A probe found it down for that, or None for up."""
        name, address = upstream.endpoint.name, upstream.pool.origin.url
        known = self._known.pop(name, None)
        if outage is not None:
            self._known[name] = upstream, outage
            if known is None or known[0] is not upstream:
                cause, remedy = outage.because, outage.remedy
                self._log.event("warning", "endpoint down", endpoint=name, address=address, cause=cause, remedy=remedy)
        elif known is not None:
            self._log.event("info", "endpoint up", endpoint=name, address=address)
