"""Steps and reasons."""

from math import exp, inf, nextafter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core import plan
from tidegate.core.model import Capability, Request, Slo
from tidegate.core.output import Length
from tidegate.core.plan import Option, to_ms
from tidegate.core.value import attainment, value_usd, worth_usd
from tidegate.core.why import Why

LENGTH = Length(50.0, 100.0, 50.0, 0.5)


def option(name: str, request: Request, *, first_s: float, cost_usd: float = 0.0) -> Option:
    model = make.router(make.endpoint(name)).endpoint(name)
    base = model.base(request, LENGTH, 0.0)
    base.first_s, base.cost_usd = first_s, cost_usd
    usd = value_usd(request, base, request.worth_usd, 0.0)
    return Option(model, base, usd, attainment(request, base, 0.0), name)


@given(st.lists(st.sampled_from((0.0, 0.5, 1.0)), max_size=9), st.randoms(use_true_random=False))
def test_what_is_worth_most_comes_first_then_the_quicker_one_then_by_name(usd: list[float], random: Random) -> None:
    options, request = [], make.request()
    for index, value in enumerate(usd):
        one = option(f"e{index}", request, first_s=random.choice((0.1, 1.0)))
        one.value_usd = value
        options.append(one)
    ranked = sorted(options, key=lambda o: (-o.value_usd, o.base.first_s, o.name))
    random.shuffle(options)
    assert plan.in_order(options) == ranked


def test_the_cutover_of_the_second_step_counts_from_when_it_starts() -> None:
    request = make.request(ttft_s=10.0, worth_usd=1.0)
    options = [option(n, request, first_s=1.0) for n in "abc"]
    first, second, third = plan.steps(request, options, 1.0, 0.0, 0.0)
    high_s = exp(options[0].base.deviations * options[0].base.sigma)
    assert first.cutover_s == pytest.approx(10.0 - high_s, abs=0.002)
    # Nothing is left of the promise by then that a third could keep.
    assert (second.cutover_s, third.cutover_s) == (None, None)


def test_time_that_has_passed_since_arrival_brings_the_cutover_forward() -> None:
    request = make.request(ttft_s=10.0, worth_usd=1.0)
    options = [option(n, request, first_s=1.0) for n in "ab"]
    early, late = (plan.steps(request, options, 1.0, spent_s, 0.0)[0].cutover_s for spent_s in (0.0, 3.0))
    assert early is not None
    assert late == pytest.approx(early - 3.0, abs=0.002)


def test_without_a_promise_of_first_content_nothing_is_started_twice() -> None:
    request = make.request(slo=Slo(e2e_s=60.0), worth_usd=1.0)
    options = [option(n, request, first_s=1.0) for n in "ab"]
    assert [s.cutover_s for s in plan.steps(request, options, 1.0, 0.0, 0.0)] == [None, None]


def test_the_time_out_of_an_endpoint_that_keeps_missing_its_bound_stays_within_reason() -> None:
    request = make.request()
    slow = option("a", request, first_s=5.0)
    slow.base.deviations, slow.base.sigma = 8.0, 1.0
    assert plan.steps(request, [slow], 0.0, 0.0, 0.0)[0].timeout_s == 80.0


def test_an_answer_that_comes_in_one_piece_has_the_time_of_the_whole() -> None:
    whole = make.request(ttft_s=3.0, worth_usd=1.0, stream=False)
    first, second = plan.steps(whole, [option(n, whole, first_s=1.0) for n in "ab"], 1.0, 0.0, 0.0)
    base = option("a", whole, first_s=1.0).base
    assert first.timeout_s == second.timeout_s
    assert first.timeout_s > plan.TIMEOUT_FACTOR * (base.first_s_high + LENGTH.high_tokens * base.tpot_s)
    # Its first content, which nobody sees, may be in time all the same.
    assert first.cutover_s is None
    patient = msgspec.structs.replace(whole, slo=Slo(ttft_s=4.0 * base.e2e_s_high))
    first, _ = plan.steps(patient, [option(n, patient, first_s=1.0) for n in "ab"], 1.0, 0.0, 0.0)
    assert first.cutover_s is not None
    assert first.cutover_s >= base.e2e_s_high
    seen = msgspec.structs.replace(whole, stream=True)
    first, _ = plan.steps(seen, [option(n, seen, first_s=1.0) for n in "ab"], 1.0, 0.0, 0.0)
    assert first.timeout_s == plan.TIMEOUT_S_MIN
    assert first.cutover_s is not None


firsts = st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(1, 9), st.floats(0.05, 2.0)), max_size=4)


