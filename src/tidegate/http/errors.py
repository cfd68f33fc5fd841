"""Why a call to an upstream did not come to its end."""

from enum import StrEnum


class Cause(StrEnum):
    """What went wrong, by what the caller can conclude from it."""

    REFUSED = "refused"  # nothing listens there, or there is no way there
    DNS = "dns"  # the name does not resolve
    TLS = "tls"  # the handshake failed or the certificate is not good
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"  # connected, and no response head in time
    IDLE_TIMEOUT = "idle_timeout"  # the body fell silent
    RESET = "reset"  # closed before the response was complete
    PROTOCOL = "protocol"  # what came is not HTTP/1.1
    TOO_LARGE = "too_large"  # the head (or for `fetch`, the body) is beyond its bound
    POOL_FULL = "pool_full"  # too many calls already wait here
    RECEIVER = "receiver"  # what came was good, and whoever was given it failed
    NO_DESCRIPTOR = "no_descriptor"  # we have none left for a connection: nothing is said of who is called


class TransportError(Exception):
    """A call failed below the meaning of the response.

    sent_bytes  the upstream may have begun to work on the request
    """

    def __init__(self, cause: Cause, message: str, *, sent_bytes: bool = False) -> None:
        super().__init__(message)
        self.cause = cause
        self.sent_bytes = sent_bytes

    def __str__(self) -> str:
        return f"{self.cause}: {self.args[0]}"
