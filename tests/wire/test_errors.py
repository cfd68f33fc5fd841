import gzip
import json
from email.utils import formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.streams import recorded
from tidegate.wire.errors import (
    MESSAGE_CHARS_MAX,
    ErrorInfo,
    error_body,
    error_event,
    read_error,
    retry_after_s,
)


def test_all_four_keys_are_always_there() -> None:
    error = {"message": "no", "type": "api_error", "param": None, "code": None}
    assert msgspec.json.decode(error_body("no", "api_error")) == {"error": error}
    assert error_event("no", "api_error") == b"data: " + error_body("no", "api_error") + b"\n\n"


def test_a_message_with_line_ends_stays_one_event() -> None:
    assert error_event("a\n\nb", "api_error").count(b"\n") == 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            b'{"error":{"message":"Bad key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}',
            ErrorInfo(message="Bad key", type="invalid_request_error", code="invalid_api_key", of_the_account=True),
        ),
        (
            b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}',
            ErrorInfo(message="Loading model", type="unavailable_error", code="503"),
        ),
        (
            b'{"object":"error","message":"no such model","type":"NotFoundError","param":"model","code":404}',
            ErrorInfo(message="no such model", type="NotFoundError", param="model", code="404"),
        ),
        (b'{"detail":"Not Found"}', ErrorInfo(message="Not Found")),
        (
            b'{"detail":[{"loc":["body","n"],"msg":"Input should be an integer","input":"SECRET"}]}',
            ErrorInfo(message="body.n: Input should be an integer"),
        ),
        # Such a place has no name, and writing it down would be as deep as it is.
        (b'{"detail":[{"loc":["body",' + b"[" * 900 + b"]" * 900 + b'],"msg":"no"}]}', ErrorInfo(message="body: no")),
        (
            b'{"object":"error","message":{"detail":[{"type":"missing","loc":["body","n"],"msg":"Field required",'
            b'"input":"SECRET"}]},"type":"invalid_request_error","param":null,"code":null}',
            ErrorInfo(message="body.n: Field required", type="invalid_request_error"),
        ),
        (
            b'{"object":"error","message":[{"loc":["body"],"msg":"no"}],"type":"t"}',
            ErrorInfo(message="body: no", type="t"),
        ),
        (b'{"object":"error","message":{"a":1}}', ErrorInfo(message="the endpoint gave no message")),
        (b'{"error":"model \'x\' not found"}', ErrorInfo(message="model 'x' not found", absent=True)),
        (b'{"message":"no Route matched"}', ErrorInfo(message="no Route matched")),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            ErrorInfo(message="Overloaded", type="overloaded_error"),
        ),
        (
            b'[{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED"}}]',
            ErrorInfo(message="Quota", code="429"),
        ),
        (b'{"error":{"type":"overloaded_error"}}', ErrorInfo(message="overloaded_error", type="overloaded_error")),
        (b'{"error":{"message":null,"code":true}}', ErrorInfo(message="the endpoint gave no message")),
        (b'{"a":1}', ErrorInfo(message="the endpoint answered 500 with JSON that names no error")),
        (b"{oops", ErrorInfo(message="the endpoint answered 500 with JSON that names no error")),
        (b"<html><body><h1>502</h1></body></html>", ErrorInfo(message="the endpoint answered HTML")),
        (b"  <!DOCTYPE html>", ErrorInfo(message="the endpoint answered HTML")),
        (b"upstream connect error\r\nor disconnect", ErrorInfo(message="upstream connect error or disconnect")),
        (b"", ErrorInfo(message="the endpoint answered 500 without a word")),
        (b'\xef\xbb\xbf{"error":"busy"}', ErrorInfo(message="busy")),
        (b"\xef\xbb\xbf<html>", ErrorInfo(message="the endpoint answered HTML")),
        (b"\xef\xbb\xbf\n", ErrorInfo(message="the endpoint answered 500 without a word")),
        (b"\xff\xfe", ErrorInfo(message="��")),
        (b"[" * 100_000, ErrorInfo(message="the endpoint answered 500 with JSON that names no error")),
    ],
)
def test_an_error_is_read_in_every_usual_shape(body: bytes, told: ErrorInfo) -> None:
    assert read_error(500, body) == told


def test_what_is_compressed_is_not_relayed() -> None:
    body = gzip.compress(b'{"error":"busy"}')
    assert read_error(500, body, content_encoding=b"GZIP") == ErrorInfo(message="the endpoint answered 500, compressed")
    assert read_error(500, b"busy", content_encoding=b"Identity").message == "busy"
    # So say some of what they have not compressed.
    assert read_error(500, b'{"error":"busy"}', content_encoding=b"gzip").message == "busy"


