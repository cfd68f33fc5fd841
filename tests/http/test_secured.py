"""TLS to an upstream, whatever comes of what it carries, when, and in which pieces."""

import asyncio
import gc
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.http.conftest import Run
from tests.http.harness import (
    Recorder,
    SetClock,
    ask,
    eventually,
    pool,
    post,
    read_request,
    serving,
    uncollected,
    upstream,
)
from tests.http.test_client_faults import client_tls, server_tls
from tidegate.http.client import Cause
from tidegate.http.link import Link
from tidegate.http.secured import RESUMED_S_MAX, Secured

NAME = "engine.test"
BODY = bytes(range(256)) * 300  # several records
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY)
UNSIZED = b"HTTP/1.1 200 OK\r\n\r\n"


class Hand:
    """A server's side of TLS, moved by hand over a plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server_tls(NAME).wrap_bio(self._in, self._out, server_side=True)

    async def shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(self._out.read())
                self._in.write(await self.reader.read(65_536))
            else:
                self.writer.write(self._out.read())
                return

    async def request(self) -> bytes:
        while True:
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                self._in.write(await self.reader.read(65_536))

    def sealed(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._out.read()

    def farewell(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._out.read()

    async def send(self, sealed: bytes, step: int) -> None:
        for at in range(0, len(sealed), step):
            self.writer.write(sealed[at : at + step])
            await self.writer.drain()
            await asyncio.sleep(0)


Act = Callable[[Hand], Awaitable[None]]


async def answered(act: Act) -> Recorder:
    """What one request finds before a server that acts so, once it has it."""
    done = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hand = Hand(reader, writer)
        await hand.shake()
        await hand.request()
        await act(hand)
        writer.close()
        done.set()

    async with upstream(script) as up, pool(up.port, tls=client_tls(), server_name=NAME) as to:
        found = await ask(to)
        await done.wait()
        return found


@pytest.mark.parametrize("step", [1000, 16_384, 20_000, 1_000_000])
def test_records_are_read_in_whatever_pieces_they_come(run: Run, step: int) -> None:
    async def act(hand: Hand) -> None:
        await hand.send(hand.sealed(SIZED + BODY), step)

    async def main() -> None:
        found = await answered(act)
        assert (found.error, found.body) == (None, BODY)

    run(main())


def test_a_head_is_read_byte_by_byte(run: Run) -> None:
    async def act(hand: Hand) -> None:
        await hand.send(hand.sealed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), 1)

    async def main() -> None:
        found = await answered(act)
        assert (found.error, found.status) == (None, 200)

    run(main())


@pytest.mark.parametrize("farewell", [True, False])
def test_an_answer_that_ends_with_its_connection_ends_where_tls_says_so_and_is_cut_off_else(
    run: Run, farewell: bool
) -> None:
    async def act(hand: Hand) -> None:
        hand.writer.write(hand.sealed(UNSIZED + BODY) + (hand.farewell() if farewell else b""))

    async def main() -> None:
        found = await answered(act)
        assert found.body == BODY
        if farewell:
            assert found.error is None
        else:
            assert found.error is not None
            assert found.error.cause is Cause.RESET

    run(main())


def test_a_farewell_is_answered(run: Run) -> None:
    said: list[bytes] = []

    async def act(hand: Hand) -> None:
        hand.writer.write(hand.sealed(SIZED + BODY) + hand.farewell())
        said.append(await hand.reader.read())

    async def main() -> None:
        found = await answered(act)
        assert found.error is None

    run(main())
    (sealed,) = said
    assert sealed[0] in (0x15, 0x17)  # an alert; since TLS 1.3 it looks like data


@pytest.mark.lengthy
def test_a_connection_that_is_over_is_gone_at_once(run: Run) -> None:
    def living() -> int:
        return sum(type(one) in (Link, Secured, ssl.SSLObject) for one in gc.get_objects())

    async def main() -> None:
        tls, before = client_tls(), living()
        async with serving() as plain, pool(plain.port, tls=tls, server_name=NAME) as to:
            found = await ask(to)
            assert found.error is not None
            assert found.error.cause is Cause.TLS
        async with serving(tls=server_tls(NAME)) as server, pool(server.port, tls=tls, server_name=NAME) as to:
            await ask(to)
            assert living() > before
        del found, plain, server, to
        await eventually(lambda: living() == before)

    with uncollected():
        run(main())


def test_a_record_that_was_tampered_with_is_never_read(run: Run) -> None:
    async def act(hand: Hand) -> None:
        hand.writer.write(hand.sealed(SIZED))
        sealed = bytearray(hand.sealed(BODY[:1000]))
        sealed[500] ^= 1
        hand.writer.write(bytes(sealed))
        await hand.reader.read()

    async def main() -> None:
        found = await answered(act)
        assert found.body == b""
        assert found.error is not None
        assert found.error.cause is Cause.RESET

    run(main())


def test_a_handshake_that_never_ends_is_timed_out(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with (
            upstream(script) as up,
            pool(up.port, tls=client_tls(), server_name=NAME, connect_timeout_s=0.1) as to,
        ):
            found = await ask(to)
            assert found.error is not None
            assert found.error.cause is Cause.CONNECT_TIMEOUT
            await eventually(lambda: to.statistics().open == 0)

    run(main())


def test_a_handshake_that_is_cut_off_is_a_connection_that_was_reset(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def main() -> None:
        async with upstream(script) as up, pool(up.port, tls=client_tls(), server_name=NAME) as to:
            found = await ask(to)
            assert found.error is not None
            assert found.error.cause is Cause.RESET

    run(main())


def test_a_pool_that_closes_during_a_handshake_leaves_nothing_behind(run: Run) -> None:
    async def main() -> None:
        shaking, left = asyncio.Event(), asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            shaking.set()
            await reader.read()
            left.set()

        async with upstream(script) as up:
            async with pool(up.port, tls=client_tls(), server_name=NAME) as to:
                found = Recorder()
                post(to, found)
                await shaking.wait()
            await found.ended
            assert found.error is not None
            await left.wait()

    run(main())


def test_what_comes_behind_an_answer_is_no_answer_to_who_waits(run: Run) -> None:
    came: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hand = Hand(reader, writer)
        await hand.shake()
        await hand.request()
        came.append(len(came))
        said = hand.sealed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        if len(came) == 1:
            said += hand.sealed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")
        writer.write(said)
        await reader.read()

    async def main() -> None:
        async with (
            upstream(script) as up,
            pool(up.port, tls=client_tls(), server_name=NAME, connections_max=1) as to,
        ):
            found = await asyncio.gather(ask(to), ask(to))
            assert [(one.error, one.body) for one in found] == [(None, b"ok"), (None, b"ok")]
            assert up.connections == 2

    run(main())


def resumed(server: ssl.SSLContext) -> tuple[int, int]:
    """Handshakes, and those of them that went without a certificate."""
    found = server.session_stats()
    return found["accept_good"], found["hits"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_later_connections_go_without_a_certificate_until_it_was_looked_at_too_long_ago(
    run: Run, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        tls, clock = server_tls(NAME), SetClock()
        tls.maximum_version = version
        async with (
            serving(tls=tls) as server,
            pool(server.port, tls=client_tls(), server_name=NAME, idle_max=0, clock=clock) as to,
        ):
            for _ in range(3):
                assert (await ask(to, BODY)).body == BODY
            assert resumed(tls) == (3, 2)
            clock.at_s += RESUMED_S_MAX
            for _ in range(2):
                assert (await ask(to, BODY)).body == BODY
            assert resumed(tls) == (5, 3)

    run(main())


def test_a_server_that_does_not_know_a_session_has_to_show_its_certificate(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            async with upstream(script, server_tls(NAME)) as up:
                to = await stack.enter_async_context(pool(up.port, tls=client_tls(), server_name=NAME))
                found = await ask(to)
            assert found.error is None
            async with upstream(script, server_tls("somebody.else.test"), port=up.port):
                found = await ask(to)
            assert found.error is not None
            assert found.error.cause is Cause.TLS

    run(main())


OLD = 4
"""So many connections offer a session that is not known any more."""


@pytest.mark.parametrize("how", ["cut off", "an alert"])
def test_a_server_that_does_not_get_over_an_old_session_is_asked_again_without(run: Run, how: str) -> None:
    came: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(len(came))
        if 1 < len(came) <= 1 + OLD:
            await reader.read(100)
            if how == "an alert":
                writer.write(b"\x15\x03\x03\x00\x02\x02\x2f")  # fatal: illegal parameter
            writer.close()
            return
        await answer(reader, writer)

    async def main() -> None:
        async with upstream(script) as up, pool(up.port, tls=client_tls(), server_name=NAME) as to:
            for found in [await ask(to), *await asyncio.gather(*[ask(to) for _ in range(OLD)])]:
                assert (found.error, found.status) == (None, 200)

    run(main())
    assert len(came) == 1 + 2 * OLD


def test_a_server_that_is_silent_at_an_old_session_is_reached_by_the_next(run: Run) -> None:
    came: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(len(came))
        if len(came) == 2:
            await reader.read()
            return
        await answer(reader, writer)

    async def main() -> None:
        async with (
            upstream(script) as up,
            pool(up.port, tls=client_tls(), server_name=NAME, connect_timeout_s=0.3) as to,
        ):
            found = [await ask(to) for _ in range(3)]
            assert [one.error and one.error.cause for one in found] == [None, Cause.CONNECT_TIMEOUT, None]

    run(main())


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, and no more on this connection."""
    hand = Hand(reader, writer)
    await hand.shake()
    await hand.request()
    await hand.send(hand.sealed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"), 1_000)
    writer.close()
