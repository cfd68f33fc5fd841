"""Segments that are finished are packed: in an eighth of the room there are the same lines, whatever happens."""

import asyncio
import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import BinaryIO

import pytest

from tests.http.harness import eventually
from tests.telemetry import make
from tests.telemetry.test_journal import written
from tests.telemetry.test_reading import FACTS, HEAD, NAME, left
from tests.telemetry.test_replay import found, stormed
from tidegate.core.model import Line
from tidegate.telemetry.explain import find
from tidegate.telemetry.following import Following
from tidegate.telemetry.packing import Packer, is_there, pack
from tidegate.telemetry.reading import JournalError, read, read_if_there
from tidegate.telemetry.segments import SegmentName, is_written, prune, segments

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WHOLE = HEAD + b"".join(FACTS)
FOUND = [make.fact(n) for n in range(5)]


def test_a_packed_segment_takes_the_place_of_the_one_that_it_was(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE * 100)
    file.chmod(0o600)
    before, aged = make.lines(tmp_path), file.stat().st_mtime_ns
    assert pack(file)
    (packed,) = tmp_path.iterdir()
    assert packed.name == NAME + ".zst"
    assert make.lines(tmp_path) == make.lines(packed) == before
    assert 8 * packed.stat().st_size < len(WHOLE * 100)
    assert (packed.stat().st_mtime_ns, stat.S_IMODE(packed.stat().st_mode)) == (aged, 0o600)


