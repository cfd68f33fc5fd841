"""Every field of the vendor's own SDK, request and answer, through the whole gateway: see docs/reference."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from docs.openai_fields import CHANGED, CHUNK, REQUEST, WHOLE, answer_paths, fields, request_paths
from msgspec import Raw
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.harness import CHAT, House, chat, house, local
from tests.gateway.plausible import paths_of, values
from tidegate.engines.fake import Script

EVERYTHING = ["chat", "tools", "json_schema", "vision", "audio", "logprobs"]
PASSING = ("openai", "vllm", "sglang", "ollama", "llamacpp")
FIELDS: dict[str, list[Any]] = {}
for record in REQUEST:
    for field, kind in (fields(record) or {}).items():
        known = FIELDS.setdefault(field, [])
        known += [value for value in values(kind) if value not in known]
# What a model is called is the endpoint's affair, and this one is what is served here.
FIELDS["model"] = ["m"]


def odd(value: Any) -> bytes:
    """JSON as nobody here writes it, so that what was written anew can be told from what passed."""
    return json.dumps(value, separators=(" , ", " :  ")).encode()


def raw(body: bytes) -> dict[str, bytes]:
    """The fields of an object, as they stand."""
    return {name: bytes(value) for name, value in msgspec.json.decode(body, type=dict[str, Raw]).items()}


def test_what_is_sent_here_is_every_field_of_the_table() -> None:
    sent = {path for name, made in FIELDS.items() for value in made for path in paths_of({name: value})}
    assert set(request_paths()) - sent == set()
    assert len(request_paths()) > 100


async def arrives(home: House, body: dict[str, Any], engine: str = "openai") -> None:
    """Ask, and see every field at the engine as it was sent."""
    given = odd(body)
    answer = await home.ask(given)
    assert answer.status == 200, answer.body
    there, sent = raw(home.engines["laptop"].seen[-1].body), raw(given)
    assert there.pop("model") == (b'"fake"' if engine == "ollama" else b'"own"')
    streamed = there.pop("stream") == b"true"
    options = json.loads(there.pop("stream_options", b"null"))
    asked = body.get("stream_options") or {}
    assert options == (asked | {"include_usage": True} if streamed else None)
    expected = {name: value for name, value in sent.items() if name not in CHANGED}
    if engine in ("ollama", "llamacpp") and (bound := expected.pop("max_completion_tokens", b"null")) != b"null":
        expected["max_tokens"] = bound
    if engine == "ollama" and body.get("reasoning_effort") in ("minimal", "xhigh"):
        expected["reasoning_effort"] = b'"low"' if body["reasoning_effort"] == "minimal" else b'"high"'
    assert there == expected


@pytest.mark.lengthy
@pytest.mark.parametrize("engine", PASSING)
@pytest.mark.parametrize("name", FIELDS)
async def test_a_field_of_a_request_arrives_byte_for_byte(tmp_path: Path, name: str, engine: str) -> None:
    # Ollama's model is believed to be away at first, and a request for nobody would come between.
    # An Ollama is up with what it has.
    model = "fake" if engine == "ollama" else "own"
    place = local(engine=engine, model=model, context_tokens=100_000, capabilities=EVERYTHING, warm_up=False)
    async with house(tmp_path, laptop=place) as home:
        for value in FIELDS[name]:
            for stream in (True, False):
                await arrives(home, chat() | {"stream": stream} | {name: value}, engine)


@pytest.mark.parametrize("stream", [True, False])
async def test_all_fields_of_a_request_arrive_together(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path, laptop=local(engine="openai", context_tokens=100_000, capabilities=EVERYTHING)) as home:
        for at in range(max(map(len, FIELDS.values()))):
            body = {name: made[at % len(made)] for name, made in FIELDS.items()}
            await arrives(home, body | {"stream": stream})


async def test_a_field_that_the_sdk_does_not_know_arrives_too(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(engine="openai")) as home:
        await arrives(home, chat(chat_template_kwargs={"a": [1.50, "é"]}, cache_salt="x"))


WHOLES, CHUNKS = values(WHOLE), values(CHUNK)


def test_what_is_answered_here_is_every_field_of_the_table() -> None:
    for value in WHOLES:
        ChatCompletion.model_validate(value, strict=True)
    for value in CHUNKS:
        ChatCompletionChunk.model_validate(value, strict=True)
    told = answer_paths()
    for made, at in ((WHOLES, 0), (CHUNKS, 1)):
        assert {path for value in made for path in paths_of(value)} >= {path for path in told if told[path][at]}


async def test_every_field_of_a_whole_answer_arrives_byte_for_byte(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(engine="openai")) as home:
        for value in WHOLES:
            home.engines["laptop"].script = Script(answer=odd(value))
            answer = await home.ask()
            assert (answer.status, answer.body) == (200, odd(value))


def stream(*chunks: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % odd(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


async def test_every_field_of_a_chunk_arrives_byte_for_byte(tmp_path: Path) -> None:
    usage = next(value for value in CHUNKS if value["usage"]) | {"choices": []}
    async with house(tmp_path, laptop=local(engine="openai")) as home:
        home.engines["laptop"].script = Script(answer=stream(*CHUNKS, usage))
        asked = await home.ask(chat(stream=True, stream_options={"include_usage": True}))
        unasked = await home.ask(chat(stream=True))
    assert asked.body == stream(*CHUNKS, usage)
    assert unasked.body == stream(*CHUNKS)


def texts(message: Any) -> list[str]:
    """What of a message, or of what a chunk adds to one, grows by pieces."""
    calls = [call["function"] or {} for call in message["tool_calls"] or ()]
    arguments = "".join(call.get("arguments") or "" for call in calls)
    grown = [message["content"], message["refusal"], arguments, (message["function_call"] or {}).get("arguments")]
    grown += [(message["audio"] or {}).get(name) for name in ("data", "transcript")]
    return [text or "" for text in grown]


async def test_a_gathered_answer_has_every_field_of_its_chunks_and_all_pieces_of_its_texts(tmp_path: Path) -> None:
    wanted = {path.replace(".delta", ".message") for path, (_, streamed) in answer_paths().items() if streamed}
    wanted -= {"obfuscation", "choices[].message.tool_calls[].index"}
    found: set[str] = set()
    async with house(tmp_path, laptop=local(engine="llamacpp")) as home:
        for chunk in CHUNKS:
            home.engines["laptop"].script = Script(answer=stream(chunk, chunk))
            answer = await home.ask(path=CHAT)
            assert answer.status == 200
            found |= set(paths_of(answer.json))
            (choice,) = answer.json["choices"]
            pieces = [texts(one["delta"]) for one in chunk["choices"] * 2]
            assert texts(choice["message"]) == ["".join(grown) for grown in zip(*pieces, strict=True)]
    assert wanted - found == set()
