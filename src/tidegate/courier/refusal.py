"""Why a courier does not do what it is asked, and how HTTP says so."""

from tidegate.wire.courier import Why

STATUS = {
    Why.BAD_REQUEST: 400,
    Why.FORBIDDEN: 403,
    Why.TICKET: 403,
    Why.REPLAYED: 409,
    Why.FINGERPRINT: 409,
    Why.TOO_LARGE: 413,
    Why.FULL: 503,
    Why.CORRUPT: 422,
    Why.CHANGED: 409,
    Why.GONE: 404,
    Why.ENGINE: 502,
    Why.PEER: 502,
    Why.TIMEOUT: 504,
}

EXPIRED = "the ticket expired before it was done"


class RefusalError(Exception):
    """Raised by whoever finds out; the asker is told `why` and the message, and how much of a blob had been sent."""

    def __init__(self, why: Why, message: str, sent_bytes: int = 0) -> None:
        super().__init__(f"{why}: {message}")
        self.why = why
        self.message = message
        self.sent_bytes = sent_bytes
