"""Embeddings through the whole gateway; that its journal replays is checked whenever a house is left."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from tests.gateway.harness import house, local, remote
from tidegate.core.model import Ended
from tidegate.engines.fake import Script

EMBEDDINGS = "/v1/embeddings"


@pytest.mark.parametrize("given", ["Say hi", ["Say hi", "and bye"], [1, 2, 3], [[1, 2], [3]]])
async def test_embeddings_go_where_they_can_be_made_and_cost_their_prompt(tmp_path: Path, given: Any) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote(capabilities=["chat", "embedding"])) as home:
        answer = await home.ask({"model": "m", "input": given, "dimensions": 2}, path=EMBEDDINGS)
        (seen,) = home.engines["cloud"].seen
        assert home.engines["laptop"].seen == []
        (line,) = home.log()
    found = CreateEmbeddingResponse.model_validate_json(answer.body)
    assert found.data[0].embedding == [0.6, 0.8]
    assert (answer.endpoint, answer.header("x-tidegate-why")) == ("cloud", "only_capable")
    assert json.loads(seen.body) == {"model": "vendor/big", "input": given, "dimensions": 2}
    assert (line["prompt_tokens"], line["output_tokens"]) == (found.usage.prompt_tokens, None)
    assert line["cost_usd"] == pytest.approx(found.usage.prompt_tokens / 1e6)
    assert float(answer.header("x-tidegate-cost-usd")) == pytest.approx(line["cost_usd"], abs=1e-8)


async def test_many_inputs_of_which_each_fits_a_window_are_embedded(tmp_path: Path) -> None:
    cloud = remote(capabilities=["embedding"], context_tokens=8192)
    async with house(tmp_path, cloud=cloud) as home:
        answer = await home.ask({"model": "m", "input": ["A chunk of a document. " * 90] * 100}, path=EMBEDDINGS)
        alone = await home.ask({"model": "m", "input": "A chunk of a document. " * 9_000}, path=EMBEDDINGS)
        (seen,) = home.engines["cloud"].seen
    assert (answer.status, len(json.loads(seen.body)["input"])) == (200, 100)
    assert (alone.status, alone.error["code"]) == (400, "context_length_exceeded")


async def test_the_end_of_embeddings_is_their_first_content(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(capabilities=["embedding"])) as home:
        await home.ask({"model": "m", "input": "Say hi"}, path=EMBEDDINGS)
        (ended,) = [line.fact for line in home.journal() if isinstance(line.fact, Ended)]
        (line,) = home.log()
        taught = home.gateway.router.endpoint("cloud").state.ttft
    assert ended.ttft_s == ended.e2e_s
    assert line["ttft_s"] == line["e2e_s"] > 0.0
    assert taught is not None


@pytest.mark.parametrize("bound", ["x", 1.5, -1, None])
async def test_a_bound_of_what_embeddings_have_not_is_not_looked_at(tmp_path: Path, bound: Any) -> None:
    async with house(tmp_path, cloud=remote(capabilities=["embedding"])) as home:
        answer = await home.ask({"model": "m", "input": "Say hi", "max_tokens": bound}, path=EMBEDDINGS)
    assert (answer.status, answer.endpoint) == (200, "cloud")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "unsupported_capability"),
        ({"stream": True}, None),
        ({"input": []}, None),
        ({"input": [1, "a"]}, None),
        ({"model": "none"}, "model_not_found"),
    ],
)
async def test_embeddings_that_cannot_be_made_are_refused(
    tmp_path: Path, fields: dict[str, Any], code: str | None
) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask({"model": "m", "input": "Say hi"} | fields, path=EMBEDDINGS)
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    assert (answer.status, answer.error["code"]) == (404 if code == "model_not_found" else 400, code)


async def test_inputs_that_do_not_fit_the_engines_batch_are_refused_and_take_it_from_nobody(tmp_path: Path) -> None:
    words = "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    error = json.dumps({"error": {"code": 500, "message": words, "type": "server_error"}}).encode()
    place = local(Script(status=500, error=error), engine="llamacpp", capabilities=["embedding"])
    async with house(tmp_path, laptop=place) as home:
        answers = [await home.ask({"model": "m", "input": "long"}, path=EMBEDDINGS) for _ in range(5)]
        assert len(home.engines["laptop"].seen) == 5  # beyond three failures, a breaker is open
    assert {(answer.status, answer.error["code"]) for answer in answers} == {(400, "context_length_exceeded")}
