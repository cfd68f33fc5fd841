"""What the SDKs of other dialects make of the gateway's errors."""

from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.gateway.harness import House, house, local, remote
from tidegate.engines.fake import Fault, Script

HI: Any = [{"role": "user", "content": "Say hi"}]
BROKEN = Script(fault=Fault.CUT, fault_after=2)
CLOSED = "closed the connection"


def messages(home: House) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{home.port}", api_key="sk-client", max_retries=0)


def lines(home: House) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=f"http://127.0.0.1:{home.port}")


@pytest.mark.parametrize(
    ("place", "model", "error"),
    [
        (local(), "none", anthropic.NotFoundError),
        (local(Script(status=400)), "m", anthropic.BadRequestError),
        (local(Script(status=429)), "m", anthropic.RateLimitError),
        (local(Script(status=401)), "m", anthropic.InternalServerError),
        (local(Script(status=503)), "m", anthropic.InternalServerError),
    ],
)
async def test_anthropics_sdk_knows_our_errors_by_their_class(
    tmp_path: Path, place: Any, model: str, error: type[anthropic.APIStatusError]
) -> None:
    async with house(tmp_path, laptop=place) as home, messages(home) as client:
        with pytest.raises(error) as caught:
            await client.messages.create(model=model, messages=HI, max_tokens=9)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "error"
    assert caught.value.response.headers["x-request-id"]


async def test_anthropics_sdk_raises_on_a_stream_that_broke(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(BROKEN), cloud=remote()) as home, messages(home) as client:
        said = ""
        with pytest.raises(anthropic.APIStatusError, match=CLOSED):  # noqa: PT012 - it raises on the way
            async with client.messages.stream(model="m", messages=HI, max_tokens=9) as stream:
                async for text in stream.text_stream:
                    said += text
    assert said == "w1 w2 "


async def test_anthropics_sdk_does_not_repeat_what_was_tried_everywhere_already(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=500))) as home:
        async with messages(home).with_options(max_retries=2) as client:
            with pytest.raises(anthropic.InternalServerError):
                await client.messages.create(model="m", messages=HI, max_tokens=9)
        assert len(home.engines["laptop"].seen) == 1


async def test_anthropics_tool_runner_goes_on_without_a_thread(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home, messages(home) as client:
        runner = client.beta.messages.tool_runner(model="m", messages=HI, max_tokens=9, tools=[])
        said = [message async for message in runner]
        assert len(home.engines["laptop"].seen) == 1
    assert [message.stop_reason for message in said] == ["end_turn"]


@pytest.mark.parametrize(("model", "status"), [("none", 404), ("m", 502)])
@pytest.mark.parametrize("stream", [True, False])
async def test_ollamas_client_raises_our_message_with_its_status(
    tmp_path: Path, model: str, status: int, stream: bool
) -> None:
    async with house(tmp_path, laptop=local(Script(status=500))) as home, lines(home) as client:
        with pytest.raises(ollama.ResponseError) as caught:  # noqa: PT012 - streamed, it raises on the way
            answer: Any = await client.chat(model=model, messages=HI, stream=stream)
            async for _ in answer:
                pass
    assert caught.value.status_code == status
    assert caught.value.error.startswith(("The model `none`", "No endpoint could complete this"))


async def test_ollamas_client_raises_on_a_stream_that_broke(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(BROKEN), cloud=remote()) as home, lines(home) as client:
        said = ""
        with pytest.raises(ollama.ResponseError, match=CLOSED):  # noqa: PT012 - it raises on the way
            async for line in await client.chat(model="m", messages=HI, stream=True):
                said += line.message.content or ""
    assert said == "w1 w2 "


async def test_a_response_that_broke_ends_as_failed(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(BROKEN), cloud=remote()) as home:
        url = f"http://127.0.0.1:{home.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-client", max_retries=0) as client:
            stream = await client.responses.create(model="m", input="Say hi", stream=True)
            events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert CLOSED in last.response.error.message
    assert "response.completed" not in {event.type for event in events}
