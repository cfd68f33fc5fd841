"""A disk that fills up under a gateway, and one that cannot be written when it starts."""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.state.ledger import Ledger

CONFIG = """
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
journal = "journal"
[site.home]
local = true
[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:9"
serves = ["m"]
"""
ROOT = Path(__file__).parent.parent.parent


def may_mount(folder: Path) -> bool:
    """Whether this user may, in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_gateway_does_not_start_beside_one_with_the_same_ledger_and_names_the_setting(tmp_path: Path) -> None:
    config = tmp_path / "tidegate.toml"
    config.write_text(CONFIG + "[budget]\nusd_per_day = 1\n")
    with closing(Ledger.open(tmp_path / "ledger.db", (), 1.0)):
        command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--config", str(config)]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=30.0)
    assert done.returncode == 1
    assert "the ledger is open in another process" in done.stderr
    assert done.stderr.endswith(f"see [budget] in {config}\n")


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_answer_and_no_line(tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mount namespaces are not to be had here")
    command = ["unshare", "-rm", sys.executable, "-m", "tests.gateway.disks", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=50.0)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_a_gateway_does_not_start_where_it_cannot_write_and_says_where(tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mount namespaces are not to be had here")
    config = tmp_path / "tidegate.toml"
    config.write_text(CONFIG)
    serve = f"{sys.executable} -m tidegate.cli.main serve --config {config}"
    script = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path} && exec {serve}"
    command = ["unshare", "-rm", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=50.0)
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert str(tmp_path) in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
