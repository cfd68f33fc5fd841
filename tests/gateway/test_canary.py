"""A canary notices that a model is no longer what it was, and nobody notices the canary."""

import asyncio
import json
from math import log
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import KEY, House, Place, chat, house, local, remote
from tests.gateway.test_budget import PRICE, spent
from tests.gateway.test_reload import edit, file, reload
from tests.http.harness import eventually
from tidegate.clock import Clock
from tidegate.config.load import load
from tidegate.core.drift import SPOTS_MAX
from tidegate.core.model import Checked, Probed, Request, Started
from tidegate.engines.fake import Fault, Script
from tidegate.gateway import greedy
from tidegate.gateway.canary import CONFIRM_S, RECHECK_S, Canary, Skip
from tidegate.gateway.errand import Fault as NoAnswer
from tidegate.gateway.greedy import PROMPTS

EVERY_S = 6 * 3600.0
AS_IT_WAS, OTHER = Script(certainty=0.9), Script(certainty=0.4)
FAR = pytest.approx((log(0.9 / 0.4) + log(0.6 / 0.1)) / 2)


class Later(Clock):
    """A clock that a test sets forward."""

    __slots__ = ("ahead_s",)

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s


def canary(home: House, name: str = "laptop") -> Canary:
    return home.gateway.fleet.canaries()[name]


async def turn(home: House, later_s: float = 0.0, name: str = "laptop") -> Canary:
    """A turn so much later."""
    clock = home.gateway.clock
    assert isinstance(clock, Later)
    clock.ahead_s += later_s
    await canary(home, name).turn()
    return canary(home, name)


def drifted(home: House, name: str = "laptop") -> bool:
    return home.gateway.router.endpoint(name).state.drifted


def sent(home: House, name: str = "laptop") -> int:
    return len(home.engines[name].seen)


def two(**settings: Any) -> dict[str, Any]:
    """Two engines of our own that are called identical; a vendor's price keeps the second one second."""
    return {"clock": Later(), "laptop": local(AS_IT_WAS, **settings), "cloud": remote(AS_IT_WAS)}


async def drift(home: House) -> None:
    """The laptop becomes another, and its canary notices."""
    await turn(home)
    home.engines["laptop"].script = OTHER
    await turn(home, EVERY_S)
    await turn(home, CONFIRM_S)
    assert drifted(home)


# --- what it notices --------------------------------------------------------------------------------------------------