def test_html_is_known_by_its_content_type_too() -> None:
    assert read_error(502, b"Bad Gateway", b"text/HTML; charset=utf-8").message == "the endpoint answered HTML"


@pytest.mark.parametrize(
    "body",
    [
        recorded("overflow"),
        recorded("overflow_stream"),
        b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages",'
        b'"code":"context_length_exceeded"}}',
        b'{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, you requested 5000."}}',
        b'{"object":"error","message":"This model\'s maximum context length is 2048 tokens.","code":400}',
        b'{"error":{"message":"The input (9000 tokens) is longer than the model\'s context length (8192 tokens)."}}',
        b'{"error":"the input length exceeds the context length"}',
        b'{"error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}',
        b'{"error":{"message":"input length and `max_tokens` exceed context limit: 188059 + 20000 > 200000"}}',
        b'{"error":"`inputs` tokens + `max_new_tokens` must be <= 4096"}',
        b'{"error":"`inputs` must have less than 1024 tokens"}',
        # vLLM counts tokens, or letters where these alone are too many; and the output, before it looks at the prompt.
        b'{"error":{"message":"You passed 31745 input tokens and requested 1024 output tokens. However, the model\'s '
        b"context length is only 32768 tokens, resulting in a maximum input length of 31744 tokens. Please reduce the "
        b'length of the input prompt. (parameter=input_tokens, value=31745)","type":"BadRequestError",'
        b'"param":"input_tokens","code":400}}',
        b'{"error":{"message":"You passed 900000 input characters and requested 16 output tokens. However, the '
        b"model's context length is only 32768 tokens, resulting in a maximum input length of 32752 tokens (at most "
        b'524032 characters). Please reduce the length of the input prompt.","type":"BadRequestError","code":400}}',
        b'{"error":{"message":"max_tokens=40000cannot be greater than max_model_len=max_total_tokens=32768. Please '
        b'request fewer output tokens.","type":"BadRequestError","code":400}}',
        b'[{"error":{"code":400,"message":"The input token count (1196265) exceeds the maximum number of tokens '
        b'allowed (1048575).","status":"INVALID_ARGUMENT"}}]',
        b'[{"error":{"code":400,"message":"The input token count exceeds the maximum number of tokens allowed '
        b'1048576.","status":"INVALID_ARGUMENT"}}]',
        b'{"code":"Client specified an invalid argument","error":"This model\'s maximum prompt length is 131072 but '
        b'the request contains 537812 tokens."}',
        b'{"error":{"code":500,"message":"input is too large to process. increase the physical batch size",'
        b'"type":"server_error"}}',
        b'{"error":{"code":500,"message":"input (600 tokens) is too large to process. increase the physical batch size '
        b'(current batch size: 512)","type":"server_error"}}',
        b'{"error":{"code":500,"message":"input (608 tokens) is larger than the max context size (512 tokens). '
        b'skipping","type":"server_error"}}',
        b'{"error":"Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded '
        b"with context length of only 7866 tokens, which is not enough. Try to load the model with a larger context "
        b'length, or provide a shorter input"}',
        b'{"error":"The number of tokens to keep from the initial prompt is greater than the context length. Try to '
        b'load the model with a larger context length, or provide a shorter input"}',
        b'{"object":"error","message":"Input length (9000 tokens) exceeds the maximum allowed length (8186 tokens). '
        b'Use a shorter input or enable --allow-auto-truncate.","type":"BadRequestError","param":null,"code":400}',
        b'{"error":{"message":"prompt too long; exceeded max context length by 904 tokens","type":"api_error"}}',
        b'{"error":{"message":"Invalid request: Your request exceeded model token limit: 262144 (requested: 300000)",'
        b'"type":"invalid_request_error"}}',
        b'{"type":"error","error":{"type":"invalid_request_error",'
        b'"message":"invalid params, context window exceeds limit (2013)"}}',
        b'{"message":"Input is too long for requested model."}',
        b'{"error":{"code":"invalid_parameter_error","param":null,"message":"<400> InternalError.Algo.InvalidParameter'
        b': Range of input length should be [1, 30720]","type":"invalid_request_error"}}',
        b'{"error":{"code":"1261","message":"Prompt exceeds max length"}}',
    ],
)
def test_a_prompt_that_is_too_long_is_recognised(body: bytes) -> None:
    assert read_error(400, body).context_exceeded


