"""Where attempts begin by the hundred a second, a few dozen of them teach how long things take."""

from random import Random

import pytest

from tests import make
from tidegate.core.counts import Sampling
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import ONE, SAMPLED_MAX, LengthModel
from tidegate.core.model import Ended, Ending
from tidegate.core.output import OUTPUT_ROWS
from tidegate.core.sampling import TAUGHT_PER_S, stands_for
from tidegate.core.timing import ROWS

LENGTHS = LengthModel()
KIND = 7


def sampled(by_kind: dict[int, Sampling], per_s: int, seconds: range, name: str = "r") -> list[int]:
    """How many of so many a second are, in each of these seconds."""
    return [
        sum(
            stands_for(by_kind, KIND, f"{name}-{second}-{number:x}", second + number / per_s) > 0.0
            for number in range(per_s)
        )
        for second in seconds
    ]


def test_all_of_what_comes_by_the_dozen_a_second_teach() -> None:
    assert sampled({}, int(TAUGHT_PER_S), range(10, 20)) == [TAUGHT_PER_S] * 10


@pytest.mark.lengthy
@pytest.mark.parametrize("per_s", [100, 1_000, 10_000])
def test_of_more_about_a_few_dozen_a_second_teach_from_the_next_second_on(per_s: int) -> None:
    by_kind: dict[int, Sampling] = {}
    first, *later = sampled(by_kind, per_s, range(50, 150))
    assert first == per_s
    assert sum(later) / len(later) == pytest.approx(TAUGHT_PER_S, rel=0.1)
    assert min(later) > 0


@pytest.mark.parametrize("per_s", [100, 300, 10_000])
def test_those_that_teach_stand_for_all(per_s: int) -> None:
    by_kind: dict[int, Sampling] = {}
    told = [
        stands_for(by_kind, KIND, f"r-{second}-{number:x}", second + number / per_s)
        for second in range(20)
        for number in range(per_s)
    ]
    assert sum(told) == pytest.approx(len(told), rel=0.1)


def test_whoever_comes_after_a_quiet_second_teaches() -> None:
    by_kind: dict[int, Sampling] = {}
    sampled(by_kind, 1_000, range(10, 12))
    assert sampled(by_kind, 1_000, range(13, 14)) == [1_000]
    assert sampled(by_kind, 20, range(14, 16), name="few") < [20, 20]
    assert sampled(by_kind, 20, range(16, 17)) == [20]


def test_which_of_them_teach_has_no_order() -> None:
    names = [f"r-{number}" for number in range(500)]
    shuffled = names.copy()
    Random(3).shuffle(shuffled)
    found = []
    for order in (names, shuffled):
        by_kind: dict[int, Sampling] = {}
        sampled(by_kind, 800, range(5, 6))
        found.append({name for name in order if stands_for(by_kind, KIND, name, 6.0)})
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 100


def served(model: EndpointModel, id: str, prompt_tokens: int, took_s: float, now_s: float) -> None:
    """A request that was sent, had its first content so much later, and ended."""
    request = make.request(id=id, prompt_tokens=prompt_tokens, prompt_bytes=4 * prompt_tokens)
    model.started(make.started(request, "rack"), model.base(request, LENGTHS.of(request), now_s), now_s)
    model.first(request.id, now_s + took_s)
    model.ended(
        Ended(
            request_id=request.id,
            endpoint="rack",
            ending=Ending.OK,
            e2e_s=took_s + 0.5,
            ttft_s=took_s,
            prompt_tokens=prompt_tokens,
            output_tokens=20,
        ),
        now_s + took_s + 0.5,
    )


def crowded(per_s: int, took_s: float) -> EndpointModel:
    """An engine, after four seconds of as many requests a second that all took as long to their first content."""
    model = EndpointModel(make.endpoint("rack", concurrency=100), 0.9)
    for number in range(4 * per_s):
        served(model, f"r-{number:x}", 100, took_s, 100.0 + number / per_s)
    return model


def test_many_teach_what_few_do() -> None:
    few, many = (crowded(per_s, took_s=0.4) for per_s in (20, 500))
    request = make.request(prompt_tokens=100, prompt_bytes=400)
    for model in (few, many):
        base = model.base(request, LENGTHS.of(request), 110.0)
        assert base.first_s == pytest.approx(0.4, rel=0.05)
    assert not many.state.reservations


