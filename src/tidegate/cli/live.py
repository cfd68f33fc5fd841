"""A running gateway as its admin address tells it: one look at its state and its metrics."""

import os
import ssl
from collections.abc import Sequence
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from tidegate.config import door, secret
from tidegate.config.address import parse_address
from tidegate.config.load import load_unreached
from tidegate.config.problem import ConfigError, Problem, Problems
from tidegate.config.schema import GatewayTable
from tidegate.config.secret import SecretError
from tidegate.core.model import Record
from tidegate.wire.prometheus import Labels, samples

TIMEOUT_S = 5.0  # it answers in milliseconds; whoever waits at a terminal wants to know that it does not
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a state, or metrics, with many thousands of endpoints
KEY_ENV = "TIDEGATE_ADMIN_KEY"
CONFIG = Path("tidegate.toml")
"""The configuration that is read where none is named. A link to nowhere is one that is missing, not none."""

_USUAL = f"give that which its file has as gateway.admin, by default {GatewayTable().admin}"
_TTFT = "tidegate_attempt_ttft_seconds_bucket"
_RATIO = "tidegate_ttft_actual_to_predicted_bucket"
_SPENT = "tidegate_spent_usd_total"
_NAMES = (_TTFT, _RATIO, _SPENT, "tidegate_attempts_total", "tidegate_cost_usd_total")


class UnreachableError(Exception):
    """The gateway cannot be asked, or does not answer as one; the message says why."""


class Address:
    """Where a gateway is asked, and with which secret."""

    def __init__(self, url: str, secret: str = "", context: ssl.SSLContext | None = None) -> None:
        """`url` is `http(s)://host:port`; `context` says whom to trust."""
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._secret, self._context = secret, context

    def ask(self, method: str, path: str) -> bytes:
        """The body of the answer. Raises UnreachableError."""
        connection: HTTPConnection
        if self._secure:
            connection = HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._context)
        else:
            connection = HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        headers = {"authorization": f"Bearer {self._secret}"} if self._secret else {}
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES_MAX + 1)
        except (RemoteDisconnected, BadStatusLine):
            remedy = "where it has TLS (gateway.tls), write https://HOST:PORT, or name its file by --config"
            raise UnreachableError(f"{self.url} does not answer in HTTP; {remedy}") from None
        except ConnectionRefusedError as error:
            remedy = "start it with `tidegate serve`, or name its file by --config, or its address by --admin"
            raise UnreachableError(f"{self.url} does not answer: {error.strerror}; {remedy}") from None
        except ssl.SSLCertVerificationError as error:
            remedy = "name the file that it runs with by --config: its gateway.tls.cert is trusted"
            raise UnreachableError(f"{self.url} is not trusted: {error}; {remedy}") from None
        except ssl.SSLError as error:
            remedy = "where it has no TLS, write http://HOST:PORT, or name its file by --config"
            raise UnreachableError(f"{self.url} does not answer in TLS: {error}; {remedy}") from None
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"{self.url} does not answer: {error}; {_USUAL}") from None
        except ValueError:  # its text may repeat the secret
            said = "no request can have such a host, or such a secret"
            raise UnreachableError(f"{self.url} cannot be asked: {said}") from None
        finally:
            connection.close()
        if len(body) > ANSWER_BYTES_MAX:
            raise UnreachableError(f"{self.url}{path} answers with more than {ANSWER_BYTES_MAX >> 20} MiB")
        if answer.status == 401:
            raise UnreachableError(f"{self.url} asks for its secret: gateway.admin_key of --config, or {KEY_ENV}")
        if answer.status == 404 and method == "GET":
            raise UnreachableError(f"{self.url} is no admin address, there is no {path}; {_USUAL}")
        if answer.status != 200:
            raise UnreachableError(f"{self.url}{path} answers {answer.status}: {_message(body)}")
        return body

    def drain(self, endpoint: str, *, on: bool) -> None:
        """Let an endpoint get nothing new, or let it again. Raises UnreachableError."""
        self.ask("PUT" if on else "DELETE", f"/api/endpoints/{quote(endpoint, safe='')}/drain")


