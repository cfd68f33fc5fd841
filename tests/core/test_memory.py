"""Memory for contexts: what is believed to be free, what a request needs, and what comes of that."""

import msgspec
import pytest

from tests import make
from tidegate.core import memory
from tidegate.core.endpoint import EndpointModel
from tidegate.core.hardware import Accelerator, Link, Machine, Model, Setup
from tidegate.core.identity import Identity
from tidegate.core.model import (
    Endpoint,
    FirstToken,
    Held,
    Probed,
    Request,
    Run,
    Slo,
    Wait,
    replace,
)
from tidegate.core.output import Length
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, State
from tidegate.core.why import Why

KV_TOKENS = 10_000
CARD = Accelerator(
    memory_bytes=25.76e9, bytes_per_s=1e12, flops=1.65e14, link=Link(bytes_per_s=3.2e10, exchange_s=1e-5)
)
LLAMA = Model(
    parameters=8.03e9,
    active_parameters=8.03e9,
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128_256,
)


def box(**changes: object) -> Endpoint:
    """An engine of our own that runs eight requests at once."""
    return replace(make.endpoint("box", concurrency=8), **changes)


def told(at_s: float = 0.0, *endpoints: Endpoint, **signals: object) -> Router:
    """A router whose first endpoint has told this of its memory."""
    endpoints = endpoints or (box(),)
    router = make.router(*endpoints)
    router.observe(probe(endpoints[0].name, **signals), at_s)
    return router


def probe(endpoint: str = "box", **signals: object) -> Probed:
    return replace(Probed(endpoint=endpoint, up=True, kv_tokens_max=KV_TOKENS), **signals)


def send(router: Router, request: Request, at_s: float, endpoint: str = "box") -> Request:
    router.observe(make.started(request, endpoint), at_s)
    return request


def answer(router: Router, request: Request, at_s: float) -> None:
    """Its first content is here: the engine is done with its prompt."""
    router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=0.5), at_s)


def free(router: Router, at_s: float, endpoint: str = "box") -> int:
    spare = router.endpoint(endpoint).memory.spare(at_s)
    assert spare is not None
    return spare.free_tokens


def big(id: str = "", **changes: object) -> Request:
    return replace(make.request(id, prompt_tokens=6_000, prompt_bytes=24_000), **changes)


# --- what is needed -------------------------------------------------------------------------------------------------


def test_a_request_needs_its_prompt_once_and_each_completion_at_its_95th_percentile() -> None:
    length = Length(expected_tokens=100.0, high_tokens=400.5, median_tokens=80.0, sigma=0.5)
    assert memory.kv_tokens_needed(make.request(prompt_tokens=1_000, completions=3), length) == 1_000 + 3 * 400


def test_what_it_needs_at_least_has_nothing_in_it_that_may_never_come() -> None:
    asked = make.request(prompt_tokens=1_000, completions=3, output_tokens_max=32_000)
    assert memory.kv_tokens_needed_least(asked) == 1_003


def test_several_prompts_take_all_of_the_memory_that_there_is_and_need_that_of_one() -> None:
    several = make.request(prompt_tokens=40 * 9_000, prompts=40, completions=40, output_tokens_max=1)
    assert memory.kv_tokens_needed_least(several) == 9_001
    router = told()
    assert isinstance(router.decide(several, 0.0).plan[0], Run)
    longer = replace(several, prompt_tokens=40 * KV_TOKENS)
    assert router.decide(longer, 0.0).why is Why.MEMORY_TOO_SMALL
    # Beside others they would wait in the engine, and wait here.
    send(router, make.request(prompt_tokens=10), 1.0)
    assert isinstance(router.decide(several, 2.0).plan[0], Wait)


