"""Every way in which an upstream lets a call down, and the cause that its receiver is given."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import trustme

from tests.http.conftest import Run
from tests.http.harness import (
    HOST,
    TEXT,
    Recorder,
    Script,
    SetClock,
    always,
    answering,
    ask,
    descriptors_used_up,
    echo,
    pool,
    post,
    read_request,
    serving,
    swept,
    uncollected,
    upstream,
)
from tidegate.http.client import Call, Cause
from tidegate.http.link import Link

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
SILENT = "127.0.0.2"  # nobody listens there unless a test does
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def silent_after(reply: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(reply)
        await reader.read()

    return script


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)  # leaves the rest unread, so that closing resets


async def silent_after_a_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)
    await reader.read()


FAULTS = {
    "closed without an answer": (answering(b""), Cause.RESET, False),
    "reset": (reset, Cause.RESET, False),
    "closed within the head": (answering(b"HTTP/1.1 200 OK\r\ncont"), Cause.RESET, False),
    "closed within the body": (answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), Cause.RESET, True),
    "closed within a chunk": (answering(CHUNKED + b"9\r\nabc"), Cause.RESET, True),
    "closed before the last chunk": (answering(CHUNKED + b"3\r\nabc\r\n"), Cause.RESET, True),
    "no answer": (silent_after(b""), Cause.FIRST_BYTE_TIMEOUT, False),
    "half a head": (silent_after(b"HTTP/1.1 200 OK\r\n"), Cause.FIRST_BYTE_TIMEOUT, False),
    "only an interim response": (silent_after(b"HTTP/1.1 100 Continue\r\n\r\n"), Cause.FIRST_BYTE_TIMEOUT, False),
    "a head and no body": (silent_after(CHUNKED), Cause.IDLE_TIMEOUT, True),
    "a body that stops": (silent_after(CHUNKED + b"3\r\nabc\r\n"), Cause.IDLE_TIMEOUT, True),
    "HTML": (answering(b"<html><body>It works</body></html>"), Cause.PROTOCOL, False),
    "garbage": (answering(b"\0\1\2\3"), Cause.PROTOCOL, False),
    "HTTP/2": (answering(b"\0\0\x12\x04\0\0\0\0\0"), Cause.PROTOCOL, False),
    "no status": (answering(b"HTTP/1.1 OK\r\n\r\n"), Cause.PROTOCOL, False),
    "bare LF": (answering(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok"), Cause.PROTOCOL, False),
    "both lengths": (
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n"),
        Cause.PROTOCOL,
        False,
    ),
    "unknown coding": (answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx"), Cause.PROTOCOL, False),
    "a protocol switch": (
        answering(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        Cause.PROTOCOL,
        False,
    ),
    "a bad chunk size": (answering(CHUNKED + b"zz\r\n"), Cause.PROTOCOL, True),
    "a head without end": (silent_after(b"HTTP/1.1 200 OK\r\na: " + b"b" * 200_000), Cause.TOO_LARGE, False),
    "a large head": (answering(b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n"), Cause.TOO_LARGE, False),
    "many headers": (answering(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n"), Cause.TOO_LARGE, False),
    "endless interim responses": (silent_after(b"HTTP/1.1 100 Continue\r\n\r\n" * 9000), Cause.TOO_LARGE, False),
}


@pytest.mark.lengthy
@pytest.mark.parametrize(("script", "cause", "started"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_upstream_has_its_cause(run: Run, script: Script, cause: Cause, started: bool) -> None:
    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            receiver = Recorder()
            # Long enough for a machine that stands still for a moment to connect within it.
            post(to, receiver, first_byte_timeout_s=2.0, idle_timeout_s=0.1)
            await receiver.ended
            assert receiver.error is not None
            assert receiver.error.cause is cause
            assert receiver.error.sent_bytes
            assert ("head" in receiver.calls) is started
            assert receiver.calls.count("error") == 1
            assert to.statistics().open == 0
            assert up.connections == 1

    run(main())


def test_nobody_there_is_refused(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind((HOST, 0))  # bound and not listening
            async with pool(taken.getsockname()[1]) as to:
                receiver = await ask(to)
        assert receiver.error is not None
        assert receiver.error.cause is Cause.REFUSED
        assert not receiver.error.sent_bytes

    run(main())


class Timed(Recorder):
    """It knows its call and is told how long that took to be sent, as attempts are."""

    call: Call

    def on_uploaded(self, size: int, seconds: float, at_most: bool) -> None:
        self.calls.append("uploaded")


@pytest.mark.lengthy
def test_of_a_call_that_finds_nobody_nothing_is_left(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind((HOST, 0))  # bound and not listening
            async with pool(taken.getsockname()[1]) as to:
                timed = Timed()
                timed.call = to.send(
                    b"POST",
                    b"/x",
                    TEXT,
                    b"",
                    timed,
                    first_byte_timeout_s=5.0,
                    idle_timeout_s=5.0,
                    uploaded=timed.on_uploaded,
                )
                await timed.ended

    with uncollected():
        run(main())
        assert [one for one in gc.get_objects() if isinstance(one, Timed | Call | Link)] == []


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 300])
def test_a_name_that_does_not_resolve_is_a_dns_error(run: Run, host: str) -> None:
    async def main() -> None:
        async with pool(80, host=host) as to:
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.DNS

    run(main())


@pytest.mark.lengthy
def test_a_name_that_fails_after_its_time_is_a_connect_timeout_and_nobody_complains(
    run: Run,
) -> None:
    async def main() -> None:
        async with pool(80, host="nobody.invalid", connect_timeout_s=1e-6) as to:
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.CONNECT_TIMEOUT
        # By then the look-up has failed, too.
        with pytest.raises(socket.gaierror):
            await asyncio.get_running_loop().getaddrinfo("nobody.invalid", 80)
        gc.collect()

    run(main())


def test_a_name_with_several_addresses_is_reached_at_the_one_that_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up, pool(up.port, host="several.test") as to:
            loop = asyncio.get_running_loop()

            async def found(*_: object, **__: object) -> list[Any]:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, ("127.0.0.2", up.port)), (*kind, (HOST, up.port))]

            monkeypatch.setattr(loop, "getaddrinfo", found, raising=False)
            receiver = await ask(to)
        assert receiver.error is None

    run(main())


@contextmanager
def swallowing(host: str, port: int) -> Iterator[None]:
    """Who connects there hears nothing: the queue of connections is full, and nobody takes any."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((host, port))
        yield