def address(admin: str | None, config: Path | None) -> Address:
    """The admin address that is given, or that of a configuration; with neither, that of the file that is here, or else
    of a gateway that serves without one. Raises ConfigError.

    The secret of one that no file tells of is in the environment, as `TIDEGATE_ADMIN_KEY`.
    """
    if admin is None and config is None and not os.path.lexists(CONFIG):
        admin = GatewayTable().admin
    if admin is not None:
        url = admin if "://" in admin else f"http://{admin}"
        try:
            if urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname and urlsplit(url).port != 0:
                return Address(url, _given_secret())
        except ValueError:
            pass
        raise _refusal("--admin", f"`{admin}` is no address", "give it as 127.0.0.1:8401, or https://HOST:PORT")
    # Of its secrets only this one is needed: a monitor has no vendor's key.
    file = config or CONFIG
    found, problems = load_unreached(file, "name the gateway's file, or its address by --admin"), Problems(str(file))
    gateway, folder = found.gateway, found.file.parent
    key = None if gateway.admin_key is None else door.admin_key(gateway.admin_key, folder, problems, os.environ)
    context = None if gateway.tls is None else _trusting(door.tls(gateway.tls, folder).cert, problems)
    if problems.found:
        raise ConfigError(problems.found)
    at = parse_address(gateway.admin)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(at.host, at.host)  # noqa: S104 - to ask, not to listen
    host = f"[{host}]" if ":" in host else host
    scheme = "http" if context is None else "https"
    return Address(f"{scheme}://{host}:{at.port}", "" if key is None else key.reveal(), context)


def _given_secret() -> str:
    """What the environment has for an address that is given; nothing is none. Raises ConfigError."""
    if not os.environ.get(KEY_ENV):
        return ""
    try:
        return secret.from_variable(KEY_ENV, os.environ, alone=True).reveal()
    except SecretError as error:
        raise _refusal(KEY_ENV, error.message, error.remedy) from None


def _trusting(cert: Path, problems: Problems) -> ssl.SSLContext | None:
    """Trusts the gateway's own certificate, whatever name it is for and whoever has signed it. Others follow it in its
    file, who have signed more than this one, and are not trusted. None where there is none, which is noted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        _, header, rest = cert.read_text("ascii", errors="ignore").partition(ssl.PEM_HEADER)
        body, footer, _ = rest.partition(ssl.PEM_FOOTER)
        context.load_verify_locations(cadata=header + body + footer)
    except (OSError, ValueError):  # an SSLError is an OSError
        remedy = "name the file of the certificate in PEM, readable by this user"
        problems.add("gateway.tls.cert", f"{cert} has no certificate that can be read", remedy)
        return None
    return context


def _refusal(path: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file="tidegate", path=path, message=message, remedy=remedy)])


class Others(msgspec.Struct):
    """What others have in an engine, as its last report says."""

    running: float = 0.0
    queued: float = 0.0


class _Endpoint(msgspec.Struct):
    site: str
    local: bool
    up: bool
    drained: bool
    pinned: bool
    breaker_open_for_s: float
    in_flight: int
    at_once: int
    drifted: bool
    contradicts: object = None
    others: Others | None = None
    rtt_s: float | None = None
    down_because: str | None = None


class _Cap(msgspec.Struct):
    class Of(msgspec.Struct):
        period: str
        usd: float
        key: str | None = None

    cap: Of
    spent_usd: float


class _Budget(msgspec.Struct):
    caps: tuple[_Cap, ...] = ()


class _State(msgspec.Struct):
    at_s: float
    ready: bool
    held: int
    in_flight: int
    static: bool
    static_for_s: float
    endpoints: dict[str, _Endpoint]
    budget: _Budget | None = None
    spending_problem: str = ""


class Shown(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One endpoint. Times and shares are of all attempts since the gateway was started, None where there are none.

    `state` is a word: `up`, `drained` (whatever else it is), `down`, `broken` (its breaker is open, and its time not
    over), `drifted` or `unlike` (its model is not what it should be). `down_because` is what the last probe met, None
    while it is up. `queued` are requests of others that wait there. `actual_to_predicted` is the median of measured
    over predicted time to first content, at most the last bound of its histogram.
    """

    name: str
    site: str
    local: bool
    state: str
    down_because: str | None = None
    pinned: bool
    in_flight: int
    at_once: int
    queued: float | None
    rtt_s: float | None
    attempts: int
    failed: int
    ttft_s: float | None
    actual_to_predicted: float | None
    usd: float


