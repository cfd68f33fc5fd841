"""What an engine's dialect cannot say: another engine is asked, and a refusal names the field."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.dialects import SPEECHES
from tests.gateway.harness import SURE, House, Place, chat, house, local, remote
from tests.http.harness import eventually
from tidegate.core.flight import ATTEMPTS_MAX
from tidegate.core.model import Decision, replace
from tidegate.core.resume import PASSED_OVER
from tidegate.core.rows import Came, Rows
from tidegate.core.ruled import barred_by
from tidegate.engines.fake import Fault, Script
from tidegate.sim.observed import observe

WORDS = "w1 w2 w3 w4 "

# What the Messages dialect has no word for, as each dialect of clients asks for it, and what the refusal names.
UNCARRIED: dict[str, tuple[dict[str, Any], str]] = {
    "chat": ({"logit_bias": {"1": 5}}, "logit_bias"),
    "responses": ({"text": {"format": {"type": "json_object"}}}, "response_format"),
    "ollama_chat": ({"options": {"frequency_penalty": 0.5}}, "frequency_penalty"),
    "ollama_generate": ({"format": "json"}, "response_format"),
}
streams = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
uncarried = pytest.mark.parametrize("name", UNCARRIED)


@streams
@uncarried
async def test_an_endpoint_whose_dialect_cannot_say_it_is_passed_over(tmp_path: Path, name: str, stream: bool) -> None:
    speech, (fields, _) = SPEECHES[name], UNCARRIED[name]
    async with house(tmp_path, laptop=local(engine="anthropic"), cloud=remote()) as home:
        answer = await home.ask(speech.body(stream=stream, **fields), path=speech.path)
        assert home.engines["laptop"].seen == []
        (line,) = home.log()
    assert speech.said(answer, stream=stream).text == WORDS
    # What could not be said was not sent, and is no attempt.
    assert (answer.endpoint, answer.header("x-tidegate-attempts"), line["attempts"]) == ("cloud", "1", 1)


async def test_the_step_after_one_that_was_passed_over_keeps_its_own_cutover(tmp_path: Path) -> None:
    places: dict[str, Any] = {
        # Both are free and on time, one quicker; there is no time for the one after the other.
        "laptop": local(engine="anthropic", prior=SURE | {"overhead_ms": 100}),
        "other": local(Script(first_s=60), prior=SURE | {"overhead_ms": 210}),
        "cloud": remote(),
    }
    async with house(tmp_path, **places) as home:
        answer = await home.ask(chat(max_tokens=10, logit_bias={"1": 5}), x_tidegate_slo_ttft_ms="300")
        assert home.gateway.dispatch._timers == {}
        (line,) = home.log()
    (decision,) = [line.fact for line in home.journal() if isinstance(line.fact, Decision)]
    assert [step.endpoint for step in decision.plan] == ["laptop", "other", "cloud"]
    assert (answer.endpoint, line["hedged"]) == ("cloud", True)


@streams
async def test_what_no_dialect_can_say_is_at_fault_in_the_journal_as_it_is_in_the_log(
    tmp_path: Path, stream: bool
) -> None:
    async with house(tmp_path, laptop=local(engine="anthropic"), cloud=remote(engine="anthropic")) as home:
        await home.ask(chat(stream=stream, logit_bias={"1": 5}), x_tidegate_slo_ttft_ms="1000")
        (line,) = home.log()
        metrics = (await home.get("/metrics", admin=True)).body.decode()
    rows = Rows()
    (row,) = [row for one in home.journal() for row in rows.feed(one)] + rows.rest()
    assert (row.outcome, row.kept) == (line["outcome"], None) == (Came.CLIENT_ERROR, None)
    assert not any(told.startswith("tidegate_promises_total{") for told in metrics.splitlines())
    seen = observe(home.journal())
    assert (seen.asked, seen.client_errors) == ([], 1)


async def test_where_it_could_not_be_sent_it_is_not_sent_when_its_day_is_played_again(tmp_path: Path) -> None:
    free = {"usd_per_1m_input_tokens": 0, "usd_per_1m_output_tokens": 0}
    for name, (fields, cloud, _) in CANNOT.items():
        (tmp_path / name).mkdir()
        cheap = replaced(cloud, price=free)
        async with house(tmp_path / name, cloud=cheap, other=remote(engine="openai", prior=IN_TIME)) as home:
            answer = await home.ask(chat(max_tokens=10, **fields))
        (decision,) = [line.fact for line in home.journal() if isinstance(line.fact, Decision)]
        assert ([step.endpoint for step in decision.plan], answer.endpoint) == (["cloud", "other"], "other")
        (one,) = observe(home.journal()).asked
        assert barred_by(one.request.rulings, "cloud") == PASSED_OVER
        assert not barred_by(one.request.rulings, "other")


@streams
@uncarried
async def test_where_no_dialect_can_say_it_the_refusal_names_the_field(tmp_path: Path, name: str, stream: bool) -> None:
    speech, (fields, named) = SPEECHES[name], UNCARRIED[name]
    async with house(tmp_path, laptop=local(engine="anthropic"), cloud=remote(engine="anthropic")) as home:
        answer = await home.ask(speech.body(stream=stream, **fields), path=speech.path)
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    assert answer.status == 400
    assert f"`{named}`" in speech.error(answer)


@uncarried
async def test_a_failure_that_may_pass_is_told_rather_than_what_a_dialect_cannot_say(tmp_path: Path, name: str) -> None:
    speech, (fields, _) = SPEECHES[name], UNCARRIED[name]
    places: dict[str, Any] = {"laptop": local(Script(status=503), engine="openai"), "cloud": remote(engine="anthropic")}
    async with house(tmp_path, **places) as home:
        answer = await home.ask(speech.body(**fields), path=speech.path)
        assert len(home.engines["laptop"].seen) == 1
    # As it stands it works, once the laptop is less busy: 400 would say never.
    assert answer.status == 503


# What an engine says that takes no parts of text, or no such role, or no such field.
FAULT = b'{"error":{"message":"content must be a string","type":"invalid_request_error","param":null,"code":"SECRET"}}'
OTHERS = ("messages", "responses", "ollama_chat", "ollama_generate")


def at_fault(status: int = 400) -> Script:
    return Script(status=status, error=FAULT)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("name", "engine"), [*((name, "openai") for name in OTHERS), ("chat", "anthropic")])
async def test_whoever_finds_fault_with_a_form_that_we_gave_it_is_no_last_word(
    tmp_path: Path, name: str, engine: str, status: int
) -> None:
    speech = SPEECHES[name]
    places: dict[str, Any] = {"laptop": local(at_fault(status), engine=engine), "cloud": remote()}
    async with house(tmp_path, **places) as home:
        answer = await home.ask(speech.body(), path=speech.path)
        (line,) = home.log()
        again = await home.ask(speech.body(), path=speech.path)
    assert speech.said(answer, stream=False).text == WORDS
    assert (answer.endpoint, line["attempts"]) == ("cloud", 2)
    assert again.header("x-tidegate-attempts") == "2", "it is no fault of the endpoint's"


@pytest.mark.parametrize(("name", "engine"), [*((name, "openai") for name in OTHERS), ("chat", "anthropic")])
async def test_where_all_find_fault_with_it_the_client_has_their_words(tmp_path: Path, name: str, engine: str) -> None:
    speech = SPEECHES[name]
    places: dict[str, Any] = {
        "laptop": local(at_fault(), engine=engine),
        "cloud": remote(at_fault(), engine=engine),
    }
    async with house(tmp_path, **places) as home:
        answer = await home.ask(speech.body(), path=speech.path)
        assert [len(engine.seen) for engine in home.engines.values()] == [1, 1]
        (line,) = home.log()
    assert (answer.status, speech.error(answer)) == (400, "content must be a string")
    assert (line["outcome"], line["cost_usd"]) == ("client_error", 0.0)
    assert "SECRET" not in str(line)


@pytest.mark.parametrize(("name", "engine"), [("chat", "openai"), ("completions", "openai"), ("messages", "anthropic")])
async def test_a_fault_with_what_the_client_said_itself_is_the_last_word(
    tmp_path: Path, name: str, engine: str
) -> None:
    speech = SPEECHES[name]
    async with house(tmp_path, laptop=local(at_fault(), engine=engine), cloud=remote()) as home:
        answer = await home.ask(speech.body(), path=speech.path)
        assert home.engines["cloud"].seen == []
    assert (answer.status, speech.error(answer)) == (400, "content must be a string")


@asynccontextmanager
async def held(tmp_path: Path, *, cloud: bool) -> AsyncIterator[tuple[House, Callable[[str], Awaitable[None]]]]:
    """A house whose laptop, which cannot say it, and whose cloud, which can, have one slot each, and are busy.

    What is given with it frees one.
    """
    silent = Script(fault=Fault.SILENT)
    places: dict[str, Any] = {"laptop": local(silent, engine="anthropic", concurrency=1, serves=["m", "laptop"])}
    if cloud:
        places["cloud"] = remote(silent, concurrency=1, serves=["m", "cloud"])
    async with house(tmp_path, policy={"recheck_ms": 10}, **places) as home, AsyncExitStack() as clients:
        busy = {name: await clients.enter_async_context(AsyncExitStack()) for name in places}
        for name, client in busy.items():
            await client.enter_async_context(home.asking(chat(model=name)))
            await eventually(lambda name=name: home.engines[name].in_flight == 1)  # type: ignore[misc]
            home.engines[name].script = Script()

        async def free(name: str) -> None:
            await busy[name].aclose()

        yield home, free


def narrowed(home: House) -> bool:
    """Whether the core knows of who is held that it cannot go everywhere."""
    return any(one.rulings for one in home.gateway.router.state.held.values())


def outcomes(home: House) -> set[str]:
    """What came of requests, by the journal."""
    rows = Rows()
    ended = [row for line in home.journal() for row in rows.feed(line)]
    return {row.outcome for row in (*ended, *rows.rest()) if row.outcome is not Came.UNKNOWN}


def turns(home: House) -> int:
    """How often anything was decided."""
    return sum(isinstance(line.fact, Decision) for line in home.journal())


@streams
@uncarried
async def test_a_held_request_is_served_by_the_engine_that_can_say_it(tmp_path: Path, name: str, stream: bool) -> None:
    speech, (fields, _) = SPEECHES[name], UNCARRIED[name]
    async with held(tmp_path, cloud=True) as (home, free):
        asking = asyncio.create_task(home.ask(speech.body(stream=stream, **fields), path=speech.path))
        await eventually(lambda: home.gateway.router.held == 1)
        await free("laptop")
        # It is told once that it cannot be said there, and waits for who can.
        await eventually(lambda: asking.done() or narrowed(home))
        await free("cloud")
        answer = await asking
        assert len(home.engines["laptop"].seen) == 1
        assert turns(home) < ATTEMPTS_MAX
    assert speech.said(answer, stream=stream).text == WORDS
    assert answer.endpoint == "cloud"


@uncarried
async def test_a_held_request_that_no_engine_can_say_is_refused_in_its_turn(tmp_path: Path, name: str) -> None:
    speech, (fields, named) = SPEECHES[name], UNCARRIED[name]
    async with held(tmp_path, cloud=False) as (home, free):
        asking = asyncio.create_task(home.ask(speech.body(**fields), path=speech.path))
        await eventually(lambda: home.gateway.router.held == 1)
        await free("laptop")
        answer = await asking
        assert len(home.engines["laptop"].seen) == 1
        await home.quiet()
        assert outcomes(home) == {line["outcome"] for line in home.log()} == {"client_left", "client_error"}
    assert answer.status == 400
    assert f"`{named}`" in speech.error(answer)


# Who would be in time cannot be sent what is asked, or finds it too long; ours is too late for the promise.
LATE = SURE | {"overhead_ms": 3000}
IN_TIME = SURE | {"overhead_ms": 50}
TOO_LONG = Script(
    status=400,
    error=b'{"error":{"message":"maximum context length","type":"x","param":null,"code":"context_length_exceeded"}}',
)


def replaced(place: Place, **settings: Any) -> Place:
    return dataclasses.replace(place, settings=place.settings | settings)


CANNOT: dict[str, tuple[dict[str, Any], Place, int]] = {
    "uncarried": ({"logit_bias": {"1": 5}}, remote(engine="anthropic", prior=IN_TIME), 0),
    "too_long": ({}, remote(TOO_LONG, engine="openai", prior=IN_TIME), 1),
}
cannot = pytest.mark.parametrize("why", CANNOT)


@asynccontextmanager
async def late(tmp_path: Path, cloud: Place, **policy: float) -> AsyncIterator[tuple[House, AsyncExitStack]]:
    """A house whose laptop is busy until what is given with it is closed."""
    laptop = local(Script(fault=Fault.SILENT), concurrency=1, serves=["m", "laptop"], prior=LATE)
    settings: dict[str, Any] = {
        "gateway": {"request_timeout_s": 5},
        "policy": {"recheck_ms": 20, "hold_s_max": 2} | policy,
        "classes": {"batch": {"slo": {"e2e_ms": 4000}}},
    }
    async with house(tmp_path, **settings, laptop=laptop, cloud=cloud) as home, AsyncExitStack() as busy:
        await busy.enter_async_context(home.asking(chat(model="laptop")))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        home.engines["laptop"].script = Script()
        yield home, busy


@cannot
async def test_who_is_held_and_cannot_go_where_it_would_be_in_time_is_served_by_ours_in_its_turn(
    tmp_path: Path, why: str
) -> None:
    fields, cloud, asked = CANNOT[why]
    async with late(tmp_path, cloud) as (home, busy):
        asking = asyncio.create_task(home.ask(chat(max_tokens=10, **fields), x_tidegate_slo_ttft_ms="1000"))
        await eventually(lambda: home.gateway.router.held == 1)
        await busy.aclose()
        answer = await asking
        assert len(home.engines["cloud"].seen) == asked
        # One when it came, one in its turn.
        assert turns(home) <= 1 + 2 * 2
    assert (answer.status, answer.endpoint) == (200, "laptop")


@pytest.mark.lengthy
@cannot
async def test_and_waits_no_longer_than_anybody_may(tmp_path: Path, why: str) -> None:
    fields, cloud, asked = CANNOT[why]
    async with late(tmp_path, cloud, hold_s_max=0.2) as (home, _):
        answer = await home.ask(chat(max_tokens=10, **fields), x_tidegate_slo_ttft_ms="1000")
        assert len(home.engines["cloud"].seen) == asked
    # It works as it stands, once the laptop is less busy; and the client learns what keeps it from others.
    assert answer.status == 429
    assert answer.header("retry-after")
    assert ("`logit_bias`" if fields else "maximum context length") in answer.error["message"]


@cannot
@pytest.mark.parametrize(("vendors", "retry"), [(3, "0"), (2, "0"), (1, "2")])
async def test_who_was_not_in_a_plan_of_which_nobody_takes_it_serves(
    tmp_path: Path, why: str, vendors: int, retry: str
) -> None:
    fields, cloud, asked = CANNOT[why]
    places: dict[str, Any] = {f"cloud{n}": cloud for n in range(vendors)}
    headers = {"x_tidegate_slo_ttft_ms": "1000", "x_stainless_retry_count": retry}
    async with house(tmp_path, laptop=local(prior=LATE), **places) as home:
        answer = await home.ask(chat(max_tokens=10, **fields), **headers)
        (line,) = home.log()
        assert [len(home.engines[name].seen) for name in places] == [asked] * vendors
    assert (answer.status, answer.endpoint) == (200, "laptop")
    assert answer.header("x-tidegate-attempts") == str(line["attempts"]) == str(1 + vendors * asked)


async def test_one_who_cannot_say_it_and_one_who_finds_it_too_long_leave_it_to_ours(tmp_path: Path) -> None:
    places: dict[str, Any] = {
        "laptop": local(prior=LATE),
        "cloud": CANNOT["uncarried"][1],
        "other": CANNOT["too_long"][1],
    }
    async with house(tmp_path, **places) as home:
        answer = await home.ask(chat(max_tokens=10, logit_bias={"1": 5}), x_tidegate_slo_ttft_ms="1000")
    assert (answer.status, answer.endpoint) == (200, "laptop")


async def test_what_could_not_be_sent_to_one_and_not_be_paid_for_at_another_may_be_asked_again(tmp_path: Path) -> None:
    free, dear = ({"usd_per_1m_input_tokens": usd, "usd_per_1m_output_tokens": usd} for usd in (0, 1000))
    places: dict[str, Any] = {
        "cloud": remote(engine="anthropic", prior=IN_TIME, price=free),
        "other": remote(engine="openai", prior=IN_TIME, price=dear),
    }
    async with house(tmp_path, budget={"usd_per_day": 0.01}, **places) as home:
        answer = await home.ask(chat(max_tokens=10, logit_bias={"1": 5}))
        (line,) = home.log()
        assert outcomes(home) == {line["outcome"]} == {"refused"}
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert "`logit_bias`" in answer.error["message"]


async def test_what_is_drained_may_be_asked_again_whatever_others_find_too_long(tmp_path: Path) -> None:
    async with late(tmp_path, CANNOT["too_long"][1]) as (home, _):
        asking = asyncio.create_task(home.ask(chat(max_tokens=10), x_tidegate_slo_ttft_ms="1000"))
        await eventually(lambda: home.gateway.router.held == 1)
        overrides = replace(home.gateway.router.overrides, drained=("laptop",))
        home.gateway.dispatch.tell(overrides, home.gateway.clock.now_s())
        answer = await asking
        (line,) = home.log()
        assert outcomes(home) == {line["outcome"]} == {"refused"}
    assert (answer.status, answer.header("x-tidegate-why")) == (503, "drained")


async def test_what_one_finds_too_long_and_ours_is_too_small_for_is_refused_for_that(tmp_path: Path) -> None:
    places: dict[str, Any] = {"laptop": local(context_tokens=128, prior=LATE), "cloud": CANNOT["too_long"][1]}
    async with house(tmp_path, **places) as home:
        answer = await home.ask(chat(max_tokens=200))
        (line,) = home.log()
        assert outcomes(home) == {line["outcome"]} == {"refused"}
        (one,) = observe(home.journal()).asked
        assert one.outcome.refused_for_ever
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


async def test_a_conversation_that_grew_too_long_where_it_goes_on_is_told_that_and_not_where_it_may_not_go(
    tmp_path: Path,
) -> None:
    headers = {"x_tidegate_session": "one", "x_tidegate_slo_ttft_ms": "1000"}
    places: dict[str, Any] = {"laptop": local(prior=LATE), "cloud": remote(engine="openai", prior=IN_TIME)}
    async with house(tmp_path, **places) as home:
        assert (await home.ask(chat(max_tokens=10), **headers)).endpoint == "cloud"
        home.engines["cloud"].script = TOO_LONG
        answer = await home.ask(chat(max_tokens=10), **headers)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


async def test_where_who_was_not_in_the_plan_may_not_serve_the_refusal_names_the_field(tmp_path: Path) -> None:
    places: dict[str, Any] = {"laptop": local(context_tokens=128, prior=LATE), "cloud": remote(engine="anthropic")}
    async with house(tmp_path, **places) as home:
        answer = await home.ask(chat(max_tokens=200, logit_bias={"1": 5}))
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    assert answer.status == 400
    assert "`logit_bias`" in answer.error["message"]


async def test_completions_are_refused_where_only_a_dialect_without_them_is_served(tmp_path: Path) -> None:
    speech = SPEECHES["completions"]
    async with house(tmp_path, laptop=local(engine="anthropic")) as home:
        answer = await home.ask(speech.body(), path=speech.path)
        assert home.engines["laptop"].seen == []
    assert (answer.status, answer.error["code"]) == (400, "unsupported_capability")
