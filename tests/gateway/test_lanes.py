"""What passes in a lane, unread by Python, is what would have passed: over real sockets, whatever becomes of either."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.docs.test_lookups import ROOT, loaded
from tests.gateway.test_flow import ENDPOINT, HEAD, OTHERS, TEXTS, framed
from tests.http.harness import (
    GET,
    HOST,
    SetClock,
    client,
    descriptors_used_up,
    error_body,
    eventually,
    read_request,
    upstream,
)
from tests.http.test_client_faults import client_tls, server_tls
from tests.wire.streams import DONE, ROLE, STOP, chunk, facts, flowing
from tidegate.clock import Clock
from tidegate.core.model import Headroom
from tidegate.engines.base import Failure, Outgoing
from tidegate.engines.openai import OpenAI
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.upstream import Upstream
from tidegate.http import lanes
from tidegate.http.client import Origin, Pool
from tidegate.http.exchange import Exchange
from tidegate.http.lanes import Lanes
from tidegate.http.limits import Limits
from tidegate.http.server import Server
from tidegate.wire.repeat import Repeat, Tally
from tidegate.wire.stream import StreamReader

IDLE_TIMEOUT_S = 5.0
SPOKEN = {"tls": False}

pytestmark = pytest.mark.skipif(
    not lanes.COMPILED and shutil.which("gcc") is None, reason="there is no compiler, and nothing compiled"
)


@pytest.fixture(scope="module", autouse=True)
def polls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What lanes are made by, which the package has where it is compiled."""
    if lanes.COMPILED:
        yield vars(lanes)["Poll"]
        return
    hook = loaded(ROOT / "build_hooks" / "compiled.py", "compiled")
    module = loaded(hook.lanes(ROOT, tmp_path_factory.mktemp("lanes")), hook.LANES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "Poll", module.Poll, raising=False)
        patch.setattr(lanes, "COMPILED", True)
        yield module.Poll


@pytest.fixture(scope="module", autouse=True, params=[False, True], ids=["plain", "tls"])
def over_tls(request: pytest.FixtureRequest) -> Iterator[None]:
    """How engines are spoken to: by turns plainly and over TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPOKEN, "tls", request.param)
        yield


class Way:
    """A server whose requests are each sent to an engine; what its answer says goes to the client."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.said: list[str] = []
        self.exchanges: list[Exchange] = []
        self.attempts: list[Attempt] = []
        self.readers: list[StreamReader] = []

    def asked(self, exchange: Exchange) -> None:
        reader = StreamReader(include_usage=True)
        upstream = Upstream(ENDPOINT, OpenAI("", None), self.pool, "m", ())
        outgoing = Outgoing(target=b"/", headers=(), body=b"{}", streamed=True)
        attempt = Attempt(upstream, outgoing, reader, self, Clock().now_s, hedge=False)
        exchange.on_left, exchange.on_pause, exchange.on_resume = attempt.cancel, attempt.pause, attempt.resume
        self.exchanges.append(exchange)
        self.attempts.append(attempt)
        self.readers.append(reader)
        send, idle_s = self.pool.send, IDLE_TIMEOUT_S
        attempt.carry(send(b"POST", b"/", (), b"{}", attempt, first_byte_timeout_s=5.0, idle_timeout_s=idle_s))

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """Nobody asks."""

    def headroom(self, attempt: Attempt, told: Headroom) -> None:
        raise AssertionError(told)

    def content(self, attempt: Attempt, first: bytes) -> None:
        exchange = self.exchanges[-1]
        exchange.start(200, [], first=first)
        attempt.pass_to(exchange)

    def completed(self, attempt: Attempt, rest: bytes) -> None:
        self.said.append("completed")
        if self.exchanges[-1].started:
            self.exchanges[-1].end(rest + attempt.reader.done_frame)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        self.said.append(failure.cause)
        if self.exchanges[-1].started:
            self.exchanges[-1].end(b"failed")

    @property
    def lane(self) -> Any:
        """That of the connection, None where it has none."""
        (link,) = self.pool._links
        return link._lane

    @property
    def reading(self) -> bool:
        """Whether the connection's transport reads."""
        (link,) = self.pool._links
        return link.transport.is_reading()


