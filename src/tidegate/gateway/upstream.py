"""One endpoint as the gateway reaches it: its dialect, its connections, its key."""

import re

from tidegate.core.model import Endpoint
from tidegate.engines.base import Dialect
from tidegate.http.client import Pool

# As much of a key tells little of it, but where one is quoted; what has less is a word, as "EMPTY" or "none".
_TELLING_CHARS = 8
_KEY_HEADERS = (b"authorization", b"x-api-key")


class Upstream:
    """What it takes to call an endpoint."""

    __slots__ = ("_quoted", "asks_money", "assumes_window", "dialect", "endpoint", "headers", "model", "pool")

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        pool: Pool,
        model: str | None,
        headers: tuple[tuple[bytes, bytes], ...],
        *,
        assumes_window: bool = False,
    ) -> None:
        """`model` is the endpoint's own name for it, None for the name that the client used.

        `headers` go with every request, the key among them; they are never logged. It `assumes_window` where nobody has
        written down how long its context is: until its engine has told that, it is a guess.
        """
        self.endpoint = endpoint
        self.asks_money = endpoint.price.asks_money
        self.dialect = dialect
        self.pool = pool
        self.model = model
        self.headers = headers
        self.assumes_window = assumes_window
        self._quoted = _quoted(headers)

    def called(self, model: str) -> str:
        """The endpoint's own name for what a client calls so."""
        return self.model or model

    @property
    def first_called(self) -> str:
        """The endpoint's own name for its model, the first where it has many."""
        return self.called(self.endpoint.models[0])

    def without_key(self, said: str) -> str:
        """What its engine or vendor has said, with `***` for our key there: some quote all of it, or the beginning."""
        return said if self._quoted is None else self._quoted.sub("***", said)


def _quoted(headers: tuple[tuple[bytes, bytes], ...]) -> re.Pattern[str] | None:
    """The key among these headers where it is quoted, masked or cut off maybe; None where there is none."""
    for name, value in headers:
        key = value.removeprefix(b"Bearer ").decode()
        if name in _KEY_HEADERS and len(key) >= _TELLING_CHARS:
            return re.compile(re.escape(key[:_TELLING_CHARS]) + r"\S*")
    return None
