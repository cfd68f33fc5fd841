"""Ten thousand ways in which requests interleave and processes die: no overspending, and no spending that was not."""

import random
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.state.crash import leave
from tests.state.reference import NUSD, Reference
from tests.state.test_ledger_machine import folders
from tidegate.clock import DAY_S
from tidegate.state.cap import Cap, Period
from tidegate.state.ledger import Ledger

INTERLEAVINGS = 10_000
LEASE_S = 60.0
CAPS = [Cap(usd=1.0, period=Period.DAY), Cap(usd=0.6, period=Period.DAY, key="ann")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_interleaving_with_crashes_overspends_or_counts_what_was_not_spent() -> None:
    folder = Path(tempfile.mkdtemp(dir=folders))
    try:
        Ledger.open(folder / "empty", CAPS, LEASE_S).close()
        for seed in range(INTERLEAVINGS):
            _interleaving(folder, random.Random(seed))
    finally:
        shutil.rmtree(folder)


def _interleaving(folder: Path, rng: random.Random) -> None:
    path = folder / "ledger"
    leave(folder / "empty", path, b"")
    ledger, reference = Ledger.open(path, CAPS, LEASE_S), Reference(CAPS, LEASE_S)
    now_s = 20_000 * DAY_S
    waiting = [(f"r{i}", rng.choice(("ann", "bob")), rng.randint(0, NUSD // 2)) for i in range(6)]
    sent: list[str] = []
    billed: dict[str, int] = {}
    for _ in range(24):
        step = rng.random()
        now_s += rng.choice((0.0, 1.0, LEASE_S / 2))
        if step < 0.35 and waiting:
            name, key, upper = waiting.pop()
            fits = reference.reserve(name, key, upper, now_s)
            assert (ledger.reserve(name, key, upper / NUSD, now_s) is None) == fits
            ledger.commit()
            reference.commit()
            if fits:
                # From here on the provider bills what it likes, up to the bound, whether or not anybody hears of it.
                billed[name] = rng.randint(0, upper)
                sent.append(name)
        elif step < 0.65 and sent:
            name = sent.pop(rng.randrange(len(sent)))
            reference.settle(name, billed[name], now_s, "cloud")
            ledger.settle(name, billed[name] / NUSD, now_s, "cloud")
        elif step < 0.8:
            ledger.commit()
            reference.commit()
        else:
            leave(path, folder / "left")
            ledger.close()
            for end in ("", "-wal"):
                (folder / f"left{end}").replace(folder / f"ledger{end}")
            ledger = Ledger.open(path, CAPS, LEASE_S)
            reference.crash()
            sent = []  # nobody is left who would tell
        status = ledger.status(now_s)
        assert reference.agrees(status, now_s)
        cap = status.caps[0]
        assert sum(billed.values()) <= round((cap.spent_usd + cap.unconfirmed_usd + cap.reserved_usd) * NUSD)
        assert all(shown.left_usd >= 0.0 for shown in status.caps)
        assert round(cap.spent_usd * NUSD) <= sum(billed.values())
    ledger.close()
    (folder / "ledger-wal").unlink(missing_ok=True)
