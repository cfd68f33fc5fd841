"""The main job as a user runs it."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.pages import CHROMIUM, FLAGS, dashboard
from playwright.sync_api import expect, sync_playwright

from tests.http.harness import eventually
from tests.lab.processes import processes_of, watched
from tests.pages.shown import PATIENT_MS, Looked
from tidegate.core.why import WHY_TEXT, Why
from tidegate.lab import weights
from tidegate.lab.couriers import MEMORY, PREFIX
from tidegate.lab.tour import handing_over, scenes

DEMO = [sys.executable, "-m", "tidegate.cli.main", "demo"]
# A terminal that is closed when this is killed; whether its parent hears of hang-ups is no matter.
TERMINAL = """
import pty, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
pty.spawn(sys.argv[1:])
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_serves_every_request_of_its_tour_and_prints_every_reason() -> None:
    ran = subprocess.run([*DEMO, "--once", "--json"], capture_output=True, text=True, timeout=580)
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
    journal: Path = weights.cache_dir() / "demo" / "journal"
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


# --- how it ends --------------------------------------------------------------------------------------------------


@contextmanager
def demo(cache: Path, *before: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A demo whose files are in this folder, in a process group of its own, as in a terminal."""
    environment |= {"TIDEGATE_CACHE": str(cache)}
    process = subprocess.Popen(
        [*before, *DEMO],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    with process, watched([process.pid]) as all_ended:
        try:
            yield process
        finally:
            process.terminate()
            all_ended()  # as far as it heeds that: what it has started ends with it


@contextmanager
def downloading(cache: Path, *before: str) -> Iterator[tuple["subprocess.Popen[str]", socket.socket]]:
    """A demo that waits for a package index, and the connection on which pip asks."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        with demo(cache, *before, PIP_INDEX_URL=url) as started:
            connection, _ = index.accept()
            with connection:
                yield started, connection


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder with the model and nothing else."""
    model = weights.fetch()
    (tmp_path / model.name).symlink_to(model)
    return tmp_path


def engines_start(cache: Path, started: "subprocess.Popen[str]") -> None:
    """Return when the first file of an engine is there."""
    log = cache / "demo" / "local.log"
    asyncio.run(eventually(lambda: log.exists() or started.poll() is not None))
    assert log.exists()


@pytest.mark.lengthy
def test_ctrl_c_ends_a_download_and_is_no_fault_of_the_network(tmp_path: Path) -> None:
    with downloading(tmp_path) as (started, connection):
        os.killpg(started.pid, signal.SIGINT)
        said, _ = started.communicate()
        assert (started.returncode, said) == (130, "")
        while connection.recv(4096):
            pass  # and then pip, too, has gone


@pytest.mark.lengthy
def test_under_nohup_a_hangup_does_not_end_it(tmp_path: Path) -> None:
    with downloading(tmp_path, "nohup") as (started, _):
        status = Path(f"/proc/{started.pid}/status").read_text()
    (ignored,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")]
    assert ignored & 1 << (signal.SIGHUP - 1)


@pytest.mark.lengthy
@pytest.mark.engine
def test_told_to_end_while_its_engines_start_it_ends_with_all_that_it_has_started(cache: Path) -> None:
    with demo(cache) as started:
        engines_start(cache, started)
        with watched(processes_of(started.pid)) as all_ended:
            started.terminate()
            started.communicate()
            assert started.returncode == 130
            assert all_ended()


@pytest.mark.lengthy
@pytest.mark.engine
def test_a_second_demo_is_refused_and_the_first_keeps_its_files(cache: Path) -> None:
    with demo(cache) as first:
        engines_start(cache, first)
        first.send_signal(signal.SIGSTOP)  # so that it is at this point, and no further
        with demo(cache) as second:
            assert second.stdout is not None
            assert "end that one first" in second.stdout.readline()
            assert second.wait() == 1
        assert (cache / "demo" / "local.log").exists()
        first.send_signal(signal.SIGCONT)


@pytest.mark.engine
@pytest.mark.lengthy
def test_nothing_outlives_a_terminal_that_is_closed(cache: Path) -> None:
    with demo(cache, sys.executable, "-c", TERMINAL) as terminal:
        assert terminal.stdout is not None
        assert any("Ready after" in line for line in terminal.stdout)
        (running,) = processes_of(terminal.pid)
        parts = processes_of(running)
        assert len(parts) >= 3, "two engines and the gateway, and couriers where there can be any"
        with watched([running, *parts]) as all_ended:
            terminal.kill()
            assert all_ended()
        assert not [*MEMORY.glob(f"{PREFIX}{running}-*")]
