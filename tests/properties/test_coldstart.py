"""Laws of cold starts: idling makes none less likely, leaving teaches no speed, and what was learned has no order."""

from math import exp
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.coldstart import WARM, ColdModel, combined
from tidegate.core.hazard import (
    BINS,
    IDLE_EDGES_S,
    Level,
    isotonic,
    learn_level,
    learn_outcome,
    prior_shares,
    slower_from,
)
from tidegate.core.loading import LOAD_S
from tidegate.core.model import Ended, Ending, FirstToken, Probed, Started, replace
from tidegate.core.router import Router
from tidegate.core.state import ColdState

NOW_S = 1_700_000_000.0
seeds = st.integers(0, 10_000)
unloads = st.sampled_from([None, None, 5.0, 300.0, 3600.0, 1e6])


class Past:
    """A model with a past: attempts after pauses of every kind, warm and cold, some given up."""

    def __init__(self, seed: int, unload_after_s: float | None = None, count: int = 40) -> None:
        self.draw = Random(seed)
        self.model = ColdModel(LOAD_S, unload_after_s)
        self.now_s = NOW_S
        self.cold_after_s = exp(self.draw.uniform(1.0, 10.0))
        self.load_s = exp(self.draw.uniform(0.0, 5.0))
        for _ in range(count):
            self.attempt()

    def attempt(self) -> None:
        draw, model = self.draw, self.model
        idle_s = exp(draw.uniform(0.0, 11.0))
        self.now_s += idle_s
        if draw.random() < 0.2:
            model.told(draw.choice((True, False)), self.now_s - draw.uniform(0.0, 5.0))
        warm_s = exp(draw.uniform(-3.0, 1.0))
        ttft_s = warm_s * draw.lognormvariate(0.0, 0.3)
        if idle_s > self.cold_after_s or draw.random() < 0.05:
            ttft_s += self.load_s * draw.lognormvariate(0.0, 0.3)
        sent = model.started(warm_s, 0.3, self.now_s, 0)
        assert sent is not None
        if draw.random() < 0.2:
            waited_s = draw.uniform(0.0, 1.2) * ttft_s
            self.now_s += waited_s
            model.ended(0, self.now_s)
            model.learn_silence(sent, waited_s, self.now_s)
        else:
            self.now_s += ttft_s
            model.used(self.now_s)
            model.ended(0, self.now_s)
            model.learn(sent, ttft_s, self.now_s)


def shares(model: ColdModel, *, used_s: float) -> list[float]:
    """By more and more idle time since the last use."""
    times_s = [used_s + s for s in (0.0, 5.0, *IDLE_EDGES_S, *(1.5 * s for s in IDLE_EDGES_S), 1e5, 1e6)]
    return [model.at(at_s, 0).share for at_s in sorted(times_s)]


def untold(state: ColdState) -> ColdState:
    """The same where no probe has heard anything."""
    return replace(state, told=None)


def copied(state: ColdState) -> ColdState:
    return msgspec.json.decode(msgspec.json.encode(state), type=ColdState)


# --- idle time --------------------------------------------------------------------------------------------------------


@given(seeds, unloads)
def test_more_idle_time_never_makes_a_cold_start_less_likely(seed: int, unload_after_s: float | None) -> None:
    past = Past(seed, unload_after_s)
    model = ColdModel(LOAD_S, unload_after_s, untold(past.model.state))
    found = shares(model, used_s=model.state.used_s or NOW_S)
    assert found == sorted(found)
    assert 0.0 <= found[0] <= found[-1] <= 1.0


counts = st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 1.0)), min_size=BINS, max_size=BINS)


@given(counts, unloads, st.floats(0.1, 10.0), st.integers(0, BINS - 1), st.floats(0.1, 5.0))
def test_the_shares_never_fall_and_a_cold_start_lowers_none_of_them(
    told: list[tuple[float, float]], unload_after_s: float | None, strength: float, index: int, more: float
) -> None:
    prior = prior_shares(unload_after_s)
    seen, cold = [count for count, _ in told], [count * share for count, share in told]
    before = isotonic(seen, cold, prior, strength)
    assert before == sorted(before)
    assert all(0.0 <= share <= 1.0 for share in before)
    seen[index], cold[index] = seen[index] + more, cold[index] + more
    after = isotonic(seen, cold, prior, strength)
    assert all(b >= a - 1e-12 for a, b in zip(before, after, strict=True))


@given(counts)
def test_where_much_was_seen_and_nothing_contradicts_it_the_share_is_what_was_seen(
    told: list[tuple[float, float]],
) -> None:
    many = [1e9 * (1.0 + count) for count, _ in told]
    rising = sorted(share for _, share in told)
    found = isotonic(many, [n * share for n, share in zip(many, rising, strict=True)], prior_shares(None), 1.0)
    assert found == pytest.approx(rising, abs=1e-6)


