"""Laws of the choice itself: what must be true of any request, price and speed."""

from math import isclose

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import make
from tidegate.core.model import Endpoint, Price, Prior, Request, Slo, replace
from tidegate.core.router import Router
from tidegate.core.why import Why

seconds = st.floats(0.01, 30.0)
tokens = st.integers(1, 20_000)
usd = st.floats(0.0, 1e-4)
worths = st.floats(0.0, 1.0)


@st.composite
def priors(draw: st.DrawFn) -> Prior:
    return Prior(
        overhead_s=draw(st.floats(0.0, 2.0)),
        prefill_s_per_token=draw(st.floats(0.0, 0.01)),
        prefill_s_per_token2=draw(st.floats(0.0, 1e-6)),
        decode_s_per_token=draw(st.floats(0.001, 0.2)),
        batch_slowdown=draw(st.floats(0.0, 1.0)),
        batch_tokens=draw(st.none() | st.integers(1, 4_096)),
        rtt_s=draw(st.floats(0.0, 0.5)),
        sigma=draw(st.floats(0.05, 1.5)),
    )


@st.composite
def slos(draw: st.DrawFn) -> Slo:
    axis = st.none() | seconds
    return Slo(ttft_s=draw(axis), tpot_s=draw(st.none() | st.floats(0.001, 0.5)), e2e_s=draw(axis))


@st.composite
def prices(draw: st.DrawFn) -> Price:
    return Price(usd_per_input_token=draw(usd), usd_per_output_token=draw(usd))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Endpoint, Endpoint]:
    own = make.endpoint("own", prior=draw(priors()), price=draw(prices()))
    cloud = make.endpoint("cloud", local=False, prior=draw(priors()), price=draw(prices()))
    return own, cloud


@st.composite
def requests(draw: st.DrawFn) -> Request:
    n = draw(tokens)
    return make.request(
        "r",
        prompt_tokens=n,
        prompt_bytes=4 * n,
        output_tokens_max=draw(st.none() | st.integers(1, 2_000)),
        slo=draw(slos()),
        worth_usd=draw(worths),
        worth_usd_per_1k_tokens=draw(worths),
        late_usd_per_s=draw(worths),
    )


def rank_of(name: str, endpoints: tuple[Endpoint, ...], request: Request) -> int:
    plan = Router(endpoints, make.policy()).decide(request, 0.0).plan
    return [step.endpoint for step in plan].index(name)


@given(pairs(), requests(), st.floats(1.0, 100.0))
def test_raising_a_price_never_attracts_traffic(
    pair: tuple[Endpoint, Endpoint], request: Request, factor: float
) -> None:
    own, cloud = pair
    dearer = replace(
        cloud,
        price=Price(
            usd_per_input_token=cloud.price.usd_per_input_token * factor,
            usd_per_output_token=cloud.price.usd_per_output_token * factor,
        ),
    )
    assert rank_of("cloud", (own, dearer), request) >= rank_of("cloud", (own, cloud), request)


@given(pairs(), tokens, tokens, st.floats(0.1, 30.0), worths, worths)
def test_at_no_price_a_longer_prompt_never_comes_back_from_a_faster_remote(
    pair: tuple[Endpoint, Endpoint], n: int, more: int, ttft_s: float, worth: float, late: float
) -> None:
    own, cloud = (replace(e, price=Price(), context_tokens=1_000_000) for e in pair)
    # Everything else equal: prefill is quicker there, per token and with the square, and as well known as ours.
    quicker = replace(
        cloud.prior,
        prefill_s_per_token=min(cloud.prior.prefill_s_per_token, own.prior.prefill_s_per_token),
        prefill_s_per_token2=min(cloud.prior.prefill_s_per_token2, own.prior.prefill_s_per_token2),
        sigma=own.prior.sigma,
    )
    cloud = replace(cloud, prior=quicker)
    short = make.request(
        "r",
        prompt_tokens=n,
        prompt_bytes=0,
        ttft_s=ttft_s,
        worth_usd=worth,
        worth_usd_per_1k_tokens=worth,
        late_usd_per_s=late,
    )
    long = replace(short, prompt_tokens=n + more)
    if rank_of("cloud", (own, cloud), short) == 0:
        assert rank_of("cloud", (own, cloud), long) == 0


