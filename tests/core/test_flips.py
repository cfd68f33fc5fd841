"""Flips of decisions that a hand can follow, found again by a router to which it really happened."""

from typing import Any

import pytest

from tests import make
from tidegate.core.classify import SHORT_TOKENS_MAX
from tidegate.core.flips import Axis, Copy, First, Flip, first, flips, longer, scaled, vanish
from tidegate.core.model import Endpoint, FirstToken, Held, Price, Request, Slo, replace
from tidegate.core.price import Tier
from tidegate.core.router import Router

NOW_S = 1_000.0
LAPTOP = make.endpoint("laptop", concurrency=2, context_tokens=4_096)
CLOUD = make.endpoint("cloud", local=False)


def request(id: str = "r", **changes: Any) -> Request:
    return make.request(id, arrived_s=NOW_S, **changes)


def found(router: Router, asked: Request) -> dict[tuple[Axis, str, bool], Flip]:
    """By axis, endpoint, and whether it lies above."""
    return {(one.axis, one.endpoint, one.at > one.now): one for one in flips(Copy(router), asked, NOW_S)}


def router(*endpoints: Endpoint) -> Router:
    return make.router(*(endpoints or (LAPTOP, CLOUD)))


def goes(known: Router, asked: Request) -> First:
    return first(known.decide(asked, NOW_S))


def test_a_prompt_that_no_longer_fits_goes_elsewhere_and_one_that_fits_nowhere_is_refused() -> None:
    known, asked = router(), request(output_tokens_max=100, slo=Slo())
    flip = found(known, asked)[Axis.PROMPT_TOKENS, "", True]
    assert (flip.now, flip.goes_to) == (200.0, "cloud")
    assert goes(known, longer(asked, round(flip.at))) == First("cloud", waits=False)
    assert goes(known, longer(asked, round(flip.at) - 1)) == First("laptop", waits=False)
    alone = router(LAPTOP)
    refused = found(alone, asked)[Axis.PROMPT_TOKENS, "", True]
    assert (refused.at, refused.goes_to) == (flip.at, "")


def test_several_prompts_that_fit_nowhere_are_refused_beyond_a_window_each() -> None:
    asked = request(prompts=20, completions=20, output_tokens_max=96, prompt_tokens=4_000, slo=Slo())
    flip = found(router(LAPTOP), asked)[Axis.PROMPT_TOKENS, "", True]
    assert (flip.at, flip.goes_to) == (20 * 4_000 + 1, "")


def test_with_more_in_flight_it_waits_or_goes_elsewhere() -> None:
    known, asked = router(), request()
    flip = found(known, asked)[Axis.IN_FLIGHT, "laptop", True]
    assert flip.now == 0.0
    for number in range(round(flip.at)):
        assert goes(known, asked) == First("laptop", waits=False)
        known.observe(make.started(request(f"other-{number}"), "laptop"), NOW_S)
    assert goes(known, asked) == First(flip.goes_to, waits=flip.waits)
    # And back again, with as many less.
    back = found(known, asked)[Axis.IN_FLIGHT, "laptop", False]
    assert (back.at, back.goes_to) == (flip.at - 1.0, "laptop")


def test_who_is_late_is_thought_away_as_if_he_had_never_come() -> None:
    """Told as over, five of whom nothing came for long would make an outage, which no smaller number in flight does."""
    laptop, asked = make.endpoint("laptop", concurrency=16), request(worth_usd=0.05, slo=Slo(ttft_s=30.0))
    known = router(laptop, replace(CLOUD, price=scaled(CLOUD.price, 10.0)))
    for number in range(5):
        known.observe(make.started(request(f"late-{number}"), "laptop"), NOW_S - 12.0 + number)
    assert goes(known, asked) == First("laptop", waits=False)
    assert (Axis.IN_FLIGHT, "laptop", False) not in found(known, asked)
    copy = Copy(known).router
    for number in range(5):
        vanish(copy, "laptop", f"late-{number}", NOW_S)
    assert copy.endpoint("laptop").state.breaker.strikes == 0.0
    assert goes(copy, asked) == First("laptop", waits=False)


def test_the_price_of_the_engine_at_which_it_is_not_worth_running() -> None:
    known, asked = router(), request(output_tokens_max=100)
    flip = found(known, asked)[Axis.USD_PER_S, "laptop", True]
    assert (flip.now, flip.goes_to) == (0.0, "cloud")
    assert goes(router(replace(LAPTOP, usd_per_s=flip.at), CLOUD), asked).endpoint == "cloud"
    assert goes(router(replace(LAPTOP, usd_per_s=0.999 * flip.at), CLOUD), asked).endpoint == "laptop"


def test_the_price_of_tokens_at_which_an_api_is_not_asked() -> None:
    dear = replace(LAPTOP, usd_per_s=1e-3)
    asked = request(output_tokens_max=100)
    known = router(dear, CLOUD)
    assert goes(known, asked).endpoint == "cloud"
    flip = found(known, asked)[Axis.PRICE, "cloud", True]
    assert (flip.now, flip.goes_to) == (1.0, "laptop")
    for factor, endpoint in ((flip.at, "laptop"), (0.999 * flip.at, "cloud")):
        assert goes(router(dear, replace(CLOUD, price=scaled(CLOUD.price, factor))), asked).endpoint == endpoint