@pytest.mark.parametrize("static", [False, True])
def test_where_nobody_keeps_room_for_them_one_of_several_prompts_has_to_fit(static: bool) -> None:
    several = make.request("several", prompt_tokens=40 * 2_000, prompts=40, completions=40, output_tokens_max=1)
    router = told(0.0, make.endpoint("far", local=False))
    router.observe(replace(router.overrides, static=static), 0.0)
    send(router, make.request("a", prompt_tokens=6_000), 1.0, "far")
    assert isinstance(router.decide(several, 2.0).plan[0], Run)
    assert [one.kv_tokens for one in router.candidates(several, 2.0)] == [2_001]
    send(router, make.request("b", prompt_tokens=3_000), 2.0, "far")
    assert isinstance(router.decide(several, 3.0).plan[0], Wait)
    (far,) = router.candidates(several, 3.0)
    assert far.excluded is Why.MEMORY_TAKEN


# --- what there is --------------------------------------------------------------------------------------------------


def test_an_engine_that_tells_nothing_and_whose_hardware_nobody_declared_is_not_bounded() -> None:
    router = told(kv_tokens_max=None, kv_share=0.99)
    for number in range(7):
        answer(router, send(router, big(), float(number)), number + 0.5)
    assert router.endpoint("box").memory.spare(8.0) is None
    assert isinstance(router.decide(big(), 8.0).plan[0], Run)


def test_what_is_ours_takes_its_prompt_and_then_what_has_streamed() -> None:
    router = told()
    request = send(router, big(output_tokens_max=None), 0.0)
    assert free(router, 1.0) == KV_TOKENS - 6_000
    router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=2.0), 2.0)
    # A token takes 0.02 s by the prior.
    assert free(router, 3.0) == pytest.approx(KV_TOKENS - 6_050, abs=10)
    # And no more than is foreseen.
    after = free(router, 1e6)
    assert KV_TOKENS - 8_000 < after < KV_TOKENS - 6_300
    router.observe(make.ended(request.id, "box"), 1e6)
    assert free(router, 1e6) == KV_TOKENS


def test_what_is_in_use_beyond_what_is_ours_is_somebody_elses() -> None:
    router = told()
    send(router, make.request(prompt_tokens=1_000), 0.0)
    router.observe(probe(kv_share=0.5), 5.0)
    assert free(router, 5.0) == KV_TOKENS - 5_000
    send(router, make.request(prompt_tokens=2_000), 5.0)
    assert free(router, 5.0) == KV_TOKENS - 7_000


def test_what_was_on_its_way_when_a_report_was_measured_is_neither_missing_nor_somebody_elses() -> None:
    router = told()
    send(router, big(), 4.99)
    for share in (0.0, 0.3, 0.6):
        router.observe(probe(kv_share=share, measured_s=4.995), 5.0)
        assert free(router, 5.0) == KV_TOKENS - 6_000


def test_what_ended_while_a_report_was_measured_is_not_somebody_elses() -> None:
    router = told()
    request = send(router, big(), 0.0)
    router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=1.0), 1.0)
    router.observe(make.ended(request.id, "box"), 1.5)
    router.observe(probe(kv_share=0.6, measured_s=1.4), 1.6)
    assert free(router, 1.6) == KV_TOKENS
    # One that was measured after that is.
    router.observe(probe(kv_share=0.6, measured_s=1.65), 1.7)
    assert free(router, 1.7) == KV_TOKENS - 6_000


def test_ours_that_share_a_beginning_take_less_and_a_report_says_so() -> None:
    router = told()
    for number in range(3):
        request = send(router, make.request(prompt_tokens=3_000), float(number))
        router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=0.5), number + 0.5)
    assert free(router, 4.0) < 1_000
    router.observe(probe(kv_share=0.4), 4.0)
    assert free(router, 4.0) > 5_500


def test_a_report_that_is_old_gives_way_to_our_own_books() -> None:
    router = told(kv_share=0.8)
    assert [free(router, at_s) for at_s in (0.0, 30.0, 60.0, 600.0)] == [2_000, 6_000, 8_000, KV_TOKENS]


