"""The real thing: a process that is killed while it works, and what the next one finds."""

import copy
import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.state.child import CAPS, LEASE_S
from tests.state.crash import bills, open_leases
from tests.state.reference import Reference
from tidegate.clock import DAY_S, day_number
from tidegate.state.ledger import Ledger
from tidegate.state.store import LedgerError

KILLS = 25
START_S = 20_600 * DAY_S


@pytest.mark.lengthy
@pytest.mark.timeout(300)
def test_what_was_acknowledged_is_there_after_kill_9_at_any_instant(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger.open(path, CAPS, LEASE_S).close()
    rng = random.Random(9)
    acknowledged = 0
    for day in range(KILLS):
        now_s = START_S + day * DAY_S
        told = _worked_and_killed(path, day, now_s, rng)
        oks = [index for index, line in enumerate(told) if line == "ok"]
        done = oks[-1] + 1 if oks else 0
        sure = _told(Reference(list(CAPS), LEASE_S), told[:done], now_s)
        possible = _told(copy.deepcopy(sure), told[done:], now_s)
        acknowledged += len(oks)
        found = open_leases(path)
        ledger = Ledger.open(path, CAPS, LEASE_S)
        spent = sum(row.settled for row in bills(ledger) if row.day == day_number(now_s))
        assert (found, spent) in [(one.stored(), _settled(one)) for one in (sure, possible)]
        reference = sure if (found, spent) == (sure.stored(), _settled(sure)) else possible
        for at_s in (now_s, now_s + LEASE_S):
            assert reference.agrees(ledger.status(at_s), at_s)
        for name in found:
            ledger.release(name)
        ledger.close()
    assert acknowledged > KILLS


def _worked_and_killed(path: Path, seed: int, now_s: float, rng: random.Random) -> list[str]:
    """The whole lines that a child told before it was killed."""
    command = [sys.executable, "-m", "tests.state.child", str(path), str(seed), str(now_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        with pytest.raises(LedgerError, match="open in another process"):
            Ledger.open(path, CAPS, LEASE_S)
        killer = threading.Timer(rng.uniform(0.0, 0.03), child.kill)
        killer.start()
        lines += child.stdout.readlines()
        killer.join()
    assert child.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


def _told(reference: Reference, lines: list[str], now_s: float) -> Reference:
    """The reference after these batches, committed, and with the process that told them gone."""
    for line in lines:
        for verb, name, *facts in [] if line == "ok" else json.loads(line):
            if verb == "reserve":
                key, upper = facts
                reference.reserve(name, key, upper, now_s)
            elif verb == "release":
                reference.release(name)
            else:
                reference.settle(name, facts[0], now_s, "cloud")
    reference.commit()
    reference.crash()
    return reference


def _settled(reference: Reference) -> int:
    return sum(settled for _, settled, _ in reference.history().values())
