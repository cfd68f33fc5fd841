"""One endpoint as the gateway reaches it: its dialect, its connections, its key."""

from tidegate.core.model import Endpoint
from tidegate.engines.base import Dialect
from tidegate.http.client import Pool


class Upstream:
    """What it takes to call an endpoint."""

    __slots__ = ("asks_money", "assumes_window", "dialect", "endpoint", "headers", "model", "pool")

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