def test_where_nothing_runs_and_nothing_waits_what_is_in_use_is_cache() -> None:
    assert free(told(kv_share=0.9, running=0, queued=0), 0.0) == KV_TOKENS
    assert free(told(kv_share=0.9, running=0, queued=3), 0.0) == 1_000
    assert free(told(kv_share=0.9, running=1, queued=0), 0.0) == 1_000


@pytest.mark.parametrize(
    "signals",
    [
        {"kv_tokens_max": 0},
        {"kv_tokens_max": -5},
        {"kv_tokens_max": 10**18},
        {"kv_share": float("nan")},
        {"kv_share": -0.1},
        {"kv_share": 1.1},
        {"kv_share": float("inf")},
        {"slots": 0},
        {"slots": -1},
        {"preemptions": -1},
        {"preemptions": 10**18},
    ],
)
def test_what_cannot_be_is_no_news(signals: dict[str, object]) -> None:
    router = told(kv_share=0.5)
    before = router.snapshot()
    router.observe(replace(Probed(endpoint="box", up=True), **signals), 0.0)
    assert router.snapshot() == before


# --- hardware -------------------------------------------------------------------------------------------------------


def card(**changes: object) -> Endpoint:
    return box(machine=replace(Machine(accelerator=CARD, setup=Setup(), model=LLAMA), **changes))


def memory_tokens(endpoint: Endpoint) -> int | None:
    return Identity(endpoint, EndpointState()).memory_tokens()


def test_declared_hardware_has_as_much_as_it_leaves_beside_the_weights() -> None:
    tokens = memory_tokens(card())
    assert tokens is not None
    # As vLLM 0.19 has it on this card.
    assert tokens == pytest.approx(41_408, rel=0.05)
    router = make.router(card())
    assert free(router, 0.0) == tokens
    assert memory_tokens(card(setup=Setup(data_parallel=2))) == 2 * tokens


def test_what_the_engine_tells_of_its_memory_counts_before_what_its_hardware_would_leave() -> None:
    router = make.router(card())
    router.observe(probe(), 0.0)
    assert free(router, 0.0) == KV_TOKENS


@pytest.mark.parametrize("machine", [{"model": None}, {"model": replace(LLAMA, parameters=8e10)}])
def test_of_a_model_that_is_unknown_or_cannot_be_there_nothing_is_believed(machine: dict[str, object]) -> None:
    assert make.router(card(**machine)).endpoint("box").memory.spare(0.0) is None


def test_a_model_that_is_only_assumed_refuses_nothing_for_ever() -> None:
    long = make.request(prompt_tokens=60_000, prompt_bytes=240_000)
    declared = make.router(replace(card(), context_tokens=100_000))
    assumed = make.router(replace(card(model=None, assumed=LLAMA), context_tokens=100_000))
    assert declared.decide(long, 0.0).why is Why.MEMORY_TOO_SMALL
    assert isinstance(assumed.decide(long, 0.0).plan[0], Run)


# --- preemptions ----------------------------------------------------------------------------------------------------


def test_an_engine_that_tells_nothing_but_its_preemptions_is_not_filled_as_far_again_soon() -> None:
    router = told(kv_tokens_max=None, preemptions=3)
    requests = [send(router, make.request(prompt_tokens=3_000, output_tokens_max=10), 1.0) for _ in range(3)]
    for request in requests:
        answer(router, request, 1.5)
    assert isinstance(router.decide(make.request(prompt_tokens=3_000), 2.0).plan[0], Run)
    router.observe(probe(kv_tokens_max=None, preemptions=4), 5.0)
    assert isinstance(router.decide(make.request(prompt_tokens=3_000), 5.0).plan[0], Wait)
    # It forgets: in a minute twice as much is tried.
    assert isinstance(router.decide(make.request(prompt_tokens=3_000), 65.0).plan[0], Run)
    for request in requests:
        router.observe(make.ended(request.id, "box"), 6.0)
    assert isinstance(router.decide(make.request(prompt_tokens=30_000), 6.0).plan[0], Run)


