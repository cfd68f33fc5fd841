"""Laws of learning: corrections are unbiased, bounds hold what they say, and leaving early teaches no optimism."""

from math import exp, log
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import make
from tidegate.core.correction import Correction
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.load import LOAD_EDGES
from tidegate.core.model import Ended, Ending, Endpoint, Request, Started
from tidegate.core.timing import LENGTH_EDGES

ROWS, COLUMNS = len(LENGTH_EDGES) + 1, len(LOAD_EDGES) + 1


QUANTILE = 0.9


class Engine:
    """Serves one request at a time at a true speed that the prior does not know, with log-normal noise of mean one."""

    def __init__(self, factor: float, noise: float, seed: int, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint or make.endpoint("laptop", concurrency=1)
        self.model = EndpointModel(self.endpoint, QUANTILE)
        self.lengths = LengthModel()
        self.factor, self.noise, self.draw, self.now_s = factor, noise, Random(seed), 0.0

    def noisy(self, seconds: float) -> float:
        return seconds * self.factor * self.draw.lognormvariate(-(self.noise**2) / 2.0, self.noise)

    def request(self) -> Request:
        tokens = self.draw.choice((30, 200, 800, 3_000))
        return make.request(prompt_tokens=tokens, prompt_bytes=4 * tokens, output_tokens_max=120)

    def serve(self) -> tuple[float, float, float, bool]:
        """Predicted occupancy, actual, ratio of TTFT to its predicted median, and whether it was within its bound."""
        request, prior = self.request(), self.endpoint.prior
        length = self.lengths.at(request.klass, request.output_tokens_max)
        base = self.model.base(request, length, self.now_s)
        self.model.started(make.started(request, "laptop"), self.model.base(request, length, self.now_s), self.now_s)
        network_s = prior.rtt_s + request.prompt_bytes / prior.upload_bytes_per_s
        ttft_s = network_s + self.noisy(prior.overhead_s + request.prompt_tokens * prior.prefill_s_per_token)
        tokens = min(120, max(1, round(self.draw.lognormvariate(4.0, 0.8))))
        e2e_s = ttft_s + (tokens - 1) * self.noisy(prior.decode_s_per_token)
        self.now_s += e2e_s
        ended = Ended(
            request_id=request.id, endpoint="laptop", ending=Ending.OK, e2e_s=e2e_s, ttft_s=ttft_s, output_tokens=tokens
        )
        self.model.ended(ended, self.now_s)
        self.lengths.learn(request.klass, tokens, self.now_s, at_least=tokens == 120)
        self.now_s += 1.0
        return base.occupies_s, e2e_s, ttft_s / base.first_s, ttft_s <= base.first_s_high


@pytest.mark.lengthy
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4, 5.0])
@pytest.mark.parametrize("noise", [0.05, 0.3, 0.6])
def test_the_predicted_occupancy_is_unbiased_whatever_the_prior_says(factor: float, noise: float) -> None:
    actual_s = predicted_s = 0.0
    for seed in range(5):
        engine = Engine(factor, noise, seed)
        for _ in range(60):
            engine.serve()
        for _ in range(300):
            predicted, actual, _, _ = engine.serve()
            predicted_s += predicted
            actual_s += actual
    assert actual_s / predicted_s == pytest.approx(1.0, abs=0.06)


@pytest.mark.lengthy
@pytest.mark.parametrize("factor", [0.7, 1.4])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_the_predicted_ttft_is_the_median(factor: float, noise: float) -> None:
    engine = Engine(factor, noise, seed=3)
    for _ in range(60):
        engine.serve()
    below = sum(engine.serve()[2] <= 1.0 for _ in range(1500))
    assert below / 1500 == pytest.approx(0.5, abs=0.04)


@pytest.mark.lengthy
@pytest.mark.parametrize("factor", [0.7, 1.4])
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.8])
def test_the_upper_quantile_covers_what_it_says(factor: float, noise: float) -> None:
    engine = Engine(factor, noise, seed=5)
    for _ in range(60):
        engine.serve()
    within = sum(engine.serve()[3] for _ in range(1500))
    assert within / 1500 == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("tail", [0.0, 0.2])
