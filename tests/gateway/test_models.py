"""A model's name stands for endpoints that are more or less alike; nobody gets another model without being told."""

from pathlib import Path
from typing import Any

import pytest
from openai.types import Model

from tests.gateway.harness import chat, house, local, remote
from tidegate.engines.fake import Script

GROUP: dict[str, dict[str, Any]] = {
    "chat": {
        "aliases": ["gpt-4o-mini", "chat/latest"],
        "endpoints": {"laptop": "identical", "rack": "same_family", "cloud": "substitute"},
    }
}


def only_the_cloud() -> dict[str, Any]:
    return {"laptop": local(up=False), "rack": local(up=False), "cloud": remote()}


async def test_a_request_gets_the_model_it_asked_for_and_is_told_which(tmp_path: Path) -> None:
    async with house(tmp_path, models=GROUP, laptop=local(), rack=local(), cloud=remote()) as home:
        answer = await home.ask(chat(model="chat"))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert answer.header("x-tidegate-likeness") == "identical"
        assert answer.header("x-tidegate-model") == "own"
        assert home.engines["laptop"].seen[0].body.count(b'"own"') == 1


async def test_no_other_model_serves_unasked_though_it_is_the_only_one_that_is_up(tmp_path: Path) -> None:
    async with house(tmp_path, models=GROUP, **only_the_cloud()) as home:
        answer = await home.ask(chat(model="chat"))
        assert answer.status == 503
        assert home.engines["cloud"].seen == []


@pytest.mark.parametrize(
    ("least", "endpoint"), [("same_family", "rack"), ("substitute", "rack"), ("identical", "laptop")]
)
async def test_a_request_may_accept_less_and_is_told_what_served(tmp_path: Path, least: str, endpoint: str) -> None:
    places: dict[str, Any] = {"laptop": local(up=least == "identical"), "rack": local(), "cloud": remote()}
    async with house(tmp_path, models=GROUP, **places) as home:
        answer = await home.ask(chat(model="chat"), x_tidegate_likeness=least)
        assert (answer.status, answer.endpoint) == (200, endpoint)
        assert answer.header("x-tidegate-likeness") == GROUP["chat"]["endpoints"][endpoint]


async def test_fail_over_stays_within_what_is_alike_enough(tmp_path: Path) -> None:
    broken = Script(status=500, error=b"{}")
    async with house(tmp_path, models=GROUP, laptop=local(broken), rack=local(broken), cloud=remote()) as home:
        answer = await home.ask(chat(model="chat"), x_tidegate_likeness="same_family")
        assert answer.status == 502
        assert home.engines["cloud"].seen == []
        answer = await home.ask(chat(model="chat"), x_tidegate_likeness="substitute")
        assert (answer.status, answer.endpoint) == (200, "cloud")
        assert answer.header("x-tidegate-likeness") == "substitute"


async def test_a_class_or_the_group_may_accept_less_for_all_its_requests(tmp_path: Path) -> None:
    batch = {"batch": {"likeness": "substitute", "slo": {"e2e_ms": 60_000}}}
    async with house(tmp_path, models=GROUP, classes=batch, **only_the_cloud()) as home:
        assert (await home.ask(chat(model="chat"), x_tidegate_class="batch")).endpoint == "cloud"
        # The request itself goes before its class.
        strict = await home.ask(chat(model="chat"), x_tidegate_class="batch", x_tidegate_likeness="identical")
        assert strict.status == 503
    loose = {"chat": GROUP["chat"] | {"likeness": "substitute"}}
    (tmp_path / "loose").mkdir()
    async with house(tmp_path / "loose", models=loose, **only_the_cloud()) as home:
        assert (await home.ask(chat(model="chat"))).endpoint == "cloud"


async def test_where_only_stand_ins_could_serve_the_refusal_says_how_to_accept_them(tmp_path: Path) -> None:
    group = {"chat": {"endpoints": {"cloud": "substitute"}, "likeness": "substitute"}}
    async with house(tmp_path, models=group, cloud=remote()) as home:
        error = (await home.ask(chat(model="chat"), x_tidegate_likeness="identical")).error
        assert error["code"] == "model_not_alike"
        assert "x-tidegate-likeness" in error["message"]


@pytest.mark.parametrize("name", ["chat", "gpt-4o-mini", "chat/latest"])
async def test_an_alias_is_served_as_the_model_that_it_stands_for(tmp_path: Path, name: str) -> None:
    group = {"chat": GROUP["chat"] | {"endpoints": {"laptop": "identical"}}}
    async with house(tmp_path, models=group, laptop=local(model="")) as home:
        answer = await home.ask(chat(model=name))
        assert answer.status == 200
        # An endpoint without a name of its own knows the group's, not the alias.
        assert b'"model":"chat"' in home.engines["laptop"].seen[0].body


async def test_what_may_be_asked_for_is_listed_with_what_stands_behind_it(tmp_path: Path) -> None:
    places: dict[str, Any] = {
        "laptop": local(context_tokens=4096),
        "rack": local(up=False),
        "cloud": remote(context_tokens=32768),
    }
    async with house(tmp_path, models=GROUP, **places) as home:
        listed = (await home.get("/v1/models")).json
        assert [Model.model_validate(m).id for m in listed["data"]] == ["chat", "chat/latest", "gpt-4o-mini"]
        told = listed["data"][0]["tidegate"]
        assert told["context_tokens"] == 32768
        assert told["likeness"] == "identical"
        assert [(e["name"], e["likeness"], e["up"]) for e in told["endpoints"]] == [
            ("cloud", "substitute", True),
            ("laptop", "identical", True),
            ("rack", "same_family", False),
        ]
        assert listed["data"][2]["tidegate"]["alias_of"] == "chat"
        assert (await home.get("/v1/models/chat%2Flatest")).json == listed["data"][1]
        assert (await home.get("/v1/models/none")).error["code"] == "model_not_found"


async def test_a_wrong_likeness_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        error = (await home.ask(chat(), x_tidegate_likeness="similar")).error
        assert "identical, same_family, substitute" in error["message"]
