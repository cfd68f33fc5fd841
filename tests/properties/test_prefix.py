"""Laws of what is cached: a longer beginning in common, another order, another replica, more time."""

from itertools import accumulate
from math import exp
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import NOW_S, Storm
from tidegate.core.cached import Prompt, shortened
from tidegate.core.endpoint import EndpointModel
from tidegate.core.estimator import WIDE
from tidegate.core.keeping import JUDGE_S, Keeping, combined, copied, fault, sums_of
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending, FirstToken, Request, Slo, replace
from tidegate.core.prefix import Prefixes
from tidegate.core.prior import CachePrior
from tidegate.core.prompts import Kept, Prompts, Span
from tidegate.core.value import attainment

seeds = st.integers(0, 10_000)
shares = st.floats(0.0, 1.0)
priors = st.builds(
    CachePrior,
    share=shares,
    tokens=st.none() | st.floats(100.0, 1e7),
    lifetime_s=st.none() | st.floats(1.0, 1e5),
    tokens_min=st.sampled_from([0, 0, 1024]),
)


def digests(draw: Random, blocks: int) -> tuple[int, ...]:
    """Of one of a few conversations, which part at some block."""
    talk, part = draw.randrange(5), draw.randrange(40)
    found = [1000 * (talk + 1 if block >= 2 else 0) + block for block in range(blocks)]
    found[part + 2 :] = [draw.getrandbits(32) for _ in found[part + 2 :]]
    return tuple(found)


