import re
from pathlib import Path

import pytest
from docs.reference import FOLDER, PAGES

from tidegate.config import expected
from tidegate.config.load import load
from tidegate.core.model import replace
from tidegate.core.why import WHY_TEXT, Why
from tidegate.sim.reference import EXAMPLE, TABLES
from tidegate.sim.reference import reference as scenarios
from tidegate.sim.report import report
from tidegate.sim.scenario import parse
from tidegate.sim.schema import FAULT_TEXT, FaultKind
from tidegate.sim.stage import play

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_says_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run make docs"


def test_every_reason_has_its_words() -> None:
    assert set(WHY_TEXT) == set(Why)


def test_the_configuration_in_the_readme_is_good(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    file = tmp_path / "tidegate.toml"
    file.write_text(text)
    assert load(file, {"CLOUD_API_KEY": "secret"}).endpoints.keys() == {"local", "cloud"}


def test_what_the_readme_promises_in_the_place_of_what_is_usual_leaves_none_of_it_out(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (slo,) = re.findall(r"`(slo = \{[^`]*\})`", text)
    file = tmp_path / "tidegate.toml"
    file.write_text(text.split("```toml\n")[1].split("```")[0])
    usual = load(file, {"CLOUD_API_KEY": "secret"}).classes["interactive"].slo
    file.write_text(f"{file.read_text()}[class.interactive]\n{slo}\n")
    written = load(file, {"CLOUD_API_KEY": "secret"}).classes["interactive"].slo
    assert written != usual
    assert written == replace(usual, ttft_ms=written.ttft_ms)


def test_the_scenario_on_its_page_is_a_good_one_and_keeps_its_bounds() -> None:
    assert EXAMPLE in scenarios()
    scenario = parse(EXAMPLE, "example.toml")
    assert report(scenario, "own", play(scenario)).holds


def test_every_setting_of_a_scenario_says_what_it_means_within_which_bounds() -> None:
    for _, table in TABLES:
        for field in expected.fields(table):
            assert expected.description(field).endswith("."), field.name
            assert expected.words(field.type)


def test_every_kind_of_fault_has_its_words() -> None:
    assert set(FAULT_TEXT) == set(FaultKind)


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = (ROOT / "Makefile").read_text()
    for command in ("run", "test"):
        assert f"\nmake {command}\n" in (ROOT / "README.md").read_text()
        assert f"\n{command}:" in targets


def test_the_index_of_the_docs_has_every_page() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text()
    for page in sorted(docs.glob("*/*.md")):
        assert f"({page.relative_to(docs)})" in index, page