def named(monkeypatch: pytest.MonkeyPatch, port: int, *hosts: str) -> list[str]:
    """Every name has these addresses; returned is which of them are connected to, in order."""
    loop, called = asyncio.get_running_loop(), list[str]()
    connect = loop.create_connection

    async def found(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    async def connects(make: Any, host: str, *rest: Any) -> Any:
        called.append(host)
        return await connect(make, host, *rest)

    monkeypatch.setattr(loop, "getaddrinfo", found, raising=False)
    monkeypatch.setattr(loop, "create_connection", connects, raising=False)
    return called


def test_an_address_that_swallows_everything_leaves_time_for_the_next_and_is_asked_last_from_then_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with (
            upstream(answering(LAST)) as up,
            pool(up.port, host="several.test", connect_timeout_s=0.6) as to,
        ):
            called = named(monkeypatch, up.port, SILENT, HOST)
            with swallowing(SILENT, up.port):
                assert (await ask(to)).error is None
                assert (await ask(to)).error is None
            assert called == [SILENT, HOST, HOST]
            # It is asked again where the others are not there.
            named(monkeypatch, up.port, SILENT)
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.REFUSED

    run(main())


def test_an_address_that_takes_a_connection_and_never_shakes_hands_leaves_time_for_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with (
            serving(echo, tls=server_tls("engine.test")) as server,
            upstream(silent_after_a_byte, host=SILENT, port=server.port) as silent,
            pool(
                server.port, host="several.test", tls=client_tls(), server_name="engine.test", connect_timeout_s=0.6
            ) as to,
        ):
            named(monkeypatch, server.port, SILENT, HOST)
            assert (await ask(to, b"hello")).body == b"hello"
            await asyncio.gather(*silent.tasks)  # the connection that was given up is closed

    run(main())


@pytest.mark.lengthy
def test_where_all_addresses_swallow_everything_the_whole_takes_no_longer_than_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up, pool(up.port, host="several.test", connect_timeout_s=1.0) as to:
            called = named(monkeypatch, up.port, SILENT, "127.0.0.3", "127.0.0.4")
            with ExitStack() as stack:
                for host in (SILENT, "127.0.0.3", "127.0.0.4"):
                    stack.enter_context(swallowing(host, up.port))
                async with asyncio.timeout(5.0):
                    receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.CONNECT_TIMEOUT
            assert called == [SILENT, "127.0.0.3", "127.0.0.4"]

    run(main())


@pytest.mark.lengthy
def test_of_an_address_that_refused_before_another_answered_nothing_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with upstream(answering(LAST)) as up, pool(up.port, host="several.test") as to:
            named(monkeypatch, up.port, SILENT, HOST)
            assert (await ask(to)).error is None

    with uncollected():
        run(main())
        assert [one for one in gc.get_objects() if isinstance(one, Call | Link)] == []


def test_a_link_local_address_is_left_to_the_loop_which_keeps_its_interface(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop, called = asyncio.get_running_loop(), list[str]()

        async def found(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 2))]

        async def connect(_: object, host: str, *__: object, **___: object) -> None:
            called.append(host)
            raise ConnectionRefusedError

        monkeypatch.setattr(loop, "getaddrinfo", found, raising=False)
        monkeypatch.setattr(loop, "create_connection", connect, raising=False)
        async with pool(80, host="box.local") as to:
            await ask(to)
        assert called == ["box.local"]

    run(main())


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_where_we_may_open_nothing_more_that_is_said_and_nothing_of_who_is_called(run: Run, host: str) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up, pool(up.port, host=host) as to:
            with descriptors_used_up():
                receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.NO_DESCRIPTOR
            assert not receiver.error.sent_bytes

    run(main())


