"""Laws of what is learned of times: it has no order within a moment, adds up, and nothing takes less than nothing."""

from math import exp
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import make
from tidegate.core import regression
from tidegate.core.correction import residual_of
from tidegate.core.endpoint import EndpointModel
from tidegate.core.latency import PARTS, Latency, combined
from tidegate.core.learned import Learned
from tidegate.core.model import Ended, Ending, FirstToken, Request
from tidegate.core.output import Length

BELIEVED = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
MEASURED = (3,)
LENGTH = Length(expected_tokens=100.0, high_tokens=300.0, median_tokens=100.0, sigma=0.5)

seconds = st.floats(0.001, 10.0)
part_lists = st.lists(st.floats(0.0, 5.0), min_size=PARTS - 1, max_size=PARTS - 1).map(lambda rest: [0.05, *rest])
samples = st.tuples(part_lists, st.floats(0.2, 5.0), st.integers(0, 2), st.booleans())
moments = st.lists(st.lists(samples, min_size=1, max_size=4), min_size=1, max_size=8)

Sample = tuple[list[float], float, int, bool]


def fresh(learned: Learned | None = None) -> Latency:
    return Latency(BELIEVED, MEASURED, 3, 1, 0.7, 0.9, learned)


def taught(moments: list[list[Sample]], begin_s: float = 0.0) -> Latency:
    """Each moment's samples are sent a second before, and told in their order; `True` is of one that gave up."""
    latency = fresh()
    for index, told in enumerate(moments):
        now_s = begin_s + 10.0 * index
        sent = [latency.predict(parts, row, 0, now_s - 1.0) for parts, _, row, _ in told]
        for one, (parts, ratio, _, gave_up) in zip(sent, told, strict=True):
            took_s = ratio * (parts[0] + 2.0 * parts[1] + parts[3])
            missed = took_s > one.high_s(1.28)
            if gave_up:
                latency.learn_at_least(one, took_s, missed, now_s - 1.0, now_s)
            else:
                latency.correct(one, took_s, 1.0, missed, now_s - 1.0, now_s)
                latency.fit(one, parts, took_s, now_s, now_s)
    return latency


def predictions(latency: Latency, now_s: float, scale: float = 1.0) -> list[float]:
    found = []
    for row in range(3):
        for parts in (
            [0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.05, 0.5, 0.1, 0.2, 0.1, 0.1, 0.1],
            [0.05, 3.0, 2.0, 0.0, 0.3, 0.0, 0.0],
        ):
            sent = latency.predict([scale * part for part in parts], row, 0, now_s)
            found += [sent.median_s / scale, sent.sigma, sent.mean_ratio]
    return found