def test_the_round_trip_at_which_a_site_is_too_far_away() -> None:
    far = replace(LAPTOP, name="far", prior=replace(LAPTOP.prior, rtt_s=0.02))
    asked = request(slo=Slo(ttft_s=3.0))
    known = router(far, CLOUD)
    assert goes(known, asked).endpoint == "far"
    flip = found(known, asked)[Axis.RTT_S, "far", True]
    assert flip.goes_to == "cloud"
    for rtt_s, endpoint in ((flip.at, "cloud"), (0.999 * flip.at, "far")):
        moved = replace(far, prior=replace(far.prior, rtt_s=rtt_s))
        assert goes(router(moved, CLOUD), asked).endpoint == endpoint


def test_what_is_held_is_asked_as_it_would_be_held() -> None:
    alone = router(LAPTOP)
    for number in range(2):
        alone.observe(make.started(request(f"other-{number}"), "laptop"), NOW_S)
    asked = request()
    alone.observe(Held(request=asked), NOW_S)
    assert goes(alone, asked) == First("laptop", waits=True)
    by_axis = found(alone, asked)
    assert by_axis[Axis.PROMPT_TOKENS, "", True].goes_to == ""
    assert by_axis[Axis.IN_FLIGHT, "laptop", False].at == 1.0


def test_a_price_is_scaled_with_all_its_tiers() -> None:
    price = Price(
        usd_per_input_token=1.0, usd_per_cached_token=0.5, tiers=(Tier(above_tokens=9, usd_per_output_token=4.0),)
    )
    twice = scaled(price, 2.0)
    assert (twice.usd_per_input_token, twice.usd_per_cached_token, twice.usd_per_reasoning_token) == (2.0, 1.0, None)
    assert (twice.tiers[0].above_tokens, twice.tiers[0].usd_per_output_token) == (9, 8.0)


@pytest.mark.parametrize("tokens", [1, 150, 5_000])
def test_another_length_keeps_the_beginning_of_the_prompt(tokens: int) -> None:
    asked = request(prompt_tokens=1_000, prompt_bytes=4_100, preamble_bytes=4, prefix=(1, 2, 3, 4))
    made = longer(asked, tokens)
    assert made.prompt_tokens == tokens
    assert made.prompt_bytes == pytest.approx(4.1 * tokens, abs=1)
    assert made.prefix == asked.prefix[: (made.prompt_bytes - made.preamble_bytes) // 1024]


def test_the_kind_of_request_follows_the_length_where_it_is_that_of_its_length() -> None:
    long, rest = (longer(make.request(klass=klass, prompt_tokens=400), 513) for klass in ("chat/short", "chat/long"))
    assert (long.klass, rest.klass) == ("chat/medium", "chat/long")


def test_a_length_at_which_answers_are_longer_is_found_at_its_first_token() -> None:
    laptop = make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, decode_s_per_token=0.02))
    cloud = make.endpoint("cloud", local=False, prior=replace(make.REMOTE_PRIOR, decode_s_per_token=0.002))
    router, now_s, end = make.router(laptop, cloud), 0.0, Slo(e2e_s=15.0)
    for number in range(80):
        now_s += 20.0
        klass, tokens, answered = ("chat/short", 400, 20) if number % 2 else ("chat/medium", 700, 1_500)
        asked = make.request(
            str(number), arrived_s=now_s, klass=klass, prompt_tokens=tokens, output_tokens_max=None, slo=end
        )
        e2e_s = 0.4 + answered * 0.002
        router.observe(make.started(asked, "cloud"), now_s)
        router.observe(FirstToken(request_id=asked.id, endpoint="cloud", ttft_s=0.4), now_s + 0.4)
        told = make.ended(asked.id, "cloud", ttft_s=0.4, e2e_s=e2e_s, output_tokens=answered, prompt_tokens=tokens)
        router.observe(told, now_s + e2e_s)
    request = make.request(
        arrived_s=now_s + 20.0, klass="chat/short", prompt_tokens=400, output_tokens_max=None, slo=end, worth_usd=0.05
    )
    assert first(router.decide(request, now_s + 20.0)).endpoint == "laptop"
    found = {flip.axis: flip for flip in flips(Copy(router), request, now_s + 20.0)}[Axis.PROMPT_TOKENS]
    assert (found.at, found.goes_to) == (SHORT_TOKENS_MAX + 1, "cloud")


def test_where_any_price_breaks_a_tie_the_search_ends_at_what_is_something() -> None:
    # Nothing is worth anything: two engines of ours are alike but for their names, and so is any price of theirs.
    worthless = request(worth_usd=0.0, late_usd_per_s=0.0, slo=Slo(ttft_s=10.0))
    known = router(make.endpoint("a"), make.endpoint("b"))
    flip = found(known, worthless)[Axis.USD_PER_S, "a", True]
    assert flip.goes_to == "b"
    assert 0.0 < flip.at <= 1e-5
