"""`tidegate test` and `tidegate policy diff`, as a build server runs them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.sim.test_suite import POOR, PRIVATE, repository
from tidegate.cli.main import main


@pytest.mark.lengthy
def test_every_bound_of_every_scenario_has_to_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = repository(tmp_path, "attainment_min = 0.5", "away_share_max = 0")
    results = tmp_path / "results.xml"
    assert main(["test", str(folder), "--junit", str(results), "--jobs", "2"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "passed  s0, seed 0: 1 bounds"
    assert said[1] == "failed  s1, seed 0: 1 bounds"
    assert said[2].strip().startswith("bounds.away_share_max = 0, found 1")
    assert said[3] == "1 passed, 1 failed"
    suite = ElementTree.parse(results).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert [case.get("classname") for case in suite] == ["s0", "s1"]
    assert "away_share_max" in str(suite[1][0].get("message"))
    # The configuration is mended, and the scenarios stay.
    repository(tmp_path, config=PRIVATE)
    assert main(["test", str(folder), "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["scenario"], one["seed"]) for one in found] == [("s0", 0), ("s0", 1), ("s1", 0), ("s1", 1)]


def test_another_policy_is_tested_in_the_place_of_the_scenarios_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    (tmp_path / "poor.toml").write_text(POOR)
    assert main(["test", str(folder / "s0.toml")]) == 0
    assert main(["test", str(folder / "s0.toml"), "--policy", str(tmp_path / "poor.toml")]) == 1
    assert "bounds.attainment_min" in capsys.readouterr().out


def test_the_difference_of_two_policies_is_a_report_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    folder = repository(tmp_path, "attainment_min = 0.9")
    (tmp_path / "poor.toml").write_text(POOR)
    report = tmp_path / "report.md"
    asked = ["policy", "diff", "-", str(tmp_path / "poor.toml"), str(folder)]
    assert main([*asked, "--markdown", str(report)]) == 1
    said = capsys.readouterr().out
    assert 'rule.ours.to: (not written) -> ["laptop"]\n' in said
    assert "broken: s0 bounds.attainment_min" in said
    lines = report.read_text().splitlines()
    assert '- `rule.ours.to`: (not written) → ["laptop"]' in lines
    assert "**broken**: s0 bounds.attainment_min" in lines
    assert any(line.startswith("| s0 | ") for line in lines)
    assert main(["policy", "diff", str(tmp_path / "poor.toml"), "-", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scenarios"][0]["mended"] == ["bounds.attainment_min"]
    assert [one["path"] for one in found["settings"]] == ["rule.ours.to", "rule.ours.when"]


def test_what_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    assert main(["test", str(tmp_path / "nowhere")]) == 1
    assert "there is no such file" in capsys.readouterr().out
    assert main(["policy", "diff", "-", str(tmp_path / "nowhere.toml"), str(folder)]) == 2
    assert "NEW" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text("[policy]\nseeds = 1\n")
    assert main(["policy", "diff", str(tmp_path / "wrong.toml"), "-", str(folder)]) == 2
    assert "policy.seeds" in capsys.readouterr().err
