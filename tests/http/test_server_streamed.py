"""Bodies that are handed over as they come, whatever their size."""

import asyncio
from collections.abc import Callable

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, SetClock, client, eventually, read_response, serving
from tidegate.http.server import Exchange

HEAD = b"PUT /blob HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
CHUNKED = b"PUT /blob HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
BODY_BYTES = 4 << 20  # more than the sockets of both sides hold


def streams(method: bytes, target: bytes) -> bool:
    return method == b"PUT" and target == b"/blob"


class Taker:
    """Takes what comes, and answers with what it was; `at_once` can be turned off to do so later."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.exchanges: list[Exchange] = []
        self.taken = bytearray()
        self.left = 0
        self._at_once = at_once

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_left = self._leave
        if exchange.method != "PUT":
            exchange.respond(200, [], exchange.body)
        elif self._at_once:
            self.take()

    def take(self) -> None:
        self.exchanges[-1].receive(self.taken.extend, self._end)

    def _leave(self) -> None:
        self.left += 1

    def _end(self) -> None:
        taken, self.taken = bytes(self.taken), bytearray()
        self.exchanges[-1].respond(200, [], b"%d %d" % (len(taken), len(set(taken))))


@pytest.mark.parametrize("raw", [HEAD % 5 + b"hello", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"])
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_body_is_handed_over_however_it_is_cut_and_the_connection_goes_on(run: Run, raw: bytes, cut: int) -> None:
    async def main() -> None:
        taker = Taker()
        async with serving(taker.handle, streams=streams) as server, client(server.port) as (reader, writer):
            for _ in range(2):
                for start in range(0, len(raw), cut):
                    writer.write(raw[start : start + cut])
                    await asyncio.sleep(0)
                assert (await read_response(reader)).body == b"5 4"
            writer.write(raw + GET + raw)
            assert [(await read_response(reader)).body for _ in range(3)] == [b"5 4", b"", b"5 4"]

    run(main())


def test_a_body_may_be_larger_than_any_that_is_collected(run: Run) -> None:
    async def main() -> None:
        taker = Taker()
        async with (
            serving(taker.handle, streams=streams, body_bytes_max=10) as server,
            client(server.port) as (reader, writer),
        ):
            writer.write(HEAD % BODY_BYTES + bytes(BODY_BYTES))
            assert (await read_response(reader)).body == b"%d 1" % BODY_BYTES
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n")
            assert (await read_response(reader)).status == 413

    run(main())


def test_nothing_is_read_before_somebody_takes_it_and_a_client_that_asks_is_told_then(run: Run) -> None:
    async def main() -> None:
        taker = Taker(at_once=False)
        async with serving(taker.handle, streams=streams) as server, client(server.port) as (reader, writer):
            writer.write((HEAD % 5).replace(b"host", b"expect: 100-continue\r\nhost"))
            await eventually(lambda: bool(taker.exchanges))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
            taker.take()
            assert (await read_response(reader)).status == 100
            writer.write(b"hello")
            assert (await read_response(reader)).body == b"5 4"

    run(main())


def test_who_pauses_stops_the_client(run: Run) -> None:
    async def main() -> None:
        taker = Taker(at_once=False)
        async with serving(taker.handle, streams=streams) as server, client(server.port) as (reader, writer):
            writer.write(HEAD % BODY_BYTES + bytes(BODY_BYTES))
            await eventually(lambda: bool(taker.exchanges))
            for _ in range(100):
                await asyncio.sleep(0.001)
            assert writer.transport.get_write_buffer_size() > 0
            taker.take()
            taker.exchanges[-1].pause()
            taker.exchanges[-1].resume()
            assert (await read_response(reader)).status == 200

    run(main())


def early(exchange: Exchange) -> None:
    exchange.respond(403, [], b"no")


def late(exchange: Exchange) -> None:
    exchange.receive(lambda _: exchange.respond(403, [], b"no"), lambda: None)


@pytest.mark.parametrize("refusing", [early, late])
def test_an_answer_before_the_end_of_the_body_ends_the_connection(
    run: Run, refusing: Callable[[Exchange], None]
) -> None:
    async def main() -> None:
        async with serving(refusing, streams=streams) as server, client(server.port) as (reader, writer):
            writer.write(HEAD % 100 + b"some")
            answer = await read_response(reader)
            assert (answer.status, answer.headers[b"connection"]) == (403, b"close")
            writer.write(b"more" * 10)
            assert await reader.read() == b""

    run(main())


@pytest.mark.parametrize("taken", [True, False])
def test_who_takes_a_body_hears_that_its_client_left(run: Run, taken: bool) -> None:
    async def main() -> None:
        taker = Taker(at_once=taken)
        async with serving(taker.handle, streams=streams) as server:
            async with client(server.port) as (_, writer):
                writer.write(HEAD % 100 + b"some")
                await eventually(lambda: bool(taker.exchanges))
            if not taken:
                taker.take()
            await eventually(lambda: taker.left == 1)
            taker.exchanges[-1].respond(200, [], b"")
            taker.exchanges[-1].pause()

    run(main())


def test_a_body_that_falls_silent_or_is_none_counts_as_a_client_that_left(run: Run) -> None:
    async def main() -> None:
        clock, taker = SetClock(), Taker()
        async with serving(taker.handle, streams=streams, clock=clock, body_timeout_s=30.0) as server:
            async with client(server.port) as (_, writer):
                writer.write(HEAD % 100 + b"some")
                await eventually(lambda: taker.taken == b"some")
                clock.at_s += 29.0
                await eventually(lambda: server.coarse_s >= clock.at_s)
                assert not taker.left
                clock.at_s += 2.0
                await eventually(lambda: taker.left == 1)
            async with client(server.port) as (_, writer):
                writer.write(CHUNKED + b"4\r\nsome\r\n")
                await eventually(lambda: len(taker.exchanges) == 2)
                writer.write(b"no size\r\n")
                await eventually(lambda: taker.left == 2)

    run(main())


def test_a_handler_that_fails_over_a_body_takes_nobody_down(run: Run) -> None:
    failed: list[dict[str, object]] = []

    def broken(_: bytes) -> None:
        raise RuntimeError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        async with serving(lambda exchange: exchange.receive(broken, lambda: None), streams=streams) as server:
            async with client(server.port) as (reader, writer):
                writer.write(HEAD % 100 + b"some")
                assert (await read_response(reader)).status == 500
            assert server.statistics().handler_errors == 1

    run(main())
    assert len(failed) == 1
