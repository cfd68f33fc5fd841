"""What vLLM, SGLang and Ollama tell of themselves.

The answers below are written after public samples, and are not recordings: none of these engines runs where the tests
do. Labels of vLLM's gauges are those of its production metrics page (`engine` and `model_name`); those of SGLang's
(`dp_rank`, `tp_rank`, `priority`) and its list of models are as gateways that scrape it test for them; `/api/ps` is
the example of Ollama's API reference.
"""

import json
from typing import Any

import pytest

from tests.engines.speakers import chat
from tidegate.config.address import parse_url
from tidegate.core.health import CONTEXT_EXCEEDED, UNFIT
from tidegate.core.model import Capability, Ending
from tidegate.engines.base import Dialect, ProbeAnswer, Signals
from tidegate.engines.kinds import KINDS, dialect_of
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.engines.ollama import Ollama
from tidegate.engines.openai import OpenAI
from tidegate.engines.sglang import SGLang
from tidegate.engines.vllm import VLLM
from tidegate.wire.openai import parse

UP = ProbeAnswer(status=200, body=b"")
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 32768}, {"id": "lora"}]}


def answer(body: Any, status: int = 200) -> ProbeAnswer:
    return ProbeAnswer(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())


# --- vLLM -----------------------------------------------------------------------------------------------------------