def test_a_handshake_that_stalls_is_a_connect_timeout(run: Run) -> None:
    async def main() -> None:
        async with (
            upstream(silent_after(b"")) as up,
            pool(up.port, tls=ssl.create_default_context(), connect_timeout_s=0.05) as to,
        ):
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.CONNECT_TIMEOUT

    run(main())


def test_a_request_that_waits_too_long_for_a_connection_fails(run: Run) -> None:
    async def main() -> None:
        async with upstream(silent_after(b"")) as up, pool(up.port, connections_max=1) as to:
            first, second = Recorder(), Recorder()
            post(to, first)
            post(to, second, first_byte_timeout_s=0.05)
            await second.ended
            assert second.error is not None
            assert second.error.cause is Cause.POOL_FULL
            assert to.statistics().waiting == 0

    run(main())


def test_a_stream_that_keeps_coming_is_never_idle(run: Run) -> None:
    async def main() -> None:
        clock, receiver = SetClock(), Recorder()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(CHUNKED)
            for _ in range(8):
                receiver.got_data.clear()
                writer.write(b"1\r\na\r\n")
                await receiver.got_data.wait()
                await swept(to, clock, 3.0)
            writer.write(b"0\r\n\r\n")
            await reader.read()

        async with upstream(script) as up, pool(up.port, clock=clock) as to:
            post(to, receiver, first_byte_timeout_s=5.0, idle_timeout_s=5.0)
            await receiver.ended
            assert receiver.error is None
            assert receiver.body == b"a" * 8

    run(main())


