"""What is kept of what others send, to be found again, is little, whatever they send."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.http.harness import client, read_response, serving
from tidegate.http.head import content_length, fields

BYTES_MAX = 2_000_000


@contextmanager
def keeping_little() -> Iterator[None]:
    """What is allocated meanwhile is gone at the end, but for little."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < BYTES_MAX


@pytest.mark.lengthy
def test_long_header_lines_are_not_kept() -> None:
    with keeping_little():
        for n in range(1000):
            value = b"%d" % n * 5000
            assert fields([(b"a", value)]) == b"a: " + value + b"\r\n"


@pytest.mark.lengthy
def test_header_lines_that_differ_each_time_are_kept_up_to_a_bound() -> None:
    with keeping_little():
        for n in range(50_000):
            assert fields([(b"a", b"%d" % n)]) == b"a: %d\r\n" % n


def test_a_length_that_is_looked_up_is_written_like_one_that_is_not() -> None:
    for size in (0, 7, 4095, 4096, 123_456_789):
        assert content_length(size) == b"content-length: %d\r\n" % size


@pytest.mark.lengthy
def test_long_hosts_and_targets_are_not_kept() -> None:
    async def main() -> None:
        async with serving() as server, client(server.port) as (reader, writer):
            for n in range(250):
                target, host = b"/%d" % n * 1000, b"%d." % n * 8000
                writer.write(b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (target, host))
                assert (await read_response(reader)).status == 200

    with keeping_little():
        asyncio.run(main())