VLLM_METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="m",reason="capacity"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:num_preemptions_total{engine="1",model_name="m"} 3.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_cpu_blocks="None",num_gpu_blocks="2588"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_cpu_blocks="None",num_gpu_blocks="2588"} 1.0
"""


def test_vllms_engines_add_up_in_requests_and_in_memory() -> None:
    told = VLLM("", "m").signals([UP, answer(MODELS), answer(VLLM_METRICS), None])
    assert told == Signals(
        up=True,
        context_tokens=32768,
        running=7,
        queued=2,
        kv_tokens_max=2 * 2588 * 16,
        kv_share=0.5,
        preemptions=5,
    )


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        (b'block_size="16",num_gpu_blocks="100"', 1600),
        # Where layers differ, a block is not of so many tokens of context; what it says of them itself holds.
        (b'block_size="8",kv_cache_size_tokens="463459",num_gpu_blocks="320"', 463_459),
        (b'block_size="16",kv_cache_size_tokens="None",num_gpu_blocks="100"', 1600),
        (b'block_size="16",num_gpu_blocks="None"', None),
        (b'block_size="16"', None),
        (b'block_size="16",num_gpu_blocks="0"', None),
        (b'block_size="16",num_gpu_blocks="-5"', None),
        (b'block_size="16",num_gpu_blocks="1e3"', None),
        (b'block_size="16",num_gpu_blocks="999999999999999"', None),
        (b'block_size="16",num_gpu_blocks="' + b"9" * 5000 + b'"', None),
        (b"", None),
    ],
)
def test_vllms_memory_is_what_its_labels_say_and_nothing_else(labels: bytes, tokens: int | None) -> None:
    text = b"vllm:cache_config_info{%b} 1.0\n" % labels
    assert VLLM("", "m").signals([UP, None, answer(text), None]).kv_tokens_max == tokens


def test_of_engines_that_share_the_load_one_that_tells_no_memory_leaves_all_of_it_unknown() -> None:
    text = VLLM_METRICS.replace(b'engine="1",num_cpu_blocks="None",num_gpu_blocks="2588"', b'engine="1"')
    assert VLLM("", "m").signals([UP, None, answer(text), None]).kv_tokens_max is None


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-0.1", b"1.01", b"75", b"", b"full"])
def test_a_share_that_cannot_be_is_none(value: bytes) -> None:
    text = b'vllm:kv_cache_usage_perc{engine="0"} %b\nvllm:num_requests_running 1\n' % value
    told = VLLM("", "m").signals([UP, None, answer(text), None])
    assert (told.kv_share, told.running) == (None, 1)
    text = b'sglang:token_usage{dp_rank="0"} %b\nsglang:num_running_reqs 1\n' % value
    told = SGLang("", "m").signals([answer(MODELS), None, answer(text)])
    assert (told.kv_share, told.running) == (None, 1)


@pytest.mark.parametrize("value", [b"NaN", b"-1", b"1e300", b"Inf"])
def test_a_number_of_preemptions_that_cannot_be_is_none(value: bytes) -> None:
    text = b"vllm:num_preemptions_total %b\n" % value
    assert VLLM("", "m").signals([UP, None, answer(text), None]).preemptions is None
    text = b"sglang:num_retracted_requests_total %b\n" % value
    assert SGLang("", "m").signals([answer(MODELS), None, answer(text)]).preemptions is None


def asleep(awake: int) -> bytes:
    """One of two engines is awake or not, the other is."""
    states = (("awake", awake), ("weights_offloaded", 1 - awake), ("discard_all", 0))
    other = b'vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0\n'
    return (
        VLLM_METRICS
        + other
        + b"".join(
            b'vllm:engine_sleep_state{engine="1",model_name="m",sleep_state="%b"} %d.0\n' % (name.encode(), value)
            for name, value in states
        )
    )


def test_a_vllm_that_sleeps_is_down_as_a_request_would_kill_it() -> None:
    """It does not wake by itself (vllm-project/vllm#15483)."""
    told = VLLM("", "m").signals([UP, answer(MODELS), answer(asleep(0)), None])
    assert told == Signals(up=False, resident=False)
    assert VLLM("", "m").signals([UP, answer(MODELS), answer(asleep(1)), None]).up


def test_vllms_older_name_of_its_cache_is_known() -> None:
    text = VLLM_METRICS.replace(b"kv_cache_usage", b"gpu_cache_usage")
    assert VLLM("", "m").signals([UP, None, answer(text), None]).kv_share == 0.5


def test_vllms_window_that_is_too_small_leaves_the_request_to_a_larger_one() -> None:
    words = (
        "You passed 31745 input tokens and requested 1024 output tokens. However, the model's context length is only "
        "32768 tokens, resulting in a maximum input length of 31744 tokens. Please reduce the length of the input "
        "prompt. (parameter=input_tokens, value=31745)"
    )
    said = {"error": {"message": words, "type": "BadRequestError", "param": "input_tokens", "code": 400}}
    failure = VLLM("", "m").failure(400, {}, json.dumps(said).encode(), 0.0)
    assert (failure.ending, failure.cause, failure.final) == (Ending.REFUSED, CONTEXT_EXCEEDED, False)


def test_a_vllm_that_refuses_our_key_is_down_though_it_is_well() -> None:
    assert VLLM("", "m").signals([UP, answer({"error": "Unauthorized"}, 401), None, None]) == Signals(up=False)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_vllm_whose_list_is_not_for_us_is_up(status: int) -> None:
    assert VLLM("", "m").signals([UP, answer({"error": "no"}, status), None, None]).up
    # A key may be good for answers alone.
    assert VLLM("", "m").signals([UP, answer({"error": "Missing scopes: model.read"}, 401), None, None]).up


@pytest.mark.parametrize(
    ("model", "listed", "lacks"),
    [
        ("m", MODELS, ""),
        ("lora", MODELS, ""),
        ("n", MODELS, "n"),
        (None, MODELS, ""),
        ("n", {"data": []}, ""),
        ("n", b"<html>", ""),
    ],
)
def test_a_vllm_that_lists_other_models_says_so_and_is_up(model: str | None, listed: Any, lacks: str) -> None:
    """It may find an adapter of that name, or pass over names."""
    told = VLLM("", model).signals([UP, answer(listed), None, None])
    assert (told.up, told.lacks) == (True, lacks)


# --- SGLang ---------------------------------------------------------------------------------------------------------

SGLANG_METRICS = b"""# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",model_name="m",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",model_name="m",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",model_name="m",priority="",tp_rank="0"} 5.0
sglang:num_running_reqs{dp_rank="1",model_name="m",priority="-1",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="1",model_name="m",priority="7",tp_rank="0"} 3.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{dp_rank="0",model_name="m"} 1.0
sglang:num_queue_reqs{dp_rank="1",model_name="m"} 0.0
# TYPE sglang:token_usage gauge
sglang:token_usage{dp_rank="0",model_name="m"} 0.5
sglang:token_usage{dp_rank="1",model_name="m"} 0.25
# TYPE sglang:num_retracted_reqs gauge
sglang:num_retracted_reqs{dp_rank="0",model_name="m"} 1.0
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{dp_rank="0",model_name="m",tp_rank="0"} 6.0
sglang:num_retracted_requests_total{dp_rank="0",model_name="m",tp_rank="1"} 6.0
sglang:num_retracted_requests_total{dp_rank="1",model_name="m",tp_rank="0"} 1.0
"""


def test_sglangs_ranks_repeat_each_other_and_its_priorities_are_parts() -> None:
    told = SGLang("", "m").signals([answer(MODELS), None, answer(SGLANG_METRICS)])
    assert told == Signals(up=True, context_tokens=32768, running=9, queued=1, kv_share=0.375, preemptions=7)


@pytest.mark.parametrize(
    ("info", "tokens", "slots"),
    [
        ({"max_total_num_tokens": 20_000, "max_running_requests": 48}, 20_000, 48),
        ({"max_total_num_tokens": 20_000, "max_running_requests": None, "dp_size": 4}, 80_000, None),
        # Whether that is of each replica or of all, depends.
        ({"max_total_num_tokens": 20_000, "max_running_requests": 48, "dp_size": 4}, 80_000, None),
        ({"max_total_num_tokens": 0, "max_running_requests": 0}, None, None),
        ({"max_total_num_tokens": -7, "max_running_requests": -1}, None, None),
        ({"max_total_num_tokens": 10**15, "max_running_requests": 10**15}, None, None),
        ({"max_total_num_tokens": 20_000, "dp_size": 0}, None, None),
        ({"max_total_num_tokens": 20_000, "dp_size": "two"}, 20_000, None),
        ({"max_total_num_tokens": 10**400}, None, None),
        ({"max_total_num_tokens": "?", "max_running_requests": 3}, None, 3),
    ],
)
def test_sglangs_memory_is_that_of_all_its_replicas(
    info: dict[str, Any], tokens: int | None, slots: int | None
) -> None:
    told = SGLang("", "m").signals([answer(MODELS), answer(info), None])
    assert (told.up, told.kv_tokens_max, told.slots) == (True, tokens, slots)


@pytest.mark.parametrize(
    ("info", "window"),
    [
        ({"context_length": 8192}, 8192),
        ({"context_length": None, "max_total_num_tokens": 20000, "api_key": "k"}, 20000),
        ({"context_length": 131072, "max_total_num_tokens": 500000}, 32768),
        ({"context_length": "?"}, 32768),
    ],
)
def test_sglangs_window_is_the_smallest_of_what_it_tells(info: dict[str, Any], window: int) -> None:
    assert SGLang("", "m").signals([answer(MODELS), answer(info), None]).context_tokens == window


ADAPTERS = {
    "data": [
        {"id": "base", "root": "meta-llama/Llama-3.1-8B", "parent": None, "max_model_len": 32768},
        {"id": "sql", "root": "/loras/sql", "parent": "base", "max_model_len": None},
        # By its name at Hugging Face, which is not that of the list.
        {"id": "chat", "root": "/loras/chat", "parent": "meta-llama/Llama-3.1-8B", "max_model_len": None},
    ]
}


@pytest.mark.parametrize("name", ["base", "sql", "chat"])
def test_an_adapter_has_the_window_of_its_model(name: str) -> None:
    assert VLLM("", name).signals([answer({}), answer(ADAPTERS), None, None]).context_tokens == 32768
    pool = {"context_length": None, "max_total_num_tokens": 420_000}
    assert SGLang("", name).signals([answer(ADAPTERS), answer(pool), None]).context_tokens == 32768


def test_a_model_without_a_window_has_not_that_of_another_one() -> None:
    listed = {"data": [{"id": "a", "max_model_len": 32768}, {"id": "b"}, {"id": "c", "parent": "b"}]}
    for name in ("b", "c"):
        assert VLLM("", name).signals([answer({}), answer(listed), None, None]).context_tokens is None


def test_sglang_is_asked_by_its_former_path_only_where_the_newer_one_is_not_there() -> None:
    (info,) = [probe for probe in SGLang("/here", "m").probes() if probe.former]
    assert (info.target, info.former) == (b"/here/server_info", b"/here/get_server_info")


def test_sglang_is_never_asked_for_a_token_to_see_whether_it_is_well() -> None:
    assert not [probe for probe in SGLang("", "m").probes() if b"health" in probe.target]


# --- Ollama ---------------------------------------------------------------------------------------------------------


def loaded(*names: str) -> ProbeAnswer:
    return answer({"models": [{"name": name, "model": name, "context_length": 4096} for name in names]})


@pytest.mark.parametrize(
    ("model", "names", "window"),
    [
        ("gemma3", ("gemma3:latest",), 4096),
        ("gemma3:4b", ("gemma3:4b",), 4096),
        ("gemma3:4b", ("gemma3:latest",), None),
        ("host:5000/org/m", ("host:5000/org/m:latest",), 4096),
        (None, ("any",), 4096),
        ("gemma3", (), None),
    ],
)
def test_ollamas_window_is_that_of_the_loaded_model(
    model: str | None, names: tuple[str, ...], window: int | None
) -> None:
    told = Ollama("", model).signals([UP, loaded(*names), None])
    assert told == Signals(up=True, context_tokens=window, resident=None if model is None else window is not None)


@pytest.mark.parametrize("running", [None, answer({}), answer({"models": None}), answer(b"404 page not found", 404)])
def test_an_ollama_that_does_not_list_what_is_loaded_tells_nothing_of_it(running: ProbeAnswer | None) -> None:
    assert Ollama("", "gemma3").signals([UP, running, None]).resident is None


def tagged_as(*names: str) -> ProbeAnswer:
    return answer({"models": [{"name": name, "model": name} for name in names]})


@pytest.mark.parametrize("model", ["gemma3", "gemma3:4b", "hf.co/someone/gemma3-GGUF:Q4_K_M"])
def test_an_ollama_that_does_not_have_its_model_is_down_for_that(model: str) -> None:
    told = Ollama("", model).signals([UP, loaded("other:latest"), tagged_as("other:latest", "gemma3:1b")])
    assert (told.up, told.resident) == (False, False)
    assert told.lacks == (model if ":" in model else f"{model}:latest").lower()


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gemma3", ("gemma3:latest",)),
        ("Gemma3:4B", ("gemma3:4b",)),
        ("library/gemma3", ("gemma3:latest",)),
        ("registry.ollama.ai/library/gemma3:4b", ("gemma3:4b",)),
        # It has nothing of these on its disk, and passes them on.
        ("gpt-oss:120b-cloud", ("gemma3:4b",)),
        # Which of its models is asked for, is up to clients.
        (None, ("gemma3:4b",)),
        # What tells nothing of any model tells nothing of this one.
        ("gemma3", ()),
    ],
)
def test_an_ollama_that_may_have_its_model_is_up(model: str | None, names: tuple[str, ...]) -> None:
    assert Ollama("", model).signals([UP, None, tagged_as(*names)]).up
    assert Ollama("", model).signals([UP, None, None]).up