@given(firsts, st.floats(0.0, 300.0), st.floats(0.0, 2.0), st.sampled_from((0.0, 0.3)), st.floats(0.1, 4.0))
def test_when_all_of_an_answer_is_there_is_told_as_if_its_quantiles_had_been_found(
    drawn: list[tuple[float, int, float]], decode_s: float, scatter: float, cold_share: float, deviations: float
) -> None:
    base, total = option("a", make.request(), first_s=1.0).base, sum(weight for _, weight, _ in drawn)
    base.outcomes = tuple((s, weight / total, sigma) for s, weight, sigma in sorted(drawn, reverse=True))
    base.decode_s, base.tpot_sigma, base.deviations = decode_s, scatter, deviations
    base.cold_share, base.load_s, base.load_sigma = cold_share, 20.0, 0.4
    whole_s, first_s_safe = plan._whole_s_safe(base), base.first_s_safe
    for by_s in (0.0, first_s_safe, *(whole_s * times for times in (0.5, 0.999, 1.0, 1.001, 2.0)), inf):
        for at_s in (nextafter(by_s, -inf), by_s, nextafter(by_s, inf)):
            assert plan._is_whole_by(at_s, base, first_s_safe) is (at_s >= whole_s)


def test_a_long_answer_in_one_piece_is_waited_for_also_where_most_are_short() -> None:
    request = make.request(stream=False)
    skewed = Length(200.0, 2000.0, 20.0, 1.6)
    model = make.router(make.endpoint("a")).endpoint("a")
    base = model.base(request, skewed, 0.0)
    one = Option(model, base, 0.0, 1.0, "a")
    assert plan.steps(request, [one], 1.0, 0.0, 0.0)[0].timeout_s > base.first_s + 2000.0 * base.tpot_s


def test_what_may_take_for_ever_leaves_another_one_time_to_answer() -> None:
    request = make.request(stream=False)
    long = Length(4000.0, 20_000.0, 3000.0, 1.0)
    options = []
    for name in "ab":
        model = make.router(make.endpoint(name)).endpoint(name)
        options.append(Option(model, model.base(request, long, 0.0), 0.0, 1.0, name))
    first, last = plan.steps(request, options, 1.0, 0.0, 0.0)
    assert first.timeout_s == max(plan.WHOLE_S / 2, plan.to_ms(plan._whole_s_safe(options[0].base)))
    assert last.timeout_s > first.timeout_s


def test_without_predictions_whole_answers_have_the_time_of_a_client_together() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b", streams=True))
    models = [router.endpoint(name) for name in "ab"]
    for stream, times_s in ((True, [40.0, 40.0]), (False, [560.0, 40.0])):
        assert [one.timeout_s for one in plan.static_steps(make.request(stream=stream), models)] == times_s


@pytest.mark.parametrize(
    ("streams", "needs", "shown"),
    [(True, (), True), (False, (Capability.EMBEDDING,), True), (False, (Capability.TOOLS,), False)],
)
def test_whether_first_content_is_seen_depends_on_how_the_engine_is_asked(
    streams: bool, needs: tuple[Capability, ...], shown: bool
) -> None:
    assert plan.shows(make.request(stream=False, needs=needs), make.endpoint("a", streams=streams)) is shown


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ((1.0, 0.0), (1.0, 0.001), Why.CHEAPEST_ON_TIME),
        ((1.0, 0.001), (30.0, 0.0), Why.WORTH_THE_PRICE),
        ((30.0, 0.0), (1.0, 0.1), Why.NOT_WORTH_MORE),
        ((30.0, 0.0), (40.0, 0.0), Why.LEAST_LOSS),
    ],
)
def test_the_reason_tells_what_the_choice_turned_on(
    first: tuple[float, float], second: tuple[float, float], why: Why
) -> None:
    request = make.request(ttft_s=5.0)
    ranked = [option(n, request, first_s=f, cost_usd=c) for n, (f, c) in (("a", first), ("b", second))]
    assert plan.why_first(ranked) is why


def test_times_in_a_plan_are_whole_milliseconds_and_never_early() -> None:
    assert [to_ms(s) for s in (0.0, 0.0001, 1.0, 1.2345)] == [0.0, 0.001, 1.0, 1.235]


def test_worth_grows_with_the_work() -> None:
    request = make.request(prompt_tokens=1_000, completions=2, worth_usd=0.01, worth_usd_per_1k_tokens=0.1)
    assert worth_usd(request, LENGTH) == pytest.approx(0.01 + 0.1 * 1.1)


def test_the_least_likely_axis_decides_attainment() -> None:
    base = option("a", make.request(), first_s=1.0).base
    both = attainment(make.request(slo=Slo(ttft_s=1.2, e2e_s=1e6)), base, 0.0)
    assert both == attainment(make.request(slo=Slo(ttft_s=1.2)), base, 0.0)
    slow = attainment(make.request(slo=Slo(ttft_s=1e6, tpot_s=0.01)), base, 0.0)
    assert 0.0 < slow < 0.1
    assert attainment(make.request(slo=Slo(ttft_s=1.0)), base, 0.0) == 0.5
    assert attainment(make.request(slo=Slo()), base, 0.0) == 1.0


@pytest.mark.parametrize("slo", [Slo(ttft_s=1.0), Slo(e2e_s=1.0)])
def test_a_promise_whose_time_has_passed_cannot_be_kept(slo: Slo) -> None:
    assert attainment(make.request(slo=slo), option("a", make.request(), first_s=1.0).base, 1.0) == 0.0
