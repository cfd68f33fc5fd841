"""How connections are kept, shared and ended: RFC 9112, section 9, and what belongs to it."""

import asyncio
from contextlib import suppress

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, client, eventually, read_response, serving, talk
from tidegate.http.server import Exchange

POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n"

# Whether the server keeps the connection after the answer, and what it says about it.
KEPT = {
    "9.3 HTTP/1.1 stays": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", True, None),
    "9.3 HTTP/1.1 that asks to stay stays": (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
        True,
        None,
    ),
    "9.3 close wins": (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, close\r\n\r\n", False, b"close"),
    "9.3 close in a field of its own": (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\nconnection: close\r\n\r\n",
        False,
        b"close",
    ),
    "9.3 close in any case and company": (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: foo , CLOSE\r\n\r\n",
        False,
        b"close",
    ),
    "9.3 HTTP/1.0 does not stay": (b"GET / HTTP/1.0\r\n\r\n", False, b"close"),
    "9.3 HTTP/1.0 that asks to stay stays": (b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", True, b"keep-alive"),
    "9.3 HTTP/1.0 that asks for both does not stay": (
        b"GET / HTTP/1.0\r\nconnection: keep-alive, close\r\n\r\n",
        False,
        b"close",
    ),
    "9.3 HTTP/1.0 with an unknown option does not stay": (
        b"GET / HTTP/1.0\r\nconnection: foo\r\n\r\n",
        False,
        b"close",
    ),
    "7.8 an upgrade in HTTP/1.0 is ignored": (
        b"GET / HTTP/1.0\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        False,
        b"close",
    ),
}


@pytest.mark.parametrize(("raw", "stays", "says"), KEPT.values(), ids=KEPT.keys())
def test_a_connection_persists_as_both_sides_say(run: Run, raw: bytes, stays: bool, says: bytes | None) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(raw)
            response = await read_response(reader)
            assert response.status == 200
            assert response.headers.get(b"connection") == says
            writer.write(GET)
            if stays:
                assert (await read_response(reader)).status == 200
            else:
                assert await ended(reader) == b""
                assert server.statistics().requests == 1

    run(main())


async def reached(waiting: list[Exchange], count: int) -> None:
    await eventually(lambda: len(waiting) == count)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """The rest, up to the close, or to the reset that a write behind it may draw."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


def test_9_6_requests_behind_a_close_are_not_served(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            answer = await talk(server.port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" + GET)
            assert answer.count(b"HTTP/1.1 200 ") == 1
            assert server.statistics().requests == 1

    run(main())


# ---------------------------------------------------------------------- pipelining


def test_9_3_2_answers_come_in_the_order_of_their_requests_whenever_they_are_made(run: Run) -> None:
    async def main() -> None:
        waiting: list[Exchange] = []
        async with serving(waiting.append) as server, client(server.port) as (reader, writer):
            for n in range(5):
                writer.write(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n)
            for n in range(5):
                await reached(waiting, n + 1)
                waiting[n].respond(200, [], waiting[n].path.encode())
                assert (await read_response(reader)).body == b"/%d" % n

    run(main())


@pytest.mark.parametrize("bad", [b"BAD\r\n\r\n", POST + b"transfer-encoding: chunked\r\n\r\nabc"])
def test_9_3_2_an_error_in_the_middle_is_told_in_its_turn_and_is_the_last_answer(run: Run, bad: bytes) -> None:
    async def main() -> None:
        waiting: list[Exchange] = []
        async with serving(waiting.append) as server, client(server.port) as (reader, writer):
            writer.write(GET + GET + bad + GET)
            for n in range(2):
                await reached(waiting, n + 1)
                waiting[n].respond(200, [], b"")
            statuses = [(await read_response(reader)).status for _ in range(3)]
            assert statuses == [200, 200, 400]
            assert await ended(reader) == b""
            assert len(waiting) == 2

    run(main())


# ---------------------------------------------------------------------- expectations


def test_10_1_1_a_request_that_is_refused_by_its_head_is_not_asked_to_go_on(run: Run) -> None:
    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n"
        async with serving(body_bytes_max=1000) as server:
            answer = await talk(server.port, head)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert answer.count(b"HTTP/1.1 ") == 1

    run(main())


@pytest.mark.parametrize("framing", [b"content-length: 3\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"])
def test_10_1_1_the_client_is_asked_once_to_go_on(run: Run, framing: bytes) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n" + framing)
            assert (await read_response(reader)).status == 100
            for piece in (b"3\r\na", b"bc\r\n0\r\n\r\n") if b"chunked" in framing else (b"a", b"bc"):
                writer.write(piece)
                await writer.drain()
            response = await read_response(reader)
            assert (response.status, response.body) == (200, b"abc")

    run(main())


def test_10_1_1_http_1_0_is_sent_no_interim_response(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            writer.write(b"abc")
            response = await read_response(reader)
            assert (response.status, response.body) == (200, b"abc")

    run(main())


# ---------------------------------------------------------------------- answers without a body


def by_path(exchange: Exchange) -> None:
    status = int(exchange.path[1:])
    if exchange.query:
        exchange.start(status, [])
        exchange.write(b"body")
        exchange.end()
    else:
        exchange.respond(status, [], b"body")


@pytest.mark.parametrize("how", [b"", b"?streamed"])
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"HEAD", 404)])
def test_6_3_an_answer_that_has_no_body_is_followed_by_the_next_at_once(
    run: Run, method: bytes, status: int, how: bytes
) -> None:
    async def main() -> None:
        async with serving(by_path) as server:
            first = b"%b /%d%b HTTP/1.1\r\nhost: a\r\n\r\n" % (method, status, how)
            answer = await talk(server.port, first + b"GET /200 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
            if status in (204, 304):
                assert b"content-length" not in head
                assert b"transfer-encoding" not in head

    run(main())


def test_6_1_http_1_0_is_sent_no_chunks(run: Run) -> None:
    async def main() -> None:
        async with serving(by_path) as server:
            answer = await talk(server.port, b"GET /200?streamed HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            assert body == b"body"

    run(main())


# ---------------------------------------------------------------------- half-closed connections


def final(answer: bytes) -> list[bytes]:
    """The final responses; those that only ask whether somebody is there are left out."""
    parts = [part for part in answer.split(b"HTTP/1.1 ")[1:] if not part.startswith(b"100 Continue")]
    return [part.partition(b"\r\n\r\n")[2] for part in parts]


def test_a_client_that_closes_its_side_behind_its_request_is_answered(run: Run) -> None:
    async def main() -> None:
        waiting: list[Exchange] = []
        async with serving(waiting.append) as server, client(server.port) as (reader, writer):
            writer.write(POST + b"\r\nabc")
            await reached(waiting, 1)
            writer.write_eof()
            # It is asked whether it is there, more than once, and is.
            for _ in range(2):
                assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert not waiting[0].closed
            waiting[0].respond(200, [], b"yes")
            answer = await reader.read()
            assert final(answer) == [b"yes"]
            assert b"connection: close" in answer

    run(main())


def test_a_client_that_closes_its_side_behind_its_requests_is_answered_all_of_them(run: Run) -> None:
    async def main() -> None:
        waiting: list[Exchange] = []
        async with serving(waiting.append) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            await reached(waiting, 1)
            writer.write(GET + GET + b"GET / HT")
            writer.write_eof()
            for n in range(3):
                await reached(waiting, n + 1)
                waiting[n].respond(200, [], b"%d" % n)
            assert final(await reader.read()) == [b"0", b"1", b"2"]

    run(main())


def test_a_stream_to_a_client_that_has_closed_its_side_before_it_is_complete(run: Run) -> None:
    async def main() -> None:
        waiting: list[Exchange] = []
        async with serving(waiting.append) as server, client(server.port) as (reader, writer):
            writer.write(GET)
            await reached(waiting, 1)
            writer.write_eof()
            await reader.readexactly(25)
            waiting[0].start(200, [])
            for _ in range(3):
                waiting[0].write(b"a")
                await asyncio.sleep(0)
            waiting[0].end()
            assert (await reader.read()).endswith(b"\r\n\r\n1\r\na\r\n1\r\na\r\n1\r\na\r\n0\r\n\r\n")

    run(main())


@pytest.mark.parametrize("raw", [GET, b"GET / HTTP/1.0\r\n\r\n", GET + GET])
def test_a_client_that_is_gone_while_it_waits_is_noticed(run: Run, raw: bytes) -> None:
    async def main() -> None:
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def handler(exchange: Exchange) -> None:
            exchange.on_left = lambda: left.set_result(None)

        async with serving(handler) as server:
            async with client(server.port) as (_, writer):
                writer.write(raw)
                await eventually(lambda: server.statistics().requests == 1)
            async with asyncio.timeout(5):
                await left
            await eventually(lambda: server.statistics().open == 0)
            assert server.statistics().requests == 1

    run(main())
