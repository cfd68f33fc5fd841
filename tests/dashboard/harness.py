"""An index that is brought up to a journal in this thread, and a dashboard that is asked over real sockets."""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from tests.gateway.harness import Answer, whole, wire
from tests.http.harness import client, eventually, read_response
from tidegate.clock import Clock
from tidegate.core.rows import Row, Rows
from tidegate.dashboard.app import Dashboard
from tidegate.dashboard.figures import Figures
from tidegate.dashboard.follow import Follower
from tidegate.dashboard.index import Index, connect
from tidegate.dashboard.requests import Requests
from tidegate.telemetry.log import Log
from tidegate.telemetry.reading import read

ALL_MINUTES = 44_640


class Indexed:
    """An index in a file, who brings it up to the journal, and who reads it."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.db = connect(file)
        self.index = Index(self.db)
        self.problems: list[str] = []
        self.follower = Follower(folder, self.index, self.problems.append)
        self.figures = Figures(self.db)
        self.requests = Requests(self.db)

    def catch_up(self) -> None:
        """Until there is nothing more."""
        while self.follower.step():
            pass


@contextmanager
def indexed(folder: Path, file: Path | None = None) -> Iterator[Indexed]:
    """One that has caught up."""
    made = Indexed(folder, file or folder / "index.sqlite")
    try:
        made.catch_up()
        yield made
    finally:
        made.follower.close()
        made.db.close()


def damage(file: Path, table: str) -> None:
    """Overwrite the page of an index at which this table of it, or index, begins."""
    with closing(sqlite3.connect(file)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)


def folded(folder: Path) -> list[Row]:
    """The rows of a journal that is over, by the fold alone."""
    rows = Rows()
    return [row for line in read(folder) for row in rows.feed(line)] + rows.rest()


class Shown:
    """A dashboard, and a browser before it."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.port = dashboard.port

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, b"", **headers)

    async def ask(self, name: str, **query: object) -> Any:
        """What a question comes to."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        answer = await self.get(f"/api/dashboard/{name}?{asked}")
        assert answer.status == 200, answer.body
        return answer.json

    async def send(self, method: str, path: str, body: bytes, **headers: str) -> Answer:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        async with client(self.port) as (reader, writer):
            writer.write(wire(method, path, body, named))
            return whole(await read_response(reader, head_only=method == "HEAD"))

    async def caught_up(self) -> None:
        """Until all of the journal is in the index."""
        follower = self.dashboard._store.follower
        await eventually(lambda: follower.share == 1.0)


@asynccontextmanager
async def shown(folder: Path, **settings: Any) -> AsyncIterator[Shown]:
    """A dashboard of this journal."""
    clock = Clock()
    log = Log.to(folder / "log", clock)
    dashboard = Dashboard(folder, clock, log, **settings)
    await dashboard.start("127.0.0.1", 0)
    try:
        made = Shown(dashboard)
        await made.caught_up()
        yield made
    finally:
        await dashboard.stop()
        log.close()
    assert "failed" not in (folder / "log").read_text()


def events(data: bytes) -> list[Any]:
    """What the events tell that are whole, of a response as it came so far."""
    frames = _dechunked(data.partition(b"\r\n\r\n")[2]).decode("utf-8", "ignore").split("\n\n")[:-1]
    found = [frame.split("data: ", 1)[1] for frame in frames if frame.startswith("event: tick\n")]
    return [json.loads(one) for one in found]


def _dechunked(data: bytes) -> bytes:
    """The chunks that are whole."""
    found = b""
    while True:
        size, end, rest = data.partition(b"\r\n")
        if not end or len(rest) < (length := int(size, 16)):
            return found
        found, data = found + rest[:length], rest[length + 2 :]
