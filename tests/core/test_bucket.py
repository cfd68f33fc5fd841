"""Laws of a limit per minute."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.bucket import Bucket

RATES = st.integers(min_value=1, max_value=1_000_000)
# Steps of the clock, some of them backwards, and what is asked for after each as a share of the burst.
STEPS = st.lists(st.tuples(st.floats(min_value=-100.0, max_value=100.0), st.floats(min_value=0.0, max_value=1.0)))


@given(per_minute=RATES, steps=STEPS)
def test_never_more_than_burst_and_what_time_fills_is_admitted(
    per_minute: int, steps: list[tuple[float, float]]
) -> None:
    start_s = now_s = latest_s = 1e9
    bucket = Bucket(per_minute, start_s)
    admitted = 0.0
    for step_s, share in steps:
        now_s += step_s
        latest_s = max(latest_s, now_s)
        amount = share * bucket.burst
        if bucket.wait_s(amount, now_s) == 0.0:
            bucket.take(amount, now_s)
            admitted += amount
        assert admitted <= (bucket.burst + bucket.rate_per_s * (latest_s - start_s)) * (1 + 1e-9)


@given(per_minute=RATES, steps=STEPS)
def test_what_it_says_to_wait_for_is_there_after_the_wait(per_minute: int, steps: list[tuple[float, float]]) -> None:
    now_s = 0.0
    bucket = Bucket(per_minute, now_s)
    for step_s, share in steps:
        now_s += abs(step_s)
        bucket.take(share * bucket.burst, now_s)
        wait_s = bucket.wait_s(share * bucket.burst, now_s)
        assert bucket.level(now_s + wait_s) >= share * bucket.burst - 1e-6 * bucket.burst


@given(per_minute=RATES, taken=st.floats(min_value=0.0, max_value=3.0), used=st.floats(min_value=0.0, max_value=3.0))
def test_a_correction_leaves_what_an_exact_estimate_would_have_left(per_minute: int, taken: float, used: float) -> None:
    corrected, exact = Bucket(per_minute, 0.0), Bucket(per_minute, 0.0)
    corrected.take(taken * per_minute, 0.0)
    corrected.take((used - taken) * per_minute, 0.0)
    exact.take(used * per_minute, 0.0)
    assert abs(corrected.level(0.0) - exact.level(0.0)) <= 1e-9 * per_minute


@given(per_minute=RATES, given_back=st.floats(min_value=0.0, max_value=10.0))
def test_giving_back_never_fills_it_beyond_the_burst(per_minute: int, given_back: float) -> None:
    bucket = Bucket(per_minute, 0.0)
    bucket.take(-given_back * per_minute, 0.0)
    assert bucket.level(1e6) == bucket.burst == per_minute


@given(per_minute=RATES)
def test_a_clock_that_goes_back_and_forth_fills_nothing(per_minute: int) -> None:
    bucket = Bucket(per_minute, 1000.0)
    bucket.take(per_minute, 1000.0)
    for now_s in (0.0, 1000.0, 500.0, 1000.0):
        bucket.take(0.0, now_s)
        assert bucket.level(now_s) == 0.0
