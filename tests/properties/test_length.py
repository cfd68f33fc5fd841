"""Laws of output lengths: order within an instant, age, what was cut, replicas, and what has streamed."""

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core import bins
from tidegate.core.counts import Counts, Lengths
from tidegate.core.endpoint import EndpointModel
from tidegate.core.inflight import ends_s
from tidegate.core.length import HALF_LIFE_S, LengthModel, combined

NOW_S = 1_700_000_000.0
DAY_S = float(HALF_LIFE_S)
KLASSES, MODELS, KEYS, SESSIONS = ("chat/short", "chat/long", "batch/short"), ("", "m"), ("", "a", "b"), ("", "s", "t")
TOKENS_MAX = (None, 1, 3, 100, 4_000)


class Sample(msgspec.Struct, frozen=True):
    """One output, and what it was asked with."""

    klass: str
    tokens: float
    model: str
    key: str
    prompt_tokens: int
    session: str
    at_least: bool = False


samples = st.builds(
    Sample,
    klass=st.sampled_from(KLASSES),
    tokens=st.floats(1.0, 50_000.0),
    model=st.sampled_from(MODELS),
    key=st.sampled_from(KEYS),
    prompt_tokens=st.sampled_from((0, 100, 5_000)),
    session=st.sampled_from(SESSIONS),
    at_least=st.booleans(),
)
many = st.lists(samples, max_size=40)


def learn(model: LengthModel, sample: Sample, now_s: float, *, known: LengthModel | None = None) -> None:
    turns = (known or model).turns(sample.session)
    model.learn(
        sample.klass,
        sample.tokens,
        now_s,
        at_least=sample.at_least,
        model=sample.model,
        key=sample.key,
        prompt_tokens=sample.prompt_tokens,
        session=sample.session,
        turns=turns,
    )


def after(known: list[Sample], now_s: float = NOW_S) -> LengthModel:
    """What was learned of these, one a minute until now."""
    model = LengthModel()
    for index, sample in enumerate(known):
        learn(model, sample, now_s - 60.0 * (len(known) - index))
    return model


def beliefs(model: LengthModel, tokens_max: int | None = None) -> list[list[float]]:
    return [
        list(model.at(klass, tokens_max, name, key, prompt_tokens).shares)
        for klass in KLASSES
        for name in MODELS
        for key in KEYS
        for prompt_tokens in (0, 100, 5_000)
    ]


def exceeded(shares: list[float]) -> list[float]:
    """The chance to be longer than each bin."""
    return [sum(shares[place + 1 :]) for place in range(len(shares))]


@given(many, st.lists(samples, min_size=2, max_size=8), st.integers(0, 99))
def test_the_order_within_an_instant_means_nothing(known: list[Sample], together: list[Sample], seed: int) -> None:
    one, other, before = after(known), after(known), after(known)
    shuffled = together.copy()
    Random(seed).shuffle(shuffled)
    for sample in together:
        learn(one, sample, NOW_S, known=before)
    for sample in shuffled:
        learn(other, sample, NOW_S, known=before)
    assert one.state == other.state
    assert beliefs(one) == beliefs(other)


@given(many, st.floats(1.0, 5_000.0), st.floats(1.0, 5_000.0), st.integers(1, 9), st.integers(1, 20))
def test_of_as_many_outputs_the_later_ones_count_more(
    known: list[Sample], first: float, last: float, count: int, days: int
) -> None:
    def learned(early: float, late: float) -> float:
        model = after(known, NOW_S - DAY_S * days)
        for tokens, at_s in ((early, NOW_S - DAY_S * days), (late, NOW_S)):
            for _ in range(count):
                model.learn("chat/short", tokens, at_s)
        return model.at("chat/short", None).expected_tokens

    low, high = sorted((first, last))
    assert learned(low, high) >= learned(high, low) - 1e-6