async def test_a_model_that_became_another_serves_nobody_who_asks_for_the_identical_one(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        assert (await home.ask()).endpoint == "laptop"
        await drift(home)
        answer = await home.ask()
        assert (answer.endpoint, answer.header("x-tidegate-why")) == ("cloud", "only_alike")
        answer = await home.ask(x_tidegate_likeness="same_family")
        assert (answer.endpoint, answer.header("x-tidegate-likeness")) == ("laptop", "same_family")


async def test_one_reading_that_is_near_again_ends_it(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await drift(home)
        home.engines["laptop"].script = AS_IT_WAS
        await turn(home, RECHECK_S)
        assert not drifted(home)
        answer = await home.ask()
        assert (answer.endpoint, answer.header("x-tidegate-likeness")) == ("laptop", "identical")


async def test_drift_lasts_while_readings_are_far(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await drift(home)
        await turn(home, RECHECK_S)
        assert drifted(home)


async def test_one_reading_that_is_far_is_no_drift(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        home.engines["laptop"].script = OTHER
        await turn(home, EVERY_S)
        assert canary(home).status.distance == FAR
        home.engines["laptop"].script = AS_IT_WAS
        await turn(home, CONFIRM_S)
        home.engines["laptop"].script = OTHER
        await turn(home, EVERY_S)
        assert not drifted(home)


async def test_it_asks_when_it_is_due_and_not_before(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        assert sent(home) == len(PROMPTS)
        await turn(home, EVERY_S - 60.0)
        assert sent(home) == len(PROMPTS)
        await turn(home, 60.0)
        assert sent(home) == 2 * len(PROMPTS)


async def test_an_engine_that_was_down_is_read_as_soon_as_it_is_back(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        engine = home.engines["laptop"]
        engine.up = False
        await probe(home, up=False)
        assert (await turn(home, 60.0)).status.skipped is Skip.DOWN
        await probe(home, up=True)
        await turn(home)
        assert sent(home) == 2 * len(PROMPTS)


async def test_an_engine_that_came_back_between_two_looks_is_read_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        await probe(home, up=False)
        await probe(home, up=True)
        await turn(home)
        assert sent(home) == 2 * len(PROMPTS)
        await probe(home, up=True)
        await turn(home)
        assert sent(home) == 2 * len(PROMPTS)


@pytest.mark.parametrize("looks", [False, True])
async def test_an_engine_that_may_have_died_of_a_reading_is_not_read_at_once(tmp_path: Path, looks: bool) -> None:
    async with house(tmp_path, clock=Later(), laptop=local(Script(fault=Fault.CUT))) as home:
        assert (await turn(home)).status.skipped is NoAnswer.BROKEN
        before = sent(home)
        await probe(home, up=False)
        if looks:
            await turn(home, 60.0)
        await probe(home, up=True)
        await turn(home, 60.0)
        assert sent(home) == before
        await turn(home, RECHECK_S)
        assert sent(home) > before


async def probe(home: House, *, up: bool) -> None:
    """What a probe would tell."""
    home.gateway.dispatch.probed(Probed(endpoint="laptop", up=up))


# --- what is shown ----------------------------------------------------------------------------------------------------


async def test_drift_and_its_end_are_logged_with_the_distance_and_nothing_that_was_said(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await drift(home)
        home.engines["laptop"].script = AS_IT_WAS
        await turn(home, RECHECK_S)
        lines = [line for line in home.log("event") if line.get("endpoint") == "laptop"]
        assert [(line["level"], line["event"]) for line in lines] == [
            ("warning", "model drifted"),
            ("info", "model is as it was"),
        ]
        assert lines[0]["distance_nats"] > 0.5
        assert lines[1]["distance_nats"] == 0.0
        text = (tmp_path / "log").read_text()
        assert "w1" not in text
        assert PROMPTS[0] not in text


async def test_the_state_and_the_metrics_show_readings_and_drift(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await drift(home)
        told = (await home.get("/api/state", admin=True)).json["endpoints"]
        assert told["laptop"]["drifted"] is True
        assert told["laptop"]["canary"]["distance"] > 0.5
        assert told["laptop"]["canary"]["read_at_s"] == pytest.approx(home.gateway.clock.now_s(), abs=30)
        assert told["laptop"]["canary"]["skipped"] is None
        assert told["cloud"]["drifted"] is False
        assert told["cloud"]["canary"] == {"read_at_s": None, "distance": None, "skipped": "off"}
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_drifted{endpoint="laptop"} 1.0' in metrics
        assert 'tidegate_drifted{endpoint="cloud"} 0.0' in metrics
        assert 'tidegate_canary_readings_total{endpoint="laptop",outcome="far"} 2.0' in metrics
        assert 'tidegate_canary_distance_nats{endpoint="laptop"}' in metrics
        members = (await home.get("/v1/models")).json["data"][0]["tidegate"]["endpoints"]
        assert {m["name"]: m["likeness"] for m in members} == {"laptop": "same_family", "cloud": "identical"}


async def test_the_metric_of_the_distance_is_that_of_the_last_reading_and_none_where_there_is_none(
    tmp_path: Path,
) -> None:
    async def nats(home: House) -> list[float]:
        lines = (await home.get("/metrics", admin=True)).body.decode().splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("tidegate_canary_distance_nats{")]

    async with house(tmp_path, **two()) as home:
        await drift(home)
        assert await nats(home) == [FAR]
        await reload(home)
        assert await nats(home) == []
        await turn(home)
        assert await nats(home) == []
        await turn(home, EVERY_S)
        assert await nats(home) == [0.0]
        edit(home, "[endpoint.laptop]\n", "[endpoint.laptop]\ncanary_s = 0\n")
        await reload(home)
        assert await nats(home) == []


async def test_a_model_that_a_reload_has_vouched_for_is_not_compared_with_the_one_before(tmp_path: Path) -> None:
    laptop = local(AS_IT_WAS, engine="llamacpp")
    laptop.weights = "/models/a.gguf"
    async with house(tmp_path, clock=Later(), laptop=laptop) as home:
        await turn(home)
        home.engines["laptop"].weights, home.engines["laptop"].script = "/models/b.gguf", OTHER
        await reload(home)
        await home.gateway.fleet._members["laptop"].prober.once()
        assert (await turn(home, EVERY_S)).status.distance is None
        assert (await turn(home, EVERY_S)).status.distance == 0.0
        home.engines["laptop"].script = AS_IT_WAS
        assert (await turn(home, EVERY_S)).status.distance == FAR


async def test_a_reading_is_no_request_and_teaches_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        before = home.gateway.router.snapshot()
        await turn(home)
        assert sent(home) == len(PROMPTS)
        assert bytes(home.gateway.router.snapshot()) == bytes(before)
        assert home.log() == []
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert "tidegate_requests_total{" not in metrics
        assert "tidegate_attempts_total{" not in metrics
    facts = [line.fact for line in home.journal()]
    assert not any(isinstance(fact, Request | Started) for fact in facts)
    assert [f for f in facts if isinstance(f, Checked)] == [Checked(endpoint="laptop", drifted=False)]


async def test_it_asks_for_little_greedily_and_the_same_each_time(tmp_path: Path) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        await turn(home, EVERY_S)
        bodies = [json.loads(seen.body) for seen in home.engines["laptop"].seen]
        assert bodies[: len(PROMPTS)] == bodies[len(PROMPTS) :]
        assert {body["max_tokens"] for body in bodies} == {SPOTS_MAX}
        assert {body["temperature"] for body in bodies} == {0}
        assert {body["model"] for body in bodies} == {"own"}


# --- whom it lets pass ------------------------------------------------------------------------------------------------


async def test_it_does_not_ask_while_a_client_is_served(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), laptop=local(Script(fault=Fault.STALL))) as home:
        async with home.asking(chat(stream=True)):
            await eventually(lambda: sent(home) == 1)
            assert (await turn(home)).status.skipped is Skip.BUSY
            assert sent(home) == 1
        await home.quiet()
        home.engines["laptop"].script = AS_IT_WAS
        assert (await turn(home)).status.skipped is None
        assert sent(home) == 1 + len(PROMPTS)


async def test_a_client_who_comes_meanwhile_has_the_only_slot_at_once(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, clock=Later(), laptop=place) as home:
        engine = home.engines["laptop"]
        reading = asyncio.create_task(turn(home))
        await eventually(lambda: engine.in_flight == 1)
        engine.script = AS_IT_WAS
        answer = await home.ask()
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert (await reading).status.skipped is Skip.GAVE_WAY
        await eventually(lambda: engine.left == 1)
        assert (await turn(home)).status.skipped is None


async def test_it_waits_while_anybody_is_held_who_may_be_sent_there_next(tmp_path: Path) -> None:
    laptop, desk = local(Script(fault=Fault.STALL), concurrency=1), local(AS_IT_WAS, serves=["other"])
    async with house(tmp_path, clock=Later(), laptop=laptop, desk=desk) as home:
        async with home.asking(chat(stream=True)), home.asking(chat(stream=True)):
            await eventually(lambda: home.gateway.router.held == 1)
            assert (await turn(home, name="desk")).status.skipped is Skip.BUSY
        await home.quiet()
        assert (await turn(home, name="desk")).status.skipped is None


@pytest.mark.parametrize(("places", "skipped"), [(2, Skip.BUSY), (3, None)])
async def test_it_leaves_the_last_place_at_a_vendor_s_to_clients(
    tmp_path: Path, places: int, skipped: Skip | None
) -> None:
    able: dict[str, Any] = {"capabilities": ["chat", "logprobs"], "shares_compute": False}
    place = remote(Script(fault=Fault.STALL), price="free", concurrency=places, **able)
    async with house(tmp_path, clock=Later(), cloud=place) as home, home.asking(chat(stream=True)):
        await eventually(lambda: sent(home, "cloud") == 1)
        home.engines["cloud"].script = AS_IT_WAS
        assert (await turn(home, name="cloud")).status.skipped is skipped


# --- what it costs ----------------------------------------------------------------------------------------------------


def vendor(script: Script = AS_IT_WAS, **settings: Any) -> Place:
    able = {"capabilities": ["chat", "logprobs"], "canary_s": EVERY_S}
    return remote(script, **{"price": PRICE, **able, **settings})


async def test_what_costs_money_is_asked_only_where_that_is_written(tmp_path: Path) -> None:
    place = remote(AS_IT_WAS, capabilities=["chat", "logprobs"])
    async with house(tmp_path, clock=Later(), cloud=place) as home:
        assert (await turn(home, EVERY_S, "cloud")).status.skipped is Skip.OFF
        assert sent(home, "cloud") == 0


async def test_a_paid_reading_that_gave_way_is_not_begun_again_at_once(tmp_path: Path) -> None:
    place = vendor(Script(fault=Fault.SILENT), concurrency=2, shares_compute=False)
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 100}, cloud=place) as home:
        engine = home.engines["cloud"]
        reading = asyncio.create_task(turn(home, name="cloud"))
        await eventually(lambda: engine.in_flight == 1)
        engine.script = AS_IT_WAS
        assert (await home.ask(chat(max_tokens=5))).status == 200
        assert (await reading).status.skipped is Skip.GAVE_WAY
        before = len(engine.seen)
        await turn(home, CONFIRM_S, "cloud")
        assert len(engine.seen) == before
        await turn(home, RECHECK_S, "cloud")
        assert len(engine.seen) > before


async def test_a_new_price_makes_no_other_model_of_one_that_drifted(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 100}, cloud=vendor()) as home:
        await turn(home, name="cloud")
        home.engines["cloud"].script = OTHER
        await turn(home, EVERY_S, "cloud")
        await turn(home, CONFIRM_S, "cloud")
        assert drifted(home, "cloud")
        edit(home, '"usd_per_1m_output_tokens" = 4000', '"usd_per_1m_output_tokens" = 4001')
        config = load(file(home), {"VENDOR_KEY": KEY})
        await home.gateway.put_in_force(config, by_hand=False)
        await turn(home, RECHECK_S, "cloud")
        assert drifted(home, "cloud")


async def test_a_canary_of_another_model_begins_anew(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), laptop=local(AS_IT_WAS, model="", serves=["m", "other"])) as home:
        await turn(home)
        assert canary(home)._reference is not None
        edit(home, 'serves = ["m", "other"]', 'serves = ["other", "m"]')
        await home.gateway.put_in_force(load(file(home), {"VENDOR_KEY": KEY}), by_hand=False)
        assert canary(home)._reference is None


async def test_a_paid_reading_is_in_the_ledger_to_the_token(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 100}, cloud=vendor()) as home:
        assert (await turn(home, name="cloud")).status.skipped is None
        tokens = sum(len(seen.body) // 4 for seen in home.engines["cloud"].seen)
        usd, held = spent(home)
        assert usd == pytest.approx((tokens * 1000 + len(PROMPTS) * 4 * 4000) / 1e6)
        assert held == 0.0
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_cost_usd_total{endpoint="cloud"' in metrics


async def test_beyond_the_budget_nothing_is_asked(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 0.01}, cloud=vendor()) as home:
        assert (await turn(home, name="cloud")).status.skipped is NoAnswer.OVER_BUDGET
        assert sent(home, "cloud") == 0
        assert spent(home) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("script", "billed"),
    [
        (Script(status=500), False),
        (Script(certainty=0.9, fault=Fault.CUT), True),
        (Script(certainty=0.9, usage=False), True),
    ],
)
async def test_where_the_bill_is_not_known_the_most_it_can_be_is_counted(
    tmp_path: Path, script: Script, billed: bool
) -> None:
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 100}, cloud=vendor(script)) as home:
        await turn(home, name="cloud")
        usd, held = spent(home)
        assert (usd > SPOTS_MAX * 4e-3) is billed
        assert held == 0.0


