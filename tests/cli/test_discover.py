"""What `tidegate discover` and `tidegate serve` say and do without a file."""

import asyncio
import json
import shlex
import socket
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway import neighbours
from tests.telemetry.test_journal import files_end_at
from tidegate.cli.discover import report
from tidegate.cli.main import main
from tidegate.clock import Clock
from tidegate.config.address import Url
from tidegate.config.build import build
from tidegate.config.discovered import ENABLE, toml
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import load, parse
from tidegate.config.vendors import VENDORS, remotes
from tidegate.engines.fake import FakeEngine
from tidegate.gateway.discover import ENGINES_MAX, PORTS, Found, discover

SECRET = "sk-very-secret-0123"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a file, and an environment without keys."""
    monkeypatch.chdir(tmp_path)
    for vendor in VENDORS:
        monkeypatch.delenv(vendor.variable, raising=False)


@contextmanager
def standing(pages: dict[str, neighbours.Page]) -> Iterator[neighbours.Neighbour]:
    """A neighbour whose loop turns in a thread of its own, while a verb runs in this one."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        standing = neighbours.neighbour(pages)
        there = runner.run(standing.__aenter__())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield there
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(standing.__aexit__(None, None, None))


def test_what_is_found_is_printed_with_what_it_is_taken_for_and_a_line_to_try(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with standing(neighbours.LLAMACPP) as there:
        assert main(["discover", "--engine", str(there.url)]) == 0
    out = capsys.readouterr().out
    for said in ("llama.cpp", f"http://127.0.0.1:{there.port}", "smollm2", "1024"):
        assert said in out
    for said in ("Stays on this machine", "Nothing goes away", "Costs nothing", "curl http://127.0.0.1:8400/v1/chat/"):
        assert said in out


def test_what_is_found_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with standing(neighbours.VLLM) as there:
        assert main(["discover", "--json", "--engine", str(there.url)]) == 0
    told = json.loads(capsys.readouterr().out)
    (engine,) = (one for one in told["engines"] if one["url"] == str(there.url))
    assert (engine["kind"], engine["state"]) == ("vllm", "ready")
    assert (told["enabled"], told["budget_usd_per_day"]) == (False, None)


def test_keys_enable_nothing_and_are_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with standing(neighbours.LLAMACPP) as there:
        asked = ["--engine", str(there.url)]
        assert main(["discover", *asked, "--write", "a.toml"]) == 0
        assert main(["discover", "--json", *asked]) == 0
        assert main(["discover", *asked, "--allow-remote", "--budget-usd-day", "5", "--write", "b.toml"]) == 0
    told = "".join(capsys.readouterr())
    assert "not enabled" in told
    assert ENABLE in told
    assert "more than $5 in a UTC day" in told
    off, on = (build(load(tmp_path / name), Clock().now_s()) for name in ("a.toml", "b.toml"))
    assert all(one.local for one in off.endpoints)
    assert not all(one.local for one in on.endpoints)
    for text in (told, (tmp_path / "a.toml").read_text(), (tmp_path / "b.toml").read_text()):
        assert SECRET not in text


def test_nothing_of_it_is_broken_where_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("COLUMNS", "40")
    with standing(neighbours.LLAMACPP) as there:
        assert main(["discover", "--engine", str(there.url)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("llama.cpp" in line and f"http://127.0.0.1:{there.port}" in line for line in lines)
    assert any("OPENAI_API_KEY" in line and line.rstrip().endswith("not enabled") for line in lines)


async def test_the_file_that_is_written_says_what_is_served_without_it(tmp_path: Path) -> None:
    async with FakeEngine() as one, neighbours.neighbour(neighbours.OLLAMA) as other:
        told = await discover([Url(tls=False, host="127.0.0.1", port=one.port, path=""), other.url], Clock())
    known = remotes({"MISTRAL_API_KEY": SECRET}, Clock().now_s())
    text = toml(told.engines, known, 2.5)
    (tmp_path / "tidegate.toml").write_text(text)
    keys = {"MISTRAL_API_KEY": SECRET}
    now_s = Clock().now_s()
    assert build(load("tidegate.toml", keys), now_s) == build(parse(text, "(no file)", keys), now_s)


@pytest.mark.parametrize("verb", ["serve", "discover"])
@pytest.mark.parametrize(
    "said", [["--allow-remote"], ["--budget-usd-day", "5"]], ids=["without a budget", "a budget for nothing"]
)
def test_remotes_need_both_the_permission_and_a_budget(
    verb: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, *said]) == 2
    assert ENABLE in capsys.readouterr().err


@pytest.mark.parametrize("usd", ["0", "-1", "nan", "inf", "much", "1e9"])
def test_a_budget_is_a_number_of_dollars(usd: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--allow-remote", "--budget-usd-day", usd])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "url", ["gpu:8000", f"http://user:{SECRET}@gpu:8000", "http://gpu:8000/?q", "https://api.openai.com/v1"]
)
def test_an_engine_is_named_by_a_url_in_the_own_network(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--engine", url])
    assert stopped.value.code == 2
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize("said", [["--allow-remote"], ["--engine", "http://127.0.0.1:9"], ["--budget-usd-day", "1"]])
def test_beside_a_file_nothing_is_added_on_the_command_line(
    said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tidegate.toml").write_text("[site.x]\nlocal = true\n")
    assert main(["serve", *said]) == 2
    assert "[budget]" in capsys.readouterr().err


def test_a_file_that_is_named_and_missing_is_an_error_and_not_a_discovery(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "none.toml"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_no_file_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text("mine")
    with standing(neighbours.LLAMACPP) as there:
        assert main(["discover", "--engine", str(there.url), "--write", "mine.toml"]) == 2
        assert "already" in capsys.readouterr().err
        assert main(["discover", "--json", "--engine", str(there.url), "--write", "mine.toml"]) == 2
    assert (tmp_path / "mine.toml").read_text() == "mine"
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "already" in problem["message"]


def test_of_a_file_that_the_disk_has_no_room_for_nothing_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with standing(neighbours.LLAMACPP) as there, files_end_at(10):
        assert main(["discover", "--engine", str(there.url), "--write", "mine.toml"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["serve", "discover"])
def test_where_nothing_is_found_it_is_said_what_to_do(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    _skip_where_engines_run()
    assert main([verb]) == 2
    told = capsys.readouterr().err
    for said in ("11434 (Ollama)", "llama-server -m", "--engine", ENABLE):
        assert said in told


@pytest.mark.parametrize("verb", ["serve", "discover"])
def test_what_was_found_is_shown_where_nothing_of_it_can_be_served(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.discover.usual", tuple)
    with standing(neighbours.LOCKED) as there:
        assert main([verb, "--engine", str(there.url)]) == 2
    told = capsys.readouterr()
    assert "it wants a key" in told.out
    assert "There is nothing to serve" in told.err


def test_serving_engines_named_by_hand_that_do_not_do_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.discover.usual", tuple)
    broken = {"/v1/models": neighbours.page({"error": "out of memory"}, 500)}
    with socket.socket() as taken, standing(broken) as there:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", "--engine", url, "--engine", str(there.url)]) == 2
    told = capsys.readouterr().out
    assert f"not used: {url}/v1: nobody listens there" in told
    assert f"not used: {there.url}: it lists no models: /v1/models answered 500" in told


def test_an_engine_named_by_hand_that_is_not_there_gets_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        main(["discover", "--engine", url])
    assert f"{url}/v1: nobody listens there" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["discover", "serve"])
def test_more_engines_by_hand_than_are_looked_at_are_refused(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    many = [word for port in range(1, ENGINES_MAX + 2) for word in ("--engine", f"http://127.0.0.1:{port}")]
    assert main([verb, *many]) == 2
    told = capsys.readouterr().err
    assert f"--engine: there are more than {ENGINES_MAX}" in told
    assert "remedy: write them into a file" in told


@pytest.mark.lengthy
async def test_without_a_file_what_is_found_is_served() -> None:
    async with FakeEngine(model="00-the-first") as engine:
        command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--engine", engine.url]
        child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            said = b""
            while b"tidegate: clients" not in said:
                line = await child.stderr.readline()
                said += line
                if not line:
                    assert b"in use" in said, said
                    pytest.skip("another program listens on the gateway's own ports of this machine")
            shown = await child.stdout.read(65536)
            (curl,) = (line for line in shown.decode().splitlines() if line.startswith("curl "))
            program, *arguments = shlex.split(curl)
            asked = await asyncio.create_subprocess_exec(program, "-sS", *arguments, stdout=PIPE)
            answer, _ = await asked.communicate()
        finally:
            if child.returncode is None:
                child.terminate()
            await child.communicate()
    assert json.loads(answer)["choices"]
    assert child.returncode == 0
    assert [seen.path for seen in engine.seen] == ["/v1/chat/completions"]


async def test_it_is_said_which_names_go_where() -> None:
    async with neighbours.neighbour(neighbours.GENERIC) as one, neighbours.neighbour(neighbours.GENERIC) as other:
        found = await discover([one.url, other.url], Clock())
    known = remotes({"OPENAI_API_KEY": SECRET}, Clock().now_s())
    said = " ".join(report(found, known, 5.0).decides)
    assert "Stays on this machine: all that is asked of some-model;" in said
    assert "Served by several engines: some-model." in said
    assert "If it passes requests on to others" in said
    assert "May go away: only what asks for gpt-4.1, gpt-4.1-mini by that name, to openai." in said


def test_what_engines_call_their_models_is_no_markup_and_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"/v1/models": neighbours.models("[bold]loud[/]", "a\x1b[2Jb")}
    with standing(pages) as there:
        assert main(["discover", "--engine", str(there.url)]) == 0
    out = capsys.readouterr().out
    assert "[bold]loud[/]" in out
    assert "\x1b[2J" not in out


async def test_an_engine_that_is_known_is_not_suspected_of_passing_requests_on() -> None:
    async with neighbours.neighbour(neighbours.LM_STUDIO) as there:
        found = await discover([there.url], Clock())
    (one,) = found.engines
    assert one.served
    assert not any("passes requests on" in sentence for sentence in report(found, (), None).decides)


async def test_llama_swap_is_no_ollama_and_may_pass_requests_on() -> None:
    pages = {
        "/v1/models": neighbours.models("qwen", owned_by="llama-swap", context_length=16384),
        "/api/version": neighbours.page({"version": "v190", "commit": "abc1234", "build_date": "2026-02-01"}),
    }
    async with neighbours.neighbour(pages) as there:
        found = await discover([there.url], Clock())
    (one,) = found.engines
    assert one.kind is EngineKind.OPENAI
    assert [model.context_tokens for model in one.served] == [16384]
    assert any("passes requests on" in sentence for sentence in report(found, (), None).decides)


def test_a_configuration_that_is_a_link_to_nowhere_is_missing_and_no_reason_to_look_around(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.discover.usual", tuple)
    (tmp_path / "tidegate.toml").symlink_to("gone.toml")
    for verb in ("serve", "status"):
        assert main([verb]) == 2
        assert "there is no such file" in capsys.readouterr().err


def test_nothing_found_is_nothing_decided() -> None:
    assert report(Found(engines=(), passed=()), (), None).decides == ()


def _skip_where_engines_run() -> None:
    for port in PORTS:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"something listens on port {port} of this machine")