def test_ollama_is_never_made_to_load() -> None:
    assert [probe.target for probe in Ollama("/v1", "m").probes()] == [b"/api/version", b"/api/ps", b"/api/tags"]
    body = json.dumps(chat(stream=True)).encode()
    made = Ollama("/v1", "m").outgoing(parse(body, Capability.CHAT), "m", ())
    assert made.target == b"/v1/chat/completions"
    assert b"num_ctx" not in made.body


@pytest.mark.parametrize(
    ("asked", "bound"),
    [
        ({"max_completion_tokens": 5}, 5),
        ({"max_completion_tokens": 5, "max_tokens": 7}, 5),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
        ({"max_tokens": 7}, 7),
    ],
)
@pytest.mark.parametrize("engine", [Ollama, LlamaCpp])
def test_who_knows_the_older_name_of_the_bound_alone_gets_it_by_that(
    engine: type[Ollama | LlamaCpp], asked: dict[str, int | None], bound: int
) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}], **asked}).encode()
    made = json.loads(engine("", "m").outgoing(parse(body, Capability.CHAT), "m", ()).body)
    assert made["max_tokens"] == bound
    assert "max_completion_tokens" not in made


def asked_of(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    """A chat as it goes there."""
    call = parse(json.dumps(chat() | fields).encode(), Capability.CHAT)
    made: dict[str, Any] = json.loads(dialect.outgoing(call, "m", ()).body)
    return made


HI = {"role": "user", "content": "hi"}


def thought(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "4"} | fields


@pytest.mark.parametrize("dialect", [VLLM("", "m"), Ollama("", "m")], ids=lambda d: d.name)
def test_who_looks_for_what_was_thought_by_another_name_finds_it(dialect: Dialect) -> None:
    """vLLM has read `reasoning` alone since version 0.16 (vllm-project/vllm#33402), and so has Ollama at all times."""
    said = [
        HI,
        thought(reasoning_content='a "b"'),
        thought(reasoning_content="a", reasoning="b"),
        thought(reasoning_content="a", reasoning=None),
        thought(reasoning_content=None),
        thought(),
        HI | {"reasoning_content": "of a user"},
    ]
    assert asked_of(dialect, messages=said)["messages"] == [
        HI,
        thought(reasoning_content='a "b"', reasoning='a "b"'),
        thought(reasoning_content="a", reasoning="b"),
        thought(reasoning_content="a", reasoning="a"),
        thought(reasoning_content=None),
        thought(),
        HI | {"reasoning_content": "of a user"},
    ]


@pytest.mark.parametrize("dialect", [VLLM("", "m"), Ollama("", "m")], ids=lambda d: d.name)
def test_where_nobody_thought_messages_go_as_they_came(dialect: Dialect) -> None:
    body = b'{"model":"m","messages":[ {"role" : "user","content":"say \\"reasoning_content\\""}, {"role":"user"} ]}'
    messages = body[body.index(b"[") : -1]
    assert b'"messages":' + messages in dialect.outgoing(parse(body, Capability.CHAT), "m", ()).body


@pytest.mark.parametrize(
    ("effort", "sent"),
    [
        ("none", "none"),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "max"),
        (None, None),
    ],
)
def test_ollama_is_asked_for_efforts_that_it_knows(effort: str | None, sent: str | None) -> None:
    assert asked_of(Ollama("", "m"), reasoning_effort=effort)["reasoning_effort"] == sent


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
NAMED = {"type": "function", "function": {"name": "g"}}


