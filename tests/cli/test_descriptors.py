"""A gateway and the file descriptors that it may have."""

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_malformed import GOOD
from tests.http.harness import client, eventually

CONFIG = (
    '[gateway]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nlog = "log"\ndrain_s = 0\ndashboard = false\n' + GOOD
)


@asynccontextmanager
async def serving(folder: Path, limit: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway under what `ulimit` is given."""
    (folder / "tidegate.toml").write_text(CONFIG)
    serve = f"{sys.executable} -m tidegate.cli.main serve --config {folder}/tidegate.toml"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f"ulimit {limit} && exec {serve}", stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def told(folder: Path, event: str) -> list[dict[str, Any]]:
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in map(json.loads, lines) if line["event"] == event]


@pytest.mark.lengthy
async def test_it_takes_as_many_as_it_may_and_says_where_these_are_too_few(tmp_path: Path) -> None:
    async with serving(tmp_path, "-Sn 100 && ulimit -Hn 500") as process:
        await eventually(lambda: bool(told(tmp_path, "file descriptors may run out")))
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (500, 500)
    (line,) = told(tmp_path, "file descriptors may run out")
    assert line["limit"] == 500
    assert line["needed"] > 10_000
    assert "ulimit -n" in line["remedy"]
    assert "gateway.connections_max" in line["remedy"]


async def test_their_table_is_made_before_the_first_client_and_does_not_grow_while_others_have_streams(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "-n 3000") as process:
        await eventually(lambda: bool(told(tmp_path, "listening")))
        status = status_of(process.pid)
    (places,) = (line.split()[1] for line in status.splitlines() if line.startswith("FDSize:"))
    assert int(places) >= 3000


@pytest.mark.lengthy
async def test_that_none_is_left_for_clients_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, "-n 100"), AsyncExitStack() as clients:
        await eventually(lambda: bool(told(tmp_path, "listening")))
        (line,) = told(tmp_path, "listening")
        for _ in range(100):
            await clients.enter_async_context(client(line["port"]))
        await eventually(lambda: bool(told(tmp_path, "no file descriptor left")))


@pytest.mark.lengthy
async def test_where_there_are_too_few_to_start_the_remedy_is_named_and_nothing_else_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path, "-n 20") as process:
        _, said = await process.communicate()
    assert process.returncode == 1
    (line,) = said.decode().splitlines()
    assert "it may open 20 files, and 64 are the least; raise the limit (`ulimit -n`" in line
