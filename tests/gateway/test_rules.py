"""Operators' rules before real engines: where requests go by them, and that everybody is told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import CHAT, House, chat, house, local, remote
from tests.http.harness import eventually
from tidegate.cli.main import main
from tidegate.core.model import Request
from tidegate.engines.fake import Fault, Script

LONG = {"name": "long-prompts", "when": "prompt_tokens > 1000", "to": ["away"]}
SHORT_PROMPT, LONG_PROMPT = "Say hi", "word " * 4000


async def explained(home: House, prompt: str, **headers: str) -> dict[str, Any]:
    answer = await home.ask(chat(prompt), x_tidegate_dry_run="true", **headers)
    assert answer.status == 200
    return dict(answer.json)


def by_endpoint(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["endpoint"]: one for one in found["candidates"]}


@pytest.mark.lengthy
async def test_a_long_prompt_goes_where_its_rule_says_and_every_explanation_names_the_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    async with house(tmp_path, rules=[LONG]) as home:
        short, long = await home.ask(chat(SHORT_PROMPT)), await home.ask(chat(LONG_PROMPT))
        found = await explained(home, LONG_PROMPT)
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        decision = await home.get(f"/api/decisions/{long.header('x-tidegate-decision')}", admin=True)
    assert (short.endpoint, long.endpoint) == ("laptop", "cloud")
    assert long.header("x-tidegate-why") == "only_ruled"
    assert found["request"]["rulings"] == [{"rule": "long-prompts", "to": ["cloud"]}]
    laptop = by_endpoint(found)["laptop"]
    assert (laptop["excluded"], laptop["rule"]) == ("ruled_out", "long-prompts")
    assert 'tidegate_ruled_total{rule="long-prompts"} 1.0' in metrics
    assert decision.json["explained"][0]["request"]["rulings"] == found["request"]["rulings"]
    assert main(["explain", "--journal", str(tmp_path / "journal"), long.header("x-tidegate-decision")]) == 0
    printed = capsys.readouterr().out
    assert "rule long-prompts holds: cloud, and nowhere else" in printed
    assert "(long-prompts)" in " ".join(printed.split())


async def test_a_rule_without_its_endpoint_refuses_and_names_itself(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote(up=False), rules=[LONG]) as home:
        answer = await home.ask(chat(LONG_PROMPT))
        assert (answer.status, answer.error["code"]) == (503, "no_endpoint_available")
        assert "`long-prompts`" in answer.error["message"]
        assert answer.header("retry-after")
        assert home.engines["laptop"].seen == []
        assert (await home.ask(chat(SHORT_PROMPT))).endpoint == "laptop"


async def test_no_failure_takes_a_request_out_of_its_rule(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote(Script(status=500)), rules=[LONG]) as home:
        for _ in range(4):
            assert (await home.ask(chat(LONG_PROMPT))).status >= 500
        assert home.engines["laptop"].seen == []


async def test_what_waits_for_its_rule_goes_there_when_it_can(tmp_path: Path) -> None:
    stays = {"name": "stays", "when": "completions == 1", "to": ["laptop"]}
    slow = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=slow, cloud=remote(), rules=[stays]) as home:
        laptop = home.engines["laptop"]
        async with home.asking():
            await eventually(lambda: laptop.in_flight == 1)
            laptop.script = Script()
            waits = asyncio.create_task(home.ask())
            await eventually(lambda: home.gateway.router.held == 1)
        # The first has left.
        answer = await waits
        assert home.engines["cloud"].seen == []
    assert (answer.status, answer.endpoint) == (200, "laptop")


async def test_two_rules_that_leave_nothing_say_both_names(tmp_path: Path) -> None:
    both = [LONG, {"name": "at-home", "when": "not stream", "to": ["laptop"]}]
    async with house(tmp_path, rules=both) as home:
        answer = await home.ask(chat(LONG_PROMPT))
    assert (answer.status, answer.error["code"]) == (400, "ruled_out")
    assert "rules `long-prompts`, `at-home` let it go nowhere else" in answer.error["message"]


async def test_a_soft_rule_has_its_own_part_in_the_value_and_none_in_the_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    rather = {"name": "rather", "when": "not session", "to": ["cloud"], "break_usd": 0.25}
    async with house(tmp_path, rules=[rather]) as home:
        free = by_endpoint(await explained(home, SHORT_PROMPT, x_tidegate_session="s"))
        found = await explained(home, SHORT_PROMPT)
        answer = await home.ask(chat(SHORT_PROMPT))
    ruled = by_endpoint(found)
    assert found["decision"]["why"] == answer.header("x-tidegate-why") == "rule_decides"
    assert answer.endpoint == "cloud"
    assert float(answer.header("x-tidegate-cost-usd")) < 0.01
    assert ruled["laptop"]["contributions_usd"]["rule"] == -0.25
    assert abs(sum(ruled["laptop"]["contributions_usd"].values()) - ruled["laptop"]["value_usd"]) < 1e-12
    assert ruled["laptop"]["estimate"]["cost_usd"] == free["laptop"]["estimate"]["cost_usd"]
    assert "rule" not in free["laptop"]["contributions_usd"]
    assert main(["explain", "--journal", str(tmp_path / "journal"), answer.header("x-tidegate-decision")]) == 0
    printed = capsys.readouterr().out
    assert "rule rather holds: cloud, or elsewhere for $0.25 less" in printed
    assert "-0.250000" in printed


async def test_a_rule_gives_the_class_of_who_names_none(tmp_path: Path) -> None:
    night = {"name": "long-is-batch", "when": "prompt_tokens > 1000", "class": "batch"}
    cheap = {"name": "batch-stays", "when": 'class == "batch"', "to": ["home"]}
    async with house(tmp_path, rules=[night, cheap]) as home:
        await home.ask(chat(LONG_PROMPT))
        await home.ask(chat(LONG_PROMPT), x_tidegate_class="interactive")
        await home.ask(chat(SHORT_PROMPT))
    asked = [line.fact for line in home.journal() if isinstance(line.fact, Request)]
    assert [one.klass for one in asked] == ["batch/long", "interactive/long", "interactive/short"]
    assert [[r.rule for r in one.rulings] for one in asked] == [["long-is-batch", "batch-stays"], [], []]


async def test_a_reload_puts_rules_in_force_for_those_that_come_after_it(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        assert (await home.ask(chat(LONG_PROMPT))).endpoint == "laptop"
        file = tmp_path / "tidegate.toml"
        before = file.read_text()
        file.write_text(before + '\n[[rule]]\nname = "long"\nwhen = "prompt_tokens > 1000"\nto = ["cloud"]\n')
        reloaded = await home.change("POST", "/api/config")
        assert [change["path"] for change in reloaded.json["changes"]] == ["rule.long"]
        assert (await home.ask(chat(LONG_PROMPT))).endpoint == "cloud"
        file.write_text(file.read_text().replace("prompt_tokens >", "prompt_toks >"))
        refused = await home.change("POST", "/api/config")
        assert refused.status == 422
        assert "`prompt_toks`" in json.dumps(refused.json)
        assert (await home.ask(chat(LONG_PROMPT), path=CHAT)).endpoint == "cloud"
