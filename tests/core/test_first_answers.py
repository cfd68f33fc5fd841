"""What the first answers of an endpoint teach, while predictions are still to find out how many tokens a text has."""

import pytest

from tests import make
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Ending, FirstToken, Prior, Run, Slo
from tidegate.core.output import Length
from tidegate.core.router import Router

LENGTH = Length(expected_tokens=16.0, high_tokens=40.0, median_tokens=16.0, sigma=0.5)
# Believed to be six times as quick as it is, and known to be a guess.
PRIOR = Prior(overhead_s=0.02, prefill_s_per_token=0.005, decode_s_per_token=0.025, sigma=1.0)
TOKEN_S = 0.03


def taught(taken_for: list[float], *, stream: bool) -> EndpointModel:
    """One that has answered as many prompts, each taken for so many times its tokens when it was sent."""
    model, now_s = EndpointModel(make.endpoint("laptop", prior=PRIOR), 0.9), 0.0
    for tokens, factor in zip((225, 800, 1500, 1000, 700, 1200, 400, 900), taken_for, strict=False):
        request = make.request(prompt_tokens=int(factor * tokens), stream=stream)
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
        ttft_s = TOKEN_S * tokens
        now_s += ttft_s
        if stream:
            model.first(request.id, now_s)
        told = make.ended(
            request.id,
            "laptop",
            ending=Ending.OK,
            ttft_s=ttft_s if stream else None,
            e2e_s=ttft_s + 0.4,
            output_tokens=16,
            prompt_tokens=tokens,
            cached_tokens=0,
        )
        model.ended(told, now_s + 0.4)
        now_s += 2.0
    return model


def predicted_s(model: EndpointModel, tokens: int) -> float:
    return model.base(make.request(prompt_tokens=tokens), LENGTH, 100_000.0).first_s


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("factor", [0.5, 2.2])
def test_how_fast_it_is_does_not_depend_on_what_a_text_was_taken_for_at_first(factor: float, stream: bool) -> None:
    found = taught([factor, factor, factor], stream=stream)
    known = taught([1.0, 1.0, 1.0], stream=stream)
    for tokens in (500, 1000, 2000):
        assert predicted_s(found, tokens) == pytest.approx(predicted_s(known, tokens), rel=0.15)


def test_an_estimate_that_stays_off_is_corrected() -> None:
    model = taught([1.3] * 8, stream=True)
    # What has 1,000 tokens will be taken for 1,300 as well.
    assert predicted_s(model, 1300) == pytest.approx(TOKEN_S * 1000, rel=0.2)


@pytest.mark.parametrize("cached", [(0, 900), (0, 900, 900), (900, 900), (0, 900, 0)])
def test_what_was_cached_of_the_first_prompts_is_not_taken_off_twice(cached: tuple[int, ...]) -> None:
    model, now_s = EndpointModel(make.endpoint("laptop", prior=PRIOR), 0.9), 0.0
    prefix = tuple(range(1, 5))
    for index, cached_tokens in enumerate(cached):
        request = make.request(f"r{index}", prompt_tokens=1500, prompt_bytes=4 * 1024, prefix=prefix)
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
        ttft_s = TOKEN_S * (1000 - cached_tokens)
        model.first(request.id, now_s + ttft_s)
        told = make.ended(
            request.id,
            "laptop",
            ttft_s=ttft_s,
            e2e_s=ttft_s + 0.4,
            output_tokens=16,
            prompt_tokens=1000,
            cached_tokens=cached_tokens,
        )
        now_s += ttft_s + 0.4
        model.ended(told, now_s)
        now_s += 2.0
    assert predicted_s(model, 1000) == pytest.approx(TOKEN_S * 1000, rel=0.4)


def outcomes(router: Router, now_s: float, *, tokens: int, took_s: float, times: int) -> tuple[list[Ending], float]:
    """How as many prompts end in a row that begin to be answered after so long, were they not given up before."""
    endings = []
    for _ in range(times):
        request = make.request(arrived_s=now_s, prompt_tokens=tokens, prompt_bytes=4 * tokens, slo=Slo(ttft_s=300.0))
        step = router.decide(request, now_s).plan[0]
        assert isinstance(step, Run)
        router.observe(make.started(request, step.endpoint), now_s)
        if took_s > step.timeout_s:
            endings.append(Ending.TIMED_OUT)
            now_s += step.timeout_s
            told = make.ended(request.id, step.endpoint, ending=Ending.TIMED_OUT, e2e_s=step.timeout_s)
        else:
            endings.append(Ending.OK)
            router.observe(FirstToken(request_id=request.id, endpoint=step.endpoint, ttft_s=took_s), now_s + took_s)
            now_s += took_s + 1.0
            told = make.ended(
                request.id,
                step.endpoint,
                ttft_s=took_s,
                e2e_s=took_s + 1.0,
                output_tokens=50,
                prompt_tokens=tokens,
            )
        router.observe(told, now_s)
        now_s += 40.0
    return endings, now_s


