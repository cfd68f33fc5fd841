"""What `tidegate calibrate` says, writes, refuses and spends."""

import asyncio
import io
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.http.harness import eventually
from tests.lab.processes import running
from tidegate.cli.calibrate import show
from tidegate.cli.main import main
from tidegate.cli.output import Console
from tidegate.core.step import StepTime
from tidegate.engines.fake import FakeEngine, Script
from tidegate.sim.engine import EngineProfile
from tidegate.sim.profile import Interval, Measured, Network, Profile, profile

SECRET = "sk-very-secret-0123"
QUICK = Script(first_s=0.002, token_s=0.001, tokens=16)
SECONDS = "120"  # more than any machine takes: what ends it is not its speed
# The engine counts bytes, and so those that time an upload too.
BUDGET = ("--seconds", SECONDS, "--tokens", "600000")
NEVER = Script(first_s=1000.0)


def started(
    *words: str, stdin: int = asyncio.subprocess.DEVNULL, stderr: int = PIPE, encoding: str = "utf-8"
) -> AbstractAsyncContextManager[Process]:
    command = (sys.executable, "-m", "tidegate.cli.main", "calibrate", *words)
    env = os.environ | {"PYTHONIOENCODING": encoding}
    return running(*command, stdin=stdin, stdout=PIPE, stderr=stderr, env=env)


