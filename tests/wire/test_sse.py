import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.streams import cuts
from tidegate.wire.sse import FRAME_BYTES_MAX, Frames, data_of


def split(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    frames = Frames()
    found = [frame for piece in pieces for frame in frames.feed(piece)]
    return found, frames.pending


@given(
    st.data(), st.lists(st.sampled_from([b"data: {}", b": ping", b"\n", b"\r\n", b"\r", b"x", b"data:"]), max_size=30)
)
def test_frames_do_not_depend_on_how_the_bytes_were_cut_and_lose_none(data: st.DataObject, words: list[bytes]) -> None:
    stream = b"".join(words)
    found, pending = split([stream])
    assert b"".join(found) + pending == stream
    assert split(data.draw(cuts(stream))) == (found, pending)


@pytest.mark.parametrize(
    ("stream", "frames", "pending"),
    [
        (b"data: 1\n\n", [b"data: 1\n\n"], b""),
        (b"data: 1\n\ndata: 2\n\ndata:", [b"data: 1\n\n", b"data: 2\n\n"], b"data:"),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"], b""),
        (b"data: 1\n\r\ndata: 2\r\n\n", [b"data: 1\n\r\n", b"data: 2\r\n\n"], b""),
        (b": ping\n\ndata: 1\n", [b": ping\n\n"], b"data: 1\n"),
        (b"", [], b""),
    ],
)
def test_a_frame_ends_with_its_blank_line(stream: bytes, frames: list[bytes], pending: bytes) -> None:
    assert split([stream]) == (frames, pending)


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "stream", [b"data: 1\n\n", b"data: 1\r\n\r\ndata: 2\n\ndata:", b"\xef\xbb", b"\xbf\n\n", b"\n\n", b""]
)
@given(data=st.data())
def test_a_byte_order_mark_before_a_stream_belongs_to_no_frame_however_it_is_cut(
    data: st.DataObject, stream: bytes
) -> None:
    assert split(data.draw(cuts(MARK + stream))) == split([stream])
    assert split([bytes([byte]) for byte in MARK + stream]) == split([stream])


@pytest.mark.parametrize("stream", [MARK + MARK + b"\n\n", MARK + b"data: 1\n\n" + MARK + b"\n\n"])
def test_behind_the_beginning_a_byte_order_mark_is_what_any_bytes_are(stream: bytes) -> None:
    found, _ = split([stream])
    assert b"".join(found) == stream.removeprefix(MARK)


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data: {}\r\n\r\n", b"{}"),
        (b"data: [DONE]\n\n", b"[DONE]"),
        (b"data:[DONE] \r\n\r\n", b"[DONE]"),
        (b'data: {"a":\ndata: 1}\n\n', b'{"a":\n 1}'),
        (b"event: x\nid: 1\ndata: {}\nretry: 5\n\n", b"{}"),
        (b": ping\ndata: {}\n\n", b"{}"),
        (b"\ndata: {}\n\n", b"{}"),
        (b'data: {"a":\r1}\n\n', b'{"a":\r1}'),
        (b'id: 1\ndata: {"a":\r1}\r\n\r\n', b'{"a":\r1}'),
        (b": ping\n\n", None),
        (b"event: ping\n\n", None),
        (b"\n\n", None),
        (b"data\n\n", b""),
        (b"data\r\n\r\n", None),
        (b"error: {}\n\n", b"{}"),
        (b"data: {}", b"{}"),
        (b"data:\n\n", b""),
        (b"data: null\n\n", b""),
        (b"database: {}\n\n", None),
    ],
)
def test_the_data_of_a_frame(frame: bytes, data: bytes | None) -> None:
    assert data_of(frame) == data


def test_what_came_before_an_oversized_frame_is_kept_and_nothing_behind_it_comes() -> None:
    frames = Frames()
    assert frames.feed(b"data: 1\n\n" + b"x" * (FRAME_BYTES_MAX + 1)) == [b"data: 1\n\n"]
    assert frames.oversized
    assert frames.pending == b""
    assert frames.feed(b"data: 2\n\n") == []


def test_a_large_frame_in_small_pieces_takes_time_in_proportion() -> None:
    frames = Frames()
    for _ in range(FRAME_BYTES_MAX // 100 - 1):
        assert frames.feed(b"x" * 100) == []
    assert len(frames.feed(b"\n\n")) == 1


def test_a_frame_of_very_many_lines_takes_memory_for_those_alone_that_carry_something() -> None:
    frame = b"xy\n" * 500_000 + b"data: {}\n" + b"xy\n" * 500_000 + b"\n"
    tracemalloc.start()
    try:
        assert data_of(frame) == b"{}"
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < len(frame)
