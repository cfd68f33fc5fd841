"""The bound: nobody exceeds it, whoever decides."""

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.make import STEP, profile
from tests.sim.small import Small, rival
from tidegate.core.baseline import BASELINES
from tidegate.core.model import replace
from tidegate.core.step import Linear
from tidegate.sim.needs import Piece, Pool, lines
from tidegate.sim.oracle import Prices, bound, dual, exact

seeds = st.integers(0, 10_000)
# Each is a whole world, played several times.
worlds = settings(max_examples=10)


def within(usd: float, most_usd: float) -> bool:
    """But for rounding."""
    return usd <= most_usd + 1e-9 * max(1.0, abs(most_usd))


@pytest.mark.lengthy
@worlds
@given(seeds, st.booleans(), st.booleans())
def test_nobody_exceeds_it(seed: int, blocks: bool, several: bool) -> None:
    small = Small(seed, blocks=blocks, several=several)
    most_usd = bound(small.pieces, small.pools, limit=small.limit).usd
    assert within(small.value_usd(small.play()), most_usd)
    for rule in BASELINES:
        assert within(small.value_usd(small.play(rival(rule))), most_usd)


@pytest.mark.lengthy
@worlds
@given(seeds)
def test_any_prices_bound_it_too(seed: int) -> None:
    small, draw = Small(seed), Random(seed)
    found = bound(small.pieces, small.pools, limit=small.limit)
    whole_usd = exact(small.pieces, small.pools, limit=small.limit)
    assert within(whole_usd, found.usd)
    high = max((max(one) for one in found.prices.by_name.values() if one), default=0.0) or 1.0
    for _ in range(5):
        drawn = {name: tuple(draw.uniform(0.0, high) for _ in one) for name, one in found.prices.by_name.items()}
        usd = dual(small.pieces, small.pools, Prices(edges_s=found.prices.edges_s, by_name=drawn), limit=small.limit)
        assert within(found.relaxed_usd, usd * (1 + 1e-6))
        assert within(whole_usd, usd)
    assert dual(small.pieces, small.pools, found.prices, limit=small.limit) == pytest.approx(found.usd)


@worlds
@given(seeds)
def test_their_order_makes_no_difference(seed: int) -> None:
    small = Small(seed)
    pieces = small.pieces
    Random(seed).shuffle(pieces)
    assert bound(pieces, small.pools, limit=small.limit) == bound(small.pieces, small.pools, limit=small.limit)


def piece(id: str = "a", *, worth_usd: float = 2.0, **changes: object) -> Piece:
    made = Piece(
        id=id,
        arrived_s=0.0,
        prompt_tokens=100,
        context_tokens=100,
        output_tokens=10,
        first_by_s=1.0,
        token_by_s=0.1,
        worth_usd=worth_usd,
        remote_usd=1.0,
    )
    return replace(made, **changes)


def test_no_work_is_worth_nothing() -> None:
    found = bound([], [Pool(profile=profile(), slots=8)])
    assert (found.usd, found.local, found.remote) == (0.0, {}, {})


def test_an_idle_engine_keeps_every_promise() -> None:
    pieces = [piece(str(number), arrived_s=10.0 * number) for number in range(20)]
    found = bound(pieces, [Pool(profile=profile(), slots=8)])
    assert found.usd == pytest.approx(40.0)
    assert all(shares == pytest.approx((1.0,)) for shares in found.local.values())


def test_without_an_engine_it_is_what_the_remote_leaves() -> None:
    assert bound([piece("a"), piece("b", remote_kept=False), piece("c", worth_usd=0.5)], []).usd == pytest.approx(1.0)


@pytest.mark.parametrize(
    "late",
    [piece(first_by_s=0.019), piece(token_by_s=0.009), piece(context_tokens=70_000), piece(prompt_tokens=9_000)],
)
def test_what_cannot_be_in_time_here_is_not(late: Piece) -> None:
    assert bound([replace(late, remote_kept=False)], [Pool(profile=profile(), slots=8)]).usd == 0.0


def test_of_several_prompts_one_has_to_fit() -> None:
    several = piece(prompt_tokens=70_000, context_tokens=70_000, prompts=70, first_by_s=60.0, remote_kept=False)
    pool = Pool(profile=profile(), slots=8)
    assert bound([several], [pool]).usd == pytest.approx(2.0)
    assert bound([replace(several, prompts=1)], [pool]).usd == 0.0


def test_what_may_not_go_to_an_engine_is_not_served_there() -> None:
    pools = [Pool(profile=profile(), slots=8)] * 2
    assert bound([piece(remote_kept=False, pools=())], pools).usd == 0.0
    found = bound([piece("a", remote_kept=False, pools=(1,)), piece("b", pools=(0,))], pools)
    assert found.usd == pytest.approx(4.0)
    assert found.local == {"a": pytest.approx((0.0, 1.0)), "b": pytest.approx((1.0, 0.0))}
    # What is promised nothing needs nothing, and still has to be there.
    assert bound([piece(remote_kept=False, pools=(), first_by_s=inf)], pools).usd == 0.0


def test_an_engine_that_is_down_or_slow_does_less() -> None:
    pieces = [piece(str(number), remote_kept=False) for number in range(8)]
    engine = profile()
    assert bound(pieces, [Pool(profile=engine, slots=8)]).usd == pytest.approx(16.0)
    assert bound(pieces, [Pool(profile=engine, slots=8, down=((0.0, 5.0),))]).usd == 0.0
    assert bound(pieces, [Pool(profile=engine, slots=8, slowdown=((-10.0, 20.0),))]).usd < 16.0


@given(st.integers(0, 2_000), st.integers(0, 16), st.integers(1, 4), st.floats(1.0, 3.0), st.floats(0.0, 0.02))
def test_no_iteration_takes_less_than_its_lines(
    prompt_tokens: int, decoding: int, ranks: int, overlap: float, experts_s: float
) -> None:
    layers = Linear(
        weights_s=0.01,
        per_token_s=1e-4,
        experts_s=experts_s,
        expert_share=0.1,
        per_expert_token_s=1e-5,
        overlap=overlap,
    )
    step = replace(STEP, linear=layers, ranks=ranks)
    takes_s = step.takes_s(prompt_tokens, 0.0, decoding, 0) - step.per_sequence_s * decoding / ranks
    if prompt_tokens + decoding:
        for line in lines(profile(step=step)):
            least_s = line.iteration_s + line.prompt_token_s * prompt_tokens + line.decoded_token_s * decoding
            assert least_s <= takes_s * (1 + 1e-9)
