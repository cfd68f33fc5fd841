"""A simulated engine: iterations as they would be one by one, memory that is never overdrawn, and queueing theory."""

from collections.abc import Iterator
from math import inf, sqrt
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make as core
from tests.sim.make import STEP, drained, job, profile, times
from tidegate.core.model import replace
from tidegate.core.step import Linear, StepTime
from tidegate.sim.engine import Engine, Kind, Told
from tidegate.sim.job import Job
from tidegate.sim.kv import BLOCK_TOKENS, KvCache, blocks_for

seeds = st.integers(0, 10_000)
# Two ranks that share experts, on declared hardware.
IN_STEP = replace(
    STEP,
    ranks=2,
    linear=Linear(weights_s=0.01, per_token_s=1e-4, experts_s=0.02, expert_share=0.1, per_expert_token_s=5e-5),
)


def test_one_request_alone_takes_what_its_iterations_take() -> None:
    engine = Engine(profile())
    engine.submit(job("a", prompt_tokens=500, output_tokens=4), 1.0)
    told = drained(engine)
    prefill_s = sum(
        STEP.base_s + STEP.per_token_s * n + STEP.per_pair_s * n * (before + n / 2)
        for n, before in ((256, 0), (244, 256))
    )
    decode_s = sum(
        STEP.base_s + STEP.per_token_s + STEP.per_sequence_s + STEP.per_context_token_s * (500 + n) for n in range(3)
    )
    assert times(told, Kind.FIRST) == {"a": pytest.approx(1.0 + prefill_s)}
    assert times(told, Kind.DONE) == {"a": pytest.approx(1.0 + prefill_s + decode_s)}
    assert engine.iterations == 5


def test_an_answer_of_one_token_ends_with_it() -> None:
    engine = Engine(profile())
    engine.submit(job("a", output_tokens=1), 0.0)
    told = drained(engine)
    assert [t.kind for t in told] == [Kind.FIRST, Kind.DONE]
    assert told[0].at_s == told[1].at_s


def test_tokens_exist_from_the_end_of_their_iteration_on() -> None:
    step = StepTime(base_s=0.1, per_token_s=0.0)
    engine = Engine(profile(step=step, batch_tokens=100))
    sequence = engine.submit(job("a", prompt_tokens=200, output_tokens=10), 0.0)
    assert sequence is not None
    found = []
    for number in range(12):
        engine.advance(now_s := 0.1 * number + 0.05)
        found.append(engine.generated(sequence, now_s))
    assert found == [0, 0, *range(1, 11)]


def test_the_clients_bound_cuts_the_answer() -> None:
    engine = Engine(profile())
    engine.submit(job("a", output_tokens=50, output_tokens_max=3), 0.0)
    assert drained(engine)[-1].sequence.generated == 3


