"""Remote prefill: what it is expected to take, when it may be used, and what is learned of it."""

import msgspec
import pytest

from tests import make
from tidegate.core.base import asked
from tidegate.core.explore import UNUSED_S
from tidegate.core.handover import CACHED_LEAST, HandoverModel, combined
from tidegate.core.health import GONE
from tidegate.core.model import (
    Capability,
    Ended,
    Ending,
    Fingerprint,
    FirstToken,
    Handover,
    Held,
    Prefill,
    Price,
    Released,
    Request,
    Run,
    Shipped,
    Slo,
    Wait,
    replace,
)
from tidegate.core.revive import revived
from tidegate.core.router import Router
from tidegate.core.sending import started
from tidegate.core.state import State
from tidegate.core.value import attainment
from tidegate.core.why import Why

ONE = Fingerprint(weights="hf:o/one")
KV_BYTES = 20_000.0
BYTES_PER_S = 20e6
NAME = "rack>laptop"
# The rack computes prompts twenty times as fast, and its output is dear.
SLOW = replace(make.LOCAL_PRIOR, prefill_s_per_token=0.005, prefill_s_per_token2=0.0, overhead_s=0.05, sigma=0.05)
FAST = replace(
    make.LOCAL_PRIOR,
    prefill_s_per_token=0.00025,
    prefill_s_per_token2=0.0,
    overhead_s=0.05,
    rtt_s=0.02,
    upload_bytes_per_s=1e8,
    sigma=0.05,
)


def pair(*, fingerprint: Fingerprint = ONE, price: Price | None = None, **changes: object) -> Router:
    handover = replace(Handover(target="laptop", kv_bytes_per_token=KV_BYTES, bytes_per_s=BYTES_PER_S), **changes)
    dear = Price(usd_per_input_token=1e-8, usd_per_output_token=1e-4)
    return make.router(
        make.endpoint("laptop", prior=SLOW, fingerprint=ONE),
        make.endpoint(
            "rack",
            local=False,
            shares_compute=True,
            prior=FAST,
            price=dear if price is None else price,
            fingerprint=fingerprint,
            handovers=(handover,),
        ),
    )


def long(**changes: object) -> Request:
    made = make.request(prompt_tokens=4_000, prompt_bytes=16_000, ttft_s=12.0, worth_usd=0.02)
    return replace(made, **changes)


def handover(router: Router) -> HandoverModel:
    found = router.handover("rack", "laptop")
    assert found is not None
    return found


def ship(router: Router, request: Request, now_s: float, took_s: float, **changes: object) -> None:
    """Its prompt is computed at once, and its KV cache takes so long."""
    router.observe(started(request, "rack", target="laptop"), now_s)
    router.observe(FirstToken(request_id=request.id, endpoint="rack", ttft_s=1.1), now_s + 1.1)
    ended = Ended(request_id=request.id, endpoint="rack", ending=Ending.OK, e2e_s=1.1, ttft_s=1.1, output_tokens=1)
    router.observe(ended, now_s + 1.1)
    size = int(request.prompt_tokens * KV_BYTES)
    fact = Shipped(
        request_id=request.id, endpoint="rack", target="laptop", kv_bytes=size, left_bytes=size, seconds=took_s
    )
    router.observe(replace(fact, **changes), now_s + 1.1 + took_s)


def use(router: Router, request: Request, at_s: float, **changes: object) -> None:
    """It is decoded at home, with what has come there."""
    router.observe(started(replace(request, shipped=NAME), "laptop"), at_s)
    ended = Ended(
        request_id=request.id, endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=0.5, prompt_tokens=4_000
    )
    router.observe(replace(ended, **changes), at_s + 1.0)


def test_a_prompt_too_slow_at_home_is_computed_away_where_output_is_dear() -> None:
    decision = pair().decide(long(), 0.0)
    first, second = decision.plan[:2]
    assert isinstance(first, Prefill)
    assert (first.endpoint, first.target) == ("rack", "laptop")
    assert isinstance(second, Run)
    assert second.endpoint == "laptop", "should it fail, the prompt is computed here"