def test_coverage_holds_even_where_the_noise_is_no_log_normal(tail: float) -> None:
    engine = Engine(1.0, 0.2, seed=9)
    plain = engine.noisy
    engine.noisy = lambda seconds: plain(seconds) * (6.0 if engine.draw.random() < tail else 1.0)  # type: ignore[method-assign]
    for _ in range(100):
        engine.serve()
    within = sum(engine.serve()[3] for _ in range(1500))
    assert within / 1500 == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_few_dozen_samples_find_the_true_factor(factor: float) -> None:
    correction, draw = Correction(ROWS, COLUMNS, prior_sigma=0.7), Random(1)
    for index in range(40):
        correction.learn(2, 1, log(factor) + draw.gauss(0.0, 0.1), float(index))
    mix, sigma = correction.at(2, 1, 40.0)
    assert exp(mix.bias) == pytest.approx(factor, rel=0.05)
    assert sigma == pytest.approx(0.1, abs=0.06)


def test_one_sample_moves_the_median_but_claims_no_precision() -> None:
    correction = Correction(ROWS, COLUMNS, prior_sigma=0.7)
    correction.learn(2, 1, log(2.0), 0.0)
    mix, sigma = correction.at(2, 1, 0.0)
    assert 1.7 < exp(mix.bias) < 2.0
    assert sigma > 0.35


def test_a_change_of_speed_is_followed_within_a_few_dozen_requests_of_a_size() -> None:
    engine = Engine(1.0, 0.1, seed=2)
    engine.request = lambda: make.request(prompt_tokens=800, prompt_bytes=3_200)  # type: ignore[method-assign]
    for _ in range(100):
        engine.serve()
    engine.factor = 2.0
    for _ in range(60):
        engine.serve()
    assert sum(engine.serve()[2] for _ in range(50)) / 50 == pytest.approx(1.0, abs=0.2)


def test_a_cell_without_samples_says_what_its_row_says_and_a_row_what_the_whole_says() -> None:
    correction = Correction(ROWS, COLUMNS, prior_sigma=0.5)
    for _ in range(30):
        correction.learn(2, 1, log(3.0), 0.0)
    same_row, other_row = correction.at(2, 0, 0.0)[0], correction.at(4, 0, 0.0)[0]
    assert exp(same_row.bias) == pytest.approx(3.0, rel=0.1)
    assert exp(other_row.bias) == pytest.approx(3.0, rel=0.1)
    assert other_row.variance >= same_row.variance


def test_a_cell_that_has_seen_nothing_for_long_yields_to_what_the_endpoint_shows_now() -> None:
    correction = Correction(ROWS, COLUMNS, prior_sigma=0.5)
    for _ in range(30):
        correction.learn(2, 1, log(4.0), 0.0)
    for index in range(40):
        correction.learn(4, 1, 0.0, 7_200.0 + index)
    assert exp(correction.at(2, 1, 7_300.0)[0].bias) < 1.5


def test_what_was_learned_long_ago_is_trusted_less_and_not_shifted() -> None:
    correction = Correction(ROWS, COLUMNS, prior_sigma=0.5)
    for _ in range(30):
        correction.learn(2, 1, log(2.0), 0.0)
    (mix, fresh), (later, stale) = correction.at(2, 1, 0.0), correction.at(2, 1, 3_600.0)
    assert exp(later.bias) == exp(mix.bias)
    assert fresh < stale <= (fresh**2 + 0.25) ** 0.5


samples = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.floats(-2.0, 2.0)), min_size=0, max_size=60)


@given(samples, st.integers(0, 2), st.integers(0, 1), st.floats(-6.0, 6.0))
@example([(0, 0, 2.0)] * 10 + [(1, 0, -1.0)] * 10, 1, 0, -0.9)
@example([(0, 0, -2.0)] * 10 + [(1, 0, 1.0)] * 2, 0, 1, -1.5)
def test_a_censored_sample_never_makes_the_model_more_optimistic(
    known: list[tuple[int, int, float]], row: int, column: int, bound: float
) -> None:
    correction = Correction(3, 2, prior_sigma=0.7)
    for r, c, x in known:
        correction.learn(r, c, x, 0.0)
    before = [correction.at(r, c, 0.0)[0].bias for r in range(3) for c in range(2)]
    correction.learn_at_least(row, column, bound, 0.0)
    after = [correction.at(r, c, 0.0)[0].bias for r in range(3) for c in range(2)]
    assert all(b >= a - 1e-12 for a, b in zip(before, after, strict=True))


@given(st.lists(st.floats(-2.0, 2.0), max_size=60), st.floats(-6.0, 6.0))
@example([1.0, 0.5], 0.0)  # so much certainty, that the little that it rises by is lost
@example([-0.0818462035689631, -0.12901555451237057], -0.7192712974689872)
def test_a_censored_sample_never_lowers_the_bound_of_what_it_speaks_of(known: list[float], bound: float) -> None:
    correction = Correction(1, 1, prior_sigma=0.7)
    for x in known:
        correction.learn(0, 0, x, 0.0)
    mix, sigma = correction.at(0, 0, 0.0)
    correction.learn_at_least(0, 0, bound, 0.0)
    later, wider = correction.at(0, 0, 0.0)
    assert later.bias + 1.2816 * wider >= mix.bias + 1.2816 * sigma - 1e-9


