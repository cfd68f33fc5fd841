"""`tidegate mirror`: copies over real connections, answered at once, decided, and sent nowhere."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.http.harness import Response, read_response
from tests.sim.foreign_days import configuration
from tidegate.cli.main import main
from tidegate.cli.mirror import Seen, show
from tidegate.cli.output import Console
from tidegate.sim.mirrored import Mirror
from tidegate.sim.preview import Interval, figures_of

CHAT = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "a secret of my own"}]}).encode()


OF_ALL = "of all 7 requests it would have kept 2 promises that were not kept, and missed 1 that were.\n"


class Running:
    """The command, where it listens, and one connection to it."""

    def __init__(self, process: Process, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process, self.port, self._reader, self._writer = process, port, reader, writer

    async def ask(
        self, body: bytes = CHAT, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
    ) -> Response:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        self._writer.write(head.encode() + body)
        return await read_response(self._reader)

    async def over(self) -> str:
        self._writer.close()
        self.process.send_signal(signal.SIGTERM)
        out, _ = await self.process.communicate()
        assert self.process.returncode == 0
        return out.decode()


@asynccontextmanager
async def running(folder: Path, *more: str) -> AsyncIterator[Running]:
    (folder / "tidegate.toml").write_text(configuration())
    command = (sys.executable, "-m", "tidegate.cli.main", "mirror", "--config", str(folder / "tidegate.toml"))
    process = await asyncio.create_subprocess_exec(
        *command, "--listen", "127.0.0.1:0", *more, stdout=PIPE, stderr=PIPE, env={**os.environ, "COLUMNS": "200"}
    )
    try:
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        assert said.startswith("tidegate: copies of requests at http://127.0.0.1:")
        port = int(said.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield Running(process, port, reader, writer)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.lengthy
def test_copies_are_decided_and_told_of_and_nothing_of_them_is_kept(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def run() -> str:
        async with running(tmp_path, "--journal", str(journal), "--now", "cloud") as mirror:
            answers = [
                await mirror.ask(authorization="Bearer sk-secret", x_request_id=f"r{n}", x_tidegate_class="batch")
                for n in range(4)
            ]
            assert {answer.status for answer in answers} == {204}
            assert answers[0].headers[b"x-tidegate-endpoint"] == b"laptop"
            assert [answer.headers[b"x-tidegate-decision"] for answer in answers] == [b"m1", b"m2", b"m3", b"m4"]
            seen = json.loads((await mirror.ask(b"", "/", "GET")).body)
            assert seen["mirror"]["requests"] == 4
            assert seen["passed_over"] == {}
            return await mirror.over()

    said = asyncio.run(run())
    assert said.startswith("4 copies of requests were decided")
    assert "as now" in said
    written = b"".join(file.read_bytes() for file in journal.iterdir())
    assert b"secret" not in written
    assert main(["replay", str(journal), "--jobs", "1"]) == 0
    assert main(["explain", "m1", "--journal", str(journal)]) == 0


@pytest.mark.parametrize(
    ("saved", "compared", "said"),
    [
        (None, 0, "Of these none would have ended both ways yet, so nothing is compared.\n"),
        (None, 7, f"None would have ended both ways yet, so no dollars are compared; {OF_ALL}"),
        (
            Interval(figure=0.2, low=0.1, high=0.3),
            7,
            f"It would have spent $0.2 less on a thousand requests (-0.3 to -0.1); {OF_ALL}",
        ),
        (
            Interval(figure=-0.2, low=-0.3, high=0.1),
            7,
            f"It would have spent $0.2 more on a thousand requests (-0.1 to +0.3, so perhaps nothing); {OF_ALL}",
        ),
        (None, None, ""),
    ],
)
def test_what_is_compared_is_told_with_of_how_many_it_is(
    saved: Interval | None, compared: int | None, said: str
) -> None:
    figures = msgspec.structs.replace(figures_of([], set()), requests=compared or 0)
    theirs = None if compared is None else figures
    mirror = Mirror(
        requests=9, by_endpoint={}, by_why={}, ours=figures, theirs=theirs, saved_usd_per_1k=saved, missed=1, gained=2
    )
    text = io.StringIO()
    show(Console(file=text, width=160), Seen(passed_over={}, mirror=mirror))
    assert said in text.getvalue()
    assert ("would have" in text.getvalue()) == bool(said)


@pytest.mark.lengthy
def test_what_is_no_copy_of_a_completion_is_answered_all_the_same_and_counted(tmp_path: Path) -> None:
    async def run() -> dict[str, int]:
        async with running(tmp_path, "--json") as mirror:
            embedded = json.dumps({"model": "assistant", "input": "text"}).encode()
            for answer in (
                await mirror.ask(b"{"),
                await mirror.ask(b'{"model": "unknown", "messages": [{"role": "user", "content": "a"}]}'),
                await mirror.ask(path="/elsewhere"),
                await mirror.ask(method="PUT"),
                await mirror.ask(embedded, "/v1/embeddings"),
                await mirror.ask(x_request_id="one"),
                await mirror.ask(x_request_id="one"),
                await mirror.ask(x_tidegate_class="none-such"),
                await mirror.ask(path="/mirror", x_original_uri="/v1/chat/completions?a=b"),
            ):
                assert answer.status == 204
            found = json.loads(await mirror.over())
            assert found["mirror"]["requests"] == 3
            # Of models that nobody serves it is decided that nobody does.
            assert found["mirror"]["by_endpoint"].get("nobody", 0) <= 1
            counted: dict[str, int] = found["passed_over"]
            return counted

    counted = asyncio.run(run())
    assert counted.pop("came twice") == 1
    assert counted.pop("no address for completions") == 2
    assert counted.pop("no chat and no text completion") == 1
    assert sum(counted.values()) == 2
    assert all(name.startswith("refused: ") for name in counted)


def test_what_cannot_be_followed_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tidegate.toml").write_text(configuration())
    asked = ["mirror", "--config", str(tmp_path / "tidegate.toml")]
    assert main([*asked, "--now", "clod"]) == 2
    assert "did you mean `cloud`?" in capsys.readouterr().err
    assert main([*asked, "--listen", "here"]) == 2
    assert "a port is missing" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main([*asked, "--listen", address, "--journal", str(tmp_path / "copies")]) == 1
    assert "cannot start" in capsys.readouterr().err
    assert not (tmp_path / "copies").exists()
