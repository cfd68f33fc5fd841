"""What must stay local stays local, whatever happens."""

from pathlib import Path

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.gateway.test_failover import BROKEN, OVERFLOW, REFUSALS, SECOND, SILENCES, STATUSES, WORDLESS
from tests.http.harness import eventually
from tidegate.engines.fake import Fault, Script

SECRET = {"x_tidegate_residency": "local", "x_tidegate_slo_ttft_ms": "100"}
TROUBLES = BROKEN | STATUSES | WORDLESS | REFUSALS | {"overflow": Script(status=400, error=OVERFLOW)}


async def stays(home: House, *, stream: bool = False, status: int | None = None) -> None:
    answer = await home.ask(chat(stream=stream), **SECRET)
    assert home.engines["cloud"].seen == []
    if status is not None:
        assert answer.status == status
        assert answer.error["message"]


@pytest.mark.lengthy
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_trouble_sends_away_what_must_stay(tmp_path: Path, trouble: str, stream: bool) -> None:
    async with house(tmp_path, laptop=local(TROUBLES[trouble]), cloud=remote()) as home:
        for _ in range(4):  # beyond three, a breaker is open
            await stays(home, stream=stream)
        assert home.engines["laptop"].seen


@pytest.mark.lengthy
async def test_no_silence_sends_away_what_must_stay(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(SILENCES["stall"]), cloud=remote(), **SECOND) as home:
        await stays(home, stream=True, status=504)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_broken_answer_sends_nothing_away(tmp_path: Path, stream: bool) -> None:
    script = Script(fault=Fault.CUT, fault_after=2)
    async with house(tmp_path, laptop=local(script, engine="llamacpp"), cloud=remote()) as home:
        await stays(home, stream=stream)
        assert home.engines["laptop"].seen


async def test_an_engine_that_is_gone_sends_nothing_away(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(), laptop=local()) as home:
        await home.fell("laptop")
        for status in (502, 502, 502, None, 503):  # in the end the breaker is open
            await stays(home, status=status)


async def test_an_engine_that_is_down_sends_nothing_away(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        await stays(home, status=503)


async def test_a_full_engine_sends_nothing_away(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=place, cloud=remote(), policy={"held_max": 0}) as home, home.asking(**SECRET):
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        await stays(home, status=429)


async def test_without_a_local_endpoint_nothing_is_sent(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        answer = await home.ask(**SECRET)
        assert home.engines["cloud"].seen == []
    assert (answer.status, answer.error["code"]) == (400, "must_stay_local")


@pytest.mark.parametrize("place", ["home", "away"])
async def test_a_site_that_is_named_is_the_only_one(tmp_path: Path, place: str) -> None:
    names = {"home": "laptop", "away": "cloud"}
    async with house(tmp_path) as home:
        answer = await home.ask(x_tidegate_residency=place)
        in_body = await home.ask(chat(tidegate={"residency": [place]}))
    assert answer.endpoint == in_body.endpoint == names[place]


async def test_a_request_cannot_widen_what_its_class_allows(tmp_path: Path) -> None:
    classes = {"medical": {"residency": ["local"]}}
    async with house(tmp_path, laptop=local(Script(status=500)), cloud=remote(), classes=classes) as home:
        for residency in ("anywhere", "away", "away,local"):
            answer = await home.ask(x_tidegate_class="medical", x_tidegate_residency=residency)
            assert answer.status >= 400
        assert home.engines["laptop"].seen
        assert home.engines["cloud"].seen == []


async def test_a_refusal_for_length_names_no_window_that_the_request_may_not_use(tmp_path: Path) -> None:
    small, large = local(context_tokens=2048), remote(context_tokens=131_072)
    async with house(tmp_path, laptop=small, cloud=large) as home:
        answer = await home.ask(chat("word " * 3000), x_tidegate_residency="local")
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 2048 where it may be served:" in answer.error["message"]
