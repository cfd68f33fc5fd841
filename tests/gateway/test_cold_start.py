"""Models that are not loaded: probes wake none, what engines tell of them counts, and operators see it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.http.harness import eventually
from tests.lab.engines import real_engine
from tidegate.core.model import Probed
from tidegate.engines.fake import FakeEngine, Script
from tidegate.gateway.canary import Canary, Skip
from tidegate.gateway.probe import Prober


def prober(home: House, name: str, every_s: float = 3600.0, **settings: Any) -> Prober:
    gateway = home.gateway
    return Prober(gateway.dispatch, gateway.dispatch.upstreams[name], gateway.clock, every_s, **settings)


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
    async with house(tmp_path, one=local(engine="llamacpp", prior=prior), two=remote()) as home:
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
        zero.asked.clear()
        other.asked.clear()
        runs = [prober(home, "zero", 0.001, wakes=True).run(), prober(home, "other", 0.001).run()]
        tasks = [asyncio.create_task(run) for run in runs]
        await eventually(lambda: len(other.asked) > 5)
        assert zero.asked == []
        asking = asyncio.create_task(home.ask(chat()))
        await eventually(lambda: zero.asked != [])
        await asking
        for task in tasks:
            task.cancel()


async def test_a_canary_does_not_load_a_model(tmp_path: Path) -> None:
    async with house(tmp_path, one=local(engine="llamacpp", canary_s=60)) as home:
        gateway, engine = home.gateway, home.engines["one"]
        engine.resident = False
        await prober(home, "one").once()
        canary = Canary(gateway.dispatch, gateway.dispatch.upstreams["one"], gateway.clock, 60.0)
        await canary.turn()
        assert (canary.status.skipped, engine.seen) == (Skip.UNLOADED, [])
        engine.resident = True
        await prober(home, "one").once()
        await canary.turn()
        assert canary.status.skipped is not Skip.UNLOADED
        assert engine.seen
