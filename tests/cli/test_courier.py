"""The verb, set up as its page says."""

import json
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.lab.processes import running
from tidegate.cli.main import main
from tidegate.clock import Clock
from tidegate.config.mutual import MutualTls
from tidegate.engines.courier import CourierClient, CourierError
from tidegate.http.client import Origin, Pool
from tidegate.wire.courier import Restore

PAGE = (Path(__file__).parents[2] / "docs/explanation/handover.md").read_text()
CERTIFICATES = PAGE.split("```sh\n")[1].split("```")[0]
CONFIG = PAGE.split("```toml\n")[1].split("```")[0]
MEANT_FOR_THE_GATEWAY = {"cert": "gateway.pem", "key": "gateway.key", "ca": "ca.pem"}


def set_up(folder: Path, saves: str) -> Path:
    subprocess.run(["bash", "-ec", CERTIFICATES], cwd=folder, check=True, capture_output=True)
    file = folder / "courier.toml"
    file.write_text(CONFIG.replace("0.0.0.0:8490", "127.0.0.1:0").replace("/dev/shm/tidegate", saves))
    return file


@pytest.mark.lengthy
async def test_a_courier_that_is_set_up_as_described_answers_the_gateway_and_ends_when_told(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as saves:
        file = set_up(tmp_path, saves)
        verb = [sys.executable, "-m", "tidegate.cli.main", "courier", "--json", "--config", str(file)]
        async with running(*verb, stdin=DEVNULL, stdout=PIPE) as child:
            assert child.stdout is not None
            told = json.loads(await child.stdout.readline())
            assert told["name"] == "laptop"
            paths = {name: tmp_path / file for name, file in MEANT_FOR_THE_GATEWAY.items()}
            pool = Pool(Origin("127.0.0.1", told["port"], MutualTls(**paths).client(), "laptop"), clock=Clock())
            health = await CourierClient(pool).health(10.0)
            assert (health.name, health.fingerprint) == ("laptop", None)  # no engine is there
            with pytest.raises(CourierError, match="gone"):
                await CourierClient(pool).restore(Restore(name="0" * 32, slot=0), 10.0)
            await pool.close()
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == 0


@pytest.mark.lengthy
def test_a_folder_on_a_disk_is_refused_in_so_many_words(tmp_path: Path) -> None:
    file = set_up(tmp_path, str(tmp_path / "saves"))
    verb = [sys.executable, "-m", "tidegate.cli.main", "courier", "--config", str(file)]
    done = subprocess.run(verb, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is on a disk, which remembers" in done.stderr


def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = set_up(tmp_path, "/dev/shm/nowhere")
    file.write_text(file.read_text().replace("gateway =", "gatewya ="))
    assert main(["courier", "--json", "--config", str(file)]) == 2
    assert "courier.gatewya" in capsys.readouterr().out