def test_what_is_rare_beside_many_of_another_kind_teaches_each_time() -> None:
    model = EndpointModel(make.endpoint("rack", concurrency=100), 0.9)
    for number in range(20 * 200):
        now_s = 100.0 + number / 200
        served(model, f"r-{number:x}", 100, 0.4, now_s)
        if number % 400 == 0:
            served(model, f"long-{number:x}", 8_000, 8.0, now_s)
    request = make.request(prompt_tokens=8_000, prompt_bytes=32_000)
    assert model.base(request, LENGTHS.of(request), 121.0).first_s == pytest.approx(8.0, rel=0.05)


def test_what_is_not_sampled_is_under_way_and_kept_in_the_cache_like_all_others() -> None:
    model = EndpointModel(make.endpoint("rack", concurrency=100), 0.9)
    busy = Sampling(second=9, count=10**12)
    model.state.sampling = dict.fromkeys(range(ROWS * OUTPUT_ROWS), busy)
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
    for count in (10**12, 0):
        model = crowded(20, took_s=0.4)  # no load explains a silence
        before = Sampling(second=109, count=count)
        model.state.sampling = dict.fromkeys(range(ROWS * OUTPUT_ROWS), before)
        request = make.request(id="impatient")
        model.started(make.started(request, "rack"), model.base(request, LENGTHS.of(request), 110.0), 110.0)
        model.ended(Ended(request_id="impatient", endpoint="rack", ending=Ending.CANCELLED, e2e_s=0.3), 110.3)
        assert bool(model.timing.ttft.learned.silences) is (count == 0)


def lengths_of(per_s: int, seconds: int, lengths: LengthModel) -> None:
    """Answers of 20 and 200 tokens by turns, and at each second's end one of somebody else's, of 1,000."""
    for second in range(seconds):
        for number in range(per_s):
            at_s, id = second + number / per_s, f"r-{second}-{number:x}"
            lengths.learn("chat", 20.0 if number % 2 else 200.0, at_s, model="m", key="much", request_id=id)
        lengths.learn("chat", 1_000.0, second + 0.99, model="m", key="rare", request_id=f"s-{second}")


def test_of_many_answers_alike_some_are_counted_for_all() -> None:
    few, all = LengthModel(), LengthModel()
    lengths_of(1_000, 20, few)
    for second in range(20):
        for number in range(1_000):
            all.learn("chat", 20.0 if number % 2 else 200.0, second + number / 1_000, model="m", key="much")
        all.learn("chat", 1_000.0, second + 0.99, model="m", key="rare")
    for key in ("much", "rare", "new"):
        found, expected = few.at("chat", None, "m", key), all.at("chat", None, "m", key)
        assert found.expected_tokens == pytest.approx(expected.expected_tokens, rel=0.1), key
        assert found.high_tokens == pytest.approx(expected.high_tokens, rel=0.05), key
    total, counted = (sum(model.state.counts["chat"].ended.values()) for model in (all, few))
    assert counted == pytest.approx(total, rel=0.05)


def test_the_answers_of_who_asks_seldom_are_all_counted_beside_many_others() -> None:
    lengths = LengthModel()
    lengths_of(1_000, 20, lengths)
    assert sum(lengths.state.counts["k chat m rare"].ended.values()) == 20 * ONE


def test_each_answer_of_a_conversation_is_remembered() -> None:
    lengths = LengthModel()
    for number in range(3_000):
        session, id = f"s{number % 10}", f"r{number}"
        lengths.learn("chat", 50.0, number / 1_000, session=session, prompt_tokens=100 + number, request_id=id)
    assert {turns.prompt_tokens for turns in lengths.state.sessions.values()} == {100 + n for n in range(2_990, 3_000)}


def test_it_is_remembered_how_often_a_few_hundred_kinds_came() -> None:
    lengths = LengthModel()
    for number in range(2 * SAMPLED_MAX):
        lengths.learn("chat", 50.0, 1.0, key=f"k{number}", request_id=f"r{number}")
    assert len(lengths.state.sampling) <= SAMPLED_MAX + 1
