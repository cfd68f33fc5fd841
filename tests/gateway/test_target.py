"""A target for attainment before real engines: what became of promises is told, and what worth follows is shown."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tidegate.cli.main import main
from tidegate.core.model import Judged
from tidegate.core.replay import replay
from tidegate.engines.fake import Script
from tidegate.telemetry.journal import read, segments

TARGET = {"interactive": {"attainment": 0.9, "slo": {"ttft_ms": 60_000}}}
DEFAULT = {"attainment": 0.9, "worth_factor": pytest.approx(0.1)}


async def targets(home: House) -> Any:
    return (await home.get("/api/state", admin=True)).json["targets"]


def told(folder: Path) -> list[bool | None]:
    lines = [line for file in segments(folder / "journal") for line in read(file)]
    assert replay(lines).difference is None
    return [line.fact.kept for line in lines if isinstance(line.fact, Judged)]


async def test_kept_promises_lower_what_they_are_worth_and_everybody_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    async with house(tmp_path, classes=TARGET) as home:
        assert await targets(home) == {"interactive": DEFAULT}
        for _ in range(3):
            answer = await home.ask(chat("Say hi"))
        found = (await targets(home))["interactive"]
        dry = await home.ask(chat("Say hi"), x_tidegate_dry_run="true")
        metrics = (await home.get("/metrics", admin=True)).body.decode()
    assert 0.09 < found["worth_factor"] < 0.1
    assert f'tidegate_class_worth_factor{{class="interactive"}} {found["worth_factor"]}' in metrics
    assert dry.json["worth_share"] == pytest.approx(found["worth_factor"])
    assert 0.0 < dry.json["worth_usd"] < 0.01
    assert told(tmp_path) == [True] * 3
    assert main(["explain", "--journal", str(tmp_path / "journal"), answer.header("x-tidegate-decision")]) == 0
    printed = capsys.readouterr().out
    assert "its promise is worth $" in printed
    assert "of the most: of its class 0.9 are to be kept" in printed


async def test_what_fails_is_missed_and_raises_it(tmp_path: Path) -> None:
    async with house(
        tmp_path, laptop=local(Script(status=500)), cloud=remote(Script(status=500)), classes=TARGET
    ) as home:
        for _ in range(3):
            assert (await home.ask(chat("Say hi"))).status >= 500
        assert (await targets(home))["interactive"]["worth_factor"] > 0.105
    assert told(tmp_path) == [False] * 3


async def test_a_clients_own_error_breaks_no_promise(tmp_path: Path) -> None:
    async with house(tmp_path, classes=TARGET) as home:
        assert (await home.ask(chat("word " * 100_000))).status == 400
        assert await targets(home) == {"interactive": DEFAULT}
    assert told(tmp_path) == [None]


async def test_a_promise_that_no_answer_could_keep_is_missed(tmp_path: Path) -> None:
    slow = local(Script(first_s=0.05))
    async with house(tmp_path, laptop=slow, classes={"interactive": {"attainment": 0.9, "slo": {"e2e_ms": 5}}}) as home:
        assert (await home.ask(chat("Say hi"))).status == 200
    assert told(tmp_path) == [False]


async def test_without_a_target_nothing_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(chat("Say hi"))
        assert answer.status == 200
        assert await targets(home) == {}
        dry = await home.ask(chat("Say hi"), x_tidegate_dry_run="true")
        metrics = (await home.get("/metrics", admin=True)).body.decode()
    assert "worth_share" not in dry.json
    assert "tidegate_class_worth_factor{" not in metrics
    assert told(tmp_path) == []
