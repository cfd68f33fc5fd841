"""Operators who have logged in with a browser: each is known by a secret in a cookie, for a while."""

import secrets
from collections.abc import Mapping
from typing import Final

from tidegate.clock import Clock
from tidegate.core.bucket import Bucket
from tidegate.state.keys import digest

# A working day; who looks longer logs in again.
AGE_S: Final = 12 * 3600.0
# Operators are few, with several browsers each. Beyond it, who logged in first is out.
SESSIONS_MAX: Final = 64
# A secret of 20 characters is not guessed at this rate, and a person who mistypes does not notice it.
FAILURES_PER_MINUTE: Final = 10
COOKIE: Final = b"tidegate"
_SECRET_CHARS = 43  # of 32 bytes in base 64


class Sessions:
    """Who is logged in. Nothing of it outlives the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By digest of the secret: what it is called, and until when. The first one is the oldest.
        self._open: dict[bytes, tuple[str, float]] = {}
        self._failures = Bucket(FAILURES_PER_MINUTE, clock.now_s())

    @property
    def wait_s(self) -> float:
        """How long nobody may log in, after too many that could not."""
        return self._failures.wait_s(1.0, self._clock.now_s())

    def fail(self) -> None:
        """Somebody could not."""
        self._failures.take(1.0, self._clock.now_s())

    def begin(self) -> str:
        """A new one's secret."""
        secret = secrets.token_urlsafe(32)
        while len(self._open) >= SESSIONS_MAX:
            del self._open[next(iter(self._open))]
        self._open[digest(secret.encode())] = secrets.token_hex(3), self._clock.now_s() + AGE_S
        return secret

    def name(self, headers: Mapping[bytes, bytes]) -> str | None:
        """What the session is called whose cookie comes with a request; None where it is none of ours."""
        key = _key(headers)
        found = None if key is None else self._open.get(key)
        if key is None or found is None:
            return None
        name, until_s = found
        if self._clock.now_s() >= until_s:
            del self._open[key]
            return None
        return name

    def end(self, headers: Mapping[bytes, bytes]) -> None:
        """The one whose cookie this is logs out."""
        if (key := _key(headers)) is not None:
            self._open.pop(key, None)

    def end_all(self) -> None:
        """The secret they have shown is no more."""
        self._open.clear()


def cookie(secret: str, *, secure: bool) -> tuple[bytes, bytes]:
    """The header that gives a browser its session, or takes it where it is empty."""
    age_s = int(AGE_S) if secret else 0
    value = b"%b=%b; Path=/; HttpOnly; SameSite=Strict; Max-Age=%d" % (COOKIE, secret.encode(), age_s)
    return b"set-cookie", value + (b"; Secure" if secure else b"")


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """By what a session is known."""
    # Fields that are repeated are joined by commas, and cookies by semicolons.
    for pair in headers.get(b"cookie", b"").replace(b",", b";").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == COOKIE and len(value) == _SECRET_CHARS:
            return digest(value)
    return None