# --- what goes wrong --------------------------------------------------------------------------------------------------


LOGPROBS = b'{"choices":[{"message":{"content":"x"},"logprobs":{"content":[%b]}}]}'


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (Script(status=500), NoAnswer.REFUSED),
        (Script(status=400), NoAnswer.REFUSED),
        (Script(), NoAnswer.NO_LOGPROBS),
        (Script(certainty=0.9, tokens=0), NoAnswer.NO_LOGPROBS),
        (Script(fault=Fault.HTML), NoAnswer.BROKEN),
        (Script(fault=Fault.CUT), NoAnswer.BROKEN),
        (Script(fault=Fault.MALFORMED), NoAnswer.BROKEN),
        (Script(fault=Fault.ERROR_EVENT), NoAnswer.BROKEN),
        (Script(answer=b"x" * 2_000_000), NoAnswer.BROKEN),
        (Script(answer=LOGPROBS % b'{"token":"a","logprob":NaN}'), NoAnswer.BROKEN),
        (Script(answer=LOGPROBS % b'{"token":"a","logprob":7}'), NoAnswer.BROKEN),
        (Script(answer=LOGPROBS % b'{"token":"a","logprob":-0.1,"top_logprobs":{}}'), NoAnswer.BROKEN),
    ],
)
async def test_an_answer_that_cannot_be_compared_changes_nothing(
    tmp_path: Path, script: Script, fault: NoAnswer
) -> None:
    async with house(tmp_path, **two()) as home:
        await turn(home)
        home.engines["laptop"].script = script
        assert (await turn(home, EVERY_S)).status.skipped is fault
        assert (await turn(home, RECHECK_S)).status.skipped is fault
        assert not drifted(home)
        home.engines["laptop"].script = OTHER
        await turn(home, RECHECK_S)
        await turn(home, CONFIRM_S)
        assert drifted(home)
        home.engines["laptop"].script = script
        await turn(home, EVERY_S)
        assert drifted(home)


