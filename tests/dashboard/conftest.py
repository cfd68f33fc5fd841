"""Tests here may be coroutines, as in the gateway's suite; and ten minutes of a simulated journal to look at."""

import shutil
from pathlib import Path

import pytest

from tests.gateway.conftest import pytest_pyfunc_call
from tidegate.cli.main import main

__all__ = ["pytest_pyfunc_call"]

SCENARIO = Path(__file__).parents[2] / "scenarios" / "laptop-and-cloud.toml"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a journal with one segment of 125 requests; to read."""
    folder = tmp_path_factory.mktemp("recorded")
    assert main(["simulate", str(SCENARIO), "--json", str(folder / "figures.json"), "--journal", str(folder)]) == 0
    return folder


@pytest.fixture
def journal(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it to write beside."""
    folder = tmp_path / "journal"
    folder.mkdir()
    for path in recorded.glob("journal-*.jsonl"):
        shutil.copy(path, folder)
    return folder
