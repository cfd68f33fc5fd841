"""The audit log, as the gateway writes it."""

import os
import threading
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import msgspec
import pytest

from tests.gateway.harness import house
from tests.http.harness import SetClock, eventually
from tidegate.clock import Clock
from tidegate.dashboard.changed import changes
from tidegate.gateway import daemon
from tidegate.gateway.changes import WAITING_MAX, Changes
from tidegate.telemetry.log import Log
from tidegate.wire.changes import FILE, FILE_BYTES_MAX, Changed, Setting


async def test_of_a_change_that_the_disk_takes_in_part_nothing_stays_and_the_next_is_read(tmp_path: Path) -> None:
    clock = Clock()
    log = Log.to(tmp_path / "log", clock)
    audit = Changes(tmp_path, clock=clock, log=log)
    audit.add("alice", "first", (), applied=True)
    assert await audit.written()
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 20, before[1]))
    try:
        audit.add("alice", "second", (), applied=True)
        assert await audit.written()
    finally:
        setrlimit(RLIMIT_FSIZE, before)
    audit.add("alice", "third", (), applied=True)
    await audit.close()
    log.close()
    assert (tmp_path / "log").read_text().count("cannot be written: No space left on device") == 1
    assert [one.what for one in changes(tmp_path, 10).changes] == ["third", "first"]


def kept(folder: Path) -> list[str]:
    return [one.what for one in changes(folder, 1000).changes]


async def added(folder: Path, what: str, *settings: Setting) -> None:
    clock = SetClock()
    log = Log.to(folder / "log", clock)
    audit = Changes(folder, clock=clock, log=log)
    audit.add("alice", what, settings, applied=True)
    await audit.close()
    log.close()


async def test_a_file_that_is_cut_down_keeps_the_newest_changes_however_long_they_are(tmp_path: Path) -> None:
    file = tmp_path / FILE
    await added(tmp_path, "0", Setting(path="rule", before=None, after=""))
    # So that each line is exactly half of what the file may have.
    value = "x" * (FILE_BYTES_MAX // 2 - file.stat().st_size)
    file.unlink()
    for number in range(3):
        await added(tmp_path, str(number), Setting(path="rule", before=None, after=value))
    assert kept(tmp_path) == ["2"]


@pytest.mark.lengthy
async def test_of_a_change_that_is_too_long_the_paths_are_kept_and_how_its_values_begin(tmp_path: Path) -> None:
    long = ['\\"\u00e4\x01' * 100] * 1000
    settings = [Setting(path=f"rule.{number}", before=number, after=long) for number in range(200)]
    for number in range(4):
        await added(tmp_path, str(number), *settings)
    assert kept(tmp_path)[0] == "3"
    assert (tmp_path / FILE).stat().st_size <= FILE_BYTES_MAX
    told = changes(tmp_path, 1).changes[0].changes
    assert [(one.path, one.before) for one in told] == [(one.path, one.before) for one in settings[:100]]
    assert all(msgspec.json.encode(long).decode().startswith(one.after.removesuffix("...")) for one in told)


async def test_what_is_left_of_a_file_is_on_the_disk_before_the_longer_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync, file = list[tuple[Path, bool]](), os.fsync, tmp_path / FILE

    def synced_with(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").readlink(), file.stat().st_size > FILE_BYTES_MAX))
        sync(fd)

    monkeypatch.setattr(os, "fsync", synced_with)
    for number in range(3):
        await added(tmp_path, str(number), Setting(path="rule", before=None, after="x" * (FILE_BYTES_MAX // 2 - 1000)))
    assert synced == [(tmp_path / f"{FILE}.new", True), (tmp_path, False)]


def writers() -> int:
    """Threads that write changes down."""
    return len([thread for thread in threading.enumerate() if thread.name == daemon.NAMED + "changes"])


@pytest.mark.lengthy
async def test_a_disk_that_hangs_keeps_neither_the_loop_nor_a_change_and_takes_them_in_their_order(
    tmp_path: Path,
) -> None:
    (tmp_path / "journal").mkdir()
    fifo = tmp_path / "journal" / FILE
    async with house(tmp_path) as home:
        os.mkfifo(fifo)
        await home.change("PUT", "/api/static")
        await home.change("PUT", "/api/endpoints/cloud/drain")
        assert (await home.change("POST", "/api/config")).status == 200
        assert (await home.get("/livez")).status == 200
        assert writers() == 1, "one after the other"
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        assert await home.gateway._changes.written()
        lines = os.read(reading, FILE_BYTES_MAX).splitlines()
        os.close(reading)
    told = [msgspec.json.decode(line, type=Changed) for line in lines]
    assert [one.what for one in told] == ["set by hand", "set by hand", "configuration reloaded"]


async def test_a_disk_that_never_answers_ends_no_gateway_late_and_no_more_than_so_many_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.gateway.changes.CLOSE_S", 0.01)
    os.mkfifo(tmp_path / FILE)
    clock = Clock()
    log = Log.to(tmp_path / "log", clock)
    audit = Changes(tmp_path, clock=clock, log=log)
    for number in range(WAITING_MAX + 3):
        audit.add("alice", str(number), (), applied=True)
        assert not await audit.written(0.0)
    await audit.close()
    log.close()
    # One is on its way, and so many wait: two are too many, and at the end it is said of all of them.
    assert (tmp_path / "log").read_text().count("the disk does not answer") == 3
    os.close(os.open(tmp_path / FILE, os.O_RDONLY | os.O_NONBLOCK))
    await eventually(lambda: not writers())
