"""ARCHITECTURE.md names every file of the package, in the section of its folder, and none that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tidegate"
# `### core` up to the next heading.
SECTIONS: dict[str, str] = dict(
    re.findall(r"^### (\w+)\n(.*?)(?=^#)", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL | re.MULTILINE)
)
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def _named(text: str) -> set[str]:
    return set(re.findall(r"`([\w./]+)`", text))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_folder_is_named_in_the_bullets_of_its_section(folder: str) -> None:
    bullets = SECTIONS.get(folder, "").partition("\n- ")[2]
    paths = (path.relative_to(PACKAGE / folder) for path in (PACKAGE / folder).rglob("*.py"))
    files = {path.with_suffix("").as_posix() for path in paths if path.stem != "__init__"}
    missing = files - _named(bullets)
    assert not missing, f"{folder}/: {', '.join(sorted(missing))} is not in ARCHITECTURE.md"


@pytest.mark.parametrize("folder", FOLDERS)
def test_whatever_a_section_names_is_there(folder: str) -> None:
    of_folder = PACKAGE / folder
    named = _named(SECTIONS[folder].partition("Read first:")[2])
    assert named, f"the section of {folder}/ says nothing after `Read first:`"
    unknown = {name for name in named if not any((of_folder / (name + end)).exists() for end in ("", ".py"))}
    assert not unknown, f"{folder}/: {', '.join(sorted(unknown))} is in ARCHITECTURE.md, but not there"
