"""What a gateway and the dashboard that it has started say to each other, line by line, through pipes that nobody else
has; and the headers of what the one relays to the other."""

from typing import Final

import msgspec

from tidegate.core.model import Record

TOKEN: Final = b"x-tidegate-token"
"""The secret by which the gateway is known."""
WHO: Final = b"x-tidegate-who"
"""Who asks, in words for people."""
SHOWN: Final = b"x-tidegate-shown"
"""That who asks has shown the admin's secret."""
LOADED: Final = b"x-tidegate-loaded"
"""The revision of the configuration that the gateway has loaded last, from a file or without one."""
DASHBOARD: Final = b"x-tidegate-dashboard"
"""What no page of others can send without being asked for leave: each request that changes something has it."""
LINE_BYTES_MAX: Final = 4 * 1024 * 1024  # a reload may change, or find fault with, all of a thousand endpoints


class Begun(Record, frozen=True, kw_only=True):
    """The first line to the dashboard. `journal` is a folder, and `config` the file in force; empty without one."""

    token: str
    journal: str
    config: str


class Ready(Record, frozen=True, kw_only=True):
    """The first line from it: where it listens, on loopback."""

    port: int


class Wish(Record, frozen=True, kw_only=True):
    """It wants the configuration to be read again, for `who`; `what` is done by that."""

    number: int
    who: str
    what: str


class Fulfilled(Record, frozen=True, kw_only=True):
    """What came of a wish: the outcome of the reload, as `/api/config` tells it."""

    number: int
    outcome: msgspec.Raw
