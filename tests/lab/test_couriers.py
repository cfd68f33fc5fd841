"""Couriers of the lab: certificates that hold between them, and processes that end."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.processes import processes_of, watched
from tidegate.clock import Clock
from tidegate.config.mutual import MutualTls
from tidegate.engines.courier import CourierClient
from tidegate.http.client import Origin, Pool
from tidegate.lab import couriers
from tidegate.lab.command import CommandError, running
from tidegate.lab.couriers import HOST, Couriers, CouriersError

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
NOBODY = f"http://{HOST}:9"


@pytest.mark.lengthy
@needs_openssl
def test_a_courier_believes_the_gateway_by_its_certificate_and_shows_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Couriers(tmp_path / "couriers", ("home", "cloud")) as both:
            tls = MutualTls(
                cert=both.folder / "gateway.pem", key=both.folder / "gateway.key", ca=both.folder / "ca.pem"
            )
            for name in ("home", "cloud"):
                async with both.beside(name, NOBODY) as port:
                    pool = Pool(Origin(HOST, port, tls.client(), name), clock=Clock())
                    health = await CourierClient(pool).health(10.0)
                    assert (health.name, health.fingerprint) == (name, None), "its engine is not there"
                    await pool.close()
            saves = both.saves("home")
            assert stat.S_IMODE(saves.stat().st_mode) == 0o700
        assert not saves.exists(), "nothing is left in memory"

    asyncio.run(scenario())


@needs_openssl
def test_no_key_can_be_read_by_others(tmp_path: Path) -> None:
    with Couriers(tmp_path, ("home",)) as both:
        modes = {stat.S_IMODE(file.stat().st_mode) for file in both.folder.glob("*.key")}
    assert modes == {0o600}


def test_without_openssl_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CouriersError, match="there is no openssl"), Couriers(tmp_path, ("home",)):
        pass


@needs_openssl
def test_memory_in_which_no_folder_can_be_made_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "MEMORY", Path("/proc"))  # a folder in which not even root makes another
    with pytest.raises(CouriersError, match=r"no folder can be made in /proc.*mount a tmpfs"):
        Couriers(tmp_path, ("home",)).__enter__()


def test_an_openssl_that_hangs_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "openssl"
    hangs.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    hangs.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(couriers, "OPENSSL_S_MAX", 0.05)
    with pytest.raises(CouriersError, match=r"openssl req has not ended after 0\.05 s; see why with"):
        Couriers(tmp_path / "couriers", ("home",)).__enter__()


KILLED = """
import asyncio, sys
from pathlib import Path
from tidegate.lab.couriers import Couriers
async def main():
    with Couriers(Path(sys.argv[1]), ("home",)) as couriers:
        async with couriers.beside("home", "http://127.0.0.1:9"):
            print(couriers.saves("home"), flush=True)
            await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.lengthy
@needs_openssl
def test_of_a_process_that_was_killed_no_courier_stays_and_no_kv_cache(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "killed")], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().decode().strip())
    with Couriers(tmp_path / "first", ("home",)) as first, watched(processes_of(killed.pid)) as all_ended:
        assert left.is_dir(), "its process lives"
        killed.kill()
        killed.communicate()
        assert all_ended()
        with Couriers(tmp_path / "second", ("home",)):
            assert not left.parent.exists()
            assert first.saves("home").is_dir(), "others' are theirs"


def test_a_command_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(CommandError, match=r"tidegate nowhere did not start: (.|\n)*invalid choice"):
            async with running("nowhere", said=tmp_path / "said"):
                pass

    asyncio.run(scenario())