def test_a_counter_that_begins_again_and_one_that_others_raise_say_nothing() -> None:
    router = told(kv_tokens_max=None, preemptions=7)
    router.observe(probe(kv_tokens_max=None, preemptions=9), 1.0)
    send(router, big(), 2.0)
    router.observe(probe(kv_tokens_max=None, preemptions=0), 5.0)
    assert router.endpoint("box").memory.spare(5.0) is None


@pytest.mark.parametrize(("running", "queued", "ours"), [(3, 0, True), (2, 1, True), (3, 1, False), (40, 0, False)])
def test_what_others_in_the_engine_may_have_caused_says_nothing(running: int, queued: int, ours: bool) -> None:
    router = told(kv_tokens_max=None, preemptions=0)
    for _ in range(3):
        send(router, make.request(), 1.0)
    router.observe(probe(kv_tokens_max=None, preemptions=1, running=running, queued=queued), 5.0)
    assert router.endpoint("box").memory.known is ours


# --- slots ----------------------------------------------------------------------------------------------------------


def test_our_own_engine_gets_no_more_than_it_has_slots() -> None:
    router = told(slots=2)
    send(router, make.request(), 0.0)
    assert isinstance(router.decide(make.request(), 1.0).plan[0], Run)
    send(router, make.request(), 1.0)
    decision = router.decide(make.request(), 2.0)
    assert (decision.why, router.endpoint("box").room) == (Why.WAITS_FOR_ANY, 0)


def test_more_slots_than_its_concurrency_change_nothing_nor_do_those_of_others() -> None:
    assert told(slots=64).endpoint("box").room == 8
    assert told(0.0, make.endpoint("cloud", local=False), slots=2).endpoint("cloud").room == 64


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_beside_what_runs_is_held_until_that_has_ended() -> None:
    router = told()
    first, second = send(router, big("a"), 0.0), big("b", arrived_s=1.0)
    decision = router.decide(second, 1.0)
    assert (decision.why, decision.plan[0].endpoint) == (Why.WAITS_FOR_ANY, "box")
    router.observe(Held(request=second), 1.0)
    assert router.due(1.5) == []
    router.observe(make.ended(first.id, "box"), 4.0)
    assert router.due(4.0) == [second]
    assert isinstance(router.decide(second, 4.0).plan[0], Run)


def test_what_is_small_goes_on_beside_it_until_something_large_waits() -> None:
    router = told()
    answer(router, send(router, big("a"), 0.0), 0.5)
    small = make.request(arrived_s=1.0)
    assert isinstance(router.decide(small, 1.0).plan[0], Run)
    waiting = big("b", arrived_s=1.0)
    router.observe(Held(request=waiting), 1.0)
    # Its promise has to be kept sooner than that of what comes after it.
    assert router.decide(replace(small, arrived_s=2.0), 2.0).why is Why.WAITS_FOR_ANY


def test_what_does_not_fit_now_goes_elsewhere_where_that_keeps_its_promise() -> None:
    router = told(0.0, box(), make.endpoint("cloud", local=False))
    send(router, big("a", output_tokens_max=None), 0.0)
    decision = router.decide(big("b", slo=Slo(ttft_s=2.0)), 0.0)
    assert isinstance(decision.plan[0], Run)
    assert decision.plan[0].endpoint == "cloud"


def test_what_is_not_ours_is_passed_over_while_it_is_full() -> None:
    full = make.endpoint("full", local=False, price=make.REMOTE_PRICE)
    router = told(0.0, full, make.endpoint("other", local=False), kv_share=0.97)
    asked = make.request(prompt_tokens=400)
    candidates = {one.endpoint: one for one in router.candidates(asked, 0.0)}
    assert candidates["full"].excluded is Why.MEMORY_TAKEN
    assert candidates["full"].kv_tokens == 500
    assert candidates["full"].kv_free_tokens == 300
    assert candidates["other"].kv_free_tokens is None
    decision = router.decide(asked, 0.0)
    assert decision.plan[0].endpoint == "other"
    assert decision.why is Why.ONLY_AVAILABLE
    assert {one.endpoint: one.excluded for one in router.candidates(asked, 60.0)}["full"] is None