@given(many, samples)
def test_an_output_that_was_cut_makes_none_look_shorter(known: list[Sample], cut: Sample) -> None:
    model = after(known)
    before = beliefs(model)
    learn(model, msgspec.structs.replace(cut, at_least=True), NOW_S - 1.0)
    for one, other in zip(before, beliefs(model), strict=True):
        assert all(later >= early - 1e-9 for early, later in zip(exceeded(one), exceeded(other), strict=True))


@given(many, samples, st.sampled_from(TOKENS_MAX))
def test_nothing_is_believed_beyond_the_clients_bound(known: list[Sample], asked: Sample, bound: int | None) -> None:
    length = after(known).at(asked.klass, bound, asked.model, asked.key, asked.prompt_tokens)
    most = bins.EDGES[-1] if bound is None else float(bound)
    assert sum(length.shares) == pytest.approx(1.0)
    assert min(length.shares) >= 0.0
    assert 1.0 <= length.median_tokens <= length.high_tokens <= most
    assert 1.0 - 1e-9 <= length.expected_tokens <= most + 1e-9
    assert length.sigma > 0.0


@given(many, samples)
def test_a_tighter_bound_never_makes_outputs_longer(known: list[Sample], asked: Sample) -> None:
    model = after(known)
    found = [model.at(asked.klass, bound).expected_tokens for bound in (1, 2, 7, 50, 333, 4_000, None)]
    assert all(shorter <= longer + 1e-9 for shorter, longer in pairwise(found))


@given(many, samples)
def test_what_was_read_before_changes_nothing(known: list[Sample], asked: Sample) -> None:
    read, unread = LengthModel(), LengthModel()
    for index, sample in enumerate(known):
        learn(read, sample, NOW_S + index)
        learn(unread, sample, NOW_S + index)
        read.at(asked.klass, None, asked.model, asked.key, asked.prompt_tokens)
    assert beliefs(read) == beliefs(unread)


@given(many, many)
def test_a_restored_model_goes_on_as_the_one_that_was_kept(known: list[Sample], later: list[Sample]) -> None:
    kept = after(known)
    restored = LengthModel(msgspec.json.decode(msgspec.json.encode(kept.state), type=Lengths))
    for index, sample in enumerate(later):
        learn(kept, sample, NOW_S + index)
        learn(restored, sample, NOW_S + index)
    assert restored.state == kept.state
    assert beliefs(restored) == beliefs(kept)


# --- replicas -------------------------------------------------------------------------------------------------------


@given(many, many)
def test_replicas_add_up_in_either_order(one: list[Sample], other: list[Sample]) -> None:
    first, second = after(one).state, after(other, NOW_S + DAY_S).state
    assert combined(first, second) == combined(second, first)


@given(many, many, many)
def test_of_three_replicas_it_does_not_matter_which_two_are_added_first(
    one: list[Sample], other: list[Sample], third: list[Sample]
) -> None:
    parts = after(one).state, after(other, NOW_S + 600.0).state, after(third, NOW_S + DAY_S).state
    left, right = combined(combined(*parts[:2]), parts[2]), combined(parts[0], combined(*parts[1:]))
    assert left.counts.keys() == right.counts.keys()
    for group, counts in left.counts.items():
        # Halves are rounded down, in each of the parts.
        assert _near(counts, right.counts[group])
    assert left.sessions == right.sessions


@given(many)
def test_what_two_replicas_share_is_what_one_would_have_learned(known: list[Sample]) -> None:
    alone = [msgspec.structs.replace(sample, session="") for sample in known]
    one, other, all_of_it = LengthModel(), LengthModel(), LengthModel()
    for index, sample in enumerate(alone):
        learn(one if index % 2 else other, sample, NOW_S)
        learn(all_of_it, sample, NOW_S)
    assert beliefs(LengthModel(combined(one.state, other.state))) == beliefs(all_of_it)