LAST: list[Sample] = [([0.05, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0, 0, False)]


@given(moments, st.randoms(use_true_random=False))
def test_the_order_within_a_moment_changes_nothing(told: list[list[Sample]], random: Random) -> None:
    shuffled = [random.sample(moment, len(moment)) for moment in told]
    # What waits for the moment to be over is taken in with the next.
    one, other = taught([*told, LAST]), taught([*shuffled, LAST])
    assert predictions(one, 1e4) == pytest.approx(predictions(other, 1e4), rel=1e-6)


@given(moments, st.floats(0.0, 1e9))
def test_the_median_of_the_first_part_alone_is_that_of_its_prediction(told: list[list[Sample]], first_s: float) -> None:
    latency = taught(told)
    alone = [first_s] + [0.0] * (PARTS - 1)
    assert latency.alone_s(first_s) == latency.predict(alone, 0, 0, 1e4).median_s


@given(moments, part_lists, st.integers(0, 2), st.integers(0, 2))
def test_the_median_of_a_sum_as_another_kind_is_that_of_its_prediction(
    told: list[list[Sample]], parts: list[float], row: int, other: int
) -> None:
    latency = taught(told)
    raw_s = latency.predict(parts, row, 0, 1e4).raw_s
    assert latency.median_s(raw_s, other, 0) == latency.predict(parts, other, 0, 1e4).median_s


def _together(*several: Learned) -> Learned:
    found = msgspec.json.decode(msgspec.json.encode(several[0]), type=Learned)
    for one in several[1:]:
        found = combined(found, one, BELIEVED, MEASURED)
    return found


@pytest.mark.lengthy
@settings(max_examples=50)
@given(moments, moments, moments)
def test_what_several_have_learned_adds_up_in_any_order_and_grouping(
    a: list[list[Sample]], b: list[list[Sample]], c: list[list[Sample]]
) -> None:
    one, two, three = (taught(told, begin_s).learned for told, begin_s in ((a, 0.0), (b, 3.0), (c, 1000.0)))
    made = [
        _together(one, two, three),
        _together(three, two, one),
        _together(one, _together(two, three)),
        _together(_together(three, one), two),
    ]
    first = predictions(fresh(made[0]), 2e3)
    for other in made[1:]:
        assert predictions(fresh(other), 2e3) == pytest.approx(first, rel=1e-6)


@given(moments)
def test_what_one_knows_beside_who_knows_nothing_is_what_it_knows(told: list[list[Sample]]) -> None:
    known = taught(told).learned
    for both in (
        combined(known, fresh().learned, BELIEVED, MEASURED),
        combined(fresh().learned, known, BELIEVED, MEASURED),
    ):
        assert both.sums.weight == pytest.approx(known.sums.weight)
        for cell, alone in zip(both.cells, known.cells, strict=True):
            if alone.weight:
                assert residual_of(cell, BELIEVED) == pytest.approx(residual_of(alone, BELIEVED))


@given(moments, st.integers(-4, 6))
def test_the_unit_of_seconds_changes_no_prediction(told: list[list[Sample]], power: int) -> None:
    scale = 2.0**power
    scaled = [
        [([scale * part for part in parts], ratio, row, gave_up) for parts, ratio, row, gave_up in moment]
        for moment in told
    ]
    one, other = predictions(taught(told), 1e4), predictions(taught(scaled), 1e4, scale)
    # No work takes less than a microsecond, whatever was learned: there alone is a unit.
    assert other == pytest.approx(one, rel=1e-6, abs=1e-5)


@given(moments)
def test_no_part_takes_less_than_nothing(told: list[list[Sample]]) -> None:
    latency = taught([*told, LAST])
    assert min(latency.factors) >= 0.0
    shorter = latency.predict([0.05, 0.5, 0.1, 0.2, 0.1, 0.1, 0.1], 1, 0, 1e3).median_s
    for part in range(PARTS):
        parts = [0.05, 0.5, 0.1, 0.2, 0.1, 0.1, 0.1]
        parts[part] += 1.0
        assert latency.predict(parts, 1, 0, 1e3).median_s >= shorter * (1.0 - 1e-12)


def test_parts_that_vary_are_told_apart() -> None:
    draw, latency = Random(3), fresh()
    for index in range(200):
        parts = [0.05, draw.uniform(0.0, 1.0), 0.0, draw.choice((0.0, draw.uniform(0.0, 1.0))), 0.0, 0.0, 0.0]
        took_s = (3.0 * parts[0] + 0.5 * parts[1] + parts[3]) * exp(draw.gauss(0.0, 0.05))
        sent = latency.predict(parts, 0, 0, float(index))
        latency.correct(sent, took_s, 1.0, took_s > sent.high_s(1.28), float(index), float(index))
        latency.fit(sent, parts, took_s, float(index), float(index))
    for parts, took_s in (
        ([0.05, 0.0, 0, 0, 0, 0, 0], 0.15),
        ([0.05, 1.0, 0, 0, 0, 0, 0], 0.65),
        ([0.05, 0, 0, 1.0, 0, 0, 0], 1.15),
    ):
        assert latency.predict(parts, 0, 0, 200.0).median_s == pytest.approx(took_s, rel=0.05)


@pytest.mark.parametrize("ratio", [3.0, 1 / 3.0, 10.0])
def test_when_everything_changes_predictions_follow_within_twenty_requests(ratio: float) -> None:
    draw, latency = Random(5), fresh()
    errors = []
    for index in range(200):
        parts = [0.05, draw.uniform(0.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0]
        took_s = (parts[0] + parts[1]) * (ratio if index >= 150 else 1.0) * exp(draw.gauss(0.0, 0.08))
        sent = latency.predict(parts, 0, 0, float(index))
        errors.append(abs(sent.median_s / took_s - 1.0))
        latency.correct(sent, took_s, 1.0, took_s > sent.high_s(1.28), float(index), index + 0.5)
        latency.fit(sent, parts, took_s, index + 0.5, index + 0.5)
    assert sorted(errors[140:150])[5] < 0.15
    assert sorted(errors[170:180])[5] < 0.15


@pytest.mark.parametrize("stall_s", [5.0, 60.0, 300.0])
@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.25])
def test_one_stall_is_no_reason_to_expect_other_times_of_those_that_follow(sigma: float, stall_s: float) -> None:
    def predicted(index_of_stall: int) -> list[float]:
        """What is predicted of one after another, where one of them stalls."""
        draw, latency, found = Random(13), fresh(), []
        parts = [0.05, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0]
        for index in range(150):
            usual_s = 0.35 * exp(draw.gauss(0.0, sigma))
            took_s = stall_s if index == index_of_stall else usual_s
            sent_s, now_s = float(index), index + 0.5
            sent = latency.predict(parts, 0, 0, sent_s)
            found.append(sent.median_s)
            latency.correct(sent, took_s, 1.0, took_s > sent.high_s(1.28), sent_s, now_s)
            latency.fit(sent, parts, took_s, now_s, now_s)
        return found

    assert predicted(100) == pytest.approx(predicted(-1), rel=0.02)


