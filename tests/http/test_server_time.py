"""Time-outs, limits on connections, and the end of a server."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, HOST, SetClock, client, eventually, read_response, serving, talk
from tidegate.http.server import Exchange, Limits


async def accepted(port: int, raw: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(raw)
    return reader, writer


async def dripped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: SetClock, piece: bytes) -> bytes:
    """What is answered to who sends one piece a second until then."""
    answer = asyncio.ensure_future(reader.read())
    while not answer.done():
        writer.write(piece)
        clock.at_s += 1.0
        await asyncio.wait([answer], timeout=0.02)
    return answer.result()


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"", b""),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_falls_silent_within_a_request_is_dropped(run: Run, raw: bytes, answer: bytes) -> None:
    async def main() -> None:
        async with serving(head_timeout_s=0.05, body_timeout_s=0.05) as server:
            assert (await talk(server.port, raw))[:13] == answer

    run(main())


def test_a_head_that_trickles_is_not_given_more_time_by_each_byte(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with serving(clock=clock, head_timeout_s=10.0) as server, client(server.port) as (reader, writer):
            begun_s = clock.at_s
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
            assert (await dripped(reader, writer, clock, b"a")).startswith(b"HTTP/1.1 408 ")
            assert 9.0 <= clock.at_s - begun_s <= 13.0

    run(main())


def test_a_body_of_somebody_known_that_keeps_coming_is_given_time(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with serving(clock=clock, body_timeout_s=10.0) as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n")
            for _ in range(20):
                writer.write(b"a")
                async with client(server.port) as (other, asking):
                    # By then the byte before has been read.
                    asking.write(GET)
                    await read_response(other)
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
            assert (await read_response(reader)).body == b"a" * 20

    run(main())


@pytest.mark.parametrize("framing", [b"content-length: 60000", b"transfer-encoding: chunked"])
def test_a_stranger_s_body_that_trickles_is_not_given_more_time_by_each_byte(run: Run, framing: bytes) -> None:
    async def main() -> None:
        clock = SetClock()
        async with (
            serving(clock=clock, knows=lambda _: False, body_timeout_s=10.0) as server,
            client(server.port) as (reader, writer),
        ):
            begun_s = clock.at_s
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % framing)
            piece = b"a" if framing.startswith(b"content") else b"1\r\na\r\n"
            assert (await dripped(reader, writer, clock, piece)).startswith(b"HTTP/1.1 408 ")
            assert 9.0 <= clock.at_s - begun_s <= 13.0

    run(main())


def test_each_of_a_stranger_s_bodies_has_its_own_time(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with (
            serving(clock=clock, knows=lambda _: False, body_timeout_s=10.0) as server,
            client(server.port) as (reader, writer),
        ):
            for _ in range(3):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
                await eventually(lambda: not server.idle)
                clock.at_s += 8.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
                writer.write(b"aa")
                assert (await read_response(reader)).body == b"aa"

    run(main())


def test_nobody_is_looked_up_for_a_body_that_comes_within_a_sweep_of_its_head(run: Run) -> None:
    async def main() -> None:
        asked = []

        def knows(headers: object) -> bool:
            asked.append(headers)
            return True

        async with serving(clock=SetClock(), knows=knows) as server, client(server.port) as (reader, writer):
            head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n"
            writer.write(head + b"aaa")
            assert (await read_response(reader)).body == b"aaa"
            writer.write(head)
            await eventually(lambda: not server.idle)
            for _ in range(3):
                writer.write(b"a")
                async with client(server.port) as (other, asking):
                    # By then the byte before has been read.
                    asking.write(GET)
                    await read_response(other)
            assert (await read_response(reader)).body == b"aaa"
            assert not asked

    run(main())


def test_an_idle_connection_is_closed_without_a_word(run: Run) -> None:
    async def main() -> None:
        async with serving(idle_timeout_s=0.05) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            await read_response(reader)
            assert await reader.read() == b""
            assert server.statistics().protocol_errors == {}

    run(main())


def test_a_handler_may_take_longer_than_any_client_may(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        begun: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        async with serving(begun.set_result, clock=clock) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            exchange = await begun
            clock.at_s += 3600.0
            await eventually(lambda: server.coarse_s >= clock.at_s)
            exchange.respond(200, [], b"at last")
            assert (await read_response(reader)).body == b"at last"

    run(main())


def test_a_client_that_does_not_read_is_cut_off(run: Run) -> None:
    async def main() -> None:
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def handler(exchange: Exchange) -> None:
            exchange.on_left = lambda: left.set_result(None)
            exchange.start(200, [])
            exchange.write(bytes(50_000_000))

        async with serving(handler, write_stall_s=0.05) as server, client(server.port) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET)
            await left

    run(main())


def test_a_client_that_does_not_read_the_last_of_it_is_cut_off_too(run: Run) -> None:
    async def main() -> None:
        handler = lambda exchange: exchange.respond(200, [], bytes(50_000_000))  # noqa: E731
        async with serving(handler, write_stall_s=0.05) as server, client(server.port) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            await eventually(lambda: server.statistics().open == 1)
            await eventually(lambda: server.statistics().open == 0)

    run(main())


def test_an_empty_line_after_a_request_begins_no_other(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with serving(clock=clock, head_timeout_s=10.0) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            assert (await read_response(reader)).status == 200
            writer.write(b"\r\n")
            await eventually(lambda: server.statistics().requests == 1)
            clock.at_s += 11.0
            await eventually(lambda: server.coarse_s >= clock.at_s)
            assert server.idle
            writer.write(b"\r\n" + GET)
            assert (await read_response(reader)).status == 200

    run(main())


def test_who_reads_slowly_gets_the_answer_before_a_refusal_and_the_refusal(run: Run) -> None:
    body_bytes, step_bytes = 40_000_000, 4_000_000
    handler = lambda exchange: exchange.respond(200, [], bytes(body_bytes))  # noqa: E731

    async def main() -> None:
        clock = SetClock()
        limits: dict[str, Any] = {"write_stall_s": 10.0, "linger_s": 2.0, "write_high_water": 2 * body_bytes}
        async with serving(handler, clock=clock, **limits) as server, client(server.port) as (reader, writer):
            writer.write(GET + b"no request\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            for _ in range(body_bytes // step_bytes):
                assert len(await reader.readexactly(step_bytes)) == step_bytes
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    run(main())


@pytest.mark.parametrize("case", ["closes", "more_is_written_later", "waits_to_be_taken"])
def test_a_client_that_reads_slowly_gets_all_of_it(run: Run, case: str) -> None:
    body_bytes, step_bytes = 40_000_000, 4_000_000
    # Beyond this its engine would be stopped, and the answer not be over.
    high_water = 2 * body_bytes if case == "waits_to_be_taken" else Limits().write_high_water

    def handler(exchange: Exchange) -> None:
        if case != "more_is_written_later":
            exchange.respond(200, [], bytes(body_bytes))
            return
        exchange.start(200, [])
        for size in (body_bytes // 4, body_bytes - body_bytes // 4):
            exchange.write(bytes(size))
        exchange.end()

    async def main() -> None:
        clock = SetClock()
        limits: dict[str, Any] = {"write_stall_s": 10.0, "idle_timeout_s": 20.0, "write_high_water": high_water}
        async with serving(handler, clock=clock, **limits) as server, client(server.port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" if case == "closes" else GET)
            for _ in range(body_bytes // step_bytes):
                assert len(await reader.readexactly(step_bytes)) == step_bytes
                clock.at_s += 6.0
                await eventually(lambda: server.coarse_s >= clock.at_s)

    run(main())


def test_a_thousand_slow_clients_do_not_stop_the_others(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            slow = [await accepted(server.port, b"GET / HTTP/1.1\r\nhost:") for _ in range(1000)]
            async with client(server.port) as (reader, writer):
                writer.write(GET)
                assert (await read_response(reader)).status == 200
            assert server.statistics().accepted == 1001
            for _, writer in slow:
                writer.transport.abort()
            await eventually(lambda: server.statistics().open == 0)

    run(main())


def test_a_connection_too_many_is_refused_and_the_others_go_on(run: Run) -> None:
    async def main() -> None:
        async with serving(connections_max=2) as server, client(server.port) as (reader, writer):
            async with client(server.port):
                await eventually(lambda: server.statistics().open == 2)
                assert (await talk(server.port, b"")).startswith(b"HTTP/1.1 503 ")
                assert server.statistics().refused == 1
                writer.write(GET)
                assert (await read_response(reader)).status == 200
            await eventually(lambda: server.statistics().open == 1)
            async with client(server.port) as (reader, writer):
                writer.write(GET)
                assert (await read_response(reader)).status == 200

    run(main())


def test_closing_lets_what_has_begun_finish(run: Run) -> None:
    async def main() -> None:
        begun: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        async with (
            serving(begun.set_result) as server,
            client(server.port) as (reader, writer),
            client(server.port) as (idle_reader, _),
        ):
            port = server.port
            writer.write(GET)
            exchange = await begun
            await eventually(lambda: server.statistics().open == 2)
            closing = asyncio.ensure_future(server.close(grace_s=30.0))
            assert await idle_reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, port)
            assert not closing.done()
            exchange.respond(200, [], b"done")
            response = await read_response(reader)
            assert response.body == b"done"
            assert response.headers[b"connection"] == b"close"
            await closing

    run(main())


def test_what_does_not_finish_in_time_has_a_last_word_and_nothing_comes_after_it(run: Run) -> None:
    async def main() -> None:
        begun: list[Exchange] = []
        async with (
            serving(begun.append) as server,
            client(server.port) as (reader, writer),
            client(server.port) as (half_reader, half_writer),
        ):
            # Its connection was to live on, and the next request is here already.
            writer.write(GET)
            await eventually(lambda: bool(begun))
            begun[0].start(200, [], first=b"one")
            writer.write(GET)
            half_writer.write(GET[:-2])
            await eventually(lambda: server.statistics().open == 2)
            await server.close(0.05, last_word=lambda: begun[0].end(b"no more"))
            assert (await read_response(reader)).body == b"oneno more"
            assert await reader.read() == b""
            with suppress(ConnectionResetError):  # of what it has sent, some may not have been read
                assert await half_reader.read() == b""
            assert len(begun) == 1

    run(main())


@pytest.mark.lengthy
def test_closing_does_not_wait_for_who_takes_no_last_word(run: Run) -> None:
    async def main() -> None:
        begun: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        async with serving(begun.set_result) as server, client(server.port) as (_, writer):
            writer.write(GET)
            exchange = await begun
            exchange.start(200, [])
            exchange.write(b"x" * 16_000_000)
            async with asyncio.timeout(5.0):
                await server.close(0.05, last_word=exchange.end)
            assert server.statistics().open == 0

    run(main())


def test_closing_does_not_wait_for_a_connection_whose_answer_has_ended_meanwhile(run: Run) -> None:
    async def main() -> None:
        begun: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        async with serving(begun.set_result) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            exchange = await begun
            exchange.start(200, [])
            closing = asyncio.ensure_future(server.close(grace_s=30.0))
            await asyncio.sleep(0)
            exchange.end(b"done")
            assert (await read_response(reader)).body == b"done"
            async with asyncio.timeout(5.0):
                await closing

    run(main())


def test_closing_drops_what_does_not_finish_in_time(run: Run) -> None:
    async def main() -> None:
        begun: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with serving(begun.set_result) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            exchange = await begun
            exchange.on_left = lambda: left.set_result(None)
            exchange.start(200, [])
            await server.close(grace_s=0.05)
            await left
            assert not (await reader.read()).endswith(b"0\r\n\r\n")
            assert server.statistics().open == 0

    run(main())