@pytest.mark.lengthy
async def test_a_profile_is_written_and_told(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    async with (
        FakeEngine(QUICK) as engine,
        started(engine.url, *BUDGET, "--out", str(file), "--json") as process,
    ):
        said, complained = await process.communicate()
        assert (process.returncode, complained) == (0, b"")
        told = json.loads(said)
        written = profile(file)
        assert written.measured is not None
        assert told["measured"]["requests"] == written.measured.requests == len(engine.seen)
        assert told["engine"]["slots"] == written.engine.slots
        assert 0.0 < told["measured"]["seconds"] == written.measured.seconds


@pytest.mark.lengthy
async def test_without_a_file_the_profile_is_printed_as_one_whatever_letters_a_terminal_has(tmp_path: Path) -> None:
    async with (
        FakeEngine(QUICK, model="模型") as engine,
        started(engine.url, *BUDGET, "--model", "模型", encoding="ascii") as process,
    ):
        said, _ = await process.communicate()
    file = tmp_path / "printed.toml"
    file.write_bytes(said)
    measured = profile(file).measured
    assert measured is not None
    assert measured.model == "模型"


@pytest.mark.lengthy
@pytest.mark.parametrize("words", [(), ("--json",)])
async def test_what_was_measured_is_printed_where_it_cannot_be_written_after_all(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with (
        FakeEngine(QUICK) as engine,
        started(engine.url, *BUDGET, "--out", str(folder / "profile.toml"), *words) as process,
    ):
        await eventually(lambda: bool(engine.seen))
        folder.rmdir()
        said, complained = await process.communicate()
    assert process.returncode == 2
    assert b"--out" in complained
    if words:
        assert json.loads(said)["measured"]["requests"] == len(engine.seen)
    else:
        file = tmp_path / "printed.toml"
        file.write_bytes(said)
        assert profile(file).measured is not None


async def test_a_file_that_cannot_be_written_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FakeEngine(QUICK) as engine:
        for wrong in (tmp_path / "none" / "profile.toml", tmp_path):
            assert await asyncio.to_thread(main, ["calibrate", engine.url, "--out", str(wrong)]) == 2
            assert "--out" in capsys.readouterr().err
        assert engine.seen == []


def test_what_an_engine_says_of_itself_is_no_mark_up() -> None:
    made = Profile(
        engine=EngineProfile(step=StepTime(base_s=0.01, per_token_s=0.001), slots=1, kv_tokens=4096),
        network=Network(rtt_s=0.001, upload_bytes_per_s=1e6),
        measured=Measured(
            at="2026-11-27", url="http://[::1]:8080", software="llama.cpp [b1]", model="n[/awq]",
            requests=1, tokens=1, seconds=1.0, remarks=("slots [2, 3] differ[/]",),
        ),
    )  # fmt: skip
    text = io.StringIO()
    show(Console(file=text, width=160), made, Path("[/p].toml"))
    said = text.getvalue()
    assert said.startswith("llama.cpp [b1] with n[/awq] at http://[::1]:8080\n")
    assert "slots [2, 3] differ[/]" in said
    assert "Written: [/p].toml" in said


def test_what_is_bounded_on_one_side_alone_is_said_so() -> None:
    made = Profile(
        engine=EngineProfile(step=StepTime(base_s=0.01, per_token_s=0.001), slots=1, batch_tokens=8192, kv_tokens=4096),
        network=Network(rtt_s=0.001, upload_bytes_per_s=1e6),
        confidence={"batch_tokens": Interval(low=1, high=None), "slots": Interval(low=1, high=2)},
        measured=Measured(
            at="2026-11-27", url="http://[::1]:8080", software="s", model="m", requests=1, tokens=1, seconds=1.0
        ),
    )
    text = io.StringIO()
    show(Console(file=text, width=160), made, Path("p.toml"))
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["batch_tokens", "8192", "at", "least", "1"] in rows
    assert ["slots", "1", "1", "to", "2"] in rows


@pytest.mark.lengthy
async def test_what_may_be_spent_is_never_exceeded() -> None:
    price = ("--price-per-1m", "10", "50")
    async with (
        FakeEngine(QUICK) as engine,
        started(engine.url, "--seconds", SECONDS, *price, "--yes-spend", "0.01", "--json") as process,
    ):
        said, complained = await process.communicate()
        assert process.returncode == 1
        assert b"dollars are spent" in complained
        tokens_usd = sum(len(one.body) / 4 * 10e-6 + 16 * 50e-6 for one in engine.seen)
        assert tokens_usd <= 0.01
        assert said == b""


@pytest.mark.lengthy
async def test_at_a_terminal_it_asks_before_it_spends() -> None:
    async with FakeEngine(QUICK) as engine:
        ours, theirs = os.openpty()
        try:
            price = ("--price-per-1m", "1", "2")
            async with started(engine.url, *price, stdin=theirs, stderr=theirs) as process:
                os.write(ours, b"n\n")
                assert await process.wait() == 2
            assert b"up to $0.10. Go on?" in os.read(ours, 4096)
        finally:
            os.close(ours)
            os.close(theirs)
        assert engine.seen == []


@pytest.mark.lengthy
async def test_an_interrupt_ends_it_at_once_and_leaves_nothing_running() -> None:
    async with FakeEngine(NEVER) as engine, started(engine.url) as process:
        await eventually(lambda: engine.in_flight == 1)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        await eventually(lambda: engine.in_flight == 0)


@pytest.mark.lengthy
async def test_the_key_goes_to_the_engine_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", SECRET)
    async with (
        FakeEngine(Script(status=401)) as engine,
        started(engine.url, "--key-env", "ENGINE_KEY") as process,
    ):
        said, complained = await process.communicate()
        assert process.returncode == 1
        assert engine.seen[0].headers[b"authorization"] == b"Bearer " + SECRET.encode()
        assert SECRET.encode() not in said + complained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["https://api.openai.com", "--model", "gpt-4.1-mini"], "openai takes money"),
        (["https://llm.example.com"], "an address in the internet"),
        (["https://api.openai.com", "--model", "m", "--price-per-1m", "1", "2"], "nobody is there to agree"),
        (["http://127.0.0.1:1", "--yes-spend", "1"], "nothing says what is spent"),
        (["http://127.0.0.1:1", "--key-env", "NOT_THERE"], "export NOT_THERE=... before the start\n"),
        (["http://127.0.0.1:1", "--key-env", SECRET], "not the name of a variable"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_sent(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *words]) == 2
    complained = capsys.readouterr().err
    assert said in complained
    assert "remedy:" in complained
    assert SECRET not in complained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ftp://127.0.0.1"], "begins neither"),
        (["http://8.8.8.8"], "write https://"),
        (["http://127.0.0.1", "--seconds", "0"], "a number from 1 to 3600"),
        (["http://127.0.0.1", "--tokens", "many"], "a number from 500"),
        (["http://127.0.0.1", "--price-per-1m", "1", "-2"], "a number from 0"),
    ],
)
def test_what_cannot_be_read_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", *words])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_where_nobody_listens_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "http://127.0.0.1:1"]) == 1
    assert "nobody listens there" in capsys.readouterr().err
