"""What the demo tells can be copied into a shell, and says why something failed."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.telemetry.test_replay import stormed
from tidegate.core.model import Decision
from tidegate.core.timeline import Stage, What
from tidegate.lab.guide import Guide
from tidegate.lab.trip import Trip
from tidegate.telemetry.reading import read

FAILED = Stage(
    what=What.TRANSFER, endpoint="remote", target="local", began_s=1.0, took_s=0.5, failed=True, cause="ticket"
)


def trip(request_id: str = "r", stages: tuple[Stage, ...] = ()) -> Trip:
    return Trip(
        id=request_id,
        title="a promise",
        endpoint="local",
        why="cheapest_on_time",
        held_s=0.0,
        predicted_ttft_s=1.0,
        measured_ttft_s=1.5,
        prompt_tokens=100,
        output_tokens=10,
        cost_usd=0.0,
        others=(),
        prefilled="remote" if stages else "",
        stages=stages,
    )


def told(folder: Path, about: Trip) -> list[str]:
    text = io.StringIO()
    guide = Guide(Console(file=text, width=80, highlight=False))
    guide.trip(about, warm_up=False)
    guide.not_handed_over(about, folder)
    return text.getvalue().splitlines()


def test_a_stage_that_failed_says_why(tmp_path: Path) -> None:
    said = told(tmp_path, trip(stages=(FAILED,)))
    assert "      transfer remote > local: 0.50 s; it failed (ticket)" in said


@pytest.mark.lengthy
@pytest.mark.parametrize("found", [True, False])
def test_the_command_that_says_why_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    folder = tmp_path / "a [folder]"
    (folder / "journal").mkdir(parents=True)
    stormed(folder / "journal")
    request_id = next(line.fact.request_id for line in read(folder / "journal") if isinstance(line.fact, Decision))
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{beside}:/usr/bin:/bin" if found else "/usr/bin:/bin")
    command = told(folder, trip(request_id))[-1].strip()
    assert command.startswith("tidegate explain" if found else str(beside))
    done = subprocess.run(command, shell=True, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, request_id in done.stdout) == (0, True), done.stderr
