"""Two vLLM, of which one fetches the KV cache that the other has computed."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.engines.speakers import recorded
from tests.gateway.fetching import TEXT, Recorded, breaker, facts, pair
from tests.gateway.harness import House, chat, house, local
from tests.http.harness import eventually
from tidegate.core.health import UNFIT
from tidegate.core.model import Decision, Ended, Ending, Held, Overrides, Prefill, Request, Shipped
from tidegate.http.server import Exchange

KEPT = json.loads(recorded("kept", "vllm")["body"])["kv_transfer_params"]
# With that, the one that fetches would tell the other's cached tokens for its own.
TOLD = {name: value for name, value in KEPT.items() if name != "remote_prefill_cached_tokens"}

# How an answer begins.
SAID = (
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"smollm2","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"Once upon"},"finish_reason":null}]}\n\n'
)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_is_computed_at_one_and_fetched_by_the_other(tmp_path: Path, stream: bool) -> None:
    rack, laptop = Recorded(), Recorded()
    async with pair(tmp_path, rack, laptop) as home:
        answer = await home.ask(chat(TEXT, max_tokens=8, min_tokens=2, stream=stream))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert answer.text
        (prompt,), (rest,) = rack.asked, laptop.asked
        assert (prompt["max_tokens"], prompt["stream"]) == (1, False)
        assert prompt["kv_transfer_params"]["do_remote_decode"] is True
        assert not {"min_tokens", "stream_options"} & set(prompt)
        assert (rest["max_tokens"], rest["min_tokens"], rest["stream"]) == (8, 2, stream)
        assert rest["kv_transfer_params"] == TOLD
        assert prompt["messages"] == rest["messages"]
        plan = facts(home, Decision)[0].plan
        assert isinstance(plan[0], Prefill)
        ended = facts(home, Ended)
        assert [(one.endpoint, one.ending) for one in ended] == [("rack", Ending.OK), ("laptop", Ending.OK)]
        assert ended[0].ttft_s is not None, "the first word is the last"
        assert ended[1].cached_tokens == ended[1].prompt_tokens
        assert [one.ok for one in facts(home, Shipped)] == [True]
        assert breaker(home).strikes == 0.0
        written = (tmp_path / "log").read_bytes() + b"".join(f.read_bytes() for f in (tmp_path / "journal").iterdir())
        assert KEPT["remote_engine_id"].encode() not in written


@pytest.mark.parametrize("engine", ["openai", "vllm", "llamacpp"])
async def test_no_client_tells_an_engine_whence_to_fetch(tmp_path: Path, engine: str) -> None:
    theirs = {"do_remote_prefill": True, "remote_host": "10.0.0.1", "remote_port": 1}
    async with house(tmp_path, laptop=local(engine=engine)) as home:
        asked = chat(kv_transfer_params=theirs, vllm_xargs={"kv_transfer_params": theirs, "mine": "a"}, top_k=3)
        assert (await home.ask(asked)).status == 200
        (seen,) = home.engines["laptop"].seen
    assert b"kv_transfer_params" not in seen.body
    assert {"top_k": 3, "vllm_xargs": {"mine": "a"}}.items() <= json.loads(seen.body).items()


async def test_where_nothing_is_told_the_other_finds_it_in_a_store_of_both(tmp_path: Path) -> None:
    rack, laptop = Recorded(kept="shared_kept"), Recorded(plain="shared_found")
    async with pair(tmp_path, rack, laptop) as home:
        assert (await home.ask(chat(TEXT))).endpoint == "laptop"
        assert "kv_transfer_params" not in laptop.asked[0]
        assert facts(home, Ended)[1].cached_tokens > 0
        assert breaker(home).strikes == 0.0


async def test_a_store_in_which_nothing_is_found_is_a_failure_of_the_handover(tmp_path: Path) -> None:
    rack, laptop = Recorded(kept="shared_kept"), Recorded()
    async with pair(tmp_path, rack, laptop) as home:
        # At once: whoever has seen how soon this laptop answers sends it prompts whole.
        answers = await asyncio.gather(*(home.ask(chat(f"{number} {TEXT}")) for number in range(3)))
        assert [one.endpoint for one in answers] == ["laptop"] * 3
        assert breaker(home).openings == 1


@pytest.mark.parametrize("fault", ["unreachable", "misunderstood"])
async def test_who_cannot_fetch_it_computes_the_prompt_itself(tmp_path: Path, fault: str) -> None:
    rack, laptop = Recorded(), Recorded(fetched=fault)
    async with pair(tmp_path, rack, laptop) as home:
        answer = await home.ask(chat(TEXT))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert ["kv_transfer_params" in body for body in laptop.asked] == [True, False]
        assert len(rack.asked) == 1, "nobody is asked again to compute it for another"
        assert breaker(home).strikes == 1.0
        assert [one.ending for one in facts(home, Ended)] == [Ending.OK, Ending.FAILED, Ending.OK]
        if fault == "misunderstood":
            assert facts(home, Ended)[1].cause == UNFIT, "which is no fault of the engine"


@pytest.mark.parametrize("stream", [False, True])
async def test_who_finds_fault_with_a_prompt_alone_has_not_found_it_with_the_request(
    tmp_path: Path, stream: bool
) -> None:
    # vLLM answers so where a tool has to be called, which one token is too few for.
    rack, laptop = Recorded(kept="misunderstood"), Recorded()
    async with pair(tmp_path, rack, laptop) as home:
        answer = await home.ask(chat(TEXT, stream=stream))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert "kv_transfer_params" not in laptop.asked[0]
        assert len(rack.asked) == 1
        assert [one.ending for one in facts(home, Ended)] == [Ending.REFUSED, Ending.OK]
        assert home.gateway.router.endpoint("rack").state.breaker.strikes == 0.0


async def test_what_is_wrong_with_a_request_is_said_of_all_of_it(tmp_path: Path) -> None:
    rack, laptop = Recorded(kept="misunderstood"), Recorded(plain="misunderstood")
    async with pair(tmp_path, rack, laptop) as home:
        assert (await home.ask(chat(TEXT))).status == 400
        assert [one.ending for one in facts(home, Ended)][-1] is Ending.OK, "the engine is well"


async def test_what_the_one_says_that_cannot_be_read_is_no_reason_to_fail(tmp_path: Path) -> None:
    rack, laptop = Recorded(kept=b'{"choices":[{"message":{"content":"O"}}],"kv_transfer_params":[1]}'), Recorded()
    async with pair(tmp_path, rack, laptop) as home:
        answer = await home.ask(chat(TEXT))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert "kv_transfer_params" not in laptop.asked[0]
        assert breaker(home).strikes == 1.0


async def test_where_the_one_is_gone_the_other_computes_the_prompt(tmp_path: Path) -> None:
    rack, laptop = Recorded(kept="unreachable"), Recorded()
    async with pair(tmp_path, rack, laptop) as home:
        answer = await home.ask(chat(TEXT))
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert "kv_transfer_params" not in laptop.asked[0]
        assert breaker(home).strikes == 0.0, "that is not the handover's fault"


SLOW_S = 0.2


class Slow(Recorded):
    """One that takes its time."""

    def __call__(self, exchange: Exchange) -> None:
        asyncio.get_running_loop().call_later(0.0 if exchange.method == "GET" else SLOW_S, super().__call__, exchange)


class Busy(Recorded):
    """One that keeps whoever comes first waiting until it may `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Exchange

    def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "POST" and not self.asked:
            self.asked.append(json.loads(exchange.body))
            self.first = exchange
        else:
            super().__call__(exchange)

    def go_on(self) -> None:
        self._say(self.first, self.plain)


async def test_what_could_not_be_handed_over_waits_for_its_slot_and_is_not_computed_again_and_again(
    tmp_path: Path,
) -> None:
    rack, laptop = Slow(kept=b"{"), Busy()
    async with pair(tmp_path, rack, laptop, places=1) as home:
        short = asyncio.ensure_future(home.ask(chat("Say hi")))
        await eventually(lambda: len(laptop.asked) == 1)
        long = asyncio.ensure_future(home.ask(chat(TEXT)))
        await eventually(lambda: [one.shipped for one in facts(home, Request)][-1] == "rack>")
        await eventually(lambda: bool(facts(home, Held)))
        laptop.go_on()
        assert [one.status for one in await asyncio.gather(short, long)] == [200, 200]
        assert [one.endpoint for one in (await short, await long)] == ["laptop", "laptop"]
        assert len(rack.asked) == 1
        line = next(one for one in home.log() if one["held_s"])
    assert line["held_s"] <= line["e2e_s"] - SLOW_S, "the time in which its prompt was computed is no waiting"


class Breaking(Recorded):
    """One at which operators have a hand: who was to fetch is drained until the answer that this one gives instead has
    broken off."""

    def __init__(self) -> None:
        super().__init__()
        self.home: House

    def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "POST" and self.asked:
            self.asked.append(json.loads(exchange.body))
            exchange.start(200, ((b"content-type", b"text/event-stream"),))
            exchange.write(SAID)
            asyncio.get_running_loop().call_later(0.05, self._break_off, exchange)
            return
        if exchange.method == "POST":
            self.home.gateway.dispatch.override(Overrides(drained=("laptop",)))
        super().__call__(exchange)

    def _break_off(self, exchange: Exchange) -> None:
        self.home.gateway.dispatch.override(Overrides())
        exchange.abort()


async def test_who_is_asked_for_the_rest_of_an_answer_fetches_nothing_that_is_of_its_prompt_alone(
    tmp_path: Path,
) -> None:
    rack, laptop = Breaking(), Recorded()
    async with pair(tmp_path, rack, laptop, policy={"resume": True}) as home:
        rack.home = home
        await home.ask(chat(TEXT, stream=True))
        assert [body.get("kv_transfer_params", {}).get("do_remote_decode") for body in rack.asked] == [True, None]
        (rest,) = laptop.asked
        assert rest["messages"][-1]["role"] == "assistant"
        assert "kv_transfer_params" not in rest


@pytest.mark.parametrize("silent", ["rack", "laptop"])
async def test_a_client_that_leaves_is_worked_for_by_neither(tmp_path: Path, silent: str) -> None:
    rack = Recorded(kept="" if silent == "rack" else "kept")
    laptop = Recorded(fetched="" if silent == "laptop" else "fetched")
    waiting = rack if silent == "rack" else laptop
    async with pair(tmp_path, rack, laptop) as home:
        async with home.asking(chat(TEXT)):
            await eventually(lambda: len(waiting.asked) == 1)
        await home.quiet()
        await eventually(lambda: waiting.left == 1)
        assert len(laptop.asked) == (silent == "laptop")
        assert breaker(home).strikes == 0.0
        assert facts(home, Ended)[-1].ending is Ending.CANCELLED


async def test_a_prompt_that_is_computed_for_another_holds_back_one_token_and_left_keeps_nothing_held(
    tmp_path: Path,
) -> None:
    rack = Recorded(kept="")
    # A thousandth of a dollar for each token of the output, of which there may be thousands.
    async with pair(tmp_path, rack, Recorded(), budget={"usd_per_day": 100}) as home:
        ledger = home.gateway.spending.ledger
        assert ledger is not None
        async with home.asking(chat(TEXT)):
            await eventually(lambda: len(rack.asked) == 1)
            (day,) = ledger.status(home.gateway.clock.now_s()).caps
            assert 0.001 < day.reserved_usd < 0.002
        await home.quiet()
        (day,) = ledger.status(home.gateway.clock.now_s()).caps
        assert 0.0 < day.spent_usd < 0.001
        assert (day.reserved_usd, day.unconfirmed_usd) == (0.0, 0.0)


async def test_no_client_has_an_engine_fetch_anything(tmp_path: Path) -> None:
    rack, laptop = Recorded(), Recorded()
    theirs = KEPT | {"remote_host": "192.0.2.66"}
    async with pair(tmp_path, rack, laptop) as home:
        assert (await home.ask(chat("Say hi", kv_transfer_params=theirs))).status == 200
        assert (await home.ask(chat(TEXT, kv_transfer_params=theirs))).status == 200
    assert "kv_transfer_params" not in laptop.asked[0]
    assert [body["kv_transfer_params"].get("remote_host") for body in rack.asked] == [None]
    assert laptop.asked[1]["kv_transfer_params"] == TOLD