def test_a_failing_receiver_is_told_and_reported() -> None:
    class Failing(Recorder):
        def on_data(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        reported: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with upstream(always(OK)) as up, pool(up.port) as to:
            receiver = Failing()
            post(to, receiver)
            await receiver.ended
            assert receiver.calls == ["head", "error"]
            assert isinstance(reported[0]["exception"], ZeroDivisionError)

    asyncio.run(main())


# ---------------------------------------------------------------------- TLS

AUTHORITY = trustme.CA()


def server_tls(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_a_verified_upstream_is_spoken_to(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(echo, tls=server_tls("engine.test")) as server,
            pool(server.port, tls=client_tls(), server_name="engine.test") as to,
        ):
            for _ in range(3):
                body = bytes(300_000)
                assert (await ask(to, body)).body == body
            assert to.statistics().connects == 1

    run(main())


@pytest.mark.parametrize(
    ("names", "trusts"),
    [(("other.test",), client_tls), (("engine.test",), ssl.create_default_context)],
    ids=["wrong name", "unknown authority"],
)
def test_an_upstream_that_is_not_the_one_is_never_spoken_to(
    run: Run, names: tuple[str, ...], trusts: Callable[[], ssl.SSLContext]
) -> None:
    heard: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    async def main() -> None:
        async with (
            upstream(script, server_tls(*names)) as up,
            pool(up.port, tls=trusts(), server_name="engine.test") as to,
        ):
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.TLS
        assert b"".join(heard) == b""

    run(main())


def test_a_plain_upstream_where_tls_is_expected_is_a_tls_error(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async def main() -> None:
        async with upstream(script) as up, pool(up.port, tls=client_tls()) as to:
            receiver = await ask(to)
            assert receiver.error is not None
            assert receiver.error.cause is Cause.TLS

    run(main())


def test_what_has_come_over_tls_is_not_lost_where_the_upstream_closes_while_nobody_reads(run: Run) -> None:
    size = 1_000_000

    async def main() -> None:
        closed = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(10):
                writer.write(bytes(size // 10))
                await writer.drain()
            writer.close()
            closed.set()

        async with (
            upstream(script, server_tls("engine.test")) as up,
            pool(up.port, tls=client_tls(), server_name="engine.test") as to,
        ):
            receiver = Recorder()
            call = to.send(b"GET", b"/", (), b"", receiver, first_byte_timeout_s=5.0, idle_timeout_s=5.0)
            await receiver.got_data.wait()
            call.pause()
            await closed.wait()
            for _ in range(100):
                await asyncio.sleep(0)  # the end has come as far as it can
            assert not receiver.ended.done()
            call.resume()
            await receiver.ended
            assert (receiver.error, len(receiver.body)) == (None, size)

    run(main())


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("size", "read"), [(20_000_000, 2_000_000), (2_000_000, 0)], ids=["more", "what our kernel takes"]
)
def test_an_upstream_that_answers_before_it_has_read_a_large_request_is_asked_next_on_a_new_connection(
    run: Run, tls: bool, size: int, read: int
) -> None:
    async def main() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(read)
            writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            await asyncio.Event().wait()

        # One whose kernel has acknowledged all of it may well be asked again on the same connection.
        async with (
            upstream(script, server_tls("engine.test") if tls else None, kernel_takes_bytes=65_536) as up,
            pool(up.port, tls=client_tls() if tls else None, server_name="engine.test") as to,
        ):
            for _ in range(2):
                assert (await ask(to, bytes(size))).status == 413
            assert to.statistics().connects == 2

    run(main())


def test_a_connection_on_which_a_large_request_has_gone_is_used_again(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(echo, tls=server_tls("engine.test")) as server,
            pool(server.port, tls=client_tls(), server_name="engine.test") as to,
        ):
            for _ in range(3):
                assert len((await ask(to, bytes(8_000_000))).body) == 8_000_000
            assert to.statistics().connects == 1

    run(main())
