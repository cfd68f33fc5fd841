"""Requests follow a link of real interfaces that changes under them, within seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def may_make_namespaces() -> bool:
    """Whether this user may, on this machine."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip", "tc"))):
        return False
    made = "ip link add dev near type veth peer name far && "
    made += "tc qdisc add dev near root tbf rate 1mbit burst 32kb latency 1s"
    return subprocess.run(["unshare", "-rn", "sh", "-c", made], check=False, capture_output=True).returncode == 0


def played(what: str, folder: Path) -> None:
    """In namespaces of its own."""
    command = ["unshare", "-rn", sys.executable, "-m", "tests.gateway.namespaces", what, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300.0)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not may_make_namespaces(), reason="network namespaces are not to be had here")
def test_requests_go_to_the_better_side_ten_seconds_after_a_link_has_changed(tmp_path: Path) -> None:
    played("moving", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not may_make_namespaces(), reason="network namespaces are not to be had here")
def test_no_request_fails_while_a_link_is_lost_and_found(tmp_path: Path) -> None:
    played("losing", tmp_path)