class Storm:
    """Random work for one engine, some of it with `several` prompts. With `cuts` every leap is cut at random times,
    which must change nothing.
    """

    def __init__(
        self,
        seed: int,
        *,
        cuts: bool = False,
        by_slot: bool = False,
        several: bool = False,
        kv_tokens: int = 4_096,
        **changes: object,
    ) -> None:
        draw, inputs = Random(seed), Random(seed)
        self.engine = Engine(
            profile(kv_tokens=kv_tokens, slots=draw.choice((1, 3, 8)), **changes), reads_by_slot=by_slot
        )
        self.told: list[Told] = []
        self.accepted: list[Job] = []
        self.cancelled: set[str] = set()
        # Of each that is there, at each look, how many tokens exist.
        self.generated: list[dict[str, int]] = [{}]
        self._cuts = Random(seed) if cuts else None
        self._at_s = now_s = 0.0
        for number in range(60):
            now_s += draw.choice((0.0, 0.001, 0.02, 0.3))
            blocks = tuple(draw.choice(((1, 2, 3), (1, 2, 4, 5), (number + 10,), ()))[: draw.choice((1, 2, 9))])
            made = job(
                f"r{number}",
                prompt_tokens=max(64 * len(blocks), draw.choice((1, 30, 300, 900))),
                output_tokens=draw.choice((1, 5, 40, 400)),
                blocks=blocks,
                prompts=inputs.choice((1, 2, 7)) if several else 1,
            )
            self.until(now_s)
            if self.engine.submit(made, now_s) is not None:
                self.accepted.append(made)
            if draw.random() < 0.1 and self.accepted:
                gone = draw.choice(self.accepted).request.id
                self.cancelled.add(gone)
                self.engine.cancel(gone, now_s)
            if draw.random() < 0.05:
                self.engine.slow(draw.choice((1.0, 3.0)), now_s)
            if draw.random() < 0.03:
                self.engine.freeze(now_s, now_s + 0.5)
            self.check()
        while self.engine.next_s < inf:
            self.until(self.engine.next_s)
            self.check()

    def until(self, now_s: float) -> None:
        while self.engine.next_s <= now_s:
            if self._cuts is not None and self._cuts.random() < 0.7:
                # Not before the last thing that happened: what is past is past.
                self.engine._cut(self._cuts.uniform(self._at_s, self.engine.next_s))
            self._at_s = min(self.engine.next_s, now_s)
            self.told += self.engine.advance(self._at_s)
        self._at_s = max(self._at_s, now_s)

    def check(self) -> None:
        kv = self.engine.kv
        assert 0 <= kv.used <= kv.capacity
        assert kv.used + kv.kept <= kv.capacity
        assert self.engine.running <= self.engine.profile.slots
        assert sum(kv._phases) == kv._growing == self.engine._decoding
        before, engine = self.generated[-1], self.engine
        batch = [*engine._prefilling, *engine._completed, *(end[2] for end in engine._ends)]
        in_use = [one.slot for one in batch]
        assert sorted([*in_use, *engine._free_slots]) == list(range(engine.profile.slots))
        there = {name: engine.generated(sequence, self._at_s) for name, sequence in engine._sequences.items()}
        assert all(before.get(name, 0) <= count <= engine._sequences[name].target for name, count in there.items())
        self.generated.append(there)


@given(seeds, st.booleans())
def test_every_request_is_told_of_once_in_order_unless_its_client_left(seed: int, by_slot: bool) -> None:
    storm = Storm(seed, by_slot=by_slot)
    assert [t.at_s for t in storm.told] == sorted(t.at_s for t in storm.told)
    for kind in Kind:
        ids = [t.sequence.job.request.id for t in storm.told if t.kind is kind]
        assert len(ids) == len(set(ids))
        assert {j.request.id for j in storm.accepted} - storm.cancelled <= set(ids)
    assert all(t.sequence.generated == t.sequence.target for t in storm.told if t.kind is Kind.DONE)


@given(seeds, st.booleans())
def test_when_all_is_done_nothing_is_used_and_only_prefixes_are_kept(seed: int, several: bool) -> None:
    engine = Storm(seed, several=several).engine
    assert (engine.running, engine.queued, engine.kv.used) == (0, 0, 0)
    assert not any(engine.kv._references.values())
    assert engine._context == 0


@pytest.mark.lengthy
@pytest.mark.parametrize("step", [STEP, IN_STEP])
@given(seed=seeds, by_slot=st.booleans())
def test_leaps_tell_what_single_iterations_would(step: StepTime, seed: int, by_slot: bool) -> None:
    leaping = Storm(seed, by_slot=by_slot, step=step)
    stepping = Storm(seed, cuts=True, by_slot=by_slot, step=step)
    whole, cut = leaping.told, stepping.told
    assert [(t.kind, t.sequence.job.request.id) for t in whole] == [(t.kind, t.sequence.job.request.id) for t in cut]
    assert [t.at_s for t in whole] == pytest.approx([t.at_s for t in cut], rel=1e-9)
    # While requests come both are looked at at the same times.
    assert leaping.generated[:60] == stepping.generated[:60]


@given(seeds, st.booleans(), st.booleans(), st.sampled_from((480, 1_600)))
def test_with_little_memory_all_is_done_all_the_same(seed: int, by_slot: bool, several: bool, kv_tokens: int) -> None:
    storm = Storm(seed, by_slot=by_slot, several=several, kv_tokens=kv_tokens)
    done = {t.sequence.job.request.id for t in storm.told if t.kind is Kind.DONE}
    assert {j.request.id for j in storm.accepted} - storm.cancelled <= done


def test_some_storms_run_out_of_memory() -> None:
    assert sum(Storm(seed, kv_tokens=1_600).engine.preemptions for seed in range(20)) > 10


