"""`tidegate doctor` as a user runs it."""

import json
from pathlib import Path

import msgspec
import pytest

from tests.core.patients import played
from tidegate.cli.main import main
from tidegate.core.diagnosis import Diagnosis
from tidegate.core.model import Line, Request, Segment
from tidegate.core.replay import Replay


def written(folder: Path, lines: list[Line], segments: int = 1) -> Path:
    """A journal folder; the header of further segments has the state as replay has it then."""
    replay, cuts = Replay(), {len(lines) * number // segments for number in range(1, segments)}
    files: list[list[Line]] = [[]]
    for index, line in enumerate(lines):
        if index in cuts:
            assert replay.router is not None
            head = lines[0].fact
            assert isinstance(head, Segment)
            fresh = msgspec.structs.replace(head, state=replay.router.snapshot())
            files.append([Line(at_s=line.at_s, fact=fresh)])
        if segments > 1:
            replay.feed(line)
        files[-1].append(line)
    folder.mkdir()
    for number, file in enumerate(files):
        name = folder / f"journal-20261125T000000000Z-1-{number:06}.jsonl"
        name.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in file))
    return folder


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    found: list[Line] = []
    played(5, 250, found.append, slow_from=200)
    return found


def test_a_journal_in_which_nothing_is_wrong_has_status_0(
    tmp_path: Path, lines: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = next(index for index, line in enumerate(lines) if getattr(line.fact, "request_id", "") == "r150")
    assert main(["doctor", str(written(tmp_path / "journal", lines[:quiet]))]) == 0
    said = capsys.readouterr().out
    assert "no alarm" in said
    assert "laptop" in said


def test_a_drift_is_told_in_words_and_has_status_1(
    tmp_path: Path, lines: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(written(tmp_path / "journal", lines))]) == 1
    said = capsys.readouterr().out
    assert "alarm:" in said
    assert "times as long as it was" in said
    assert "[slower]" in said


def test_the_same_is_told_as_json_and_however_many_segments_there_are(
    tmp_path: Path, lines: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for segments in (1, 4):
        folder = written(tmp_path / f"{segments}", lines, segments)
        assert main(["doctor", "--json", str(folder)]) == 1
        found.append(capsys.readouterr().out)
    assert json.loads(found[0]) == json.loads(found[1])
    assert msgspec.json.decode(found[0], type=Diagnosis).endpoints[0].endpoint == "laptop"


def test_what_cannot_be_read_has_status_2_and_says_why(
    tmp_path: Path, lines: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no journal here" in capsys.readouterr().err
    assert main(["doctor", str(written(tmp_path / "empty", []))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "nothing is written in this journal" in err
    without = [line for line in lines[:9] if not isinstance(line.fact, Request)]
    assert main(["doctor", str(written(tmp_path / "journal", without))]) == 2
    assert "not in the journal" in capsys.readouterr().err
