"""Laws of memory: more that is taken admits no more, age tells less, a tick has no order, two make one, and whoever is
alone gets in."""

from collections.abc import Iterable
from itertools import permutations
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.core.test_hold import base
from tests.properties.storm import Storm
from tidegate.core.endpoint import EndpointModel
from tidegate.core.hold import schedule
from tidegate.core.memory import Memory, Spare, combined, fault, kv_tokens_needed
from tidegate.core.model import Decision, Ended, Ending, FirstToken, Observation, Probed, Request, Run, Slo, replace
from tidegate.core.output import Length
from tidegate.core.replay import replay
from tidegate.core.router import Router
from tidegate.core.starts import Item, Pool, item
from tidegate.core.state import EndpointState, GoneTokens, InUse, MemoryState, State, ToldCount
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)
shares = st.floats(0.0, 1.0)
tokens = st.integers(1, 60_000)
NOW_S = 1_700_000_000.0
KV_TOKENS = 20_000


def busy(seed: int, *, owned: bool = True) -> Router:
    """One engine with some of ours in it, of which some have begun to answer and some have ended."""
    draw, now_s = Random(seed), NOW_S - 100.0
    router = make.router(make.endpoint("box", concurrency=64, owned=owned, context_tokens=100_000))
    router.observe(Probed(endpoint="box", up=True, kv_tokens_max=KV_TOKENS), now_s)
    for number in range(draw.randint(0, 12)):
        now_s += draw.choice((0.0, 0.5, 5.0))
        request = make.request(
            f"r{number}",
            prompt_tokens=draw.randint(1, 3_000),
            output_tokens_max=draw.choice((None, 50, 4_000)),
            completions=draw.choice((1, 1, 3)),
        )
        router.observe(make.started(request, "box"), now_s)
        now_s += draw.choice((0.0, 0.5))
        if draw.random() < 0.7:
            router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=0.5), now_s)
        if draw.random() < 0.3:
            router.observe(make.ended(request.id, "box"), now_s)
    return router


def copied(router: Router) -> Router:
    state = msgspec.json.decode(router.snapshot(), type=State)
    return Router((router.endpoint("box").endpoint,), make.policy(), state)


def memory_of(router: Router, *facts: Observation, at_s: float = NOW_S) -> Memory:
    """After these facts; the router itself stays as it is."""
    after = copied(router)
    for fact in facts:
        after.observe(fact, at_s)
    return after.endpoint("box").memory


def told(share: float, **signals: object) -> Probed:
    return replace(Probed(endpoint="box", up=True, kv_share=share), **signals)


def free(memory: Memory, at_s: float) -> int:
    spare = memory.spare(at_s)
    assert spare is not None
    return spare.free_tokens


@given(seeds, shares, shares, tokens, st.floats(0.0, 300.0), st.booleans())
def test_a_fuller_report_never_admits_what_an_emptier_one_would_not(
    seed: int, one: float, other: float, needed: int, age_s: float, owned: bool
) -> None:
    router = busy(seed, owned=owned)
    emptier, fuller = (memory_of(router, told(share)) for share in sorted((one, other)))
    assert free(fuller, NOW_S + age_s) <= free(emptier, NOW_S + age_s)
    assert emptier.fits(needed, NOW_S + age_s) or not fuller.fits(needed, NOW_S + age_s)


@given(seeds, shares, tokens, tokens, st.floats(0.0, 300.0))
def test_one_more_of_ours_never_admits_what_would_not_fit_without_it(
    seed: int, share: float, sent: int, needed: int, age_s: float
) -> None:
    router = busy(seed)
    more = make.started(make.request("more", prompt_tokens=sent), "box")
    before, after = memory_of(router, told(share)), memory_of(router, told(share), more)
    assert before.fits(needed, NOW_S + age_s) or not after.fits(needed, NOW_S + age_s)


@given(seeds, shares, tokens, tokens)
def test_what_needs_more_never_fits_where_what_needs_less_does_not(
    seed: int, share: float, one: int, other: int
) -> None:
    memory = memory_of(busy(seed), told(share))
    less, more = sorted((one, other))
    assert memory.fits(less, NOW_S) or not memory.fits(more, NOW_S)


