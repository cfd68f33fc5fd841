"""`tidegate preview`, from a journal's folder to a table, JSON and a page."""

import json
from pathlib import Path

import pytest

from tidegate.cli.main import main

POLICY = "[class.interactive]\nslo = { ttft_ms = 700, tpot_ms = 60 }\n"


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview") / "journal"
    assert main(["simulate", "scenarios/laptop-and-cloud.toml", "--journal", str(folder)]) == 0
    return folder


def policy(folder: Path, text: str = POLICY) -> str:
    file = folder / "policy.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.lengthy
def test_a_policy_is_previewed_with_how_far_off_that_is_first(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    html = tmp_path / "page.html"
    capsys.readouterr()
    assert main(["preview", policy(tmp_path), "--journal", str(journal), "--html", str(html)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("On this journal, with the policy that was in force, the simulation is off by")
    assert said.index("off by") < said.index("simulated") < said.index("saved, $/1k") < said.index("class interactive")
    assert "Nothing was explored" in said
    assert html.read_text().startswith("<!doctype html>")
    assert main(["preview", policy(tmp_path), "--journal", str(journal), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["robust"] is None
    figures = found["preview"]
    assert figures["real"]["requests"] == figures["before"]["requests"] == figures["after"]["requests"] > 50
    assert abs(figures["backtest"]["usd"]) < 0.2
    # More is sent away where more is promised.
    assert figures["after"]["away"] >= figures["before"]["away"]


def test_what_is_no_journal_and_what_is_no_policy_are_said_so(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", policy(tmp_path), "--journal", str(tmp_path / "none")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    (empty := tmp_path / "journal.jsonl").touch()
    assert main(["preview", policy(tmp_path), "--journal", str(empty)]) == 2
    assert f"{empty}: nothing is written in this journal; see that" in capsys.readouterr().err
    assert main(["preview", policy(tmp_path, "[policy]\nheld = 1\n"), "--journal", str(journal)]) == 2
    assert "policy.held" in capsys.readouterr().err
    assert main(["preview", str(tmp_path / "nothing.toml"), "--journal", str(journal)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_journal_in_which_nobody_asked_has_no_preview(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    first = segment.read_bytes().split(b"\n", 1)[0]
    (tmp_path / segment.name).write_bytes(first + b"\n")
    assert main(["preview", policy(tmp_path), "--journal", str(tmp_path / segment.name)]) == 1
    assert "nobody asked" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_said_so(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["preview", policy(tmp_path), "--journal", str(journal), "--html", str(tmp_path / "no" / "p.html")]) == 2
    )
    assert "--html" in capsys.readouterr().err


@pytest.mark.lengthy
def test_what_a_process_left_that_could_not_start_changes_nothing(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    both = tmp_path / "both"
    both.mkdir()
    (both / segment.name).write_bytes(segment.read_bytes())
    # Its header alone, with other endpoints, and the newest of all.
    header = segment.read_bytes().split(b"\n", 1)[0].replace(b'"laptop"', b'"another"')
    (both / "journal-20991231T000000000Z-1-000000.jsonl").write_bytes(header + b"\n")
    said = []
    for folder in (journal, both):
        capsys.readouterr()
        assert main(["preview", policy(tmp_path), "--journal", str(folder), "--json"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
