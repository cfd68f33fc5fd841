"""Without a file, before the real llama.cpp: found, written down, and served."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Running
from tests.live.stack import HOST, MODEL, get_any
from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, fetch
from tidegate.wire.prometheus import gauges

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

MADE = "llamacpp:tokens_predicted_total"
VERB = [sys.executable, "-m", "tidegate.cli.main"]


async def asked(method: bytes, port: int, path: bytes, body: bytes = b"") -> bytes:
    pool = Pool(Origin(HOST, port), clock=Clock())
    try:
        status, _, said = await fetch(pool, method, path, (), body, 60.0, 1 << 20)
    finally:
        await pool.close()
    assert status == 200, said
    return said


async def discovered(*arguments: str) -> Any:
    child = await asyncio.create_subprocess_exec(*VERB, "discover", "--json", *arguments, stdout=PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0
    return json.loads(out)


@pytest.mark.lengthy
def test_the_real_engine_is_known_by_name_window_and_slots_and_makes_no_token_for_it(live: Running) -> None:
    async def main() -> None:
        engine = live.stack.local
        before = gauges(await asked(b"GET", engine.port, b"/metrics"), (MADE,))
        told = await discovered("--engine", engine.url)
        (found,) = (one for one in told["engines"] if one["url"] == f"{engine.url}/v1")
        assert (found["kind"], found["state"], found["slots"]) == ("llamacpp", "ready", engine.spec.slots)
        assert found["models"] == [{"name": MODEL, "context_tokens": 2048}]
        assert gauges(await asked(b"GET", engine.port, b"/metrics"), (MADE,)) == before

    live.run(main())


@pytest.mark.lengthy
def test_the_file_that_is_written_serves_the_real_engine(live: Running, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "tidegate.toml"
        await discovered("--engine", live.stack.local.url, "--write", str(file))
        quiet = '[gateway]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nlog = "log"\n'
        file.write_text(quiet + file.read_text())
        command = [*VERB, "serve", "--json", "--config", str(file)]
        child = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
        assert child.stdout is not None
        try:
            assert await child.stdout.readline()
            (line,) = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
            port = line["port"]
            listed = await get_any(port, b"/v1/models")
            assert MODEL in {model["id"] for model in listed["data"]}
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 4}
            said = await asked(b"POST", port, b"/v1/chat/completions", json.dumps(body).encode())
            assert json.loads(said)["usage"]["completion_tokens"] <= 4
        finally:
            child.terminate()
            assert await child.wait() == 0

    live.run(main())