def test_a_short_prompt_is_computed_at_home() -> None:
    first = pair().decide(make.request(prompt_tokens=100, prompt_bytes=400, ttft_s=8.0, worth_usd=1.0), 0.0).plan[0]
    assert isinstance(first, Run)
    assert first.endpoint == "laptop"


def test_what_it_takes_is_the_sum_of_its_parts() -> None:
    router, request = pair(), long()
    model = handover(router)
    length = router._known.lengths.of(request)
    base = model.base(request, length, 0.0)
    computing_s = 0.05 + 4_000 * 0.00025 + 0.02 + 16_000 / 1e8
    sending_s = 4_000 * KV_BYTES / BYTES_PER_S + 0.02 / 2
    assert base.first_s == pytest.approx(computing_s + sending_s + 0.05 + 0.005, rel=0.01)
    assert model.stages_s(request, 0.0) == pytest.approx((computing_s, sending_s, 0.0), rel=0.01)
    home = router.endpoint("laptop").base(request, length, 0.0)
    assert (base.tpot_s, base.decode_s) == (home.tpot_s, home.decode_s), "it decodes at home"
    assert base.paid_usd == pytest.approx(4_000 * 1e-8 + 1e-4), "and pays for its prompt and one token"


def test_a_link_that_was_not_used_yet_is_believed_to_be_about_as_declared() -> None:
    """Who has a third more time than is expected dares it, with nine chances in ten or more."""
    router, request = pair(), long()
    base = handover(router).base(request, router._known.lengths.of(request), 0.0)
    assert attainment(replace(request, slo=replace(request.slo, ttft_s=base.first_s * 4.0 / 3.0)), base, 0.0) > 0.9


def test_where_the_target_reads_a_longer_prompt_it_is_waited_for_and_that_is_predicted() -> None:
    router, request = pair(), make.request(prompt_tokens=4_000, prompt_bytes=16_000, ttft_s=60.0, worth_usd=0.02)
    other = make.request("other", prompt_tokens=8_000, prompt_bytes=32_000)
    router.observe(started(other, "laptop"), 0.0)
    computed_s, ship_s, slot_s = handover(router).stages_s(request, 0.0)
    target = router.endpoint("laptop")
    reads_s = target.prompts_done_s(0.0) - target.ahead_s
    assert reads_s > 30.0
    assert computed_s + ship_s + slot_s == pytest.approx(reads_s)
    length = router._known.lengths.of(request)
    assert handover(router).base(request, length, 0.0).first_s > reads_s
    ship(router, request, 0.0, 4.0)
    there = replace(request, shipped=NAME)
    assert isinstance(router.decide(there, 5.2).plan[0], Wait), "as it then is"


def test_egress_has_its_price() -> None:
    request = long()
    free, dear = pair(), pair(usd_per_byte=1e-9)
    length = free._known.lengths.of(request)
    more = handover(dear).base(request, length, 0.0).paid_usd - handover(free).base(request, length, 0.0).paid_usd
    assert more == pytest.approx(4_000 * KV_BYTES * 1e-9)


def test_layers_are_sent_while_others_are_computed() -> None:
    request = long()
    at_end, layered = pair(), pair(layers=50)
    length = at_end._known.lengths.of(request)
    last, first = handover(at_end).base(request, length, 0.0), handover(layered).base(request, length, 0.0)
    assert last.first_s - first.first_s == pytest.approx(last.prefill_s - 0.055, rel=0.02), "all of it but one layer"
    # Where the link is the faster one, one layer is left.
    quick = pair(layers=50, bytes_per_s=1e9)
    base = handover(quick).base(request, length, 0.0)
    assert base.network_s == pytest.approx(
        4_000 * KV_BYTES / 50 / 1e9 + 0.01 + 0.02 + 16_000 / 1e8 + 16_000 / 12.5e6, rel=0.01
    )


def test_only_what_is_missing_is_sent_where_the_engine_can() -> None:
    whole, parts = pair(), pair(whole=False)
    digests = tuple(range(15))
    request = long(prefix=digests)
    for router in (whole, parts):
        router.observe(started(replace(request, id="before"), "laptop"), 0.0)
        router.observe(FirstToken(request_id="before", endpoint="laptop", ttft_s=20.0), 20.0)
        router.observe(Ended(request_id="before", endpoint="laptop", ending=Ending.OK, e2e_s=21.0, ttft_s=20.0), 21.0)
    assert handover(parts).kv_bytes(request, 22.0) < 0.7 * handover(whole).kv_bytes(request, 22.0)


