"""A journal that is shown: played by a simulated world, told by the real dashboard, looked at with a real browser."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from axe_playwright_python.sync_playwright import Axe
from bench.gateway import free_ports
from bench.pages import TIDEGATE
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

# Others use the machine, too.
PATIENT_MS = 120_000

HANDOVERS = "scenarios/remote-prefill.toml"
MIXED = "scenarios/laptop-and-cloud.toml"


def played(scenario: str, folder: Path) -> Path:
    """The journal of this scenario."""
    subprocess.run([*TIDEGATE, "simulate", scenario, "--journal", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


SECRET = "an admin's secret that nobody guesses"
CONFIG = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
admin_key = {{ file = "admin.key" }}
journal = "journal"

[site.home]
local = true

[site.cloud]
local = false

[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:{nobody}"
serves = ["assistant"]
context_tokens = 16384

[endpoint.cloud]
site = "cloud"
engine = "openai"
url = "http://127.0.0.1:{nobody}/v1"
serves = ["assistant"]
context_tokens = 32768
price = {{ usd_per_1m_input_tokens = 0.9, usd_per_1m_output_tokens = 0.9 }}

[class.interactive]
slo = {{ ttft_ms = 2000, tpot_ms = 150 }}
worth_usd = 0.002
"""


def is_up(address: str) -> bool:
    """Whether the dashboard's process, which its gateway has begun, answers by now."""
    try:
        with urlopen(address) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, str]]:
    """A gateway in this folder whose engines are down: where its dashboard is, and its clients' address."""
    port, admin, nobody = free_ports(3)
    (folder / "admin.key").write_text(SECRET)
    (folder / "admin.key").chmod(0o600)
    file = folder / "tidegate.toml"
    file.write_text(CONFIG.format(port=port, admin=admin, nobody=nobody))
    verb = [*TIDEGATE, "serve", "--json", "--config", str(file)]
    with subprocess.Popen(verb, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            # What it says first is said when it listens.
            assert json.loads(process.stdout.readline())
            while not is_up(f"http://127.0.0.1:{admin}/login"):
                pass
            yield f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.stdout.close()


class Looked:
    """A page of a browser, and what it complained of."""

    def __init__(self, browser: Browser, *, wide: int = 1280, scheme: str = "light") -> None:
        # Motion ends at once, so that nothing has to be waited for that is not there.
        context = browser.new_context(
            viewport={"width": wide, "height": 800},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            timezone_id="UTC",
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENT_MS)
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        # Decisions are explained one after the other; that it is to come again is an error to a browser.
        if message.type in ("error", "warning") and "503" not in message.text:
            self.complaints.append(message.text)

    def at(self, address: str) -> Page:
        """The page at this address, with all that it asks for."""
        # A page that is not the one in front has no focus.
        self.page.bring_to_front()
        self.page.goto("about:blank")
        self.page.goto(address)
        return self.settled()

    def settled(self) -> Page:
        """The same when nothing is under way any more."""
        expect(self.page.locator("h1")).to_be_visible()
        expect(self.page.locator("[aria-busy]")).to_have_count(0, timeout=PATIENT_MS)
        return self.page

    def barriers(self) -> list[str]:
        """What axe finds that keeps somebody out, with all opened that can be."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
