"""The gateway of `bench.soak`: as it is served, and asked by SIGUSR1 what objects it has.

    OBJECTS=FILE python -m bench.soak_gateway serve --config FILE

It writes how many there are of each type into FILE. Those that the collector of garbage does not look at are not there:
no object of ours that can be forgotten is among them, as timers, tasks and connections are.
"""

import gc
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import msgspec

from tidegate.cli.main import main


def _count(_number: int, _frame: FrameType | None) -> None:
    gc.collect()
    counts = Counter(type(one).__qualname__ for one in gc.get_objects())
    file = Path(os.environ["OBJECTS"])
    whole = file.with_suffix(".new")
    whole.write_bytes(msgspec.json.encode(counts))
    whole.rename(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _count)
    sys.exit(main())
