"""The limits of the server hold where it speaks TLS: from the first byte on, and to the last."""

import asyncio
import gc
import ssl
from contextlib import AsyncExitStack, suppress

import pytest
import trustme
import uvloop

from tests.http.conftest import Run
from tests.http.harness import GET, HOST, SetClock, client, eventually, read_response, serving, talk, uncollected
from tidegate.http.connection import Connection
from tidegate.http.exchange import Exchange
from tidegate.http.reader import Reader

AUTHORITY = trustme.CA()


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class Hand:
    """A client's side of TLS, moved by hand over a plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_tls().wrap_bio(self._in, self._out, server_hostname="localhost")

    async def shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._writer.write(self._out.read())
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            else:
                self._writer.write(self._out.read())
                return

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._writer.write(self._out.read())

    async def read(self) -> bytes:
        """All that is said, until the end of TLS. Raises `ConnectionError` where the connection ends without it."""
        said = b""
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                more = await self._reader.read(65536)
                if not more:
                    raise ConnectionAbortedError from None
                self._in.write(more)
            else:
                if not data:
                    return said
                said += data

    def hello(self) -> bytes:
        """The first message of a handshake, as bytes."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()


@pytest.mark.parametrize("raw", [b"", b"\x16\x03\x01"], ids=["nothing", "half a record"])
def test_a_client_that_never_shakes_hands_is_dropped_in_time(run: Run, raw: bytes) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), head_timeout_s=0.05) as server:
            assert await talk(server.port, raw) == b""
            assert server.statistics().open == 0

    run(main())


def test_a_handshake_that_trickles_is_not_given_more_time_by_each_byte(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), head_timeout_s=0.2) as server, client(server.port) as (reader, writer):
            over = asyncio.ensure_future(reader.read())
            hello = Hand(reader, writer).hello()
            sent = 0
            while not over.done():
                writer.write(hello[sent : sent + 1])
                sent += 1
                await asyncio.wait([over], timeout=0.01)
            # A byte that arrives after the server has left comes back as a reset: the same end, heard otherwise.
            assert isinstance(over.exception(), ConnectionResetError | None)
            assert sent < len(hello)

    run(main())


def test_what_is_no_tls_gets_no_answer(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls()) as server:
            assert b"HTTP" not in await talk(server.port, GET)
            assert server.statistics().requests == 0

    run(main())


def test_a_client_that_falls_silent_after_the_handshake_is_dropped_also_if_it_never_says_goodbye(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(tls=server_tls(), head_timeout_s=0.2, write_stall_s=0.05) as server,
            client(server.port) as (reader, writer),
        ):
            await Hand(reader, writer).shake()
            await eventually(lambda: server.statistics().open == 1)
            await reader.read()
            await eventually(lambda: server.statistics().open == 0)

    run(main())


def test_a_handshake_that_ends_after_the_server_gets_no_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls()) as server, client(server.port) as (reader, writer):
            # Whoever was served after it knows that it was accepted.
            async with client(server.port) as (other_reader, other_writer):
                await Hand(other_reader, other_writer).shake()
            await eventually(lambda: server.statistics().accepted == 1)
            await server.close(grace_s=0.0)
            with suppress(ConnectionError):
                await Hand(reader, writer).shake()
                await reader.read()  # to the end, for it does not stay open
            assert server.statistics().accepted == 1

    run(main())


def test_requests_are_answered_one_after_the_other_on_one_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls()) as server:
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=client_tls(), server_hostname="localhost"
            )
            for size in (0, 1, 300_000):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
                assert (await read_response(reader)).body == bytes(size)
            writer.transport.abort()
            await eventually(lambda: server.statistics().open == 0)

    run(main())


@pytest.mark.parametrize("aborts", [False, True])
def test_a_stream_to_an_http_1_0_client_ends_with_the_end_of_tls_only_where_it_is_whole(run: Run, aborts: bool) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"one")
        exchange.abort() if aborts else exchange.end()

    async def main() -> None:
        async with serving(handler, tls=server_tls()) as server, client(server.port) as (reader, writer):
            hand = Hand(reader, writer)
            await hand.shake()
            hand.write(b"GET / HTTP/1.0\r\n\r\n")
            if aborts:
                with pytest.raises(ConnectionError):
                    await hand.read()
                await eventually(lambda: server.statistics().open == 0)
            else:
                assert (await hand.read()).endswith(b"\r\n\r\none")

    run(main())


