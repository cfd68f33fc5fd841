"""One client, or one engine, must not take the gateway from the others."""

import asyncio
import json
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.gateway.harness import CHAT, chat, house, local, wire
from tests.http.harness import client, eventually, pool, read_request, upstream
from tidegate.clock import Clock
from tidegate.core.model import Capability, Endpoint, Headroom
from tidegate.engines.base import Failure
from tidegate.engines.fake import Script
from tidegate.engines.openai import OpenAI
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Pool
from tidegate.wire.openai import parse
from tidegate.wire.stream import StreamReader

SLOW_CLIENTS = 1000
CHUNK_BYTES = 16 * 1024


async def test_a_thousand_clients_that_never_finish_their_request_stop_nobody(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * SLOW_CLIENTS:
        pytest.skip("too few file descriptors are allowed here")
    async with house(tmp_path) as home, AsyncExitStack() as clients:
        for _ in range(SLOW_CLIENTS):
            _, writer = await clients.enter_async_context(client(home.port))
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-le")
        answers = await asyncio.gather(*(home.ask(chat(stream=n % 2 == 0)) for n in range(20)))
        assert {(a.status, a.text) for a in answers} == {(200, "w1 w2 w3 w4 ")}
        await eventually(lambda: home.gateway.server.statistics().open == SLOW_CLIENTS)


@pytest.mark.lengthy
async def test_a_client_that_does_not_read_stops_the_engine_and_gets_all_of_it_later(tmp_path: Path) -> None:
    tokens = 4000
    script = Script(tokens=tokens, pad="x" * CHUNK_BYTES)
    async with house(tmp_path, laptop=local(script)) as home:
        engine = home.engines["laptop"]
        async with client(home.port) as (reader, writer):
            writer.write(wire("POST", CHAT, json.dumps(chat(stream=True)).encode()))
            await eventually(lambda: engine.paused == 1)
            # What is on its way fits into sockets and buffers; the rest is not made.
            assert engine.made * CHUNK_BYTES < 32 * 1024 * 1024
            assert (await home.ask(chat(stream=True))).text.startswith("w1 ") is True
            received = b""
            while b"[DONE]" not in received[-200:]:
                piece = await reader.read(1 << 20)
                assert piece
                received = received[-200:] + piece
        assert engine.paused == 0
        assert engine.made == 2 * tokens


async def test_a_client_that_never_reads_and_leaves_frees_the_engine(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(tokens=100_000, pad="x" * CHUNK_BYTES))) as home:
        async with home.asking(chat(stream=True)):
            await eventually(lambda: home.engines["laptop"].paused == 1)
        await eventually(lambda: home.engines["laptop"].left == 1)


class Slow:
    """A listener whose client stops reading at the first byte, or at the `last`."""

    def __init__(self, *, last: bool) -> None:
        self._last = last
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """Nobody asks."""

    def headroom(self, attempt: Attempt, told: Headroom) -> None:
        raise AssertionError(told)

    def content(self, attempt: Attempt, first: bytes) -> None:
        if not self._last:
            attempt.relay = lambda _: attempt.pause()
            attempt.relay(first)

    def completed(self, attempt: Attempt, rest: bytes) -> None:
        if self._last:
            attempt.pause()
        self.done.set_result(rest)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        self.done.set_exception(AssertionError(failure))


@pytest.mark.parametrize("last", [False, True], ids=["at_the_first_byte", "at_the_last"])
async def test_a_connection_whose_client_was_slow_is_used_again(last: bool) -> None:
    ends: asyncio.Queue[None] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        frames = (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b"data: [DONE]\n\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames))
        await ends.get()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    def made(to: Pool) -> Attempt:
        dialect, call = OpenAI("", None), parse(json.dumps(chat(stream=True)).encode(), Capability.CHAT)
        outgoing = dialect.outgoing(call, "m", ())
        reader = StreamReader(include_usage=False)
        endpoint = Endpoint(name="a", site="s", local=True, models=("m",), context_tokens=8192, concurrency=1)
        way = Upstream(endpoint, dialect, to, "m", ())
        return Attempt(way, outgoing, reader, Slow(last=last), Clock().now_s, hedge=False)

    async with upstream(script) as up, pool(up.port) as to:
        attempt = made(to)
        listener = attempt._listener
        assert isinstance(listener, Slow)
        attempt.carry(to.send(b"POST", b"/", (), b"{}", attempt, first_byte_timeout_s=5.0, idle_timeout_s=5.0))
        await listener.done
        ends.put_nowait(None)
        await eventually(lambda: to.statistics().idle == 1)