async def test_answers_in_which_nothing_is_likely_are_not_compared(tmp_path: Path) -> None:
    flat = Script(answer=LOGPROBS % b'{"token":"a","logprob":-9}')
    async with house(tmp_path, clock=Later(), laptop=local(flat)) as home:
        await turn(home)
        assert (await turn(home, EVERY_S)).status.skipped is NoAnswer.NO_LOGPROBS


async def test_an_engine_that_says_nothing_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "ANSWER_S_MAX", 0.05)
    async with house(tmp_path, clock=Later(), laptop=local(Script(fault=Fault.SILENT))) as home:
        assert (await turn(home)).status.skipped is NoAnswer.BROKEN
        await eventually(lambda: home.engines["laptop"].left == 1)


async def test_a_gateway_that_stops_does_not_wait_for_a_reading_and_owes_nothing(tmp_path: Path) -> None:
    place = vendor(Script(fault=Fault.SILENT))
    async with house(tmp_path, clock=Later(), budget={"usd_per_day": 100}, cloud=place) as home:
        reading = asyncio.create_task(turn(home, name="cloud"))
        await eventually(lambda: home.engines["cloud"].in_flight == 1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        usd, held = spent(home)
        assert usd > 0.0  # it may have been billed
        assert held == 0.0
        assert home.gateway.dispatch.guests == {}


async def test_a_dialect_without_log_probabilities_is_left_alone_with_its_reason(tmp_path: Path) -> None:
    usual = local(engine="anthropic")
    sure = local(engine="anthropic", canary_s=EVERY_S)
    wrong = local(engine="anthropic", canary_s=EVERY_S, capabilities=["chat", "logprobs"])
    async with house(tmp_path, clock=Later(), usual=usual, sure=sure, wrong=wrong) as home:
        assert (await turn(home, name="usual")).status.skipped is Skip.OFF
        assert (await turn(home, name="sure")).status.skipped is Skip.LACKS_CAPABILITY
        assert (await turn(home, name="wrong")).status.skipped is NoAnswer.UNCARRIED
        assert sum(sent(home, name) for name in home.engines) == 0


async def test_llama_cpp_which_is_always_streamed_is_read_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path, clock=Later(), laptop=local(AS_IT_WAS, engine="llamacpp")) as home:
        assert (await turn(home)).status.skipped is None
        home.engines["laptop"].script = OTHER
        assert (await turn(home, EVERY_S)).status.distance == FAR
