"""The cheapest possible gateway, to measure what the HTTP layer itself costs.

    python bench/passthrough.py --listen 8000 --upstream 9000

Every request goes to the upstream as it is. Measure with the rig: CPU time of this process from
/proc/PID/task/*/schedstat, divided by requests or by SSE events.
"""

import argparse
import asyncio

import uvloop

from tidegate.clock import Clock
from tidegate.http.client import Call, Origin, Pool, TransportError
from tidegate.http.server import Exchange, Limits, Server

CONNECTIONS = 6000  # to the upstream: every stream of the largest load has one of its own
JSON = ((b"content-type", b"application/json"),)


class Relay:
    """Hands one response back as it comes: streamed if it is chunked, else in one piece."""

    __slots__ = ("_call", "_exchange", "_headers", "_pieces", "_status")

    def __init__(self, exchange: Exchange, pool: Pool) -> None:
        self._exchange = exchange
        self._pieces: list[bytes] | None = None
        self._call: Call = pool.send(
            exchange.method.encode(),
            exchange.path.encode(),
            JSON,
            exchange.body,
            self,
            first_byte_timeout_s=600.0,
            idle_timeout_s=60.0,
        )
        exchange.on_left = self._call.cancel

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Choose how to answer."""
        self._status = status
        self._headers = [(b"content-type", headers.get(b"content-type", b"text/plain"))]
        if b"content-length" in headers:
            self._pieces = []
            return
        exchange = self._exchange
        exchange.on_pause, exchange.on_resume = self._call.pause, self._call.resume
        exchange.start(status, self._headers)

    def on_data(self, data: bytes) -> None:
        """Pass it on, or keep it."""
        if self._pieces is None:
            self._exchange.write(data)
        else:
            self._pieces.append(data)

    def on_end(self) -> None:
        """Answer, or end the stream."""
        if self._pieces is None:
            self._exchange.end()
        else:
            self._exchange.respond(self._status, self._headers, b"".join(self._pieces))

    def on_error(self, error: TransportError) -> None:
        """Say so, or cut the stream."""
        if self._exchange.started:
            self._exchange.abort()
        else:
            self._exchange.respond(502, [(b"content-type", b"text/plain")], str(error).encode())


async def serve(listen: int, upstream: int) -> None:
    """Relay until it is killed."""
    clock = Clock()
    pool = Pool(Origin("127.0.0.1", upstream), clock=clock, connections_max=CONNECTIONS)
    server = Server(
        lambda exchange: void(Relay(exchange, pool)),
        limits=Limits(),
        clock=clock,
        error_body=lambda status, message: (b"text/plain", f"{status} {message}\n".encode()),
    )
    await server.start("127.0.0.1", listen)
    await asyncio.Event().wait()


def void(_: object) -> None:
    """The relay is kept alive by the call that holds it."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.listen, arguments.upstream))
