"""The files: what is vendored is what was published, and nothing of ours writes markup, style or script."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

from tidegate.core.flips import Axis
from tidegate.core.rows import Came
from tidegate.core.timeline import What
from tidegate.dashboard.pages import FOLDER

VENDORED = FOLDER / "assets" / "vendor"
OURS = sorted(file for file in FOLDER.rglob("*") if file.suffix in (".js", ".html") and VENDORED not in file.parents)
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\("
)
INLINE = re.compile(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|javascript:")
ELSEWHERE = re.compile(r"""["'(]\s*(?:https?:)?//(?!www\.w3\.org/)""")


def test_what_is_vendored_is_what_was_published() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (VENDORED / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {file.name for file in VENDORED.iterdir() if file.suffix in (".js", ".woff2")}
    for name, digest in rows:
        assert (name, sha256((VENDORED / name).read_bytes()).hexdigest()) == (name, digest)


def test_whatever_the_core_tells_of_a_request_has_words() -> None:
    for module, kind in (("flips.js", Axis), ("pages/decision.js", What), ("rows.js", Came)):
        text = (FOLDER / "assets" / module).read_text()
        assert [one.value for one in kind if f"{one.value}: " not in text] == []


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(FOLDER)))
def test_no_file_of_ours_makes_markup_of_data_or_asks_anybody_else(file: Path) -> None:
    text = file.read_text()
    for what in (MARKUP, INLINE, ELSEWHERE):
        assert what.findall(text) == []