def test_ollama_is_told_of_no_tools_where_none_is_to_be_called() -> None:
    made = asked_of(Ollama("", "m"), tools=TOOLS, tool_choice="none")
    assert made == asked_of(Ollama("", "m"))
    for choice in ("auto", None):
        assert asked_of(Ollama("", "m"), tools=TOOLS, tool_choice=choice)["tools"] == TOOLS


@pytest.mark.parametrize("engine", [LlamaCpp("", "m"), Ollama("", "m")])
def test_a_tool_that_is_chosen_by_name_is_the_only_one_where_names_are_passed_over(engine: Dialect) -> None:
    made = asked_of(engine, tools=TOOLS, tool_choice=NAMED)
    assert (made["tools"], made["tool_choice"]) == (TOOLS[1:], "required")


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (TOOLS, "required"),
        (TOOLS, "none"),
        (TOOLS, None),
        (TOOLS, {"type": "function", "function": {"name": "h"}}),
        (TOOLS, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS}}),
        ([{"type": "custom", "custom": {"name": "g"}}], NAMED),
        ([], NAMED),
        (None, NAMED),
    ],
)
def test_any_other_choice_goes_to_llamacpp_as_it_came(tools: Any, choice: Any) -> None:
    made = asked_of(LlamaCpp("", "m"), tools=tools, tool_choice=choice)
    assert (made["tools"], made["tool_choice"]) == (tools, choice)


