"""What answers in place of a courier: a gateway and a sender both say so, and nothing else comes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tests.courier.harness import HOST, House, made, pair
from tests.courier.standin import state
from tests.http.harness import eventually, serving, uncollected
from tidegate.clock import Clock
from tidegate.config.address import Address
from tidegate.courier.refusal import RefusalError
from tidegate.courier.send import Sent, send
from tidegate.engines.courier import CourierClient, CourierError
from tidegate.http.client import Origin, Pool
from tidegate.http.server import Exchange
from tidegate.wire.blob import Declared
from tidegate.wire.courier import Restore, Why

BLOB = made(size_bytes=8 << 20)
DECLARED = Declared(size_bytes=len(BLOB), tokens=3, tokens_digest="11" * 32, fingerprint="22" * 32)
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(*pieces: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await reader.read(1 << 16)
        writer.transport.abort()

    return script


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


async def sending(house: House, to: Address) -> str:
    return await send(memoryview(BLOB), DECLARED, "a ticket", to, "b", house.tls("a").client(), Sent())


REFUSAL = answer(b"503 Service Unavailable", b'{"why":"full","message":"no room"}')


@pytest.mark.parametrize(("script", "why"), [
    (saying(), Why.PEER),
    (saying(b"HTTP/1.1 200 OK\r\n\r\n"), Why.PEER),
    (saying(b"SSH-2.0\r\n\r\n"), Why.PEER),
    (saying(answer(b"502 Bad Gateway", b"<html>")), Why.PEER),
    (saying(REFUSAL), Why.FULL),
    (saying(GO_ON), Why.PEER),
    (saying(GO_ON, REFUSAL), Why.FULL),
    (saying(GO_ON, answer(b"201 Created", b'{"name": "../../etc"}')), Why.PEER),
    (saying(GO_ON, b"x" * 100_000), Why.PEER),
])  # fmt: skip
async def test_a_sender_says_why_it_could_not_send(tmp_path: Path, script: Script, why: Why) -> None:
    house, over = House(tmp_path, tmp_path), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await script(reader, writer)
        over.set()

    server = await asyncio.start_server(peer, HOST, 0, ssl=house.tls("b").server())
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(RefusalError) as raised:
            await sending(house, Address(HOST, port))
        await over.wait()
    assert raised.value.why is why


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(GO_ON)


@pytest.mark.lengthy
@pytest.mark.parametrize(("script", "why"), [
    (saying(REFUSAL), Why.FULL),
    (saying(GO_ON, REFUSAL), Why.FULL),
    (saying(GO_ON, b"x" * 100_000), Why.PEER),
    (saying(GO_ON), Why.PEER),
    (silent, Why.TIMEOUT),
], ids=["refused", "refused meanwhile", "garbled", "hung up", "silent"])  # fmt: skip
async def test_what_could_not_be_sent_leaves_memory_at_once(tmp_path: Path, script: Script, why: Why) -> None:
    seen, over = asyncio.Event(), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await script(reader, writer)
        await seen.wait()
        writer.transport.abort()
        over.set()

    async with pair(tmp_path) as home:
        engine = home.engines["a"]
        engine.slots[0], engine.bytes_per_token = [5, 6, 7], 3_333_333
        now_s, fingerprint = home.clock.now_s(), await home.fingerprint()
        ticket = home.ticket(fingerprint, issued_s=now_s, expires_s=now_s + (3.0 if why is Why.TIMEOUT else 60.0))
        server = await asyncio.start_server(peer, HOST, 0, ssl=home.tls("b").server())
        order = msgspec.structs.replace(home.order(ticket), to=f"{HOST}:{server.sockets[0].getsockname()[1]}")
        async with server:
            with uncollected():
                with pytest.raises(CourierError) as raised:
                    await home.client("a").ship(order, 10.0)
                assert raised.value.why is why
                mapped = str(home.saves_of("a"))
                await eventually(lambda: mapped not in Path("/proc/self/maps").read_text())
            seen.set()
            await over.wait()


async def test_of_a_blob_that_is_refused_at_its_end_the_gateway_is_told_how_much_was_sent(tmp_path: Path) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(GO_ON)
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(REFUSAL)
        await writer.drain()
        writer.close()

    async with pair(tmp_path) as home:
        engine = home.engines["a"]
        engine.slots[0], engine.bytes_per_token = [5, 6, 7], 1_000_000
        server = await asyncio.start_server(peer, HOST, 0, ssl=home.tls("b").server())
        to = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        order = msgspec.structs.replace(home.order(home.ticket(await home.fingerprint())), to=to)
        async with server:
            with pytest.raises(CourierError) as raised:
                await home.client("a").ship(order, 10.0)
    assert (raised.value.why, raised.value.sent_bytes) == (Why.FULL, len(state([5, 6, 7], 3_000_000)))


async def test_nobody_and_somebody_else_are_no_peer(tmp_path: Path) -> None:
    house = House(tmp_path, tmp_path)
    server = await asyncio.start_server(saying(), HOST, 0, ssl=house.tls("stranger").server())
    to = Address(HOST, server.sockets[0].getsockname()[1])
    async with server:
        with pytest.raises(RefusalError, match="certificate"):
            await sending(house, to)
    with pytest.raises(RefusalError, match="nobody answers"):
        await sending(house, to)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (502, b"<html>"), (200, b"{}")])
async def test_a_gateway_says_that_what_answers_is_no_courier(status: int, body: bytes) -> None:
    def other(exchange: Exchange) -> None:
        exchange.respond(status, [], body)

    async with serving(other) as server:
        port = server.port
        pool = Pool(Origin(HOST, server.port), clock=Clock())
        for asking in (
            CourierClient(pool).health(5.0),
            CourierClient(pool).restore(Restore(name="0" * 32, slot=0), 5.0),
        ):
            with pytest.raises(CourierError, match="no courier") as raised:
                await asking
            assert raised.value.why is Why.PEER
        await pool.close()
    with pytest.raises(CourierError, match="does not answer"):
        await CourierClient(Pool(Origin(HOST, port), clock=Clock())).health(5.0)
