"""What RFC 9110 and RFC 9112 demand of a client: which responses it may believe, and which connections it may keep."""

import asyncio

import pytest

from tests.http.conftest import Run
from tests.http.harness import (
    Recorder,
    Script,
    Upstream,
    always,
    answering,
    ask,
    eventually,
    pool,
    post,
    read_request,
    upstream,
)
from tidegate.http.client import Cause

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

# Taken, with this status and body; and whether the connection may carry another request.
TAKEN: dict[str, tuple[bytes, int, bytes, bool]] = {
    "9110-15.2 100 before the final response": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok", True),
    "9110-15.2 103 with fields before the final response": (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 5\r\n\r\n" + OK,
        200,
        b"ok",
        True,
    ),
    "9110-15.2 100 has no body, whatever it says": (
        b"HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n" + OK,
        200,
        b"ok",
        True,
    ),
    "9110-15.2 102 has no body, whatever it says": (
        b"HTTP/1.1 102 Processing\r\ncontent-length: 5\r\n\r\n" + OK,
        200,
        b"ok",
        True,
    ),
    "9110-15.2 several, of unknown kinds": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 X\r\na: b\r\n\r\n" + OK,
        200,
        b"ok",
        True,
    ),
    "9112-6.3 204 has no body, whatever it says": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "9112-6.3 304 has no body, whatever it says": (
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        304,
        b"",
        True,
    ),
    "9112-6.3 a length of nothing": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
    "9112-7.1 no chunk but the last": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "9112-7.1.1 extensions are ignored": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n', 200, b"ok", True),
    "9112-7.1.2 trailers are dropped": (CHUNKED + b"2\r\nok\r\n0\r\na: b\r\n\r\n", 200, b"ok", True),
    "9112-7 codings know no case": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
        b"ok",
        True,
    ),
    "9112-4 no reason": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", 200, b"ok", True),
    "9110-15 an unknown status": (b"HTTP/1.1 599 Odd\r\ncontent-length: 2\r\n\r\nok", 599, b"ok", True),
    "9110-5.5 bytes beyond ASCII": (b"HTTP/1.1 200 \xe9\r\na: \xe9\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", True),
    "9112-9.3 close is the last word": (
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, close\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        False,
    ),
    "9112-9.3 HTTP/1.0 does not stay": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
    "9112-9.3 HTTP/1.0 that says so stays": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        True,
    ),
    "9112-9.3 HTTP/1.0 that says both does not stay": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive, close\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        False,
    ),
    # What is behind a response belongs to nobody, and least of all to the next request.
    "9112-9.2 a second response behind the first": (OK + OK, 200, b"ok", False),
    "9112-9.2 garbage behind a response": (OK + b"\0", 200, b"ok", False),
    "9112-9.2 garbage behind the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\r\nevil", 200, b"ok", False),
    "9112-6.3 a body behind 204": (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", 204, b"", False),
    "9112-6.3 a body behind 304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\nok", 304, b"", False),
}


def then_good(first: bytes) -> Script:
    """The first connection is answered with these bytes and stays open; every other is in order."""
    ups: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ups.append(1)
        if len(ups) > 1:
            await always(OK)(reader, writer)
        await read_request(reader)
        writer.write(first)
        await always(OK)(reader, writer)

    return script


@pytest.mark.parametrize(("raw", "status", "body", "kept"), TAKEN.values(), ids=TAKEN.keys())
def test_a_response_is_taken_by_its_own_framing_and_the_connection_kept_only_in_step(
    run: Run, raw: bytes, status: int, body: bytes, kept: bool
) -> None:
    async def main() -> None:
        async with upstream(then_good(raw)) as up, pool(up.port) as to:
            first = await ask(to)
            assert (first.error, first.status, first.body) == (None, status, body)
            assert b"link" not in first.headers
            second = await ask(to)
            assert (second.error, second.status, second.body) == (None, 200, b"ok")
            assert up.connections == (1 if kept else 2)

    run(main())


REJECTED = {
    "9112-6.3 both framings": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\n\r\n",
    "9112-6.3 different lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "9112-6.3 a list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok",
    "9110-8.6 a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "9110-8.6 a length beyond 64 bits": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok",
    "9112-6.1 chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "9112-6.1 chunked, and then another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\nok",
    "9112-6.1 another coding and chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "9112-5.1 a space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
    "9112-5.2 a fold": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
    "9112-2.2 bare CR": b"HTTP/1.1 200 OK\r\na: b\rc\r\ncontent-length: 2\r\n\r\nok",
    "9112-2.2 bare LF": b"HTTP/1.1 200 OK\r\na: b\ncontent-length: 2\r\n\r\nok",
    "9110-5.5 NUL in a value": b"HTTP/1.1 200 OK\r\na: b\0\r\ncontent-length: 2\r\n\r\nok",
    "9112-4 a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
    "9112-4 a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
    "9110-15 a status below 100": b"HTTP/1.1 099 X\r\ncontent-length: 2\r\n\r\nok",
    "9110-15.2 an interim response with a body": b"HTTP/1.1 199 X\r\ncontent-length: 5\r\n\r\nhello" + OK,
    "9110-15.2 an interim response with chunks": b"HTTP/1.1 199 X\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n" + OK,
    "9110-15.2.2 another protocol, unasked": b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "9112-2.3 HTTP/0.9": b"ok",
    "9112-7.1 bare LF behind a size": CHUNKED + b"2\nok\r\n0\r\n\r\n",
    "9112-7.1 data longer than its size": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "9112-7.1 a size that is none": CHUNKED + b"x\r\nok\r\n0\r\n\r\n",
    "9112-7.1 a size of more than 64 bits": CHUNKED + b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "9112-7.1.1 a line end in an extension": CHUNKED + b"2;a\n\r\nok\r\n0\r\n\r\n",
    "9112-7.1.2 a trailer that frames": CHUNKED + b"2\r\nok\r\n0\r\ncontent-length: 2\r\n\r\n",
}


