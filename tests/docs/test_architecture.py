"""ARCHITECTURE.md names every file of the package, in the row of its folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tidegate"
ROWS = {
    row.split("`")[1].rstrip("/"): row
    for row in (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    if re.match(r"\| `\w+/` \|", row)
}


@pytest.mark.parametrize("folder", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()))
def test_every_file_of_a_folder_is_named_in_its_row(folder: str) -> None:
    named = {word.rpartition("/")[2] for word in re.findall(r"`([\w/]+)`", ROWS[folder])}
    files = {path.stem for path in (PACKAGE / folder).rglob("*.py") if path.stem != "__init__"}
    assert not files - named, f"`{folder}/`: {', '.join(sorted(files - named))} is not in ARCHITECTURE.md"