class Engine:
    """Says what it is told to, to whoever asks last."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter
        self.requests = 0
        self.gone = False

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while True:
                await read_request(reader)
                self.requests += 1
        finally:
            self.gone = True

    async def say(self, *pieces: bytes) -> None:
        """Each is there before the next one is sent, as long as anybody listens."""
        for piece in pieces:
            if self.writer.transport.is_closing():
                return
            self.writer.write(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)


@asynccontextmanager
async def stage(*, laned: bool = True, clock: Clock | None = None) -> AsyncIterator[tuple[Way, Engine, Server]]:
    engine, joined, tls = Engine(), Lanes() if laned else None, SPOKEN["tls"]
    async with upstream(engine.script, server_tls("engine.test") if tls else None) as up:
        origin = Origin(HOST, up.port, client_tls(), "engine.test") if tls else Origin(HOST, up.port)
        pool = Pool(origin, clock=clock or Clock(), sweep_s=0.01, lanes=joined)
        way = Way(pool)
        server = Server(way.asked, limits=Limits(write_high_water=4096), clock=Clock(), error_body=error_body)
        await server.start(HOST, 0)
        try:
            yield way, engine, server
        finally:
            await server.close(grace_s=0.0)
            await pool.close()
            if joined is not None:
                joined.close()


async def asked(writer: asyncio.StreamWriter, engine: Engine) -> None:
    before = engine.requests
    writer.write(GET)
    await eventually(lambda: engine.requests > before)


def unframed(raw: bytes) -> tuple[bytes, bytes, bool]:
    """The head of a response, what its chunks carry, and whether it has ended: what comes in one read may go on as one
    chunk."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    body, ended = b"", False
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        body, ended = body + rest[:size], not size
        assert rest[size : size + 2] == b"\r\n"
        rest = rest[size + 2 :]
    return head, body, ended


BEGUN = [HEAD, *map(framed, [ROLE, *TEXTS])]
END = [framed(STOP), framed(DONE), b"0\r\n\r\n"]


@pytest.mark.lengthy
@given(flowing(), st.lists(st.integers(0, 4000), max_size=12), st.booleans())
def test_what_goes_by_a_lane_is_what_would_have_been_read(
    frames: list[bytes], cuts: list[int], on_uvloop: bool
) -> None:
    raw = HEAD + b"".join(map(framed, [ROLE, *TEXTS, *frames])) + b"0\r\n\r\n"
    seams = [len(HEAD) + sum(len(framed(one)) for one in [ROLE, *TEXTS][:count]) for count in range(6)]
    at = sorted({min(cut, len(raw)) for cut in [*seams, *cuts]})
    pieces = [raw[begin:end] for begin, end in zip([0, *at], [*at, len(raw)], strict=True)]

    async def found(laned: bool) -> tuple[Any, ...]:
        async with stage(laned=laned) as (way, engine, server), client(server.port) as (reader, writer):
            await asked(writer, engine)
            await engine.say(*pieces)
            await eventually(lambda: bool(way.said))
            writer.write_eof()
            return unframed(await reader.read()), way.said, facts(way.readers[0]), way.pool.statistics().idle

    def on_a_loop(laned: bool) -> tuple[Any, ...]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as runner:
            return runner.run(found(laned))

    assert on_a_loop(True) == on_a_loop(False)


async def test_a_stream_that_flows_is_in_a_lane_and_its_connection_is_used_again_after_it() -> None:
    async with stage() as (way, engine, server), client(server.port) as (reader, writer):
        for count in range(1, 4):
            await asked(writer, engine)
            await engine.say(*BEGUN)
            await eventually(lambda: way.lane is not None)
            assert not way.reading
            await engine.say(*[framed(TEXTS[0])] * 20)
            await eventually(lambda: way.readers[-1].output_chunks == len(TEXTS) + 20)
            assert way.lane.chunks >= 20
            assert way.readers[-1].tokens_seen == len(TEXTS) + 20
            await engine.say(*END)
            body = await reader.readuntil(b"0\r\n\r\n")
            assert body.count(framed(TEXTS[0])) == 20
            assert way.said == ["completed"] * count
            assert way.lane is None
            assert way.reading
        assert way.pool.statistics().connects == 1