def test_ollamas_full_queue_is_a_refusal() -> None:
    busy = (
        b'{"error":{"message":"server busy, please try again.  maximum pending requests exceeded","type":"api_error"}}'
    )
    said = Ollama("", "m").failure(503, {}, busy, 0.0)
    assert (said.ending, said.status) == (Ending.REFUSED, 503)


# --- all three ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [VLLM("", "m"), SGLang("", "m"), Ollama("", "m")], ids=lambda d: d.name)
def test_what_is_not_told_is_not_known(dialect: Dialect) -> None:
    quiet: list[ProbeAnswer | None] = [answer({}), *[None] * (len(dialect.probes()) - 1)]
    assert dialect.signals(quiet) == Signals(up=True)
    failing: list[ProbeAnswer | None] = [answer({}, 503), *[None] * (len(dialect.probes()) - 1)]
    assert dialect.signals(failing) == Signals(up=False)


# --- others ---------------------------------------------------------------------------------------------------------


def test_lm_studios_prompt_that_is_too_long_is_left_to_a_larger_window() -> None:
    body = (
        b'{"error":"Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded '
        b'with context length of only 7866 tokens, which is not enough."}'
    )
    said = OpenAI("", "m").failure(400, {}, body, 0.0)
    assert (said.ending, said.cause, said.code) == (Ending.REFUSED, CONTEXT_EXCEEDED, "context_length_exceeded")
    assert not said.final


