"""`tidegate shadow`, from another gateway's log to a table, JSON, a page and a journal."""

import json
from pathlib import Path

import pytest

from tests.sim.foreign_days import configuration, day, log
from tidegate.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "tidegate.toml").write_text(configuration())
    log(folder / "log.jsonl", day("cheapest"))
    return folder


def asked(folder: Path, *more: str) -> list[str]:
    return ["shadow", str(folder / "log.jsonl"), "--config", str(folder / "tidegate.toml"), *more]


@pytest.mark.lengthy
def test_a_log_is_shadowed_with_how_far_off_that_is_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    html, journal = tmp_path / "page.html", tmp_path / "journal"
    assert main(asked(folder, "--html", str(html), "--journal", str(journal))) == 0
    said = capsys.readouterr().out
    assert said.startswith("With each request sent where this log says it went, the simulation is off by")
    assert said.index("off by") < said.index("Tidegate would have spent") < said.index("the log says")
    assert said.rstrip().endswith("Whether answers are as good was not compared.")
    assert html.read_text().startswith("<!doctype html>")
    # What it would have decided can be asked why, and comes out again.
    assert main(["replay", str(journal), "--jobs", "1"]) == 0
    assert main(["explain", "people-7", "--journal", str(journal)]) == 0
    assert "people-7" in capsys.readouterr().out


@pytest.mark.lengthy
def test_what_a_log_says_is_no_mark_up_and_moves_no_cursor(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        record["metadata"]["user_api_key_alias"] = ("[/prod]", "[prod] team", "\x1b[2Jteam")[number % 3]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    assert main(["shadow", str(tmp_path / "log.jsonl"), "--config", str(folder / "tidegate.toml")]) == 0
    said = capsys.readouterr().out
    assert "key [/prod]" in said
    assert "key [prod] team" in said
    assert "\x1b" not in said


@pytest.mark.lengthy
def test_json_has_all_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(folder, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    figures = found["preview"]
    assert figures["real"]["requests"] == figures["before"]["requests"] == figures["after"]["requests"]
    assert found["records"] == figures["real"]["requests"]
    assert found["gained"] > found["missed"]


@pytest.mark.lengthy
def test_a_budget_is_in_force_for_tidegate_and_not_for_what_the_log_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tidegate.toml").write_text(f"{configuration()}\n[budget]\nusd_per_day = 0.01\npace = false\n")
    command = ["shadow", str(folder / "log.jsonl"), "--config", str(tmp_path / "tidegate.toml"), "--json"]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)["preview"]
    spent_usd = {name: figures[name]["usd_per_1k"] * figures[name]["requests"] / 1000.0 for name in ("before", "after")}
    assert spent_usd["after"] <= 0.01 < spent_usd["before"]


def test_what_cannot_be_followed_is_said_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(folder, "--at", "cloud")) == 2
    assert "write --at NAME=ENDPOINT" in capsys.readouterr().err
    assert main(asked(folder, "--at", "x=clod")) == 2
    assert "did you mean `cloud`?" in capsys.readouterr().err
    assert main(["shadow", str(folder / "log.jsonl"), "--config", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.log").write_text("GET / 200\n")
    for wrong in ("none", "empty", "other.log"):
        assert main(["shadow", str(tmp_path / wrong), "--config", str(folder / "tidegate.toml")]) == 2
        assert f"tidegate shadow: {tmp_path / wrong}" in capsys.readouterr().err
    (tmp_path / "journal-20260101T000000000Z-7-000000.jsonl").write_text("")
    assert main(asked(folder, "--journal", str(tmp_path))) == 2
    assert "name another folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(asked(folder, "--journal", str(tmp_path / "file" / "journal"))) == 2
    assert "--journal" in capsys.readouterr().err


def test_a_log_of_others_says_what_to_write_down(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.toml"
    other.write_text(
        (folder / "tidegate.toml").read_text().replace("api.cloud.example", "eu.example").replace(":8080", ":1")
    )
    assert main(["shadow", str(folder / "log.jsonl"), "--config", str(other)]) == 1
    assert "--at NAME=ENDPOINT" in capsys.readouterr().err
    at = ["--at", "api.cloud.example=cloud", "--at", "127.0.0.1=laptop"]
    assert main(["shadow", str(folder / "log.jsonl"), "--config", str(other), *at]) == 0
