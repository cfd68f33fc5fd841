"""`tidegate check`: what it says of a configuration, for people."""

from pathlib import Path

import pytest

from tests.config.test_malformed import GOOD
from tidegate.cli.main import main


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
    assert "journal j[/b]," in said
    assert " n[awq], m[/x] " in said
    assert 'model in ["n[awq]", "m[/x]"]' in said
