"""`tidegate backtest`, from a journal to a table, JSON, metrics and an exit status."""

import json
from pathlib import Path

import msgspec
import pytest

from tests.sim.week import Week
from tidegate.cli.main import main
from tidegate.core.model import Line
from tidegate.telemetry.segments import SegmentName


def written(folder: Path, lines: list[Line]) -> Path:
    folder.mkdir(parents=True)
    name, _ = SegmentName.first(1_000.0).create(folder)
    (folder / str(name)).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("backtest") / "journal", Week(count=500).lines)


@pytest.mark.lengthy
def test_a_journal_is_held_against_itself_and_published(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    metrics = tmp_path / "tidegate.prom"
    assert main(["backtest", str(journal), "--publish", str(metrics)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A twin of 250 requests, asked the 250 that came from 1970-01-01T00:1")
    assert said.rstrip().endswith("no alarm")
    assert [line.split("{")[0] for line in metrics.read_text().splitlines() if "ttft" in line] == [
        "tidegate_simulator_error",
        "tidegate_simulator_drifted",
    ]
    assert 'tidegate_simulator_drifted{figure="ttft"} 0\n' in metrics.read_text()
    assert main(["backtest", str(journal), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["drifted"] == []
    assert [one["figure"] for one in found["off"]] == ["kept", "away", "dollars", "ttft", "e2e"]


@pytest.mark.lengthy
def test_requests_that_the_journal_ended_before_are_counted_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    lines = [line for line in Week(count=500).lines if getattr(line.fact, "request_id", "") != "r499"]
    folder = written(tmp_path / "journal", lines)
    main(["backtest", str(folder)])
    assert "1 requests are in neither, since a process or the journal ended" in capsys.readouterr().out
    main(["backtest", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["unended"] == 1


@pytest.mark.lengthy
def test_what_is_too_far_off_is_an_alarm_and_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    slow = Week(count=900, befalls=lambda world, _, api: world.loop.at(1_045.0, setattr, api.api, "slowdown", 8.0))
    assert main(["backtest", str(written(tmp_path / "journal", slow.lines))]) == 1
    said = capsys.readouterr().out
    assert "too far" in said
    assert "alarm:" in said


def test_what_cannot_be_told_is_status_two_and_says_why(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["backtest", str(empty := written(tmp_path / "empty", []))]) == 2
    assert f"{empty}: nothing is written in this journal; see that" in capsys.readouterr().err
    assert main(["backtest", str(written(tmp_path / "few", Week(count=50).lines))]) == 2
    assert "too few" in capsys.readouterr().err
    link = tmp_path / "a.prom"
    link.symlink_to(tmp_path / "none" / "a.prom")
    for nowhere in (link, link.readlink()):
        assert main(["backtest", str(journal), "--publish", str(nowhere)]) == 2
        assert f"{nowhere} cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["backtest", str(journal), "--ratio", "0"])
    assert "no number above 0" in capsys.readouterr().err


def test_runs_that_were_at_work_at_the_same_time_are_told_of_by_all_who_read_them_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "journal", Week(count=50).lines)
    (segment,) = folder.iterdir()
    (folder / segment.name.replace("-000000", "9-000000")).write_bytes(segment.read_bytes())
    for verb in ("backtest", "doctor"):
        assert main([verb, str(folder)]) in (0, 1, 2)
        told = capsys.readouterr()
        assert "2 runs overlap in this folder" in told.out + told.err
