"""The thread that keeps the index: whatever befalls it, pages are not answered from what stands still."""

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.dashboard.harness import ALL_MINUTES, Indexed, damage, folded, indexed
from tests.dashboard.test_index import by_time, cut, ids
from tests.http.harness import eventually
from tidegate.dashboard import follow, replayed, store
from tidegate.dashboard.figures import Figures, Window
from tidegate.dashboard.requests import Requests, Wanted
from tidegate.dashboard.store import Store
from tidegate.telemetry.packing import pack
from tidegate.telemetry.segments import PACKED, segments


@contextmanager
def begun(
    folder: Path, on_problem: Callable[[str], None], on_damage: Callable[[], None] = lambda: None
) -> Iterator[tuple[Store, Requests]]:
    """One whose thread is not started yet, and who reads it."""
    made = Store(folder, on_problem, on_damage)
    try:
        with closing(made.reader()) as reader:
            yield made, Requests(reader)
    finally:
        made.close()


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%41", "a b"])
def test_a_folder_has_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with begun(folder, print) as (_, requests):
        assert requests.extent().rows == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again at once, and the gateway of the journal is there."""
    monkeypatch.setattr(store, "LOOK_S", 0.01)
    monkeypatch.setattr(store, "AGAIN_S", 0.01)
    monkeypatch.setattr(store, "AGAIN_S_MAX", 0.02)
    monkeypatch.setattr(follow, "STEP_BYTES", 4096)
    monkeypatch.setattr(follow, "_is_left", lambda path: False)


@pytest.mark.usefixtures("quick")
async def test_what_the_disk_did_not_take_is_in_the_index_once_it_does_again(journal: Path) -> None:
    rows, said = folded(journal), list[str]()
    path, rest = cut(journal, 0.5)
    with begun(journal, said.append) as (made, requests):
        db = made._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        made.start()
        await eventually(lambda: bool(said))
        there = requests.extent().rows
        assert there < sum(row.outcome != "unknown" for row in folded(journal))
        db.execute(f"PRAGMA max_page_count = {pages + 16}")  # it goes on for a while, and is full again
        await eventually(lambda: requests.extent().rows > there)
        db.execute(f"PRAGMA max_page_count = {1 << 30}")
        with path.open("ab") as file:
            file.write(rest)
        await eventually(lambda: requests.extent().rows == len(rows))
        assert ids(requests, Wanted()) == by_time(rows)
        window = Window.back(rows[-1].arrived_s + 900.0, ALL_MINUTES)
        with closing(made.reader()) as reader:
            classes = Figures(reader).classes(window)
        assert Counter({one.klass: one.requests for one in classes}) == Counter(row.klass for row in rows)
        (problem,) = said
        assert "disk is full" in problem


@pytest.mark.usefixtures("quick")
async def test_what_is_in_the_way_of_opening_a_segment_for_a_moment_leaves_nothing_out(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, said = folded(journal), list[str]()
    path, rest = cut(journal, 0.5)
    opened, refused = Path.open, list[Path]()

    def crowded(at: Path, *args: Any, **named: Any) -> Any:
        if at == path and len(refused) < 3:
            refused.append(at)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(at))
        return opened(at, *args, **named)

    with begun(journal, said.append) as (made, requests):
        made.start()
        await eventually(lambda: made.follower.share == 1.0)
        with path.open("ab") as file:
            monkeypatch.setattr(Path, "open", crowded)
            file.write(rest)
        await eventually(lambda: requests.extent().rows == len(rows) and made.follower.share == 1.0)
    assert len(refused) == 3
    (problem,) = said
    assert "the journal is not read on until this is over" in problem
    assert "Too many open files" in problem


@pytest.mark.usefixtures("quick")
def test_what_is_read_once_more_by_a_dashboard_that_comes_back_is_not_there_before_it_is(
    journal: Path, tmp_path: Path
) -> None:
    (first,), file = segments(journal), tmp_path / "index.sqlite"
    shutil.copy(first, journal / first.name.replace("-000000.", "-000001."))
    with indexed(journal, file):
        pass
    back = Indexed(journal, file)
    try:
        shares = list[float]()
        while back.follower.step():
            shares.append(back.follower.share)
        # The last of them has read all there is, and only the next one finds that out.
        assert len(shares) > 2
        assert max(shares[:-1]) < 1.0
        assert (back.follower.share, back.follower.known() is None) == (1.0, False)
    finally:
        back.follower.close()
        back.db.close()


def test_how_endpoints_are_is_told_again_once_what_was_in_the_way_of_asking_is_over(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(path: Path) -> BinaryIO:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    with indexed(journal) as seen:
        with monkeypatch.context() as patch:
            patch.setattr(replayed, "open_segment", crowded)
            assert seen.follower.known() is None
        assert seen.follower.known() is not None


@pytest.mark.usefixtures("quick")
async def test_what_nobody_thought_of_is_told_and_does_not_end_it(journal: Path) -> None:
    said, path = list[str](), segments(journal)[0]
    other, whole = path.name.replace("20260105", "20260106"), path.read_bytes()
    cut(journal, 0.5)
    with begun(journal, said.append) as (made, requests):
        made.start()
        await eventually(lambda: made.follower.last_s is not None and made.follower.share == 1.0)
        count = requests.extent().rows
        assert pack(path)
        packed = path.with_name(path.name + PACKED)
        packed.write_bytes(packed.read_bytes()[:100])  # it can be read on no more
        await eventually(lambda: bool(said))
        (journal / other).write_bytes(whole)
        await eventually(lambda: requests.extent().rows == count + len(folded(journal / other)))


def test_where_no_index_can_be_beside_the_journal_it_is_elsewhere(journal: Path) -> None:
    (journal / store.FILE / "in the way").mkdir(parents=True)
    with begun(journal, print) as (made, requests):
        while made.follower.step():
            pass
        assert made.file.parent != journal
        assert requests.extent().rows == len(folded(journal))


def test_an_index_that_cannot_be_used_for_a_while_is_told_of_and_is_there_afterwards(journal: Path) -> None:
    with indexed(journal, journal / store.FILE):
        pass
    said, beside = list[str](), journal / f"{store.FILE}-shm"
    beside.symlink_to(journal / "none" / "at all")  # SQLite can make no file there, as on a full disk
    with begun(journal, said.append) as (made, requests):
        assert (made.file.parent == journal, requests.extent().rows) == (False, 0)
    (problem,) = said
    assert f"{journal / store.FILE} cannot be used" in problem
    beside.unlink()
    with begun(journal, said.append) as (made, requests):
        assert (made.file.parent == journal, requests.extent().rows) == (True, len(folded(journal)))
    assert said == [problem]


async def test_an_index_that_turns_out_to_be_damaged_is_read_no_more_and_made_anew_by_the_next(journal: Path) -> None:
    path, rest = cut(journal, 0.5)
    with indexed(journal, journal / store.FILE):
        pass
    damage(journal / store.FILE, "by_time")
    with path.open("ab") as file:
        file.write(rest)
    said, found = list[str](), threading.Event()
    with begun(journal, said.append, found.set) as (made, _):
        made.start()
        await eventually(found.is_set)
        made.discard()
    assert (said, (journal / store.FILE).exists()) == ([], False)
    with begun(journal, said.append) as (made, requests):
        made.start()
        await eventually(lambda: requests.extent().rows == len(folded(journal)))
