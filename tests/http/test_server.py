import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, TEXT, client, echo, error_body, eventually, read_response, serving, talk
from tidegate.clock import Clock
from tidegate.http.connection import Connection
from tidegate.http.limits import OWN_TURN_BYTES
from tidegate.http.server import Exchange, Limits, Server


def test_a_handler_sees_a_complete_request(run: Run) -> None:
    seen: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(200, [], b"")

    async def main() -> None:
        raw = b"POST /v1/chat?a=b&c HTTP/1.1\r\nHost: x\r\nX-Tag: 1\r\nx-tag: 2 \r\nContent-Length: 5\r\n\r\nhello"
        async with serving(handler) as server, client(server.port) as (reader, writer):
            before_s = server.clock.now_s()
            writer.write(raw)
            await read_response(reader)
            (exchange,) = seen
            assert (exchange.method, exchange.path, exchange.query) == ("POST", "/v1/chat", "a=b&c")
            assert exchange.headers == {b"host": b"x", b"x-tag": b"1, 2", b"content-length": b"5"}
            assert exchange.body == b"hello"
            assert exchange.peer == "127.0.0.1"
            assert before_s <= exchange.received_s <= server.clock.now_s()
            assert exchange.closed

    run(main())


def test_a_host_that_cannot_be_looked_up_is_named(run: Run) -> None:
    async def main() -> None:
        server = Server(echo, limits=Limits(), clock=Clock(), error_body=error_body)
        with pytest.raises(OSError, match=r"^fe80::1%nowhere:8400: "):
            await server.start("fe80::1%nowhere", 8400)

    run(main())


def test_a_connection_carries_many_requests(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            for n in range(10):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n%d" % n)
                assert (await read_response(reader)).body == b"%d" % n
            assert server.statistics().accepted == 1
            assert server.statistics().requests == 10

    run(main())


def test_pipelined_requests_are_answered_in_order_one_at_a_time(run: Run) -> None:
    waiting: list[Exchange] = []
    more = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        waiting.append(exchange)
        more.set()

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(5)))
            for n in range(5):
                await more.wait()
                more.clear()
                (exchange,) = waiting
                waiting.clear()
                exchange.respond(200, [], exchange.path.encode())
                assert (await read_response(reader)).body == b"/%d" % n

    run(main())


def test_more_pipelined_requests_than_allowed_are_left_for_a_new_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(pipelined_max=3) as server:
            answer = await talk(server.port, GET * 50)
            assert answer.count(b"HTTP/1.1 200 OK") == 3
            assert answer.count(b"connection: close") == 1

    run(main())


def test_pipelined_bytes_beyond_the_limit_stop_the_reading_until_their_turn(run: Run) -> None:
    first: list[Exchange] = []
    sizes: list[int] = []

    def handler(exchange: Exchange) -> None:
        sizes.append(len(exchange.body))
        if not first:
            first.append(exchange)
        else:
            exchange.respond(200, [], b"")

    async def main() -> None:
        async with serving(handler, pipelined_bytes_max=1000) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            big = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000000\r\n\r\n" + bytes(20_000_000)
            writer.write(big)
            # More than the kernel takes: the rest stays here because the server does not read.
            assert await stalls(writer)
            first[0].respond(200, [], b"")
            await read_response(reader)
            await read_response(reader)
            assert sizes == [0, 20_000_000]

    async def stalls(writer: asyncio.StreamWriter) -> bool:
        try:
            async with asyncio.timeout(0.3):
                await writer.drain()
        except TimeoutError:
            return True
        return False

    run(main())


def test_a_streamed_response_is_chunked(run: Run) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, TEXT)
        exchange.write(b"one")
        exchange.write(b"")
        exchange.write(b"two")
        exchange.end()

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            for _ in range(2):
                writer.write(GET)
                assert (await read_response(reader)).chunks == [b"one", b"two"]

    run(main())


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (GET, b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\n\r\n", b"connection: close\r\n\r\nonetwothree"),
        (b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"),
    ],
)
def test_a_first_piece_may_come_with_the_head_and_a_last_one_with_the_end(
    run: Run, asked: bytes, answer: bytes
) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, [], b"", b"one")
        exchange.write(b"two")
        exchange.end(b"three")

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(asked)
            assert (
                await reader.readexactly(len(b"HTTP/1.1 200 OK\r\n") + len(answer)) == b"HTTP/1.1 200 OK\r\n" + answer
            )
            if b"1.1" in asked:  # nothing but this came, and the connection goes on
                writer.write(asked)
                assert await reader.readexactly(9) == b"HTTP/1.1 "

    run(main())


