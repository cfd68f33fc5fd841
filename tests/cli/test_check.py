"""`tidegate check`: what it says of a configuration, for people, and `serve` when it begins."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.config.test_malformed import GOOD
from tidegate.cli.main import main
from tidegate.state.keys import KeyFile


def test_what_is_in_brackets_is_part_of_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "[a]" / "[" / "b].toml"
    file.parent.mkdir(parents=True)
    rule = '[[rule]]\nname = "one"\nwhen = \'model in ["n[awq]", "m[/x]"]\'\nto = ["mine"]\n'
    file.write_text('[gateway]\nkeys = ""\njournal = "j[/b]"\n' + GOOD.replace('"m"', '"n[awq]", "m[/x]"') + rule)
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{file} is good.")
    assert f"journal {file.parent}/j[/b]," in said
    assert " n[awq], m[/x] " in said
    assert 'model in ["n[awq]", "m[/x]"]' in said


def test_a_name_that_is_long_is_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / ("a-" * 40 + "folder") / "tidegate.toml"
    file.parent.mkdir()
    file.write_text(GOOD)
    assert main(["check", str(file)]) == 0
    assert f"{file} is good.\n" in capsys.readouterr().out


def test_a_name_that_is_not_text_is_escaped_in_json(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    name, shown = os.fsdecode(b"\xff"), "\\udcff"
    assert main(["check", "--json", f"{name}.toml"]) == 2
    (problem,) = json.loads(capfdbinary.readouterr().out)["problems"]
    assert (problem["file"], problem["message"]) == (f"{shown}.toml", "there is no such file")
    assert main(["status", "--json", "--admin", f"{name}:1"]) == 2
    assert shown in json.loads(capfdbinary.readouterr().out)["unreachable"]


def test_files_are_named_as_they_are_found_from_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(KeyFile(tmp_path / "keys.db", write=True)):
        pass
    file = tmp_path / "there" / "tidegate.toml"
    file.parent.mkdir()
    file.write_text('[gateway]\nkeys = "../keys.db"\n' + GOOD)
    assert main(["check", "there/tidegate.toml"]) == 0
    assert "keys there/../keys.db, journal there/journal, learned state there/learned.sqlite" in capsys.readouterr().out
    assert main(["check", "there/tidegate.toml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["keys"], told["journal"]) == ("there/../keys.db", "there/journal")
    file.write_text('[gateway]\njournal = ""\n' + GOOD)
    assert main(["check", str(file)]) == 0
    assert "keys none, journal off, learned state off" in capsys.readouterr().out


@pytest.mark.lengthy
def test_whoever_serves_is_told_where_the_journal_is(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text('[gateway]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nlog = "log"\n' + GOOD)
    command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as gateway:
        assert gateway.stderr is not None
        said = gateway.stderr.readline()
        gateway.terminate()
    expected = f"tidegate: clients http://127.0.0.1:0/v1, admin http://127.0.0.1:0, journal {tmp_path}/journal\n"
    assert (said, gateway.returncode) == (expected, 0)


def test_what_is_no_file_of_keys_is_none_here_as_it_is_when_it_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, keys = tmp_path / "tidegate.toml", tmp_path / "keys.db"
    file.write_text('[gateway]\nkeys = "keys.db"\n' + GOOD)
    keys.write_bytes(b"x")
    assert main(["check", str(file), "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["file"], problem["path"]) == (str(file), "gateway.keys")
    assert str(keys) in problem["message"]
    assert problem["remedy"]
    assert keys.read_bytes() == b"x"
