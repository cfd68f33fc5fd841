from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.courier.folder import LATE_MAX, Folder, FolderError, Held
from tidegate.courier.refusal import RefusalError

SPACE = 100


@pytest.fixture
def shm() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def opened(path: Path) -> Folder:
    folder = Folder(path, SPACE, unclaimed_s=60.0)
    folder.open()
    return folder


def names(folder: str | Path) -> list[str]:
    return sorted(file.name for file in Path(folder).iterdir())


def held(folder: Folder, size_bytes: int, at_s: float = 0.0) -> str:
    name = folder.reserve(size_bytes)
    folder.at(name).write_bytes(b"x")
    return folder.hold(name, Held(size_bytes=size_bytes, tokens=1, fingerprint="", since_s=at_s))


def test_the_oldest_that_nobody_claimed_makes_room_and_what_is_under_way_does_not(shm: Path) -> None:
    folder = opened(shm)
    first, second = held(folder, 40), held(folder, 40)
    folder.reserve(30)
    assert not folder.at(first).exists()
    folder.claim(second)
    with pytest.raises(RefusalError, match="full"):
        folder.reserve(31)
    with pytest.raises(RefusalError, match="gone"):
        folder.claim(first)


def test_what_is_smaller_than_it_may_be_has_the_room_that_there_is_and_keeps_what_it_needs(shm: Path) -> None:
    folder = opened(shm)
    for _ in range(3):
        folder.comes_to(folder.reserve_for(SPACE * 2), 30)
    assert folder.free_bytes == 10
    last = folder.reserve_for(SPACE * 2)
    with pytest.raises(RefusalError, match="full"):
        folder.comes_to(last, 11)
    with pytest.raises(RefusalError, match="full"):
        folder.reserve_for(1)


def test_a_blob_is_claimed_once_and_under_its_last_name(shm: Path) -> None:
    folder = opened(shm)
    name = folder.reserve(10)
    folder.at(name).write_bytes(b"x")
    with pytest.raises(RefusalError):
        folder.claim(name)
    told = folder.hold(name, Held(size_bytes=10, tokens=1, fingerprint="", since_s=0.0))
    with pytest.raises(RefusalError):
        folder.claim(name)
    folder.claim(told)
    with pytest.raises(RefusalError):
        folder.claim(told)


def test_what_waits_too_long_and_what_nobody_knows_is_removed(shm: Path) -> None:
    folder = opened(shm)
    kept, under_way = held(folder, 10, at_s=50.0), folder.reserve(10)
    held(folder, 10, at_s=0.0)
    folder.at(under_way).write_bytes(b"x")
    folder.at("0" * 32).write_bytes(b"late")
    assert folder.sweep(60.0) == 1
    assert names(shm) == sorted([kept, under_way])
    folder.close()
    assert names(shm) == []


def test_what_an_earlier_process_left_is_removed_and_a_missing_folder_is_made(shm: Path) -> None:
    (shm / ("a" * 32)).write_bytes(b"left")
    opened(shm)
    assert names(shm) == []
    opened(shm / "new")
    assert (shm / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_read_or_use_or_that_is_on_a_disk_is_refused(shm: Path, tmp_path: Path) -> None:
    shm.chmod(0o755)
    with pytest.raises(FolderError, match="chmod 700"):
        opened(shm)
    shm.chmod(0o700)
    (shm / "notes").write_text("of somebody")
    with pytest.raises(FolderError, match="1 files of others"):
        opened(shm)
    with pytest.raises(FolderError, match="in memory"):
        opened(disk(tmp_path))
    link = tmp_path / "link"
    link.symlink_to(shm)
    with pytest.raises(FolderError):
        opened(link)
    with pytest.raises(FolderError, match="cannot be used"):
        opened(shm / "a" / "b")


def test_a_folder_of_two_is_refused_before_anything_of_the_first_is_touched(shm: Path) -> None:
    first = opened(shm)
    kept = held(first, 10)
    with pytest.raises(
        FolderError, match="is used by another courier; stop that one, or give each a folder of its own"
    ):
        opened(shm)
    assert names(shm) == [kept]
    first.close()
    opened(shm).close()


def test_what_an_engine_has_not_come_to_write_it_cannot_write_after_the_end(shm: Path) -> None:
    folder = opened(shm)
    late, written, answered = (folder.reserve(10) for _ in range(3))
    for name in (late, written):
        folder.give_up(name)
    folder.release(answered)
    folder.at(written).write_bytes(b"x")
    folder.sweep(1.0)
    folder.close()
    assert names(shm) == [late]
    with pytest.raises(IsADirectoryError):
        folder.at(late).write_bytes(b"x")
    opened(shm).close()
    assert names(shm) == []


def test_of_many_that_an_engine_has_not_come_to_write_the_latest_are_kept_in_mind(shm: Path) -> None:
    folder = opened(shm)
    late = []
    for _ in range(LATE_MAX + 1):
        late.append(folder.reserve(1))
        folder.give_up(late[-1])
    folder.close()
    assert names(shm) == sorted(late[1:])


def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    return folder


@given(
    st.lists(st.tuples(st.sampled_from(["reserve", "hold", "claim", "release"]), st.integers(1, SPACE)), max_size=40)
)
def test_it_never_takes_more_than_its_space(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory(dir="/dev/shm") as shm:
        folder = opened(Path(shm))
        under_way: list[str] = []
        waiting: list[str] = []
        for verb, size_bytes in steps:
            try:
                if verb == "reserve":
                    under_way.append(folder.reserve(size_bytes))
                    folder.at(under_way[-1]).write_bytes(b"x")
                elif verb == "hold" and under_way:
                    held_ = Held(size_bytes=1, tokens=1, fingerprint="", since_s=0.0)
                    waiting.append(folder.hold(under_way.pop(), held_))
                elif verb == "claim" and waiting:
                    name = waiting.pop()
                    folder.claim(name)
                    folder.release(name)
                elif under_way:
                    folder.release(under_way.pop())
            except RefusalError:
                continue
            assert 0 <= folder.free_bytes <= SPACE
        folder.close()
        assert names(shm) == []