def _near(one: Counts, other: Counts) -> bool:
    return one.seen_s == other.seen_s and all(
        abs(mine.get(place, 0) - theirs.get(place, 0)) <= 2
        for mine, theirs in ((one.ended, other.ended), (one.cut, other.cut))
        for place in mine.keys() | theirs.keys()
    )


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.lengthy
@given(st.integers(0, 1_000), st.integers(1, 400), st.integers(1, 400), st.integers(1, 2_000))
def test_what_is_remembered_is_bounded_whoever_asks(seed: int, keys: int, models: int, sessions: int) -> None:
    draw, model = Random(seed), LengthModel()
    for index in range(1_000):
        sample = Sample(
            klass=f"{draw.choice('ab')}/{draw.choice(('short', 'long'))}",
            tokens=draw.lognormvariate(5.0, 2.0) + 1.0,
            model=f"a-model-with-a-name-{draw.randrange(models)}",
            key=f"key-{draw.randrange(keys)}" if draw.random() < 0.8 else "",
            prompt_tokens=int(draw.lognormvariate(7.0, 2.0)),
            session=f"{draw.randrange(sessions):016x}" if draw.random() < 0.5 else "",
            at_least=draw.random() < 0.2,
        )
        learn(model, sample, NOW_S + 10.0 * index)
    assert len(msgspec.json.encode(model.state)) <= 64_000


# --- what has streamed ----------------------------------------------------------------------------------------------


@given(many, samples, st.sampled_from(TOKENS_MAX))
def test_the_longer_it_has_streamed_the_longer_it_is_expected_to_be(
    known: list[Sample], asked: Sample, bound: int | None
) -> None:
    length = after(known).at(asked.klass, bound, asked.model, asked.key, asked.prompt_tokens)
    streamed = [0.0, 1.0, 2.0, 7.0, 50.0, 333.0, 4_000.0, 90_000.0]
    found = [length.given(tokens) for tokens in streamed]
    for one, other in pairwise(found):
        assert other.expected_tokens >= one.expected_tokens - 1e-6
        assert other.high_tokens >= one.high_tokens - 1e-6
    for tokens, given_it in zip(streamed, found, strict=True):
        assert given_it.high_tokens >= min(tokens, bound or tokens) - 1e-6


@pytest.mark.lengthy
@given(many, samples, st.sampled_from(TOKENS_MAX))
def test_what_is_told_ahead_is_what_is_expected_given_as_much(
    known: list[Sample], asked: Sample, bound: int | None
) -> None:
    length = after(known).at(asked.klass, bound, asked.model, asked.key, asked.prompt_tokens)
    ahead = length.ahead()
    assert ahead is not None
    for thirds in ahead:
        assert list(thirds) == sorted(thirds)
    for place, tokens in enumerate(bins.AHEAD_TOKENS[:3]):
        mean = sum(thirds[place] for thirds in ahead) / 3.0
        assert mean == pytest.approx(length.given(tokens).expected_tokens, rel=0.05, abs=1.0)


@given(
    many, samples, st.sampled_from(TOKENS_MAX), st.lists(st.floats(0.0, 1e4), min_size=1, max_size=12), st.booleans()
)
def test_no_end_is_in_the_past_and_each_is_later_the_longer_it_lasts(
    known: list[Sample], asked: Sample, bound: int | None, ages_s: list[float], streams: bool
) -> None:
    lengths, engine = after(known), EndpointModel(make.endpoint("e"), 0.9)
    sent = make.request("r", output_tokens_max=bound)
    engine.started(make.started(sent, "e"), engine.base(sent, lengths.at(asked.klass, bound), NOW_S), NOW_S)
    if streams:
        engine.first("r", NOW_S)
    reservation = engine.state.reservations["r"]
    before = (0.0, 0.0, 0.0)
    for age_s in sorted(ages_s):
        ends = ends_s(reservation, NOW_S + age_s)
        assert min(ends) > NOW_S + age_s
        assert all(later >= early - 1e-6 for early, later in zip(before, ends, strict=True))
        before = ends