def test_the_link_carries_one_after_the_other() -> None:
    router, request = pair(), long()
    length = router._known.lengths.of(request)
    alone_s = handover(router).base(request, length, 0.0).first_s
    for number in range(3):
        router.observe(started(long(id=f"other-{number}"), "rack", target="laptop"), 0.0)
    behind_s = handover(router).base(request, length, 0.0).first_s
    assert behind_s > alone_s + 3 * 4.0, "each of them takes four seconds"


def test_who_comes_waits_for_a_slot() -> None:
    router, request = pair(bytes_per_s=1e9), long()
    length = router._known.lengths.of(request)
    alone_s = handover(router).base(request, length, 0.0).first_s
    for number in range(2):
        router.observe(started(make.request(f"busy-{number}", output_tokens_max=2_000), "laptop"), 0.0)
    assert handover(router).base(request, length, 0.0).first_s > alone_s + 1.0


def racks(bytes_per_s: float) -> Router:
    """A laptop with one slot, and two racks that hand over to it: `rack`, and the `other` at this rate."""
    router = pair()
    laptop, rack = (router.endpoint(name).endpoint for name in ("laptop", "rack"))
    quick = replace(rack.handovers[0], bytes_per_s=bytes_per_s)
    return make.router(replace(laptop, concurrency=1), rack, replace(rack, name="other", handovers=(quick,)))


def test_who_comes_waits_behind_what_others_have_sent_before() -> None:
    router, request = racks(BYTES_PER_S), long(id="late")
    assert handover(router).stages_s(request, 0.0)[2] == 0.0
    router.observe(started(long(id="early"), "other", target="laptop"), 0.0)
    sent = router.endpoint("other").state.handovers["laptop"].under_way["early"]
    assert sent.occupies_s > 1.0
    there_s = sent.ready_s + sent.kv_bytes / BYTES_PER_S
    assert sum(handover(router).stages_s(request, 1.0)) == pytest.approx(there_s + sent.occupies_s - 1.0)
    length = router._known.lengths.of(request)
    assert handover(router).base(request, length, 1.0).first_s > there_s + sent.occupies_s - 1.0


def test_what_comes_after_it_keeps_nobody_waiting() -> None:
    router, request = racks(BYTES_PER_S / 10.0), long(id="late")
    router.observe(started(long(), "other", target="laptop"), 0.0)
    assert handover(router).stages_s(request, 1.0)[2] == 0.0


@pytest.mark.parametrize("fingerprint", [Fingerprint(), Fingerprint(weights="hf:o/two")])
def test_engines_that_are_not_known_to_have_one_model_hand_nothing_over(fingerprint: Fingerprint) -> None:
    router = pair(fingerprint=fingerprint)
    assert not any(isinstance(step, Prefill) for step in router.decide(long(), 0.0).plan)
    assert [c.excluded for c in router.prefills(long(), 0.0)] == [Why.KV_UNLIKE]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"residency": ("local",)}, Why.MUST_STAY_LOCAL),
        ({"completions": 2}, Why.LACKS_CAPABILITY),
        ({"needs": (Capability.VISION,)}, Why.LACKS_CAPABILITY),
        ({"cost_usd_max": 1e-9}, Why.OVER_MAX_COST),
    ],
)
def test_what_forbids_an_endpoint_forbids_its_handovers(changes: dict[str, object], why: Why) -> None:
    router = pair()
    assert not any(isinstance(step, Prefill) for step in router.decide(long(**changes), 0.0).plan)
    assert [c.excluded for c in router.prefills(long(**changes), 0.0)] == [why]