@pytest.mark.parametrize("cut_at", [0.5, 1.0, 2.0])
def test_clients_that_leave_do_not_hide_how_slow_an_endpoint_is(cut_at: float) -> None:
    """Whoever has no content after `cut_at` of the true median leaves: the model still finds that median."""
    correction, draw = Correction(1, 1, prior_sigma=0.7), Random(4)
    for index in range(600):
        true = draw.gauss(log(3.0), 0.4)
        bound = log(3.0 * cut_at)
        if true <= bound:
            correction.learn(0, 0, true, float(index))
        else:
            correction.learn_at_least(0, 0, bound, float(index))
    factor = exp(correction.at(0, 0, 600.0)[0].bias)
    assert factor == pytest.approx(3.0, rel=0.3) if cut_at >= 1.0 else factor > 1.5


def test_a_time_out_counts_as_a_miss_of_the_bound() -> None:
    model, lengths = EndpointModel(make.endpoint("laptop"), QUANTILE), LengthModel()
    request = make.request("r")
    # Where it was used just now, no load of the model explains a silence.
    model.cold.used(0.0)
    model.started(make.started(request, "laptop"), model.base(request, lengths.at("chat", 100), 0.0), 0.0)
    model.ended(Ended(request_id="r", endpoint="laptop", ending=Ending.TIMED_OUT, e2e_s=60.0), 60.0)
    judged = model.timing.ttft.learned.promises[0]
    assert (judged.judged, judged.missed) == (1, 1)


@given(st.floats(0.1, 10.0), st.integers(1, 20))
def test_silence_never_lowers_a_prediction_of_the_endpoint(waited_s: float, times: int) -> None:
    model, lengths = EndpointModel(make.endpoint("laptop"), QUANTILE), LengthModel()
    request = make.request("probe")
    before = model.base(request, lengths.at("chat", 100), 0.0).first_s
    for index in range(times):
        sent = make.request(f"r{index}")
        model.started(make.started(sent, "laptop"), model.base(sent, lengths.at("chat", 100), 0.0), 0.0)
        model.ended(Ended(request_id=sent.id, endpoint="laptop", ending=Ending.CANCELLED, e2e_s=waited_s), 0.0)
    assert model.base(request, lengths.at("chat", 100), 0.0).first_s >= before * (1 - 1e-12)


@pytest.mark.parametrize(("spread", "within"), [(0.7, 0.1), (0.2, 0.06)])
@pytest.mark.parametrize("bound", [80, 100, 400])
def test_the_expected_length_is_the_mean_of_what_the_clients_bound_leaves(
    bound: int, spread: float, within: float
) -> None:
    lengths, draw = LengthModel(), Random(8)
    total = 0
    for index in range(4_000):
        tokens = max(1, round(exp(draw.gauss(4.5, spread))))
        if index < 3_000:
            lengths.learn("chat", min(tokens, bound), float(index), at_least=tokens >= bound)
        else:
            total += min(tokens, bound)
    assert lengths.at("chat", bound).expected_tokens == pytest.approx(total / 1_000, rel=within)


def test_several_completions_teach_the_length_and_pace_of_one() -> None:
    router = make.router(make.endpoint("laptop"))
    for index in range(40):
        sent = make.request(f"r{index}", completions=4, output_tokens_max=None)
        router.observe(make.started(sent, "laptop"), float(index))
        router.observe(
            Ended(
                request_id=sent.id,
                endpoint="laptop",
                ending=Ending.OK,
                e2e_s=0.25 + 49 * 0.02,
                ttft_s=0.25,
                output_tokens=200,
            ),
            index + 0.9,
        )
    candidate = router.candidates(make.request("x", output_tokens_max=None), 41.0)[0]
    assert candidate.estimate is not None
    assert candidate.estimate.output_tokens == pytest.approx(50.0, rel=0.1)
    assert candidate.estimate.tpot_s == pytest.approx(0.02, rel=0.05)


def test_started_without_an_ending_teaches_nothing() -> None:
    model = EndpointModel(make.endpoint("laptop"), QUANTILE)
    fact = Started(request_id="r", endpoint="laptop", klass="chat", prompt_tokens=10, prompt_bytes=40)
    model.started(fact, model.base(fact, LengthModel().at("chat", None), 0.0), 0.0)
    assert all(not cell.weight for cell in model.timing.ttft.learned.cells)
