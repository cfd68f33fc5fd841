"""What mypyc compiles must mean the same compiled: it drops what a class statement says besides its bases."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"][
    "mypyc"
]
# Lost, these leave a record that takes positions too, or is looked at by the garbage collector: nothing that shows.
HARMLESS = {"frozen", "kw_only", "gc"}


@pytest.mark.parametrize("module", HOOK["include"])
def test_no_compiled_record_depends_on_the_keywords_of_its_class(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text())
    keywords = {k.arg for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for k in node.keywords}
    assert keywords <= HARMLESS


@pytest.mark.parametrize("module", HOOK["include"])
def test_no_compiled_record_leaves_its_defaults_to_msgspec(module: str) -> None:
    assert "msgspec.field" not in (ROOT / module).read_text()
