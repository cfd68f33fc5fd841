"""Laws of the canary's measure: what must be true of any two readings."""

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.drift import (
    FLIP_NATS_MAX,
    LIKELY_NATS,
    LOGPROB_MIN,
    MEAN_NATS_MAX,
    SPOTS_MAX,
    Distance,
    Reading,
    Spot,
    distance,
    judge,
)

likely = st.floats(LIKELY_NATS + 1.0, 0.0)
texts = st.text(max_size=3)


@st.composite
def spots(draw: st.DrawFn) -> Spot:
    top = draw(st.dictionaries(texts, st.floats(LOGPROB_MIN, 0.0), min_size=1, max_size=6))
    return Spot(token=max(sorted(top), key=top.__getitem__), top=top)


answers = st.lists(spots(), max_size=SPOTS_MAX).map(tuple)
readings = st.lists(answers, max_size=3).map(tuple)


@st.composite
def sure(draw: st.DrawFn) -> Reading:
    """A reading of likely candidates only."""
    top = st.dictionaries(texts, likely, min_size=1, max_size=5)
    made = [Spot(token=max(sorted(t), key=t.__getitem__), top=t) for t in draw(st.lists(top, min_size=1, max_size=8))]
    return (tuple(made),)


def moved(reading: Reading, nats: float) -> Reading:
    """The same tokens, each less likely by so much."""
    return tuple(
        tuple(Spot(token=s.token, top={t: p - nats for t, p in s.top.items()}) for s in answer) for answer in reading
    )


def one(token: str, **top: float) -> Reading:
    return ((Spot(token=token, top=top),),)


@given(readings, readings)
def test_it_does_not_matter_which_reading_came_first(a: Reading, b: Reading) -> None:
    assert distance(a, b) == distance(b, a)


@given(readings)
def test_a_reading_is_at_no_distance_from_itself(a: Reading) -> None:
    found = distance(a, a)
    assert found is None or found == Distance(mean_nats=0.0, flip_nats=0.0)


@given(readings, readings)
def test_distances_are_bounded_whatever_was_read(a: Reading, b: Reading) -> None:
    found = distance(a, b)
    if found is not None:
        assert 0.0 <= found.mean_nats <= -LOGPROB_MIN
        assert 0.0 <= found.flip_nats <= -2 * LOGPROB_MIN


@given(sure(), st.floats(0.0, 0.9))
def test_the_distance_is_how_far_the_numbers_moved(a: Reading, nats: float) -> None:
    found = distance(a, moved(a, nats))
    assert found is not None
    assert isclose(found.mean_nats, nats, abs_tol=1e-9)
    assert found.flip_nats == 0.0


@given(sure(), st.floats(0.0, 0.45), st.floats(0.0, 0.45))
def test_further_away_is_never_judged_milder(a: Reading, nats: float, more: float) -> None:
    near, far = distance(a, moved(a, nats)), distance(a, moved(a, nats + more))
    assert near is not None
    assert far is not None
    assert judge(far) or not judge(near) or isclose(far.mean_nats, near.mean_nats, rel_tol=1e-6)


@given(st.floats(0.0, 0.04), st.floats(0.0, 0.04))
def test_a_near_tie_that_flips_is_noise(a: float, b: float) -> None:
    found = distance(one("x", x=-0.69 + a, y=-0.69), one("y", x=-0.69, y=-0.69 + b))
    assert found is not None
    assert not judge(found)


@given(st.floats(1.3, 3.0), st.floats(1.3, 3.0))
def test_a_clear_choice_that_flips_is_drift_though_all_the_rest_is_as_it_was(a: float, b: float) -> None:
    same = [Spot(token=f"{n}", top={f"{n}": -0.1, "z": -2.4, "u": -3.0}) for n in range(7)]
    x, y = Spot(token="x", top={"x": -0.1, "y": -0.1 - a}), Spot(token="y", top={"y": -0.1, "x": -0.1 - b})
    found = distance(((*same, x),), ((*same, y),))
    assert found is not None
    assert isclose(found.flip_nats, a + b)
    assert judge(found)


@given(answers, answers)
def test_what_follows_the_first_other_token_says_nothing(after: tuple[Spot, ...], otherwise: tuple[Spot, ...]) -> None:
    a, b = Spot(token="x", top={"x": -0.1, "y": -2.4}), Spot(token="y", top={"y": -0.1, "x": -2.4})
    assert distance(((a, *after),), ((b, *otherwise),)) == distance(((a,),), ((b,),))


@given(st.floats(LOGPROB_MIN, LIKELY_NATS), st.floats(LOGPROB_MIN, LIKELY_NATS))
def test_what_is_unlikely_either_way_does_not_count(a: float, b: float) -> None:
    assert distance(one("x", x=-0.1, y=a), one("x", x=-0.1, y=b)) == Distance(mean_nats=0.0, flip_nats=0.0)


def test_what_was_not_listed_counts_for_the_least_that_it_moved() -> None:
    found = distance(one("x", x=-0.5, y=-1.0), one("x", x=-0.5, z=-1.5))
    # y fell from -1.0 to -1.5 at most, z is where the least of the first list is or rose from below.
    assert found == Distance(mean_nats=0.5 / 3, flip_nats=0.0)


def test_nothing_in_common_is_no_distance() -> None:
    assert distance((), one("x", x=-0.1)) is None
    assert distance(((),), one("x", x=-0.1)) is None
    assert distance(one("x", x=-9.0), one("x", x=-9.0)) is None


def test_either_limit_alone_is_drift() -> None:
    assert not judge(Distance(mean_nats=MEAN_NATS_MAX, flip_nats=FLIP_NATS_MAX))
    assert judge(Distance(mean_nats=MEAN_NATS_MAX * 1.01, flip_nats=0.0))
    assert judge(Distance(mean_nats=0.0, flip_nats=FLIP_NATS_MAX * 1.01))