def test_where_the_packed_one_is_both_names_lead_there(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    pack(file)
    assert is_there(file)
    assert make.facts(file) == FOUND
    with pytest.raises(JournalError, match="no such file"):
        make.lines(tmp_path / NAME.replace("000000.", "000001."))


def test_a_torn_last_line_is_passed_over_in_a_packed_segment_too(tmp_path: Path) -> None:
    for end in range(len(HEAD), len(WHOLE) + 1, 7):
        pack(left(tmp_path, WHOLE[:end]))
        assert make.facts(tmp_path) == FOUND[: WHOLE[:end].count(b"\n") - 1]
        (tmp_path / (NAME + ".zst")).unlink()


def test_a_segment_that_is_packed_while_the_folder_is_read_is_read(tmp_path: Path) -> None:
    left(tmp_path, HEAD + FACTS[0])
    second = left(tmp_path, HEAD + FACTS[1], NAME.replace("000000.", "000001."))
    lines = read(tmp_path)
    next(lines)
    assert pack(second)
    assert [line.fact for line in lines if line.fact in FOUND] == FOUND[:2]


def test_a_segment_that_is_there_in_both_forms_is_there_once(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    pack(file)
    left(tmp_path, WHOLE)
    assert [path.name for path in segments(tmp_path)] == [NAME + ".zst"]
    assert make.facts(tmp_path) == FOUND
    assert pack(file), "what is left over is removed"
    assert [path.name for path in tmp_path.iterdir()] == [NAME + ".zst"]


# Ends its process as a kill does, before the given one of all calls that change or open a file.
KILLED = """
import os, sys
from pathlib import Path
from tidegate.telemetry.explain import find
from tidegate.telemetry.packing import pack
calls, last, armed = 0, int(sys.argv[2]), False
def hook(event, _):
    global calls
    if armed and event in ("open", "os.rename", "os.remove", "os.utime", "fcntl.flock"):
        calls += 1
        if calls == last:
            os._exit(9)
sys.addaudithook(hook)
armed = True
done = pack(Path(sys.argv[1]))
armed = False
sys.exit(0 if done else 1)
"""


@pytest.mark.lengthy
def test_a_kill_at_any_instant_leaves_the_segment_whole_and_once(tmp_path: Path) -> None:
    status, instants = 9, 0
    while status == 9:
        instants += 1
        folder = tmp_path / str(instants)
        folder.mkdir()
        file = left(folder, WHOLE)
        status = subprocess.run([sys.executable, "-c", KILLED, file, str(instants)], check=False).returncode
        assert make.facts(folder) == FOUND
        packer = Packer(folder)
        packer.soon()
        packer.close()
        assert make.facts(folder) == FOUND
        assert pack(file) or [path.name for path in folder.iterdir()] == [NAME + ".zst"]
        assert [path.name for path in folder.iterdir()] == [NAME + ".zst"]
    assert status == 0
    assert instants > 7, "it was killed before each of its steps"


def test_a_segment_that_is_being_packed_is_written_by_nobody(tmp_path: Path) -> None:
    file, seen = left(tmp_path, WHOLE), list[bool]()

    def look() -> bool:
        seen.append(is_written(file))
        return True

    assert pack(file, look)
    assert seen == [False]


def test_who_is_told_to_stop_leaves_everything_as_it_was(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    assert not pack(file, lambda: False)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == WHOLE


def test_a_segment_that_somebody_writes_stays_as_it_is(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    with file.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert not pack(file)
        assert list(tmp_path.iterdir()) == [file]
    assert pack(file)


def test_what_is_not_there_is_not_packed(tmp_path: Path) -> None:
    assert not pack(tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_keeps_the_segment(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    (tmp_path / (NAME + ".zst.part")).mkdir()  # nothing can be written under that name
    assert not pack(file)
    assert make.facts(tmp_path) == FOUND


def test_what_a_killed_process_left_half_done_of_a_segment_that_is_gone_is_removed(tmp_path: Path) -> None:
    orphan = left(tmp_path, b"half", NAME + ".zst.part")
    packer = Packer(tmp_path)
    packer.soon()
    packer.close()
    assert not orphan.exists()


def test_what_a_kill_left_in_both_forms_is_there_in_one_after_the_next_start(tmp_path: Path) -> None:
    file = left(tmp_path, WHOLE)
    pack(file)
    left(tmp_path, WHOLE)

    async def run() -> None:
        journal = make.journal(tmp_path, packs=True)
        await eventually(lambda: not file.exists())
        await journal.close()

    asyncio.run(run())
    assert make.facts(tmp_path / (NAME + ".zst")) == FOUND


def test_a_segment_that_is_looked_at_while_it_is_made_belongs_to_its_writer_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, looked = os.open, threading.Event()

    def looking(path: Path, flags: int, mode: int = 0o777) -> int:
        """Whoever asks whether it is written has a lock on it in that moment, and lets go in the next."""
        fd = opened(path, flags, mode)
        other = opened(path, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_SH)

        def let_go() -> None:
            os.close(other)
            looked.set()

        threading.Timer(0.02, let_go).start()
        return fd

    monkeypatch.setattr(os, "open", looking)
    name, fd = SegmentName.first(1.0).create(tmp_path)
    monkeypatch.undo()
    assert looked.wait(60.0)
    os.write(fd, WHOLE)
    assert is_written(tmp_path / str(name))
    assert not pack(tmp_path / str(name))
    os.close(fd)


def test_a_segment_that_is_removed_while_it_is_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, wanted = os.open, SegmentName.first(1.0)

    def removing(path: Path, flags: int, mode: int = 0o777) -> int:
        fd = opened(path, flags, mode)
        if path.name == str(wanted):
            path.unlink()
        return fd

    monkeypatch.setattr(os, "open", removing)
    name, fd = wanted.create(tmp_path)
    assert name == wanted.next()
    assert [path.name for path in tmp_path.iterdir()] == [str(name)]
    os.close(fd)


def test_a_segment_that_is_being_made_is_not_packed(tmp_path: Path) -> None:
    file = left(tmp_path, b"")
    assert not pack(file)
    assert file.exists()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_packed_segment_that_was_copied_in_part_is_told_to_be_damaged(tmp_path: Path, keep: float) -> None:
    pack(left(tmp_path, WHOLE * 50))
    (packed,) = tmp_path.iterdir()
    content = packed.read_bytes()
    packed.write_bytes(content[: int(keep * len(content))] if keep else b"no zstd at all")
    with pytest.raises(JournalError, match=f"^{packed}:[0-9]+: the segment is damaged"):
        make.lines(packed)


def test_all_lines_that_stand_before_the_damage_are_read(tmp_path: Path) -> None:
    """What is packed is in blocks of any size, so that the read that meets the place has had some that are good."""
    packer, packed = zstd.ZstdCompressor(), tmp_path / (NAME + ".zst")
    blocks = [HEAD, *(FACTS[n % len(FACTS)] * size for n, size in enumerate(Random(1).choices(range(1, 200), k=30)))]
    packed.write_bytes(b"".join(packer.compress(block, zstd.ZstdCompressor.FLUSH_BLOCK) for block in blocks)[:-1])
    good = sum(block.count(b"\n") for block in blocks[:-1])
    for lines in (read(packed), followed(tmp_path)):
        assert len(list(islice(lines, good))) == good
        with pytest.raises(JournalError, match=f"^{packed}:{good + 1}: the segment is damaged"):
            next(lines)


def followed(folder: Path) -> Iterator[Line]:
    with closing(Following(folder)) as following:
        for _, line in following.lines():
            yield line


def test_a_bit_that_tipped_over_on_the_disk_is_noticed(tmp_path: Path) -> None:
    pack(left(tmp_path, WHOLE * 50))
    (packed,) = tmp_path.iterdir()
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    with pytest.raises(JournalError, match="damaged"):
        make.lines(packed)


def test_the_first_line_is_read_before_the_last_is_unpacked(tmp_path: Path) -> None:
    broken_later = left(tmp_path, WHOLE + b"".join(FACTS * 60_000))
    pack(broken_later)
    (packed,) = tmp_path.iterdir()
    packed.write_bytes(packed.read_bytes()[:-100])
    lines = read_if_there(packed)
    assert [next(lines).fact for _ in range(6)][1:] == FOUND


def test_a_journal_packs_all_but_the_segment_that_it_writes_and_no_line_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path, segment_bytes=1000, packs=True)
        for number in range(60):
            journal.append(make.fact(number), 1.0)
            await written(journal)
        async with asyncio.timeout(60):
            while any(path.suffix != ".zst" for path in segments(tmp_path) if path != journal.path):
                await written(journal)
        assert journal.path.exists()
        assert len(segments(tmp_path)) > 2
        await journal.close()

    asyncio.run(run())
    assert make.facts(tmp_path) == [make.fact(n) for n in range(60)]


def test_a_new_process_packs_what_the_one_before_has_left(tmp_path: Path) -> None:
    left(tmp_path, WHOLE)

    async def run() -> None:
        journal = make.journal(tmp_path, packs=True)
        async with asyncio.timeout(60):
            while (tmp_path / NAME).exists():
                await written(journal)
        await journal.close()

    asyncio.run(run())
    assert make.facts(tmp_path) == FOUND


def test_what_is_packed_counts_as_what_it_takes_on_the_disk(tmp_path: Path) -> None:
    names = [NAME.replace("000000.", f"{number:06}.") for number in range(3)]
    for name in names:
        assert pack(left(tmp_path, WHOLE * 100, name))
    sizes = [(tmp_path / f"{name}.zst").stat().st_size for name in names]
    assert prune(tmp_path, sum(sizes)) == []
    assert prune(tmp_path, sum(sizes) - 1) == [tmp_path / f"{names[0]}.zst"]


def named(pid: int, counter: int) -> str:
    return str(SegmentName("20260104T150000000Z", pid, counter))


def test_over_a_network_segments_are_packed_and_removed_as_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = fcntl.flock

    def emulated(file: BinaryIO | int, operation: int) -> None:
        """As over NFS: who wants a file for himself has to have it open for writing."""
        if operation & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        locked(file, operation)

    monkeypatch.setattr(fcntl, "flock", emulated)
    assert pack(left(tmp_path, WHOLE))
    (packed,) = tmp_path.iterdir()
    with left(tmp_path, WHOLE, named(7, 0)).open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert prune(tmp_path, 0) == [packed]


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system has no locks."""

    def refusing(file: BinaryIO | int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refusing)


@pytest.mark.usefixtures("lockless")
def test_without_locks_all_but_the_last_segment_of_a_run_are_removed_and_none_is_packed(tmp_path: Path) -> None:
    files = [left(tmp_path, WHOLE, named(pid, counter)) for pid, counter in ((7, 0), (7, 1), (7, 2), (8, 0))]
    assert not any(pack(file) for file in files)
    assert sorted(prune(tmp_path, 0)) == files[:2]
    assert sorted(tmp_path.iterdir()) == files[2:]


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize(("silent_s", "removed"), [(20 * 3600, [1]), (28 * 3600, [0])])
def test_without_locks_a_run_that_was_silent_for_a_day_makes_room_for_one_that_goes_on(
    tmp_path: Path, silent_s: int, removed: list[int]
) -> None:
    files = [left(tmp_path, WHOLE, named(pid, counter)) for pid, counter in ((7, 0), (8, 0), (8, 1))]
    now_s = tmp_path.stat().st_mtime
    os.utime(files[0], (now_s - silent_s, now_s - silent_s))
    assert prune(tmp_path, 2 * len(WHOLE)) == [files[number] for number in removed]


@pytest.mark.parametrize("jobs", [1, 2])
def test_packed_segments_replay_as_they_did(tmp_path: Path, jobs: int) -> None:
    files = stormed(tmp_path)
    before = found(tmp_path)
    for file in files[:-1]:
        assert pack(file)
    assert found(tmp_path, jobs) == before


def test_a_decision_is_found_in_a_packed_segment_by_either_name(tmp_path: Path) -> None:
    file = stormed(tmp_path)[1]
    before = find(file, None)
    assert before
    assert pack(file)
    assert find(file, None) == find(file.with_name(file.name + ".zst"), None) == before
    with pytest.raises(JournalError, match="no such file"):
        find(tmp_path / "none", None)
