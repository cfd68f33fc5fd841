"""What the status of a verb is where nobody takes what it says: a reader who has left, a disk that is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_doctor import written
from tests.config.test_malformed import GOOD
from tests.core.patients import played
from tidegate.core.model import Line

# As it is by default, where what is printed waits for more of it, and as it is in most containers.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENVIRONMENTS = (BUFFERED, BUFFERED | {"PYTHONUNBUFFERED": "1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a journal in which all is well, one that alarms, and a configuration."""
    found: list[Line] = []
    played(5, 250, found.append, slow_from=200)
    folder = tmp_path_factory.mktemp("status")
    quiet = next(index for index, line in enumerate(found) if getattr(line.fact, "request_id", "") == "r150")
    written(folder / "well", found[:quiet])
    written(folder / "alarming", found)
    (folder / "good.toml").write_text(GOOD)
    return folder


def ended(
    folder: Path, verb: str, stdout: int, *, stderr: int = subprocess.PIPE, env: dict[str, str] = BUFFERED
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate.cli.main", *verb.split()]
    return subprocess.run(command, cwd=folder, stdout=stdout, stderr=stderr, env=env, text=True, check=False)


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("doctor well", 0),
        ("doctor alarming", 1),
        ("doctor alarming --json", 1),
        ("check good.toml", 0),
        ("explain --journal well", 0),
        ("journal ls well", 0),
        ("replay well", 0),
        ("test --json no-scenario", 1),
        ("test no-scenario", 1),
    ],
)
def test_whoever_reads_the_output_may_leave_and_the_status_is_what_it_would_have_been(
    folder: Path, verb: str, status: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for env in ENVIRONMENTS:
            done = ended(folder, verb, writing, env=env)
            assert (done.returncode, done.stderr) == (status, "")
    finally:
        os.close(writing)


@pytest.mark.lengthy
def test_what_was_asked_wrongly_is_so_also_where_nobody_reads_why(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended(folder, "check none.toml", writing, stderr=writing).returncode == 2
    finally:
        os.close(writing)


@pytest.mark.lengthy
@pytest.mark.parametrize("verb", ["doctor alarming", "journal show well", "journal show well --json", "version"])
def test_what_a_full_disk_does_not_take_is_no_alarm_and_is_told_in_a_line(folder: Path, verb: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        for env in ENVIRONMENTS:
            done = ended(folder, verb, full, env=env)
            said = "tidegate: what it says cannot be written: No space left on device\n"
            assert (done.returncode, done.stderr) == (2, said)
        # A log that both go into.
        assert ended(folder, verb, full, stderr=full).returncode == 2
    finally:
        os.close(full)


@pytest.mark.lengthy
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("version --json", 0),
        ("version", 0),
        ("doctor alarming --json", 1),
        ("journal show well --json", 0),
        ("check none.toml", 2),
        ("check $(printf '\\377').toml", 2),
        ("status --admin 127.0.0.1:1 --json", 2),
        ("simulate --json", 2),
    ],
)
def test_whoever_closes_an_output_wants_nothing_said_there_and_has_the_status(
    folder: Path, verb: str, status: int, closed: str
) -> None:
    command = f"{sys.executable} -m tidegate.cli.main {verb} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, env=BUFFERED, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.lengthy
def test_a_simulation_has_its_status_where_nobody_wants_its_figures() -> None:
    command = f"{sys.executable} -m tidegate.cli.main simulate scenarios/laptop-and-cloud.toml --json >&-"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0


@pytest.mark.lengthy
@pytest.mark.parametrize("columns", ["0", "00"])
def test_what_is_said_is_said_also_where_a_terminal_has_no_columns(folder: Path, columns: str) -> None:
    for verb, said in (("check good.toml", "good.toml is good."), ("check none.toml", "there is no such file")):
        done = ended(folder, verb, subprocess.PIPE, env=BUFFERED | {"COLUMNS": columns})
        assert said in done.stdout + done.stderr
