import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, TEXT, client, echo, eventually, read_response, serving, talk
from tidegate.http.reader import Awaits
from tidegate.http.server import Exchange

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"

HOSTILE = {
    # Two readers that disagree about where a message ends are what smuggling lives on.
    "both lengths": (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "both lengths, the other way": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
    "the same length twice": (HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
    "a list of lengths": (HEAD + b"content-length: 3, 3\r\n\r\nabc", 400),
    "a signed length": (HEAD + b"content-length: +3\r\n\r\nabc", 400),
    "an empty length": (HEAD + b"content-length: \r\n\r\nabc", 400),
    "a length beyond 64 bits": (HEAD + b"content-length: 99999999999999999999999\r\n\r\n", 400),
    "chunked twice": (HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked not last": (HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunked hidden by a control": (HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (HEAD + b"transfer-encoding: gzip\r\n\r\n", 501),
    "coding before chunked": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "nearly chunked": (HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunk size with a space": (HEAD + b"transfer-encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400),
    "chunk size with bare LF": (HEAD + b"transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
    "chunk size not hexadecimal": (HEAD + b"transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "negative chunk size": (HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n", 400),
    "chunk size beyond 64 bits": (HEAD + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    "chunk longer than its size": (HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "folded header": (HEAD + b"a: b\r\n c\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nhost: a\n\n", 400),
    "bare LF after a header": (HEAD + b"a: b\nc: d\r\n\r\n", 400),
    "bare CR in a header": (HEAD + b"a: b\rc\r\n\r\n", 400),
    "NUL in a header": (HEAD + b"a: b\0c\r\n\r\n", 400),
    "space before the colon": (HEAD + b"content-length : 3\r\n\r\nabc", 400),
    "space before a name": (b"GET / HTTP/1.1\r\n host: a\r\n\r\n", 400),
    "empty name": (HEAD + b": b\r\n\r\n", 400),
    "non-ASCII name": (HEAD + b"a\xe9: b\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two authorizations": (HEAD + b"authorization: a\r\nauthorization: b\r\n\r\n", 400),
    "non-ASCII target": (b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "unknown method": (b"FOO / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "method in lower case": (b"get / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "TLS to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "garbage": (b"\0\0\0\0", 400),
    "a tunnel": (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "unknown expectation": (HEAD + b"expect: 200-ok\r\ncontent-length: 3\r\n\r\n", 417),
    "too large a target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
    "too large a target, unfinished": (b"GET /" + b"a" * 9000, 414),
    "too large a header": (HEAD + b"a: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    "too large a header, unfinished": (HEAD + b"a: " + b"b" * 70_000, 431),
    "too many headers": (HEAD + b"".join(b"a%d: b\r\n" % n for n in range(100)) + b"\r\n", 431),
    "too many headers, unfinished": (HEAD + b"".join(b"a%d: b\r\n" % n for n in range(102)), 431),
    "too many of one header": (HEAD + b"a: b\r\n" * 110 + b"\r\n", 431),
    "too large a body": (HEAD + b"content-length: 40000000\r\n\r\n", 413),
    "too large a body, expected": (HEAD + b"content-length: 40000000\r\nexpect: 100-continue\r\n\r\n", 413),
}


@pytest.mark.parametrize(("raw", "status"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_malformed_request_is_refused_and_the_connection_closed(run: Run, raw: bytes, status: int) -> None:
    async def main() -> None:
        async with serving() as server:
            answer = await talk(server.port, raw)
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"\r\nconnection: close\r\n" in answer
            statistics = server.statistics()
            assert statistics.protocol_errors == {status: 1}
            assert statistics.requests == 0

    run(main())


def test_what_is_merely_unusual_is_served(run: Run) -> None:
    unusual = [
        b"\r\n\r\n" + GET,
        b"GET http://a/b HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://a HTTP/1.1\r\nhost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\na:b\r\nc:\r\nd: \xe9\r\n\r\n",
    ]

    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            for raw in unusual:
                writer.write(raw)
                assert (await read_response(reader)).status == 200

    run(main())


def test_a_header_is_judged_that_comes_with_the_end_of_a_body_too(run: Run) -> None:
    async def main() -> None:
        async with serving(header_bytes_max=1_000) as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na")
            await asyncio.sleep(0)
            writer.write(b"b" + b"GET / HTTP/1.1\r\nhost: a\r\na: " + b"c" * 2_000 + b"\r\n\r\n")
            assert [(await read_response(reader)).status for _ in range(2)] == [200, 431]

    run(main())


def test_a_body_that_comes_with_the_end_of_chunks_is_none_of_their_trailers(run: Run) -> None:
    body = b"x" * 4_000

    async def main() -> None:
        async with serving(header_bytes_max=1_000) as server, client(server.port) as (reader, writer):
            writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await eventually(lambda: any(one._reader.awaits is Awaits.BODY for one in server.connections))
            writer.write(b"0\r\n\r\n" + HEAD + b"content-length: 4000\r\n\r\n" + body[:2_000])
            assert (await read_response(reader)).body == b"hello"
            writer.write(body[2_000:])
            assert (await read_response(reader)).body == body

    run(main())


def test_an_absolute_target_is_reduced_to_its_path(run: Run) -> None:
    async def main() -> None:
        handler = lambda exchange: exchange.respond(200, [], f"{exchange.path} {exchange.query}".encode())  # noqa: E731
        async with serving(handler) as server, client(server.port) as (reader, writer):
            writer.write(b"GET http://a:80/b/c?d=/e HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await read_response(reader)).body == b"/b/c d=/e"

    run(main())


def test_good_requests_before_a_bad_one_are_answered_first(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            answer = await talk(server.port, GET + GET + b"BAD\r\n\r\n" + GET)
            assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
            assert answer.count(b"connection: close") == 1

    run(main())


def test_a_body_beyond_the_limit_is_refused_with_413_before_it_is_read(run: Run) -> None:
    async def main() -> None:
        async with serving(body_bytes_max=1000) as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n")
            assert (await read_response(reader)).status == 413

    run(main())


def test_a_client_that_still_sends_its_body_gets_to_read_the_413(run: Run) -> None:
    async def main() -> None:
        async with serving(body_bytes_max=1000) as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000000\r\n\r\n")
            writer.write(bytes(5_000_000))
            await writer.drain()
            assert (await read_response(reader)).status == 413
            assert await reader.read() == b""

    run(main())


def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit(run: Run) -> None:
    async def main() -> None:
        async with serving(body_bytes_max=1000) as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"1f4\r\n" + bytes(500) + b"\r\n" + b"1f5\r\n" + bytes(501))
            assert (await read_response(reader)).status == 413

    run(main())


@pytest.mark.parametrize("size", [100, 101, 1000, 1001])
@pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "whole"])
def test_who_is_not_known_may_send_small_bodies_alone(run: Run, size: int, known: bool, chunked: bool) -> None:
    async def main() -> None:
        limits = {"body_bytes_max": 1000, "stranger_body_bytes_max": 100}
        knows = lambda headers: headers.get(b"x-who") == b"friend"  # noqa: E731
        async with serving(knows=knows, **limits) as server, client(server.port) as (reader, writer):  # type: ignore[arg-type]
            head = b"POST / HTTP/1.1\r\nhost: a\r\nx-who: %b\r\n" % (b"friend" if known else b"stranger")
            if chunked:
                writer.write(head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)))
            else:
                writer.write(head + b"content-length: %d\r\n\r\n%b" % (size, bytes(size)))
            expected = 200 if size <= (1000 if known else 100) else 413
            assert (await read_response(reader)).status == expected

    run(main())


def test_100_continue_is_sent_before_the_body_and_after_earlier_answers(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
            writer.write(GET + head)
            assert (await read_response(reader)).status == 200
            assert (await read_response(reader)).status == 100
            writer.write(b"abc")
            assert (await read_response(reader)).body == b"abc"
            writer.write(head + b"def")  # did not wait: nothing to continue
            assert (await read_response(reader)).body == b"def"

    run(main())


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: 3\r\n", b"abc"),
        (b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"", b""),
    ],
)
def test_an_offer_to_upgrade_is_ignored_and_the_body_is_read(run: Run, framing: bytes, body: bytes) -> None:
    # Java's HTTP client sends this with every request to a plain port.
    async def main() -> None:
        offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n"
        raw = b"POST / HTTP/1.1\r\nhost: a\r\n" + offer + framing + b"\r\n"
        async with serving() as server, client(server.port) as (reader, writer):
            for _ in range(2):
                writer.write(raw + body + GET)
                assert (await read_response(reader)).body == (b"abc" if body else b"")
                assert (await read_response(reader)).status == 200
            writer.write(raw)
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
            assert (await read_response(reader)).body == (b"abc" if body else b"")

    run(main())


def test_bodies_that_never_end_are_bounded_together_and_whose_came_first_makes_room(run: Run) -> None:
    async def main() -> None:
        limits = {"arriving_bytes_max": 250_000, "body_bytes_max": 100_000, "stranger_body_bytes_max": 10}
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(**limits))  # type: ignore[arg-type]
            begun = []
            for number in range(5):
                framing = b"transfer-encoding: chunked" if number % 2 else b"content-length: 100000"
                reader, writer = await stack.enter_async_context(client(server.port))
                head = b"POST / HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % framing
                writer.write(head + (b"15f90\r\n" if number % 2 else b"") + bytes(80_000))
                await eventually(lambda: list(server.arriving.values())[-1:] == [80_000])
                begun.append((reader, writer))
                assert server.arriving_bytes <= limits["arriving_bytes_max"]
            assert len(server.arriving) == 3
            for reader, _ in begun[:2]:
                assert (await read_response(reader)).status == 503
            for number, (reader, writer) in enumerate(begun[2:], 2):
                writer.write(bytes(10_000) + (b"\r\n0\r\n\r\n" if number % 2 else bytes(10_000)))
                assert len((await read_response(reader)).body) == (90_000 if number % 2 else 100_000)
            assert server.arriving == {}
            assert server.arriving_bytes == 0

    run(main())


def test_who_is_gone_and_not_yet_known_to_be_makes_room_and_nobody_else_is_the_worse_for_it(run: Run) -> None:
    async def main() -> None:
        limits = {"arriving_bytes_max": 100_000, "body_bytes_max": 100_000, "stranger_body_bytes_max": 10}
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
        async with (
            serving(**limits) as server,  # type: ignore[arg-type]
            client(server.port) as (_, first),
            client(server.port) as (reader, second),
        ):
            first.write(head + bytes(60_000))
            await eventually(lambda: server.arriving_bytes == 60_000)
            gone = next(iter(server.arriving))
            second.write(head + bytes(30_000))
            await eventually(lambda: server.arriving_bytes == 90_000)
            other = next(one for one in server.arriving if one is not gone)
            gone.transport.abort()
            # In the same turn: that it is lost is told in the next.
            server.arrives(other, 60_000)
            assert server.arriving == {other: 60_000}
            assert server.protocol_errors == {}
            second.write(bytes(70_000))
            assert (await read_response(reader)).status == 200

    run(main())


def test_small_bodies_that_are_slow_make_no_room(run: Run) -> None:
    async def main() -> None:
        limits = {"arriving_bytes_max": 100_000, "body_bytes_max": 100_000, "stranger_body_bytes_max": 10}
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
        async with (
            serving(**limits) as server,  # type: ignore[arg-type]
            client(server.port) as (slow, slower),
            client(server.port) as (_, first),
            client(server.port) as (reader, second),
        ):
            slower.write(head + bytes(10))
            await eventually(lambda: not server.idle)
            first.write(head + bytes(60_000))
            await eventually(lambda: server.arriving_bytes == 60_000)
            second.write(head + bytes(60_000))
            await eventually(lambda: list(server.arriving.values()) == [60_000])
            second.write(bytes(40_000))
            assert (await read_response(reader)).status == 200
            slower.write(bytes(99_990))
            assert (await read_response(slow)).status == 200

    run(main())


def test_a_body_has_room_whatever_it_may_be_as_large_as_and_none_keeps_it_that_is_gone(run: Run) -> None:
    async def main() -> None:
        limits = {"arriving_bytes_max": 10, "body_bytes_max": 100_000, "stranger_body_bytes_max": 10}
        async with serving(**limits) as server:  # type: ignore[arg-type]
            for _ in range(3):
                async with client(server.port) as (reader, writer):
                    writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + bytes(99_999))
                    await eventually(lambda: server.arriving_bytes == 99_999)
                await eventually(lambda: not server.connections)
                assert (server.arriving, server.arriving_bytes) == ({}, 0)
            async with client(server.port) as (reader, writer):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + bytes(99_999))
                await eventually(lambda: server.arriving_bytes == 99_999)
                writer.write(b"a")
                assert (await read_response(reader)).status == 200

    run(main())


LARGE = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + bytes(100_000)
KEPT = {"kept_bytes_max": 250_000, "body_bytes_max": 100_000, "stranger_body_bytes_max": 10}


def test_large_bodies_whose_requests_are_under_way_are_bounded_together_and_small_ones_go_on(run: Run) -> None:
    under_way: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        if exchange.body:
            under_way.append(exchange)
        else:
            echo(exchange)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(handler, **KEPT))  # type: ignore[arg-type]
            ends = [await stack.enter_async_context(client(server.port)) for _ in range(3)]
            for number, (_, writer) in enumerate(ends[:2], 1):
                writer.write(LARGE)
                await eventually(lambda: len(under_way) == number)  # noqa: B023
            reader, writer = ends[2]
            writer.write(LARGE)
            refused = await read_response(reader)
            assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
            assert b"too many large requests" in refused.body
            assert server.kept_bytes == 200_000
            writer.write(GET)  # the connection goes on
            assert (await read_response(reader)).status == 200
            echo(under_way[0])
            assert len((await read_response(ends[0][0])).body) == 100_000
            assert server.kept_bytes == 100_000
            writer.write(LARGE)
            await eventually(lambda: len(under_way) == 3)
            assert server.kept_bytes == 200_000

    run(main())


def test_of_a_large_body_nothing_counts_once_it_is_let_go_or_its_client_has_left_or_it_was_given_up(run: Run) -> None:
    under_way: list[Exchange] = []

    async def main() -> None:
        async with serving(under_way.append, **KEPT) as server:  # type: ignore[arg-type]
            async with client(server.port) as (reader, writer):
                writer.write(LARGE)
                await eventually(lambda: len(under_way) == 1)
                assert server.kept_bytes == 100_000
                streams = under_way[0]
                streams.start(200, TEXT)
                streams.let_body_go()
                assert (server.kept_bytes, streams.body) == (0, b"")
                streams.end()
                await read_response(reader)
                writer.write(LARGE)
                await eventually(lambda: len(under_way) == 2)
                streams.let_body_go()  # late: another one has the connection
                assert server.kept_bytes == 100_000
            await eventually(lambda: not server.connections)
            assert server.kept_bytes == 0
            async with client(server.port) as (reader, writer):
                writer.write(LARGE)
                await eventually(lambda: len(under_way) == 3)
                assert server.kept_bytes == 100_000
                under_way[2].abort()
                assert server.kept_bytes == 0

    run(main())


def test_one_body_has_room_whatever_it_may_be_as_large_as(run: Run) -> None:
    async def main() -> None:
        async with serving(**{**KEPT, "kept_bytes_max": 10}) as server, client(server.port) as (reader, writer):  # type: ignore[arg-type]
            for _ in range(2):
                writer.write(LARGE)
                assert (await read_response(reader)).status == 200
            assert server.kept_bytes == 0

    run(main())