async def test_a_stream_is_in_a_lane_as_soon_as_it_repeats() -> None:
    async with stage() as (way, engine, server), client(server.port) as (_, writer):
        await asked(writer, engine)
        await engine.say(HEAD + framed(TEXTS[0]))
        await eventually(lambda: bool(way.readers) and way.readers[0].output_chunks == 1)
        assert way.lane is None
        await engine.say(framed(TEXTS[1]))
        await eventually(lambda: way.readers[0].output_chunks == 2)
        assert way.lane is not None


@pytest.mark.parametrize("other", OTHERS)
async def test_a_lane_passes_nothing_else_and_goes_on_after_it(other: bytes) -> None:
    found = []
    for laned in (True, False):
        async with stage(laned=laned) as (way, engine, server), client(server.port) as (reader, writer):
            await asked(writer, engine)
            await engine.say(*BEGUN, framed(TEXTS[1]), other, framed(TEXTS[2]), framed(TEXTS[3]))
            await eventually(lambda: way.readers[0].output_chunks > 5 or bool(way.said))
            engine.writer.close()
            await eventually(lambda: bool(way.said))
            writer.write_eof()
            found.append((unframed(await reader.read()), way.said, facts(way.readers[0])))
    assert found[0] == found[1]


async def test_who_reads_slowly_stops_the_engine_and_gets_all_of_it() -> None:
    async with stage() as (way, engine, server):
        slow = socket.create_connection((HOST, server.port))
        slow.sendall(GET)
        await eventually(lambda: engine.requests == 1)
        await engine.say(*BEGUN)
        await eventually(lambda: way.lane is not None)
        many, sent = framed(TEXTS[0]) * 50, 0
        while not way.attempts[0].paused:
            sent += 50
            await engine.say(many)
        assert way.lane is None
        assert not way.reading
        await engine.say(*END)
        slow.setblocking(False)
        got, loop = b"", asyncio.get_running_loop()
        while not got.endswith(b"0\r\n\r\n"):
            got += await loop.sock_recv(slow, 65_536)
        assert got.count(TEXTS[0]) == sent + 1
        assert way.said == ["completed"]
        slow.close()


async def test_who_leaves_is_noticed_and_the_engine_hears_of_it() -> None:
    async with stage() as (way, engine, server):
        async with client(server.port) as (_, writer):
            await asked(writer, engine)
            await engine.say(*BEGUN)
            await eventually(lambda: way.lane is not None)
        await eventually(lambda: engine.gone)
        assert way.said == []
        assert way.pool.statistics().open == 0


@pytest.mark.parametrize("cut", [b"", framed(TEXTS[0])[:-9]])
async def test_an_engine_that_breaks_off_is_noticed(cut: bytes) -> None:
    async with stage() as (way, engine, server), client(server.port) as (reader, writer):
        await asked(writer, engine)
        await engine.say(*BEGUN)
        await eventually(lambda: way.lane is not None)
        await engine.say(framed(TEXTS[1]), cut)
        engine.writer.transport.abort()
        await eventually(lambda: bool(way.said))
        assert way.said == ["reset"]
        assert (await reader.readuntil(b"0\r\n\r\n")).count(framed(TEXTS[1])) == 2


async def passes(clock: SetClock, seconds: float, way: Way) -> None:
    """So much time, of which the pool has taken notice, unless it has nothing open any more."""
    clock.at_s += seconds
    await eventually(lambda: way.pool._now_s >= clock.at_s or bool(way.said))


async def flows(way: Way, engine: Engine, count: int) -> None:
    """One more chunk, by which there were so many."""
    await engine.say(framed(TEXTS[0]))
    await eventually(lambda: way.readers[0].output_chunks == count)


async def test_what_flows_in_a_lane_is_not_silent_and_silence_is_told() -> None:
    clock = SetClock()
    async with stage(clock=clock) as (way, engine, server), client(server.port) as (_, writer):
        await asked(writer, engine)
        await engine.say(*BEGUN)
        await eventually(lambda: way.lane is not None)
        lane = way.lane
        for count in range(1, 6):
            await flows(way, engine, len(TEXTS) + count)
            await passes(clock, 0.6 * IDLE_TIMEOUT_S, way)
        assert way.lane is lane
        assert way.said == []
        await passes(clock, IDLE_TIMEOUT_S, way)
        await eventually(lambda: bool(way.said))
        assert way.said == ["idle_timeout"]


