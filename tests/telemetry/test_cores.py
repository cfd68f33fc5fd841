"""Work in processes of its own comes out in its order, and no process outlives whoever wants its work."""

import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import pytest

from tidegate.telemetry.cores import LostError, cores, on_cores

ASKING = """
import sys

from tests.telemetry.test_cores import works_until_told
from tidegate.telemetry.cores import on_cores

if __name__ == "__main__":
    try:
        list(on_cores(works_until_told, sys.argv[1:], 1))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
"""


def doubled(number: int) -> int:
    return 2 * number


def told(what: str) -> str:
    if what == "ends":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fails":
        raise ValueError(what)
    while what == "works for ever":
        signal.pause()
    return what


def works_until_told(pipe: str) -> str:
    print("it works", flush=True)
    return Path(pipe).read_text()


def asking(folder: Path) -> "subprocess.Popen[bytes]":
    """Somebody who waits for work that ends when the pipe is written to, with a process that has begun it."""
    script, pipe = folder / "asking.py", folder / "pipe"
    script.write_text(ASKING)
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, script, pipe],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ":".join([str(Path.cwd()), *filter(None, sys.path)])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"it works\n"
    return process


def test_what_comes_of_work_comes_in_its_order() -> None:
    assert list(on_cores(doubled, range(20), 2)) == [2 * number for number in range(20)]


def test_a_process_that_is_killed_is_told_of_and_nobody_waits_for_its_work() -> None:
    with pytest.raises(LostError):
        list(on_cores(told, ["ends", "works for ever"], 2))
    assert active_children() == []


def test_what_fails_is_raised_and_ends_the_rest() -> None:
    with pytest.raises(ValueError, match="fails"):
        list(on_cores(told, ["fails", "works for ever"], 2))
    assert active_children() == []


def test_whoever_goes_on_asking_no_more_ends_the_rest() -> None:
    found = on_cores(told, ["done", "works for ever"], 2)
    assert next(found) == "done"
    del found
    assert active_children() == []


def test_a_process_ends_with_its_work_where_nobody_is_there_to_give_it_more(tmp_path: Path) -> None:
    with asking(tmp_path) as process:
        process.kill()
        (tmp_path / "pipe").write_text("")
        assert process.stdout is not None
        # This ends when nobody is left who could write.
        assert process.stdout.read() == b""


def test_an_interrupt_ends_all_of_them_without_a_word(tmp_path: Path) -> None:
    with asking(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate() == (b"", b"")
        assert process.returncode == 130


def test_as_many_cores_are_there_as_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(allowed)])
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)
