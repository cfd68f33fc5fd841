"""Work that a hung disk may keep for ever: in a thread that the process does not wait for at its end."""

import errno
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
NAMED = "tidegate "  # what the names of these threads begin with


def begin(work: Callable[[], T], name: str) -> Future[T]:
    """What comes of `work`, which runs in a thread named after it. It is done when that is, and not before; with
    OSError where the system has no thread left."""
    future = Future[T]()
    future.set_running_or_notify_cancel()  # from here on nobody takes it back, however late it comes
    try:
        Thread(target=_run, args=(work, future), name=NAMED + name, daemon=True).start()
    except RuntimeError as error:
        future.set_exception(OSError(errno.EAGAIN, str(error)))
    return future


def _run(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
