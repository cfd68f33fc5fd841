"""A stream that breaks off is completed by who has the same model, where that is allowed, or ends in so many words."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import CHAT, COMPLETIONS, MODEL, SURE, Answer, House, Place, chat, completion, house, local
from tests.http.harness import eventually
from tidegate.core.flight import RESUMES_MAX
from tidegate.core.model import Decision, Ended, FirstToken, Request, Run, Started
from tidegate.core.resume import RULE
from tidegate.engines.fake import Script
from tidegate.engines.faults import Fault
from tidegate.engines.words import Words, event

WEIGHTS = "/models/one.gguf"
TOKENS = 8
WORDS = "".join(f"w{number} " for number in range(1, TOKENS + 1))
RESUMES: Any = {"policy": {"resume": True}}
# The same, where a request may live for a second.
SECOND: dict[str, Any] = {
    "gateway": {"request_timeout_s": 1},
    "policy": {"resume": True, "hold_s_max": 0.5},
    "classes": {"interactive": {"slo": {"ttft_ms": 900}}, "batch": {"slo": {"e2e_ms": 900}}},
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def engine(script: Script | None = None, *, weights: str = WEIGHTS, kind: str = "llamacpp", **settings: Any) -> Place:
    """An engine of our own that goes on with a text."""
    return replace(local(script or Script(tokens=TOKENS), engine=kind, **settings), weights=weights)


def dearer(script: Script | None = None, **settings: Any) -> Place:
    """One that is asked after those that are free, however long their probes took."""
    return engine(script, price={"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 1}, **settings)


def cut(after: int = 3, fault: Fault = Fault.CUT, **fields: Any) -> Script:
    return Script(tokens=TOKENS, fault=fault, fault_after=after, **fields)


async def streamed(home: House, ask: dict[str, Any] | None = None, *, path: str = CHAT, **headers: str) -> Answer:
    """A stream, asked for as soon as it is known which models there are."""
    models = [home.gateway.router.endpoint(name) for name in home.engines]
    await eventually(lambda: all(model.state.fingerprint is not None for model in models))
    return await home.ask({**(ask or chat()), "stream": True}, path=path, **headers)


def seen(home: House, name: str) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in home.engines[name].seen]


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.UNFINISHED, Fault.MALFORMED, Fault.ERROR_EVENT])
@pytest.mark.parametrize("kind", ["llamacpp", "vllm", "sglang"])
async def test_a_stream_that_breaks_off_is_completed_by_the_same_model(tmp_path: Path, fault: Fault, kind: str) -> None:
    places: Any = {"laptop": engine(cut(fault=fault), kind=kind), "rack": dearer(kind=kind)}
    async with house(tmp_path, **places, **RESUMES) as home:
        answer = await streamed(home, chat(max_tokens=20))
        (line,) = home.log()
        (asked,) = seen(home, "rack")
        metrics = (await home.get("/metrics", admin=True)).body
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "laptop")
    assert answer.events[-1] == "[DONE]"
    assert (line["outcome"], line["endpoint"], line["resumed"], line["attempts"]) == ("ok", "rack", True, 2)
    said = "w1 w2 w3" if kind == "vllm" else "w1 w2 w3 "
    assert asked["messages"][1:] == [{"role": "assistant", "content": said}]
    assert asked["max_tokens"] == 17
    assert asked.get("continue_final_message") is (None if kind == "llamacpp" else True)
    assert b'tidegate_broken_off_total{outcome="resumed"} 1' in metrics


@pytest.mark.parametrize("resumed", [False, True])
async def test_each_value_in_the_log_stands_where_it_belongs(tmp_path: Path, resumed: bool) -> None:
    """Of so many fields that are given by their places, each is what its name says."""
    async with house(tmp_path, laptop=engine(cut() if resumed else None), rack=dearer(), **RESUMES) as home:
        await streamed(home, chat(max_tokens=20), x_request_id="mine")
        (line,) = home.log()
        journal = home.journal()
    request = next(one.fact for one in journal if isinstance(one.fact, Request))
    decisions = [one.fact for one in journal if isinstance(one.fact, Decision)]
    asked_s, began_s = (next(one.at_s for one in journal if isinstance(one.fact, k)) for k in (Started, FirstToken))
    ends = [(one.at_s, one.fact) for one in journal if isinstance(one.fact, Ended)]
    (_, first), (over_s, last) = ends[0], ends[-1]
    assert first.predicted_ttft_s is not None
    assert last.prompt_tokens is not None
    assert last.output_tokens is not None
    assert line == pytest.approx(
        {
            "type": "request",
            "at_s": over_s,
            "request_id": "mine",
            "decision_id": request.id,
            "key": None,
            "klass": request.klass,
            "model": request.model,
            "endpoint": "rack" if resumed else "laptop",
            "why": decisions[-1].why,
            "attempts": 2 if resumed else 1,
            "hedged": False,
            "resumed": resumed,
            "stream": True,
            "status": 200,
            "outcome": "ok",
            "code": None,
            "cause": "reset" if resumed else None,
            "prompt_tokens": last.prompt_tokens - (3 if resumed else 0),
            "output_tokens": TOKENS,
            "ttft_s": began_s - request.arrived_s,
            "predicted_ttft_s": asked_s - request.arrived_s + first.predicted_ttft_s,
            "e2e_s": over_s - request.arrived_s,
            "held_s": 0.0,
            "cost_usd": (last.prompt_tokens + last.output_tokens) * 1e-6 if resumed else 0.0,
        },
        abs=1e-6,
    )


async def test_a_completion_is_resumed_from_its_prompt_and_what_was_said(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, completion("Once"), path=COMPLETIONS)
        (asked,) = seen(home, "rack")
    assert asked["prompt"] == "Oncew1 w2 w3 "
    assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    "text", ["w\u00b2", "w" + "9" * 5_000, "w3", "w"], ids=["no digit", "too many", "others", "none"]
)
async def test_an_imitated_engine_goes_on_after_no_words_that_are_not_its_own(tmp_path: Path, text: str) -> None:
    async with house(tmp_path, laptop=engine()) as home:
        answer = await home.ask(chat_after(text))
    assert answer.json["choices"][0]["message"]["content"] == WORDS


def chat_after(text: str) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": text}])


async def test_it_is_one_stream_of_one_name_with_the_usage_of_one_answer(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, chat(stream_options={"include_usage": True}))
        (line,) = home.log()
    *chunks, usage, _ = answer.events
    assert {(chunk["id"], chunk["model"]) for chunk in answer.events[:-1]} == {("fake-1", "own")}
    assert [c["choices"][0]["delta"].get("role") for c in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == TOKENS
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + TOKENS
    assert (line["prompt_tokens"], line["output_tokens"]) == (usage["usage"]["prompt_tokens"], TOKENS)


async def test_the_same_engine_is_asked_where_nobody_else_is_known_to_have_its_model(tmp_path: Path) -> None:
    async with house(
        tmp_path, laptop=engine(cut(token_s=0.05)), rack=dearer(weights="/models/other.gguf"), **RESUMES
    ) as home:
        laptop = home.engines["laptop"]
        asking = home.gateway.router.endpoint("laptop")
        await eventually(lambda: asking.state.fingerprint is not None)
        async with home.asking(chat(stream=True)) as client:
            await eventually(lambda: laptop.made >= 1)
            laptop.script = Script(tokens=TOKENS)
            body = await client.readuntil(b"[DONE]")
        assert [len(one.seen) for one in home.engines.values()] == [2, 0]
    assert b"w3 " in body
    assert body.count(b"w3 ") == 1


async def test_it_may_break_off_again(tmp_path: Path) -> None:
    """The first breaks off after three words, the second after five, and the first is asked for the rest."""
    async with house(tmp_path, laptop=engine(cut(3)), rack=dearer(cut(5, token_s=0.05)), **RESUMES) as home:
        models = [home.gateway.router.endpoint(name) for name in home.engines]
        await eventually(lambda: all(model.state.fingerprint is not None for model in models))
        async with home.asking(chat(stream=True)) as client:
            await eventually(lambda: len(home.engines["rack"].seen) == 1)
            home.engines["laptop"].script = home.engines["rack"].script = Script(tokens=TOKENS)
            body = await client.readuntil(b"[DONE]")
        await home.quiet()
        (line,) = home.log()
    for number in range(1, TOKENS + 1):
        assert body.count(b"w%d " % number) == 1
    assert (line["outcome"], line["attempts"]) == ("ok", 1 + RESUMES_MAX)


async def test_what_breaks_off_too_often_ends_with_an_error(tmp_path: Path) -> None:
    """Each engine dies of it, two words later: it is not carried to a fourth."""
    ends = {"a": 2, "b": 4, "c": 6, "d": 8}
    places: Any = {name: engine(cut(after), prior=SURE | {"overhead_ms": after * 100}) for name, after in ends.items()}
    async with house(tmp_path, **places, policy={"resume": True, "attempts_max": 4}) as home:
        answer = await streamed(home)
        (line,) = home.log()
        asked = [len(one.seen) for one in home.engines.values()]
    assert sum(asked) == 1 + RESUMES_MAX
    assert answer.events[-1]["error"]["code"] == "upstream_error"
    assert line["outcome"] == "failed_mid_stream"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"response_format": {"type": "json_object"}}, "it has to have a form"),
        ({"grammar": 'root ::= "w"'}, "it has to have a form"),
        ({"tools": [TOOL], "tool_choice": "required"}, "it has to be a call of a tool"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "a message of its own",
        ),
    ],
    ids=["json", "grammar", "tool", "prefill"],
)
async def test_what_cannot_be_resumed_says_why(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, chat(**fields))
        metrics = (await home.get("/metrics", admin=True)).body
        assert seen(home, "rack") == []
    assert why in answer.events[-1]["error"]["message"]
    assert "[DONE]" not in answer.events
    assert b'tidegate_broken_off_total{outcome="refused"} 1' in metrics


@pytest.mark.lengthy
async def test_what_takes_too_long_was_not_refused_its_rest(tmp_path: Path) -> None:
    slow = engine(Script(tokens=2, token_s=60.0))
    async with house(tmp_path, laptop=slow, **SECOND) as home:
        answer = await streamed(home, chat(response_format={"type": "json_object"}))
        metrics = (await home.get("/metrics", admin=True)).body
    assert answer.events[-1]["error"]["code"] == "request_timeout"
    assert "rest" not in answer.events[-1]["error"]["message"]
    assert b'tidegate_broken_off_total{outcome="failed"} 1' in metrics


async def test_a_call_of_a_tool_that_has_begun_is_not_begun_again(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{"}}
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
    begun = Script(answer=b"data: " + msgspec.json.encode(chunk) + b"\n\n")
    async with house(tmp_path, laptop=engine(begun), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, chat(tools=[TOOL]))
        assert seen(home, "rack") == []
    assert "a call of a tool had begun" in answer.events[-1]["error"]["message"]


async def test_text_before_a_tool_is_called_is_resumed(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, chat(tools=[TOOL]))
        (asked,) = seen(home, "rack")
    assert answer.text == WORDS
    assert asked["tools"] == [TOOL]


async def test_nothing_is_resumed_elsewhere_than_with_the_same_model(tmp_path: Path) -> None:
    """Nor where nobody knows what that is."""
    places: Any = {"laptop": engine(cut(), weights=""), "rack": dearer(weights="")}
    async with house(tmp_path, **places, **RESUMES) as home:
        answer = await home.ask(chat(stream=True))
        assert seen(home, "rack") == []
        laptop = seen(home, "laptop")
    # The one that broke off has its own model; it brings nothing more, and that is the end.
    assert len(laptop) == 2
    assert answer.events[-1]["error"]["code"] == "upstream_error"


async def test_a_dialect_that_begins_another_message_is_not_asked(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut(), kind="fake"), rack=dearer(kind="fake"), **RESUMES) as home:
        answer = await home.ask(chat(stream=True))
        assert seen(home, "rack") == []
    assert "nobody is known to have the same model" in answer.events[-1]["error"]["message"]


async def test_nothing_is_resumed_unless_operators_allow_it(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer()) as home:
        answer = await streamed(home)
        assert seen(home, "rack") == []
    assert answer.events[-1]["error"]["message"].endswith("before its answer was complete.")


async def test_who_wants_one_attempt_gets_one(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        answer = await streamed(home, x_tidegate_no_fallback="true")
        assert seen(home, "rack") == []
    assert "one attempt only was asked for" in answer.events[-1]["error"]["message"]


async def test_a_stream_that_is_cut_after_its_end_is_complete_and_has_one(tmp_path: Path) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(1 << 16)).startswith(b"GET "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            writer.close()
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        words = Words(model="own", chat=True, body_bytes=4)
        frames = [words.role(), words.token(1), words.finish()]
        writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(ends, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        laptop = local(url=url, engine="llamacpp", fingerprint={"weights": "w"})
        async with house(tmp_path, laptop=laptop, **RESUMES) as home:
            answer = await home.ask(chat(stream=True))
            (line,) = home.log()
    assert answer.text == "w1 "
    assert [c["choices"][0]["finish_reason"] for c in answer.events[:-1]] == [None, None, "stop"]
    assert (answer.events[-1], line["outcome"], line["attempts"]) == ("[DONE]", "ok", 1)


@pytest.mark.lengthy
async def test_a_stream_that_stops_is_resumed_elsewhere(tmp_path: Path) -> None:
    silent = Script(tokens=TOKENS, token_s=60.0)
    policy: Any = {"policy": {"resume": True, "stall_s": 1}}
    async with house(tmp_path, laptop=engine(silent), rack=dearer(), **policy) as home:
        answer = await streamed(home)
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert answer.text == WORDS
    assert answer.events[-1] == "[DONE]"


@pytest.mark.lengthy
async def test_the_rest_waits_for_a_slot_like_any_other(tmp_path: Path) -> None:
    """The only engine with the same model is busy, and the client gets its rest when it is not any more."""
    busy = Script(tokens=TOKENS, token_s=0.2)
    places: Any = {"laptop": engine(cut(), concurrency=1), "rack": dearer(busy, concurrency=1)}
    async with house(tmp_path, **places, **RESUMES, rules=[]) as home:
        models = [home.gateway.router.endpoint(name) for name in home.engines]
        await eventually(lambda: all(model.state.fingerprint is not None for model in models))
        await home.change("PUT", "/api/endpoints/laptop/drain")
        async with home.asking(chat("first", stream=True)) as first:
            await first.readuntil(b"w1 ")
            home.engines["rack"].script = Script(tokens=TOKENS)
            await home.change("DELETE", "/api/endpoints/laptop/drain")
            async with home.asking(chat("second", stream=True)) as second:
                await second.readuntil(b"w3 ")
                await home.change("PUT", "/api/endpoints/laptop/drain")
                await second.readuntil(b"[DONE]")
        await home.quiet()
        outcomes = [(line["outcome"], line["resumed"]) for line in home.log()]
    assert sorted(outcomes) == [("ok", False), ("ok", True)]


async def test_a_rest_that_nobody_gives_ends_with_why_it_broke_off(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(Script(status=500)), **RESUMES) as home:
        await eventually(lambda: home.gateway.router.endpoint("rack").state.fingerprint is not None)
        home.engines["laptop"].script = cut(token_s=0.05)
        async with home.asking(chat(stream=True)) as client:
            await eventually(lambda: home.engines["laptop"].made >= 1)
            home.engines["laptop"].script = Script(status=500)
            body = await client.readuntil(b"\r\n0\r\n\r\n")
        await home.quiet()
        (line,) = home.log()
    assert body.startswith(b"HTTP/1.1 200 ")
    assert body.count(b"HTTP/1.1") == 1
    assert b'"code":"upstream_error"' in body
    assert b"[DONE]" not in body
    assert (line["outcome"], line["status"]) == ("failed_mid_stream", 200)
    came = next(one.fact for one in home.journal() if isinstance(one.fact, Request))
    assert line["prompt_tokens"] == came.prompt_tokens


async def test_a_rest_that_an_engine_finds_fault_with_ends_in_the_stream(tmp_path: Path) -> None:
    """llama.cpp refuses to go on with a message where its model thinks first."""
    error = b'{"error":{"message":"prefill is incompatible with thinking","code":"it-quotes"}}'
    refuses = Script(status=400, error=error)
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(refuses), **RESUMES) as home:
        await eventually(lambda: home.gateway.router.endpoint("rack").state.fingerprint is not None)
        laptop = home.engines["laptop"]
        laptop.script = cut(token_s=0.05)
        async with home.asking(chat(stream=True)) as client:
            await eventually(lambda: laptop.made >= 1)
            laptop.script = refuses
            body = await client.readuntil(b"\r\n0\r\n\r\n")
        await home.quiet()
    assert body.count(b"HTTP/1.1") == 1
    assert b"incompatible with thinking" in body
    assert b"it-quotes" in body
    for file in (tmp_path / "log", *(tmp_path / "journal").iterdir()):
        assert b"it-quotes" not in file.read_bytes(), "its words may be those of the prompt"


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat", "/v1/responses"])
async def test_clients_of_other_dialects_get_one_answer_too(tmp_path: Path, path: str) -> None:
    messages = [{"role": "user", "content": "Say hi"}]
    ask: dict[str, Any] = {"model": MODEL, "stream": True, "messages": messages}
    if path == "/v1/messages":
        ask["max_tokens"] = 50
    if path == "/v1/responses":
        ask = {"model": MODEL, "stream": True, "input": "Say hi"}
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        models = [home.gateway.router.endpoint(name) for name in home.engines]
        await eventually(lambda: all(model.state.fingerprint is not None for model in models))
        broken = await home.ask(ask, path=path)
        assert len(seen(home, "rack")) == 1
        whole = await home.ask(ask, path=path)
    assert _shape(broken.body) == _shape(whole.body)
    assert broken.body.count(b"w4 ") == whole.body.count(b"w4 ")


async def test_a_rest_that_fails_with_its_first_words_is_completed_behind_them(tmp_path: Path) -> None:
    said = Words(model="own", chat=True, body_bytes=40)
    fails = Script(answer=said.role() + said.token(4) + event({"error": {"message": "out of memory"}}))
    price = {"usd_per_1m_input_tokens": 9, "usd_per_1m_output_tokens": 9}
    places: Any = {"laptop": engine(cut()), "rack": dearer(fails), "tower": engine(price=price)}
    async with house(tmp_path, **places, **RESUMES) as home:
        answer = await streamed(home, {"model": MODEL, "input": "Say hi"}, path="/v1/responses")
        (asked,) = seen(home, "tower")
    assert asked["messages"][-1] == {"role": "assistant", "content": "w1 w2 w3 w4 "}
    events = [json.loads(line[6:]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
    assert "".join(one["delta"] for one in events if one["type"] == "response.output_text.delta") == WORDS
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == WORDS


def _shape(body: bytes) -> list[str]:
    """The kinds of a stream's events, in their order."""
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if b"{" in line]
    return [str(json.loads(line).get("type", "")) for line in lines]