@pytest.mark.parametrize(
    "body",
    [
        recorded("bad_request"),
        recorded("not_found"),
        b'{"detail":"bad temperature"}',
        b'{"error":{"message":"max_tokens must be at least 1, got -186.","type":"BadRequestError","code":400}}',
    ],
)
def test_another_complaint_is_not_about_length(body: bytes) -> None:
    assert not read_error(400, body).context_exceeded


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"Unrecognized request argument supplied: top_k","code":null}}',
        b'{"error":{"message":"Unknown parameter: \'top_k\'.","param":"top_k","code":"unknown_parameter"}}',
        b'{"error":{"message":"Not here.","param":"top_k","code":"unknown_parameter"}}',
        b'[{"error":{"code":400,"message":"Invalid JSON payload. Unknown name \\"top_k\\": Cannot find field."}}]',
        b'{"error":{"message":"property \'top_k\' is unsupported","type":"invalid_request_error"}}',
        b'{"type":"error","error":{"type":"invalid_request_error","message":"top_k: Extra inputs are not permitted"}}',
        b'{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted"}]}',
        b'{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],'
        b'"msg":"Extra inputs are not permitted","input":4}]},"type":"invalid_request_error","code":null}',
        b'{"message":"Validation: Unsupported parameter(s): `top_k`","type":"Bad Request","code":400}',
        b"{\"error\":\"[{'type': 'extra_forbidden', 'loc': ('body', 'top_k'), "
        b"'msg': 'Extra inputs are not permitted', 'input': 4}]\"}",
        b'{"error":{"message":"\'messages.1\' : for \'role:assistant\' the following must be satisfied'
        b'[(\'messages.1\' : property \'reasoning_content\' is unsupported)]","type":"invalid_request_error"}}',
        b'{"error":{"message":"Unrecognized request argument supplied: reasoning_effort","param":null,"code":null}}',
    ],
)
def test_a_field_that_only_this_endpoint_does_not_know_is_recognised(body: bytes) -> None:
    assert read_error(400, body).unfit


def test_it_is_recognised_without_json_and_behind_much_else() -> None:
    assert read_error(400, b"unrecognized request argument: top_k").unfit
    assert read_error(400, json.dumps({"error": {"message": "value " * 200 + "unknown parameter"}}).encode()).unfit


# What an engine, as it was started, or its model cannot do: Ollama, Groq, vLLM, llama.cpp, Mistral, DeepSeek, OpenAI,
# Anthropic, Moonshot, xAI.
CANNOT = {
    "ollama tools": "registry.ollama.ai/library/gemma3:1b does not support tools",
    "ollama thinking": '"gemma3:1b" does not support thinking',
    "vllm auto": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    "vllm required": 'tool_choice="required" requires --tool-call-parser to be set',
    "vllm text alone": "/models/smollm2 is not a multimodal model None",
    "vllm no images": "At most 0 image(s) may be provided in one prompt.",
    "vllm fewer images": "At most 1 image(s) may be provided in one request.",
    "llama.cpp images": "image input is not supported - hint: you may need to provide the mmproj",
    "llama.cpp tools": "tools param requires --jinja flag",
    "llama.cpp choice": "tool_choice param requires --jinja flag",
    "llama.cpp logprobs": "logprobs is not supported with tools + stream",
    "mistral id": "Tool call id was call_0 but must be a-z, A-Z, 0-9, with a length of 9.",
    "deepseek field": "Missing `reasoning_content` field in the assistant message at message index 2.",
    "deepseek thought": "The `reasoning_content` in the thinking mode must be passed back to the API.",
    "openai tools": "Function tools with reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions. "
    "Please use /v1/responses instead.",
    "anthropic sampling": "`temperature` is deprecated for this model.",
    "bedrock sampling": "The model returned the following errors: top_p is deprecated for this model.",
    "anthropic signature": "messages.1.content.0: Invalid `signature` in `thinking` block",
    "anthropic seal": "messages.3.content.0: Invalid `data` in `redacted_thinking` block",
    "moonshot thought": "thinking is enabled but reasoning_content is missing in assistant tool call message",
    "xai parameter": "Model grok-4-0709 does not support parameter presencePenalty.",
    "xai argument": "Argument not supported on this model: presencePenalty",
    "groq effort": "`reasoning_effort` is not supported with this model",
    "groq efforts": "`reasoning_effort` must be one of `none` or `default`",
    "ollama effort": 'think value "medium" is not supported for this model',
}


@pytest.mark.parametrize("words", CANNOT.values(), ids=CANNOT)
def test_what_only_this_engine_cannot_do_is_recognised(words: str) -> None:
    for error in ({"message": words, "type": "api_error", "code": None}, words):
        said = read_error(400, json.dumps({"error": error}).encode())
        assert (said.unfit, said.context_exceeded) == (True, False)