def test_a_cost_limit_counts_the_prompt_what_is_sent_and_the_answer_together() -> None:
    router = pair()
    (one,) = router.prefills(long(), 0.0)
    assert one.excluded is None
    free = handover(router)
    sent_usd = free.kv_bytes(long(), 0.0) * 1e-9
    dear = pair(usd_per_byte=1e-9)
    asked = long(cost_usd_max=free.source.endpoint.price.upper_usd(long().prompt_tokens, 1) + 0.9 * sent_usd)
    assert [c.excluded for c in router.prefills(asked, 0.0)] == [None]
    assert [c.excluded for c in dear.prefills(asked, 0.0)] == [Why.OVER_MAX_COST]


@pytest.mark.parametrize("changes", [{"failover": False}, {"retry": 2}], ids=["asked_so", "last_try"])
def test_who_may_be_tried_once_is_not_handed_over(changes: dict[str, object]) -> None:
    router = pair()
    assert not any(isinstance(step, Prefill) for step in router.decide(long(**changes), 0.0).plan)
    assert not router.prefills(long(**changes), 0.0)


@pytest.mark.parametrize(("explore_share", "alone_s"), [(0.0, 2.0 * UNUSED_S), (0.1, 0.5 * UNUSED_S)])
def test_where_a_handover_is_best_nobody_else_is_tried_first(explore_share: float, alone_s: float) -> None:
    """After another one no prompt is computed away: the handover could not follow, and save the promise."""
    router = Router(pair().endpoints, make.policy(explore_share=explore_share))
    router.state.hedging.left_usd = 1.0
    router.observe(make.started(make.request("before"), "laptop"), 0.0)
    router.observe(make.ended("before", "laptop"), 1.0)
    at_s = 1.0 + alone_s
    for number in range(50):
        decision = router.decide(long(id=f"r{number}", arrived_s=at_s, slo=Slo(ttft_s=18.0)), at_s)
        assert isinstance(decision.plan[0], Prefill)
        assert decision.propensity == 1.0


def test_what_has_come_starts_at_home_at_once() -> None:
    router = pair()
    ship(router, request := long(), 0.0, 4.0)
    decision = router.decide(replace(request, shipped=NAME), 5.1)
    first = decision.plan[0]
    assert isinstance(first, Run)
    assert first.endpoint == "laptop"
    base = router.endpoint("laptop").base(replace(request, shipped=NAME), router._known.lengths.of(request), 5.1)
    assert base.first_s < 0.1, "its prompt is there"
    elsewhere = router.endpoint("rack").base(replace(request, shipped=NAME), router._known.lengths.of(request), 5.1)
    assert elsewhere.first_s > 1.0, "and nowhere else"


def test_where_our_slots_are_taken_it_is_computed_away_meanwhile() -> None:
    router = pair()
    for number in range(2):
        router.observe(started(make.request(f"busy-{number}", output_tokens_max=600), "laptop"), 0.0)
    first = router.decide(long(slo=replace(long().slo, ttft_s=25.0)), 0.0).plan[0]
    assert isinstance(first, Prefill | Wait)
    assert isinstance(router.decide(long(slo=replace(long().slo, ttft_s=12.0)), 0.0).plan[0], Prefill | Run)


def test_the_rate_of_the_link_and_the_size_of_what_is_sent_are_learned() -> None:
    router = pair()
    for number in range(3):
        request = long(id=f"r{number}")
        ship(router, request, 10.0 * number, 8.0, kv_bytes=160_000_000, left_bytes=160_000_000)
    model = handover(router)
    assert model.network.upload_bytes_per_s == pytest.approx(20e6)
    assert model.kv_bytes(long(), 40.0) == pytest.approx(160e6), "twice as large as was declared"
    assert not model.state.under_way


def under(router: Router, state: State, **changes: object) -> Router:
    """The router with this state, where another handover is declared."""
    laptop, rack = (router.endpoint(name).endpoint for name in ("laptop", "rack"))
    declared = replace(rack.handovers[0], **changes)
    return Router((laptop, replace(rack, handovers=(declared,))), router.policy, state)


def snapshot(router: Router) -> State:
    return msgspec.json.decode(router.snapshot(), type=State)


