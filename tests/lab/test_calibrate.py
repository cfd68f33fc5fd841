"""A simulated engine behind a real address, on a loop whose time is its own: calibration finds what it is."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.lab.simulated import SimulatedEngine
from tests.virtual import VirtualClock, run
from tidegate.cli.calibrate import measure
from tidegate.config.address import parse_url
from tidegate.core.model import replace
from tidegate.core.step import StepTime
from tidegate.engines.fake import FAKED, FakeEngine, Fault, Script
from tidegate.lab.calibrate import CalibrateError, Progress
from tidegate.lab.purse import Budget
from tidegate.sim.engine import EngineProfile
from tidegate.sim.profile import Profile

STEP = StepTime(base_s=0.008, per_token_s=1e-4, per_sequence_s=1e-3, per_context_token_s=2e-6, per_pair_s=1e-7)
TRUTH = EngineProfile(step=STEP, slots=4, batch_tokens=256, kv_tokens=4 * 4096)
BUDGET = Budget(seconds=60.0, tokens=50_000)
SMALL = Budget(seconds=20.0, tokens=16_000)


def quiet(_: Progress) -> None:
    pass


async def found(
    truth: EngineProfile = TRUTH, budget: Budget = BUDGET, *, told: bool = True, others: int = 0
) -> tuple[Profile, SimulatedEngine]:
    async with SimulatedEngine(truth, VirtualClock(), request_s=0.005, told=told) as engine:
        engine.busy_with_others = others
        made = await measure(parse_url(engine.url), None, (), budget, VirtualClock(), quiet)
    return made, engine


def assert_near(step: StepTime, truth: StepTime, rel: float) -> None:
    for name in ("base_s", "per_token_s", "per_sequence_s", "per_context_token_s", "per_pair_s"):
        assert getattr(step, name) == pytest.approx(getattr(truth, name), rel=rel), name


def test_the_constants_of_an_engine_are_found() -> None:
    made, engine = run(found())
    assert_near(made.engine.step, STEP, rel=0.02)
    assert replace(made.engine, step=STEP) == TRUTH
    assert made.network.request_s == pytest.approx(0.005, rel=0.02)
    assert made.measured is not None
    assert made.measured.remarks == ()
    assert (made.measured.requests, made.measured.tokens) == (engine.requests, engine.tokens)


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "truth",
    [
        replace(TRUTH, batch_tokens=64, slots=2, kv_tokens=2 * 4096),
        replace(TRUTH, batch_tokens=512, keeps_prefixes=False),
        replace(TRUTH, slots=16, kv_tokens=16 * 2048, step=replace(STEP, per_context_token_s=0.0, per_pair_s=0.0)),
    ],
    ids=["small batches", "keeps no prefixes", "attention for nothing"],
)
def test_so_are_those_of_others(truth: EngineProfile) -> None:
    made, _ = run(found(truth))
    assert_near(made.engine.step, truth.step, rel=0.05)
    assert replace(made.engine, step=truth.step) == truth


def test_an_engine_that_takes_as_long_for_many_as_for_one_has_nothing_but_a_base() -> None:
    async def main() -> Profile:
        async with FakeEngine(Script(first_s=0.1, token_s=0.01, tokens=32)) as engine:
            # It counts bytes, and so those that time an upload too.
            budget = Budget(seconds=60.0, tokens=600_000)
            return await measure(parse_url(engine.url), None, (), budget, VirtualClock(), quiet)

    made = run(main())
    assert made.engine.step.base_s == pytest.approx(0.01, rel=0.02)
    assert made.network.request_s == pytest.approx(0.09, rel=0.02)
    assert not made.engine.keeps_prefixes
    assert made.measured is not None
    assert made.measured.error < 0.02


def test_an_engine_that_tells_nothing_of_itself_is_found_out_by_its_answers() -> None:
    made, _ = run(found(told=False))
    assert made.measured is not None
    assert made.measured.software == "an OpenAI-compatible server"
    assert (made.engine.slots, made.engine.batch_tokens, made.engine.keeps_prefixes) == (4, 256, True)
    assert_near(made.engine.step, STEP, rel=0.05)
    assert "engine.kv_tokens" in made.measured.assumed


def test_what_was_only_bounded_from_below_is_said_to_be_assumed() -> None:
    made, _ = run(found(replace(TRUTH, slots=32, batch_tokens=65_536, kv_tokens=32 * 4096), told=False))
    assert made.measured is not None
    assert {"engine.slots", "engine.batch_tokens"} <= set(made.measured.assumed)
    assert made.confidence["slots"].high is None
    assert made.engine.batch_tokens == 8192


def test_others_that_use_the_engine_are_noticed() -> None:
    made, _ = run(found(others=1))
    assert made.measured is not None
    assert any("others used the engine" in remark for remark in made.measured.remarks)


@pytest.mark.lengthy
@settings(max_examples=12, deadline=None)
@given(st.floats(1.0, 25.0), st.integers(500, 20_000), st.floats(0.0001, 0.1), st.sampled_from([0, 150]))
@example(25.0, 5031, 0.1, 150)
def test_no_budget_is_ever_exceeded(seconds: float, tokens: int, usd: float, template_tokens: int) -> None:
    budget = Budget(seconds=seconds, tokens=tokens, usd=usd, usd_per_input_token=1e-6, usd_per_output_token=5e-6)

    async def main() -> tuple[SimulatedEngine, float]:
        async with SimulatedEngine(TRUTH, VirtualClock(), told=False, template_tokens=template_tokens) as engine:
            began_s = VirtualClock().now_s()
            try:
                made = await measure(parse_url(engine.url), None, (), budget, VirtualClock(), quiet)
                assert made.measured is not None
                assert made.measured.usd <= usd
            except CalibrateError as error:
                assert "budget's" in str(error)  # noqa: PT017 - whether it raises depends on the budget
            return engine, VirtualClock().now_s() - began_s

    engine, took_s = run(main())
    assert engine.tokens <= tokens
    assert took_s <= seconds + 0.001


@pytest.mark.parametrize("seconds", [5.0, 28.0], ids=["while looking", "while timing the network"])
def test_what_is_only_looked_at_takes_of_the_seconds_too(seconds: float) -> None:
    async def main() -> float:
        budget = Budget(seconds=seconds, tokens=50_000)
        async with SimulatedEngine(TRUTH, VirtualClock(), get_s=3.0) as engine:
            began_s = VirtualClock().now_s()
            with pytest.raises(CalibrateError, match="the budget's seconds are spent while timing network"):
                await measure(parse_url(engine.url), None, (), budget, VirtualClock(), quiet)
            return VirtualClock().now_s() - began_s

    assert run(main()) <= seconds + 0.001


@pytest.mark.lengthy
@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 20.0))
def test_an_interruption_leaves_nothing_running(after_s: float) -> None:
    async def main() -> None:
        async with SimulatedEngine(TRUTH, VirtualClock()) as engine:
            work = measure(parse_url(engine.url), None, (), BUDGET, VirtualClock(), quiet)
            task = asyncio.create_task(work)
            await asyncio.sleep(after_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(1.0)  # the iteration under way is computed to its end
            assert engine.engine.running + engine.engine.queued == 0
            assert len(asyncio.all_tasks()) == 1

    run(main())


# --- engines that let one down ------------------------------------------------------------------------------------


async def refused(script: Script, budget: Budget = SMALL) -> str:
    async with FakeEngine(script) as engine:
        with pytest.raises(CalibrateError) as caught:
            await measure(parse_url(engine.url), None, (), budget, VirtualClock(), quiet)
        assert caught.value.remedy
        await asyncio.sleep(0.1)
        assert engine.in_flight == 0
    return str(caught.value)


WORKS = Script(first_s=0.1, token_s=0.01, tokens=16)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script(status=500), "answered 500"),
        (Script(status=429), "answered 429"),
        (Script(status=401), "answered 401"),
        (Script(usage=False), "does not count tokens"),
        (Script(tokens=0), "usage"),
        (Script(tokens=1), "too short"),
        (Script(answer=b"data: [DONE]\n\n"), "before it began"),
        (Script(first_s=1e9), "seconds are spent"),
        (Script(first_s=15.0, token_s=1.0), "seconds are spent"),
    ],
)
def test_an_engine_that_does_not_do_is_said_to(script: Script, said: str) -> None:
    assert said in run(refused(script))


@pytest.mark.parametrize("fault", FAKED)
def test_no_fault_is_taken_for_an_answer(fault: Fault) -> None:
    message = run(refused(Script(fault=fault, first_s=0.1, token_s=0.01, tokens=16)))
    assert "while timing first answer" in message


def test_where_nobody_listens_nothing_is_measured() -> None:
    async def main() -> None:
        async with FakeEngine() as gone:
            url = parse_url(gone.url)
        with pytest.raises(CalibrateError, match="nobody listens there"):
            await measure(url, None, (), SMALL, VirtualClock(), quiet)

    run(main())


def test_a_model_that_is_not_served_is_refused_with_those_that_are() -> None:
    async def main() -> None:
        async with FakeEngine(WORKS) as engine:
            with pytest.raises(CalibrateError, match="does not serve `other`") as caught:
                await measure(parse_url(engine.url), "other", (), SMALL, VirtualClock(), quiet)
            assert "fake" in caught.value.remedy
            assert engine.seen == []

    run(main())
