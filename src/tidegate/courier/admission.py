"""Who may have a blob sent: whoever has a ticket of the gateway's that nobody has used, and not too many at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.courier.refusal import RefusalError
from tidegate.wire.courier import Why
from tidegate.wire.ticket import Ticket, TicketError, verify

# Some 30 a second for as long as any of them lives, at 200 bytes each.
USED_MAX = 20_000


class Admission:
    """Verifies tickets, and remembers those that were used until they would expire. Time is an argument."""

    def __init__(self, secret: str, transfers_max: int, started_s: float) -> None:
        self._secret = secret
        self._transfers_max = transfers_max
        self._transfers = 0
        self._started_s = started_s
        self._used: dict[str, float] = {}  # when each expires

    def read(self, text: str, now_s: float) -> Ticket:
        """A ticket that is ours and good; raises `RefusalError`."""
        try:
            return verify(text, self._secret, now_s)
        except TicketError as error:
            raise RefusalError(Why.TICKET, str(error)) from error

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """One more blob is under way meanwhile; raises `RefusalError` where that is too many."""
        if self._transfers >= self._transfers_max:
            raise RefusalError(Why.FULL, "too many blobs are under way")
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    def fresh(self, ticket: Ticket, now_s: float) -> None:
        """Raise `RefusalError` where it was used, or may have been."""
        if ticket.id in self._used:
            raise RefusalError(Why.REPLAYED, "the ticket was used before")
        if ticket.issued_s <= self._started_s:
            raise RefusalError(Why.REPLAYED, "the ticket is older than what is remembered here: ask with another")
        if len(self._used) >= USED_MAX:
            self._used = {id: expires_s for id, expires_s in self._used.items() if expires_s > now_s}
        if len(self._used) >= USED_MAX:
            raise RefusalError(Why.FULL, "too many tickets were used of late")

    def use(self, ticket: Ticket, now_s: float) -> None:
        """Now it is used, whatever comes of it. It was issued before, so that after a start it is taken for old."""
        assert ticket.issued_s <= now_s, "who has a ticket from ahead of this clock waits"
        self._used[ticket.id] = ticket.expires_s
