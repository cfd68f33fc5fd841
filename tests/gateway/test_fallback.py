"""A model that fails: the static rule decides, nobody is lost or held for ever, and operators are told."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.http.harness import eventually
from tidegate.core.model import Decision, DecisionOverran, ModelFailed, replace
from tidegate.core.why import Why
from tidegate.engines.fake import Script

SLOW = Script(tokens=40, token_s=0.01)


async def spoil(home: House, name: str) -> None:
    """Let what is learned of an endpoint be something with which nothing can be predicted."""
    state = home.gateway.router.endpoint(name).state
    await eventually(lambda: state.ttft is not None)
    assert state.ttft is not None
    state.ttft.sums.factors.clear()


def fallbacks(metrics: bytes, cause: str) -> float:
    lines = [line for line in metrics.decode().splitlines() if line.startswith("tidegate_fallbacks_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'cause="{cause}"' in line)


async def test_every_request_is_answered_by_the_static_rule_and_one_line_says_why(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote(), policy={"static_s": 60}) as home:
        await home.ask()
        await spoil(home, "laptop")
        answers = [await home.ask() for _ in range(4)]
        assert {(a.status, a.endpoint, a.header("x-tidegate-why")) for a in answers} == {(200, "laptop", "static_rule")}
        metrics = (await home.get("/metrics", admin=True)).body
        assert fallbacks(metrics, "decide") == 1
        assert fallbacks(metrics, "started") == 4
        shown = (await home.get("/api/state", admin=True)).json
        assert 50 < shown["static_for_s"] <= 60
        assert not shown["static"]
        told = [line.fact for line in home.journal() if isinstance(line.fact, ModelFailed)]
        assert [one.during for one in told[:2]] == ["decide", "started"]
        assert all(one.error.startswith("IndexError") for one in told)
    (event,) = [e for e in home.log("event") if e["event"] == "model failed"]
    assert (event["level"], event["during"], event["static_for_s"]) == ("error", "decide", 60)


async def test_after_a_decision_that_took_too_long_the_static_rule_decides_for_a_while(tmp_path: Path) -> None:
    async with house(tmp_path, policy={"static_s": 60}) as home:
        dispatch = home.gateway.dispatch
        dispatch._policy = replace(dispatch._policy, decide_budget_s=0.0)
        answers = [(await home.ask()).header("x-tidegate-why") for _ in range(3)]
        assert answers[0] != "static_rule"
        assert answers[1:] == ["static_rule"] * 2
        assert fallbacks((await home.get("/metrics", admin=True)).body, "overran") == 3
        assert sum(isinstance(line.fact, DecisionOverran) for line in home.journal()) == 3


async def test_a_step_that_nobody_can_say_is_allowed_is_not_taken(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(first_s=60)), cloud=remote()) as home:
        asking = asyncio.create_task(home.ask(x_tidegate_slo_ttft_ms="50000"))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        # Operators do something, so that the later step has to be allowed again.
        await home.change("PUT", "/api/endpoints/laptop/drain")
        state = home.gateway.router.endpoint("cloud").state
        before_s, state.not_before_s = state.not_before_s, None  # type: ignore[assignment]
        await home.fell("laptop")
        assert (await asking).status == 503
        assert home.engines["cloud"].seen == []
        state.not_before_s = before_s


async def test_data_that_must_stay_local_stays_while_the_model_fails(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote()) as home:
        await home.ask()
        await spoil(home, "laptop")
        home.engines["laptop"].script = Script(status=500)
        answer = await home.ask(x_tidegate_residency="local")
        assert answer.status == 502
        assert home.engines["cloud"].seen == []


@pytest.mark.lengthy
async def test_what_is_held_when_the_model_fails_starts_when_a_slot_is_free(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(concurrency=1), policy={"static_s": 60}) as home:
        await home.ask()
        home.engines["laptop"].script = SLOW
        first = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        rest = [asyncio.create_task(home.ask()) for _ in range(3)]
        await eventually(lambda: home.gateway.router.held == 3)
        await spoil(home, "laptop")
        answers = await asyncio.gather(first, *rest)
        assert [a.status for a in answers] == [200] * 4
        assert home.engines["laptop"].peak == 1
        assert home.gateway.router.held == 0


async def test_where_not_even_the_static_rule_can_decide_it_is_refused_and_may_be_asked_again(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        router = home.gateway.router
        notbefore_s = router.endpoint("laptop").state.not_before_s
        router.endpoint("laptop").state.not_before_s = None  # type: ignore[assignment]
        answer = await home.ask()
        assert (answer.status, answer.header("x-tidegate-why")) == (503, "model_failed")
        assert answer.header("retry-after") == "1"
        assert home.gateway.dispatch.in_flight == 0
        router.endpoint("laptop").state.not_before_s = notbefore_s
        assert (await home.ask()).status == 200
        decided = [line.fact for line in home.journal() if isinstance(line.fact, Decision)]
        assert decided[0].why is Why.MODEL_FAILED


async def test_an_answer_that_cannot_be_compared_is_given_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(SLOW, running_cost={"usd_per_hour": 1.0}), cloud=remote()) as home:
        await home.ask()
        asking = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        await spoil(home, "laptop")
        answer = await asking
        assert (answer.status, answer.events[-1]) == (200, "[DONE]")
        assert home.gateway.dispatch.in_flight == 0
        assert fallbacks((await home.get("/metrics", admin=True)).body, "compare") >= 1
        assert home.log("request")[-1]["outcome"] == "ok"
