import asyncio
import ctypes
import resource
import subprocess
import sys
import weakref
from statistics import mean

import pytest

from tests.http.harness import uncollected
from tidegate.cli import heap
from tidegate.cli.heap import YOUNG_MAX, collect_young

# Between the large buffers stand small ones that live on, so that nothing is free at the heap's end.
PEAKS = """
from tidegate.cli import heap

heap.keep_large_buffers()
surplus = heap.Surplus()
said = [heap.resident_bytes()]
for _ in range(3):
    large, small = [], []
    for _ in range(400):
        large.append(bytearray(b"x" * 262_144))
        small.append(bytearray(b"x" * 1_024))
    said.append(heap.resident_bytes())
    surplus.give_back()
    said.append(heap.resident_bytes())
    large.clear()
    said.append(heap.resident_bytes())
    surplus.give_back()
    said.append(heap.resident_bytes())
print(*(number // 1_000_000 for number in said))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="a C library without mallinfo2")
def test_what_each_peak_has_left_of_the_heap_is_kept_until_it_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout
    before_mb, *found = map(int, said.split())
    for peak_mb, in_use_mb, kept_mb, left_mb in zip(*(found[step::4] for step in range(4)), strict=True):
        assert in_use_mb > before_mb + 100
        assert mean((in_use_mb, kept_mb)) == pytest.approx(peak_mb, abs=10)
        assert left_mb < before_mb + 10


class Tied:
    """It is in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.lengthy
def test_what_is_garbage_is_collected_where_little_is_new() -> None:
    with uncollected():
        gone = weakref.ref(Tied())
        assert gone() is not None
        collect_young()
        assert gone() is None


@pytest.mark.lengthy
def test_where_much_is_new_garbage_is_left_for_another_time() -> None:
    with uncollected():
        gone, new = weakref.ref(Tied()), [list[int]() for _ in range(YOUNG_MAX + 1)]
        collect_young()
        assert gone() is not None
        new.clear()
        collect_young()
        assert gone() is None


async def test_where_no_descriptor_is_left_it_is_looked_at_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_S", 0.0)
    task, limits = asyncio.create_task(heap.tidies()), resource.getrlimit(resource.RLIMIT_NOFILE)
    await asyncio.sleep(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            heap.resident_bytes()
        for _ in range(10):
            await asyncio.to_thread(int)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not task.done()
    task.cancel()
