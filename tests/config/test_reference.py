"""The reference page tells what the program does."""

import re
from pathlib import Path

from tidegate.config import expected
from tidegate.config.load import load
from tidegate.config.reference import TABLES, reference

PAGE = Path("docs/reference/configuration.md")


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == reference(), "run: make docs"


def test_the_example_on_the_page_is_a_good_configuration(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", reference(), re.DOTALL)
    assert example is not None
    file = tmp_path / "tidegate.toml"
    file.write_text(example[1])
    load(file, {})


def test_every_setting_says_what_it_means_within_which_bounds() -> None:
    for _, table in TABLES:
        for field in expected.fields(table):
            assert expected.description(field).endswith("."), field.name
            assert expected.words(field.type)