@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
def test_what_only_this_model_could_not_make_is_recognised(code: str) -> None:
    error = {"message": "Failed. Please adjust your prompt.", "type": "invalid_request_error", "code": code}
    assert read_error(400, json.dumps({"error": {**error, "failed_generation": "{"}}).encode()).unfit


@pytest.mark.parametrize(
    "words",
    [
        "Invalid value: 'm does not support tools'. Supported values are: 'low' and 'high'.",
        "'m does not support thinking' is not one of ['system', 'user'] - 'messages.0.role'",
        "'m is not a multimodal model' is not one of ['system', 'user'] - 'messages.0.role'",
        "this API does not support tools without a name",
        "messages[0].content: 'Model m does not support parameter top_k.' is no text",
        "`temperature` must be one of 0 or 1",
        "tools[0].function.name: string does not match pattern",
        "messages[0].content: image_url is no URL",
        "No endpoints found for acme/m.",
    ],
)
def test_a_clients_own_fault_is_not_what_only_this_engine_cannot_do(words: str) -> None:
    said = read_error(400, json.dumps({"error": {"message": words, "code": 400}}).encode())
    assert (said.unfit, said.unserved) == (False, False)


# How LM Studio, llama.cpp before several models and llama-swap say that a model is not there, or not loaded.
ABSENT = {
    "lm studio none": "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
    "lm studio load": 'Failed to load model "qwen3-coder-30b-a3b-instruct". Error: Failed to load model.',
    "lm studio unloaded": "Model is unloaded.",
    "lm studio taken out": "Model unloaded by user or API request.",
    "lm studio crash": "The model has crashed without additional information. (Exit code: 6)",
    "llama.cpp name": "model 'qwen3-8b' not found",
    "llama.cpp older": "model not found",
    "llama.cpp load": "model is not loaded",
    "llama-swap": "could not find real modelID for qwen3-8b",
}


@pytest.mark.parametrize("words", ABSENT.values(), ids=ABSENT)
def test_that_a_model_is_not_there_is_recognised(words: str) -> None:
    for error in ({"message": words, "type": "invalid_request_error", "param": "model", "code": None}, words):
        assert read_error(400, json.dumps({"error": error}).encode()).absent


@pytest.mark.parametrize("words", ABSENT.values(), ids=ABSENT)
def test_who_quotes_a_client_does_not_tell_of_a_model(words: str) -> None:
    for quoting in (f"messages[0].content: '{words}' is no text", f"Invalid value: {words}", f"'{words}'"):
        assert not read_error(400, json.dumps({"error": {"message": quoting}}).encode()).absent


@pytest.mark.parametrize(
    "error",
    [
        {"message": "The response was filtered.", "type": None, "param": "prompt", "code": "content_filter"},
        {"message": "Rejected by the safety system.", "code": "content_policy_violation"},
        {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"},
        {"message": "Content Exists Risk", "type": "invalid_request_error", "code": "invalid_request_error"},
    ],
    ids=["azure", "openai", "dashscope", "deepseek"],
)
def test_a_prompt_that_a_vendors_moderation_does_not_like_is_recognised(error: dict[str, str | None]) -> None:
    said = read_error(400, json.dumps({"error": error}).encode())
    assert (said.unfit, said.flagged) == (True, True)


@pytest.mark.parametrize(
    "words",
    ["Invalid value: 'Content Exists Risk'.", "'content_filter' is not one of ['stop']", "data_inspection_failed: no"],
)
def test_who_quotes_a_client_does_not_tell_of_a_moderation(words: str) -> None:
    said = read_error(400, json.dumps({"error": {"message": words, "code": "invalid_value"}}).encode())
    assert (said.unfit, said.flagged) == (False, False)


def provider(raw: object, **more: object) -> bytes:
    """How OpenRouter wraps what who is behind it has answered."""
    metadata = {"raw": raw, "provider_name": "Acme"}
    return json.dumps(
        {"error": {"message": "Provider returned error", "code": 400, "metadata": metadata, **more}}
    ).encode()


LONG = {"error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}
UNKNOWN = {"error": {"message": "Unrecognized request argument supplied: top_k", "code": None}}
FILTERED = {"error": {"message": "The response was filtered.", "code": "content_filter"}}


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (json.dumps(LONG), "context_exceeded"),
        (LONG, "context_exceeded"),
        ("prompt is too long: 210000 tokens > 200000 maximum", "context_exceeded"),
        (json.dumps(UNKNOWN), "unfit"),
        (json.dumps(FILTERED), "flagged"),
        (json.dumps({"error": "gemma does not support tools"}), "unfit"),
    ],
)
def test_what_a_provider_behind_another_finds_wrong_is_recognised_and_told(raw: object, seen: str) -> None:
    said = read_error(400, provider(raw))
    assert getattr(said, seen)
    assert said.message.startswith("Provider returned error: ")
    assert said.code == "400"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        None,
        7,
        "7",
        "[" * 10_000,
        "<html>prompt is too long</html>",
        json.dumps({"error": {"message": "prompt is too long", "more": "a" * 16_384}}),
        "a" * 16_384 + "prompt is too long",
        provider(LONG).decode()[:-1],
        json.dumps({"error": {"message": "Your credit balance is too low.", "type": "invalid_request_error"}}),
        {"error": {"message": "no", "code": "insufficient_quota"}},
    ],
)
def test_of_a_provider_that_tells_nothing_of_the_request_or_of_an_account_nothing_is_taken(raw: object) -> None:
    said = read_error(400, provider(raw))
    assert (said.context_exceeded, said.unfit, said.flagged, said.of_the_account) == (False, False, False, False)
    assert "credit" not in said.message


