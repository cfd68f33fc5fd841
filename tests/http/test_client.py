import asyncio
import socket
import ssl

import pytest

from tests.http.conftest import Run
from tests.http.harness import (
    HOST,
    Recorder,
    SetClock,
    Upstream,
    always,
    answering,
    ask,
    echo,
    eventually,
    pool,
    post,
    read_request,
    serving,
    swept,
    upstream,
)
from tidegate.clock import Clock
from tidegate.http.client import STALE_S, Call, Cause, Origin, Pool, TransportError, fetch
from tidegate.http.limits import OWN_TURN_BYTES

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_request_arrives_as_it_was_given(run: Run) -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_request(reader))
        writer.write(OK)

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            assert (await ask(to, b"hello")).body == b"ok"
            expected = (
                b"POST /x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
            )
            assert got == [expected % up.port]

    run(main())


def test_requests_reuse_one_connection(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port) as to:
            for _ in range(20):
                assert (await ask(to)).calls == ["head", "data", "end"]
            assert up.connections == 1
            statistics = to.statistics()
            assert (statistics.connects, statistics.requests, statistics.reused) == (1, 20, 19)
            assert (statistics.open, statistics.idle) == (1, 1)

    run(main())


def test_a_request_made_when_another_ends_reuses_its_connection(run: Run) -> None:
    class Again(Recorder):
        def __init__(self, to: Pool, then: Recorder) -> None:
            super().__init__()
            self._to, self._then = to, then

        def on_end(self) -> None:
            post(self._to, self._then)

    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port) as to:
            then = Recorder()
            post(to, Again(to, then))
            await then.ended
            assert up.connections == 1

    run(main())


def test_the_connection_used_last_is_used_first_and_the_others_age_out(run: Run) -> None:
    async def main() -> None:
        clock = SetClock()
        async with upstream(always(OK)) as up, pool(up.port, clock=clock, idle_timeout_s=4.0) as to:
            both = [Recorder(), Recorder()]
            for receiver in both:
                post(to, receiver)
            for receiver in both:
                await receiver.ended
            assert to.statistics().idle == 2
            clock.at_s += 3.0
            for _ in both:
                await ask(to)
            assert to.statistics().idle == 2
            await swept(to, clock, 3.0)
            assert (to.statistics().idle, up.connections) == (1, 2)
            await swept(to, clock, 3.0)
            assert to.statistics().open == 0

    run(main())


@pytest.mark.parametrize(
    ("reply", "status", "body", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n", 200, b"ab", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" + OK, 200, b"ok", True),
        (b"HTTP/1.1 429\r\ncontent-length: 0\r\n\r\n", 429, b"", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (OK + b"HTTP/1.1 200 OK\r\n", 200, b"ok", False),
        (OK + b"garbage", 200, b"ok", False),
    ],
)
def test_every_framing_of_a_response_is_understood(
    run: Run, reply: bytes, status: int, body: bytes, reusable: bool
) -> None:
    async def main() -> None:
        async with upstream(always(reply)) as up, pool(up.port) as to:
            for _ in range(2):
                receiver = await ask(to)
                assert receiver.error is None
                assert (receiver.status, receiver.body) == (status, body)
            assert up.connections == (1 if reusable else 2)

    run(main())


