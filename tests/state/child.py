"""A process that works on a ledger until it is killed: `python -m tests.state.child PATH SEED NOW_S`.

Each batch of calls is told on stdout before its commit, and `ok` after it: what was told is all that can be in the
file, and what was acknowledged has to be.
"""

import json
import random
import sys
from itertools import count
from typing import Any

from tidegate.state.cap import Cap, Period
from tidegate.state.ledger import Ledger

CAPS = (Cap(usd=0.5, period=Period.DAY), Cap(usd=0.2, period=Period.DAY, key="ann"))
LEASE_S = 600.0
NUSD = 1_000_000_000


def work(path: str, seed: int, now_s: float) -> None:
    """Until killed."""
    ledger = Ledger.open(path, CAPS, LEASE_S)
    rng = random.Random(seed)
    opened: list[str] = []
    for number in count():
        batch = [_call(ledger, rng, opened, f"{seed}.{number}.{i}", now_s) for i in range(rng.randint(1, 6))]
        print(json.dumps(batch), flush=True)
        ledger.commit()
        print("ok", flush=True)


def _call(ledger: Ledger, rng: random.Random, opened: list[str], name: str, now_s: float) -> list[Any]:
    if not opened or rng.random() < 0.5:
        key, upper = rng.choice(("ann", "bob")), rng.randint(0, NUSD // 100)
        if ledger.reserve(name, key, upper / NUSD, now_s) is None:
            opened.append(name)
        return ["reserve", name, key, upper]
    name = opened.pop(rng.randrange(len(opened)))
    if rng.random() < 0.3:
        ledger.release(name)
        return ["release", name]
    spent = rng.randint(0, NUSD // 200)
    ledger.settle(name, spent / NUSD, now_s, "cloud")
    return ["settle", name, spent]


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