@given(seeds)
def test_without_memory_of_prefixes_nothing_is_shared(seed: int) -> None:
    storm = Storm(seed, keeps_prefixes=False)
    assert all(t.sequence.cached_tokens == 0 for t in storm.told)
    assert storm.engine.kv.kept == 0


def test_a_prompt_that_begins_like_an_earlier_one_is_computed_from_where_they_differ() -> None:
    engine = Engine(profile())
    engine.submit(job("a", prompt_tokens=300, blocks=(1, 2, 3, 4)), 0.0)
    drained(engine)
    engine.submit(job("b", prompt_tokens=300, blocks=(1, 2, 9, 4)), 100.0)
    engine.submit(job("c", prompt_tokens=256, blocks=(1, 2, 3, 4)), 200.0)
    cached = {t.sequence.job.request.id: t.sequence.cached_tokens for t in drained(engine)}
    assert cached == {"b": 128, "c": 192}  # of a prompt that is known whole, the last block is computed again


@pytest.mark.parametrize("by_slot", [False, True])
def test_of_prompts_in_slots_the_oldest_is_computed_first_or_that_in_the_lowest_slot(by_slot: bool) -> None:
    engine = Engine(profile(slots=2, batch_tokens=256), reads_by_slot=by_slot)
    engine.submit(job("short", prompt_tokens=10, output_tokens=1), 0.0)
    engine.submit(job("long", prompt_tokens=4_000, output_tokens=1), 0.0)
    told: list[Told] = []
    while not told:
        told = engine.advance(engine.next_s)
    engine.submit(job("late", prompt_tokens=1_000, output_tokens=1), told[0].at_s + 0.1)
    order = [one.sequence.job.request.id for one in told + drained(engine) if one.kind is Kind.FIRST]
    assert order == (["short", "late", "long"] if by_slot else ["short", "long", "late"])


def test_what_is_used_least_lately_is_forgotten_first_and_the_end_of_a_prefix_before_its_beginning() -> None:
    kv = KvCache(8, keeps=True)
    for blocks in ((1, 2), (3, 4)):
        assert kv.take(4)
        kv.publish(blocks, 2)
        kv.leave(blocks)
    assert kv.take(2)
    assert (kv.matched((1, 2)), kv.matched((3, 4))) == (1, 2)


@given(st.lists(st.integers(0, 200), max_size=20), st.integers(0, 100), st.integers(0, 200))
def test_memory_grows_with_the_tokens_that_are_held(held: list[int], step: int, steps: int) -> None:
    kv = KvCache(10**6, keeps=False)
    for tokens in held:
        kv.grows(tokens - step)
    assert kv.growth(step, steps) == sum(blocks_for(tokens + steps) - blocks_for(tokens) for tokens in held)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=20), st.integers(0, 60), st.integers(1, 300))
def test_as_many_steps_are_taken_as_there_is_memory_for(held: list[int], capacity: int, steps: int) -> None:
    kv = KvCache(capacity, keeps=False)
    for tokens in held:
        kv.grows(tokens)
    most = kv.steps_until_full(0, steps)
    assert kv.growth(0, most) <= capacity
    assert most == steps or kv.growth(0, most + 1) > capacity


def test_a_full_queue_refuses_and_so_does_what_can_never_fit() -> None:
    engine = Engine(profile(slots=1, queue_max=1, kv_tokens=1_024))
    assert engine.submit(job("big", prompt_tokens=1_020, output_tokens=100), 0.0) is None
    # The first does not wait: it begins with the next iteration.
    assert [engine.submit(job(name), 0.0) is not None for name in "abc"] == [True, True, False]
    engine.advance(0.0)
    assert (engine.running, engine.queued) == (1, 1)
    assert engine.submit(job("d"), 0.001) is None


def test_of_several_prompts_one_at_a_time_is_in_memory_and_none_is_left_there() -> None:
    engine = Engine(profile(kv_tokens=1_024))
    assert engine.submit(job("long", prompt_tokens=5_200, output_tokens=1, prompts=5), 0.0) is None
    assert engine.submit(job("a", prompt_tokens=5_000, output_tokens=1, prompts=5, blocks=(1, 2)), 0.0) is not None
    told = engine.advance(0.0)
    assert engine.kv.used == blocks_for(1_000)
    told += drained(engine)
    one = Engine(profile(kv_tokens=8_192))
    one.submit(job("a", prompt_tokens=5_000, output_tokens=1), 0.0)
    assert times(told, Kind.DONE) == times(drained(one), Kind.DONE)
    assert (engine.kv.used, engine.kv.kept) == (0, 0)