@pytest.mark.parametrize("drip", [b"0\r\nt: ", b"5;e="])
async def test_what_drips_without_end_is_silence_in_a_lane_too(drip: bytes) -> None:
    clock = SetClock()
    async with stage(clock=clock) as (way, engine, server), client(server.port) as (_, writer):
        await asked(writer, engine)
        await engine.say(*BEGUN)
        await eventually(lambda: way.lane is not None)
        await engine.say(drip)
        while not way.said:
            await engine.say(b"x")
            await passes(clock, 0.2 * IDLE_TIMEOUT_S, way)
        assert way.said == ["idle_timeout"]


async def _flows_all_the_same(nothing_left: AbstractContextManager[None]) -> None:
    """While there is nothing left to make lanes of, and in one afterwards."""
    async with stage() as (way, engine, server), client(server.port) as (reader, writer):
        await asked(writer, engine)
        with nothing_left:
            await engine.say(*BEGUN)
            await eventually(lambda: way.readers[0].output_chunks == len(TEXTS))
            assert way.lane is None
        await engine.say(*[framed(TEXTS[0])] * 3)
        await eventually(lambda: way.lane is not None)
        await engine.say(*END)
        assert (await reader.readuntil(b"0\r\n\r\n")).count(framed(TEXTS[0])) == 3


async def test_without_a_descriptor_a_stream_flows_all_the_same() -> None:
    await _flows_all_the_same(descriptors_used_up())


def test_where_the_loop_cannot_watch_them_a_stream_flows_all_the_same() -> None:
    @contextmanager
    def full() -> Iterator[None]:
        def refuses(*given: Any) -> None:
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "add_reader", refuses)
            yield

    # uvloop's own cannot be put in the place of.
    asyncio.run(_flows_all_the_same(full()))


async def test_who_fails_to_read_what_a_lane_hands_over_loses_its_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
    async with (
        stage() as (way, engine, server),
        stage() as (other, second, beside),
        client(server.port) as (_, writer),
        client(beside.port) as (reader, another),
    ):
        other.pool.lanes = way.pool.lanes
        await asked(writer, engine)
        await asked(another, second)
        await engine.say(*BEGUN)
        await second.say(*BEGUN)
        await eventually(lambda: way.lane is not None and other.lane is not None)
        loop.set_exception_handler(lambda loop, context: told.append(context))

        def breaks(attempt: Attempt, rest: bytes) -> None:
            raise RuntimeError

        monkeypatch.setattr(way, "completed", breaks)
        await engine.say(b"".join(END))
        await second.say(b"".join(END))
        await reader.readuntil(b"0\r\n\r\n")
        await eventually(lambda: way.pool.statistics().open == 0)
        assert other.said == ["completed"]
        assert [type(one["exception"]) for one in told] == [RuntimeError]


class Sink:
    """A transport that has written all."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


FRAME = chunk(content="one")
BEFORE, BEHIND = FRAME.split(b"one")
PIECES = st.one_of(
    st.sampled_from(OTHERS[1:]),
    st.binary(min_size=1, max_size=20),
    st.text(st.characters(max_codepoint=0x17F), max_size=600).map(lambda text: framed(BEFORE + text.encode() + BEHIND)),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1).map(
        lambda text: framed(BEFORE + text.encode() + BEHIND)
    ),
)


def _passes(piece: bytes) -> bool:
    size, _, framed_so = piece.partition(b"\r\n")
    frame = framed_so[:-2]
    told = size == b"%x" % len(frame) and framed_so.endswith(b"\r\n")
    return told and Repeat(BEFORE, BEHIND, Tally()).text_bytes(frame) > 0


@given(PIECES, st.integers(0, 300), st.binary(max_size=1))
def test_a_lane_passes_what_is_a_repeat(polls: Any, piece: bytes, at: int, instead: bytes) -> None:
    piece = piece[:at] + instead + piece[at + len(instead) :] or b"x"
    passed = next((end for end in range(len(piece), 0, -1) if _passes(piece[:end])), 0)
    poll = polls()
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        transport: Any = Sink()
        owner: Any = object()
        lane = poll.join(owner, source.fileno(), transport, sink.fileno())
        lane.arm(BEFORE, BEHIND)
        engine.sendall(piece)
        handed_over = ran(poll)
        reader.setblocking(False)
        if passed:
            assert reader.recv(65_536) == piece[:passed]
            letters = passed - len(framed(BEFORE + BEHIND))
            assert lane.chunks == 1
            assert 0 <= letters - lane.letters <= 1, "but for a longer size"
        assert (lane.heard(), lane.heard()) == (passed > 0, False)
        if passed < len(piece):
            assert handed_over == [(owner, piece[passed:], 0)]
            # Nothing passes before somebody has read that.
            engine.sendall(framed(FRAME))
            assert ran(poll) == [(owner, framed(FRAME), 0)]
        else:
            assert handed_over == []
        lane.leave()
        engine.sendall(b"more")
        assert ran(poll) == []
    poll.close()


def _sealing() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.SSLObject, ssl.MemoryBIO]:
    """Both sides of TLS after their handshake: what decrypts and from where, what encrypts and to where."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    reads = client_tls().wrap_bio(to_client, to_server, server_hostname="engine.test")
    writes = server_tls("engine.test").wrap_bio(to_server, to_client, server_side=True)
    for side in (reads, writes, reads):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    with suppress(ssl.SSLWantReadError):
        writes.read(1)
    with pytest.raises(ssl.SSLWantReadError):
        reads.read(1)  # tickets
    return reads, to_client, writes, to_client