def test_a_response_without_framing_ends_with_the_connection(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as up, pool(up.port) as to:
            receiver = await ask(to)
            assert receiver.body == b"all of it"
            assert receiver.calls[-1] == "end"

    run(main())


def test_head_has_no_body_whatever_its_headers_say(run: Run) -> None:
    async def main() -> None:
        reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
        async with upstream(always(reply)) as up, pool(up.port) as to:
            status, headers, body = await fetch(to, b"HEAD", b"/", [], b"", 5.0, 100)
            assert (status, headers, body) == (200, {b"content-length": b"1000"}, b"")

    run(main())


def test_nothing_is_told_from_within_send(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port, connections_max=1, waiting_max=0) as to:
            first, second = Recorder(), Recorder()
            post(to, first)
            post(to, second)
            assert first.calls == second.calls == []
            await first.ended
            await second.ended
            assert second.error is not None
            assert second.error.cause is Cause.POOL_FULL

    run(main())


def test_requests_wait_for_a_connection_in_order(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as server, pool(server.port, connections_max=1) as to:
            receivers = [Recorder() for _ in range(5)]
            for n, receiver in enumerate(receivers):
                post(to, receiver, b"%d" % n)
            assert to.statistics().waiting == 4
            for n, receiver in enumerate(receivers):
                await receiver.ended
                assert receiver.body == b"%d" % n
                assert not any(later.calls for later in receivers[n + 2 :])
            assert server.statistics().accepted == 1

    run(main())


def test_a_waiting_request_takes_the_place_of_a_cancelled_one(run: Run) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def silent_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if asked.is_set():
                await always(OK)(reader, writer)
            else:
                await read_request(reader)
                asked.set()
                await reader.read()

        async with upstream(silent_once) as up, pool(up.port, connections_max=1) as to:
            first, second, third = Recorder(), Recorder(), Recorder()
            call = post(to, first)
            post(to, second)
            post(to, third).cancel()
            await asked.wait()
            call.cancel()
            await second.ended
            assert second.body == b"ok"
            assert first.calls == third.calls == []

    run(main())


def test_a_connection_made_for_a_cancelled_request_serves_the_next(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port, connections_max=1) as to:
            first, second = Recorder(), Recorder()
            call = post(to, first)
            post(to, second)
            call.cancel()
            await second.ended
            assert second.body == b"ok"
            assert first.calls == []
            assert up.connections == 1

    run(main())


def test_cancelling_closes_the_connection_at_once(run: Run) -> None:
    async def main() -> None:
        gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            try:
                gone.set_result(await reader.read())
            except ConnectionError:
                gone.set_result(b"")

        async with upstream(script) as up, pool(up.port) as to:
            receiver = Recorder()
            call = post(to, receiver)
            await receiver.got_data.wait()
            call.cancel()
            assert await gone == b""
            assert receiver.calls == ["head", "data"]
            assert to.statistics().open == 0

    run(main())


def test_a_receiver_that_cancels_hears_nothing_more(run: Run) -> None:
    class Impatient(Recorder):
        call: Call

        def on_data(self, data: bytes) -> None:
            super().on_data(data)
            self.call.cancel()

    async def main() -> None:
        reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
        async with upstream(always(reply)) as up, pool(up.port) as to:
            receiver = Impatient()
            receiver.call = post(to, receiver)
            await receiver.got_data.wait()
            await ask(to)
            assert receiver.calls == ["head", "data"]

    run(main())


def test_a_stale_connection_is_replaced_once_and_nobody_notices(run: Run) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if up[0].connections == 1:
            await read_request(reader)  # and close instead of an answer

    up: list[Upstream] = []

    async def main() -> None:
        async with upstream(hangs_up) as server, pool(server.port) as to:
            up.append(server)
            await ask(to)
            receiver = await ask(to)
            assert receiver.calls == ["head", "data", "end"]
            assert server.connections == 2

    run(main())


def test_what_was_worked_on_for_a_while_is_not_sent_again(run: Run) -> None:
    class Later(Clock):
        by_s = 0.0

        def now_s(self) -> float:
            return super().now_s() + self.by_s

    async def main() -> None:
        clock, dies = Later(), asyncio.Event()

        async def works(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            await read_request(reader)
            clock.by_s += STALE_S
            dies.set()  # and close instead of an answer

        async with upstream(works) as server, pool(server.port, clock=clock) as to:
            await ask(to)
            receiver = await ask(to)
            assert dies.is_set()
            assert receiver.error is not None
            assert receiver.error.cause is Cause.RESET
            assert server.connections == 1

    run(main())


def test_a_connection_that_was_made_for_nobody_and_is_closed_while_idle_is_stale_too(run: Run) -> None:
    async def closes_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if up[0].connections > 1:
            writer.write(OK)

    up: list[Upstream] = []

    async def main() -> None:
        async with upstream(closes_the_first) as server, pool(server.port) as to:
            up.append(server)
            post(to, Recorder()).cancel()
            await eventually(lambda: to.statistics().idle == 1)
            receiver = await ask(to)
            assert (receiver.error, receiver.status) == (None, 200)
            assert server.connections == 2

    run(main())


def test_a_call_that_is_sent_again_takes_no_place_of_others(run: Run) -> None:
    async def closes_upon_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = up[0].connections == 1
        await read_request(reader)
        writer.write(OK)
        while await read_request(reader) and not first:
            writer.write(OK)

    up: list[Upstream] = []

    async def main() -> None:
        async with upstream(closes_upon_the_second) as server, pool(server.port, connections_max=1) as to:
            up.append(server)
            await ask(to)
            found = await asyncio.gather(ask(to), ask(to))
            assert [one.error for one in found] == [None, None]
            assert server.connections == 2

    run(main())


def test_a_new_connection_that_closes_without_an_answer_is_not_tried_again(run: Run) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if up[0].connections == 1:
            writer.write(OK)
            await read_request(reader)

    up: list[Upstream] = []

    async def main() -> None:
        async with upstream(hangs_up) as server, pool(server.port) as to:
            up.append(server)
            await ask(to)
            receiver = await ask(to)  # stale, and the retry finds a server that hangs up
            assert receiver.error is not None
            assert receiver.error.cause is Cause.RESET
            assert server.connections == 2

    run(main())


def test_nothing_was_sent_where_a_connection_was_stale_and_no_other_can_be_made(run: Run) -> None:
    async def main() -> None:
        async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            await read_request(reader)
            listening.close()
            writer.close()

        listening = await asyncio.start_server(hangs_up, HOST, 0)
        async with pool(listening.sockets[0].getsockname()[1]) as to:
            await ask(to)
            receiver = Recorder()
            call = post(to, receiver)
            assert call.sent
            await receiver.ended
            assert receiver.error is not None
            assert receiver.error.cause is Cause.REFUSED
            assert not receiver.error.sent_bytes
            assert not call.sent

    run(main())


def test_bytes_on_an_idle_connection_close_it(run: Run) -> None:
    async def main() -> None:
        talk: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            if not talk.done():
                await talk
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            await reader.read()

        async with upstream(script) as up, pool(up.port) as to:
            await ask(to)
            talk.set_result(None)
            await eventually(lambda: to.statistics().open == 0)
            assert (await ask(to)).body == b"ok"

    run(main())


def test_an_answer_before_the_request_is_sent_whole_is_heard_and_the_connection_not_used_again(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\ntoo")
        await writer.drain()
        while await reader.read(65536):
            pass

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            receiver = await ask(to, bytes(30_000_000))
            assert (receiver.status, receiver.body) == (413, b"too")
            assert to.statistics().idle == 0

    run(main())


def test_others_have_a_turn_before_a_large_request_is_sent(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port) as to:
            await ask(to)
            for size, at_once in ((OWN_TURN_BYTES - 1, True), (OWN_TURN_BYTES, False)):
                (link,) = to._links
                # What of it is sent does not fit there.
                link.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                receiver = Recorder()
                post(to, receiver, bytes(size))
                assert (link.transport.get_write_buffer_size() > 0) is at_once
                await receiver.ended
                assert receiver.body == b"ok"
            assert up.connections == 1

    run(main())


def test_nothing_is_sent_of_a_large_request_that_is_cancelled_before_its_turn(run: Run) -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        got.append(await reader.read())

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            await ask(to)
            receiver = Recorder()
            post(to, receiver, bytes(OWN_TURN_BYTES)).cancel()
            await eventually(lambda: bool(got))
            assert got == [b""]
            assert receiver.calls == []

    run(main())


def test_a_large_request_whose_connection_is_gone_before_its_turn_is_sent_once_by_another(run: Run) -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            got.append(await read_request(reader))
            writer.write(OK)

    async def main() -> None:
        async with upstream(script) as up, pool(up.port) as to:
            await ask(to)
            (link,) = to._links
            receiver = Recorder()
            post(to, receiver, bytes(OWN_TURN_BYTES))
            link.connection_lost(None)
            link.transport.abort()
            await receiver.ended
            assert receiver.body == b"ok"
            assert len(got) == 2

    run(main())


def test_pausing_a_call_stops_the_upstream(run: Run) -> None:
    async def main() -> None:
        stopped = asyncio.Event()
        total = 64

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (total * 1_000_000))
            for _ in range(total):
                writer.write(bytes(1_000_000))
                try:
                    async with asyncio.timeout(0.1):
                        await writer.drain()
                except TimeoutError:
                    stopped.set()
                    await writer.drain()

        clock = SetClock()
        async with upstream(script) as up, pool(up.port, clock=clock, idle_timeout_s=5.0) as to:
            receiver = Recorder()
            call = post(to, receiver, idle_timeout_s=5.0)
            await receiver.headed
            call.pause()
            await stopped.wait()
            for _ in range(3):
                await swept(to, clock, 10.0)
            assert len(receiver.body) < 8_000_000
            call.resume()
            await receiver.ended
            assert receiver.error is None
            assert len(receiver.body) == total * 1_000_000

    run(main())


def test_fetch_returns_a_whole_response_and_bounds_it(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as up, pool(up.port) as to:
            assert await fetch(to, b"GET", b"/", [], b"", 5.0, 2) == (200, {b"content-length": b"2"}, b"ok")
            with pytest.raises(TransportError) as caught:
                await fetch(to, b"GET", b"/", [], b"", 5.0, 1)
            assert caught.value.cause is Cause.TOO_LARGE

    run(main())


def test_fetch_gives_up_in_time_and_closes(run: Run) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await reader.read()

    async def main() -> None:
        async with upstream(trickle) as up, pool(up.port) as to:
            with pytest.raises(TransportError) as caught:
                await fetch(to, b"GET", b"/", [], b"", 0.05, 100)
            assert caught.value.cause is Cause.IDLE_TIMEOUT
            assert to.statistics().open == 0

    run(main())


def test_fetch_tells_apart_that_there_was_no_connection_in_time(run: Run) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with upstream(silence) as up, pool(up.port, tls=ssl.create_default_context()) as to:
            with pytest.raises(TransportError) as caught:
                await fetch(to, b"GET", b"/", [], b"", 0.05, 100)
            assert caught.value.cause is Cause.CONNECT_TIMEOUT
            assert not caught.value.sent_bytes

    run(main())


def test_fetch_tells_apart_that_no_connection_of_ours_was_free(run: Run) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with upstream(silence) as up, pool(up.port, connections_max=1) as to:
            first = asyncio.create_task(fetch(to, b"GET", b"/", [], b"", 60.0, 100))
            await eventually(lambda: to.statistics().open == 1)
            with pytest.raises(TransportError) as caught:
                await fetch(to, b"GET", b"/", [], b"", 0.05, 100)
            assert caught.value.cause is Cause.POOL_FULL
            assert to.statistics().waiting == 0
            first.cancel()

    run(main())


def test_what_would_split_the_request_is_refused(run: Run) -> None:
    async def main() -> None:
        async with pool(1) as to:
            for target, headers in [
                (b"/ HTTP/1.1\r\na: b", []),
                (b"/a b", []),
                (b"/\xff", []),
                (b"/", [(b"a", b"b\r\nc: d")]),
                (b"/", [(b"Transfer-Encoding", b"chunked")]),
            ]:
                with pytest.raises(ValueError, match=r"header|target"):
                    to.send(b"GET", target, headers, b"", Recorder(), first_byte_timeout_s=1.0, idle_timeout_s=1.0)

    run(main())


def test_a_closed_pool_tells_everyone(run: Run) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with upstream(silent) as up, pool(up.port, connections_max=2) as to:
            receivers = [Recorder() for _ in range(4)]
            post(to, receivers[0])
            await eventually(lambda: up.connections == 1)
            for receiver in receivers[1:]:
                post(to, receiver)
            await to.close()
            for receiver in receivers:
                await receiver.ended
                assert receiver.calls == ["error"]
            assert (await ask(to)).calls == ["error"]
            assert to.statistics().open == 0

    run(main())


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("a.example", 80), b"a.example"),
        (Origin("a.example", 8080), b"a.example:8080"),
        (Origin("::1", 80), b"[::1]"),
        (Origin("::1", 8080), b"[::1]:8080"),
        (Origin("bücher.example", 80), b"xn--bcher-kva.example"),
    ],
)
def test_the_host_header_names_the_origin(origin: Origin, authority: bytes) -> None:
    assert origin.authority == authority


def test_headers_are_lower_case_and_repeats_are_joined(run: Run) -> None:
    async def main() -> None:
        reply = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:2 \r\nContent-Length: 0\r\n\r\n"
        async with upstream(always(reply)) as up, pool(up.port) as to:
            assert (await ask(to)).headers == {b"x-a": b"1, 2", b"content-length": b"0"}

    run(main())