@pytest.mark.parametrize("took_s", [60.0, 240.0])
def test_an_engine_that_was_never_as_quick_as_believed_is_given_the_time_that_it_takes(took_s: float) -> None:
    router = make.router(make.endpoint("laptop"))
    endings, _ = outcomes(router, 1000.0, tokens=8000, took_s=took_s, times=8)
    assert endings[0] is Ending.TIMED_OUT
    assert endings[-1] is Ending.OK


def test_an_engine_that_was_quick_before_it_fell_silent_is_as_quick_when_it_is_back() -> None:
    router = make.router(make.endpoint("laptop"))
    _, now_s = outcomes(router, 1000.0, tokens=8000, took_s=8.0, times=8)
    before_s = predicted_s(router.endpoint("laptop"), 8000)
    endings, _ = outcomes(router, now_s, tokens=8000, took_s=1e9, times=2)
    assert endings == [Ending.TIMED_OUT, Ending.TIMED_OUT]
    assert predicted_s(router.endpoint("laptop"), 8000) == pytest.approx(before_s, rel=1e-6)


def told_of(
    model: EndpointModel,
    tokens: int,
    now_s: float,
    ttft_s: float,
    *,
    stream: bool = True,
    shipped: str = "",
    cached_tokens: int = 0,
) -> float:
    """It answers one more prompt, so much of which turns out to be cached; when that is over."""
    request = make.request(prompt_tokens=tokens, stream=stream, shipped=shipped)
    model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
    if stream:
        model.first(request.id, now_s + ttft_s)
    told = make.ended(
        request.id,
        "laptop",
        ttft_s=ttft_s if stream else None,
        e2e_s=ttft_s + 0.4,
        output_tokens=16,
        prompt_tokens=tokens,
        cached_tokens=cached_tokens,
    )
    model.ended(told, now_s + ttft_s + 0.4)
    return now_s + ttft_s + 1.0


@pytest.mark.parametrize("restore_s", [0.1, 0.5])
def test_how_soon_an_answer_begins_whose_kv_cache_has_come_teaches_nothing_of_how_long_a_prompt_takes(
    restore_s: float,
) -> None:
    model, now_s = taught([1.0] * 8, stream=True), 100.0
    before = [model.base(make.request(prompt_tokens=tokens), LENGTH, now_s) for tokens in (40, 900, 2_000)]
    for times in (1.0, 1.6, 1.0, 1.8, 2.4, 1.6, 1.2, 1.4):
        now_s = told_of(model, 900, now_s, times * restore_s, shipped="rack>laptop", cached_tokens=899)
    after = [model.base(make.request(prompt_tokens=tokens), LENGTH, now_s) for tokens in (40, 900, 2_000)]
    for one, other in zip(before, after, strict=True):
        assert other.first_s == pytest.approx(one.first_s, rel=0.04)
        assert other.sigma < 1.15 * one.sigma
    shipped = model.base(make.request(prompt_tokens=900, shipped="rack>laptop"), LENGTH, now_s)
    assert shipped.first_s == pytest.approx(1.5 * restore_s, rel=0.35)


def test_a_hit_that_nobody_foresaw_is_no_sudden_speed_where_answers_come_in_one_piece() -> None:
    model, now_s = taught([1.0] * 8, stream=False), 100.0
    before_s = model.base(make.request(prompt_tokens=900), LENGTH, now_s).first_s
    for _ in range(4):
        now_s = told_of(model, 900, now_s, 1.2, stream=False, cached_tokens=860)
    assert model.base(make.request(prompt_tokens=900), LENGTH, now_s).first_s == pytest.approx(before_s, rel=0.2)


def test_how_far_answers_scatter_is_known_for_longer_than_how_long_they_take() -> None:
    model = taught([1.0] * 8, stream=True)
    before = model.base(make.request(prompt_tokens=900), LENGTH, 200.0)
    now_s = told_of(model, 900, 2_000.0, TOKEN_S * 900)
    assert model.base(make.request(prompt_tokens=900), LENGTH, now_s).sigma < 1.2 * before.sigma


def test_how_much_longer_a_token_takes_in_a_long_context_is_learned_of_a_small_model_on_a_cpu() -> None:
    # As measured of one of 135 million with a quarter of a core.
    model, now_s = EndpointModel(make.endpoint("laptop", prior=PRIOR), 0.9), 0.0

    def token_s(tokens: int) -> float:
        return 0.055 + 4.7e-5 * tokens

    for tokens in (225, 800, 1500, 1000, 300, 1200, 400, 1800, 600, 250):
        request = make.request(prompt_tokens=tokens)
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, now_s), now_s)
        ttft_s = TOKEN_S * tokens
        model.first(request.id, now_s + ttft_s)
        now_s += ttft_s + 31 * token_s(tokens)
        told = make.ended(
            request.id,
            "laptop",
            ending=Ending.OK,
            ttft_s=ttft_s,
            e2e_s=ttft_s + 31 * token_s(tokens),
            output_tokens=32,
            prompt_tokens=tokens,
            cached_tokens=0,
        )
        model.ended(told, now_s)
        now_s += 2.0
    for tokens in (300, 1000, 2000):
        base = model.base(make.request(prompt_tokens=tokens), LENGTH, now_s)
        assert base.tpot_s == pytest.approx(token_s(tokens), rel=0.1)