@pytest.mark.lengthy
@given(
    st.lists(st.one_of(st.just(framed(FRAME)), st.sampled_from(OTHERS[1:])), min_size=1, max_size=6),
    st.lists(st.integers(0, 2000), max_size=6),
    st.sampled_from(["more", "farewell", "spoilt"]),
)
def test_over_tls_a_lane_passes_or_hands_over_all_that_was_said_in_its_order(
    polls: Any, pieces: list[bytes], cuts: list[int], then: str
) -> None:
    reads, incoming, writes, outgoing = _sealing()
    for piece in pieces:
        writes.write(piece)
    said, end = b"".join(pieces), b""
    if then == "farewell":
        with pytest.raises(ssl.SSLWantReadError):
            writes.unwrap()
    elif then == "spoilt":
        end = b"\x17\x03\x03\x00\x20" + bytes(32)
    sealed = outgoing.read() + end
    poll, transport = polls(), Sink()
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        reader.setblocking(False)
        owner: Any = object()
        given_transport: Any = transport
        with pytest.raises(TypeError):
            poll.join(owner, source.fileno(), given_transport, sink.fileno(), reads, incoming)
        memories = incoming, ssl.MemoryBIO()
        lane = poll.join(owner, source.fileno(), given_transport, sink.fileno(), reads, *memories)
        found, ended = b"", False
        at = sorted({min(cut, len(sealed)) for cut in cuts})
        for begin, stop in zip([0, *at], [*at, len(sealed)], strict=True):
            lane.arm(BEFORE, BEHIND)
            if sealed[begin:stop]:
                engine.sendall(sealed[begin:stop])
            handed_over = ran(poll)
            found += _read(reader) + b"".join(data for _, data, _ in handed_over)
            ended = ended or any(not data for _, data, _ in handed_over)
        assert found == said
        assert ended == (then != "more")
        assert lane.chunks <= pieces.count(framed(FRAME))
        lane.leave()
    poll.close()


def test_what_tls_answers_takes_a_stream_out_of_its_lane_to_be_sent(polls: Any) -> None:
    reads, incoming, writes, outgoing = _sealing()
    answers = ssl.MemoryBIO()
    poll, transport = polls(), Sink()
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        owner: Any = object()
        given_transport: Any = transport
        lane = poll.join(owner, source.fileno(), given_transport, sink.fileno(), reads, incoming, answers)
        for answer, handed_over in ((b"", []), (b"as to a request for a new key", [(owner, b"", 0)])):
            lane.arm(BEFORE, BEHIND)
            answers.write(answer)
            writes.write(framed(FRAME))
            engine.sendall(outgoing.read())
            assert ran(poll) == handed_over
            assert _read(reader) == framed(FRAME)
        lane.leave()
    poll.close()


def closes(sink: Any) -> None:
    sink.is_closing = lambda: True


def holds_back(sink: Any) -> None:
    sink.get_write_buffer_size = lambda: 5