def test_chance_alone_is_seldom_taken_for_a_change() -> None:
    draw, latency = Random(7), fresh()
    for index in range(3_000):
        parts = [0.05, draw.uniform(0.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0]
        took_s = (parts[0] + parts[1]) * exp(draw.gauss(0.0, 0.3))
        sent = latency.predict(parts, 0, 0, float(index))
        latency.correct(sent, took_s, 1.0, took_s > sent.high_s(1.28), float(index), float(index))
        latency.fit(sent, parts, took_s, float(index), float(index))
        if latency.learned.shift.moved_s == float(index):
            errors = latency.predict([0.05, 0.5, 0, 0, 0, 0, 0], 0, 0, float(index)).median_s
            assert errors == pytest.approx(0.55, rel=0.5)
    assert predictions(latency, 3e3)[3] > 0.0


def test_alarms_that_were_false_do_not_add_up_in_what_is_seldom_met() -> None:
    draw, latency = Random(11), fresh()
    rare, now_s = [0.05, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0

    def took(parts: list[float], row: int, took_s: float) -> None:
        nonlocal now_s
        now_s += 1.0
        sent = latency.predict(parts, row, 0, now_s)
        latency.correct(sent, took_s, 1.0, took_s > sent.high_s(1.28), now_s, now_s)
        latency.fit(sent, parts, took_s, now_s, now_s)

    for _ in range(5):
        took(rare, 1, 0.85)
    alarms = set()
    for _ in range(12):
        for index in range(30):
            parts = [0.05, draw.uniform(0.0, 0.2), 0.0, 0.0, 0.0, 0.0, 0.0]
            took(parts, 0, (parts[0] + parts[1]) * (8.0 if index < 5 else 1.0) * exp(draw.gauss(0.0, 0.05)))
            alarms.add(latency.learned.shift.moved_s)
        assert 0.85 / 6.0 < latency.predict(rare, 1, 0, now_s).median_s < 0.85 * 6.0
    assert len(alarms) > 3


def test_answers_of_a_few_tokens_are_no_proof_of_a_change_where_long_ones_are() -> None:
    def unchanged(tokens: int) -> bool:
        draw, model, now_s = Random(3), EndpointModel(make.endpoint("laptop"), 0.9), 0.0
        for index in range(44):
            request = make.request(f"r{index}", prompt_tokens=200)
            model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
            model.first(request.id, now_s + 0.3)
            written, each_s = (100, 0.04) if index < 40 else (tokens, 0.12)
            e2e_s = 0.3 + (written - 1) * each_s * exp(draw.gauss(0.0, 0.05))
            now_s += e2e_s
            model.ended(make.ended(request.id, "laptop", ttft_s=0.3, e2e_s=e2e_s, output_tokens=written), now_s)
        model.base(make.request("next", prompt_tokens=200), LENGTH, now_s + 1.0)
        return model.timing.tpot.holds_since(0.0, now_s + 1.0)

    assert unchanged(4)
    assert not unchanged(100)


def test_several_that_are_late_at_once_are_no_proof_of_a_change_where_as_many_one_by_one_are() -> None:
    def unchanged(at_once: int) -> bool:
        draw, model, now_s = Random(4), EndpointModel(make.endpoint("laptop", concurrency=8), 0.9), 0.0

        def serve(slower: float, together: int) -> None:
            nonlocal now_s
            asked = [make.request(f"r{now_s}.{index}", prompt_tokens=200) for index in range(together)]
            for request in asked:
                model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
            for request in asked:
                expected_s = model.state.reservations[request.id].ttft.median_s
                now_s += slower * expected_s / together * exp(draw.gauss(0.0, 0.05))
                model.first(request.id, now_s)
            for request in asked:
                e2e_s = now_s - model.state.reservations[request.id].started_s + 1.0
                told = make.ended(request.id, "laptop", ttft_s=e2e_s - 1.0, e2e_s=e2e_s, output_tokens=2)
                model.ended(told, now_s + 1.0)
            now_s += 3.0

        for _ in range(40):
            serve(1.0, 1)
        before_s = now_s
        for _ in range(3 // at_once):
            serve(4.0 * at_once, at_once)
        model.base(make.request("next", prompt_tokens=200), LENGTH, now_s)
        return model.timing.ttft.holds_since(before_s - 3.0, now_s)

    assert not unchanged(1)
    assert unchanged(3)


# --- at an endpoint ---------------------------------------------------------------------------------------------------


def learned_model(seed: int) -> tuple[EndpointModel, float]:
    """An endpoint that has served some requests of all sizes, and has one under way."""
    draw, now_s = Random(seed), 0.0
    model = EndpointModel(make.endpoint("laptop", concurrency=4), 0.9)
    for index in range(30):
        tokens = draw.choice((30, 200, 800, 3_000))
        request = make.request(f"r{index}", prompt_tokens=tokens, prompt_bytes=0)
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
        if index == 29:
            break
        ttft_s = (0.1 + tokens * 0.0015) * exp(draw.gauss(0.0, 0.1))
        now_s += ttft_s
        model.first(request.id, now_s)
        now_s += 2.0
        model.ended(
            Ended(
                request_id=request.id,
                endpoint="laptop",
                ending=Ending.OK,
                e2e_s=ttft_s + 2.0,
                ttft_s=ttft_s,
                output_tokens=80,
            ),
            now_s,
        )
        now_s += 1.0
    return model, now_s


@given(st.integers(0, 1000), st.integers(10, 4000))
def test_more_queue_never_predicts_less_wait_however_much_was_learned(seed: int, tokens: int) -> None:
    model, now_s = learned_model(seed)
    request = make.request("asked", prompt_tokens=tokens, prompt_bytes=0)
    waited_s = first_s = 0.0
    for index in range(3):
        base = model.base(request, LENGTH, now_s)
        assert base.queue_s >= waited_s * (1.0 - 1e-9)
        assert base.first_s >= first_s * (1.0 - 1e-9)
        waited_s, first_s = base.queue_s, base.first_s
        another = make.request(f"q{index}", prompt_tokens=tokens, prompt_bytes=0)
        model.started(make.started(another, "laptop"), model.base(another, LENGTH, now_s), now_s)


@given(st.integers(0, 1000), st.floats(0.0, 30.0), st.sampled_from([Ending.CANCELLED, Ending.TIMED_OUT]))
def test_an_attempt_that_is_given_up_never_makes_an_endpoint_look_faster(
    seed: int, waited_s: float, ending: Ending
) -> None:
    model, now_s = learned_model(seed)
    asked = [make.request("asked", prompt_tokens=tokens, prompt_bytes=0) for tokens in (20, 300, 2_000, 20_000)]
    request = make.request("left", prompt_tokens=800, prompt_bytes=0)
    model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
    now_s += waited_s
    twin = EndpointModel(
        model.endpoint, 0.9, msgspec.json.decode(msgspec.json.encode(model.state), type=type(model.state))
    )
    model.ended(Ended(request_id="left", endpoint="laptop", ending=ending, e2e_s=waited_s), now_s)
    twin.state.reservations["left"].teaches = False
    twin.ended(Ended(request_id="left", endpoint="laptop", ending=ending, e2e_s=waited_s), now_s)
    for one in (model, twin):
        one.timing.ttft._settle(now_s + 1.0)
        one.timing.tpot._settle(now_s + 1.0)
    for request in asked:
        base, without = (one.base(request, LENGTH, now_s + 1.0) for one in (model, twin))
        assert base.first_s >= without.first_s * (1.0 - 1e-9)


@given(st.integers(0, 1000))
def test_the_order_of_facts_within_a_moment_changes_no_prediction(seed: int) -> None:
    found = []
    for order in (1, -1):
        model, now_s = learned_model(seed)
        requests = [make.request(f"s{n}", prompt_tokens=100 * (n + 1), prompt_bytes=0) for n in range(2)]
        for request in requests:
            model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
        for request in requests[::order]:
            model.first(request.id, now_s + 1.5)
        for request in requests[::order]:
            ended = make.ended(request.id, "laptop", ttft_s=1.5, e2e_s=4.0, output_tokens=50, prompt_tokens=120)
            model.ended(ended, now_s + 4.0)
        model.timing.ttft._settle(now_s + 5.0)
        model.timing.tpot._settle(now_s + 5.0)
        base = model.base(make.request("asked"), LENGTH, now_s + 5.0)
        found.append([base.first_s, base.sigma, base.tpot_s, base.first_s_mean, base.e2e_s_high])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_names_and_order_of_endpoints_change_no_estimate() -> None:
    def seen(names: list[str]) -> list[float]:
        router = make.router(*(make.endpoint(name, owned=False) for name in names))
        for name in sorted(names):
            request = make.request(f"r-{name}")
            router.observe(make.started(request, name), 0.0)
            router.observe(FirstToken(request_id=request.id, endpoint=name, ttft_s=0.7), 0.7)
            router.observe(make.ended(request.id, name, ttft_s=0.7, e2e_s=3.0, output_tokens=50), 3.0)
        asked: Request = make.request("asked")
        return [c.estimate.ttft_s for c in router.candidates(asked, 4.0) if c.estimate is not None]

    assert len(set(seen(["a", "b", "c"]))) == 1
    assert seen(["a", "b", "c"]) == seen(["c", "a", "b"])


def test_factors_are_the_best_fit_near_what_is_believed() -> None:
    sums = regression.empty([1.0, 1.0])
    for x in ([1.0, 0.0], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0]) * 30:
        regression.add(sums, x, 2.0 * x[0] + 0.5 * x[1])
    regression.solve(sums, [1.0, 1.0], 1.0, 0.01, ())
    assert sums.factors == pytest.approx([2.0, 0.5], abs=0.02)
    assert not regression.due(sums)


def test_what_was_never_seen_apart_is_credited_as_it_was_believed() -> None:
    sums = regression.empty([1.0, 1.0])
    for _ in range(50):
        regression.add(sums, [0.5, 0.5], 3.0)
    regression.solve(sums, [1.0, 1.0], 3.0, 0.01, ())
    assert sums.factors == pytest.approx([3.0, 3.0], rel=0.01)
