"""Where attempts begin by the hundred a second, a few dozen of them teach how long things take."""

from random import Random

import pytest

from tests import make
from tidegate.core.estimator import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending
from tidegate.core.sampling import TAUGHT_PER_S, Sampling, is_sampled

LENGTHS = LengthModel()


def sampled(sampling: Sampling, per_s: int, seconds: range, name: str = "r") -> list[int]:
    """How many of so many a second are, in each of these seconds."""
    return [
        sum(is_sampled(sampling, f"{name}-{second}-{number:x}", second + number / per_s) for number in range(per_s))
        for second in seconds
    ]


def test_all_of_what_comes_by_the_dozen_a_second_teach() -> None:
    assert sampled(Sampling(), int(TAUGHT_PER_S), range(10, 20)) == [TAUGHT_PER_S] * 10


@pytest.mark.parametrize("per_s", [100, 1_000, 10_000])
def test_of_more_about_a_few_dozen_a_second_teach_from_the_next_second_on(per_s: int) -> None:
    sampling = Sampling()
    first, *later = sampled(sampling, per_s, range(50, 150))
    assert first == per_s
    assert sum(later) / len(later) == pytest.approx(TAUGHT_PER_S, rel=0.1)
    assert min(later) > 0


def test_whoever_comes_after_a_quiet_second_teaches() -> None:
    sampling = Sampling()
    sampled(sampling, 1_000, range(10, 12))
    assert sampled(sampling, 1_000, range(13, 14)) == [1_000]
    assert sampled(sampling, 20, range(14, 16), name="few") < [20, 20]
    assert sampled(sampling, 20, range(16, 17)) == [20]


def test_which_of_them_teach_has_no_order() -> None:
    names = [f"r-{number}" for number in range(500)]
    shuffled = names.copy()
    Random(3).shuffle(shuffled)
    found = []
    for order in (names, shuffled):
        sampling = Sampling()
        sampled(sampling, 800, range(5, 6))
        found.append({name for name in order if is_sampled(sampling, name, 6.0)})
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 100


def crowded(per_s: int, took_s: float) -> EndpointModel:
    """An engine, after four seconds of as many requests a second that all took as long to their first content."""
    model = EndpointModel(make.endpoint("rack", concurrency=100), 0.9)
    for number in range(4 * per_s):
        now_s = 100.0 + number / per_s
        request = make.request(id=f"r-{number:x}", prompt_tokens=100, prompt_bytes=400)
        base = model.base(request, LENGTHS.of(request), now_s)
        model.started(make.started(request, "rack"), base, now_s)
        model.first(request.id, now_s + took_s)
        model.ended(
            Ended(
                request_id=request.id,
                endpoint="rack",
                ending=Ending.OK,
                e2e_s=took_s + 0.5,
                ttft_s=took_s,
                prompt_tokens=100,
                output_tokens=20,
            ),
            now_s + took_s + 0.5,
        )
    return model


def test_many_teach_what_few_do() -> None:
    few, many = (crowded(per_s, took_s=0.4) for per_s in (20, 500))
    request = make.request(prompt_tokens=100, prompt_bytes=400)
    for model in (few, many):
        base = model.base(request, LENGTHS.of(request), 110.0)
        assert base.first_s == pytest.approx(0.4, rel=0.05)
    assert not many.state.reservations


def test_what_is_not_sampled_is_under_way_and_kept_in_the_cache_like_all_others() -> None:
    model = EndpointModel(make.endpoint("rack", concurrency=100), 0.9)
    model.state.sampling = Sampling(second=9, begun=10**12)
    request = make.request(prompt_tokens=4_000, prompt_bytes=16_000, prefix=tuple(range(1, 17)))
    before = model.timing.ttft.learned.sums.weight
    model.started(make.started(request, "rack"), model.base(request, LENGTHS.of(request), 10.0), 10.0)
    assert not model.state.reservations[request.id].sampled
    assert model.room == 99
    model.first(request.id, 11.0)
    ended = Ended(request_id=request.id, endpoint="rack", ending=Ending.OK, e2e_s=2.0, ttft_s=1.0, output_tokens=20)
    model.ended(ended, 12.0)
    assert model.room == 100
    assert model.timing.ttft.learned.sums.weight == before
    assert model.base(request, LENGTHS.of(request), 13.0).cached.tokens > 0.0


def test_who_waited_in_vain_teaches_as_seldom_as_who_was_answered() -> None:
    for begun in (10**12, 0):
        model = crowded(20, took_s=0.4)  # no load explains a silence
        model.state.sampling = Sampling(second=109, begun=begun)
        request = make.request(id="impatient")
        model.started(make.started(request, "rack"), model.base(request, LENGTHS.of(request), 110.0), 110.0)
        model.ended(Ended(request_id="impatient", endpoint="rack", ending=Ending.CANCELLED, e2e_s=0.3), 110.3)
        assert bool(model.timing.ttft.learned.silences) is (begun == 0)