@given(seeds, shares, st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_an_older_report_tells_no_more_than_a_younger_one_and_at_last_nothing(
    seed: int, share: float, age_s: float, more_s: float
) -> None:
    memory = memory_of(busy(seed), told(share))
    young, old = memory.foreign_tokens(NOW_S + age_s), memory.foreign_tokens(NOW_S + age_s + more_s)
    assert abs(old) <= abs(young)
    assert young * old >= 0
    assert memory.foreign_tokens(NOW_S + 3600.0) == 0


@pytest.mark.lengthy
@given(seeds, shares, st.lists(st.floats(0.0, 1.0), max_size=3))
def test_the_facts_of_a_tick_have_no_order(seed: int, share: float, late: list[float]) -> None:
    router = busy(seed)
    under_way = sorted(router.endpoint("box").state.reservations)
    silent = [i for i in under_way if router.endpoint("box").state.reservations[i].first_s is None]
    facts: list[Observation] = [told(share, measured_s=NOW_S - one, preemptions=2) for one in late[:1]]
    facts += [told(share / 2.0, kv_tokens_max=30_000, slots=7)]
    facts += [FirstToken(request_id=i, endpoint="box", ttft_s=1.0) for i in silent[:1]]
    facts += [
        Ended(request_id=i, endpoint="box", ending=Ending.OK, e2e_s=1.0) for i in under_way[-1:] if i not in silent
    ]
    facts += [make.started(make.request("new", prompt_tokens=700), "box")]
    found = []
    for order in permutations(facts):
        memory = memory_of(router, *order)
        found.append((memory.state, free(memory, NOW_S), free(memory, NOW_S + 9.0), memory.room_tokens))
    assert all(one == found[0] for one in found)


@pytest.mark.lengthy
@given(seeds)
def test_what_is_not_known_excludes_nobody(seed: int) -> None:
    """Weather without reports of memory: no decision is one that its rule would have made otherwise."""

    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        assert decision.why not in (Why.MEMORY_TOO_SMALL, Why.MEMORY_TAKEN)
        for name in ("desk", "lap", "cloud", "cheap", "paris"):
            memory = router.endpoint(name).memory
            assert (memory.known, memory.spare(now_s), memory.tokens_sure) == (False, None, float("inf"))
            assert memory.fits(10**12, now_s)

    Storm(seed, check, reports=False).run(80)


@given(tokens, st.sampled_from((None, 10, 50_000)), shares, st.integers(1, 100))
def test_an_engine_of_ours_that_has_nothing_of_ours_takes_whatever_can_fit_at_all(
    prompt_tokens: int, bound: int | None, share: float, running: int
) -> None:
    router = make.router(make.endpoint("box", context_tokens=1_000_000))
    router.observe(told(share, kv_tokens_max=KV_TOKENS, running=running), NOW_S)
    asked = make.request(arrived_s=NOW_S, prompt_tokens=prompt_tokens, output_tokens_max=bound)
    decision = router.decide(asked, NOW_S)
    if prompt_tokens < KV_TOKENS:
        assert isinstance(decision.plan[0], Run)
    else:
        assert (decision.plan, decision.why) == ((), Why.MEMORY_TOO_SMALL)


@given(tokens)
def test_so_does_one_of_others_that_tells_that_nothing_runs(prompt_tokens: int) -> None:
    router = make.router(make.endpoint("far", local=False, context_tokens=1_000_000))
    router.observe(Probed(endpoint="far", up=True, kv_tokens_max=KV_TOKENS, kv_share=1.0, running=0, queued=0), NOW_S)
    decision = router.decide(make.request(arrived_s=NOW_S, prompt_tokens=prompt_tokens), NOW_S)
    assert isinstance(decision.plan[0], Run) if prompt_tokens < KV_TOKENS else decision.why is Why.MEMORY_TOO_SMALL


@pytest.mark.lengthy
@given(seeds)
def test_a_first_look_admits_nothing_that_a_closer_one_would_not_and_a_copy_believes_the_same(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(120):
        storm.step()
        for name in ("desk", "cheap"):
            model = storm.router.endpoint(name)
            spare = model.memory.spare(storm.now_s)
            assert fault(model.state.memory) == ""
            if spare is None:
                continue
            assert model.memory.room_tokens <= spare.free_tokens
            if model.state.reservations or not model.owned:
                for needed in (1, spare.free_tokens, spare.free_tokens + 1, spare.tokens_max + 1):
                    fits = min(needed, spare.tokens_max) <= spare.free_tokens
                    assert model.memory.fits(needed, storm.now_s) is fits
            assert spare.free_tokens + sum(freed for _, freed in spare.ends) == spare.tokens_max
            state = msgspec.json.decode(msgspec.json.encode(model.state), type=EndpointState)
            again = EndpointModel(model.endpoint, 0.9, state).memory
            assert (again.spare(storm.now_s), again.room_tokens) == (spare, model.memory.room_tokens)


@pytest.mark.lengthy
@given(seeds)
def test_our_own_engine_is_sent_nothing_that_does_not_fit_beside_what_is_there(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if decision.plan and isinstance(decision.plan[0], Run):
            model = router.endpoint(decision.plan[0].endpoint)
            length = router._known.lengths.of(request)
            assert not model.owned or model.memory.fits(kv_tokens_needed(request, length), now_s)

    storm = Storm(seed, check).run(200)
    assert replay(storm.lines).difference is None


# --- the schedule of what is held -----------------------------------------------------------------------------------


def works(draw: Random, count: int) -> list[Item]:
    found = []
    for number in range(count):
        high = float(draw.randint(1, 2_000))
        request = make.request(
            f"w{number}",
            arrived_s=float(number),
            prompt_tokens=draw.randint(1, 6_000),
            slo=Slo(ttft_s=draw.choice((None, 5.0, 50.0))),
        )
        one = base(occupies_s=draw.uniform(1.1, 30.0))
        one.length = Length(high / 3.0, high, high / 4.0, sigma=0.5)
        found.append(item(request, 0.01, {"own": one}))
    return found


def spared(draw: Random) -> Spare:
    """Some of ours in an engine, and maybe others."""
    ends = sorted((draw.uniform(0.0, 40.0), draw.randint(1, 3_000)) for _ in range(draw.randint(0, 6)))
    tokens_max = draw.randint(4_000, 30_000)
    return Spare(tokens_max, tokens_max - sum(freed for _, freed in ends), ends)


def taken(items: Iterable[Item], starts_s: dict[str, float], at_s: float) -> int:
    """What of these is there at that time."""
    return sum(
        one.own["own"].kv_tokens
        for one in items
        if starts_s[one.request.id] <= at_s < starts_s[one.request.id] + one.own["own"].occupies_s
    )


@given(seeds)
def test_a_schedule_never_has_more_at_once_than_there_is_memory_for_but_what_is_alone(seed: int) -> None:
    draw = Random(seed)
    spare, items = spared(draw), works(draw, draw.randint(1, 12))
    places = schedule(items, {"own": Pool([0.0] * 6, spare)}, {}, lambda request: [], 0.0)
    starts_s = {name: place.start_s for name, place in places.items()}
    for one in items:
        at_s = starts_s[one.request.id]
        there = [other for other in items if other is not one and starts_s[other.request.id] <= at_s]
        left = sum(freed for end_s, freed in spare.ends if end_s > at_s)
        needed = min(one.own["own"].kv_tokens, spare.tokens_max)
        assert needed + taken(there, starts_s, at_s) + left <= spare.tokens_max or needed == spare.tokens_max


@given(seeds)
def test_with_memory_for_all_of_it_a_schedule_is_what_it_is_without_a_word_of_memory(seed: int) -> None:
    draw = Random(seed)
    items = works(draw, 10)
    pools = [{"own": Pool([0.0, 3.0], spare)} for spare in (Spare(10**9, 10**9, []), None)]
    assert schedule(items, pools[0], {}, lambda r: [], 0.0) == schedule(items, pools[1], {}, lambda r: [], 0.0)


@given(seeds, st.integers(0, 5_000))
def test_less_memory_starts_nothing_of_one_size_sooner(seed: int, less: int) -> None:
    draw = Random(seed)
    spare, items = spared(draw), works(draw, 8)
    for one in items:
        one.own["own"].kv_tokens, one.own["own"].occupies_s = 1_000, 10.0
    tighter = Spare(spare.tokens_max, spare.free_tokens - less, sorted([*spare.ends, (40.0, less)]))
    found = [schedule(items, {"own": Pool([0.0] * 4, one)}, {}, lambda r: [], 0.0) for one in (spare, tighter)]
    assert all(found[0][name].start_s <= found[1][name].start_s for name in found[0])


# --- two routers ----------------------------------------------------------------------------------------------------


def state(draw: Random) -> MemoryState:
    def count() -> ToldCount | None:
        return draw.choice((None, ToldCount(float(draw.randint(0, 3)), draw.randint(1, 3))))

    use = InUse(float(draw.randint(0, 3)), draw.choice((0.0, 0.5)), 0, draw.randint(0, 2))
    gone = [GoneTokens(float(draw.randint(0, 30)), 0.0, 0.0, 1, draw.randint(1, 2)) for _ in range(draw.randint(0, 16))]
    return MemoryState(
        tokens=count(),
        slots=count(),
        preemptions=count(),
        full=count(),
        use=draw.choice((None, use)),
        gone=sorted(gone),
    )


@given(seeds)
def test_what_two_were_told_has_no_order_and_a_third_comes_in_anywhere(seed: int) -> None:
    draw = Random(seed)
    a, b, c = state(draw), state(draw), state(draw)
    assert combined(a, b) == combined(b, a)
    assert combined(combined(a, b), c) == combined(a, combined(b, c))
    assert fault(combined(a, b)) == ""
    nothing = MemoryState()
    assert combined(a, nothing) == a


@pytest.mark.parametrize("factor", [2, 5])
def test_a_unit_is_a_unit(factor: int) -> None:
    """With tokens that are `factor` times as many of everything, the same decisions come out."""
    for seed in range(20):
        draw = Random(seed)
        sizes = [draw.randint(100, 3_000) for _ in range(8)]
        found = []
        for by in (1, factor):
            router = make.router(make.endpoint("box", concurrency=64, context_tokens=10**7))
            router.observe(Probed(endpoint="box", up=True, kv_tokens_max=by * 8_000, kv_share=0.25), NOW_S)
            fits = []
            for number, size in enumerate(sizes):
                fits.append(router.endpoint("box").memory.fits(by * size, NOW_S + 1.0))
                asked = make.request(f"r{number}", prompt_tokens=by * size)
                router.observe(make.started(asked, "box"), NOW_S + 1.0)
            found.append(fits)
        assert found[0] == found[1]
