"""What holds for every dialect, before whatever speaks it: the fake, and the real llama.cpp where it is marked."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.conftest import Speaking
from tests.engines.speakers import LONG, TRANSLATED, Called, begun, chat, completion
from tidegate.config.defaults import defaults
from tidegate.config.endpoint import EngineKind
from tidegate.core.health import CONTEXT_EXCEEDED, UNFIT
from tidegate.core.memory import COUNT_MAX
from tidegate.core.model import Capability, Ending
from tidegate.engines.base import CONTEXT_TOKENS_MAX, Dialect, ProbeAnswer, Signals
from tidegate.engines.kinds import KINDS
from tidegate.wire.errors import MESSAGE_CHARS_MAX
from tidegate.wire.openai import parse

ASKED = {"chat": chat(), "completion": completion()}
NOW_S = 1_800_000_000.0
DIALECTS = {kind: made("/base/v1", "m") for kind, made in KINDS.items()}
dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
# Those whose requests are the hub's own, and pass as they came.
PLAIN = {kind: dialect for kind, dialect in DIALECTS.items() if kind not in TRANSLATED}
plain_dialects = pytest.mark.parametrize("dialect", PLAIN.values(), ids=PLAIN)


def counted(called: Called) -> None:
    usage = called.attempt.reader.usage
    assert usage is not None
    assert (usage.prompt_tokens or 0) > 0
    assert usage.output_tokens == 4


@pytest.mark.parametrize("asked", ASKED)
async def test_a_stream_shows_its_first_content_and_counts_its_tokens(speaking: Speaking, asked: str) -> None:
    async with speaking as speaker:
        speaker.must_serve(ASKED[asked])
        called = await speaker.call(ASKED[asked] | {"stream": True})
    assert called.failure is None
    assert called.contents == 1
    assert called.attempt.begun
    assert called.attempt.reader.done_frame == b"data: [DONE]\n\n"
    counted(called)
    choices = [choice for chunk in called.chunks for choice in chunk["choices"]]
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] in (["stop"], ["length"])
    assert "".join((c.get("delta") or {}).get("content") or c.get("text") or "" for c in choices)


@pytest.mark.parametrize("asked", ASKED)
async def test_a_whole_answer_is_one_object_and_counts_its_tokens(speaking: Speaking, asked: str) -> None:
    async with speaking as speaker:
        speaker.must_serve(ASKED[asked])
        called = await speaker.call(ASKED[asked])
    assert called.failure is None
    assert called.written == b""
    counted(called)
    (choice,) = called.answer["choices"]
    assert called.answer["object"] == ("chat.completion" if asked == "chat" else "text_completion")
    assert choice["message"]["content"] if asked == "chat" else choice["text"]
    assert choice["finish_reason"] in ("stop", "length")
    assert called.answer["usage"]["completion_tokens"] == 4


async def test_embeddings_are_given_whole_and_count_their_tokens(speaking: Speaking) -> None:
    asked = {"model": "m", "input": ["a", "b"], "encoding_format": "float"}
    async with speaking as speaker:
        speaker.must_serve(asked)
        called = await speaker.call(asked)
    if called.failure is not None and called.failure.message.startswith("the endpoint answered 501"):
        pytest.skip("this server was not started for embeddings")
    assert called.failure is None
    assert called.answer["data"][0]["embedding"]
    assert called.attempt.reader.usage is not None
    assert called.attempt.reader.usage.prompt_tokens


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("asked", [chat(LONG), completion(LONG)], ids=["chat", "completion"])
async def test_a_prompt_that_does_not_fit_is_a_refusal_that_another_window_may_answer(
    speaking: Speaking, asked: dict[str, Any], stream: bool
) -> None:
    async with speaking as speaker:
        speaker.must_serve(asked)
        speaker.overflowing()
        failure = (await speaker.call(asked | {"stream": stream})).failure
    assert failure is not None
    assert (failure.ending, failure.cause, failure.final) == (Ending.REFUSED, CONTEXT_EXCEEDED, False)
    assert (failure.status, failure.code, failure.param) == (400, "context_length_exceeded", "messages")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_bad_parameter_is_the_clients_and_final(speaking: Speaking, stream: bool) -> None:
    async with speaking as speaker:
        speaker.strict()
        # What a translator would refuse by itself is not sent, and is no failure of the engine's.
        bad: dict[str, Any] = {"top_p": 7} if speaker.kind in TRANSLATED else {"temperature": "hot"}
        failure = (await speaker.call(chat(stream=stream, **bad))).failure
    assert failure is not None
    assert (failure.status, failure.final, failure.ending) == (400, True, Ending.OK)
    assert failure.message


async def test_a_probe_tells_what_the_engine_knows_of_itself(speaking: Speaking) -> None:
    async with speaking as speaker:
        idle = await speaker.probe()
        speaker.endless()
        called = speaker.begin(chat(stream=True, max_tokens=400))
        await begun(called)
        busy = await speaker.probe()
        called.attempt.cancel()
        await speaker.idle()
    assert idle.up is busy.up is True
    assert idle.context_tokens == (1024 if speaker.tells_window else None)
    assert (idle.running, busy.running) == ((0, 1) if speaker.tells_load else (None, None))
    assert busy.queued in ((0,) if speaker.tells_load else (None,))
    # Two slots with a window each, where that is told.
    assert (idle.slots, idle.kv_tokens_max) in ([(2, 2048)] if speaker.tells_slots else [(None, None), (None, 1024)])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("asked", ASKED)
async def test_a_cancelled_call_frees_the_engine(speaking: Speaking, asked: str, stream: bool) -> None:
    async with speaking as speaker:
        speaker.must_serve(ASKED[asked])
        if not stream and not speaker.notices_leaving:
            pytest.skip("this server does not notice it")
        speaker.endless()
        called = speaker.begin(ASKED[asked] | {"stream": stream, "max_tokens": 900})
        await speaker.busy()
        called.attempt.cancel()
        await speaker.idle()
        assert not called.over.is_set()


# --- without a server -----------------------------------------------------------------------------------------------


@plain_dialects
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", [Capability.CHAT, Capability.COMPLETION])
def test_a_request_goes_to_the_path_of_its_kind_with_the_headers_it_was_given(
    dialect: Dialect, kind: Capability, stream: bool
) -> None:
    body = b'{"model":"m","messages":[{"role":"user"}],"prompt":"p","odd":1e3,"stream":%b}'
    call = parse(body % (b"true" if stream else b"false"), kind)
    made = dialect.outgoing(call, "theirs", ((b"authorization", b"Bearer k"),))
    assert made.target == (b"/base/v1/chat/completions" if kind is Capability.CHAT else b"/base/v1/completions")
    assert (b"authorization", b"Bearer k") in made.headers
    assert (b"accept-encoding", b"identity") in made.headers
    assert b'"model":"theirs"' in made.body
    assert b'"odd":1e3' in made.body
    assert made.streamed or not stream
    assert (b'"stream":true' in made.body) is (b'"include_usage":true' in made.body) is made.streamed


@pytest.mark.parametrize("kind", KINDS)
def test_the_core_knows_who_is_seen_to_begin_though_its_client_does_not_stream(kind: str) -> None:
    asked = parse(b'{"model":"m","messages":[{"role":"user","content":"a"}]}', Capability.CHAT)
    assert DIALECTS[kind].outgoing(asked, "m", ()).streamed is defaults(EngineKind(kind), local=True).streams


ENDINGS = {
    401: (502, Ending.FAILED),
    403: (502, Ending.FAILED),
    404: (502, Ending.FAILED),
    408: (502, Ending.FAILED),
    409: (502, Ending.FAILED),
    429: (429, Ending.REFUSED),
    500: (502, Ending.FAILED),
    502: (502, Ending.FAILED),
    503: (503, Ending.REFUSED),
    504: (502, Ending.FAILED),
    529: (503, Ending.REFUSED),
}


@dialects
@pytest.mark.parametrize("status", ENDINGS)
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b'{"error":{"message":"no"}}', b"\xff\x00"])
def test_an_error_that_is_not_the_clients_is_never_final(dialect: Dialect, status: int, body: bytes) -> None:
    failure = dialect.failure(status, {}, body, NOW_S)
    assert (failure.status, failure.ending) == ENDINGS[status]
    assert failure.final is False
    assert failure.cause == f"status_{status}"


JINJA = b'{"error":{"code":500,"message":"Jinja Exception: Conversation roles must alternate","type":"server_error"}}'
SAMPLING = b'{"error":{"message":"Unsupported value: temperature","code":"unsupported_value","param":"temperature"}}'
NO_TOOLS = b'{"error":{"message":"registry.ollama.ai/library/gemma3:1b does not support tools","type":"api_error"}}'
NO_SWITCH = b'{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}'
NO_CALL = b'{"error":{"message":"Failed to call a function.","code":"tool_use_failed","failed_generation":"SECRET"}}'
NO_IMAGES = (
    b'{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to '
    b'provide the mmproj","type":"server_error"}}'
)
UNSERVED = b'{"error":{"message":"No endpoints found that support tool use. To learn more, visit: x","code":404}}'
UNSERVED_IMAGES = b'{"error":{"message":"No endpoints found that support image input","code":404}}'
UNSERVED_PARAMETERS = b'{"error":{"message":"No endpoints found that can handle the requested parameters.","code":404}}'


@dialects
@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (413, b"<html>no</html>", 413),
        (500, JINJA, 400),
        (400, SAMPLING, 400),
        (400, NO_TOOLS, 400),
        (400, NO_CALL, 400),
        (500, NO_SWITCH, 400),
        (500, NO_IMAGES, 400),
        (404, UNSERVED, 400),
        (404, UNSERVED_IMAGES, 400),
        (404, UNSERVED_PARAMETERS, 400),
    ],
)
def test_what_an_endpoint_does_not_take_is_no_failure_of_its_own_and_another_one_may_take_it(
    dialect: Dialect, status: int, body: bytes, told: int
) -> None:
    failure = dialect.failure(status, {}, body, NOW_S)
    assert (failure.status, failure.ending, failure.cause, failure.final) == (told, Ending.REFUSED, UNFIT, False)
    assert "SECRET" not in failure.message


@dialects
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"No endpoints found for acme/m.","code":404}}',
        b'{"error":{"message":"No endpoints found matching your data policy.","code":404}}',
        b'{"error":{"message":"The model `m` does not exist.","code":"model_not_found"}}',
    ],
)
def test_a_model_that_is_not_there_is_the_endpoints_own_trouble(dialect: Dialect, body: bytes) -> None:
    failure = dialect.failure(404, {}, body, NOW_S)
    assert (failure.status, failure.ending, failure.cause) == (502, Ending.FAILED, "status_404")


CREDIT = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to go on."}}'
)
GOOGLE = b'[{"error":{"code":400,"message":"API key not valid. Please pass one.","status":"INVALID_ARGUMENT"}}]'
XAI = b'{"code":"Client specified an invalid argument","error":"Incorrect API key provided: na***ys. You can get one."}'


@dialects
@pytest.mark.parametrize("body", [CREDIT, GOOGLE, XAI])
def test_what_is_wrong_with_our_account_is_no_clients_fault_whatever_status_it_has(
    dialect: Dialect, body: bytes
) -> None:
    failure = dialect.failure(400, {}, body, NOW_S)
    assert (failure.status, failure.ending, failure.final) == (502, Ending.FAILED, False)


QUOTING = (
    "Invalid value: '{}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
    "'{}' is not one of ['system', 'assistant', 'user', 'function'] - 'messages.0.role'",
    "messages[0].role: unknown variant `{}`, expected one of `system`, `user`",
)


@dialects
@pytest.mark.parametrize("sentence", QUOTING)
@pytest.mark.parametrize("words", ["Your credit balance is too low", "API key not valid", "Incorrect API key provided"])
def test_a_client_that_is_quoted_is_no_word_about_our_account(dialect: Dialect, sentence: str, words: str) -> None:
    body = json.dumps({"error": {"message": sentence.format(words), "code": "invalid_value"}}).encode()
    failure = dialect.failure(400, {}, body, NOW_S)
    assert (failure.status, failure.ending, failure.final, failure.aside) == (400, Ending.OK, True, "")


REASONS = b'{"error":{"code":403,"message":"Forbidden","metadata":{"reasons":["hate"],"flagged_input":"SECRET"}}}'
OPENROUTER = b'{"error":{"code":403,"message":"m requires moderation. Your input was flagged for \\"hate\\""}}'
XAI_SAFETY = (
    b'{"code":"The caller does not have permission to execute the specified operation","error":"Content violates usage '
    b'guidelines. Team: t, API key ID: k, Model: m, Failed check: SAFETY_CHECK_TYPE_BIO"}'
)


@dialects
@pytest.mark.parametrize("body", [REASONS, OPENROUTER, XAI_SAFETY])
def test_a_prompt_that_one_vendor_does_not_like_is_no_failure_of_its_own_and_another_one_may_take_it(
    dialect: Dialect, body: bytes
) -> None:
    failure = dialect.failure(403, {}, body, NOW_S)
    assert (failure.status, failure.ending, failure.cause, failure.final) == (400, Ending.REFUSED, UNFIT, False)
    assert "SECRET" not in failure.message


@dialects
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"retry-after": b"7"}, 7.0),
        ({b"retry-after-ms": b"250", b"retry-after": b"7"}, 0.25),
        ({b"retry-after": b"Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({b"retry-after": b"soon"}, None),
        ({}, None),
    ],
)
def test_a_refusal_keeps_the_time_to_come_back(
    dialect: Dialect, headers: dict[bytes, bytes], seconds: float | None
) -> None:
    assert dialect.failure(429, headers, b"", NOW_S).retry_after_s == seconds


@dialects
@given(status=st.integers(201, 599), body=st.binary(max_size=400))
def test_no_error_body_breaks_a_dialect(dialect: Dialect, status: int, body: bytes) -> None:
    failure = dialect.failure(status, {}, body, NOW_S)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]|</?[a-z]+>", failure.message)
    assert len(failure.message) <= MESSAGE_CHARS_MAX + 40


@pytest.mark.parametrize("kind", ["llamacpp", "vllm", "sglang", "ollama"])
def test_an_engine_below_a_path_that_looks_like_a_version_is_asked_below_it(kind: str) -> None:
    dialect = KINDS[kind]("/models/v3", "m")
    asked = parse(b'{"model":"m","messages":[{"role":"user","content":"a"}]}', Capability.CHAT)
    assert dialect.outgoing(asked, "m", ()).target.startswith(b"/models/v3/v1/")


@pytest.mark.parametrize("kind", ["openai", "openai-responses", "anthropic"])
def test_a_key_that_may_not_list_models_may_be_good_for_answers(kind: str) -> None:
    dialect = KINDS[kind]("", "m")
    missing = b'{"error":{"message":"You have insufficient permissions. Missing scopes: api.model.read."}}'
    for status in (401, 403):
        for body, up in ((missing, True), (b'{"error":{"message":"bad key"}}', False), (b"", False)):
            assert dialect.signals([ProbeAnswer(status=status, body=body)]).up is up


answers = st.none() | st.builds(
    ProbeAnswer,
    status=st.sampled_from([200, 401, 404, 500, 503]),
    body=st.sampled_from(
        [
            b"",
            b"null",
            b"[]",
            b"\xff",
            b"[" * 5000,
            b'{"data":[{"id":"m","max_model_len":0},{"max_model_len":-1}]}',
            b'{"data":[{"id":"m","max_model_len":1e99}]}',
            b'{"data":[{"id":"m","max_model_len":1000000000000000019884624838656}]}',
            b'{"default_generation_settings":{"n_ctx":-1}}',
            b'{"default_generation_settings":{"n_ctx":"x"}}',
            b"llamacpp:requests_processing NaN\nllamacpp:requests_deferred +Inf\n",
            b"llamacpp:requests_processing 1e300\n",
            b'llamacpp:requests_deferred{a="0"} 1.7e308\nllamacpp:requests_deferred{a="1"} 1.7e308\n',
            b'vllm:num_requests_running{engine="0"} 1.7e308\nvllm:num_requests_running{engine="1"} 1.7e308\n',
            b'sglang:num_queue_reqs{dp_rank="0"} 1.7e308\nsglang:num_queue_reqs{dp_rank="1"} 1.7e308\n',
            b'{"default_generation_settings":{"n_ctx":9000000000},"total_slots":9000000000}',
            b'{"total_slots":-1,"max_total_num_tokens":-1,"max_running_requests":-1,"dp_size":-1}',
            b'{"max_total_num_tokens":1e99,"max_running_requests":true,"dp_size":1e99}',
            b"vllm:kv_cache_usage_perc 7\nvllm:num_preemptions_total -1\nsglang:token_usage -0.5\n",
            b'vllm:cache_config_info{num_gpu_blocks="999999999999999",block_size="999999999999999"} 1\n',
            b'vllm:cache_config_info{num_gpu_blocks="16",block_size="16',
        ]
    )
    | st.binary(max_size=100),
)


# What transformers call "no limit", what no float holds, and what none can be.
@pytest.mark.parametrize("told", ["1000000000000000019884624838656", "1" + 320 * "0", "100000001", "0", "-1"])
@dialects
def test_a_window_that_none_can_be_is_not_told(dialect: Dialect, told: str) -> None:
    body = """{"data": [{"id": "m", "max_model_len": N, "max_input_tokens": N}],
        "models": [{"model": "m", "context_length": N}], "context_length": N, "max_total_num_tokens": N,
        "default_generation_settings": {"n_ctx": N}}"""
    signals = dialect.signals([ProbeAnswer(status=200, body=body.replace("N", told).encode())] * len(dialect.probes()))
    assert signals.up
    assert signals.context_tokens is None
    bounded = [ProbeAnswer(status=200, body=body.replace("N", "100000000").encode())] * len(dialect.probes())
    assert dialect.signals(bounded).context_tokens == 100_000_000


@pytest.mark.lengthy
@dialects
@given(data=st.data())
def test_no_answer_to_a_probe_breaks_a_dialect_or_makes_up_a_window(dialect: Dialect, data: st.DataObject) -> None:
    count = len(dialect.probes())
    signals = dialect.signals(data.draw(st.lists(answers, min_size=count, max_size=count)))
    assert signals.context_tokens is None or 0 < signals.context_tokens <= CONTEXT_TOKENS_MAX
    assert signals.kv_share is None or 0.0 <= signals.kv_share <= 1.0
    for told in (signals.kv_tokens_max, signals.slots):
        assert told is None or 0 < told <= COUNT_MAX
    for told in (signals.running, signals.queued, signals.preemptions):
        assert told is None or 0 <= told <= COUNT_MAX


METERS = {
    "llamacpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_preemptions_total"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:num_retracted_requests_total"),
}
SHARES = ("vllm:kv_cache_usage_perc", "sglang:token_usage")


# Two that add up to more than a float holds, one that is more than there can be, and less than none.
@pytest.mark.parametrize(
    ("told", "load"), [(("3", "4"), 7), (("1.7e308", "1.7e308"), None), (("1e300", "0"), None), (("-1", "0"), None)]
)
@dialects
def test_a_load_that_none_can_be_is_not_told(dialect: Dialect, told: tuple[str, str], load: int | None) -> None:
    meters = METERS.get(dialect.name, ())
    lines = [
        f'{name}{{engine="{at}",dp_rank="{at}"}} {value}\n'
        for name in (*meters, *SHARES)
        for at, value in enumerate(told)
    ]
    signals = dialect.signals([ProbeAnswer(status=200, body="".join(lines).encode())] * len(dialect.probes()))
    assert signals.up
    assert (signals.running, signals.queued) == ((load, load) if meters else (None, None))
    assert signals.preemptions == (load if len(meters) > 2 else None)
    assert signals.kv_share is None


@dialects
def test_headers_for_an_engine_keep_the_rest_and_settle_at_once(dialect: Dialect) -> None:
    made = dialect.headers(((b"authorization", b"Bearer k"), (b"x-request-id", b"1")))
    assert (b"x-request-id", b"1") in made
    assert [value for _, value in made if value.endswith(b"k")]
    assert dialect.headers(made) == made


@dialects
@pytest.mark.parametrize("streamed", [True, False])
def test_a_translator_is_new_for_each_answer(dialect: Dialect, streamed: bool) -> None:
    first, second = (dialect.translator(streamed=streamed, now_s=NOW_S) for _ in range(2))
    assert first is None or first is not second


@dialects
def test_an_engine_that_does_not_answer_is_down(dialect: Dialect) -> None:
    assert dialect.signals([None] * len(dialect.probes())) == Signals(up=False)


@dialects
def test_probes_are_free_and_one_of_them_decides(dialect: Dialect) -> None:
    probes = dialect.probes()
    assert [p.essential for p in probes] == [True] + [False] * (len(probes) - 1)
    assert all(p.target.startswith(b"/base/") for p in probes)
