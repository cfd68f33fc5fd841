"""The main job as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.pages import CHROMIUM, FLAGS, dashboard
from playwright.sync_api import expect, sync_playwright

from tests.pages.shown import PATIENT_MS, Looked
from tidegate.core.why import WHY_TEXT, Why
from tidegate.lab.tour import handing_over, scenes
from tidegate.lab.weights import cache_dir


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_serves_every_request_of_its_tour_and_prints_every_reason() -> None:
    command = [sys.executable, "-m", "tidegate.cli.main", "demo", "--once", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert ran.returncode == 0, ran.stderr
    trips = json.loads(ran.stdout)["trips"]
    handing = handing_over().asks if shutil.which("openssl") else ()
    assert len(trips) == sum(len(s.asks) for s in scenes() if not s.warm_up) + len(handing)
    for title in [ask.title for ask in handing if ask.share_of_home is not None]:
        (away,) = [trip for trip in trips if trip["title"] == title]
        stages = [stage["what"] for stage in away["stages"] if stage["what"] != "hold"]
        # Where a busy machine makes something else the better choice, it says so.
        assert stages == ["prefill", "transfer", "restore", "decode"] or "no handover this time" in ran.stderr
    assert {t["endpoint"] for t in trips} == {"local", "remote"}
    assert all(WHY_TEXT[Why(t["why"])] in ran.stderr for t in trips)
    assert sum(t["measured_ttft_s"] is not None for t in trips) >= 20
    journal: Path = cache_dir() / "demo" / "journal"
    again = [sys.executable, "-m", "tidegate.cli.main", "replay", "--json", str(journal)]
    replayed = subprocess.run(again, capture_output=True, text=True)
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["difference"] is None
    if CHROMIUM is not None:
        _finds_out(journal, CHROMIUM)


def _finds_out(journal: Path, chromium: str) -> None:
    """Two clicks tell who has never seen it why a request of the tour went away, and what would have kept it."""
    with dashboard(journal) as address, sync_playwright() as playwright:
        page = Looked(playwright.chromium.launch(executable_path=chromium, args=FLAGS)).at(f"{address}/")
        page.get_by_role("link", name="All requests").click()
        page.get_by_role("row").filter(has=page.get_by_title("remote")).first.get_by_role("link").click()
        expect(page.locator(".verdict")).to_contain_text("It went remote, to remote: ")
        expect(page.locator("#flips")).to_contain_text("at local, if", timeout=PATIENT_MS)