@pytest.mark.parametrize("raw", REJECTED.values(), ids=REJECTED.keys())
def test_a_response_that_two_readers_could_read_differently_is_none(run: Run, raw: bytes) -> None:
    async def main() -> None:
        async with upstream(then_good(raw)) as up, pool(up.port) as to:
            first = await ask(to)
            assert first.error is not None
            assert first.error.cause is Cause.PROTOCOL
            assert "end" not in first.calls
            assert (await ask(to)).body == b"ok"
            assert up.connections == 2

    run(main())


@pytest.mark.parametrize("raw", [b"RTSP/1.0 200 OK\r\n", b"HTTP/2.0 200 OK\r\n"])
@pytest.mark.xfail(strict=True, reason="llhttp reads them as HTTP/1.1; asking it which it was costs 0.2 us a response")
def test_2_3_another_protocol_of_the_same_shape_is_none(run: Run, raw: bytes) -> None:
    async def main() -> None:
        async with upstream(always(raw + b"content-length: 2\r\n\r\nok")) as up, pool(up.port) as to:
            assert (await ask(to)).error is not None

    run(main())


WHOLE = {
    "a length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\nt: u\r\n\r\n",
    "an interim response": b"HTTP/1.1 103 X\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE.keys())
def test_8_a_response_that_is_cut_anywhere_is_never_taken_for_whole(run: Run, raw: bytes) -> None:
    async def main() -> None:
        replies = iter(raw[:cut] for cut in range(len(raw) + 1))

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answering(next(replies))(reader, writer)

        async with upstream(script) as up, pool(up.port) as to:
            for _ in range(len(raw)):
                receiver = await ask(to)
                assert receiver.error is not None
                assert receiver.error.cause is Cause.RESET
                assert receiver.calls[-1] == "error"
                assert b"hello".startswith(receiver.body)
            assert (await ask(to)).body == b"hello"

    run(main())


def test_9_2_a_response_that_nobody_asked_for_costs_its_connection_and_is_heard_by_nobody(run: Run) -> None:
    async def main() -> None:
        say = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            if not say.is_set():
                await say.wait()
                writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\n\r\nevil")
            await always(OK)(reader, writer)

        async with upstream(script) as up, pool(up.port) as to:
            await ask(to)
            assert to.statistics().idle == 1
            say.set()
            await eventually(lambda: to.statistics().idle == 0)
            receiver = await ask(to)
            assert (receiver.status, receiver.body, up.connections) == (200, b"ok", 2)

    run(main())


def test_9_2_half_a_response_that_nobody_asked_for_is_not_the_beginning_of_the_next(run: Run) -> None:
    async def main() -> None:
        reply = OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-evil: "
        async with upstream(then_good(reply)) as up, pool(up.port) as to:
            await ask(to)
            receiver = await ask(to)
            assert (receiver.headers, receiver.body) == ({b"content-length": b"2"}, b"ok")

    run(main())


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_9_5_a_refusal_before_the_request_is_sent_is_heard_and_the_rest_is_not_sent(run: Run, interim: bytes) -> None:
    got: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(interim + b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\ntoo")
        await writer.drain()
        writer.write_eof()
        got.append(len(await reader.read()))

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            receiver = await ask(to, bytes(50_000_000))
            assert (receiver.error, receiver.status, receiver.body) == (None, 413, b"too")
            await eventually(lambda: bool(got))
            assert got[0] < 50_000_000
            assert to.statistics().open == 0

    run(main())


def test_9_3_1_a_request_is_repeated_only_where_nothing_of_an_answer_came(run: Run) -> None:
    up: list[Upstream] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if up[0].connections == 1:
            await read_request(reader)
            writer.write(b"HTTP/1.1 2")  # and close

    async def main() -> None:
        async with upstream(script) as server, pool(server.port) as to:
            up.append(server)
            await ask(to)
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.RESET
            assert server.connections == 1

    run(main())


@pytest.mark.parametrize("more", [b"x: y\r\n" * 20, b"x: " + b"y" * 100], ids=["trailers", "a trailer"])
def test_7_1_trailers_without_end_are_silence(run: Run, more: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n0\r\n")
        while not writer.is_closing():
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.001)  # a pace that is never silent

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            receiver = Recorder()
            post(to, receiver, idle_timeout_s=0.1)
            await receiver.ended
            assert receiver.error is not None
            assert receiver.error.cause is Cause.IDLE_TIMEOUT

    run(main())


MORE = {
    "a trailer": b"0\r\nx: " + b"y" * 200_000,
    "trailers": b"0\r\n" + b"x: y\r\n" * 40_000,
    "an extension": b"2;" + b"x" * 200_000,
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE.keys())
@pytest.mark.parametrize("flows", [False, True])
def test_7_1_trailers_and_extensions_of_more_than_a_head_may_have_are_too_large(
    run: Run, more: bytes, flows: bool
) -> None:
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await begun.wait()
        if flows:  # whole chunks after the first are not shown to the parser
            writer.write(b"2\r\nok\r\n" * 10)
            await writer.drain()
        writer.write(more)
        await reader.read()

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            receiver = Recorder()
            post(to, receiver)
            await receiver.got_data.wait()
            begun.set()
            await receiver.ended
            assert receiver.error is not None
            assert receiver.error.cause is Cause.TOO_LARGE
            assert receiver.body == b"ok" * (11 if flows else 1)
            assert to.statistics().open == 0

    run(main())
