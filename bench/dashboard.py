"""How quickly the dashboard answers of a million requests, and what it takes to know them.

    python -m bench.dashboard

A simulated quarter of an hour, again and again, each time as a segment of its own with its times and ids moved on: what
is measured is how large the index is, what a request costs until it is in it, and how long each question takes that
pages ask, on a machine that may do other things (medians, and CPU seconds where there are any).

With `--folded`, so many requests are read from such a journal, and the rest are put into the index as the rows that
they would come to.
"""

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

from bench.record import record
from tidegate.cli.main import main as tidegate
from tidegate.core.model import replace
from tidegate.core.rows import Rows
from tidegate.dashboard.figures import Figures
from tidegate.dashboard.follow import Follower
from tidegate.dashboard.index import Index, connect
from tidegate.dashboard.queries import Queries
from tidegate.dashboard.surface import Asked, Surfaces
from tidegate.telemetry.reading import read
from tidegate.telemetry.segments import SegmentName

SCENARIO = Path("scenarios/rack-and-burst.toml")
SPAN_S = 960.0  # what is under way at its end is over by then
REPEATS = 5
TIMES = re.compile(rb'"(at_s|arrived_s|measured_s|begins_s|ends_s)":([0-9.]+)')
IDS = re.compile(rb'"(id|request_id)":"')
QUESTIONS = {
    "summary of a day": ("summary", "minutes=1440"),
    "flow of a day": ("flow", "minutes=1440"),
    "series of a day": ("series", "minutes=1440&step=10"),
    "summary of a month": ("summary", "minutes=44640"),
    "flow of a month": ("flow", "minutes=44640"),
    "series of a month": ("series", "minutes=44640&step=60"),
    "endpoints": ("endpoints", "minutes=44640"),
    "values": ("values", ""),
    "newest requests": ("requests", "limit=50"),
    "search by id": ("requests", "q={id}"),
    "search by the beginning of many ids": ("requests", "q=1"),
    "search by endpoint and class": ("requests", "endpoint=rack&class=interactive/short"),
    "search for what is rare": ("requests", "why=least_loss&kept=true&tier=remote"),
    "search for what is nowhere": ("requests", "outcome=refused&endpoint=rack"),
    "search for what is nowhere by id": ("requests", "q=1&outcome=refused"),
    "search long ago": ("requests", "to_s=1767650000&kept=false"),
}


def repeat(folder: Path, requests: int) -> int:
    """Write the journal; how many requests are in it."""
    base = folder / "base"
    tidegate(["simulate", str(SCENARIO), "--json", str(folder / "figures.json"), "--journal", str(base)])
    lines = next(base.glob("journal-*.jsonl")).read_bytes().splitlines(keepends=True)
    each = sum(b'"fact":{"type":"request"' in line for line in lines)
    name = SegmentName.first(0.0)
    journal = folder / "journal"
    journal.mkdir()
    written = 0
    while written < requests:
        shift_s, prefix = written // each * SPAN_S, b"%d-" % (written // each)

        def moved(found: "re.Match[bytes]", shift_s: float = shift_s) -> bytes:
            return b'"%b":%r' % (found[1], float(found[2]) + shift_s)

        with (journal / str(name)).open("wb") as file:
            for line in lines:
                file.write(IDS.sub(rb'"\1":"' + prefix, TIMES.sub(moved, line)))
        name, written = name.next(), written + each
    return written


def timed(ask: Callable[[], object]) -> dict[str, float]:
    """Milliseconds, of several times."""
    spent = []
    for _ in range(REPEATS):
        began_s = perf_counter()
        ask()
        spent.append(1e3 * (perf_counter() - began_s))
    return {"median_ms": round(median(spent), 1), "most_ms": round(max(spent), 1)}


def fill(folder: Path, index: Index, there: int, requests: int) -> int:
    """Put in what would come of more segments; how many requests are in the index then."""
    fold = Rows(predicts=True)
    lines = read(next((folder / "base").glob("journal-*.jsonl")))
    rows = [row for line in lines for row in fold.feed(line)] + fold.rest()
    number = there // len(rows)
    while number * len(rows) < requests:
        shift_s = number * SPAN_S
        moved = [replace(row, id=f"{number}-{row.id}", arrived_s=row.arrived_s + shift_s) for row in rows]
        index.add(f"segment {number:06}", 0, moved, (), over=True)
        number += 1
    return number * len(rows)


def measure(folder: Path, requests: int, folded: int) -> dict[str, object]:
    """All of it."""
    count = repeat(folder, folded)
    journal, file = folder / "journal", folder / "dashboard.sqlite"
    db = connect(file)
    index = Index(db)
    follower = Follower(journal, index)
    began_s, began_cpu_s = perf_counter(), process_time()
    while follower.step():
        pass
    built_s, built_cpu_s = perf_counter() - began_s, process_time() - began_cpu_s
    indexed = fill(folder, index, count, requests)
    reader = connect(file)
    assert follower.last_s is not None
    now_s = follower.last_s + (indexed - count) / count * SPAN_S * len(list(journal.iterdir()))
    some = reader.execute("SELECT id FROM request ORDER BY n LIMIT 1 OFFSET 1000").fetchone()[0]
    queries = Queries(Figures(reader), follower, lambda: now_s, "journal", journal=True)
    found: dict[str, object] = {
        "requests": indexed,
        "folded": count,
        "folded_bytes": sum(path.stat().st_size for path in journal.iterdir()),
        "index_bytes": sum(path.stat().st_size for path in folder.glob("dashboard.sqlite*")),
        "build_s": round(built_s, 1),
        "build_cpu_s": round(built_cpu_s, 1),
        "build_cpu_us_a_request": round(1e6 * built_cpu_s / count, 1),
        "questions": {
            name: timed(lambda path=path, query=query: queries.answer(path, query.format(id=some)))  # type: ignore[misc]
            for name, (path, query) in QUESTIONS.items()
        },
        "surface": timed(lambda: Surfaces(follower, lambda: now_s).answer(Asked())),
    }
    began_cpu_s = process_time()
    for _ in range(REPEATS):
        queries.tick(60, 0)
    tick_cpu_s = (process_time() - began_cpu_s) / REPEATS
    found["tick_cpu_ms"] = round(1e3 * tick_cpu_s, 2)
    for rate in (1, 10, 50):
        share = tick_cpu_s + rate * built_cpu_s / count
        found[f"share_of_a_core_at_{rate}_requests_a_second_and_one_tick"] = round(share, 4)
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--folded", type=int, help="default: all of them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.requests, asked.folded or asked.requests)
    record("dashboard", found)


if __name__ == "__main__":
    main()