@pytest.mark.parametrize(
    "changes",
    [{"kv_bytes_per_token": 2.0 * KV_BYTES}, {"kv_bytes_fixed": 8e7}, {"whole": False}],
    ids=["per_token", "fixed", "whole"],
)
def test_another_size_that_is_declared_counts_until_some_were_sent_by_it(changes: dict[str, object]) -> None:
    router = pair()
    ship(router, long(), 0.0, 8.0, kv_bytes=160_000_000, left_bytes=160_000_000)
    router.observe(started(long(id="on_its_way"), "rack", target="laptop"), 10.0)
    new = under(router, router._known.state, **changes)
    declared_bytes = handover(under(router, State(), **changes)).kv_bytes(long(), 11.0)
    assert handover(new).kv_bytes(long(), 11.0) == declared_bytes
    size = 160_000_000
    fact = Shipped(request_id="on_its_way", endpoint="rack", target="laptop", kv_bytes=size, left_bytes=size, seconds=8)
    new.observe(fact, 20.0)
    assert handover(new).kv_bytes(long(), 20.0) == declared_bytes, "that was expected by the old one"
    ship(new, long(id="next"), 30.0, 8.0, kv_bytes=size, left_bytes=size)
    assert handover(new).kv_bytes(long(), 40.0) == pytest.approx(160e6)


def test_of_the_size_that_was_declared_before_a_restart_what_was_sent_is_known_after_it() -> None:
    router = pair()
    ship(router, long(), 0.0, 8.0, kv_bytes=160_000_000, left_bytes=160_000_000)
    state = revived(snapshot(router), {"laptop", "rack"}, 20.0)
    assert handover(under(router, state, bytes_per_s=1e6)).kv_bytes(long(), 20.0) == pytest.approx(160e6)
    state = revived(snapshot(router), {"laptop", "rack"}, 20.0)
    assert handover(under(router, state, kv_bytes_per_token=1e5)).kv_bytes(long(), 20.0) == pytest.approx(400e6)


def test_a_state_that_does_not_know_what_was_declared_is_believed() -> None:
    router = pair()
    ship(router, long(), 0.0, 8.0, kv_bytes=160_000_000, left_bytes=160_000_000)
    state = snapshot(router)
    state.endpoints["rack"].handovers["laptop"].size = None
    old = under(router, state, kv_bytes_per_token=2.0 * KV_BYTES)
    assert handover(old).kv_bytes(long(), 20.0) == pytest.approx(320e6)


def test_after_a_day_what_is_sent_says_more_of_its_size_than_all_that_was_sent_before() -> None:
    router, count = pair(), 500
    for number in range(count):
        ship(router, long(id=f"r{number}"), 10.0 * number, 4.0)
    ship(router, long(id="new"), 10.0 * count + 86_400.0, 2.0, kv_bytes=40_000_000, left_bytes=40_000_000)
    assert handover(router).kv_bytes(long(), 1e6) == pytest.approx(40e6, rel=0.01)


def test_what_does_not_come_opens_the_breaker_of_the_path_alone() -> None:
    router = pair()
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, cause="unreachable")
    assert not any(isinstance(step, Prefill) for step in router.decide(long(), 4.0).plan)
    assert [c.excluded for c in router.prefills(long(), 4.0)] == [Why.BREAKER_OPEN]
    assert router.endpoint("rack").state.breaker.openings == 0, "the endpoint serves"


def test_what_nobody_wanted_any_more_is_no_failure() -> None:
    router = pair()
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, given_up=True)
    assert handover(router).state.breaker.openings == 0


def fault(router: Router, request: Request, now_s: float) -> None:
    """The rack is asked to compute its prompt, and finds fault with it: an answer of status 400."""
    router.observe(started(request, "rack", target="laptop"), now_s)
    ended = Ended(request_id=request.id, endpoint="rack", ending=Ending.OK, e2e_s=0.1, cause="client_error")
    router.observe(ended, now_s + 0.1)


def test_a_prompt_with_which_its_engine_finds_fault_is_on_its_way_no_more() -> None:
    router, request = pair(), long()
    before = handover(router).stages_s(request, 0.0)
    for number in range(3):
        fault(router, long(id=f"r{number}"), float(number))
    known = handover(router).state
    assert not known.under_way
    assert known.breaker.strikes == 0.0, "that is not the link's fault"
    assert handover(router).stages_s(request, 4.0) == pytest.approx(before), "nobody is waited for"


