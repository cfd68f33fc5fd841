"""`tidegate test` and `tidegate policy diff`, as a build server runs them."""

import asyncio
import json
import multiprocessing
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.http.harness import eventually
from tests.sim.test_suite import POOR, PRIVATE, WORLD, repository
from tidegate.cli.main import main
from tidegate.sim.scenario import load

PAGE = Path("docs/explanation/policy-tests.md")


@pytest.mark.lengthy
def test_every_bound_of_every_scenario_has_to_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.lengthy
def test_another_policy_is_tested_in_the_place_of_the_scenarios_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    (tmp_path / "poor.toml").write_text(POOR)
    assert main(["test", str(folder / "s0.toml")]) == 0
    assert main(["test", str(folder / "s0.toml"), "--policy", str(tmp_path / "poor.toml")]) == 1
    assert "bounds.attainment_min" in capsys.readouterr().out


@pytest.mark.lengthy
def test_the_difference_of_two_policies_is_a_report_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
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
    (row,) = (line.strip("| ").split(" | ") for line in lines if line.startswith("| s0 | "))
    assert " ".join(row).split() in [line.split() for line in said.splitlines()]
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


def test_a_trace_that_is_damaged_is_told_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    (folder / "day.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-01 00:00:00.0000000,1,many\n")
    traffic = 'model = "assistant"\ntrace = "day.csv"\nformat = "azure"\n'
    (folder / "s0.toml").write_text(WORLD.split("model =")[0] + traffic)
    assert main(["policy", "diff", "-", "-", str(folder)]) == 2
    complained = capsys.readouterr().err
    assert "day.csv:2: expected" in complained
    assert "remedy:" in complained


@pytest.mark.parametrize("verb", [["test"], ["policy", "diff", "-", "-"]])
async def test_a_simulation_that_is_killed_is_told_of(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    playing = asyncio.ensure_future(asyncio.to_thread(main, [*verb, str(folder)]))
    await eventually(lambda: bool(multiprocessing.active_children()))
    for process in multiprocessing.active_children():
        process.kill()
    assert await playing == 2
    assert "ended before its end; is there memory enough?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        (["test", "docs/images"], "--junit"),
        (["policy", "diff", "none", "none", "none"], "--markdown"),
        (["preview", "none", "--journal", "none"], "--html"),
        (["shadow", "none", "--config", "none"], "--html"),
        (["backtest", "none"], "--publish"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_read(
    verb: list[str], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, option, str(tmp_path / "none" / "out")]) == 2
    assert f"{option}: " in capsys.readouterr().err


def test_the_scenario_of_the_page_is_one(tmp_path: Path) -> None:
    folder = repository(tmp_path, config=PRIVATE.replace("interactive", "private"))
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    (folder / "page.toml").write_text(found[1])
    assert load(folder / "page.toml").name == "page"