# --- vendors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("", b"/v1"),
        ("/openai/v1", b"/openai/v1"),
        ("/api", b"/api/v1"),
        ("/v1beta/openai", b"/v1beta/openai"),
        ("/v1/openai", b"/v1/openai"),
        ("/api/paas/v4", b"/api/paas/v4"),
        ("/v1beta1", b"/v1beta1"),
        ("/v2/v1", b"/v2/v1"),
        ("/v100", b"/v100/v1"),
    ],
)
def test_the_protocols_version_is_part_of_an_address_unless_the_vendors_own_is(path: str, below: bytes) -> None:
    dialect = OpenAI(path, "m")
    call = parse(json.dumps(chat()).encode(), Capability.CHAT)
    assert dialect.outgoing(call, "m", ()).target == below + b"/chat/completions"
    assert [probe.target for probe in dialect.probes()] == [below + b"/models"]


@pytest.mark.parametrize("path", ["", "/v1", "/openai/v1", "/v1beta/openai", "/api/paas/v4", "/api/v3/", "/v2/v1"])
def test_requests_go_below_an_address_as_it_is_shown(path: str) -> None:
    url = parse_url("https://api.example.com" + path)
    (probe,) = OpenAI(url.path, "m").probes()
    assert str(url) + "/models" == f"https://api.example.com:443{probe.target.decode()}"


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"openai-responses"}))  # whose bound has another name
@pytest.mark.parametrize(
    ("host", "path", "model", "takes_newer"),
    [
        ("api.openai.com", "", "gpt-5", True),
        ("eu.api.openai.com", "/v1", None, True),
        ("ours.openai.azure.com", "/openai/v1", "ours", True),
        ("ours.openai.azure.us", "/openai/v1", "ours", True),
        ("ours.openai.azure.cn", "/openai/v1", "ours", True),
        ("ours.cognitiveservices.azure.com", "/openai/v1", "ours", True),
        ("ours.services.ai.azure.com", "/openai/v1", "DeepSeek-V3.1", True),
        ("ours.services.ai.azure.com", "/api/projects/p/openai", None, True),
        ("ours.services.ai.azure.com", "/openai/v1", "Mistral-Large-3", False),
        ("ours.services.ai.azure.com", "/openai/v1", "Ministral-3B", False),
        ("ours.openai.azure.com", "/openai/v1", "Codestral-2501", False),
        ("ours.services.ai.azure.com", "/models", "ours", False),
        ("ours.services.ai.azure.com", "/openais", "ours", False),
        ("ours.openai.azure.com.example.org", "/openai/v1", "ours", False),
        ("notopenai.azure.com", "/openai/v1", "ours", False),
        ("not-api.openai.com", "", "gpt-5", False),
        ("127.0.0.1", "/openai/v1", "gpt-5", False),
    ],
)
def test_where_openais_own_models_are_the_bound_has_its_newer_name_and_elsewhere_its_older(
    kind: str, host: str, path: str, model: str | None, takes_newer: bool
) -> None:
    call = parse(json.dumps(chat(max_tokens=5)).encode(), Capability.CHAT)
    sent = json.loads(dialect_of(kind, host, path, model).outgoing(call, "m", ()).body)
    newer = kind == "openai" and takes_newer
    assert {name for name in sent if name.startswith("max_") or name == "num_predict"} == {
        "max_completion_tokens" if newer else "max_tokens"
    }


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 4, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
        ({"max_tokens": None, "max_completion_tokens": 4}, 4),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
    ],
)
def test_a_bound_that_has_both_names_goes_by_the_newer_where_both_are_refused(
    given: dict[str, int | None], bound: int | None
) -> None:
    asked = parse(json.dumps(chat() | given).encode(), Capability.CHAT)
    sent = json.loads(dialect_of("openai", "api.openai.com", "", "m").outgoing(asked, "m", ()).body)
    assert {name: value for name, value in sent.items() if name.startswith("max_")} == {"max_completion_tokens": bound}
    assert asked.output_tokens_max == bound