levels = st.lists(st.lists(st.floats(-5.0, 5.0), max_size=6), min_size=BINS, max_size=BINS)


@given(levels, st.randoms(use_true_random=False))
def test_where_attempts_take_longer_is_found_whatever_their_order_and_unit(
    told: list[list[float]], random: Random
) -> None:
    found = []
    for unit in (0.0, 3.0):
        learned = [Level() for _ in range(BINS)]
        for level, logs in zip(learned, told, strict=True):
            for log_ratio in random.sample(logs, len(logs)):
                learn_level(level, log_ratio + unit, NOW_S)
        found.append(slower_from(learned))
    assert found[0] == found[1]
    if found[0] is not None:
        before, after = ([x for logs in part for x in logs] for part in (told[: found[0]], told[found[0] :]))
        assert sum(after) / len(after) > sum(before) / len(before) + 1.0


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_a_kind_that_unloads_later_is_believed_to_be_there_for_longer(one_s: float, other_s: float) -> None:
    sooner, later = sorted((one_s, other_s))
    assert all(a >= b for a, b in zip(prior_shares(sooner), prior_shares(later), strict=True))
    assert prior_shares(sooner) == sorted(prior_shares(sooner))


# --- who leaves teaches no speed --------------------------------------------------------------------------------------


@given(seeds, unloads, st.floats(0.0, 12.0), st.floats(-2.0, 7.0))
def test_an_attempt_that_was_given_up_never_makes_a_load_look_less_likely_or_shorter(
    seed: int, unload_after_s: float | None, idle_log: float, waited_log: float
) -> None:
    past = Past(seed, unload_after_s)
    state = untold(past.model.state)
    with_it, without = (ColdModel(LOAD_S, unload_after_s, copied(state)) for _ in range(2))
    sent_s = past.now_s + exp(idle_log)
    sent = with_it.started(0.4, 0.3, sent_s, 0)
    assert sent is not None
    ended_s = sent_s + exp(waited_log)
    with_it.ended(0, ended_s)
    with_it.learn_silence(sent, exp(waited_log), ended_s)
    for outcomes in (*without.state.idle, *with_it.state.idle):
        # What is old fades with each attempt, whatever comes of it.
        learn_outcome(outcomes, 0.0, 0.0, ended_s)
    with_it, without = (ColdModel(LOAD_S, unload_after_s, model.state) for model in (with_it, without))
    for after_s in (0.0, 1.0, 20.0, 400.0, 5_000.0, 1e6):
        one, other = with_it.at(ended_s + after_s, 0), without.at(ended_s + after_s, 0)
        assert one.share >= other.share - 1e-12
        if other is not WARM:
            assert one.load_s >= other.load_s * (1.0 - 1e-12)
            assert one.load_s_mean >= other.load_s_mean * (1.0 - 1e-12)


@given(seeds, st.floats(0.0, 200.0))
def test_what_is_left_of_a_load_and_the_wait_before_it_are_together_no_less_than_the_load(
    seed: int, waited_s: float
) -> None:
    model = Past(seed, 300.0).model
    sent_s = (model.state.used_s or NOW_S) + 7_200.0
    load_s = model.at(sent_s, 0).load_s
    model.started(0.4, 0.3, sent_s, 0)
    left = model.at(sent_s + waited_s, 1)
    assert left is WARM or left.load_s + waited_s >= load_s - 1e-6  # epoch seconds are no finer


# --- order and processes ----------------------------------------------------------------------------------------------


@given(seeds, unloads)
def test_the_order_of_what_happens_in_one_moment_makes_no_difference(seed: int, unload_after_s: float | None) -> None:
    past, draw = Past(seed, unload_after_s, count=25), Random(f"{seed} order")
    state, now_s = copied(past.model.state), past.now_s + exp(draw.uniform(0.0, 9.0))
    attempts = [(draw.uniform(0.1, 1.0), draw.lognormvariate(2.0, 1.0)) for _ in range(4)]
    # Who ends in one moment with what was sent in one moment.
    ends = [("content" if draw.random() < 0.5 else "silence", index) for index in range(4)]
    ends.append(("resident", draw.choice((True, False))))

    def played(order: list[tuple[str, Any]], sending: list[int]) -> list[tuple[float, float]]:
        model = ColdModel(LOAD_S, unload_after_s, copied(state))
        sent = {}
        for place, index in enumerate(sending):
            sent[index] = model.started(attempts[index][0], 0.3, now_s, place)
        seen = [(c.share, c.load_s) for c in (model.at(now_s + s, 4) for s in (0.0, 1.0, 10.0, 60.0))]
        ends_s, left = now_s + 30.0, 4
        if any(what == "content" for what, _ in order):
            model.used(ends_s)
        for what, about in order:
            if what == "resident":
                model.told(bool(about), ends_s)
                continue
            left -= 1
            model.ended(left, ends_s)
            one = sent[about]
            assert one is not None
            if what == "content":
                model.learn(one, attempts[about][1], ends_s)
            else:
                model.learn_silence(one, 30.0, ends_s)
        later = (model.at(ends_s + s, 0) for s in (0.0, 12.0, 200.0, 1e4))
        return seen + [(c.share, c.load_s) for c in later]

    first = played(ends, [0, 1, 2, 3])
    for _ in range(3):
        shuffled = draw.sample(ends, len(ends))
        other = played(shuffled, draw.sample(range(4), 4))
        assert [x for pair in other for x in pair] == pytest.approx([x for pair in first for x in pair], rel=1e-9)