class Live(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A gateway at one moment.

    `offloaded` is the share of answers that came from endpoints that are not local. `usd_today` was paid to others on
    this UTC day, of `usd_per_day` at most; None where no daily budget is set. `usd` is all that attempts cost since the
    start, also at endpoints that are gone. `spending_problem` is why nothing can be paid for now, empty where it can.
    `well`: it is ready, nothing keeps it from paying, and no endpoint is down or broken.
    """

    at_s: float
    ready: bool
    well: bool
    static: bool
    in_flight: int
    held: int
    offloaded: float | None
    usd_today: float | None
    usd_per_day: float | None
    usd: float
    spending_problem: str
    endpoints: tuple[Shown, ...]


def look(at: Address) -> Live:
    """Ask it. Raises UnreachableError."""
    try:
        state = msgspec.json.decode(at.ask("GET", "/api/state"), type=_State)
    except msgspec.MsgspecError as error:
        raise UnreachableError(f"{at.url} is no admin address of this software: {error}") from None
    told = samples(at.ask("GET", "/metrics"), _NAMES, ANSWER_BYTES_MAX)
    shown = tuple(_shown(name, one, told) for name, one in sorted(state.endpoints.items()))
    answered = {True: 0, False: 0}
    for one in shown:
        answered[one.local] += one.attempts - one.failed
    total = sum(answered.values())
    unwell = state.spending_problem or any(one.state in ("down", "broken") for one in shown)
    day = [one for one in (state.budget.caps if state.budget else ()) if one.cap.period == "day" and not one.cap.key]
    return Live(
        at_s=state.at_s,
        ready=state.ready,
        well=state.ready and not unwell,
        static=state.static or state.static_for_s > 0.0,
        in_flight=state.in_flight,
        held=state.held,
        offloaded=answered[False] / total if total else None,
        usd_today=day[0].spent_usd if day else None,
        usd_per_day=day[0].cap.usd if day else None,
        usd=sum(value for _, value in told.get(_SPENT, [])),
        spending_problem=state.spending_problem,
        endpoints=shown,
    )


def _shown(name: str, one: _Endpoint, told: dict[str, list[tuple[Labels, float]]]) -> Shown:
    mine = {metric: [(s, v) for s, v in found if s.get(b"endpoint") == name.encode()] for metric, found in told.items()}
    attempts = mine.get("tidegate_attempts_total", [])
    return Shown(
        name=name,
        site=one.site,
        local=one.local,
        state=_word(one),
        down_because=one.down_because,
        pinned=one.pinned,
        in_flight=one.in_flight,
        at_once=one.at_once,
        queued=None if one.others is None else one.others.queued,
        rtt_s=one.rtt_s,
        attempts=int(sum(value for _, value in attempts)),
        failed=int(sum(value for labels, value in attempts if labels.get(b"ending") != b"ok")),
        ttft_s=median(mine.get(_TTFT, [])),
        actual_to_predicted=median(mine.get(_RATIO, [])),
        usd=sum(value for _, value in mine.get("tidegate_cost_usd_total", [])),
    )


def _word(one: _Endpoint) -> str:
    if one.drained:
        # On purpose: how it is meanwhile is nobody's trouble.
        return "drained"
    if not one.up:
        return "down"
    if one.breaker_open_for_s > 0.0:
        # Beyond that a request would be tried there, and where nobody asks, nothing says that it still fails.
        return "broken"
    if one.drifted:
        return "drifted"
    return "unlike" if one.contradicts else "up"


def median(buckets: Sequence[tuple[Labels, float]]) -> float | None:
    """Of a histogram's cumulative buckets: between the bounds of the one in which it lies, None of an empty one."""
    found = sorted((float(labels[b"le"]), count) for labels, count in buckets if b"le" in labels)
    if not found or not found[-1][1]:
        return None
    half, low, before = found[-1][1] / 2.0, 0.0, 0.0
    for bound, count in found:
        if count >= half:
            # In the last bucket nothing bounds it from above.
            return low if bound == float("inf") else low + (bound - low) * (half - before) / (count - before)
        low, before = bound, count
    return None


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return "no words of a gateway"
