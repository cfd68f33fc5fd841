"""What is the Responses dialect's own: its address, its refusals, and a real server that speaks it.

The vendor's errors below are written after what its users have published; nothing here has called it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.engines.conftest import pytest_pyfunc_call, shared_engine
from tests.engines.speakers import Called, RealSpeaker, chat
from tests.lab.engines import real_engine
from tests.lab.record import ask, tool_chat
from tests.wire.hub import gathered
from tests.wire.streams import DONE
from tidegate.core.health import CONTEXT_EXCEEDED, UNFIT
from tidegate.core.model import Capability, Ending
from tidegate.engines.base import uncarried
from tidegate.engines.responses import Responses
from tidegate.lab.llama import Engine
from tidegate.wire.clients import CLIENTS
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import parse

__all__ = ["pytest_pyfunc_call", "shared_engine"]

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CLIENT = CLIENTS["/v1/responses"]
TEMPLATE = Path(__file__).parents[1] / "lab" / "tools.jinja"  # the model's own knows no tools


@pytest.mark.parametrize(
    ("path", "target"),
    [("", b"/v1/responses"), ("/v1", b"/v1/responses"), ("/openai/v1", b"/openai/v1/responses")],
)
def test_the_address_is_below_that_of_chats(path: str, target: bytes) -> None:
    call = parse(json.dumps(chat(max_tokens=16)).encode(), Capability.CHAT)
    made = Responses(path, "m").outgoing(call, "gpt", ((b"authorization", b"Bearer k"),))
    assert (made.target, dict(made.headers)[b"authorization"]) == (target, b"Bearer k")
    assert [probe.target for probe in Responses(path, "m").probes()] == [target.replace(b"responses", b"models")]


def test_what_it_cannot_say_another_endpoint_may_serve() -> None:
    with pytest.raises(BadRequest) as caught:
        Responses("", "m").outgoing(parse(json.dumps(chat(max_tokens=15)).encode(), Capability.CHAT), "gpt", ())
    failure = uncarried(caught.value)
    assert (failure.final, failure.ending, failure.status) == (False, Ending.REFUSED, 400)


def refused(status: int, code: str | None, message: str) -> Any:
    said = {"error": {"message": message, "type": "invalid_request_error", "param": "input", "code": code}}
    return Responses("", "m").failure(status, {}, json.dumps(said).encode(), 0.0)


def test_a_thought_that_another_account_has_sealed_may_be_read_elsewhere() -> None:
    said = refused(400, "invalid_encrypted_content", "The encrypted content gAAA...DQ== could not be verified.")
    assert (said.ending, said.cause, said.final) == (Ending.REFUSED, UNFIT, False)
    assert said.code == "invalid_encrypted_content"


def test_a_prompt_that_is_too_long_is_known_by_its_words() -> None:
    said = refused(400, None, "Your input exceeds the context window of this model. Please adjust your input.")
    assert (said.cause, said.final) == (CONTEXT_EXCEEDED, False)


# --- before the real llama.cpp, which speaks it too ------------------------------------------------------------------


async def called(engine: Engine, body: dict[str, Any], *, client: Any = None) -> Called:
    async with RealSpeaker("openai-responses", engine.port, engine.spec.alias) as speaker:
        made = await speaker.call(body, client)
    assert made.failure is None
    return made


@pytest.mark.lengthy
@pytest.mark.engine
async def test_a_chat_is_answered_whole_and_streamed(shared_engine: Engine) -> None:
    asked = ask("Name three primary colours.", model="m", max_tokens=24)
    whole = await called(shared_engine, asked)
    streamed = await called(shared_engine, asked | {"stream": True})
    (choice,) = whole.answer["choices"]
    assert choice["message"]["content"]
    told = [one for chunk in streamed.chunks for one in chunk["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in told) == choice["message"]["content"]
    for one in (whole, streamed):
        usage = one.attempt.reader.usage
        assert usage is not None
        assert (usage.prompt_tokens or 0) > 0
        assert 0 < (usage.output_tokens or 0) <= 24


@pytest.mark.engine
async def test_a_client_of_the_same_dialect_reads_the_same_streamed_or_whole(shared_engine: Engine) -> None:
    asked = {"model": "m", "input": "Name three primary colours.", "max_output_tokens": 24, "temperature": 0}
    whole = await called(shared_engine, asked, client=CLIENT)
    streamed = await called(shared_engine, asked | {"stream": True}, client=CLIENT)
    found = Response.model_validate(whole.answer)
    events = (streamed.written + streamed.attempt.reader.done_frame).decode().split("\n\n")[:-1]
    read = [EVENT.validate_json(one.partition("data: ")[2]) for one in events]
    assert found.output_text
    assert read[-1].response.output_text == found.output_text


@pytest.mark.lengthy
@pytest.mark.engine
async def test_a_tool_is_called_and_its_results_are_taken() -> None:
    async with real_engine(template=TEMPLATE) as engine:
        whole = await called(engine, tool_chat() | {"model": "m"})
        streamed = await called(engine, tool_chat() | {"model": "m", "stream": True})
    answers = (whole.answer, json.loads(gathered(streamed.written + DONE)))
    for choice in [answer["choices"][0] for answer in answers]:
        (made,) = choice["message"]["tool_calls"]
        assert (made["function"]["name"], json.loads(made["function"]["arguments"])) == ("weather", {"city": "Paris"})
        assert choice["finish_reason"] == "tool_calls"