def test_who_come_at_once_have_all_the_slots_and_then_the_queue() -> None:
    engine = Engine(profile(slots=8, queue_max=2))
    taken = [engine.submit(job(f"r{number}"), 0.0) is not None for number in range(12)]
    assert taken == [True] * 10 + [False] * 2
    without = Engine(profile(slots=8, queue_max=0))
    assert [without.submit(job(f"r{number}"), 0.0) is not None for number in range(9)] == [True] * 8 + [False]


def test_no_more_sequences_run_than_an_iteration_has_tokens() -> None:
    engine = Engine(profile(slots=8, batch_tokens=2))
    for name in "abcd":
        engine.submit(job(name, prompt_tokens=4, output_tokens=50), 0.0)
    told = engine.advance(0.5)
    assert (engine.running, engine.queued) == (2, 2)
    assert len(times([*told, *drained(engine)], Kind.DONE)) == 4


def test_an_engine_of_one_token_an_iteration_and_little_memory_ends_what_it_begins() -> None:
    engine = Engine(profile(slots=2, batch_tokens=1, kv_tokens=128))
    engine.submit(job("a", prompt_tokens=16, output_tokens=100), 0.0)
    engine.submit(job("b", prompt_tokens=112, output_tokens=1), 0.0)
    assert times(drained(engine), Kind.DONE).keys() == {"a", "b"}


def test_who_waits_for_memory_waits_although_there_are_slots() -> None:
    engine = Engine(profile(slots=8, queue_max=1, kv_tokens=1_024))
    engine.submit(job("a", prompt_tokens=900, output_tokens=100), 0.0)
    engine.submit(job("b", prompt_tokens=900), 0.0)
    # Until the first prompt is computed, and the second finds no room.
    engine.advance(0.5)
    assert (engine.running, engine.queued) == (1, 1)
    assert engine.submit(job("c"), 0.5) is None


def test_a_model_is_loaded_first_and_again_after_it_was_idle_for_long() -> None:
    engine = Engine(profile(load_s=5.0, unload_after_s=60.0))
    first = []
    for number, at_s in enumerate((0.0, 20.0, 200.0)):
        engine.submit(job(f"r{number}"), at_s)
        first.append(min(t.at_s for t in drained(engine)) - at_s)
    assert first[0] == pytest.approx(first[2])
    assert first[0] == pytest.approx(5.0 + first[1])


def test_a_crash_loses_all_and_a_freeze_nothing() -> None:
    engine = Engine(profile())
    engine.submit(job("a", output_tokens=100), 0.0)
    engine.advance(0.3)
    assert [s.job.request.id for s in engine.fail(0.3, 10.0)] == ["a"]
    assert (engine.kv.used, engine.running, engine.next_s) == (0, 0, inf)
    engine.submit(job("b"), 1.0)
    calm = Engine(profile())
    calm.submit(job("b"), 10.0)
    assert times(drained(engine), Kind.DONE) == times(drained(calm), Kind.DONE)
    frozen = Engine(profile())
    frozen.submit(job("b"), 10.0)
    frozen.freeze(10.01, 15.01)
    assert times(drained(frozen), Kind.DONE)["b"] == pytest.approx(5.0 + _alone(10.0))


@pytest.mark.parametrize(
    ("freezes", "late_s"),
    [
        ([(10.01, 15.01), (13.01, 18.01)], 8.0),
        ([(10.01, 15.01), (12.01, 13.01)], 5.0),
        ([(10.01, 15.01), (15.01, 16.01)], 6.0),
    ],
    ids=["overlapping", "within", "one after the other"],
)
def test_freezes_that_overlap_are_as_long_as_both_together(freezes: list[tuple[float, float]], late_s: float) -> None:
    engine = Engine(profile())
    engine.submit(job("b"), 10.0)
    for at_s, until_s in freezes:
        engine.advance(at_s)
        engine.freeze(at_s, until_s)
    assert times(drained(engine), Kind.DONE)["b"] == pytest.approx(late_s + _alone(10.0))


def _alone(at_s: float) -> float:
    engine = Engine(profile())
    engine.submit(job("b"), at_s)
    return times(drained(engine), Kind.DONE)["b"]