@pytest.mark.lengthy
@given(pairs(), requests(), st.integers(-20, 20))
def test_the_unit_of_money_changes_no_choice(pair: tuple[Endpoint, Endpoint], request: Request, power: int) -> None:
    # Powers of two, so that floats scale exactly: in other units only exact ties could fall otherwise.
    k = 2.0**power
    scaled = tuple(
        replace(
            e,
            price=Price(
                usd_per_input_token=e.price.usd_per_input_token * k,
                usd_per_output_token=e.price.usd_per_output_token * k,
            ),
        )
        for e in pair
    )
    same = replace(
        request,
        worth_usd=request.worth_usd * k,
        worth_usd_per_1k_tokens=request.worth_usd_per_1k_tokens * k,
        late_usd_per_s=request.late_usd_per_s * k,
    )
    assert Router(scaled, make.policy()).decide(same, 0.0) == Router(pair, make.policy()).decide(request, 0.0)


@given(pairs(), requests(), st.lists(requests(), max_size=6))
def test_more_in_flight_never_lowers_the_predicted_ttft_where_compute_is_shared(
    pair: tuple[Endpoint, Endpoint], request: Request, before: list[Request]
) -> None:
    own = replace(pair[0], concurrency=3, context_tokens=1_000_000)
    router = Router((own,), make.policy())
    ttft_s = twice_s = alone_s = 0.0
    for index, sent in enumerate(before):
        estimate = router.candidates(request, 0.0)[0].estimate
        assert estimate is not None
        assert estimate.ttft_s >= (ttft_s - twice_s) * (1.0 - 1e-9)
        alone_s = alone_s or estimate.prefill_s
        # While prompts before it keep it from beginning, though there is a slot, they are in its queue as of now, too.
        ttft_s, twice_s = estimate.ttft_s, estimate.prefill_s - alone_s if estimate.wait_s else 0.0
        # None of them is urgent: for those the last free slot is kept, but only as long as all that waits is in time.
        router.observe(make.started(replace(sent, id=f"s{index}", slo=Slo()), "own"), 0.0)


@given(pairs(), requests(), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4))
def test_pruning_never_changes_a_plan(pair: tuple[Endpoint, Endpoint], request: Request, steps: list[float]) -> None:
    crowd = tuple(
        replace(
            pair[1],
            name=f"c{index}",
            price=Price(usd_per_input_token=step * 1e-4, usd_per_output_token=step * 1e-4),
            prior=replace(pair[1].prior, overhead_s=2.0 * (1.0 - step)),
        )
        for index, step in enumerate(steps)
    )
    router = Router((*pair, *crowd), make.policy())
    decision = router.decide(request, 0.0)
    assume(decision.why is not Why.EXPLORES)
    plan = decision.plan
    values = {c.endpoint: c.value_usd for c in router.candidates(request, 0.0)}
    best = sorted((v for v in values.values() if v is not None), reverse=True)[: len(plan)]
    for step, value in zip(plan, best, strict=True):
        found = values[step.endpoint]
        assert found is not None
        assert isclose(found, value, rel_tol=1e-12, abs_tol=1e-15)


@given(pairs(), requests(), seconds)
def test_a_cutover_comes_when_the_first_is_overdue_and_the_second_still_in_time(
    pair: tuple[Endpoint, Endpoint], request: Request, ttft_s: float
) -> None:
    asked = replace(request, slo=Slo(ttft_s=ttft_s))
    router = Router(pair, make.policy())
    decision = router.decide(asked, 0.0)
    # Who is tried by chance may be left earlier, so that what is best still comes in time.
    assume(decision.why is not Why.EXPLORES and len(decision.plan) == 2)
    first, second = decision.plan
    high = {c.endpoint: c.estimate.ttft_s_high for c in router.candidates(asked, 0.0) if c.estimate is not None}
    cutover_s = getattr(first, "cutover_s", None)
    if cutover_s is not None:
        assert high[first.endpoint] - 0.001 <= cutover_s
        assert cutover_s + high[second.endpoint] <= ttft_s + 0.002
    assert getattr(second, "cutover_s", None) is None
