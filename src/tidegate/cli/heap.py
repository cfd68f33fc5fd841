"""The memory of a process that serves: what is garbage, and glibc's heap. Other C libraries, and those before 2.33, are
left as they are."""

import asyncio
import ctypes
import gc
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

# Parameters of mallopt, from <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MB: Final = 1024 * 1024
# Of what a peak has left nothing is given back by itself: some allocation that still lives stands behind it. So each
# minute it is asked how much more there is that is not in use than the last giving back has left.
LOOK_S: Final = 60.0
LEFT_BYTES: Final = 12 * _MB
# A collection holds the loop for half a millisecond per thousand objects that were made since the last one and live on:
# for so many, 25 at most.
YOUNG_MAX: Final = 50_000


class _Mallinfo2(ctypes.Structure):
    """From <malloc.h>; `uordblks` are bytes in use."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


_libc = ctypes.CDLL(None)
_mallopt, _malloc_trim, _mallinfo2 = (getattr(_libc, name, None) for name in ("mallopt", "malloc_trim", "mallinfo2"))
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2


def keep_large_buffers() -> None:
    """Have large buffers come from one heap that all threads share, and stay in it when they are freed.

    A body of 256 KB costs 2.6 times as much CPU where each is mapped anew.
    """
    if _mallinfo2 is not None and _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, 64 * _MB)
        _mallopt(_M_TRIM_THRESHOLD, 256 * _MB)
        _mallopt(_M_ARENA_MAX, 1)


class Surplus:
    """What of this process's memory the heap does not use."""

    def __init__(self) -> None:
        self._left = _unused_bytes()

    def give_back(self) -> None:
        """Give the system each page of the heap that holds nothing, where these are more than were left the last time.

        That takes 3 ms for a heap of 50 MB, 30 for 500 MB of large buffers and 120 for 700 MB in 100,000 pieces; other
        threads that need more than a KB wait for most of it.
        """
        if _malloc_trim is not None and _unused_bytes() - self._left >= LEFT_BYTES:
            _malloc_trim(0)
            self._left = _unused_bytes()


def collect_young() -> None:
    """Collect what is garbage of the objects that are new, unless these are too many to be looked at while others wait.

    Few objects can hold much: of a request that is in a cycle, its body.
    """
    if gc.get_count()[0] <= YOUNG_MAX:
        gc.collect(0)


async def tidies() -> None:
    """Collect garbage each minute, and then give back what is left over, in a thread, until it is cancelled."""
    surplus = Surplus()
    while True:
        await asyncio.sleep(LOOK_S)
        collect_young()
        with suppress(RuntimeError, OSError):  # no thread can be had just now, or no descriptor
            await asyncio.to_thread(surplus.give_back)


def resident_bytes() -> int:
    """What this process has in memory, by Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _unused_bytes() -> int:
    return 0 if _mallinfo2 is None else resident_bytes() - int(_mallinfo2().uordblks)