def test_a_chunked_request_arrives_whole_and_its_trailers_are_dropped(run: Run) -> None:
    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nauthorization: evil\r\n\r\n" + GET)
            assert (await read_response(reader)).body == b"abcde"
            assert (await read_response(reader)).status == 200

    run(main())


def test_a_trailer_does_not_become_a_header_of_the_next_request(run: Run) -> None:
    seen: list[dict[bytes, bytes]] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange.headers)
        exchange.respond(200, [], b"")

    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(head + b"0\r\nauthorization: evil\r\n\r\n" + GET)
            await read_response(reader)
            await read_response(reader)
            assert seen[1] == {b"host": b"a"}

    run(main())


def test_head_gets_the_headers_of_get_and_no_body(run: Run) -> None:
    def handler(exchange: Exchange) -> None:
        if exchange.path == "/stream":
            exchange.start(200, [])
            exchange.write(b"abc")
            exchange.end()
        else:
            exchange.respond(200, [], b"abc")

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await read_response(reader, head_only=True)).headers[b"content-length"] == b"3"
            writer.write(b"HEAD /stream HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await read_response(reader, head_only=True)).headers[b"transfer-encoding"] == b"chunked"
            writer.write(GET)
            assert (await read_response(reader)).body == b"abc"

    run(main())


def test_a_status_without_body_has_no_content_length(run: Run) -> None:
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(204, [], b"")) as server:
            answer = await talk(server.port, b"GET / HTTP/1.0\r\n\r\n")
            assert answer == b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"

    run(main())


def test_http_1_0_closes_after_the_response_unless_asked_to_stay(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            assert (await read_response(reader)).headers[b"connection"] == b"keep-alive"
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await read_response(reader)).headers[b"connection"] == b"close"
            assert await reader.read() == b""

    run(main())


def test_a_stream_to_an_http_1_0_client_ends_with_the_connection(run: Run) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"one")
        exchange.write(b"two")
        exchange.end()

    async def main() -> None:
        async with serving(handler) as server:
            answer = await talk(server.port, b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            assert answer == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"

    run(main())


def test_an_aborted_stream_looks_truncated_after_what_was_written(run: Run) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"half")
        exchange.abort()
        assert exchange.closed
        exchange.write(b"ignored")
        exchange.end()

    async def main() -> None:
        async with serving(handler) as server:
            answer = await talk(server.port, GET)
            assert answer.endswith(b"\r\n\r\n4\r\nhalf\r\n")
            with pytest.raises(ConnectionResetError):
                await talk(server.port, b"GET / HTTP/1.0\r\n\r\n")

    run(main())