def lived(seed: int, prior: CachePrior) -> tuple[Prefixes, Prompts, float]:
    """One that was given prompts, and told what was cached of them."""
    draw, state, now_s = Random(seed), Prompts(), NOW_S
    prefixes = Prefixes(prior, state)
    for _ in range(60):
        now_s += draw.choice((0.0, 0.05, 1.0, 60.0))
        own = digests(draw, draw.choice((0, 1, 3, 8, 30, 200)))
        size = 1024 * len(own) + draw.randrange(1024)
        asked = Prompt(own, max(1, size // 4), size)
        sent = prefixes.given(shortened(own, size), asked.tokens, prefixes.cached(asked, now_s), now_s)
        if draw.random() < 0.9:
            prefixes.put(sent, now_s)
        told = draw.choice((None, 0, asked.tokens // 2, asked.tokens - 1))
        prefixes.learn(sent, draw.randrange(500), asked.tokens, told, now_s)
    prefixes.settle(now_s + JUDGE_S)
    return prefixes, state, now_s + JUDGE_S


@given(seeds, priors, st.integers(0, 40), st.integers(1, 40), st.integers(0, 4))
def test_a_longer_beginning_in_common_never_means_more_that_is_computed(
    seed: int, prior: CachePrior, shared: int, more: int, talk: int
) -> None:
    prefixes, _, now_s = lived(seed, prior)
    known = [1000 * (talk + 1 if block >= 2 else 0) + block for block in range(80)]
    fresh = list(range(10**6, 10**6 + 80))
    short, long = (tuple(known[:n] + fresh[n:]) for n in (shared, shared + more))
    one, other = (prefixes.cached(Prompt(each, 20_480, 81_920), now_s) for each in (short, long))
    assert other.tokens >= one.tokens - 1e-6
    for p in (0.1, 0.5, 0.9):
        assert other.at_least(p) >= one.at_least(p) - 1e-6


@given(seeds, priors, seeds)
def test_what_is_expected_is_within_the_prompt_and_its_steps_become_less_likely(
    seed: int, prior: CachePrior, asked: int
) -> None:
    prefixes, _, now_s = lived(seed, prior)
    draw = Random(asked)
    own = digests(draw, draw.choice((0, 1, 2, 9, 100, 256)))
    size = 1024 * len(own) + draw.randrange(4096)
    prompt = Prompt(own, max(1, size // 3), size)
    found = prefixes.cached(prompt, now_s)
    assert 0.0 <= found.tokens <= prompt.tokens - 1
    assert 0.0 <= found.sd <= prompt.tokens
    tokens, likely = [t for t, _ in found.steps], [p for _, p in found.steps]
    assert tokens == sorted(tokens)
    assert likely == sorted(likely, reverse=True)
    assert all(0.0 <= p <= 1.0 for p in likely)
    assert all(0.0 <= t <= prompt.tokens - 1 for t in tokens)


@given(seeds, priors, st.permutations(range(6)))
def test_the_order_within_one_moment_changes_nothing(seed: int, prior: CachePrior, order: list[int]) -> None:
    found = []
    for indices in (range(6), order):
        prefixes, state, now_s = lived(seed, prior)
        draw, sent = Random(seed + 1), []
        for _ in range(6):
            own = digests(draw, draw.choice((0, 2, 9, 40)))
            prompt = Prompt(own, max(1, 256 * len(own)), 1024 * len(own))
            given_ = prefixes.given(
                shortened(own, 1024 * len(own)), prompt.tokens, prefixes.cached(prompt, now_s), now_s
            )
            sent.append((given_, draw.choice((None, 0, 200)), draw.randrange(100)))
        for index in indices:
            prefixes.put(sent[index][0], now_s + 1.0)
        for index in indices:
            one, cached_tokens, output_tokens = sent[index]
            prefixes.learn(one, output_tokens, 1_000, cached_tokens, now_s + 2.0)
        prefixes.settle(now_s + 3.0)
        asked = [digests(draw, 50) for _ in range(20)]
        found.append(
            [
                (c.tokens, c.sd, *(step for steps in c.steps for step in steps))
                for c in (prefixes.cached(Prompt(own, 12_800, 51_200), now_s + 4.0) for own in asked)
            ]
        )
        assert state.uses
    for one_way, other_way in zip(*found, strict=True):
        assert other_way == pytest.approx(one_way, rel=1e-9)


def learned(seed: int, now_s: float = NOW_S) -> Kept:
    draw = Random(seed)
    keeping = Keeping(CachePrior(), Kept())
    for _ in range(draw.randrange(30)):
        now_s += draw.choice((0.0, 1.0, 100.0, 5_000.0))
        spans = tuple(
            Span(draw.uniform(1.0, 5_000.0), draw.randrange(18), draw.randrange(14), draw.random(), draw.random())
            for _ in range(draw.randrange(3))
        )
        keeping.learn(spans, draw.random(), 9_000.0, draw.uniform(0.0, 9_000.0), now_s)
    return keeping.kept


def flat(kept: Kept) -> list[float]:
    return [value for sums in sums_of(kept) for value in sums]


@given(seeds, seeds, seeds)
def test_what_replicas_learned_adds_up_in_any_order(a: int, b: int, c: int) -> None:
    one, two, three = (learned(seed) for seed in (a, b, c))
    now_s = NOW_S + 200_000.0
    assert flat(combined(one, two, now_s)) == flat(combined(two, one, now_s))
    left = combined(combined(one, two, now_s), three, now_s)
    right = combined(one, combined(two, three, now_s), now_s)
    assert flat(left) == pytest.approx(flat(right), rel=1e-9)


@given(seeds, st.floats(0.0, 1e6))
def test_a_copy_is_sound_of_no_later_than_now_and_its_own(seed: int, back_s: float) -> None:
    kept = learned(seed)
    before = msgspec.json.encode(kept)
    made = copied(kept, NOW_S - back_s)
    assert fault(kept) == fault(made) == ""
    assert made.at_s <= NOW_S - back_s
    assert flat(made) == flat(kept)
    made.hits_by_age[0] += 1.0
    assert msgspec.json.encode(kept) == before


@given(seeds, st.lists(st.tuples(st.floats(1.0, 1e4), shares), min_size=1, max_size=4), st.floats(0.0, 1e7))
def test_age_shifts_nothing_that_was_learned_and_makes_it_less_certain(
    seed: int, stretches: list[tuple[float, float]], age_s: float
) -> None:
    keeping = Keeping(CachePrior(), learned(seed))
    ends = accumulate(tokens for tokens, _ in stretches)
    steps = list(zip(ends, sorted((p for _, p in stretches), reverse=True), strict=True))
    mean, sd = keeping.expected(steps, 5e4, keeping.kept.at_s)
    later, wider = keeping.expected(steps, 5e4, keeping.kept.at_s + age_s)
    assert later == mean
    assert wider >= sd - 1e-6


@given(seeds, st.integers(2, 12))
def test_what_was_seen_of_late_counts_for_more(seed: int, times: int) -> None:
    found = []
    for first in (True, False):
        keeping = Keeping(CachePrior(), copied(learned(seed), NOW_S))
        for index in range(2 * times):
            hit = first == (index < times)
            spans = (Span(4_000.0, 3, 3, keeping.odds.by_distance[3], keeping.odds.by_age[3]),)
            keeping.learn(spans, keeping.odds.by_size[4], 9_000.0, 4_000.0 * hit, NOW_S + 300_000.0 + 900.0 * index)
        keeping.settle(NOW_S + 400_000.0)
        found.append(keeping.odds.by_distance[3] * keeping.odds.by_age[3] * keeping.odds.by_size[4])
    hits_first, misses_first = found
    assert misses_first > hits_first


@pytest.mark.lengthy
@given(seeds)
def test_what_was_cancelled_or_failed_teaches_nothing_of_the_cache(seed: int) -> None:
    storm = Storm(seed).run(100)
    for (request_id, endpoint), _ in list(storm.sent.items()):
        before = flat(storm.router.endpoint(endpoint).state.prompts.kept)
        storm.router.endpoint(endpoint).state.prompts.kept.new = False
        ending = Ending.CANCELLED if seed % 2 else Ending.TIMED_OUT
        storm.router.observe(
            Ended(
                request_id=request_id, endpoint=endpoint, ending=ending, e2e_s=1.0, prompt_tokens=900, cached_tokens=1
            ),
            storm.now_s,
        )
        assert flat(storm.router.endpoint(endpoint).state.prompts.kept) == before


def asked(draw: Random) -> Request:
    own = digests(draw, draw.choice((1, 4, 30, 120)))
    slo = draw.choice((Slo(ttft_s=1.0), Slo(ttft_s=20.0, tpot_s=0.05), Slo(e2e_s=9.0)))
    return make.request(prompt_tokens=256 * len(own), prompt_bytes=1024 * len(own), prefix=own, slo=slo)


@pytest.mark.lengthy
@given(seeds)
def test_what_is_cached_makes_nothing_slower_dearer_or_less_certain_to_be_in_time(seed: int) -> None:
    draw, now_s, lengths = Random(seed), NOW_S, LengthModel()
    price = replace(make.REMOTE_PRICE, usd_per_cached_token=draw.choice((None, 1e-7)))
    model = EndpointModel(make.endpoint("desk", price=price, concurrency=4), 0.9)
    length = lengths.at("chat", 100)
    for _ in range(60):
        now_s += draw.choice((0.01, 1.0, 30.0))
        request = asked(draw)
        model.started(make.started(request, "desk"), model.base(request, length, now_s), now_s)
        now_s += draw.choice((0.05, 0.5, 3.0))
        if draw.random() < 0.8:
            model.first(request.id, now_s)
        model.ended(
            Ended(
                request_id=request.id,
                endpoint="desk",
                ending=Ending.OK,
                e2e_s=4.0,
                ttft_s=draw.choice((0.1, 1.0, 3.0)),
                prompt_tokens=request.prompt_tokens,
                cached_tokens=draw.choice((None, 0, request.prompt_tokens // 2, request.prompt_tokens - 1)),
                output_tokens=30,
            ),
            now_s + 1.0,
        )
        now_s += 1.0
    for _ in range(10):
        request = asked(draw)
        warm, cold = (model.base(r, length, now_s) for r in (request, replace(request, prefix=(7,))))
        assert warm.first_s <= cold.first_s * (1 + 1e-9)
        # Below that nobody looks.
        narrow_s = max(warm.warm_s, warm.sure_s) * exp(WIDE * warm.deviations)
        assert warm.warm_s_high <= max(cold.warm_s_high, narrow_s) * (1 + 1e-9)
        assert warm.cost_usd <= cold.cost_usd * (1 + 1e-9)


@given(seeds, st.floats(0.05, 60.0))
def test_a_promise_is_as_likely_kept_with_what_may_be_cached_as_without(seed: int, ttft_s: float) -> None:
    """Before anything was learned of times, and so by one spread of all: what may be there never counts against it."""
    draw, length = Random(seed), LengthModel().at("chat", 100)
    model = EndpointModel(make.endpoint("desk"), 0.9)
    for turn in range(draw.randrange(1, 8)):
        request = asked(draw)
        cached = model.base(request, length, float(turn)).cached
        sent = model.prefixes.given(make.started(request, "desk").prefix, request.prompt_tokens, cached, float(turn))
        model.prefixes.put(sent, float(turn))
        model.prefixes.learn(sent, 10, 1_000, draw.choice((None, 0, 999)), turn + 0.5)
    request = replace(asked(draw), slo=Slo(ttft_s=ttft_s))
    warm, cold = (model.base(r, length, 10.0) for r in (request, replace(request, prefix=())))
    assert attainment(request, warm, 0.0) >= attainment(request, cold, 0.0) - 1e-9
    assert warm.first_s_high <= cold.first_s_high * (1 + 1e-9)


def test_storms_find_beginnings_and_are_told_of_them() -> None:
    routers = [Storm(seed).run(150).router for seed in range(10)]
    prompts = [routers[i].endpoint(name).state.prompts for i in range(10) for name in ("desk", "cloud", "lap")]
    assert sum(len(p.uses) for p in prompts) > 50
    assert sum(sum(p.kept.hits_by_distance) > 0.0 for p in prompts) > 5


def test_first_content_of_what_nobody_sent_is_nothing_to_remember() -> None:
    router = make.router(make.endpoint("laptop"))
    router.observe(FirstToken(request_id="nobody", endpoint="laptop", ttft_s=1.0), 0.0)
    assert not router.endpoint("laptop").state.prompts.uses
