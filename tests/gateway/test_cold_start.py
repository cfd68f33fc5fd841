"""Models that are not loaded: probes wake none, what engines tell of them counts, operators see it, and who is missed
is loaded for nobody in particular."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import neighbours
from tests.gateway.harness import House, chat, house, local, remote
from tests.gateway.neighbours import neighbour
from tests.http.harness import eventually, upstream
from tests.lab.engines import real_engine
from tidegate.core.model import Line, Probed, Warmed, Warming
from tidegate.engines.fake import FakeEngine, Script
from tidegate.gateway.canary import Canary, Skip
from tidegate.gateway.probe import Prober


def prober(home: House, name: str, every_s: float = 3600.0, **settings: Any) -> Prober:
    gateway = home.gateway
    return Prober(gateway.dispatch, gateway.dispatch.upstreams[name], every_s, **settings)


async def seen(home: House, name: str) -> Probed:
    """What a probe sees now."""
    return await prober(home, name).look()


async def test_a_llama_cpp_that_sleeps_is_asked_nothing_that_could_wake_it(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="llamacpp")) as home:
        engine: FakeEngine = home.engines["one"]
        engine.asked.clear()
        awake = await seen(home, "one")
        assert (awake.up, awake.resident, awake.running) == (True, True, 0)
        assert engine.asked == ["/health", "/props", "/metrics", "/v1/models"]
        engine.asked.clear()
        engine.resident = False
        asleep = await seen(home, "one")
        assert (asleep.up, asleep.resident, asleep.running) == (True, False, None)
        assert engine.asked == ["/health", "/props"]


async def test_of_a_llama_cpp_of_several_models_the_window_of_one_is_known_while_it_is_loaded(tmp_path: Path) -> None:
    async with neighbour(neighbours.LLAMACPP_OF_SEVERAL) as there:
        place: dict[str, Any] = {"url": str(there.url), "engine": "llamacpp", "probe_s": 3600}
        async with house(tmp_path, one=local(**place, model="qwen3-8b"), two=local(**place, model="smol")) as home:
            one, two = await seen(home, "one"), await seen(home, "two")
    assert (one.context_tokens, one.resident) == (32768, True)
    assert (two.context_tokens, two.resident) == (None, False)


async def test_an_older_sglang_is_asked_by_its_former_path_and_a_newer_one_is_not(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(neighbour(neighbours.SGLANG))
        place = local(url=str(there.url), engine="sglang", model="qwen", probe_s=3600)
        home = await stack.enter_async_context(house(tmp_path, one=place))
        assert (await seen(home, "one")).kv_tokens_max == 20000
        assert ("GET", "/get_server_info") not in there.asked
        there.pages["/get_server_info"] = there.pages.pop("/server_info")
        assert (await seen(home, "one")).kv_tokens_max == 20000


@pytest.mark.engine
@pytest.mark.slow
async def test_probes_neither_wake_a_real_llama_cpp_nor_keep_it_awake(tmp_path: Path) -> None:
    async with real_engine(sleep_after_s=1) as engine:
        place = local(url=engine.url, engine="llamacpp", model="smollm2", probe_s=3600)
        async with house(tmp_path, one=place) as home:
            probe = prober(home, "one")
            # More often than it would have to be left alone for.
            while (await probe.look()).resident:  # noqa: ASYNC110 - it tells nobody when it falls asleep
                await asyncio.sleep(0.2)
            assert [(await probe.look()).resident for _ in range(10)] == [False] * 10
            await probe.once()
            assert home.gateway.dispatch.router.endpoint("one").cold.at(home.gateway.clock.now_s(), 0).share > 0.9
            assert (await home.ask(chat(max_tokens=4))).status == 200
            assert (await probe.look()).resident is True


async def test_an_ollama_tells_whether_its_model_is_loaded(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="ollama", model="fake")) as home:
        assert (await seen(home, "one")).resident is True
        home.engines["one"].resident = False
        assert (await seen(home, "one")).resident is False


@pytest.mark.parametrize("kind", ["fake", "openai", "vllm", "sglang"])
async def test_others_tell_nothing_of_it(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, one=local(engine=kind, model="fake", context_tokens=8192)) as home:
        assert (await seen(home, "one")).resident is None


async def test_an_engine_that_tells_why_it_cannot_serve_is_believed_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="llamacpp")) as home:
        probe = prober(home, "one")
        assert (await probe.look()).up
        home.engines["one"].up = False
        assert (await probe.look()).up, "one lost probe is bad luck"
        home.engines["one"].up = True
        assert (await probe.look()).up
        home.engines["one"].loading = True
        told = await probe.look()
        assert (told.up, told.loading, told.resident) == (False, True, False)


async def test_a_promise_that_a_load_would_break_is_kept_elsewhere_and_explained(tmp_path: Path) -> None:
    prior = {"load_s": 600, "overhead_ms": 1, "prefill_tokens_per_s": 1e6, "sigma": 0.1}
    async with house(tmp_path, one=local(engine="llamacpp", prior=prior, warm_up=False), two=remote()) as home:
        assert (await home.ask(chat())).endpoint == "one"
        home.engines["one"].resident = False
        await prober(home, "one").once()
        answer = await home.ask(chat())
        assert answer.endpoint == "two"
        state = (await home.get("/api/state", admin=True)).json["endpoints"]
        assert state["one"]["cold_start"]["share"] > 0.9
        assert state["one"]["cold_start"]["load_s"] == pytest.approx(600.0)
        assert state["two"]["cold_start"]["share"] == 0.0


async def test_what_scales_to_zero_is_probed_while_it_is_in_use_only(tmp_path: Path) -> None:
    async with house(tmp_path, zero=local(Script(first_s=0.5)), other=remote()) as home:
        zero, other = home.engines["zero"], home.engines["other"]
        probe = prober(home, "zero", 0.001, wakes=True)
        await probe.once()
        zero.asked.clear()
        other.asked.clear()
        runs = [probe.run(), prober(home, "other", 0.001).run()]
        tasks = [asyncio.create_task(run) for run in runs]
        await eventually(lambda: len(other.asked) > 5)
        assert zero.asked == []
        asking = asyncio.create_task(home.ask(chat()))
        await eventually(lambda: zero.asked != [])
        await asking
        for task in tasks:
            task.cancel()


async def test_what_scales_to_zero_and_was_asleep_at_first_is_looked_for_until_it_answers(tmp_path: Path) -> None:
    async with house(tmp_path, zero=local(), other=remote()) as home:
        home.engines["zero"].up = False
        probe = prober(home, "zero", 0.001, wakes=True)
        assert not (await probe.introduce()).up
        task = asyncio.create_task(probe.run())
        home.engines["zero"].asked.clear()
        await eventually(lambda: len(home.engines["zero"].asked) > 2)
        home.engines["zero"].up = True
        await eventually(lambda: home.gateway.router.endpoint("zero").state.up)
        task.cancel()


@pytest.mark.virtual
@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n"]
)
async def test_a_list_of_models_that_is_too_long_or_too_slow_is_no_outage(tmp_path: Path, head: str) -> None:
    async def lists(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(head.encode() + b"[" * (2_000_000 if "9000000" in head else 1))

    async with upstream(lists) as vendor:
        place = remote(url=f"http://127.0.0.1:{vendor.port}", engine="openai", probe_s=3600)
        async with house(tmp_path, one=local(), two=place) as home:
            assert home.gateway.router.endpoint("two").state.up
            assert (await seen(home, "two")).up


async def test_a_canary_does_not_load_a_model(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="llamacpp", canary_s=60)) as home:
        gateway, engine = home.gateway, home.engines["one"]
        engine.resident = False
        await prober(home, "one").once()
        canary = Canary(gateway.dispatch, gateway.dispatch.upstreams["one"], 60.0)
        await canary.turn()
        assert (canary.status.skipped, engine.seen) == (Skip.UNLOADED, [])
        engine.resident = True
        await prober(home, "one").once()
        await canary.turn()
        assert canary.status.skipped is not Skip.UNLOADED
        assert engine.seen


LONG = {"load_s": 600, "overhead_ms": 1, "prefill_tokens_per_s": 1e6, "sigma": 0.1}


async def away(home: House, name: str = "one") -> None:
    """Its engine says that its model is not loaded."""
    home.engines[name].resident = False
    await prober(home, name).once()


def loads(journal: list[Line]) -> list[bool | None]:
    """Each load for nobody, begun (None) and over (whether it served)."""
    facts = [line.fact for line in journal]
    return [None if isinstance(f, Warming) else f.served for f in facts if isinstance(f, Warming | Warmed)]


async def test_a_model_that_is_missed_is_loaded_and_then_serves(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="llamacpp", prior=LONG), two=remote()) as home:
        engine = home.engines["one"]
        engine.script = Script(first_s=0.2, tokens=1)
        await away(home)
        assert engine.seen == []
        assert (await home.ask()).endpoint == "two"
        await eventually(lambda: len(engine.seen) == 1)
        assert (await home.ask()).endpoint == "two"
        state = (await home.get("/api/state", admin=True)).json["endpoints"]["one"]["warm_up"]
        assert state["under_way"] is True
        await eventually(lambda: engine.in_flight == 0)
        await eventually(lambda: loads(home.journal()) == [None, True])
        assert (await home.ask()).endpoint == "one"
        (asked,) = [seen for seen in engine.seen if b"Hello" in seen.body]
        assert b'"max_tokens":1' in asked.body
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_warm_ups_total{endpoint="one",outcome="served"} 1' in metrics


async def test_a_client_who_leaves_does_not_end_the_load(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(Script(first_s=0.5, tokens=1), engine="llamacpp", prior=LONG)) as home:
        engine = home.engines["one"]
        await away(home)
        async with home.asking():
            await eventually(lambda: engine.in_flight == 2)
        await eventually(lambda: engine.left == 1)
        assert engine.in_flight == 1
        await eventually(lambda: loads(home.journal()) == [None, True])
        assert engine.left == 1


async def test_what_cannot_be_loaded_is_not_tried_again_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(Script(status=500), engine="llamacpp", prior=LONG), two=remote()) as home:
        await away(home)
        for _ in range(5):
            assert (await home.ask()).endpoint == "two"
        await eventually(lambda: loads(home.journal()) == [None, False])
        assert len(home.engines["one"].seen) == 1
        (told,) = [line for line in home.log("event") if line["event"] == "model not loaded"]
        assert (told["endpoint"], told["reason"]) == ("one", "refused")
        state = (await home.get("/api/state", admin=True)).json["endpoints"]["one"]["warm_up"]
        assert 0.0 < state["not_for_s"] <= 10.0


@pytest.mark.parametrize("place", [local(engine="llamacpp", prior=LONG, warm_up=False), remote(prior=LONG)])
async def test_nothing_is_loaded_where_operators_have_not_said_so(tmp_path: Path, place: Any) -> None:
    if place.settings["site"] == "away":
        place.settings["engine"] = "llamacpp"
    async with house(tmp_path, one=place, two=remote()) as home:
        await away(home)
        for _ in range(3):
            await home.ask()
        assert loads(home.journal()) == []


async def test_a_vendor_is_warmed_up_within_budgets_where_operators_say_so(tmp_path: Path) -> None:
    cheap = {"usd_per_1m_input_tokens": 0.1, "usd_per_1m_output_tokens": 0.4}
    one = remote(Script(first_s=0.1, tokens=1), engine="llamacpp", prior=LONG, price=cheap, warm_up=True)
    async with house(tmp_path, one=one, two=remote(), budget={"usd_per_day": 1.0}) as home:
        await away(home)
        assert (await home.ask()).endpoint == "two"
        await eventually(lambda: loads(home.journal()) == [None, True])
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        spent = [line for line in metrics.splitlines() if line.startswith('tidegate_cost_usd_total{endpoint="one"')]
        assert float(spent[0].split()[-1]) > 0.0


async def test_a_load_that_is_under_way_ends_with_the_gateway_and_in_its_journal(tmp_path: Path) -> None:
    place = local(Script(first_s=60.0, tokens=1), engine="llamacpp", prior=LONG)
    async with house(tmp_path, one=place, two=remote()) as home:
        await away(home)
        assert (await home.ask()).endpoint == "two"
        await eventually(lambda: home.engines["one"].in_flight == 1)
    assert loads(home.journal()) == [None, False]


async def test_a_load_goes_on_when_other_settings_change_and_ends_with_its_own(tmp_path: Path) -> None:
    place = local(Script(first_s=60.0, tokens=1), engine="llamacpp", prior=LONG)
    async with house(tmp_path, one=place, two=remote()) as home:
        await away(home)
        assert (await home.ask()).endpoint == "two"
        await eventually(lambda: home.engines["one"].in_flight == 1)
        file = tmp_path / "tidegate.toml"
        text = file.read_text()
        file.write_text(text.replace("decide_budget_ms = 1000", "decide_budget_ms = 900"))
        assert (await home.change("POST", "/api/config")).status == 200
        assert loads(home.journal()) == [None]
        file.write_text(text.replace("connect_timeout_s", "").replace('model = "own"', 'model = "mine"'))
        assert (await home.change("POST", "/api/config")).status == 200
        # It was nobody's fault, and the engine that is there now may load at once.
        assert loads(home.journal()) == [None, False]
        warm_up = home.gateway.dispatch.router.endpoint("one").cold.state.warm_up
        assert (warm_up.sent, warm_up.failed, warm_up.not_before_s) == (None, 0, 0.0)
        assert [line for line in home.log("event") if line["event"] == "model not loaded"] == []


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("before", "after"), [("probe_s = 3600", "probe_s = 3599"), ("concurrency = 4", "concurrency = 5")]
)
async def test_a_load_goes_on_when_its_endpoint_has_other_settings_and_the_same_model(
    tmp_path: Path, before: str, after: str
) -> None:
    place = local(Script(first_s=0.5, tokens=1), engine="llamacpp", prior=LONG)
    async with house(tmp_path, one=place, two=remote()) as home:
        await away(home)
        assert (await home.ask()).endpoint == "two"
        await eventually(lambda: home.engines["one"].in_flight == 1)
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace(before, after))
        assert (await home.change("POST", "/api/config")).status == 200
        assert loads(home.journal()) == [None]
        await eventually(lambda: loads(home.journal()) == [None, True])
        assert len(home.engines["one"].seen) == 1
        assert home.engines["one"].left == 0
        assert home.gateway.dispatch.router.endpoint("one").cold.state.warm_up.loading is None


@pytest.mark.virtual
@pytest.mark.parametrize("engine", ["openai", "llamacpp"], ids=["probes_rest", "probes_are_rare"])
async def test_what_is_to_stay_loaded_is_used_before_it_would_go_while_nobody_asks(tmp_path: Path, engine: str) -> None:
    prior = {"unload_after_s": 60.0, "load_s": 5, "overhead_ms": 1}
    place = local(Script(first_s=0.01, tokens=1), engine=engine, prior=prior, probe_s=3600, warm_up=True)
    place.settings["keep_loaded_usd_per_hour"] = 0
    async with house(tmp_path, one=place) as home:
        assert (await home.ask(chat())).endpoint == "one"
        begun_s = home.gateway.clock.now_s()
        await asyncio.sleep(200.0)  # of a time that is virtual
        assert loads(home.journal()) == [None, True] * 4
        warming_s = [line.at_s - begun_s for line in home.journal() if isinstance(line.fact, Warming)]
        assert all(48.0 <= one - before < 50.0 for before, one in pairwise([0.0, *warming_s]))


@pytest.mark.engine
@pytest.mark.slow
async def test_a_real_llama_cpp_that_sleeps_is_woken_by_being_missed(tmp_path: Path) -> None:
    async with real_engine(sleep_after_s=1) as engine:
        place = local(url=engine.url, engine="llamacpp", model="smollm2", prior=LONG)
        async with house(tmp_path, one=place, two=remote()) as home:
            probe = prober(home, "one")
            while (await probe.look()).resident:  # noqa: ASYNC110 - it tells nobody when it falls asleep
                await asyncio.sleep(0.2)
            await probe.once()
            assert (await home.ask(chat(max_tokens=4))).endpoint == "two"
            await eventually(lambda: loads(home.journal()) == [None, True])
            assert (await home.ask(chat(max_tokens=4))).endpoint == "one"
