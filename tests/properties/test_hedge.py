"""Laws of hedges: no more is lost than the share of what was paid, a moment has no order, and it never costs more to
promise less."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.hedge import SAVED, Hedges, Hedging, revived

usd = st.floats(0.0, 1.0)
shares = st.floats(0.0, 0.2)


@given(shares, st.lists(st.tuples(usd, usd), max_size=60))
def test_no_more_is_lost_than_the_share_of_what_was_paid_and_one_hedge(
    share: float, events: list[tuple[float, float]]
) -> None:
    """Whoever asks before each, and loses what one may lose at most."""
    hedges = Hedges(Hedging(), share)
    paid_usd = lost_usd = 0.0
    for at_s, (answer_usd, hedge_usd) in enumerate(events):
        hedges.settle(float(at_s))
        hedges.paid(answer_usd, float(at_s))
        paid_usd += answer_usd
        if hedges.left_usd > 0.0:
            hedges.lost(hedge_usd, float(at_s))
            lost_usd += hedge_usd
        assert lost_usd <= share * paid_usd + 1.0 + 1e-9


@given(shares, st.integers(0, 1000), st.lists(st.tuples(st.booleans(), usd), min_size=1, max_size=12))
def test_facts_of_one_moment_have_no_order(share: float, seed: int, facts: list[tuple[bool, float]]) -> None:
    found = []
    for order in (facts, Random(seed).sample(facts, len(facts))):
        hedges = Hedges(state := Hedging(left_usd=0.01, each_usd=0.1, at_s=0.0), share)
        hedges.settle(1.0)
        for is_paid, amount in order:
            hedges.paid(amount, 1.0) if is_paid else hedges.lost(amount, 1.0)
        hedges.settle(2.0)
        found.append((state.left_usd, state.each_usd))
    assert all(abs(a - b) < 1e-9 for a, b in zip(*found, strict=True))


@given(shares, st.lists(usd, max_size=200))
def test_it_saves_up_to_a_bound(share: float, amounts: list[float]) -> None:
    hedges = Hedges(state := Hedging(), share)
    for at_s, amount in enumerate(amounts):
        hedges.paid(amount, float(at_s))
        hedges.settle(at_s + 0.5)
        assert state.left_usd <= SAVED * state.each_usd + 1e-12
        assert hedges.price >= 0.0


@given(usd, usd, st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_a_restart_leaves_what_may_be_lost(left_usd: float, each_usd: float, at_s: float, now_s: float) -> None:
    state = Hedging(left_usd=left_usd, each_usd=each_usd, at_s=at_s, lost_usd=0.1)
    again = revived(state, now_s)
    assert again.at_s <= now_s
    assert Hedges(again, 0.02).left_usd == Hedges(state, 0.02).left_usd
    assert revived(again, now_s) == again