def test_a_trial_with_which_its_engine_finds_fault_leaves_the_next_one_to_decide() -> None:
    router = pair()
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, cause="unreachable")
    known, at_s = handover(router).state.breaker, 60.0
    assert known.openings
    fault(router, long(id="trial"), at_s)
    assert not known.blocks(at_s + 1.0)
    ship(router, long(id="next"), at_s + 1.0, 1.0)
    assert not known.openings


def test_a_kv_cache_that_is_of_no_use_is_a_failure() -> None:
    router = pair()
    for number in range(3):
        request = long(id=f"r{number}", shipped="")
        ship(router, request, 10.0 * number, 1.0)
        use(router, request, 10.0 * number + 3.0, cached_tokens=int(CACHED_LEAST * 4_000) - 1)
        assert handover(router).state.breaker.openings == (number == 2), "that it came is no success by itself"


def test_a_kv_cache_that_is_gone_when_it_is_to_be_used_is_a_failure_of_the_handover_alone() -> None:
    router = pair()
    for number in range(3):
        request = long(id=f"r{number}")
        ship(router, request, 10.0 * number, 1.0)
        use(router, request, 10.0 * number + 3.0, ending=Ending.CANCELLED, ttft_s=None, prompt_tokens=None, cause=GONE)
    assert handover(router).state.breaker.openings == 1
    assert router.endpoint("laptop").state.breaker.strikes == 0.0


def test_the_path_of_a_trial_that_came_and_was_of_no_use_stays_closed_for_longer() -> None:
    router = pair()
    known = handover(router).state.breaker
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, cause="unreachable")
    for openings in (2, 3):
        at_s = known.open_until_s
        ship(router, long(id="trial"), at_s, 1.0)
        assert not known.blocks(at_s + 3.0), "it has come"
        use(router, long(id="trial"), at_s + 3.0, cached_tokens=0)
        assert known.openings == openings
        assert known.open_until_s == at_s + 4.0 + 5.0 * 2.0 ** (openings - 1)


def test_a_trial_of_which_nothing_is_told_is_over_with_its_answer() -> None:
    router = pair()
    known = handover(router).state.breaker
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, cause="unreachable")
    at_s = known.open_until_s
    ship(router, long(id="trial"), at_s, 1.0)
    use(router, long(id="trial"), at_s + 3.0, cached_tokens=None)
    assert (known.trial, known.answered, known.openings) == ("", 0, 0)


def tried() -> tuple[Router, Request, float]:
    """A way that had failed, and a trial of it whose KV cache has come; when it had."""
    router = pair()
    for number in range(3):
        ship(router, long(id=f"r{number}"), float(number), 0.5, ok=False, cause="unreachable")
    at_s = handover(router).state.breaker.open_until_s
    ship(router, long(id="trial"), at_s, 1.0)
    return router, long(id="trial", shipped=NAME), at_s + 2.1


def test_a_trial_is_over_with_a_client_that_leaves_before_it_has_a_slot() -> None:
    router, request, now_s = tried()
    known = handover(router).state.breaker
    router.observe(Held(request=request), now_s)
    assert (known.trial, known.answered) == ("trial", 1)
    router.observe(Released(request_id="trial"), now_s + 1.0)
    assert (known.trial, known.answered, known.openings) == ("", 0, 0)


def test_a_trial_is_over_where_its_request_was_served_elsewhere() -> None:
    router, request, now_s = tried()
    known = handover(router).state.breaker
    router.observe(started(request, "rack"), now_s)
    router.observe(make.ended("trial", "rack", output_tokens=10), now_s + 1.0)
    assert (known.trial, known.answered, known.openings) == ("", 0, 0)


def test_a_trial_goes_on_while_its_answer_does_whatever_became_of_another_attempt() -> None:
    router, request, now_s = tried()
    known = handover(router).state.breaker
    router.observe(started(request, "laptop"), now_s)
    router.observe(started(request, "rack", hedge=True), now_s + 1.0)
    router.observe(make.ended("trial", "rack", ending=Ending.FAILED), now_s + 2.0)
    assert (known.trial, known.answered) == ("trial", 1)