@pytest.mark.parametrize(("older", "newer"), [(5, 4), (4, 5)])
def test_a_bound_that_has_both_names_keeps_them_elsewhere_and_is_one_bound(older: int, newer: int) -> None:
    both = parse(json.dumps(chat(max_tokens=older, max_completion_tokens=newer)).encode(), Capability.CHAT)
    sent = json.loads(dialect_of("openai", "api.example.com", "", "m").outgoing(both, "m", ()).body)
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (newer, newer)
    assert both.output_tokens_max == newer


def called(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
STANDS_FOR_IT = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
GEMINI = "generativelanguage.googleapis.com"


def sent_to(host: str, model: str, *messages: object) -> Any:
    body = json.dumps(chat() | {"messages": list(messages)}).encode()
    dialect = dialect_of("openai", host, "/v1beta/openai", model)
    return json.loads(dialect.outgoing(parse(body, Capability.CHAT), model, ()).body)["messages"]


@pytest.mark.parametrize(
    ("host", "model"),
    [
        (GEMINI, "gemini-3.5-flash"),
        (GEMINI, "gemini-flash-latest"),
        ("us-central1-aiplatform.googleapis.com", "google/gemini-3-pro-preview"),
    ],
)
def test_calls_that_gemini_has_not_signed_say_so_at_the_first_of_each_message(host: str, model: str) -> None:
    """The word is Google's own (ai.google.dev/gemini-api/docs/thought-signatures, FAQs)."""
    said = {"role": "assistant", "content": None, "tool_calls": [called("a"), called("b")]}
    result = {"role": "tool", "tool_call_id": "a", "content": "4"}
    null = {"role": "assistant", "tool_calls": [called("c", extra_content=None)]}
    user = {"role": "user", "content": "hi"}
    assert sent_to(host, model, user, said, result, null) == [
        user,
        said | {"tool_calls": [called("a", **STANDS_FOR_IT), called("b")]},
        result,
        null | {"tool_calls": [called("c", **STANDS_FOR_IT)]},
    ]


@pytest.mark.parametrize(
    ("host", "model", "calls"),
    [
        (GEMINI, "gemini-3.5-flash", [called("a", **SIGNED), called("b")]),
        (GEMINI, "gemini-3.5-flash", []),
        (GEMINI, "gemini-3.5-flash", None),
        (GEMINI, "gemini-3.5-flash", "none of them"),
        (GEMINI, "gemini-2.5-pro", [called("a")]),
        ("us-central1-aiplatform.googleapis.com", "meta/llama-4", [called("a")]),
        ("api.example.com", "gemini-3.5-flash", [called("a")]),
        ("notgoogleapis.com", "gemini-3.5-flash", [called("a")]),
    ],
)
def test_calls_that_are_signed_or_need_no_signature_go_as_they_came(host: str, model: str, calls: object) -> None:
    said = {"role": "assistant", "content": "a", "tool_calls": calls}
    assert sent_to(host, model, said) == [said]


@pytest.mark.parametrize(
    "words",
    [
        "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
        "correctly, and missing thought_signature may lead to degraded model performance.",
        "Thought signature is not valid.",
    ],
)
def test_a_signature_that_gemini_misses_leaves_the_request_to_others(words: str) -> None:
    said = [{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}]
    failure = dialect_of("openai", GEMINI, "", "m").failure(400, {}, json.dumps(said).encode(), 0.0)
    assert (failure.ending, failure.cause, failure.status, failure.final) == (Ending.REFUSED, UNFIT, 400, False)