def numbers(state: ColdState) -> list[float]:
    """All numbers in it, in order."""
    found: list[float] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                walk(value[key])
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, (int, float)):
            found.append(float(value))

    walk(msgspec.to_builtins(state))
    return found


@given(seeds, seeds, seeds)
def test_what_processes_have_learned_adds_up_whoever_is_first(one: int, two: int, three: int) -> None:
    a, b, c = (Past(seed, count=15).model.state for seed in (one, two, three))
    assert numbers(combined(a, b)) == pytest.approx(numbers(combined(b, a)))
    assert numbers(combined(combined(a, b), c)) == pytest.approx(numbers(combined(a, combined(b, c))))


@given(seeds)
def test_what_one_process_has_learned_and_another_has_not_is_what_it_was(seed: int) -> None:
    past = Past(seed)
    alone, both = past.model, ColdModel(LOAD_S, None, combined(past.model.state, ColdState()))
    for after_s in (0.0, 20.0, 200.0, 2_000.0, 2e4):
        assert both.at(past.now_s + after_s, 0) == alone.at(past.now_s + after_s, 0)


@given(seeds, unloads)
def test_reading_writes_nothing_and_a_snapshot_says_all(seed: int, unload_after_s: float | None) -> None:
    past = Past(seed, unload_after_s)
    encoded = msgspec.json.encode(past.model.state)
    again = ColdModel(LOAD_S, unload_after_s, copied(past.model.state))
    for after_s in (0.0, 5.0, 50.0, 500.0, 5e4):
        for in_flight in (0, 1, 3):
            assert past.model.at(past.now_s + after_s, in_flight) == again.at(past.now_s + after_s, in_flight)
    assert msgspec.json.encode(past.model.state) == encoded
    assert len(encoded) < 4_096


# --- in the router ----------------------------------------------------------------------------------------------------


def weathered(seed: int, names: list[str]) -> Router:
    """A router over two engines that unload, one of which tells, and what an hour was like."""
    draw = Random(seed)
    endpoints = [make.endpoint(name, prior=replace(make.LOCAL_PRIOR, unload_after_s=300.0)) for name in names]
    router, now_s = Router(tuple(endpoints), make.policy()), NOW_S
    for index in range(30):
        now_s += exp(draw.uniform(0.0, 7.0))
        which, cold = draw.randrange(len(names)), draw.random() < 0.3
        name, ttft_s = sorted(names)[which], draw.uniform(0.2, 0.4) + 20.0 * cold
        router.observe(Probed(endpoint=sorted(names)[0], up=True, resident=draw.random() < 0.5), now_s)
        router.observe(
            Started(request_id=f"r{index}", endpoint=name, klass="chat", prompt_tokens=200, prompt_bytes=800), now_s
        )
        now_s += ttft_s
        if draw.random() < 0.8:
            router.observe(FirstToken(request_id=f"r{index}", endpoint=name, ttft_s=ttft_s), now_s)
            ended = Ended(request_id=f"r{index}", endpoint=name, ending=Ending.OK, e2e_s=ttft_s, ttft_s=ttft_s)
        else:
            ended = Ended(request_id=f"r{index}", endpoint=name, ending=Ending.CANCELLED, e2e_s=ttft_s)
        router.observe(ended, now_s)
    return router


@pytest.mark.lengthy
@given(seeds)
def test_the_order_of_endpoints_changes_nothing(seed: int) -> None:
    one, other = weathered(seed, ["a", "b"]), weathered(seed, ["b", "a"])
    assert bytes(one.snapshot()) == bytes(other.snapshot())
    request = make.request(arrived_s=NOW_S + 1e5)
    assert one.candidates(request, NOW_S + 1e5) == other.candidates(request, NOW_S + 1e5)
