"""The pictures in docs/images/dashboard, made anew where TIDEGATE_PICTURES is set: every page, in light and dark."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.pages import dashboard
from playwright.sync_api import Browser, expect

from tests.pages.shown import PATIENT_MS, Looked, played

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("TIDEGATE_PICTURES" not in os.environ, reason="TIDEGATE_PICTURES asks for no pictures"),
]

FOLDER = Path("docs/images/dashboard")
SCENARIO = Path("scenarios/rack-and-burst.toml")
TALL_MAX = 2000


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of four busy minutes."""
    folder = tmp_path_factory.mktemp("busy")
    scenario = folder / SCENARIO.name
    scenario.write_text(SCENARIO.read_text().replace("duration_s = 900", "duration_s = 240"))
    with dashboard(played(str(scenario), folder / "journal")) as at:
        yield at


def test_pictures_of_every_page(browser: Browser, busy: str, address: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    page = Looked(browser).at(f"{address}/#/audit")
    page.get_by_role("button", name="Audit now").click()
    page = Looked(browser).at(f"{busy}/#/requests?tier=remote&why=worth_the_price")
    pages = {
        "overview": f"{busy}/#/overview?minutes=15",
        "requests": f"{busy}/#/requests",
        "decision": f"{busy}/{page.locator('tbody a').first.get_attribute('href')}",
        "endpoints": f"{busy}/#/endpoints",
        "break-even": f"{busy}/#/surface",
        "login": f"{busy}/login",
    }
    pictures(browser, pages)
    page = Looked(browser).at(f"{address}/#/audit")
    expect(page.get_by_text("Other rules, on the same requests")).to_be_visible(timeout=10 * PATIENT_MS)
    pictures(browser, {"audit": f"{address}/#/audit"})


def pictures(browser: Browser, pages: dict[str, str]) -> None:
    for scheme in ("light", "dark"):
        for kind, wide in (("desk", 1280), ("phone", 360)):
            looked = Looked(browser, wide=wide, scheme=scheme)
            for name, at in pages.items():
                page = looked.at(at)
                tall = page.evaluate("document.documentElement.scrollHeight")
                page.set_viewport_size({"width": wide, "height": min(TALL_MAX, max(640, tall))})
                expect(page.locator(".chart:visible:not(:has(canvas))")).to_have_count(0)
                shot = page.context.new_cdp_session(page).send(
                    "Page.captureScreenshot", {"format": "webp", "quality": 82}
                )
                (FOLDER / f"{name}-{kind}-{scheme}.webp").write_bytes(base64.b64decode(shot["data"]))
                page.set_viewport_size({"width": wide, "height": 640})
