"""What passes from connection to connection unread is what would have passed if each chunk had been read."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.harness import SetClock, error_body
from tests.http.test_segments import STREAM, Wire, about, segments
from tests.wire.streams import DONE, PING, ROLE, STOP, chunk, facts, flowing
from tidegate.clock import Clock
from tidegate.core.model import Endpoint, Headroom
from tidegate.engines.base import Failure, Outgoing
from tidegate.engines.openai import OpenAI
from tidegate.gateway.attempt import ERROR_BYTES_MAX, ERROR_S_MAX, SURPLUS_BYTES_MAX, SURPLUS_S_MAX, Attempt
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Origin, Pool
from tidegate.http.connection import Connection
from tidegate.http.link import Link
from tidegate.http.server import Exchange, Limits, Server
from tidegate.wire.stream import StreamReader

ENDPOINT = Endpoint(name="a", site="s", local=True, models=("m",), context_tokens=8192, concurrency=1)
IDLE_TIMEOUT_S = 5.0
TEXTS = [chunk(content=word) for word in ("one", "two", "three", "four")]


class Client:
    """Has what comes of an attempt; with `flow`, chunks may pass it by."""

    def __init__(self, version: bytes, *, flow: bool) -> None:
        self._flow = flow
        self.wire = Wire()
        self.said = ""
        server = Server(self._asked, limits=Limits(), clock=Clock(), error_body=error_body)
        self.connection = Connection(server)
        self.connection.connection_made(cast("asyncio.Transport", self.wire))
        self.connection.data_received(b"POST / HTTP/%b\r\nhost: a\r\ncontent-length: 0\r\n\r\n" % version)

    def _asked(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """Nobody asks."""

    def headroom(self, attempt: Attempt, told: Headroom) -> None:
        raise AssertionError(told)

    def content(self, attempt: Attempt, first: bytes) -> None:
        self.exchange.start(200, [], first=first)
        if self._flow:
            attempt.pass_to(self.exchange)
        else:
            attempt.relay = self.exchange.write

    def completed(self, attempt: Attempt, rest: bytes) -> None:
        self.said = "completed"
        if self.exchange.started:
            self.exchange.end(rest + attempt.reader.done_frame)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        self.said = failure.cause
        if self.exchange.started:
            self.exchange.end(b"failed")


class Way:
    """A client, an attempt whose answer it has, and the connection by which that comes."""

    def __init__(
        self,
        *,
        flow: bool = True,
        version: bytes = b"1.1",
        include_usage: bool = True,
        clock: SetClock | None = None,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self.clock = clock or SetClock()
        pool = Pool(Origin("x", 80), clock=Clock())
        self.link = Link(pool)
        self.link.connection_made(cast("asyncio.Transport", Wire()))
        pool._links.add(self.link)
        pool._idle.append(self.link)
        self.client = Client(version, flow=flow)
        self.reader = StreamReader(include_usage=include_usage)
        dialect, outgoing = OpenAI("", None), Outgoing(target=b"/", headers=(), body=b"{}", streamed=True)
        upstream = Upstream(ENDPOINT, dialect, pool, "m", ())
        self.attempt = Attempt(upstream, outgoing, self.reader, self.client, self.clock.now_s, hedge=False)
        self.attempt.carry(
            pool.send(b"POST", b"/", (), b"{}", self.attempt, first_byte_timeout_s=5.0, idle_timeout_s=idle_timeout_s)
        )
        self.pool = pool

    def feed(self, *pieces: bytes) -> "Way":
        for piece in pieces:
            self.link.data_received(piece)
        return self

    def found(self) -> tuple[Any, ...]:
        client = self.client
        return client.wire.written, client.said, client.wire.closed, facts(self.reader), self.pool.statistics().idle


def framed(frame: bytes, spelt: bytes = b"%x") -> bytes:
    return spelt % len(frame) + b"\r\n" + frame + b"\r\n"


HEAD = STREAM.replace(b"\r\n\r\n", b"\r\ncontent-type: text/event-stream\r\n\r\n")


def on(test: Any) -> Any:
    """Within a loop, which pools and connections ask for."""

    async def main() -> Any:
        return test()

    return asyncio.run(main())


@pytest.mark.lengthy
@given(
    flowing(),
    st.lists(st.sampled_from([b"%x", b"%x", b"%x", b"%x", b"%X", b"0%x", b"%x;a=b"]), min_size=20, max_size=20),
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
    st.booleans(),
    st.data(),
)
def test_what_flows_is_what_would_have_been_read(
    frames: list[bytes], spelt: list[bytes], version: bytes, include_usage: bool, data: st.DataObject
) -> None:
    raw, seams = HEAD, list[int]()
    for frame, how in zip([ROLE, *frames], spelt, strict=False):
        seams.append(len(raw))
        raw += framed(frame, how)
    raw, seams = raw + b"0\r\n\r\n", [*seams, len(raw)]
    cuts = data.draw(st.lists(about(seams), max_size=4))
    pieces = segments(raw, sorted({*data.draw(st.sampled_from([seams, seams, seams[:4]])), *cuts}))

    def found(flow: bool) -> tuple[Any, ...]:
        return Way(flow=flow, version=version, include_usage=include_usage).feed(*pieces).found()

    assert on(lambda: found(True)) == on(lambda: found(False))


def test_a_chunk_that_repeats_the_one_before_passes_unread_and_is_counted() -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2]]))
        flow = way.link.flow
        assert flow is not None
        before = way.client.wire.written
        assert flow.passes(framed(TEXTS[2]))
        assert way.client.wire.written == before + framed(TEXTS[2])
        assert (way.reader.output_chunks, way.reader.tokens_seen) == (3, 3)

    on(main)


OTHERS = [
    framed(TEXTS[3]) * 2,
    framed(TEXTS[3])[:-1],
    framed(TEXTS[3], b"0%x"),
    framed(TEXTS[3] + DONE),
    framed(chunk(content='"')),
    framed(chunk(content="é")),
    framed(chunk(content="")),
    framed(chunk(content="a" * 600)),
    framed(chunk(content="a" * 2000)),
    framed(STOP),
    framed(DONE),
    b"0\r\n\r\n",
    b"\r",
    framed(TEXTS[3])[:-2] + b"\n\n",
    framed(TEXTS[3].replace(b"chatcmpl-1", b"chatcmpl-2")),
    b"%x\r\n%b\r\n" % (len(TEXTS[3]) + 1, TEXTS[3]),
]


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_anything_else_is_read(other: bytes) -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2]]))
        before, flow = way.client.wire.written, way.link.flow
        assert flow is not None
        assert not flow.passes(other)
        assert way.client.wire.written == before
        assert way.reader.output_chunks == 2

    on(main)


@pytest.mark.parametrize("last", [STOP, DONE, b"data: {oops}\n\n", TEXTS[3][:-1], b": half"])
def test_nothing_flows_past_an_end_or_half_a_frame(last: bytes) -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2]]))
        assert way.link.flow is not None
        way.feed(framed(last))
        assert way.link.flow is None

    on(main)


def test_nothing_flows_to_a_client_that_has_left() -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2]]))
        before = way.client.wire.written
        way.client.connection.connection_lost(None)
        way.feed(framed(TEXTS[2]))
        assert way.client.wire.written == before
        assert way.reader.output_chunks == 3

    on(main)


@pytest.mark.parametrize("end", [[STOP, DONE], [STOP], []], ids=["done", "stopped", "cut"])
def test_a_connection_that_is_used_again_flows_nowhere(end: list[bytes]) -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2], *end]), b"0\r\n\r\n")
        assert way.client.said == ("completed" if end else "truncated_stream")
        assert way.pool.statistics().idle == 1
        assert way.link.flow is None

    on(main)


def test_what_comes_behind_a_piece_of_a_chunk_belongs_to_it() -> None:
    pieces = HEAD, *map(framed, [ROLE, *TEXTS[:2]]), framed(TEXTS[2])[:9], framed(TEXTS[3])
    assert on(lambda: Way().feed(*pieces).found()) == on(lambda: Way(flow=False).feed(*pieces).found())


def test_a_stream_that_flows_is_not_silent() -> None:
    def main() -> None:
        way = Way().feed(HEAD, *map(framed, [ROLE, *TEXTS[:2]]))
        for at_s in range(2, 20, 2):
            way.feed(framed(TEXTS[2])).link.check(float(at_s))
        assert way.link.flow is not None
        way.link.check(18.0 + IDLE_TIMEOUT_S)
        assert way.client.said == "idle_timeout"

    on(main)


def test_of_chunks_that_all_differ_none_is_waited_for() -> None:
    def main() -> None:
        others = [text.replace(b"chatcmpl-1", b"chatcmpl-%d" % at) for at, text in enumerate(TEXTS)]
        way = Way().feed(HEAD, framed(ROLE))
        for other in others:
            assert way.feed(framed(other)).link.flow is None
        assert way.feed(framed(others[-1])).link.flow is not None

    on(main)


def test_what_goes_on_behind_the_end_is_let_go_and_a_little_is_not() -> None:
    def main() -> None:
        ended = [ROLE, *TEXTS[:2], STOP, DONE]
        way = Way().feed(HEAD, *map(framed, [*ended, DONE, PING]), b"0\r\n\r\n")
        assert (way.client.said, way.pool.statistics().idle) == ("completed", 1)
        way = Way().feed(HEAD, *map(framed, ended))
        behind = framed(chunk(content="a" * 1000))
        for _ in range(SURPLUS_BYTES_MAX // 1000 + 1):
            way.feed(behind)
        assert way.client.said == "completed"
        assert way.link.transport.is_closing()
        assert way.pool.statistics().open == 0
        # Nor drop by drop.
        way = Way(clock=SetClock()).feed(HEAD, *map(framed, ended), framed(PING))
        way.clock.at_s += SURPLUS_S_MAX - 1.0
        assert way.feed(framed(PING)).pool.statistics().open == 1
        way.clock.at_s += 2.0
        assert way.feed(framed(PING)).pool.statistics().open == 0

    on(main)


def test_who_says_no_more_behind_the_end_keeps_its_connection_for_as_long_as_who_goes_on() -> None:
    def main() -> None:
        way = Way(idle_timeout_s=600.0).feed(HEAD, *map(framed, [ROLE, *TEXTS[:2], STOP, DONE]))
        way.link.check(1.0)
        way.link.check(SURPLUS_S_MAX)
        assert (way.client.said, way.pool.statistics().open) == ("completed", 1)
        way.link.check(SURPLUS_S_MAX + 1.0)
        assert (way.client.said, way.pool.statistics().open) == ("completed", 0)

    on(main)


UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 1000000\r\n\r\nno"


def test_an_error_is_told_when_its_body_falls_silent() -> None:
    def main() -> None:
        way = Way(idle_timeout_s=600.0).feed(UNAVAILABLE)
        way.link.check(1.0)
        assert way.client.said == ""
        way.link.check(1.0 + ERROR_S_MAX)
        assert (way.client.said, way.pool.statistics().open) == ("status_503", 0)

    on(main)


def test_an_error_is_told_when_its_body_drips_on_or_is_beyond_all_bounds() -> None:
    def main() -> None:
        way = Way(clock=SetClock()).feed(UNAVAILABLE, b".")
        way.clock.at_s += ERROR_S_MAX
        assert way.feed(b".").client.said == ""
        way.clock.at_s += 1.0
        assert (way.feed(b".").client.said, way.pool.statistics().open) == ("status_503", 0)
        way = Way().feed(UNAVAILABLE, b"." * (ERROR_BYTES_MAX - 3))
        assert way.client.said == ""
        assert (way.feed(b"..").client.said, way.pool.statistics().open) == ("status_503", 0)

    on(main)
