"""Our own engines are not filled beyond what they do well: the rest waits here, in order of its deadlines."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tests.gateway.test_reload import edit, reload
from tests.http.harness import eventually
from tidegate.core.model import Held, Released
from tidegate.engines.fake import Fault, Script

BRIEF = Script(first_s=0.02, tokens=2)
SLOW = {"decode_tokens_per_s": 20, "overhead_ms": 50}


async def test_a_burst_is_served_in_order_of_its_deadlines_and_never_beyond_the_concurrency(tmp_path: Path) -> None:
    promises_ms = [9000, 5000, 8000, 4000, 7000, 6000]
    async with house(tmp_path, laptop=local(BRIEF, concurrency=1), cloud=remote()) as home:
        engine = home.engines["laptop"]
        engine.script = Script(first_s=0.1, tokens=2)
        first = asyncio.create_task(home.ask(chat(user="first"), x_tidegate_residency="local"))
        await eventually(lambda: engine.in_flight == 1)
        engine.script = BRIEF
        asked = [
            asyncio.create_task(
                home.ask(chat(user=str(ms)), x_tidegate_residency="local", x_tidegate_slo_ttft_ms=str(ms))
            )
            for ms in promises_ms
        ]
        await eventually(lambda: home.gateway.router.held == len(promises_ms))
        answers = await asyncio.gather(first, *asked)
        order = [json.loads(seen.body)["user"] for seen in engine.seen]
        assert engine.peak == 1
        assert home.engines["cloud"].seen == []
        assert sum(isinstance(line.fact, Held) for line in home.journal()) == len(promises_ms)
    assert {(a.status, a.text) for a in answers} == {(200, "w1 w2 ")}
    assert order == ["first", *map(str, sorted(promises_ms))]


async def test_a_burst_that_may_go_anywhere_is_shared_with_those_who_are_in_time(tmp_path: Path) -> None:
    place = local(Script(first_s=0.05), concurrency=2, prior=SLOW | {"sigma": 0.01})
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        answers = await asyncio.gather(*(home.ask(x_tidegate_slo_ttft_ms="400") for _ in range(12)))
        assert 1 <= home.engines["laptop"].peak <= 2
        own, away = (len(home.engines[name].seen) for name in ("laptop", "cloud"))
    assert {a.status for a in answers} == {200}
    assert own + away == 12
    assert min(own, away) > 0


@pytest.mark.virtual
async def test_a_held_request_starts_when_the_slot_is_free_and_says_that_the_wait_was_not_ours(tmp_path: Path) -> None:
    place = local(Script(first_s=0.2), concurrency=1)
    async with house(tmp_path, laptop=place, policy={"recheck_ms": 10_000}) as home:
        one, two = await asyncio.gather(home.ask(), home.ask())
        lines = {line["decision_id"]: line for line in home.log()}
    held_s = [lines[a.header("x-tidegate-decision")]["held_s"] for a in (one, two)]
    assert min(held_s) == 0.0
    assert 0.1 < max(held_s) < 2.0
    assert max(int(a.header("x-tidegate-overhead-us")) for a in (one, two)) < 100_000


async def test_what_was_tried_before_is_no_part_of_the_time_that_a_request_is_held(tmp_path: Path) -> None:
    tried_s = 0.3
    fails = local(Script(first_s=tried_s, fault=Fault.CUT, fault_after=0))
    async with house(tmp_path, laptop=fails, cloud=remote(Script(fault=Fault.SILENT), concurrency=1)) as home:
        cloud = home.engines["cloud"]
        await home.change("PUT", "/api/endpoints/laptop/drain")
        async with home.asking():
            await eventually(lambda: cloud.in_flight == 1)
            cloud.script = BRIEF
            await home.change("DELETE", "/api/endpoints/laptop/drain")
            waits = asyncio.create_task(home.ask())
            await eventually(lambda: home.gateway.router.held == 1)
        assert (await waits).endpoint == "cloud"
        line = next(one for one in home.log() if one["outcome"] == "ok")
    # The last one served it.
    assert 0.0 < line["held_s"] <= line["e2e_s"] - (line["attempts"] - 1) * tried_s


async def test_a_full_hold_queue_refuses_with_a_time_to_come_back(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=place, policy={"held_max": 1}) as home, AsyncExitStack() as clients:
        for _ in range(2):
            await clients.enter_async_context(home.asking())
        await eventually(lambda: home.gateway.router.held == 1)
        answer = await home.ask()
        await clients.aclose()
    assert (answer.status, answer.error["code"]) == (429, "all_endpoints_busy")
    assert int(answer.header("retry-after")) >= 1
    assert answer.header("x-tidegate-why") == "hold_full"


@pytest.mark.lengthy
async def test_a_request_that_was_held_for_too_long_is_refused(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=place, policy={"hold_s_max": 0.2, "recheck_ms": 50}) as home, home.asking():
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (429, "all_endpoints_busy")


@pytest.mark.lengthy
async def test_who_was_held_for_all_the_time_that_he_had_has_not_left(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    settings: dict[str, Any] = {
        "gateway": {"request_timeout_s": 601},
        "policy": {"hold_s_max": 0.99, "recheck_ms": 10_000},
        "classes": {name: {"slo": {"ttft_ms": 900}} for name in ("interactive", "batch")},
    }
    async with house(tmp_path, laptop=place, **settings) as home, home.asking():
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        edit(home, "request_timeout_s = 601", "request_timeout_s = 1")
        await reload(home)
        answer = await home.ask()
        (gone,) = [line.fact for line in home.journal() if isinstance(line.fact, Released)]
    assert (answer.status, answer.error["code"], gone.cause) == (504, "request_timeout", "request_timeout")


async def test_what_is_held_goes_on_when_the_attempt_before_it_fails(tmp_path: Path) -> None:
    async with house(
        tmp_path, laptop=local(Script(first_s=0.1, fault=Fault.CUT, fault_after=0), concurrency=1)
    ) as home:
        engine = home.engines["laptop"]
        first = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: engine.in_flight == 1)
        engine.script = BRIEF
        second = asyncio.create_task(home.ask())
        assert [(await first).status, (await second).status] == [502, 200]
