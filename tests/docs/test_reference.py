from pathlib import Path

import pytest
from docs.reference import FOLDER, PAGES

from tidegate.config.load import load
from tidegate.core.why import WHY_TEXT, Why

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


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = (ROOT / "Makefile").read_text()
    for command in ("run", "test"):
        assert f"\nmake {command}\n" in (ROOT / "README.md").read_text()
        assert f"\n{command}:" in targets