@pytest.mark.parametrize("befalls", [closes, holds_back])
def test_a_lane_sends_nothing_before_what_its_transport_holds_back_nor_to_one_that_closes(
    polls: Any, befalls: Callable[[Any], None]
) -> None:
    poll, transport = polls(), Sink()
    befalls(transport)
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        owner: Any = object()
        given_transport: Any = transport
        lane = poll.join(owner, source.fileno(), given_transport, sink.fileno())
        lane.arm(BEFORE, BEHIND)
        engine.sendall(framed(FRAME))
        assert ran(poll) == [(owner, framed(FRAME), 0)]
        lane.leave()
    poll.close()


def test_a_lane_that_is_left_while_it_looks_passes_nothing_and_hands_nothing_over(polls: Any) -> None:
    """As whatever runs where memory is asked for may do."""
    poll, transport = polls(), Sink()
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        lanes_there = list[Any]()

        def leaves() -> bool:
            lanes_there.pop().leave()
            return False

        vars(transport)["is_closing"] = leaves
        owner: Any = object()
        given_transport: Any = transport
        lanes_there.append(poll.join(owner, source.fileno(), given_transport, sink.fileno()))
        lanes_there[0].arm(BEFORE, BEHIND)
        engine.sendall(framed(FRAME))
        assert ran(poll) == []
        reader.setblocking(False)
        assert _read(reader) == b""
    with pytest.raises(TypeError):
        polls(streams=1)
    poll.close()


@pytest.mark.parametrize("over_tls", ["none of them", "three of four", "all of them"])
def test_each_of_many_lanes_has_what_is_its_own_however_much_is_ready(polls: Any, over_tls: str) -> None:
    poll, owners = polls(), [object() for _ in range(20)]
    plain_ones = {"none of them": set(owners), "three of four": set(owners[::4]), "all of them": set()}[over_tls]
    with ExitStack() as stack:
        ways = []
        for owner in owners:
            (source, engine), (sink, reader) = socket.socketpair(), socket.socketpair()
            for one in (source, engine, sink, reader):
                stack.enter_context(one)
            given: Any = Sink()
            reads, incoming, writes, outgoing = (None, None, None, None) if owner in plain_ones else _sealing()
            memories = (reads, incoming, ssl.MemoryBIO()) if reads is not None else ()
            poll.join(owner, source.fileno(), given, sink.fileno(), *memories).arm(BEFORE, BEHIND)
            ways.append((engine, reader, writes, outgoing))
        # More than is read at a time, of some; of every third something that does not pass.
        sent = [framed(FRAME) * (10 if number % 2 else 300) + b"x" * (number % 3 == 0) for number in range(len(owners))]
        for (engine, _, writes, outgoing), all_of_it in zip(ways, sent, strict=True):
            if writes is not None and outgoing is not None:
                writes.write(all_of_it)
                engine.sendall(outgoing.read())
            else:
                engine.sendall(all_of_it)
        found = [told for _ in range(10) for told in ran(poll)]
        for owner, (_, reader, _, _), all_of_it in zip(owners, ways, sent, strict=True):
            reader.setblocking(False)
            passed = b""
            while more := _read(reader):
                passed += more
            assert passed
            assert passed + b"".join([data for whose, data, _ in found if whose is owner]) == all_of_it
    poll.close()


def test_what_a_full_socket_does_not_take_is_handed_over(polls: Any) -> None:
    poll, transport = polls(), Sink()
    source, engine = socket.socketpair()
    sink, reader = socket.socketpair()
    with source, engine, sink, reader:
        owner: Any = object()
        given_transport: Any = transport
        lane = poll.join(owner, source.fileno(), given_transport, sink.fileno())
        reader.setblocking(False)
        for _ in range(10_000):
            lane.arm(BEFORE, BEHIND)
            engine.sendall(framed(FRAME) * 3 + b"x")
            ((_, data, unsent),) = ran(poll)
            if unsent:
                break
            assert data == b"x"
        whole = framed(FRAME) * 3 + b"x"
        assert whole.endswith(data)
        assert unsent == len(data) - 1
        taken = b"".join(iter(lambda: _read(reader), b""))
        assert (taken + data[:unsent]) == framed(FRAME) * lane.chunks
        lane.leave()
    poll.close()


def ran(poll: Any) -> list[Any]:
    """What did not pass of all that was ready."""
    found: list[Any] = []
    poll.run(found.extend)
    return found


def _read(reader: socket.socket) -> bytes:
    try:
        return reader.recv(1 << 20)
    except BlockingIOError:
        return b""