def test_a_client_that_leaves_is_noticed_while_its_response_is_in_flight(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[Exchange] = loop.create_future()
        left: asyncio.Future[None] = loop.create_future()

        def handler(exchange: Exchange) -> None:
            exchange.on_left = lambda: left.set_result(None)
            begun.set_result(exchange)

        async with serving(handler) as server:
            async with client(server.port) as (_, writer):
                writer.write(GET)
                exchange = await begun
            await left
            assert exchange.closed
            exchange.respond(200, [], b"too late")  # does nothing

    run(main())


def test_a_client_that_closes_only_its_side_counts_as_gone(run: Run) -> None:
    async def main() -> None:
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def handler(exchange: Exchange) -> None:
            exchange.start(200, [])
            exchange.on_left = lambda: left.set_result(None)

        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            await read_response(reader, head_only=True)
            writer.write_eof()
            await left

    run(main())


def test_a_failing_handler_is_a_500_and_the_server_goes_on(run: Run) -> None:
    failures: list[Exception] = []

    def handler(exchange: Exchange) -> None:
        if exchange.path == "/late":
            exchange.start(200, [])
        raise ZeroDivisionError

    async def main() -> None:
        server = Server(handler, limits=Limits(), clock=Clock(), error_body=error_body, on_error=failures.append)
        await server.start("127.0.0.1", 0)
        answer = await talk(server.port, GET)
        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert answer.endswith(b"500 internal error")
        answer = await talk(server.port, b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not answer.endswith(b"0\r\n\r\n")
        large = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % OWN_TURN_BYTES + bytes(OWN_TURN_BYTES)
        assert (await talk(server.port, large)).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert [type(failure) for failure in failures] == [ZeroDivisionError] * 3
        assert server.statistics().handler_errors == 3
        await server.close(grace_s=0.0)

    run(main())


def test_a_header_that_would_split_the_response_is_refused(run: Run) -> None:
    def handler(exchange: Exchange) -> None:
        for field in [(b"a", b"b\r\nc: d"), (b"a\n", b"b"), (b"a", b"\0"), (b"Content-Length", b"9")]:
            with pytest.raises(ValueError, match="header"):
                exchange.respond(200, [field], b"")
            with pytest.raises(ValueError, match="header"):
                exchange.start(200, [field])
        exchange.respond(200, [], b"")

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            assert (await read_response(reader)).status == 200

    run(main())


def test_small_writes_are_not_delayed(run: Run) -> None:
    options: list[int] = []

    def handler(exchange: Exchange) -> None:
        peer = exchange._connection.transport.get_extra_info("socket")
        options.append(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        echo(exchange)

    async def main() -> None:
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            await read_response(reader)
            assert options == [1]

    run(main())


def test_a_large_body_goes_both_ways(run: Run) -> None:
    async def main() -> None:
        body = bytes(range(256)) * 8192
        async with serving() as server, client(server.port) as (reader, writer):
            for _ in range(2):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                assert (await read_response(reader)).body == body

    run(main())


@asynccontextmanager
async def all_but_a_byte(server: Server, body: bytes) -> AsyncIterator[tuple[Connection, asyncio.StreamReader]]:
    """A client of whose request the last byte is still to come, and its connection."""
    async with client(server.port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:-1])
        await eventually(lambda: any(at._reader.body_bytes == len(body) - 1 for at in server.connections))
        (connection,) = server.connections
        yield connection, reader


def test_others_have_a_turn_between_the_end_of_a_large_body_and_what_is_done_with_it(run: Run) -> None:
    async def main() -> None:
        handled: list[int] = []

        def handler(exchange: Exchange) -> None:
            handled.append(len(exchange.body))
            echo(exchange)

        for size, at_once in ((OWN_TURN_BYTES - 1, True), (OWN_TURN_BYTES, False)):
            async with serving(handler) as server, all_but_a_byte(server, bytes(size)) as (connection, reader):
                connection.data_received(b"\0")
                assert (handled == [size]) is at_once
                await eventually(lambda: bool(handled))
                assert handled == [size]
                assert (await read_response(reader)).body == bytes(size)
                handled.clear()

    run(main())


def test_what_comes_meanwhile_is_looked_for_between_the_end_of_a_large_body_and_what_is_done_with_it(run: Run) -> None:
    near, far = socket.socketpair()

    class Comes(Clock):
        """What is asked when a request is complete, and somebody else's comes just then."""

        def now_s(self) -> float:
            far.send(b"x")
            return super().now_s()

        def steady_s(self) -> float:  # which sweeps ask for
            return super().now_s()

    async def main() -> None:
        order: list[str] = []

        def other() -> None:
            order.append(near.recv(16).decode())

        def handler(exchange: Exchange) -> None:
            order.append("large")
            exchange.respond(200, TEXT, b"")

        loop = asyncio.get_running_loop()
        async with serving(handler, clock=Comes()) as server, client(server.port) as (reader, writer):
            loop.add_reader(near, other)
            body = bytes(OWN_TURN_BYTES)
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await read_response(reader)
            loop.remove_reader(near)
        assert order == ["x", "large"]

    with near, far:
        near.setblocking(False)
        run(main())


def test_a_large_body_whose_client_leaves_before_its_turn_is_not_handled(run: Run) -> None:
    async def main() -> None:
        handled: list[Exchange] = []
        async with (
            serving(handled.append) as server,
            all_but_a_byte(server, bytes(OWN_TURN_BYTES)) as (connection, _),
        ):
            connection.transport.abort()  # of which the connection is told by the next turn
            connection.data_received(b"\0")
            await eventually(lambda: not server.connections)
            await asyncio.sleep(0)
            assert handled == []

    run(main())


def test_a_large_body_that_waits_for_its_turn_is_answered_by_a_server_that_closes(run: Run) -> None:
    async def main() -> None:
        body = bytes(OWN_TURN_BYTES)
        async with serving() as server, all_but_a_byte(server, body) as (connection, reader):
            connection.data_received(b"\0")
            closing = asyncio.ensure_future(server.close(grace_s=5.0))
            assert (await read_response(reader)).body == body
            await closing

    run(main())
