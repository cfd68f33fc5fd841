"""Streams that flow, read and sent on in C: a chunk that repeats the one before comes to no line of Python.

Where `_lanes.c` beside this is not compiled, or cannot be (it asks for Linux), links read all of their streams
themselves, to the same effect. Decision record 0004.
"""

import asyncio
from typing import TYPE_CHECKING

from tidegate.http.secured import Secured

if TYPE_CHECKING:
    from tidegate.http.link import Link

COMPILED: bool
try:
    from tidegate.http._lanes import Lane, Poll
except ImportError:
    COMPILED = False
else:
    COMPILED = True


class Lanes:
    """What all links of a loop join whose stream flows.

    A lane reads in its link's place, whose transport does not meanwhile. It passes what it is armed for, in order and
    without waiting, and counts it; with whatever else comes it calls `Link.take`, and passes nothing before it is armed
    again. What it writes goes by the transport of the client, which must have written all that it was given, and not
    be closing; the lane looks at both.
    """

    __slots__ = ("_loop", "_poll")

    def __init__(self) -> None:
        self._poll: Poll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def join(self, link: "Link", source: asyncio.Transport, sink: asyncio.Transport) -> "Lane | None":
        """What comes to the `source` is read here from now on; None where it cannot be, or not yet."""
        tls = incoming = outgoing = None
        if isinstance(source, Secured):
            tls, incoming, outgoing = source.tls, source.incoming, source.outgoing
            if incoming.pending:
                # It comes before what is still to come.
                return None
        try:
            poll = self._poll or self._opened()
            return poll.join(link, _descriptor(source), sink, _descriptor(sink), tls, incoming, outgoing)
        except OSError:
            # No descriptor, or no memory of the kernel's, is left for what goes without, too.
            return None

    def close(self) -> None:
        """Nobody is left."""
        poll, self._poll = self._poll, None
        if poll is not None:
            assert self._loop is not None
            self._loop.remove_reader(poll.fileno())
            poll.close()

    def _opened(self) -> "Poll":
        poll, self._loop = Poll(), asyncio.get_running_loop()
        try:
            self._loop.add_reader(poll.fileno(), poll.run, _take)
        except OSError:
            # Nobody would look at it.
            poll.close()
            raise
        self._poll = poll
        return poll


def lanes() -> Lanes | None:
    """For a loop; None where they are not compiled."""
    return Lanes() if COMPILED else None


def _take(found: "list[tuple[Link, bytes, int]]") -> None:
    for link, data, unsent in found:
        try:
            link.take(data, unsent)
        except Exception as error:
            # As a loop does where a protocol raises: it is told, and the connection lost; others have their turn.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "reading a response failed", "exception": error, "protocol": link}
            )
            link.transport.abort()


def _descriptor(transport: asyncio.Transport) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number
