"""The clients that people have, each as its documentation says, through the gateway to real engines."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic, NotFoundError
from httpx import AsyncClient
from langchain_openai import ChatOpenAI
from ollama import AsyncClient as Ollama
from ollama import ResponseError
from openai import AsyncOpenAI, BadRequestError
from pydantic import SecretStr

from tests.lab.record import WEATHER
from tests.live.conftest import Running
from tests.live.stack import MODEL, Stack
from tidegate.lab.tour import document

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

ASK = "Name three primary colours."
TURN: Any = [{"role": "user", "content": ASK}]
KEY = "not-checked"
TOOL: Any = {"name": "weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}

# Three of them, so that a model of 135M parameters calls the tool as well.
EXAMPLES: list[Any] = [
    turn
    for city in ("Rome", "Oslo", "Lima")
    for turn in (
        {"role": "user", "content": f"What is the weather in {city}?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": city, "name": "weather", "input": {"city": city}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": city, "content": "sunny"}]},
        {"role": "assistant", "content": f"It is sunny in {city}."},
    )
]


def openai(stack: Stack) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=stack.url, api_key=KEY, max_retries=0)


def anthropic(stack: Stack) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=stack.root, api_key=KEY, max_retries=0)


async def run(*command: str, **environment: str) -> str:
    """What a command prints; it must end well."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    out, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return out.decode()


@pytest.mark.lengthy
def test_the_openai_sdk_gets_responses_whole_and_streamed(live: Running) -> None:
    async def main() -> None:
        async with openai(live.stack) as client:
            whole = await client.responses.create(model=MODEL, input=ASK, max_output_tokens=16)
            assert whole.output_text
            assert whole.usage is not None
            assert 0 < whole.usage.output_tokens <= 16
            async with client.responses.stream(model=MODEL, input=ASK, max_output_tokens=16) as stream:
                events = [event async for event in stream]
            assert events[0].type == "response.created"
            last = events[-1]
            assert last.type in ("response.completed", "response.incomplete")
            assert last.response.output_text

    live.run(main())


def test_the_openai_sdk_streams_completions_and_finds_a_model(live: Running) -> None:
    async def main() -> None:
        async with openai(live.stack) as client:
            stream = await client.completions.create(model=MODEL, prompt="Once upon", max_tokens=8, stream=True)
            assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
            assert (await client.models.retrieve(MODEL)).id == MODEL

    live.run(main())


def test_the_openai_sdk_is_told_that_no_endpoint_makes_embeddings(live: Running) -> None:
    async def main() -> None:
        async with openai(live.stack) as client:
            with pytest.raises(BadRequestError, match="leave out what no endpoint can do") as refused:
                await client.embeddings.create(model=MODEL, input=ASK)
            assert refused.value.code == "unsupported_capability"

    live.run(main())


@pytest.mark.lengthy
def test_the_anthropic_sdk_gets_a_message_a_stream_and_a_count(live: Running) -> None:
    async def main() -> None:
        async with anthropic(live.stack) as client:
            whole = await client.messages.create(model=MODEL, messages=TURN, max_tokens=16, system="Be brief.")
            assert whole.content[0].type == "text"
            assert whole.content[0].text
            assert 0 < whole.usage.output_tokens <= 16
            async with client.messages.stream(model=MODEL, messages=TURN, max_tokens=16) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                last = await stream.get_final_message()
            assert text
            assert last.stop_reason in ("end_turn", "max_tokens")
            long: Any = [{"role": "user", "content": document(5, 200)}]
            counted = await client.messages.count_tokens(model=MODEL, messages=long)
            usage = (await client.messages.create(model=MODEL, messages=long, max_tokens=1)).usage
            # An estimate from bytes: within half and double of what the engine counts, cached or not.
            assert 0.5 < counted.input_tokens / (usage.input_tokens + (usage.cache_read_input_tokens or 0)) < 2.0
            with pytest.raises(NotFoundError):
                await client.messages.create(model="none", messages=TURN, max_tokens=16)

    live.run(main())


