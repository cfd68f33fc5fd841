"""What the SDK that most clients use makes of the gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.harness import House, house, local, remote
from tidegate.engines.fake import Fault, Script

WORDS = "w1 w2 w3 w4 "
HI: Any = [{"role": "user", "content": "Say hi"}]


@asynccontextmanager
async def sdk(home: House, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://127.0.0.1:{home.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-client", **options) as client:
        yield client


async def test_it_reads_answers_streams_and_models(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(serves=["m", "org/other"])) as home, sdk(home) as client:
        whole = await client.chat.completions.create(model="m", messages=HI)
        stream = await client.chat.completions.create(
            model="org/other", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = await client.completions.create(model="m", prompt="Say hi")
        models = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("org/other")
    assert whole.choices[0].message.content == text.choices[0].text == WORDS
    assert whole._request_id
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == WORDS
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert (models, one.id) == (["m", "org/other"], "org/other")


@pytest.mark.parametrize(
    ("place", "model", "error"),
    [
        (local(), "none", openai.NotFoundError),
        (local(Script(status=400)), "m", openai.BadRequestError),
        (local(Script(status=422)), "m", openai.UnprocessableEntityError),
        (local(Script(status=429)), "m", openai.RateLimitError),
        (local(Script(status=401)), "m", openai.InternalServerError),
        (local(Script(status=503)), "m", openai.InternalServerError),
    ],
)
async def test_it_knows_our_errors_by_their_class(
    tmp_path: Path, place: Any, model: str, error: type[openai.APIStatusError]
) -> None:
    async with house(tmp_path, laptop=place) as home, sdk(home, max_retries=0) as client:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=model, messages=HI)
    assert caught.value.request_id
    assert isinstance(caught.value.body, dict)


async def test_it_does_not_repeat_what_was_tried_everywhere_already(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=500))) as home, sdk(home, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="m", messages=HI)
        assert len(home.engines["laptop"].seen) == 1


async def test_it_raises_on_a_stream_that_broke(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.CUT, fault_after=2))
    async with house(tmp_path, laptop=place, cloud=remote()) as home, sdk(home, max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        seen = []
        with pytest.raises(openai.APIError, match="closed the connection"):  # noqa: PT012 - it raises on the way
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content)  # noqa: PERF401 - kept up to there
    assert "".join(word or "" for word in seen) == "w1 w2 "
