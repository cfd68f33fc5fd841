"""What is Anthropic's own: its headers, its errors, its list of models.

The bodies below are written after the shapes in the vendor's reference (Errors, Streaming Messages, Models), and are
not recordings: nothing here has called the vendor.
"""

import json
from typing import Any

import pytest
from anthropic.types import MessageCreateParams
from pydantic import TypeAdapter

from tests.engines.speakers import chat
from tidegate.core.health import CONTEXT_EXCEEDED, UNFIT
from tidegate.core.model import Capability, Ending
from tidegate.engines.anthropic import Anthropic
from tidegate.engines.base import Outgoing, ProbeAnswer, Signals, uncarried
from tidegate.wire.anthropic import request
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import parse

CLAUDE = Anthropic("/v1", "claude")
PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)


def outgoing(body: dict[str, Any]) -> Outgoing:
    kind = Capability.CHAT if "messages" in body else Capability.COMPLETION
    return CLAUDE.outgoing(parse(json.dumps(body).encode(), kind), "claude", ((b"authorization", b"Bearer k"),))


def error(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()


def models(*listed: dict[str, Any], status: int = 200) -> Signals:
    return CLAUDE.signals([ProbeAnswer(status=status, body=json.dumps({"data": listed, "has_more": False}).encode())])


def test_the_key_and_the_version_stand_where_they_are_looked_for() -> None:
    made = dict(outgoing(chat()).headers)
    assert made[b"x-api-key"] == b"k"
    assert made[b"anthropic-version"] == b"2023-06-01"
    assert b"authorization" not in made
    assert made[b"accept-encoding"] == b"identity"


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_becomes_a_request_that_the_sdk_would_send(stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    made = outgoing(chat(stream=stream, tools=[tool], tool_choice="required", stop="END"))
    assert (made.target, made.streamed) == (b"/v1/messages", stream)
    body = json.loads(made.body)
    assert PARAMS.validate_python(body)["stream"] is stream
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert (body["tool_choice"], body["stop_sequences"]) == ({"type": "any"}, ["END"])


def test_what_another_vendor_has_signed_is_set_aside() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": "a", "tool_calls": [call]}
    conversation = [{"role": "user", "content": "hi"}, said, {"role": "tool", "tool_call_id": "c1", "content": "4"}]
    there = [conversation[0], said | signed | {"tool_calls": [call | signed]}, conversation[2]]
    assert outgoing(chat() | {"messages": there}).body == outgoing(chat() | {"messages": conversation}).body


def test_what_a_client_says_in_the_same_dialect_goes_on_as_it_came() -> None:
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}], "speed": "fast"}
    beta = (b"anthropic-beta", b"fast-mode")
    call = request.parse(json.dumps(asked).encode(), dict([beta, (b"x-api-key", b"the client's own")]))
    made = CLAUDE.outgoing(call, "claude", ((b"x-api-key", b"ours"),))
    assert json.loads(made.body) == {**asked, "model": "claude", "stream": False}
    assert beta in made.headers
    assert [value for name, value in made.headers if name == b"x-api-key"] == [b"ours"]


def test_a_completion_is_not_carried_and_another_endpoint_may_serve_it() -> None:
    with pytest.raises(BadRequest) as caught:
        outgoing({"model": "m", "prompt": "a"})
    failure = uncarried(caught.value)
    assert (failure.final, failure.ending, failure.status) == (False, Ending.REFUSED, 400)


def test_an_image_that_the_vendor_does_not_take_may_be_served_by_another_endpoint() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}
    with pytest.raises(BadRequest) as caught:
        outgoing(chat(messages=[{"role": "user", "content": [image]}]))
    failure = uncarried(caught.value)
    assert (failure.final, failure.ending, failure.status) == (False, Ending.REFUSED, 400)
    assert "JPEG" in failure.message


def test_overload_is_a_refusal() -> None:
    said = CLAUDE.failure(529, {b"retry-after": b"3"}, error("overloaded_error", "Overloaded"), 0.0)
    assert (said.ending, said.status, said.message, said.retry_after_s) == (Ending.REFUSED, 503, "Overloaded", 3.0)


def test_a_prompt_that_is_too_long_is_known_by_its_words() -> None:
    words = "prompt is too long: 210000 tokens > 200000 maximum"
    said = CLAUDE.failure(400, {}, error("invalid_request_error", words), 0.0)
    assert (said.cause, said.final) == (CONTEXT_EXCEEDED, False)


def test_a_bad_request_is_the_clients() -> None:
    said = CLAUDE.failure(400, {}, error("invalid_request_error", "temperature: too hot"), 0.0)
    assert (said.final, said.kind, said.message) == (True, "invalid_request_error", "temperature: too hot")


def test_a_model_that_does_not_want_to_be_told_how_it_samples_leaves_the_request_to_others() -> None:
    said = CLAUDE.failure(400, {}, error("invalid_request_error", "`temperature` is deprecated for this model."), 0.0)
    assert (said.ending, said.cause, said.status, said.final) == (Ending.REFUSED, UNFIT, 400, False)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (402, "billing_error"), (404, "not_found_error")]
)
def test_what_concerns_our_key_is_not_the_clients(status: int, kind: str) -> None:
    said = CLAUDE.failure(status, {}, error(kind, "no"), 0.0)
    assert (said.ending, said.status, said.final) == (Ending.FAILED, 502, False)


def test_the_window_is_that_of_the_endpoints_model() -> None:
    listed = [{"id": "claude", "type": "model", "max_input_tokens": 200_000}, {"id": "other", "max_input_tokens": 9}]
    assert models(*listed) == Signals(up=True, context_tokens=200_000)
    assert models({"id": "other", "max_input_tokens": 9}) == Signals(up=True)
    assert models({"id": "claude"}) == Signals(up=True)


@pytest.mark.parametrize("status", [401, 403, 500, 529])
def test_a_bad_key_or_a_failing_vendor_is_down(status: int) -> None:
    assert models(status=status) == Signals(up=False)
