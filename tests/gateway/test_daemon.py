"""Work that a hung disk may keep for ever."""

from threading import Event, Thread, current_thread

import pytest

from tidegate.gateway import daemon


def test_what_comes_of_it_is_told_whatever_it_is() -> None:
    assert daemon.begin(lambda: 7, "seven").result(10.0) == 7
    with pytest.raises(ZeroDivisionError):
        daemon.begin(lambda: 1 // 0, "nothing").result(10.0)


def test_nobody_waits_at_the_end_for_one_that_hangs() -> None:
    found, begun, go_on = list[Thread](), Event(), Event()

    def hang() -> None:
        found.append(current_thread())
        begun.set()
        go_on.wait(60.0)

    future = daemon.begin(hang, "hung")
    assert begun.wait(10.0)
    assert (found[0].daemon, found[0].name, future.done()) == (True, "hung", False)
    go_on.set()
    assert future.result(10.0) is None


def test_where_the_system_has_no_thread_left_that_is_told_as_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", none_left)
    with pytest.raises(OSError, match="can't start new thread"):
        daemon.begin(lambda: 7, "seven").result(10.0)
