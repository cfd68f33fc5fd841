"""Heads of requests: what RFC 9110 and RFC 9112 demand of a server, each case named by its section.

What is refused reaches no handler, is answered once with the status, and ends the connection: whatever follows it
could be half of something else. What is served leaves the connection in step: the next request on it is answered.
"""

import asyncio
import json

import pytest

from tests.http.conftest import Run
from tests.http.harness import GET, client, read_response, serving, talk
from tidegate.http.server import Exchange

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
BODY = b"3\r\nabc\r\n0\r\n\r\n"

REFUSED = {
    # Framing: two readers that disagree about where a message ends are what smuggling lives on.
    "9112-6.1 a coding behind chunked": (HEAD + b"transfer-encoding: chunked, identity\r\n\r\n" + BODY, 400),
    "9112-6.1 chunked must not be applied twice": (HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n" + BODY, 400),
    "9112-6.1 an unknown coding is 501": (HEAD + b"transfer-encoding: identity\r\n\r\n" + BODY, 501),
    "9112-6.1 a coding in quotes is unknown": (HEAD + b'transfer-encoding: "chunked"\r\n\r\n' + BODY, 501),
    "9112-7 chunked has no parameters": (HEAD + b"transfer-encoding: chunked;q=1\r\n\r\n" + BODY, 501),
    "9112-6.1 an empty coding": (HEAD + b"transfer-encoding:\r\n\r\n" + BODY, 400),
    "9112-6.1 an empty coding and a length": (HEAD + b"transfer-encoding:\r\ncontent-length: 3\r\n\r\nabc", 400),
    "9112-6.1 an empty coding and chunked": (
        HEAD + b"transfer-encoding:\r\ntransfer-encoding: chunked\r\n\r\n" + BODY,
        400,
    ),
    "9112-6.1 identity and a length": (HEAD + b"transfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc", 400),
    "9112-6.1 both in HTTP/1.0": (
        b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc",
        400,
    ),
    "9112-5.1 a space before the colon of a coding": (HEAD + b"transfer-encoding : chunked\r\n\r\n" + BODY, 400),
    "9112-5.1 a tab before the colon of a coding": (HEAD + b"transfer-encoding\t: chunked\r\n\r\n" + BODY, 400),
    "9110-5.5 NUL in a coding": (HEAD + b"transfer-encoding: chunked\0\r\n\r\n" + BODY, 400),
    "9112-2.2 bare CR in a coding": (HEAD + b"transfer-encoding: chun\rked\r\n\r\n" + BODY, 400),
    "9112-2.2 bare LF before a coding": (HEAD + b"x: y\ntransfer-encoding: chunked\r\n\r\n" + BODY, 400),
    "9112-5.2 a folded coding": (HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n" + BODY, 400),
    "9112-5.2 a coding that is a fold": (HEAD + b"x: y\r\n\ttransfer-encoding: chunked\r\n\r\n" + BODY, 400),
    "9110-5.5 white space that is none around a coding": (HEAD + b"transfer-encoding: \xa0chunked\r\n\r\n" + BODY, 501),
    "9112-6.3 different lengths": (HEAD + b"content-length: 0\r\ncontent-length: 3\r\n\r\nabc", 400),
    "9112-6.3 different lengths in HTTP/1.0": (
        b"POST / HTTP/1.0\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        400,
    ),
    "9110-8.6 a length in hexadecimal": (HEAD + b"content-length: 0x3\r\n\r\nabc", 400),
    "9110-8.6 a length of two numbers": (HEAD + b"content-length: 3 4\r\n\r\nabc", 400),
    "9110-8.6 a length with a fraction": (HEAD + b"content-length: 3.0\r\n\r\nabc", 400),
    "9110-8.6 a negative length": (HEAD + b"content-length: -3\r\n\r\nabc", 400),
    "9110-8.6 a length that only Python reads": (HEAD + b"content-length: 1_0\r\n\r\n0123456789", 400),
    "9110-8.6 a length in other digits": (HEAD + "content-length: \u0663\r\n\r\nabc".encode(), 400),
    # Lines and fields.
    "9112-2.2 bare CR ends no line": (b"GET / HTTP/1.1\rhost: a\r\r", 400),
    "9112-2.2 bare LF ends no head": (b"GET / HTTP/1.1\r\nhost: a\r\n\n", 400),
    "9112-2.2 bare CR before the end of the head": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\r\n", 400),
    "9110-5.5 NUL in a name": (HEAD + b"a\0b: c\r\n\r\n", 400),
    "9110-5.5 DEL in a value": (HEAD + b"a: b\x7fc\r\n\r\n", 400),
    "9110-5.5 ESC in a value": (HEAD + b"a: b\x1bc\r\n\r\n", 400),
    "9110-5.6.2 a space in a name": (HEAD + b"a b: c\r\n\r\n", 400),
    "9110-5.6.2 a delimiter in a name": (HEAD + b"a(b): c\r\n\r\n", 400),
    "9112-5 a field without a colon": (HEAD + b"abc\r\n\r\n", 400),
    "9112-5.2 a fold by a tab": (HEAD + b"a: b\r\n\tc\r\n\r\n", 400),
    "9112-5.2 a fold of nothing": (HEAD + b"a: b\r\n \r\n\r\n", 400),
    "9112-2.2 a fold before the first field": (b"GET / HTTP/1.1\r\n a: b\r\nhost: a\r\n\r\n", 400),
    # The request line.
    "9112-3 white space before the method": (b" GET / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3 tabs between the parts": (b"GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3 a space behind the version": (b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n", 400),
    "9112-3 no target": (b"GET HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3 an endless method": (b"A" * 100_000, 400),
    "9112-2.3 the name of HTTP is in upper case": (b"GET / http/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-2.3 a version of three digits": (b"GET / HTTP/1.01\r\nhost: a\r\n\r\n", 400),
    "9112-2.3 a version without a dot": (b"GET / HTTP/11\r\nhost: a\r\n\r\n", 400),
    "9112-2.3 a comma in the version": (b"GET / HTTP/1,1\r\nhost: a\r\n\r\n", 400),
    "9112-2.3 something behind the version": (b"GET / HTTP/1.1x\r\nhost: a\r\n\r\n", 400),
    "9112-2.3 an endless version": (b"GET / HTTP/1." + b"1" * 100_000, 400),
    "9112-2.3 another protocol": (b"GET / HTTPS/1.1\r\nhost: a\r\n\r\n", 400),
    "9110-15.6.6 HTTP/3.0": (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
    "9110-15.6.6 HTTP/0.9, spelled out": (b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", 505),
    "9110-5.5 NUL in the target": (b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9110-5.5 NUL in the method": (b"G\0T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3.2 a target has no fragment": (b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3.2 a query has no fragment": (b"GET /a?b#c HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3.2.3 the authority form is for CONNECT": (b"GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "9112-3.2.3 CONNECT needs the authority form": (b"CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    # The host.
    "9112-3.2 no host, though the target names one": (b"GET http://b/ HTTP/1.1\r\n\r\n", 400),
    "9112-3.2 two hosts, though the same": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
    "9112-3.2 a space in the host": (b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
    "9112-3.2 a path in the host": (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    "9112-3.2 a user in the host": (b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400),
    "9112-3.2 a list of hosts": (b"GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400),
    "9112-3.2 a port that is no number": (b"GET / HTTP/1.1\r\nhost: a:b\r\n\r\n", 400),
    "9112-3.2 an open bracket in the host": (b"GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", 400),
    "9112-3.2 no host in HTTP/1.0 either, if there is one": (b"GET / HTTP/1.0\r\nhost: a/b\r\n\r\n", 400),
    # Expectations.
    "9110-10.1.1 one of two expectations is unknown": (
        HEAD + b"expect: 100-continue, x\r\ncontent-length: 3\r\n\r\n",
        417,
    ),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_must_not_be_served_is_refused_and_nothing_behind_it_is_read(run: Run, raw: bytes, status: int) -> None:
    async def main() -> None:
        async with serving() as server:
            answer = await talk(server.port, raw + GET)
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"\r\nconnection: close\r\n" in answer
            assert server.statistics().requests == 0

    run(main())


@pytest.mark.xfail(strict=True, reason="llhttp reads RTSP as HTTP; to tell them apart takes a scan of every head")
def test_9112_3_another_protocol_of_the_same_shape_is_refused(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            assert (await talk(server.port, b"GET / RTSP/1.0\r\nhost: a\r\n\r\n")).startswith(b"HTTP/1.1 400 ")

    run(main())


# Method, path, query and body as the handler sees them.
SERVED: dict[str, tuple[bytes, list[str]]] = {
    "9110-5.5 a tab before a coding": (HEAD + b"transfer-encoding:\tchunked\r\n\r\n" + BODY, ["POST", "/", "", "abc"]),
    "9112-7 codings know no case": (HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n" + BODY, ["POST", "/", "", "abc"]),
    "9112-6.3 a GET with a body": (
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        ["GET", "/", "", "abc"],
    ),
    "9112-6.3 a GET with a chunked body": (
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + BODY,
        ["GET", "/", "", "abc"],
    ),
    "9112-6.3 a POST without a length has no body": (HEAD + b"\r\n", ["POST", "/", "", ""]),
    "9110-8.6 zeros before a length": (HEAD + b"content-length: 003\r\n\r\nabc", ["POST", "/", "", "abc"]),
    "9110-5.5 white space around a length": (HEAD + b"content-length: \t3 \t\r\n\r\nabc", ["POST", "/", "", "abc"]),
    "9110-5.1 an underscore is no hyphen": (
        HEAD + b"transfer_encoding: chunked\r\ncontent-length: 3\r\n\r\nabc",
        ["POST", "/", "", "abc"],
    ),
    "9112-2.2 empty lines before a request": (b"\r\n\r\n" + GET, ["GET", "/", "", ""]),
    "9112-3.2.2 the absolute form": (b"GET http://b/c?d HTTP/1.1\r\nhost: a\r\n\r\n", ["GET", "/c", "d", ""]),
    "9112-3.2.2 the absolute form, in upper case and with a port": (
        b"GET HTTPS://b:1/c HTTP/1.1\r\nhost: a\r\n\r\n",
        ["GET", "/c", "", ""],
    ),
    "9112-3.2.2 the absolute form without a path": (
        b"GET http://b?d HTTP/1.1\r\nhost: a\r\n\r\n",
        ["GET", "/", "d", ""],
    ),
    "9112-3.2.4 the asterisk form": (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", ["OPTIONS", "*", "", ""]),
    "9112-3.2 an empty host": (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", ["GET", "/", "", ""]),
    "9112-3.2 an address of IPv6 and a port": (b"GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", ["GET", "/", "", ""]),
    "9112-3.2 a host with an empty port": (b"GET / HTTP/1.1\r\nhost: a.b-c_d:\r\n\r\n", ["GET", "/", "", ""]),
    "9110-5.3 fields that repeat": (HEAD + b"a: b\r\na: c\r\n\r\n", ["POST", "/", "", ""]),
    "9110-10.1.1 an expectation without a body": (
        b"GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
        ["GET", "/", "", ""],
    ),
    "9110-10.1.1 an expectation knows no case": (
        HEAD + b"Expect: 100-CONTINUE\r\ncontent-length: 3\r\n\r\nabc",
        ["POST", "/", "", "abc"],
    ),
    "9110-7.8 an upgrade may be ignored": (
        HEAD + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc",
        ["POST", "/", "", "abc"],
    ),
    "9110-7.8 an upgrade that a proxy's connection names": (
        b"GET / HTTP/1.1\r\nhost: a\r\nproxy-connection: upgrade\r\nupgrade: x\r\n\r\n",
        ["GET", "/", "", ""],
    ),
    "9110-7.8 an upgrade that the connection does not name": (
        b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n\r\n",
        ["GET", "/", "", ""],
    ),
}


def tell(exchange: Exchange) -> None:
    told = [exchange.method, exchange.path, exchange.query, exchange.body.decode()]
    exchange.respond(200, [], json.dumps(told).encode())


@pytest.mark.parametrize(("raw", "seen"), SERVED.values(), ids=SERVED.keys())
def test_what_must_be_served_is_served_and_the_next_request_too(run: Run, raw: bytes, seen: list[str]) -> None:
    async def main() -> None:
        async with serving(tell) as server, client(server.port) as (reader, writer):
            writer.write(raw + GET)
            assert json.loads((await read_response(reader)).body) == seen
            assert json.loads((await read_response(reader)).body) == ["GET", "/", "", ""]

    run(main())


def test_as_many_fields_as_are_allowed_are_served_and_one_more_is_431(run: Run) -> None:
    async def main() -> None:
        many = b"".join(b"a%d: b\r\n" % n for n in range(99))
        async with serving() as server:
            async with client(server.port) as (reader, writer):
                writer.write(HEAD + many + b"\r\n")
                assert (await read_response(reader)).status == 200
            assert (await talk(server.port, HEAD + many + b"b: c\r\n\r\n")).startswith(b"HTTP/1.1 431 ")

    run(main())


@pytest.mark.parametrize("cut", range(1, 65))
def test_a_request_that_is_cut_anywhere_reaches_no_handler(run: Run, cut: int) -> None:
    async def main() -> None:
        raw = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: x\r\ncontent-length: 5\r\n\r\nabcde"
        assert len(raw) > 65
        async with serving() as server, client(server.port) as (reader, writer):
            writer.write(raw[:cut])
            writer.write_eof()
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            assert server.statistics().requests == 0

    run(main())
