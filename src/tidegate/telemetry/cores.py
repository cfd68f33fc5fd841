"""Work on all cores, in processes of its own."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from traceback import format_exc
from typing import Any, TypeVar

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")


class LostError(Exception):
    """A process has ended before its work."""


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_cores(do: Callable[[_Work], _Made], work: Sequence[_Work], jobs: int) -> Iterator[_Made]:
    """What comes of each, in their order, by so many processes at once, which end where nobody goes on asking.

    Raises what `do` raises, and `LostError`. (Of executors, those that spawn may wait for ever for a process that was
    killed, as pools do.)
    """
    rest = iter(range(len(work)))
    doing: dict[Connection, int] = {}
    done: dict[int, Any] = {}
    with ExitStack() as processes:
        for index in islice(rest, jobs):
            pipe = processes.enter_context(_process(do))
            _give(pipe, work[index])
            doing[pipe] = index
        for wanted in range(len(work)):
            while wanted not in done:
                for ready in wait(list(doing)):
                    assert isinstance(ready, Connection)
                    done[doing.pop(ready)] = _made(ready)
                    for index in islice(rest, 1):
                        _give(ready, work[index])
                        doing[ready] = index
            made = done.pop(wanted)
            if isinstance(made, Exception):
                raise made
            yield made


@contextmanager
def _process(do: Callable[[Any], object]) -> Iterator[Connection]:
    """One that does what it is given, and the pipe to it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, do), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _give(pipe: Connection, one: object) -> None:
    # Whoever is gone is missed where its work is.
    with suppress(OSError):
        pipe.send(one)


def _made(pipe: Connection) -> object:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise LostError("a process has ended before its work") from None


def _work(pipe: Connection, do: Callable[[Any], object]) -> None:
    """Until nobody is there to give more. Ctrl-C is for whoever gives it to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_tried(do, pipe.recv()))


def _tried(do: Callable[[Any], object], one: object) -> object:
    try:
        return do(one)
    except Exception as error:
        error.add_note(format_exc())
        return error
