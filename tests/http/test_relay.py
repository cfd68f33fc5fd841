"""Server and client together, as the gateway uses them."""

import asyncio
import gc

import pytest
from bench.passthrough import Relay, void

from tests.http.conftest import Run
from tests.http.harness import (
    GET,
    client,
    eventually,
    pool,
    read_request,
    read_response,
    serving,
    uncollected,
    upstream,
)
from tidegate.http.connection import Connection
from tidegate.http.link import Link
from tidegate.http.server import Exchange

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_chunks_are_relayed_one_by_one_as_they_come(run: Run) -> None:
    async def main() -> None:
        steps: asyncio.Queue[None] = asyncio.Queue()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(CHUNKED)
            for n in range(3):
                await steps.get()
                writer.write(b"6\r\ndata %d\r\n" % n)
            writer.write(b"0\r\n\r\n")
            await reader.read()

        async with (
            upstream(script) as up,
            pool(up.port) as to,
            serving(lambda exchange: void(Relay(exchange, to))) as server,
            client(server.port) as (reader, writer),
        ):
            writer.write(GET)
            await read_response(reader, head_only=True)
            for n in range(3):
                steps.put_nowait(None)
                assert await reader.readuntil(b"%d\r\n" % n) == b"6\r\ndata %d\r\n" % n
            assert await reader.readexactly(5) == b"0\r\n\r\n"

    run(main())


def test_requests_through_the_relay_need_one_connection_each_side(run: Run) -> None:
    async def main() -> None:
        async with (
            serving() as engine,
            pool(engine.port) as to,
            serving(lambda exchange: void(Relay(exchange, to))) as server,
            client(server.port) as (reader, writer),
        ):
            for n in range(20):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n%02d" % n)
                assert (await read_response(reader)).body == b"%02d" % n
            assert engine.statistics().accepted == server.statistics().accepted == 1

    run(main())


@pytest.mark.lengthy
def test_connections_that_are_over_go_at_once_and_not_when_garbage_is_collected(run: Run) -> None:
    def held() -> int:
        return sum(isinstance(one, Connection | Link) for one in gc.get_objects())

    async def main() -> None:
        async with (
            serving() as engine,
            pool(engine.port, idle_max=0) as to,
            serving(lambda exchange: void(Relay(exchange, to))) as server,
        ):
            before = held()
            for _ in range(10):
                async with client(server.port) as (reader, writer):
                    writer.write(GET)
                    assert (await read_response(reader)).status == 200
            await eventually(lambda: held() == before)

    with uncollected():
        run(main())


def test_a_client_that_leaves_closes_the_upstream_connection(run: Run) -> None:
    async def main() -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(CHUNKED + b"3\r\nabc\r\n")
            try:
                assert await reader.read() == b""
            finally:
                gone.set_result(None)

        async with (
            upstream(script) as up,
            pool(up.port) as to,
            serving(lambda exchange: void(Relay(exchange, to))) as server,
        ):
            async with client(server.port) as (reader, writer):
                writer.write(GET)
                await reader.readuntil(b"abc")
            await gone

    run(main())


def test_a_truncated_upstream_truncates_the_response(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"3\r\nabc\r\n")

    async def main() -> None:
        async with (
            upstream(script) as up,
            pool(up.port) as to,
            serving(lambda exchange: void(Relay(exchange, to))) as server,
            client(server.port) as (reader, writer),
        ):
            writer.write(GET)
            assert (await reader.read()).endswith(b"3\r\nabc\r\n")

    run(main())


def test_a_slow_reader_pauses_the_upstream_so_that_little_is_kept(run: Run) -> None:
    async def main() -> None:
        stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        kept: list[Exchange] = []
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        count = 1000

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(CHUNKED)
            for n in range(count):
                writer.write(chunk)
                try:
                    async with asyncio.timeout(0.2):
                        await writer.drain()
                except TimeoutError:
                    if not stopped.done():
                        stopped.set_result(n)
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
            await reader.read()

        def handler(exchange: Exchange) -> None:
            kept.append(exchange)
            Relay(exchange, to)

        async with (
            upstream(script) as up,
            pool(up.port) as to,
            serving(handler) as server,
            client(server.port) as (reader, writer),
        ):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET)
            await stopped
            # The high-water mark, and what one read of the upstream may add to it.
            assert kept[0]._connection.transport.get_write_buffer_size() < 1_000_000
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            assert len((await read_response(reader)).body) == count * 0x10000

    run(main())