def test_where_nobody_may_wait_a_refusal_says_when_to_come_back() -> None:
    router = Router((box(),), make.policy(held_max=0))
    router.observe(probe(), 0.0)
    send(router, big("a"), 0.0)
    decision = router.decide(big("b"), 1.0)
    assert (decision.plan, decision.why) == ((), Why.HOLD_FULL)
    far = Router((make.endpoint("far", local=False),), make.policy(held_max=0))
    far.observe(probe("far", kv_share=1.0), 0.0)
    decision = far.decide(make.request(), 1.0)
    assert (decision.plan, decision.why) == ((), Why.MEMORY_TAKEN)
    assert decision.retry_after_s is not None


def test_a_prompt_that_is_more_than_all_its_memory_is_refused_for_ever() -> None:
    decision = told().decide(make.request(prompt_tokens=12_000), 0.0)
    assert (decision.plan, decision.why, decision.retry_after_s) == ((), Why.MEMORY_TOO_SMALL, None)
    beside = told(0.0, box(), make.endpoint("cloud", local=False))
    decision = beside.decide(make.request(prompt_tokens=12_000), 0.0)
    assert (decision.plan[0].endpoint, decision.why) == ("cloud", Why.ONLY_LONG_ENOUGH)


@pytest.mark.parametrize("output_tokens_max", [None, 20_000])
def test_a_guess_of_the_output_is_no_reason_to_refuse_for_ever(output_tokens_max: int | None) -> None:
    router = told()
    asked = make.request(prompt_tokens=9_900, output_tokens_max=output_tokens_max)
    assert isinstance(router.decide(asked, 0.0).plan[0], Run)
    # Beside others it waits for all the memory there is.
    send(router, make.request(prompt_tokens=10), 1.0)
    assert isinstance(router.decide(asked, 2.0).plan[0], Wait)


def test_what_others_have_taken_keeps_nobody_waiting_where_nothing_of_ours_is() -> None:
    """A request of ours waits there as well as here; and what is always full would get nothing, ever."""
    router = told(kv_share=1.0, running=20)
    assert isinstance(router.decide(big(), 0.0).plan[0], Run)
    send(router, make.request("a"), 1.0)
    assert isinstance(router.decide(big(), 2.0).plan[0], Wait)


def test_under_the_static_rule_too_our_own_engine_is_not_overfilled() -> None:
    router = told(0.0, box(), make.endpoint("cloud", local=False))
    router.observe(replace(router.overrides, static=True), 0.0)
    send(router, big("a"), 0.0)
    assert router.decide(big("b"), 1.0).plan[0].endpoint == "cloud"
    assert router.decide(make.request(), 1.0).plan[0].endpoint == "box"


def test_what_an_engine_has_is_known_after_a_restart_and_what_was_in_use_is_not() -> None:
    router = told(kv_share=0.7, slots=4, preemptions=2)
    state = memory.kept(router.endpoint("box").state.memory, 10.0)
    again = EndpointModel(box(), 0.9, msgspec.structs.replace(EndpointModel(box(), 0.9).state, memory=state))
    assert (again.memory.slots, again.places) == (4, 4)
    spare = again.memory.spare(10.0)
    assert spare is not None
    assert (spare.tokens_max, spare.free_tokens) == (KV_TOKENS, KV_TOKENS)


def test_a_journal_of_before_is_read_as_it_was() -> None:
    old = msgspec.json.decode(b'{"endpoints":{"box":{"breaker":{},"prefills":{},"pace":{}}}}', type=State)
    assert Router((box(),), make.policy(), old).endpoint("box").memory.spare(0.0) is None
    fact = msgspec.json.decode(b'{"type":"probed","endpoint":"box","up":true}', type=Probed)
    assert (fact.kv_tokens_max, fact.kv_share, fact.slots, fact.preemptions) == (None, None, None, None)
