"""How quickly the dashboard answers of a million requests, and what it takes to know them.

    python -m bench.dashboard

A simulated quarter of an hour, again and again, each time as a segment of its own with its times and ids moved on: what
is measured is how large the index is, what a request costs until it is in it, and how long each question takes that
pages ask, on a machine that may do other things (medians, and CPU seconds where there are any). Then a real browser
opens the pages of that journal, and more is written to it while a page is open that is told once a second.
"""

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter, process_time, sleep, time
from urllib.request import urlopen

from bench.cpu import cpu_s
from bench.pages import painted, process
from bench.record import record
from tidegate.cli.main import main as tidegate
from tidegate.dashboard.figures import Figures
from tidegate.dashboard.follow import Follower
from tidegate.dashboard.index import Index, connect
from tidegate.dashboard.queries import Queries
from tidegate.dashboard.requests import Requests
from tidegate.dashboard.store import FILE
from tidegate.dashboard.surface import Asked, Surfaces
from tidegate.telemetry.segments import SegmentName

SCENARIO = Path("scenarios/rack-and-burst.toml")
SPAN_S = 960.0  # what is under way at its end is over by then
REPEATS = 5
RATES = (0.0, 10.0, 50.0)
WARM_S, LIVE_S, WRITE_S = 5.0, 30.0, 0.05
CAUGHT_UP_S = 300
COMES = b'"fact":{"type":"request"'
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


PAGES = {
    "overview": "#/overview",
    "overview of a month": "#/overview?minutes=44640",
    "newest requests": "#/requests",
    "search by id": "#/requests?q={id}",
    "search for what is rare": "#/requests?why=least_loss&kept=true&tier=remote",
    "endpoints": "#/endpoints",
    "surface": "#/surface",
}


def repeat(folder: Path, requests: int) -> tuple[int, list[bytes]]:
    """Write the journal; how many requests are in it, and what comes next in it."""
    base = folder / "base"
    tidegate(["simulate", str(SCENARIO), "--json", str(folder / "figures.json"), "--journal", str(base)])
    lines = next(base.glob("journal-*.jsonl")).read_bytes().splitlines(keepends=True)
    each = sum(COMES in line for line in lines)
    name = SegmentName.first(0.0)
    journal = folder / "journal"
    journal.mkdir()
    number = 0
    while number * each < requests:
        with (journal / str(name)).open("wb") as file:
            file.writelines(moved(lines, number))
        name, number = name.next(), number + 1
    return number * each, list(moved(lines, number))


def moved(lines: list[bytes], number: int) -> Iterator[bytes]:
    """The same quarter of an hour, so many later."""
    shift_s, prefix = number * SPAN_S, b"%d-" % number

    def later(found: "re.Match[bytes]") -> bytes:
        return b'"%b":%r' % (found[1], float(found[2]) + shift_s)

    for line in lines:
        yield IDS.sub(rb'"\1":"' + prefix, TIMES.sub(later, line))


def timed(ask: Callable[[], object]) -> dict[str, float]:
    """Milliseconds, of several times."""
    spent = []
    for _ in range(REPEATS):
        began_s = perf_counter()
        ask()
        spent.append(1e3 * (perf_counter() - began_s))
    return {"median_ms": round(median(spent), 1), "most_ms": round(max(spent), 1)}


def measure(folder: Path, requests: int) -> dict[str, object]:
    """All of it."""
    count, more = repeat(folder, requests)
    journal = folder / "journal"
    file = journal / FILE
    db = connect(file)
    follower = Follower(journal, Index(db))
    began_s, began_cpu_s = perf_counter(), process_time()
    while follower.step():
        pass
    built_s, built_cpu_s = perf_counter() - began_s, process_time() - began_cpu_s
    reader = connect(file)
    now_s = follower.last_s
    assert now_s is not None
    some = reader.execute("SELECT id FROM request ORDER BY n LIMIT 1 OFFSET 1000").fetchone()[0]
    queries = Queries(Figures(reader), Requests(reader), follower, lambda: now_s, "journal", journal=True)
    found: dict[str, object] = {
        "requests": count,
        "journal_bytes": sum(path.stat().st_size for path in journal.glob("journal-*")),
        "index_bytes": sum(path.stat().st_size for path in journal.glob(f"{FILE}*")),
        "build_s": round(built_s, 1),
        "build_cpu_s": round(built_cpu_s, 1),
        "build_cpu_us_a_request": round(1e6 * built_cpu_s / count, 1),
        "questions": {
            name: timed(lambda path=path, query=query: queries.answer(path, query.format(id=some)))  # type: ignore[misc]
            for name, (path, query) in QUESTIONS.items()
        },
        "surface": timed(lambda: Surfaces(follower, lambda: now_s).answer(Asked())),
    }
    for one in (reader, db):
        one.close()
    follower.close()
    with process(journal) as (address, pid):
        caught_up(address)
        found["pages"] = painted(address, {name: path.format(id=some) for name, path in PAGES.items()}, REPEATS)
        found["live"] = [live(address, pid, journal, more, rate) for rate in RATES]
    return found


def caught_up(address: str) -> None:
    """Until it has read the end of the journal, without which it does not know what was learned."""
    for _ in range(CAUGHT_UP_S):
        with urlopen(f"{address}/api/dashboard/summary") as answer:
            if json.load(answer)["indexed_share"] == 1.0:
                return
        sleep(1.0)
    raise RuntimeError(f"the dashboard has not read its journal after {CAUGHT_UP_S} s")


def live(address: str, pid: int, journal: Path, lines: list[bytes], rate: float) -> dict[str, float]:
    """What a process takes whose journal so many requests a second are written to, while one page is open."""
    told = 0

    def listen() -> None:
        nonlocal told
        with suppress(TimeoutError, OSError), urlopen(f"{address}/api/dashboard/live?minutes=60", timeout=5) as stream:
            while line := stream.readline():
                told += line.startswith(b"event: tick")
                if perf_counter() > until_s:
                    return

    name, fd = SegmentName.first(time()).create(journal)
    until_s = perf_counter() + WARM_S + LIVE_S
    page = Thread(target=listen)
    page.start()
    written = place = before = 0
    began_s, began_cpu_s = perf_counter(), None
    with os.fdopen(fd, "wb") as file:
        while (now_s := perf_counter()) < until_s:
            if began_cpu_s is None and now_s > began_s + WARM_S:
                began_cpu_s, before = cpu_s(pid), told
            due = rate * (now_s - began_s)
            while written < due:
                written += COMES in lines[place]
                file.write(lines[place])
                place += 1
            file.flush()
            sleep(WRITE_S)
        spent_s, ticks = cpu_s(pid) - (began_cpu_s or 0.0), told - before
    page.join()
    (journal / str(name)).unlink()
    return {
        "requests_per_s": rate,
        "share_of_a_core": round(spent_s / LIVE_S, 4),
        "ticks_per_s": round(ticks / LIVE_S, 2),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.requests)
    record("dashboard", found)


if __name__ == "__main__":
    main()