@pytest.mark.lengthy
@pytest.mark.parametrize("streamed", [True, False])
def test_the_anthropic_sdk_gets_a_call_of_a_tool(live: Running, streamed: bool) -> None:
    async def main() -> None:
        asked: Any = {
            "model": MODEL,
            "messages": [*EXAMPLES, {"role": "user", "content": "What is the weather in Paris?"}],
            "max_tokens": 60,
            "extra_body": {"temperature": 0.0},
            "extra_headers": {"x-tidegate-residency": "local"},
            "tools": [TOOL],
        }
        async with anthropic(live.stack) as client:
            if streamed:
                async with client.messages.stream(**asked) as stream:
                    answer = await stream.get_final_message()
            else:
                answer = await client.messages.create(**asked)
        called = [block for block in answer.content if block.type == "tool_use"]
        assert [(block.name, block.input) for block in called] == [("weather", {"city": "Paris"})]
        assert answer.stop_reason == "tool_use"

    live.run(main())


@pytest.mark.lengthy
def test_the_ollama_client_chats_generates_and_looks_up_models(live: Running) -> None:
    async def main() -> None:
        async with Ollama(host=live.stack.root) as client:
            brief = {"num_predict": 12, "temperature": 0.0}
            whole = await client.chat(model=MODEL, messages=TURN, options=brief)
            assert whole.message.content
            assert whole.eval_count is not None
            assert 0 < whole.eval_count <= 12
            lines = [line async for line in await client.chat(model=MODEL, messages=TURN, options=brief, stream=True)]
            assert "".join(line.message.content or "" for line in lines)
            assert [line.done for line in lines].index(True) == len(lines) - 1
            generated = await client.generate(model=MODEL, prompt=ASK, options=brief)
            assert generated.response
            pieces = [p async for p in await client.generate(model=MODEL, prompt=ASK, options=brief, stream=True)]
            assert pieces[-1].eval_count
            assert [model.model for model in (await client.list()).models] == [f"{MODEL}:latest"]
            assert "completion" in ((await client.show(MODEL)).capabilities or ())
            with pytest.raises(ResponseError, match="not served here") as refused:
                await client.show("none")
            assert refused.value.status_code == 404

    live.run(main())


@pytest.mark.lengthy
@pytest.mark.parametrize("options", [(), ("--no-stream",)], ids=["streamed", "whole"])
def test_the_command_llm_gets_an_answer(live: Running, tmp_path: Path, options: tuple[str, ...]) -> None:
    async def main() -> None:
        models = [{"model_id": "tidegate", "model_name": MODEL, "api_base": live.stack.url}]
        (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
        command = (sys.executable, "-m", "llm", "prompt", ASK, "-m", "tidegate", "--key", KEY, "--no-log")
        said = await run(*command, "-o", "max_tokens", "16", *options, LLM_USER_PATH=str(tmp_path))
        assert said.strip()

    live.run(main())


def test_langchain_invokes_and_streams(live: Running) -> None:
    async def main() -> None:
        async with AsyncClient() as http:
            chat = ChatOpenAI(
                model=MODEL,
                base_url=live.stack.url,
                api_key=SecretStr(KEY),
                max_retries=0,
                max_completion_tokens=16,
                http_async_client=http,
            )
            whole = await chat.ainvoke(ASK)
            assert whole.content
            assert whole.usage_metadata is not None
            assert whole.usage_metadata["output_tokens"] <= 16
            chunks = [chunk async for chunk in chat.astream(ASK)]
            assert "".join(str(chunk.content) for chunk in chunks)

    live.run(main())


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/v1/chat/completions", {"messages": TURN, "max_tokens": 8}, "data: [DONE]\n\n"),
        ("/v1/completions", {"prompt": ASK, "max_tokens": 8}, "data: [DONE]\n\n"),
        ("/v1/messages", {"messages": TURN, "max_tokens": 8}, 'data: {"type":"message_stop"}\n\n'),
        ("/v1/responses", {"input": ASK, "max_output_tokens": 16}, "}\n\n"),
        ("/api/chat", {"messages": TURN, "options": {"num_predict": 8}}, "}\n"),
        ("/api/generate", {"prompt": ASK, "options": {"num_predict": 8}}, "}\n"),
    ],
)
def test_curl_gets_every_dialect_whole_and_streamed(live: Running, path: str, body: dict[str, Any], end: str) -> None:
    async def main() -> None:
        url, header = live.stack.root + path, ("-H", "content-type: application/json")
        asked = {"model": MODEL, **body}
        whole = json.loads(await run("curl", "-sSN", url, *header, "-d", json.dumps({**asked, "stream": False})))
        assert whole["model"] == MODEL
        assert "error" not in whole or whole["error"] is None
        streamed = await run("curl", "-sSN", url, *header, "-d", json.dumps({**asked, "stream": True}))
        assert streamed.endswith(end)
        assert '"error":{' not in streamed

    live.run(main())
