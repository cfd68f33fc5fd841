"""The journal's promises: written before it is told, in order, within bounds, whatever the disk does."""

import asyncio
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.http.harness import eventually
from tests.telemetry import make
from tidegate.core.model import Segment
from tidegate.telemetry import journal as journal_module
from tidegate.telemetry.journal import WRITE_S, Journal, segments
from tidegate.telemetry.segments import prune


async def written(journal: Journal) -> None:
    """Until the tick is over."""
    done = asyncio.get_running_loop().create_future()
    journal.after_write(lambda: done.set_result(None))
    await done


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`: as a full disk, a part of a write is taken, then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_callback_runs_when_what_was_appended_before_is_written(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        seen: list[object] = []
        journal.append(make.fact(1), 1.0)
        journal.after_write(lambda: seen.append(make.facts(tmp_path)))
        journal.append(make.fact(2), 2.0)
        assert make.facts(tmp_path) == []
        await written(journal)
        assert seen == [[make.fact(1), make.fact(2)]]
        await journal.close()

    asyncio.run(run())


def test_a_callback_runs_where_nothing_was_appended(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        await written(journal)
        await journal.close()

    asyncio.run(run())


def test_what_nobody_waits_for_is_written_by_itself_and_not_in_the_same_tick(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        journal.append(make.fact(1), 1.0)
        await asyncio.sleep(0)
        assert make.facts(tmp_path) == []
        await eventually(lambda: make.facts(tmp_path) == [make.fact(1)])
        await journal.close()

    asyncio.run(run())


def test_callbacks_run_in_order_and_one_that_fails_keeps_no_other_waiting(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        order: list[object] = []
        reported: list[Exception] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        journal.append(make.fact(1), 1.0)
        journal.after_write(lambda: order.append("first"))
        journal.after_write(lambda: order.append(1 / 0))
        journal.after_write(lambda: order.append("last"))
        await written(journal)
        assert order == ["first", "last"]
        assert [type(e) for e in reported] == [ZeroDivisionError]
        await journal.close()

    asyncio.run(run())


def test_what_a_callback_appends_is_written_in_the_next_tick(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        journal.append(make.fact(1), 1.0)
        journal.after_write(lambda: journal.append(make.fact(2), 2.0))
        await written(journal)
        await written(journal)
        assert make.facts(tmp_path) == [make.fact(1), make.fact(2)]
        await journal.close()

    asyncio.run(run())


def test_a_header_has_in_its_state_all_the_facts_before_it_and_none_after(tmp_path: Path) -> None:
    async def run() -> None:
        told = 0
        journal = make.journal(tmp_path, segment_bytes=900, header=lambda: make.segment(b"%d" % told))
        for number in range(60):
            told += 1  # the router learns a fact before it is written down
            journal.append(make.fact(number), float(number))
            if number % 3 == 2:
                await written(journal)
        await journal.close()
        before = 0
        for line in make.lines(tmp_path):
            if isinstance(line.fact, Segment):
                assert int(bytes(line.fact.state)) == before
            else:
                before += 1
        assert before == 60
        assert len(segments(tmp_path)) > 3

    asyncio.run(run())


def test_every_segment_begins_with_a_header_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path / "a" / "b", segment_bytes=400)
        for number in range(20):
            journal.append(make.fact(number), 1.0)
            await written(journal)
        await journal.close()

    asyncio.run(run())
    files = segments(tmp_path / "a" / "b")
    assert len(files) > 2
    for file in files:
        assert isinstance(make.lines(file)[0].fact, Segment)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_segment_that_is_full_with_its_header_is_followed_where_something_is_written(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path, segment_bytes=1)
        for number in range(3):
            journal.append(make.fact(number), 1.0)
            await written(journal)
            # The timer of what nobody waits for was set before this one.
            later = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(WRITE_S, later.set_result, None)
            await later
        assert len(segments(tmp_path)) == 4
        await journal.close()

    asyncio.run(run())
    assert make.facts(tmp_path) == [make.fact(number) for number in range(3)]


def test_a_header_that_is_longer_than_a_segment_may_be_leaves_room_for_as_much_behind_it(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path, segment_bytes=1000, header=lambda: make.segment(b'"%s"' % (b"x" * 5000)))
        for number in range(20):
            journal.append(make.fact(number), 1.0)
            await written(journal)
        await journal.close()

    asyncio.run(run())
    assert len(segments(tmp_path)) == 2
    assert make.facts(tmp_path) == [make.fact(number) for number in range(20)]


def test_the_oldest_segments_are_removed_beyond_the_total(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path, segment_bytes=1000, total_bytes=5000)
        for number in range(300):
            journal.append(make.fact(number), 1.0)
            await written(journal)
        await journal.close()

    asyncio.run(run())
    assert sum(file.stat().st_size for file in segments(tmp_path)) <= 5000
    kept = make.facts(tmp_path)
    assert kept[-1] == make.fact(299)
    first = int(getattr(kept[0], "request_id")[1:])  # noqa: B009
    assert kept == [make.fact(n) for n in range(first, 300)]


def test_two_journals_in_one_folder_write_files_of_their_own_that_are_read_run_after_run(tmp_path: Path) -> None:
    async def run() -> None:
        one, other = make.journal(tmp_path, segment_bytes=600), make.journal(tmp_path, segment_bytes=600)
        assert one.path != other.path
        for number in range(20):
            one.append(make.fact(number), 1.0)
            other.append(make.fact(100 + number), 1.0)
            await written(one)
            await written(other)
        await one.close()
        await other.close()

    asyncio.run(run())
    assert sorted(make.facts(tmp_path), key=str) == [make.fact(n) for n in (*range(20), *range(100, 120))]


def test_a_segment_that_is_being_written_is_never_removed(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        path = journal.path
        assert prune(tmp_path, 0) == []
        await journal.close()
        assert prune(tmp_path, 0) == [path]

    asyncio.run(run())


def test_what_cannot_be_encoded_is_lost_and_counted_and_hurts_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        problems: list[str] = []
        journal = make.journal(tmp_path, on_problem=problems.append)
        journal.append(make.fact(1), 1.0)
        journal.append(msgspec.structs.replace(make.fact(2), request_id="\ud800"), 2.0)
        journal.append(make.fact(3), 3.0)
        await written(journal)
        assert make.facts(tmp_path) == [make.fact(1), make.fact(3)]
        statistics = journal.statistics()
        assert (statistics.lines, statistics.lost, statistics.problems) == (3, 1, 1)
        assert "encoded" in problems[0]
        await journal.close()

    asyncio.run(run())


def test_a_full_disk_keeps_no_answer_waiting_and_what_fits_in_memory_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)

    async def run() -> None:
        problems: list[str] = []
        journal = make.journal(tmp_path, on_problem=problems.append)
        # The disk takes one line and a piece of the second.
        with files_end_at(journal.path.stat().st_size + 100):
            for number in range(3):
                journal.append(make.fact(number), 1.0)
            await written(journal)
            assert make.facts(tmp_path) == [make.fact(0)]
        assert "cannot be written" in problems[0]
        async with asyncio.timeout(10):
            while len(make.facts(tmp_path)) < 3:
                await written(journal)
        assert make.facts(tmp_path) == [make.fact(n) for n in range(3)]
        assert journal.statistics().lost == 0
        await journal.close()

    asyncio.run(run())


def test_what_is_written_while_the_disk_is_slow_to_make_the_last_second_last_is_made_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)
    synced, go_on = list[int](), threading.Event()

    def slow(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            synced.append(os.fstat(fd).st_size)
            go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)

    async def run() -> None:
        journal = make.journal(tmp_path)
        journal.append(make.fact(1), 1.0)
        await written(journal)
        await eventually(lambda: len(synced) == 1)
        journal.append(make.fact(2), 2.0)
        await written(journal)
        # Long after the second one was to be made to last.
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        size = journal.path.stat().st_size
        await eventually(lambda: synced[-1] == size)
        await journal.close()

    asyncio.run(run())


def test_a_disk_that_takes_all_and_makes_nothing_last_is_told_once_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)
    fails, synced = True, 0

    def fsync(fd: int) -> None:
        nonlocal synced
        if stat.S_ISREG(os.fstat(fd).st_mode):
            if fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            synced += 1

    monkeypatch.setattr(os, "fsync", fsync)

    async def run() -> None:
        nonlocal fails
        problems: list[str] = []
        journal = make.journal(tmp_path, on_problem=problems.append)

        async def write_until(over: Callable[[], bool]) -> None:
            async with asyncio.timeout(10):
                while not over():
                    journal.append(make.fact(1), 1.0)
                    await written(journal)

        await write_until(lambda: journal.statistics().problems >= 3)
        assert len(problems) == 1
        assert "cannot be synced: Input/output error" in problems[0]
        fails = False
        await write_until(lambda: synced >= 3)
        assert len(problems) == 1
        fails = True
        await write_until(lambda: len(problems) == 2)
        await journal.close()

    asyncio.run(run())


def test_lines_beyond_the_bound_are_lost_and_counted_and_the_next_begin_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)
    monkeypatch.setattr(journal_module, "BACKLOG_BYTES_MAX", 1000)

    async def run() -> None:
        told = 0
        journal = make.journal(tmp_path, header=lambda: make.segment(b"%d" % told))
        size = journal.path.stat().st_size
        with files_end_at(size):
            for number in range(100):
                told += 1
                journal.append(make.fact(number), 1.0)
                await written(journal)
        lost = journal.statistics().lost
        assert 0 < lost < 100
        async with asyncio.timeout(10):
            while len(segments(tmp_path)) < 2:
                await written(journal)
        told += 1
        journal.append(make.fact(100), 1.0)
        await written(journal)
        await journal.close()
        before, after = segments(tmp_path)
        assert make.facts(before) == [make.fact(n) for n in range(100 - lost)]
        header, line = make.lines(after)
        assert isinstance(header.fact, Segment)
        assert bytes(header.fact.state) == b"100"
        assert line.fact == make.fact(100)

    asyncio.run(run())


def removed(segment: Path) -> None:
    shutil.rmtree(segment.parent)


def moved_away(segment: Path) -> None:
    segment.rename(segment.parent.parent / segment.name)


def replaced(segment: Path) -> None:
    copy = segment.with_name("copy")
    copy.write_bytes(segment.read_bytes())
    copy.replace(segment)


def cut_off(segment: Path) -> None:
    os.truncate(segment, 0)


@pytest.mark.parametrize("harm", [removed, moved_away, replaced, cut_off])
def test_a_segment_that_others_take_away_is_told_once_counted_and_followed_by_another(
    harm: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)

    async def run() -> None:
        problems: list[str] = []
        journal = make.journal(tmp_path / "journal", on_problem=problems.append)
        journal.append(make.fact(1), 1.0)
        await written(journal)
        first = journal.path
        harm(first)
        journal.append(make.fact(2), 2.0)
        await written(journal)
        await eventually(lambda: journal.path != first)
        assert problems == [
            f"journal: {first} was removed, moved away or cut off by another program; a new segment begins"
        ]
        assert journal.statistics().lost == 2
        journal.append(make.fact(3), 3.0)
        await written(journal)
        assert make.facts(journal.path) == [make.fact(3)]
        assert journal.statistics().lost == 2
        await journal.close()

    asyncio.run(run())


def test_what_stood_in_segments_before_one_that_is_removed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)

    async def run() -> None:
        journal = make.journal(tmp_path)
        journal.append(make.fact(1), 1.0)
        journal.turn(lambda: None)
        second = journal.path
        second.unlink()
        journal.append(make.fact(2), 2.0)
        await written(journal)
        await eventually(lambda: journal.path != second)
        assert make.facts(tmp_path) == [make.fact(1)]
        assert journal.statistics().lost == 1
        await journal.close()

    asyncio.run(run())


def test_a_folder_that_cannot_be_made_again_is_told_and_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)

    async def run() -> None:
        problems: list[str] = []
        folder = tmp_path / "journal"
        journal = make.journal(folder, on_problem=problems.append)
        first = journal.path
        shutil.rmtree(folder)
        folder.touch()
        journal.append(make.fact(1), 1.0)
        await eventually(lambda: any("no new segment" in problem for problem in problems))
        folder.unlink()
        await eventually(lambda: journal.path != first)
        journal.append(make.fact(2), 2.0)
        await written(journal)
        assert make.facts(folder) == [make.fact(2)]
        assert len(problems) == 2
        assert journal.statistics().lost == 1
        await journal.close()

    asyncio.run(run())


def test_a_segment_that_is_removed_while_the_disk_takes_nothing_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)

    async def run() -> None:
        problems: list[str] = []
        journal = make.journal(tmp_path, on_problem=problems.append)
        first = journal.path
        with files_end_at(first.stat().st_size + 50):
            journal.append(make.fact(1), 1.0)
            await written(journal)
            assert "cannot be written" in problems[-1]
            first.unlink()
            await eventually(lambda: journal.path != first)
        assert "was removed" in problems[-1]
        assert journal.statistics().lost == 1
        await journal.close()

    asyncio.run(run())


def test_a_segment_that_a_server_of_files_knows_no_more_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)
    write, status = os.write, os.fstat

    async def run() -> None:
        journal = make.journal(tmp_path)
        first = journal.path
        there = first.stat()

        def known(fd: int) -> int:
            if os.path.samestat(status(fd), there):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return fd

        monkeypatch.setattr(os, "write", lambda fd, data: write(known(fd), data))
        monkeypatch.setattr(os, "fstat", lambda fd: status(known(fd)))
        journal.append(make.fact(1), 1.0)
        await eventually(lambda: journal.path != first)
        journal.append(make.fact(2), 2.0)
        await written(journal)
        assert make.facts(journal.path) == [make.fact(2)]
        assert journal.statistics().lost == 1
        await journal.close()

    asyncio.run(run())


def test_a_disk_that_hangs_where_it_is_asked_for_a_segment_keeps_no_answer_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 0.001)
    asking, go_on, look = list[threading.Thread](), threading.Event(), Path.stat

    def hanging(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.suffix == ".jsonl":
            asking.append(threading.current_thread())
            go_on.wait(10)
        return look(path, follow_symlinks=follow_symlinks)

    async def run() -> None:
        journal = make.journal(tmp_path)
        monkeypatch.setattr(Path, "stat", hanging)
        journal.append(make.fact(1), 1.0)
        await eventually(lambda: bool(asking))
        journal.append(make.fact(2), 2.0)
        await written(journal)
        assert len(journal.path.read_bytes().splitlines()) == 3
        assert not go_on.is_set()
        assert threading.main_thread() not in asking
        go_on.set()
        await journal.close()

    asyncio.run(run())


def test_where_no_segment_can_be_begun_the_old_one_grows_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)

    async def run() -> None:
        broken = False

        def header() -> Segment:
            if broken:
                raise RuntimeError("no snapshot")
            return make.segment()

        problems: list[str] = []
        journal = make.journal(tmp_path, segment_bytes=500, header=header, on_problem=problems.append)
        broken = True
        for number in range(50):
            journal.append(make.fact(number), 1.0)
            await written(journal)
        assert len(segments(tmp_path)) == 1
        assert "no new segment" in problems[0]
        assert len(problems) == 1
        broken = False
        async with asyncio.timeout(10):
            while len(segments(tmp_path)) < 2:
                await written(journal)
        await journal.close()
        assert make.facts(tmp_path) == [make.fact(n) for n in range(50)]

    asyncio.run(run())


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=f"{file} cannot be used: File exists"):
        make.journal(file)


def test_after_its_end_nothing_is_written_and_nobody_waits(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        await journal.close()
        journal.append(make.fact(1), 1.0)
        await written(journal)
        assert journal.statistics().lost == 1
        assert make.facts(tmp_path) == []

    asyncio.run(run())


def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        released: list[int] = []
        journal.append(make.fact(1), 1.0)
        journal.after_write(lambda: released.append(1))
        await journal.close()
        assert released == [1]
        assert make.facts(tmp_path) == [make.fact(1)]

    asyncio.run(run())


WRITER = """
import asyncio, os, sys
from pathlib import Path
from tests.telemetry import make

async def main() -> None:
    journal = make.journal(Path(sys.argv[1]), segment_bytes=20_000)
    number = 0
    while True:
        for _ in range(7):
            number += 1
            journal.append(make.fact(number), float(number))
        journal.after_write(lambda n=number: os.write(1, b"%d\\n" % n))
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_a_killed_process_leaves_all_that_it_has_told_the_world(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdout is not None
        for _ in range(500):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = [b"", *process.stdout.read().split(b"\n")]
    last = max((int(number) for number in told if number), default=500 * 7)
    found = make.facts(tmp_path)
    assert found == [make.fact(n) for n in range(1, len(found) + 1)]
    assert len(found) >= last
    assert len(segments(tmp_path)) > 1


def test_who_appends_waits_for_no_encoding_and_no_write(tmp_path: Path) -> None:
    """One that cannot be encoded shows when that is tried."""

    async def run() -> None:
        problems: list[str] = []
        journal = make.journal(tmp_path, on_problem=problems.append)
        size = journal.path.stat().st_size
        for number in range(1000):
            journal.append(make.fact(number), 1.0)
        journal.append(msgspec.structs.replace(make.fact(1000), request_id="\ud800"), 1.0)
        assert (problems, journal.path.stat().st_size) == ([], size)
        await written(journal)
        assert len(problems) == 1
        assert journal.path.stat().st_size > size
        await journal.close()

    asyncio.run(run())


def test_one_write_takes_all_of_a_tick(tmp_path: Path) -> None:
    """A pipe in place of the segment shows each write as one read."""

    async def run() -> None:
        journal = make.journal(tmp_path)
        reading, writing = os.pipe()
        os.dup2(writing, journal._fd)
        for number in range(5):
            journal.append(make.fact(number), 1.0)
        await written(journal)
        assert os.read(reading, 1 << 16).count(b"\n") == 5
        os.close(reading)
        os.close(writing)
        await journal.close()

    asyncio.run(run())


def test_a_turn_puts_what_came_before_it_into_the_old_segment_and_what_it_made_into_the_new_ones_header(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        state = b"1"
        journal = make.journal(tmp_path, header=lambda: make.segment(state))

        def change() -> None:
            nonlocal state
            state = b"2"

        journal.append(make.fact(1), 1.0)
        journal.turn(change)
        journal.append(make.fact(2), 2.0)
        await written(journal)
        await journal.close()
        before, after = segments(tmp_path)
        assert make.facts(before) == [make.fact(1)]
        header, line = make.lines(after)
        assert isinstance(header.fact, Segment)
        assert bytes(header.fact.state) == b"2"
        assert line.fact == make.fact(2)

    asyncio.run(run())


def test_after_a_turn_that_the_disk_does_not_take_nothing_is_added_to_the_old_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.001)

    async def run() -> None:
        told = 0
        journal = make.journal(tmp_path, header=lambda: make.segment(str(told).encode()))
        with files_end_at(journal.path.stat().st_size + 100):  # room for one fact, and for no header
            journal.append(make.fact(0), 1.0)
            journal.append(make.fact(1), 1.0)
            journal.turn(lambda: None)
            journal.append(make.fact(2), 2.0)
            await written(journal)
            assert make.facts(tmp_path) == [make.fact(0)]
        told = 7
        async with asyncio.timeout(10):
            while len(segments(tmp_path)) < 2:
                await written(journal)
        journal.append(make.fact(3), 3.0)
        await written(journal)
        assert journal.statistics().lost == 1
        await journal.close()
        before, after = segments(tmp_path)
        assert make.facts(before) == [make.fact(0), make.fact(1)]
        header, line = make.lines(after)
        assert isinstance(header.fact, Segment)
        assert bytes(header.fact.state) == b"7"
        assert line.fact == make.fact(3)

    asyncio.run(run())
