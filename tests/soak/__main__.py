"""Plays random worlds on all cores, and says which seeds break something.

python -m tests.soak [--seeds 20000] [--first 0]
"""

import argparse
import os
from multiprocessing import get_context

from rich.console import Console
from rich.progress import track

from tests.soak.weather import broken

TOLD_EACH = 500


def main() -> int:
    """All of them; status 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    console, count = Console(), 0
    with get_context("spawn").Pool(options.jobs) as pool:
        played = pool.imap_unordered(broken, seeds, chunksize=8)
        shown = track(played, "worlds", total=len(seeds), console=console, disable=not console.is_terminal)
        for number, found in enumerate(shown, start=1):
            if number % TOLD_EACH == 0 and not console.is_terminal:
                # Who stops it knows how far it came.
                console.print(f"{number} worlds, {count} of them broken")
            if found:
                count += 1
                console.print(found, markup=False, soft_wrap=True)
    console.print(f"{len(seeds)} worlds from seed {options.first} on, {count} of them broken")
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
