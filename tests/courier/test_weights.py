"""The digest of a model's file that takes longer to read than anybody waits: a pipe, which ends when a test says so."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.courier.harness import pair
from tests.http.harness import eventually
from tidegate.courier.refusal import RefusalError
from tidegate.courier.weights import Weights
from tidegate.engines.courier import CourierError

EMPTY = sha256(b"").hexdigest()


class Endless:
    """A file whose end nobody comes to before `end`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._writing: int | None = None

    def read(self) -> bool:
        """Whether somebody reads it by now."""
        if self._writing is None:
            with suppress(OSError):
                self._writing = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._writing is not None

    def is_left(self) -> bool:
        """Whether nobody reads it any more, as a little more of it comes."""
        assert self._writing is not None
        try:
            os.write(self._writing, b"more")
        except BrokenPipeError:
            return True
        return False

    def end(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
        self._writing = None


@contextmanager
def endless(path: Path) -> Iterator[Endless]:
    file = Endless(path)
    try:
        yield file
    finally:
        file.end()
        # Whoever begins to read it where it should not is not waited for.
        os.close(os.open(path, os.O_RDWR))


async def ask_and_leave(weights: Weights, path: Path, file: Endless) -> None:
    asking = asyncio.ensure_future(weights.of(str(path)))
    await asyncio.sleep(0)
    await eventually(file.read)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_who_leaves_before_the_digest_is_known_finds_it_later_and_the_file_is_read_once(tmp_path: Path) -> None:
    weights = Weights("")
    with endless(tmp_path / "model.gguf") as file:
        others = threading.active_count()
        for _ in range(3):
            await ask_and_leave(weights, file.path, file)
        read_by = threading.active_count() - others
        file.end()
        async with asyncio.timeout(5.0):
            assert await weights.of(str(file.path)) == EMPTY
        assert read_by == 1


async def test_another_file_is_read_when_the_one_before_is(tmp_path: Path) -> None:
    weights, other = Weights(""), tmp_path / "other.gguf"
    other.write_bytes(b"fine tuned")
    with endless(tmp_path / "model.gguf") as file:
        others = threading.active_count()
        await ask_and_leave(weights, file.path, file)
        await ask_and_leave(weights, other, file)
        read_by = threading.active_count() - others
        file.end()
        assert await weights.of(str(other)) == sha256(b"fine tuned").hexdigest()
        assert read_by == 1


async def test_a_file_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    weights, path = Weights(""), tmp_path / "model.gguf"
    path.mkdir()
    for _ in range(2):
        with pytest.raises(RefusalError, match="cannot be read here"):
            await weights.of(str(path))
    path.rmdir()
    path.write_bytes(b"weights")
    assert await weights.of(str(path)) == sha256(b"weights").hexdigest()


async def test_who_ends_does_not_wait_until_a_large_file_is_read_to_its_end(tmp_path: Path) -> None:
    weights = Weights("")
    with endless(tmp_path / "model.gguf") as file:
        await ask_and_leave(weights, file.path, file)
        hashing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hashing:
            task.cancel()  # as the end of a loop does
        await asyncio.gather(*hashing, return_exceptions=True)
        await eventually(file.is_left)


async def test_a_courier_learns_the_digest_of_a_large_file_for_which_nobody_waits(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        before = await home.fingerprint()
        with endless(tmp_path / "large.gguf") as file:
            home.engines["b"].model = file.path
            with pytest.raises(CourierError, match="does not answer"):
                await home.client("b").health(0.2)
            await eventually(file.read)
            await eventually(lambda: "health ended" in home.log.read_text())
            file.end()
            assert await home.fingerprint() != before


@pytest.mark.lengthy
async def test_while_a_large_file_is_read_a_courier_says_so_to_whoever_asks_and_in_its_log(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        before = await home.fingerprint()
        home.engines["a"].slots[0] = [5, 6, 7]
        with endless(tmp_path / "large.gguf") as file:
            home.engines["b"].model = file.path
            health = await home.client("b").health(5.0)
            assert (health.fingerprint, health.reason) == (None, "the model's file is being read for its digest")
            with pytest.raises(CourierError, match=r"the other courier refuses: .* is being read for its digest"):
                await home.client("a").ship(home.order(home.ticket(before)), 10.0)
            await eventually(file.read)
            file.end()
            assert await home.fingerprint() != before
        told = [event for event in home.events() if event["event"] == "nothing can be handed over"]
        assert [event["reason"] for event in told] == [health.reason]


async def test_that_a_large_file_could_not_be_read_to_its_end_is_told_to_who_asks_next(tmp_path: Path) -> None:
    weights, (first, second) = Weights(""), split(tmp_path)
    second.mkdir()
    with endless(first) as file:
        await ask_and_leave(weights, first, file)
        file.end()
        with pytest.raises(RefusalError, match=rf"{second.name} cannot be read here \(Is a directory\)"):
            await weights.of(str(first))


def split(folder: Path) -> list[Path]:
    return [folder / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]


async def test_a_model_in_several_files_is_another_where_any_of_them_is(tmp_path: Path) -> None:
    weights, (first, second) = Weights(""), split(tmp_path)
    first.write_bytes(b"no tensors")
    for tensors in (b"tuned", b"tuned otherwise"):
        second.write_bytes(tensors)
        assert await weights.of(str(first)) == sha256(b"no tensors" + tensors).hexdigest()


async def test_of_a_model_in_several_files_the_one_that_is_missing_is_named(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    first.write_bytes(b"no tensors")
    with pytest.raises(RefusalError, match=rf"{second.name} cannot be read here \(No such file or directory\)"):
        await Weights("").of(str(first))


@pytest.mark.parametrize("name", ["m-00001-of-00001.gguf", "m-00001-of-00000.gguf", "m-00002-of-00009.gguf"])
async def test_what_is_only_called_like_a_part_is_a_model_in_one_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"all of it")
    assert await Weights("").of(str(tmp_path / name)) == sha256(b"all of it").hexdigest()
