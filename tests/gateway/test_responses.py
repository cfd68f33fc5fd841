"""The Responses API on both sides of the gateway, and on one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.dialects import SPEECHES
from tests.gateway.harness import chat, house, local, remote
from tests.wire.responses.engine import call, message, quick, response, thought
from tidegate.engines.fake import Script

ANSWER = response(thought("**Looking**", sealed="gAAA"), message("Let me look.", "commentary"), call("shell", "{}"))
# What Codex says of itself, and always: nothing is to be stored, and thoughts come sealed.
AGENT: dict[str, Any] = {
    "model": "m",
    "instructions": "You are an agent.",
    "tools": [{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "high", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "one",
    "client_metadata": {"x-codex-turn": "t"},
}
ASKED = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is here?"}]}]
TOOL = {"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}


async def test_an_agent_has_its_thoughts_back_sealed_and_its_vendor_gets_them_as_they_came(tmp_path: Path) -> None:
    place = local(Script(answer=quick(ANSWER)), engine="openai-responses")
    async with house(tmp_path, laptop=place) as home:
        first = await home.ask(AGENT | {"input": ASKED}, path="/v1/responses")
        last = json.loads(first.body.decode().split("\n\n")[-2].partition("data: ")[2])
        output = last["response"]["output"]
        result = {"type": "function_call_output", "call_id": output[2]["call_id"], "output": "nothing"}
        await home.ask(AGENT | {"input": [*ASKED, *output, result]}, path="/v1/responses")
        begun, went_on = [json.loads(seen.body) for seen in home.engines["laptop"].seen]
    assert [(item["id"], item.get("phase")) for item in output] == [
        ("rs_0", None),
        ("msg_1", "commentary"),
        ("fc_2", None),
    ]
    assert (output[0]["summary"][0]["text"], output[0]["encrypted_content"]) == ("**Looking**", "gAAA")
    assert begun == AGENT | {"model": "own", "input": ASKED}
    _, thought_again, said_again, called_again, _ = went_on["input"]
    assert thought_again == {name: output[0][name] for name in ("type", "id", "summary", "encrypted_content")}
    assert (said_again["phase"], said_again["content"]) == ("commentary", output[1]["content"])
    assert called_again["call_id"] == output[2]["call_id"]


async def test_a_chat_that_thinks_and_has_tools_is_served_where_its_model_takes_both(tmp_path: Path) -> None:
    words = "Function tools with reasoning_effort are not supported for m in /v1/chat/completions. Use /v1/responses."
    unfit = Script(status=400, error=json.dumps({"error": {"message": words, "code": None}}).encode())
    places: dict[str, Any] = {
        "laptop": local(unfit, engine="openai", capabilities=["chat", "tools"]),
        "cloud": remote(Script(answer=json.dumps(ANSWER).encode()), engine="openai-responses"),
    }
    async with house(tmp_path, **places) as home:
        answer = await home.ask(chat(reasoning_effort="high", tools=[TOOL]))
        (seen,) = home.engines["cloud"].seen
    (choice,) = answer.json["choices"]
    assert (answer.endpoint, choice["finish_reason"]) == ("cloud", "tool_calls")
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "shell"
    asked = json.loads(seen.body)
    assert (asked["reasoning"], asked["tools"][0]["name"], asked["store"]) == ({"effort": "high"}, "shell", False)


async def test_an_endpoint_that_cannot_say_what_is_asked_is_passed_over(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(engine="openai-responses"), cloud=remote()) as home:
        answer = await home.ask(chat(stop=["END"]))
        assert home.engines["laptop"].seen == []
    assert (answer.status, answer.endpoint) == (200, "cloud")


async def test_where_a_thought_cannot_be_read_another_endpoint_serves(tmp_path: Path) -> None:
    error = {"message": "The encrypted content gAAA could not be verified.", "code": "invalid_encrypted_content"}
    other = Script(status=400, error=json.dumps({"error": error}).encode())
    async with house(tmp_path, laptop=local(other, engine="openai-responses"), cloud=remote()) as home:
        body = AGENT | {"input": [*ASKED, ANSWER["output"][0], *ASKED], "stream": False}
        answer = await home.ask(body, path="/v1/responses")
        (seen,) = home.engines["cloud"].seen
        again = await home.ask(AGENT | {"input": ASKED}, path="/v1/responses")
    assert SPEECHES["responses"].said(answer, stream=False).text
    assert answer.endpoint == "cloud"
    assert b"gAAA" not in seen.body
    assert again.header("x-tidegate-attempts") == "2", "it is no fault of the endpoint's"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("usage", [None, {"input_tokens": 9}, {"input_tokens": 0, "output_tokens": 0}])
async def test_what_an_answer_does_not_say_that_it_took_is_never_zero(
    tmp_path: Path, usage: dict[str, int] | None, stream: bool
) -> None:
    told = response(message("word " * 100), usage=usage)
    place = remote(Script(answer=quick(told) if stream else json.dumps(told).encode()), engine="openai-responses")
    async with house(tmp_path, budget={"usd_per_day": 5}, cloud=place) as home:
        assert (await home.ask(chat(stream=stream, max_tokens=1000))).status == 200
        (line,) = home.log()
    assert line["cost_usd"] > 100 * 4e-6
