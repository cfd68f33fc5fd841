"""The dashboard of a journal in a process of its own, and how soon a real browser shows its pages."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIDEGATE = (sys.executable, "-m", "tidegate.cli.main")
# Tests may run as root, whom the browser's sandbox does not serve.
FLAGS = ("--no-sandbox",)
# It may come to be known only after it has happened.
_PAINTED_MS = """new Promise((done) => new PerformanceObserver((list) => {
  const [first] = list.getEntriesByName("first-contentful-paint");
  if (first) done(first.startTime);
}).observe({ type: "paint", buffered: true }))"""


@contextmanager
def dashboard(journal: Path, port: int = 0) -> Iterator[str]:
    """Where the dashboard of this journal is."""
    with process(journal, port) as (address, _):
        yield address


@contextmanager
def process(journal: Path, port: int = 0) -> Iterator[tuple[str, int]]:
    """The same, and which process it is."""
    verb = [*TIDEGATE, "dashboard", "--json", "--journal", str(journal), "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(verb, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        try:
            yield str(json.loads(one.stdout.readline())["url"]).rstrip("/"), one.pid
        finally:
            one.terminate()
            one.stdout.close()


def painted(address: str, pages: dict[str, str], times: int) -> dict[str, dict[str, float]]:
    """Milliseconds from the navigation to each page, by a browser that has never been there: until something of it is
    painted, and until nothing on it waits for an answer."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            return {name: _painted(browser, f"{address}/{path}", times) for name, path in pages.items()}
        finally:
            browser.close()


def _painted(browser: Browser, address: str, times: int) -> dict[str, float]:
    first, whole = [], []
    for _ in range(times):
        with browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce") as context:
            page = context.new_page()
            page.goto(address, wait_until="commit")
            page.locator("h1").wait_for()
            page.wait_for_selector("[aria-busy]", state="detached")
            whole.append(float(page.evaluate("performance.now()")))
            first.append(float(page.evaluate(_PAINTED_MS)))
    return {
        "first_paint_ms": round(median(first)),
        "first_paint_most_ms": round(max(first)),
        "whole_ms": round(median(whole)),
        "whole_most_ms": round(max(whole)),
    }