async def test_the_journal_says_what_was_asked_for(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=engine(cut()), rack=dearer(), **RESUMES) as home:
        await streamed(home, chat(max_tokens=20), x_tidegate_slo_ttft_ms="5000")
    facts = [line.fact for line in home.journal()]
    came, rest = [fact for fact in facts if isinstance(fact, Request)]
    assert (rest.said_tokens, rest.output_tokens_max) == (3, 17)
    assert rest.prompt_tokens == came.prompt_tokens + 3
    assert rest.rulings[-1].rule == RULE
    assert rest.rulings[-1].to == ("rack",)
    assert rest.slo.ttft_s is not None
    assert 5.0 < rest.slo.ttft_s < 60.0
    first, second = [fact for fact in facts if isinstance(fact, Decision)]
    assert isinstance(first.plan[0], Run)
    assert isinstance(second.plan[0], Run)
    assert [fact.said_tokens for fact in facts if isinstance(fact, Started)] == [0, 3]
    assert [fact.output_tokens for fact in facts if isinstance(fact, Ended)] == [3, 5]


async def test_who_waits_for_the_rest_has_waited_since_the_answer_broke_off(tmp_path: Path) -> None:
    rack = dearer(Script(tokens=100_000, token_s=0.02), serves=[MODEL, "more"], concurrency=1)
    places: Any = {"laptop": engine(cut(token_s=0.1)), "rack": rack}
    async with house(tmp_path, **places, **RESUMES) as home:
        models = [home.gateway.router.endpoint(name) for name in home.engines]
        await eventually(lambda: all(model.state.fingerprint is not None for model in models))
        async with home.asking(chat(model="more", stream=True)) as busy:
            await busy.readuntil(b"w1 ")
            home.engines["rack"].script = Script(tokens=TOKENS)
            waits = asyncio.create_task(streamed(home))
            await eventually(lambda: home.gateway.router.held == 1)
        answer = await waits
        line = next(one for one in home.log() if one["resumed"])
    assert answer.text == WORDS
    # Two gaps of a tenth of a second passed before it broke off.
    assert 0.0 < line["held_s"] <= line["e2e_s"] - 0.2


async def test_the_rest_is_decided_by_what_is_left_of_the_budget_when_it_breaks_off(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 1}
    places: Any = {
        "laptop": engine(cut(first_s=0.2), price=price),
        "rack": engine(price=price, prior=SURE | {"overhead_ms": 30}),
    }
    async with house(tmp_path, budget={"usd_per_day": 1}, **places, **RESUMES) as home:
        ledger = home.gateway.spending.ledger
        assert ledger is not None
        # Enough for the answer, and not for its rest, which holds back more.
        ledger.reserve("another", "", 0.99971, home.gateway.clock.now_s())
        asking = asyncio.create_task(streamed(home, chat(max_tokens=100)))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        ledger.release("another")
        answer = await asking
        (line,) = home.log()
    assert answer.text == WORDS
    assert (line["outcome"], line["attempts"]) == ("ok", 2)
