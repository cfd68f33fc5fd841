"""A blob that goes out, in one pass over a mapped file: each piece is hashed and encrypted while it is in the cache.

The receiver is asked first: nothing of a blob leaves before it has seen the ticket and said that it wants it.
"""

import asyncio
import ssl
from contextlib import suppress

import msgspec
from blake3 import blake3

from tidegate.config.address import Address
from tidegate.courier.refusal import RefusalError
from tidegate.wire.blob import DIGEST_BYTES, Declared
from tidegate.wire.courier import MESSAGE_BYTES_MAX, Received, Refused, Why
from tidegate.wire.errors import UNREADABLE

# What is written at once: some tenths of a millisecond of the loop. With less, a blob takes as long.
PIECE_BYTES = 1 << 20


class Sent(msgspec.Struct):
    """How much of a blob the network has taken, also of one that does not arrive."""

    size_bytes: int = 0


async def send(
    blob: memoryview, declared: Declared, ticket: str, to: Address, server_name: str, tls: ssl.SSLContext, sent: Sent
) -> str:
    """Send it to the courier of that name at that address; what that one calls it. Raises `RefusalError`."""
    try:
        reader, writer = await asyncio.open_connection(
            to.host, to.port, ssl=tls, server_hostname=server_name, limit=MESSAGE_BYTES_MAX
        )
    except OSError as error:
        reason = "its certificate, or ours, will not do" if isinstance(error, ssl.SSLError) else "nobody answers"
        raise RefusalError(Why.PEER, f"the other courier cannot be reached: {reason}") from error
    try:
        writer.write(_head(declared, ticket, server_name))
        await _answer(reader, 100)
        answer = asyncio.ensure_future(_answer(reader, 201))
        try:
            await _stream(blob, writer, answer, sent)
            return await answer
        finally:
            answer.cancel()
            with suppress(asyncio.CancelledError, RefusalError):
                await answer
    except OSError as error:
        raise RefusalError(Why.PEER, "the connection to the other courier broke off") from error
    finally:
        writer.transport.abort()  # all is answered, or nothing that is left is wanted


async def _stream(blob: memoryview, writer: asyncio.StreamWriter, answer: "asyncio.Future[str]", sent: Sent) -> None:
    digest = blake3()
    for start in range(0, len(blob), PIECE_BYTES):
        # No name for a piece: errors that are kept know this frame, and so the blob would stay in memory.
        end = start + PIECE_BYTES
        digest.update(blob[start:end])
        try:
            writer.write(blob[start:end])
            await writer.drain()
        except ConnectionError:
            return  # who closed has said why before, or will not say it
        sent.size_bytes = min(end, len(blob))
        if answer.done():
            return  # it wants no more of it
    writer.write(digest.digest())


def _head(declared: Declared, ticket: str, server_name: str) -> bytes:
    return (
        b"PUT /v1/blobs HTTP/1.1\r\nhost: %b\r\nexpect: 100-continue\r\ncontent-length: %d\r\n"
        b"tidegate-ticket: %b\r\ntidegate-blob: %b\r\n\r\n"
    ) % (server_name.encode(), declared.size_bytes + DIGEST_BYTES, ticket.encode(), msgspec.json.encode(declared))


async def _answer(reader: asyncio.StreamReader, expected: int) -> str:
    """What the other courier calls the blob, where that is what it answers; empty where it is told to go on."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status == expected == 100:
            return ""
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(min(int(fields[b"content-length"]), MESSAGE_BYTES_MAX))
        if status == expected:
            return msgspec.json.decode(body, type=Received).name
        refused = msgspec.json.decode(body, type=Refused)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
        raise RefusalError(Why.PEER, "the other courier hung up") from error
    except (ValueError, IndexError, KeyError, *UNREADABLE) as error:
        raise RefusalError(Why.PEER, "what answers there is no courier") from error
    raise RefusalError(refused.why, f"the other courier refuses: {refused.message}")