def test_a_kv_cache_that_is_of_use_makes_good_what_failed_before() -> None:
    router = pair()
    for number in range(6):
        request = long(id=f"r{number}", shipped="")
        ship(router, request, 10.0 * number, 1.0, ok=number % 3 == 2)
        if number % 3 == 2:
            use(router, request, 10.0 * number + 3.0, cached_tokens=3_999)
    assert handover(router).state.breaker.openings == 0


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT])
def test_who_fails_at_what_has_come_before_a_word_of_it_counts_against_the_handover(ending: Ending) -> None:
    router = pair()
    for number in range(3):
        request = long(id=f"r{number}", shipped="")
        ship(router, request, 10.0 * number, 1.0)
        use(router, request, 10.0 * number + 3.0, ending=ending, ttft_s=None)
    assert handover(router).state.breaker.openings == 1


@pytest.mark.parametrize("changes", [{"ending": Ending.CANCELLED}, {"ending": Ending.FAILED}, {"cached_tokens": None}])
def test_what_tells_nothing_of_a_kv_cache_counts_neither_way(changes: dict[str, object]) -> None:
    router = pair()
    for number in range(3):
        request = long(id=f"r{number}", shipped="")
        ship(router, request, 10.0 * number, 1.0)
        use(router, request, 10.0 * number + 3.0, **changes)
    assert handover(router).state.breaker.strikes == 0.0


def test_what_has_come_teaches_nothing_of_what_is_kept() -> None:
    router = pair()
    request = long(prefix=tuple(range(15)))
    ship(router, request, 0.0, 1.0)
    kept = router.endpoint("laptop").state.prompts.kept
    router.observe(started(replace(request, shipped=NAME), "laptop"), 3.0)
    ended = Ended(request_id=request.id, endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=0.5)
    router.observe(replace(ended, prompt_tokens=4_000, cached_tokens=3_999), 4.0)
    assert not kept.told
    assert router.endpoint("laptop").prefixes.cached(asked(request), 5.0).tokens, "and it is known to be there"


def test_an_answer_of_one_token_teaches_nothing_of_lengths() -> None:
    router, request = pair(), long(output_tokens_max=None)
    before = router._known.lengths.of(request).expected_tokens
    for number in range(5):
        ship(router, long(id=f"r{number}", output_tokens_max=None), 10.0 * number, 1.0)
    assert router._known.lengths.of(request).expected_tokens == before


def test_two_add_up_in_either_order() -> None:
    one, other = pair(), pair()
    ship(one, long(), 0.0, 4.0)
    ship(other, long(), 1.0, 2.0, kv_bytes=160_000_000)
    a, b = handover(one).state, handover(other).state
    assert combined(a, b) == combined(b, a)
    # One of them is of before sizes were written down.
    a.size = None
    assert combined(a, b) == combined(b, a)
    assert combined(a, b).size == b.size
    assert combined(a, b).sent_bytes == pytest.approx(a.sent_bytes + b.sent_bytes, rel=1e-3), "as of the later"


def test_a_snapshot_knows_what_is_under_way() -> None:
    router = pair()
    router.observe(started(long(), "rack", target="laptop"), 0.0)
    again = Router(router.endpoints, router.policy, snapshot(router))
    assert handover(again).state.under_way.keys() == handover(router).state.under_way.keys()
    length = router._known.lengths.of(long())
    assert make.told(handover(again).base(long(), length, 1.0)) == make.told(handover(router).base(long(), length, 1.0))


@pytest.mark.parametrize(
    ("ending", "under_way"), [(Ending.OK, True), (Ending.FAILED, False), (Ending.CANCELLED, False)]
)
def test_what_has_become_of_it_is_known_where_the_model_could_not_take_that_in(ending: Ending, under_way: bool) -> None:
    router, request = pair(), long()
    known = handover(router)
    router.observe(started(request, "rack", target="laptop"), 0.0)
    known.state.breaker.trial = request.id
    known.keep_books(make.ended(request.id, "rack", ending=ending), 1.0)
    assert (request.id in known.state.under_way, known.state.breaker.trial == request.id) == (under_way, under_way)
    known.keep_books(Shipped(request_id=request.id, endpoint="rack", target="laptop"), 2.0)
    assert (known.state.under_way, known.state.breaker.trial) == ({}, "")