@pytest.mark.lengthy
@pytest.mark.parametrize("closes", [False, True])
def test_a_client_that_reads_slowly_gets_all_of_it(run: Run, closes: bool) -> None:
    body_bytes, step_bytes = 40_000_000, 4_000_000
    head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" if closes else GET

    async def main() -> None:
        clock = SetClock()
        async with serving(
            lambda exchange: exchange.respond(200, [], bytes(body_bytes)),
            tls=server_tls(),
            clock=clock,
            write_stall_s=10.0,
            idle_timeout_s=20.0,
        ) as server:
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=client_tls(), server_hostname="localhost"
            )
            writer.write(head)
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(body_bytes // step_bytes):
                assert len(await reader.readexactly(step_bytes)) == step_bytes
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
            writer.transport.abort()

    run(main())


def test_a_client_that_ends_its_side_while_its_answer_is_on_its_way_gets_all_of_it(run: Run) -> None:
    body_bytes, step_bytes = 40_000_000, 4_000_000

    async def main() -> None:
        clock = SetClock()
        handler = lambda exchange: exchange.respond(200, [], bytes(body_bytes))  # noqa: E731
        async with (
            serving(handler, tls=server_tls(), clock=clock) as server,
            client(server.port) as (reader, writer),
        ):
            hand = Hand(reader, writer)
            await hand.shake()
            hand.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            await reader.readexactly(step_bytes)
            writer.write_eof()
            for _ in range(body_bytes // step_bytes - 1):
                await reader.readexactly(step_bytes)
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)

    run(main())


def test_a_client_that_takes_nothing_is_cut_off(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with serving(
            lambda exchange: exchange.respond(200, [], bytes(40_000_000)),
            tls=server_tls(),
            clock=clock,
            write_stall_s=10.0,
        ) as server:
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=client_tls(), server_hostname="localhost"
            )
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(10):
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
            await eventually(lambda: server.statistics().open == 0)
            writer.transport.abort()

    run(main())


def test_who_is_refused_for_want_of_room_is_gone_soon_whatever_it_does(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), connections_max=1, linger_s=0.05) as server, client(server.port) as one:
            await Hand(*one).shake()
            async with client(server.port) as (reader, writer):
                hand = Hand(reader, writer)
                await hand.shake()
                # It says nothing more, and does not answer the end of TLS: the connection below is ended all the same.
                with suppress(ConnectionResetError):
                    await reader.read()

    run(main())


def test_who_finds_no_room_is_told_so(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), connections_max=1) as server, client(server.port) as one:
            await Hand(*one).shake()
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=client_tls(), server_hostname="localhost"
            )
            assert (await read_response(reader)).status == 503
            writer.transport.abort()

    run(main())


@pytest.mark.lengthy
def test_no_more_than_some_are_told_so_at_a_time_and_the_others_cut_off(run: Run) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), connections_max=1) as server, AsyncExitStack() as stack:
            for n in range(33):
                # Of all but the first the end of TLS is waited for.
                await Hand(*await stack.enter_async_context(client(server.port))).shake()
                await eventually(lambda: server.statistics().accepted + server.statistics().refused == n + 1)  # noqa: B023
            with suppress(ConnectionResetError):
                assert await talk(server.port, b"") == b""
            assert server.statistics().refused == 33

    run(main())


@pytest.mark.parametrize("end", [b"", GET], ids=["leaves", "says what is no TLS"])
def test_who_never_shakes_hands_takes_the_place_of_a_connection_until_it_is_gone(run: Run, end: bytes) -> None:
    async def main() -> None:
        async with serving(tls=server_tls(), connections_max=40) as server, AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(client(server.port)) for _ in range(40)]
            for _ in range(3):
                with suppress(ConnectionResetError):
                    assert await talk(server.port, b"") == b""
            assert server.statistics().refused == 3
            reader, writer = silent[0]
            if end:
                writer.write(end)
                await reader.read()
            else:
                writer.transport.abort()
            while server.statistics().accepted == 0:
                async with client(server.port) as one:
                    with suppress(ConnectionResetError):
                        await Hand(*one).shake()

    run(main())


@pytest.mark.lengthy
def test_a_handshake_that_failed_leaves_nothing_behind() -> None:
    def living() -> int:
        return sum(type(one) in (Connection, Reader) for one in gc.get_objects())

    async def main() -> None:
        async with serving(tls=server_tls(), head_timeout_s=0.05) as server:
            for raw in (GET, b"", b"\x16\x03\x01"):
                await talk(server.port, raw)
            async with asyncio.timeout(5.0):
                await eventually(lambda: living() == 0)
            assert server.statistics().open == 0

    with uncollected(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("turns", range(4))
def test_a_server_that_closes_ends_the_handshakes_under_way(run: Run, turns: int) -> None:
    async def main() -> None:
        async with serving(tls=server_tls()) as server, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(server.port)) for _ in range(3)]
            for _ in range(turns):  # however far it has come
                await asyncio.sleep(0)
            await server.close(grace_s=0.0)
            for reader, _ in clients:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""

    run(main())
