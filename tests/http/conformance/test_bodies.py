"""Chunked bodies of requests: RFC 9112, section 7.1."""

import asyncio

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, client, read_response, serving, talk

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "7.1 no size": b"\r\nabc\r\n0\r\n\r\n",
    "7.1 a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "7.1 white space before a size": b" 3\r\nabc\r\n0\r\n\r\n",
    "7.1 a size that only Python reads": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "7.1 CR and something else behind a size": b"3\rxabc\r\n0\r\n\r\n",
    "7.1 bare LF behind data": b"3\r\nabc\n0\r\n\r\n",
    "7.1 bare LF behind the last size": b"3\r\nabc\r\n0\n\r\n",
    "7.1 bare LF at the end": b"3\r\nabc\r\n0\r\n\n",
    "7.1 data shorter than its size": b"4\r\nabc\r\n0\r\n\r\n",
    "7.1 data longer than its size": b"2\r\nabc\r\n0\r\n\r\n",
    "7.1 a size of more than 64 bits": b"10000000000000000\r\nabc\r\n0\r\n\r\n",
    "7.1.1 an extension without a name": b"3;\r\nabc\r\n0\r\n\r\n",
    "7.1.1 bare LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "7.1.1 a line end in a quoted extension": b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n',
    "7.1.1 NUL in an extension": b"3;a\0\r\nabc\r\n0\r\n\r\n",
    "7.1.2 a trailer whose name has a space": b"3\r\nabc\r\n0\r\na b: c\r\n\r\n",
    "7.1.2 a trailer that is folded": b"3\r\nabc\r\n0\r\na: b\r\n c\r\n\r\n",
    "7.1.2 a trailer that frames": b"3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n",
    "7.1.2 a trailer that codes": b"3\r\nabc\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_a_body_that_is_not_chunked_as_it_says_is_refused_and_nothing_behind_it_is_read(run: Run, body: bytes) -> None:
    async def main() -> None:
        async with serving() as server:
            answer = await talk(server.port, HEAD + body + GET)
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            assert answer.count(b"HTTP/1.1 ") == 1
            assert server.statistics().requests == 0

    run(main())


SERVED = {
    "7.1 zeros before a size": b"0003\r\nabc\r\n0000\r\n\r\n",
    "7.1 a size in upper case": b"A\r\n0123456789\r\n0\r\n\r\n",
    "7.1 a size in lower case": b"a\r\n0123456789\r\n0\r\n\r\n",
    "7.1 no data at all": b"0\r\n\r\n",
    "7.1.1 extensions are ignored": b'3;a=b;c="d;e";f\r\nabc\r\n0;g\r\n\r\n',
    "7.1.2 trailers are dropped": b"3\r\nabc\r\n0\r\na: b\r\nauthorization: c\r\n\r\n",
}
SAID = {"7.1 a size in upper case": b"0123456789", "7.1 a size in lower case": b"0123456789", "7.1 no data at all": b""}


@pytest.mark.parametrize("name", SERVED)
def test_a_chunked_body_is_read_wherever_it_is_cut_and_the_next_request_is_in_step(run: Run, name: str) -> None:
    async def main() -> None:
        raw = HEAD + SERVED[name]
        async with serving() as server, client(server.port) as (reader, writer):
            for cut in range(len(HEAD) - 2, len(raw)):
                writer.write(raw[:cut])
                await asyncio.sleep(0)
                writer.write(raw[cut:])
                assert (await read_response(reader)).body == SAID.get(name, b"abc")
            for byte in raw:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert (await read_response(reader)).body == SAID.get(name, b"abc")

    run(main())


ENDLESS = {
    "a trailer": (b"3\r\nabc\r\n0\r\na: ", b"b" * 1000),
    "trailers": (b"3\r\nabc\r\n0\r\n", b"a: b\r\n" * 100),
    "an extension": (b"3;", b"a" * 1000),
    "a size": (b"", b"0" * 1000),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_7_1_what_carries_no_data_and_has_no_end_is_431(run: Run, start: bytes, more: bytes) -> None:
    async def main() -> None:
        async with serving(header_bytes_max=10_000) as server, client(server.port) as (reader, writer):
            writer.write(HEAD + start)
            for _ in range(30):
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0)
            assert (await read_response(reader)).status == 431
            assert server.statistics().requests == 0

    run(main())


def test_7_1_as_much_without_data_as_a_head_may_have_is_read(run: Run) -> None:
    async def main() -> None:
        async with serving(header_bytes_max=10_000) as server, client(server.port) as (reader, writer):
            for _ in range(3):
                writer.write(HEAD + b"3\r\nabc\r\n0\r\n" + b"a: b\r\n" * 1500 + b"\r\n")
                assert (await read_response(reader)).body == b"abc"

    run(main())


def test_many_small_chunks_are_one_body(run: Run) -> None:
    async def main() -> None:
        data = bytes(range(256)) * 100
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(HEAD + b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n")
            assert (await read_response(reader)).body == data
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(data))
            for start in range(0, len(data), 100):
                writer.write(data[start : start + 100])
                await asyncio.sleep(0)
            assert (await read_response(reader)).body == data

    run(main())


@pytest.mark.parametrize("cut", [b"", b"3", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"])
def test_8_a_body_without_its_last_chunk_reaches_no_handler(run: Run, cut: bytes) -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(HEAD + cut)
            writer.write_eof()
            assert await reader.read() == b""
            assert server.statistics().requests == 0

    run(main())
