"""One browser and one journal of each kind for all tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.pages import CHROMIUM, FLAGS, dashboard
from playwright.sync_api import Browser, sync_playwright

from tests.pages.shown import HANDOVERS, MIXED, played


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of what stayed, was held, and went away."""
    return played(MIXED, tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def address(mixed: Path) -> Iterator[str]:
    """The dashboard of that."""
    with dashboard(mixed) as at:
        yield at


@pytest.fixture(scope="module")
def handovers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a journal with prompts that were computed elsewhere."""
    with dashboard(played(HANDOVERS, tmp_path_factory.mktemp("handovers"))) as at:
        yield at
