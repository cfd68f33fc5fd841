"""How a prompt is asked for that another engine is to have: what goes along, what may not, and what is bounded."""

import json

import pytest
from msgspec import Raw

from tests.engines.speakers import recorded
from tidegate.core.model import Capability
from tidegate.wire import alone
from tidegate.wire.anthropic import request as messages
from tidegate.wire.anthropic.outward import messages_body
from tidegate.wire.chunks import Usage
from tidegate.wire.openai import Call, parse, upstream_body
from tidegate.wire.whole import WholeReader


def asked(**fields: object) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    return parse(json.dumps(body).encode(), Capability.CHAT)


def sent(call: Call) -> dict[str, object]:
    return dict(json.loads(upstream_body(call, model="m", stream=call.stream)))


def test_a_prompt_that_is_kept_is_asked_for_whole_and_for_one_token() -> None:
    bounds = {"max_completion_tokens": 9, "min_tokens": 3, "stream_options": {"include_usage": True}}
    said = sent(alone.kept(asked(temperature=0, **bounds)))
    assert (said["max_tokens"], said["stream"], said["temperature"]) == (1, False, 0)
    assert not set(bounds) & set(said)
    assert said["kv_transfer_params"] == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }


def test_what_one_engine_tells_goes_to_the_other_as_it_is_but_for_the_tokens_that_it_had_cached() -> None:
    answer = json.loads(recorded("kept", "vllm")["body"])
    told = alone.told(json.dumps(answer).encode())
    assert told is not None
    params = answer["kv_transfer_params"]
    assert params.pop("remote_prefill_cached_tokens") == 0
    assert sent(alone.fetching(asked(), told))["kv_transfer_params"] == params


def usage(cassette: str) -> Usage:
    """What its answer says of tokens, as we read it."""
    reader = WholeReader()
    reader.feed(recorded(cassette, "vllm")["body"].encode())
    reader.end()
    assert reader.usage is not None
    return reader.usage


def test_with_these_the_other_would_not_tell_what_it_has_fetched() -> None:
    as_told, fetched = usage("fetched_as_told"), usage("fetched")
    assert as_told.cached_tokens == 0
    assert fetched.cached_tokens == fetched.prompt_tokens


def test_a_stream_does_not_tell_it() -> None:
    frames = [line.removeprefix("data: ") for line in recorded("kept_stream", "vllm")["body"].splitlines() if line]
    assert frames.pop() == "[DONE]"
    assert frames
    assert all(alone.told(frame.encode()) is None for frame in frames)


def test_where_nothing_is_told_nothing_goes_to_the_other() -> None:
    assert alone.told(recorded("shared_kept", "vllm")["body"].encode()) is None
    call = asked()
    assert alone.fetching(call, None) is call


def test_what_a_client_says_of_it_goes_nowhere() -> None:
    call = asked(kv_transfer_params={"do_remote_prefill": True, "remote_host": "192.0.2.66"})
    assert "kv_transfer_params" not in sent(alone.fetching(call, None))
    assert sent(alone.fetching(call, Raw(b'{"a":1}')))["kv_transfer_params"] == {"a": 1}


@pytest.mark.parametrize("name", ["kv_transfer_params", "ec_transfer_params"])
def test_what_engines_say_to_each_other_no_client_says_to_one_by_another_name_either(name: str) -> None:
    call = asked(vllm_xargs={name: "not even an object", "mine": 1}, **{name: {"remote_host": "192.0.2.66"}})
    for made in (alone.fetching(call, None), alone.fetching(call, Raw(b"{}")), alone.kept(call)):
        said = sent(made)
        assert "192.0.2.66" not in str(said)
        assert said["vllm_xargs"] == {"mine": 1}


def test_nor_in_a_dialect_that_goes_on_as_it_came() -> None:
    told = {"kv_transfer_params": {"remote_host": "192.0.2.66"}, "vllm_xargs": {"ec_transfer_params": "192.0.2.66"}}
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **told}
    call = alone.fetching(messages.parse(json.dumps(body).encode()), None)
    assert b"192.0.2.66" not in messages_body(call, model="m", stream=False)


def test_arguments_of_a_clients_own_go_to_the_engine_as_they_are() -> None:
    for mine in ({"a": [1, "b"]}, None, 5):
        call = asked(vllm_xargs=mine)
        assert sent(alone.fetching(call, None)) == sent(call)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"kv_transfer_params":[1]}',
        b'{"kv_transfer_params":"none"}',
        b'{"kv_transfer_params":{"a":1}' + b" " * alone.FETCHING_BYTES_MAX + b"}",
    ],
    ids=lambda answer: answer[:30].decode() + ("..." if len(answer) > 30 else ""),
)
def test_what_no_engine_says_is_told_to_none(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"object|bound"):
        alone.told(answer)
