"""Large bodies on their way to a transport, so that it tells how much of them is still to go."""

import asyncio
from typing import Final

COPY_BYTES_MAX: Final = 16 * 1024  # below it one joined write is cheaper than a vector of two
# TLS hands on at once what it is given, and from then on says that it holds nothing. Given piece by piece, it keeps
# what the connection below does not take, and counts it.
TLS_PIECE_BYTES: Final = 64 * 1024


def send(transport: asyncio.Transport, head: bytes, body: bytes) -> None:
    """Write both."""
    size = len(body)
    if size <= COPY_BYTES_MAX:
        transport.write(head + body)
    elif size <= TLS_PIECE_BYTES or transport.get_extra_info("sslcontext") is None:
        transport.writelines((head, body))
    else:
        transport.write(head)
        pieces = memoryview(body)
        for at in range(0, size, TLS_PIECE_BYTES):
            transport.write(pieces[at : at + TLS_PIECE_BYTES])