def test_a_provider_that_quotes_one_in_turn_is_not_looked_into() -> None:
    raw: object = LONG
    for _ in range(100):
        raw = {"error": {"message": "Provider returned error", "metadata": {"raw": raw}}}
    said = read_error(400, provider(raw))
    assert (said.context_exceeded, said.message) == (False, "Provider returned error: Provider returned error")


def test_a_server_that_fails_within_does_not_tell_of_a_field() -> None:
    body = b'{"error":{"message":"TypeError: Extra inputs are not permitted","type":"server_error"}}'
    assert (read_error(400, body).unfit, read_error(500, body).unfit) == (True, False)


@pytest.mark.parametrize("body", [recorded("bad_request"), recorded("not_found"), b'{"detail":"bad temperature"}'])
def test_a_value_that_nobody_takes_is_no_unknown_field(body: bytes) -> None:
    assert not read_error(400, body).unfit


@given(st.binary(max_size=300), st.sampled_from([b"", b"text/html", b"application/json"]))
def test_whatever_an_endpoint_answers_becomes_one_bounded_line(body: bytes, content_type: bytes) -> None:
    said = read_error(500, body, content_type).message
    assert 0 < len(said) <= MESSAGE_CHARS_MAX
    assert all(character.isprintable() or character.isspace() for character in said) or "\n" not in said
    assert "\n" not in said


@given(st.text(max_size=3000))
def test_no_markup_is_relayed(text: str) -> None:
    body = msgspec.json.encode({"error": {"message": f"<script>x</script><b class='a'>{text}"}})
    said = read_error(500, body).message
    assert "<script>" not in said
    assert "<b " not in said
    assert len(said) <= MESSAGE_CHARS_MAX


NOW_S = 1_760_000_000.0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({b"retry-after": b"3"}, 3.0),
        ({b"retry-after": b" 1.5 "}, 1.5),
        ({b"retry-after": b"0"}, 0.0),
        ({b"retry-after-ms": b"250"}, 0.25),
        ({b"retry-after-ms": b"250", b"retry-after": b"9"}, 0.25),
        ({b"retry-after-ms": b"soon", b"retry-after": b"9"}, 9.0),
        ({b"retry-after": b"999999"}, 3600.0),
        ({b"retry-after-ms": b"999999999"}, 3600.0),
        ({b"retry-after": b"-3"}, None),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"inf"}, None),
        ({b"retry-after": b"later"}, None),
        ({b"retry-after": b""}, None),
        ({b"retry-after": formatdate(NOW_S + 60, usegmt=True).encode()}, 60.0),
        ({b"retry-after": formatdate(NOW_S + 90_000, usegmt=True).encode()}, 3600.0),
        ({b"retry-after": formatdate(NOW_S - 60, usegmt=True).encode()}, None),
        ({b"retry-after": b"Fri, 99 Foo 99999 99:99:99 GMT"}, None),
    ],
)
def test_when_to_come_back(headers: dict[bytes, bytes], wait_s: float | None) -> None:
    assert retry_after_s(headers, NOW_S) == wait_s


@given(st.binary(max_size=80))
def test_no_retry_after_whatever_raises(value: bytes) -> None:
    wait_s = retry_after_s({b"retry-after": value, b"retry-after-ms": value}, NOW_S)
    assert wait_s is None or 0.0 <= wait_s <= 3600.0
