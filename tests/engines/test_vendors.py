"""What vendors of OpenAI's dialect refuse or pass over, by their addresses.

The words of their refusals are as users of theirs have quoted them; nothing here has called a vendor.
"""

import json
from typing import Any

import pytest

from tests.engines.speakers import chat
from tidegate.core.health import UNFIT
from tidegate.core.model import Capability, Ending
from tidegate.engines.kinds import dialect_of
from tidegate.wire.openai import parse

HI = {"role": "user", "content": "hi"}
THOUGHT = {"role": "assistant", "content": "4", "reasoning_content": 'two "twos"'}


def sent(host: str, body: dict[str, Any], kind: str = "openai") -> dict[str, Any]:
    dialect = dialect_of(kind, host, "/v1", "m")
    made: dict[str, Any] = json.loads(dialect.outgoing(parse(json.dumps(body).encode(), Capability.CHAT), "m", ()).body)
    return made


@pytest.mark.parametrize(
    ("asked", "bound"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 7}, {"max_tokens": 5}),
        ({"max_completion_tokens": None, "max_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({}, {}),
    ],
)
@pytest.mark.parametrize("host", ["api.deepseek.com", "api.mistral.ai"])
def test_vendors_that_know_the_older_name_of_the_bound_alone_get_it_by_that(
    host: str, asked: dict[str, int | None], bound: dict[str, int]
) -> None:
    made = sent(host, {"model": "m", "messages": [HI], **asked})
    assert {name: value for name, value in made.items() if name.startswith("max_")} == bound


@pytest.mark.parametrize("host", ["api.groq.com", "api.cerebras.ai", "api.mistral.ai"])
def test_vendors_that_refuse_what_was_thought_before_do_without(host: str) -> None:
    plain = [HI, {"role": "assistant", "content": "4"}, HI]
    made = sent(host, chat() | {"messages": [HI, THOUGHT, HI]})
    assert made == sent(host, chat() | {"messages": plain})
    assert made["messages"] == plain


@pytest.mark.parametrize("host", ["api.deepseek.com", "integrate.api.nvidia.com", "api.example.com"])
def test_others_get_what_was_thought_before_as_it_came(host: str) -> None:
    assert sent(host, chat() | {"messages": [HI, THOUGHT, HI]})["messages"] == [HI, THOUGHT, HI]


@pytest.mark.parametrize(
    ("host", "takes"),
    [
        ("api.groq.com", False),
        ("api.cerebras.ai", False),
        ("integrate.api.nvidia.com", False),
        ("generativelanguage.googleapis.com", False),
        ("api.openai.com", True),
        ("ours.openai.azure.com", True),
        ("api.mistral.ai", True),
        ("openrouter.ai", True),
        ("api.groq.com.example.org", True),
    ],
)
def test_a_hint_for_the_cache_goes_to_those_that_do_not_refuse_it(host: str, takes: bool) -> None:
    made = sent(host, chat(prompt_cache_key="mine"))
    assert made.pop("prompt_cache_key", None) == ("mine" if takes else None)
    assert made == sent(host, chat())


@pytest.mark.parametrize("kind", ["vllm", "sglang", "ollama", "llamacpp"])
def test_engines_get_the_hint_for_the_cache_wherever_they_are(kind: str) -> None:
    assert sent("api.groq.com", chat(prompt_cache_key="mine"), kind)["prompt_cache_key"] == "mine"


MISTRAL = {
    "object": "error",
    "message": {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "max_completion_tokens"],
                "msg": "Extra inputs are not permitted",
                "input": "SECRET",
            }
        ]
    },
    "type": "invalid_request_error",
    "param": None,
    "code": None,
}
OPENAI = {
    "error": {
        "message": "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use "
        "function tools, use /v1/responses or set reasoning_effort to 'none'.",
        "type": "invalid_request_error",
        "param": "reasoning_effort",
        "code": None,
    }
}
NVIDIA = {"message": "Validation: Unsupported parameter(s): `prompt_cache_key`", "type": "Bad Request", "code": 400}


@pytest.mark.parametrize(
    ("host", "status", "body", "words"),
    [
        ("api.mistral.ai", 422, MISTRAL, "body.max_completion_tokens: Extra inputs are not permitted"),
        ("api.openai.com", 400, OPENAI, "Function tools with reasoning_effort are not supported"),
        ("integrate.api.nvidia.com", 400, NVIDIA, "Unsupported parameter(s)"),
    ],
)
def test_what_one_vendor_does_not_take_is_left_to_others(host: str, status: int, body: object, words: str) -> None:
    failure = dialect_of("openai", host, "/v1", "m").failure(status, {}, json.dumps(body).encode(), 0.0)
    assert (failure.ending, failure.cause, failure.status, failure.final) == (Ending.REFUSED, UNFIT, 400, False)
    assert words in failure.message
    assert "SECRET" not in failure.message
