"""Operators who have logged in with a browser: each is known by a secret in a cookie, for a while."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from tidegate.clock import Clock
from tidegate.core.bucket import Bucket
from tidegate.state.keys import digest

# A working day; who looks longer logs in again.
AGE_S: Final = 12 * 3600.0
# So much later at most what is streamed to a session ends. A timer of its whole age would stand still in a sleep.
LOOK_S: Final = 10.0
# Operators are few, with several browsers each. Beyond it, who logged in first is out.
SESSIONS_MAX: Final = 64
# Of one address: a person who mistypes does not notice it, and who guesses keeps nobody out but himself.
FAILURES_PER_MINUTE: Final = 10
# Of all: a secret of 20 characters is not guessed at this rate.
FAILURES_OF_ALL_PER_MINUTE: Final = 100
# As many as can fail in a minute, at once and then as it fills: who failed before them has a full bucket again.
_FAILED_MAX: Final = 2 * FAILURES_OF_ALL_PER_MINUTE
_COOKIE = b"tidegate"
_SECRET_CHARS = 43  # of 32 bytes in base 64


class Sessions:
    """Who is logged in. Nothing of it outlives the process."""

    def __init__(self, clock: Clock, on_end: Callable[[str], None]) -> None:
        """`on_end` is told what each one was called that has ended, however it did."""
        self._clock = clock
        self._on_end = on_end
        # By digest of the secret: what it is called, and until when. The first one is the oldest.
        self._open: dict[bytes, tuple[str, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failures = Bucket(FAILURES_OF_ALL_PER_MINUTE, clock.now_s())
        # By address: the last one failed last.
        self._failures_of: dict[str, Bucket] = {}

    def wait_s(self, peer: str) -> float:
        """How long nobody at this address may log in, after too many that could not."""
        now_s = self._clock.now_s()
        own = self._failures_of.get(peer)
        return max(self._failures.wait_s(1.0, now_s), 0.0 if own is None else own.wait_s(1.0, now_s))

    def fail(self, peer: str) -> None:
        """Somebody there could not."""
        now_s = self._clock.now_s()
        own = self._failures_of.pop(peer, None) or Bucket(FAILURES_PER_MINUTE, now_s)
        self._failures_of[peer] = own
        if len(self._failures_of) > _FAILED_MAX:
            del self._failures_of[next(iter(self._failures_of))]
        for bucket in (own, self._failures):
            bucket.take(1.0, now_s)

    def begin(self) -> str:
        """A new one's secret."""
        secret = secrets.token_urlsafe(32)
        while len(self._open) >= SESSIONS_MAX:
            self._end(next(iter(self._open)))
        self._open[digest(secret.encode())] = secrets.token_hex(3), self._clock.now_s() + AGE_S
        if self._timer is None:
            self._look()
        return secret

    def name(self, headers: Mapping[bytes, bytes]) -> str | None:
        """What the session is called whose cookie comes with a request; None where it is none of ours."""
        self._end_old()
        key = _key(headers)
        found = None if key is None else self._open.get(key)
        return None if found is None else found[0]

    def end(self, headers: Mapping[bytes, bytes]) -> None:
        """The one whose cookie this is logs out."""
        key = _key(headers)
        if key is not None and key in self._open:
            self._end(key)

    def end_all(self) -> None:
        """The secret they have shown is no more."""
        for key in list(self._open):
            self._end(key)

    def _look(self) -> None:
        """Now and then, as long as there are any: who asks for nothing is being told something, perhaps."""
        self._end_old()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._open else None

    def _end_old(self) -> None:
        now_s = self._clock.now_s()
        for key in [key for key, (_, until_s) in self._open.items() if now_s >= until_s]:
            self._end(key)

    def _end(self, key: bytes) -> None:
        name, _ = self._open.pop(key)
        self._on_end(name)


def cookie(secret: str, headers: Mapping[bytes, bytes], *, secure: bool) -> tuple[bytes, bytes]:
    """The header that gives a browser its session, or takes it where it is empty; `headers` are its request's."""
    age_s = int(AGE_S) if secret else 0
    value = b"%b=%b; Path=/; HttpOnly; SameSite=Strict; Max-Age=%d" % (_cookie_name(headers), secret.encode(), age_s)
    return b"set-cookie", value + (b"; Secure" if secure else b"")


def _cookie_name(headers: Mapping[bytes, bytes]) -> bytes:
    """Has the port in it that a browser asks: to browsers cookies are a host's, and another port another gateway's."""
    port = headers.get(b"host", b"").rpartition(b":")[2]
    return _COOKIE + b"-" + port if port.isdigit() else _COOKIE


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """By what a session is known."""
    wanted = _cookie_name(headers)
    # Fields that are repeated are joined by commas, and cookies by semicolons.
    for pair in headers.get(b"cookie", b"").replace(b",", b";").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == wanted and len(value) == _SECRET_CHARS:
            return digest(value)
    return None