# --- queueing theory ------------------------------------------------------------------------------------------------

SERVICE_S = 0.1
LOAD = 0.7
COUNT = 40_000


def sojourns(arrivals: Iterator[tuple[float, Job]], engine: Engine) -> tuple[list[float], float, float]:
    """The time that each spends there, by arrival, the mean number there, and the time that the engine works."""
    told: list[Told] = []
    began: dict[str, float] = {}
    for at_s, one in arrivals:
        told += engine.advance(at_s)
        began[one.request.id] = at_s
        engine.submit(one, at_s)
    told += drained(engine)
    ended = times(told, Kind.DONE)
    spent = [ended[name] - at_s for name, at_s in began.items()]
    horizon_s = max(ended.values())
    return spent, sum(spent) / horizon_s, horizon_s


def poisson(seed: int, outputs: Iterator[int]) -> Iterator[tuple[float, Job]]:
    draw, at_s = Random(seed), 0.0
    request = core.request("r")
    for number in range(COUNT):
        at_s += draw.expovariate(LOAD / SERVICE_S)
        asked = replace(request, id=f"r{number}", output_tokens_max=None)
        yield at_s, Job(request=asked, prompt_tokens=1, output_tokens=next(outputs))


def within(found: list[float], expected: float) -> bool:
    """Whether the mean is as it should be: 3 standard errors, of 20 batches, since neighbours depend on each other."""
    size = len(found) // 20
    batches = [mean(found[n * size : (n + 1) * size]) for n in range(20)]
    error = sqrt(sum((b - mean(batches)) ** 2 for b in batches) / 19 / 20)
    return abs(mean(batches) - expected) < 3 * error


def ones() -> Iterator[int]:
    while True:
        yield 1


def exponential(seed: int, mean_tokens: float) -> Iterator[int]:
    draw = Random(seed)
    while True:
        yield 1 + int(draw.expovariate(1 / mean_tokens))


def single(step: StepTime, slots: int = 1) -> Engine:
    return Engine(profile(step=step, slots=slots, batch_tokens=10**6, kv_tokens=10**8))


def test_equal_work_one_at_a_time_is_m_d_1() -> None:
    engine = single(StepTime(base_s=SERVICE_S, per_token_s=0.0))
    spent, _, _ = sojourns(poisson(1, ones()), engine)
    assert within(spent, SERVICE_S * (1 + LOAD / (2 * (1 - LOAD))))


@pytest.mark.lengthy
def test_exponential_work_one_at_a_time_is_m_m_1() -> None:
    tokens = 1000.0
    engine = single(StepTime(base_s=SERVICE_S / (tokens + 0.5), per_token_s=0.0))
    spent, _, _ = sojourns(poisson(2, exponential(3, tokens)), engine)
    assert within(spent, SERVICE_S / (1 - LOAD))


@pytest.mark.lengthy
def test_a_batch_that_slows_with_each_member_is_processor_sharing() -> None:
    """Its mean is that of M/M/1, whatever the work is distributed like: here equal for all."""
    tokens = 200
    engine = single(StepTime(base_s=0.0, per_token_s=SERVICE_S / tokens), slots=10_000)

    def equal() -> Iterator[int]:
        while True:
            yield tokens

    spent, _, _ = sojourns(poisson(4, equal()), engine)
    assert within(spent, SERVICE_S / (1 - LOAD))


@pytest.mark.lengthy
@pytest.mark.parametrize("slots", [1, 4])
def test_littles_law_and_the_conservation_of_work_hold(slots: int) -> None:
    engine = single(StepTime(base_s=SERVICE_S / 101, per_token_s=0.0), slots=slots)
    spent, present, horizon_s = sojourns(poisson(5, exponential(6, 100.0)), engine)
    assert present == pytest.approx(COUNT / horizon_s * mean(spent), rel=1e-9)
    assert engine.busy_s <= horizon_s
    if slots == 1:
        # It works exactly as long as there is work: a server that is never idle while somebody waits.
        assert engine.busy_s == pytest.approx(engine.iterations * SERVICE_S / 101, rel=1e-9)


def test_blocks_are_whole_blocks_of_memory() -> None:
    assert (blocks_for(0), blocks_for(1), blocks_for(16), blocks_for(17)) == (0, 1, 1, 2)
    assert BLOCK_TOKENS == 16
