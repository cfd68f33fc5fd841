"""What an endpoint is known to have of prompts: what counts, from when on, and until when."""

from collections.abc import Callable
from random import Random

import msgspec
import pytest

from tests import make
from tidegate.core import base
from tidegate.core.cached import Cached, Prompt, last_of, shortened, spread
from tidegate.core.endpoint import EndpointModel
from tidegate.core.keeping import JUDGE_S
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending, Fingerprint, FirstToken, Prior, Probed, Request, Run, Slo, replace
from tidegate.core.prefix import STATE_BYTES_MAX, Prefixes
from tidegate.core.prior import CachePrior
from tidegate.core.prompts import GRID, Prompts
from tidegate.core.router import Router
from tidegate.core.value import attainment

ALWAYS = CachePrior(share=1.0)


def talk(name: int, blocks: int) -> tuple[int, ...]:
    """The digests of so many blocks of one conversation; the first two of all of them are the same."""
    return tuple(1000 * (name + 1 if block >= 2 else 0) + block for block in range(blocks))


def prompt(digests: tuple[int, ...], more_bytes: int = 0) -> Prompt:
    size = 1024 * len(digests) + more_bytes
    return Prompt(digests, size // 4, size)


def given(prefixes: Prefixes, digests: tuple[int, ...], now_s: float, more_bytes: int = 0) -> Cached:
    """Give it this prompt, and have it computed; what was expected of it."""
    asked = prompt(digests, more_bytes)
    cached = prefixes.cached(asked, now_s)
    sent = prefixes.given(shortened(digests, 1024 * len(digests) + more_bytes), asked.tokens, cached, now_s)
    prefixes.put(sent, now_s)
    return cached


def fresh(prior: CachePrior = ALWAYS) -> Prefixes:
    return Prefixes(prior, Prompts())


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 7, 8, 11, 47, 100, 255, 256])
def test_a_conversation_that_goes_on_is_found_to_its_last_whole_block(blocks: int) -> None:
    prefixes = fresh()
    given(prefixes, talk(1, blocks), 0.0)
    longer = prompt(talk(1, 256), 4096)
    assert prefixes.cached(longer, 1.0).tokens == pytest.approx(256.0 * blocks)


def test_a_prompt_beyond_the_digests_is_found_as_far_as_the_one_before_it_went() -> None:
    prefixes = fresh()
    given(prefixes, talk(1, 256), 0.0, more_bytes=100 * 1024)
    found = prefixes.cached(prompt(talk(1, 256), 300 * 1024), 1.0)
    assert found.tokens == pytest.approx(256.0 * 356)


@pytest.mark.parametrize("shared", [1, 2, 3, 4, 5, 6, 20, 33, 100])
def test_where_two_prompts_part_is_known_to_the_grid(shared: int) -> None:
    prefixes = fresh()
    given(prefixes, talk(1, 200), 0.0)
    other = talk(1, shared) + tuple(7_000_000 + block for block in range(50))
    found = prefixes.cached(prompt(other), 1.0).tokens / 256.0
    assert found == pytest.approx(max(place for place in GRID if place <= shared))


def test_all_of_a_prompt_but_its_last_token_may_be_cached() -> None:
    prefixes = fresh()
    given(prefixes, talk(1, 4), 0.0)
    assert prefixes.cached(prompt(talk(1, 4)), 1.0).tokens == 1023.0


def test_a_prompt_that_is_taken_for_nothing_has_nothing_cached() -> None:
    prefixes = fresh()
    given(prefixes, talk(1, 4), 0.0)
    nothing = Prompt(talk(1, 4), tokens=0, prompt_bytes=4096)
    cached = prefixes.cached(nothing, 1.0)
    prefixes.learn(prefixes.given(None, 0, cached, 1.0), 5, 10, 5, 2.0)
    assert cached.tokens == cached.at_least(0.5) == 0.0


def test_tools_before_the_prompt_are_cached_with_its_first_block() -> None:
    prefixes = fresh()
    given(prefixes, talk(1, 2), 0.0)
    asked = Prompt(talk(1, 4), tokens=6 * 256, prompt_bytes=6 * 1024, preamble_bytes=2 * 1024)
    assert prefixes.cached(asked, 1.0).tokens == pytest.approx(4 * 256.0)


def test_what_others_share_is_as_fresh_as_its_last_use_and_the_rest_as_old_as_its_own() -> None:
    prefixes = fresh(CachePrior(share=1.0, lifetime_s=100.0))
    given(prefixes, talk(1, 8), 0.0)
    given(prefixes, talk(2, 8), 1000.0)
    (head, likely), (whole, less) = prefixes.cached(prompt(talk(1, 8)), 1001.0).steps
    assert (head, whole) == (512.0, 2047.0)
    assert likely > 2.0 * less


def test_a_prompt_counts_from_its_first_token_on() -> None:
    router = make.router(make.endpoint("laptop"))
    asked = request(talk(1, 8))
    router.observe(make.started(asked, "laptop"), 0.0)
    assert cached(router, asked, 1.0) == 0.0
    router.observe(FirstToken(request_id=asked.id, endpoint="laptop", ttft_s=1.0), 1.0)
    assert cached(router, asked, 2.0) > 0.0


def test_a_prompt_that_was_given_up_before_its_first_token_counts_for_nothing() -> None:
    router = make.router(make.endpoint("laptop"))
    asked = request(talk(1, 8))
    router.observe(make.started(asked, "laptop"), 0.0)
    router.observe(make.ended(asked.id, "laptop", ending=Ending.CANCELLED), 1.0)
    assert cached(router, asked, 2.0) == 0.0


def test_a_prompt_whose_first_token_nobody_saw_counts_from_its_end_on() -> None:
    router = make.router(make.endpoint("laptop"))
    asked = request(talk(1, 8))
    router.observe(make.started(asked, "laptop"), 0.0)
    router.observe(make.ended(asked.id, "laptop"), 1.0)
    assert cached(router, asked, 2.0) > 0.0


# --- what ends it -----------------------------------------------------------------------------------------------------


def test_an_engine_that_was_away_has_forgotten() -> None:
    router = seasoned()
    router.observe(Probed(endpoint="laptop", up=False), 10.0)
    assert cached(router, request(talk(1, 8)), 10.0) > 0.0
    router.observe(Probed(endpoint="laptop", up=True), 11.0)
    assert cached(router, request(talk(1, 8)), 11.0) == 0.0


def test_another_model_has_none_of_the_prompts_of_the_one_before_it() -> None:
    router = seasoned()
    for weights, keeps in (("a", True), ("a", True), ("b", False)):
        router.observe(Probed(endpoint="laptop", up=True, fingerprint=Fingerprint(weights=weights)), 10.0)
        assert (cached(router, request(talk(1, 8)), 11.0) > 0.0) == keeps


def test_what_an_endpoint_remembers_is_bounded_and_the_latest_is_in_it() -> None:
    state = Prompts()
    prefixes = Prefixes(ALWAYS, state)
    for index in range(2_000):
        given(prefixes, talk(index, 1 + index * 37 % 256), index)
        assert len(msgspec.json.encode(state.uses)) <= STATE_BYTES_MAX + 4_096
    assert len(state.uses) > 200
    assert prefixes.cached(prompt(talk(1_999, 256)), 2_000.0).tokens > 0.0
    assert not prefixes.cached(prompt(talk(1_500, 256)), 2_000.0).tokens > 600.0


def test_a_conversation_takes_one_place_however_many_turns_it_has() -> None:
    state = Prompts()
    prefixes = Prefixes(ALWAYS, state)
    for turn in range(1, 60):
        given(prefixes, talk(1, 4 * turn), float(turn))
    assert len(state.uses) == 1


def test_who_begins_anew_from_a_snapshot_forgets_the_same_prompts_as_the_one_before_it() -> None:
    state, draw = Prompts(), Random(3)
    again, live = state, Prefixes(ALWAYS, state)
    restored = live
    for index in range(5_000):
        if index % 500 == 0:
            again = msgspec.json.decode(msgspec.json.encode(state), type=Prompts)
            restored = Prefixes(ALWAYS, again)
        digests = tuple([draw.getrandbits(32) for _ in range(draw.choice((1, 2, 3, 5, 7, 9, 11, 30, 60, 100, 200)))])
        for each in (live, restored):
            given(each, digests, float(index))
        assert state.uses == again.uses
    assert len(state.uses) < 500


def test_a_snapshot_goes_on_as_the_state_itself() -> None:
    state = Prompts()
    prefixes = Prefixes(ALWAYS, state)
    for index in range(600):
        given(prefixes, talk(index % 97, 1 + index * 13 % 256), index * 0.7)
    again = msgspec.json.decode(msgspec.json.encode(state), type=Prompts)
    restored = Prefixes(ALWAYS, again)
    for index in range(600, 900):
        one, other = (given(p, talk(index % 97, 1 + index * 13 % 256), index * 0.7) for p in (prefixes, restored))
        assert (one.tokens, one.sd, one.steps) == (other.tokens, other.sd, other.steps)
    assert msgspec.json.encode(again) == msgspec.json.encode(state)


# --- a fact carries little of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 3, 4, 9, 48, 255, 256, 400])
def test_a_prefix_in_short_has_the_digests_of_the_grid_and_of_the_end(blocks: int) -> None:
    digests = talk(3, min(blocks, 256))
    short = shortened(digests, 1024 * blocks)
    assert short is not None
    places = spread(short)
    assert short.blocks == blocks
    assert last_of(short) == places[-1] == digests[-1]
    for place, digest in enumerate(places, 1):
        assert digest == (digests[place - 1] if place in GRID or place == len(digests) else -1)
    assert len(msgspec.json.encode(short)) <= 110


def test_a_prompt_without_a_whole_block_has_no_prefix() -> None:
    assert shortened((), 1000) is None


def test_a_failover_is_predicted_from_the_fact_alone_as_far_as_that_tells() -> None:
    router = seasoned()
    asked = request(talk(1, 12))
    model = router.endpoint("laptop")
    whole = model.prefixes.cached(base.asked(asked), 9.0)
    told = model.prefixes.cached(base.asked(make.started(asked, "laptop")), 9.0)
    assert told.tokens == pytest.approx(whole.tokens, rel=0.4)


# --- what follows ---------------------------------------------------------------------------------------------------


def test_of_two_equal_engines_a_conversation_goes_back_to_the_one_that_has_it() -> None:
    for home in ("left", "right"):
        router = make.router(make.endpoint("left"), make.endpoint("right"))
        serve(router, request(talk(1, 40)), home, 0.0, cached_tokens=0)
        serve(router, request(talk(1, 41)), home, 10.0, cached_tokens=10_240)
        plan = router.decide(request(talk(1, 44)), 30.0).plan
        assert plan[0].endpoint == home


def test_unless_that_one_is_busy_and_the_other_is_not() -> None:
    router = make.router(make.endpoint("left"), make.endpoint("right"))
    serve(router, request(talk(1, 4)), "left", 0.0, cached_tokens=0)
    for _ in range(2):
        router.observe(make.started(make.request(prompt_tokens=20_000, prompt_bytes=80_000), "left"), 9.0)
    assert router.decide(request(talk(1, 4)), 10.0).plan[0].endpoint == "right"


def test_what_is_cached_costs_its_own_price() -> None:
    price = replace(make.REMOTE_PRICE, usd_per_cached_token=1e-7, usd_per_output_token=0.0)
    router = make.router(make.endpoint("cloud", local=False, price=price, prior=sure()))
    before = costs(router, request(talk(1, 40)), 1.0)
    serve(router, request(talk(1, 40)), "cloud", 0.0, cached_tokens=0)
    after = costs(router, request(talk(1, 40)), 1.0)
    assert before - after == pytest.approx(10_239 * 0.9e-6, rel=1e-3)


def test_a_cheaper_price_for_what_is_cached_is_not_overlooked_among_many() -> None:
    """Candidates that cannot be among the best are not predicted: with their cache they may be."""
    dear = replace(make.REMOTE_PRICE, usd_per_input_token=2e-6, usd_per_cached_token=1e-8)
    others = [make.endpoint(f"cloud-{n}", local=False) for n in range(8)]
    router = make.router(make.endpoint("home", local=False, price=dear, prior=sure()), *others)
    asked = request(talk(1, 40))
    assert router.decide(asked, 0.0).plan[0].endpoint != "home"
    serve(router, asked, "home", 0.0, cached_tokens=0)
    assert router.decide(request(talk(1, 41)), 5.0).plan[0].endpoint == "home"


def test_an_engine_that_says_nothing_of_its_cache_keeps_what_was_believed_of_its_kind() -> None:
    router = make.router(make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, cache=CachePrior(share=0.9))))
    for turn in range(1, 20):
        serve(router, request(talk(1, 4 * turn)), "laptop", 10.0 * turn, cached_tokens=None)
    assert cached(router, request(talk(1, 80)), 200.0) == pytest.approx(0.9 * 19 * 4 * 256, rel=0.01)


def test_an_engine_that_never_finds_anything_is_soon_expected_to_find_nothing() -> None:
    router = make.router(make.endpoint("laptop", prior=sure()))
    for turn in range(1, 20):
        serve(router, request(talk(1, 4 * turn)), "laptop", 10.0 * turn, cached_tokens=0)
    assert cached(router, request(talk(1, 80)), 200.0) < 0.1 * 19 * 4 * 256


def test_a_miss_is_no_sign_of_a_slow_engine() -> None:
    """Where the engine tells what was cached, a prompt that was computed anew is judged by what that takes."""
    slow, kept = (make.router(make.endpoint("laptop")) for _ in range(2))
    for router, cached_tokens in ((slow, 0), (kept, None)):
        for turn in range(1, 12):
            tokens = 1024 * turn
            hit = max(0, tokens - 1024) if cached_tokens is None or turn < 8 else 0
            ttft_s = 0.05 + 0.001 * (tokens - hit)
            serve(router, request(talk(1, 4 * turn)), "laptop", 60.0 * turn, cached_tokens=hit, ttft_s=ttft_s)
    one, other = (estimate(router, request(talk(9, 4)), 1000.0) for router in (slow, kept))
    assert one == pytest.approx(other, rel=0.1)


def test_an_attempt_is_not_given_up_before_all_of_its_prompt_could_be_computed() -> None:
    slow = replace(make.LOCAL_PRIOR, prefill_s_per_token=0.01, cache=CachePrior(share=0.95))
    warm, cold = (make.router(make.endpoint("laptop", prior=slow)) for _ in range(2))
    serve(warm, request(talk(1, 40)), "laptop", 0.0, cached_tokens=None, ttft_s=102.5)
    timeouts_s = []
    for router in (warm, cold):
        step = router.decide(request(talk(1, 41)), 200.0).plan[0]
        assert isinstance(step, Run)
        timeouts_s.append(step.timeout_s)
    assert timeouts_s[0] >= 100.0
    assert cached(warm, request(talk(1, 41)), 200.0) > 9_000.0


def test_how_long_the_way_is_scatters_no_more_for_what_may_have_to_be_computed_after_all() -> None:
    """Four seconds of upload are known: there is little to doubt but whether the prompt is cached."""
    prior = replace(make.LOCAL_PRIOR, upload_bytes_per_s=250_000.0, cache=CachePrior(share=0.9))
    model, length = EndpointModel(make.endpoint("desk", prior=prior), 0.9), LengthModel().at("chat", 100)
    for at_s in range(5):
        model.network.learn_upload(1_000_000, 4.0, float(at_s))
    first = make.request(prompt_tokens=20_000, prompt_bytes=1_000_000, prefix=talk(1, 256), slo=Slo(ttft_s=5.0))
    second = replace(first, id="second")
    model.started(make.started(first, "desk"), model.base(first, length, 10.0), 10.0)
    model.first(first.id, 30.0)
    model.ended(make.ended(first.id, "desk", ttft_s=20.0, e2e_s=25.0, output_tokens=100, cached_tokens=0), 35.0)
    base = model.base(second, length, 40.0)
    assert base.warm_s == pytest.approx(4.05, abs=0.01)
    assert base.sure_s == pytest.approx(20.28, abs=0.01)
    assert attainment(second, base, 0.0) == pytest.approx(0.9, abs=0.01)


# --- helpers --------------------------------------------------------------------------------------------------------


def request(digests: tuple[int, ...]) -> Request:
    size = 1024 * len(digests)
    return make.request(prompt_tokens=size // 4, prompt_bytes=size, prefix=digests)


def serve(
    router: Router,
    asked: Request,
    endpoint: str,
    at_s: float,
    *,
    cached_tokens: int | None,
    ttft_s: float = 0.5,
) -> None:
    router.observe(make.started(asked, endpoint), at_s)
    router.observe(FirstToken(request_id=asked.id, endpoint=endpoint, ttft_s=ttft_s), at_s + ttft_s)
    ended = Ended(
        request_id=asked.id,
        endpoint=endpoint,
        ending=Ending.OK,
        e2e_s=ttft_s + 1.0,
        ttft_s=ttft_s,
        prompt_tokens=asked.prompt_tokens,
        cached_tokens=cached_tokens,
        output_tokens=20,
    )
    router.observe(ended, at_s + ttft_s + 1.0)
    # What was observed counts from a second later on, with the next fact.
    router.observe(Probed(endpoint=endpoint, up=True), at_s + ttft_s + 1.0 + JUDGE_S)


def seasoned() -> Router:
    router = make.router(make.endpoint("laptop"))
    serve(router, request(talk(1, 8)), "laptop", 0.0, cached_tokens=0)
    return router


def sure() -> Prior:
    return replace(make.REMOTE_PRIOR, cache=ALWAYS)


def cached(router: Router, asked: Request, now_s: float) -> float:
    return _of(router, asked, now_s, lambda e: e.cached_tokens)


def costs(router: Router, asked: Request, now_s: float) -> float:
    return _of(router, asked, now_s, lambda e: e.cost_usd)


def estimate(router: Router, asked: Request, now_s: float) -> float:
    return _of(router, asked, now_s, lambda e: e.ttft_s)


def _of(router: Router, asked: Request, now_s: float, what: Callable[..., float]) -> float:
    found = router.candidates(asked, now_s)[0].estimate
    assert found is not None
    return what(found)


def test_a_share_that_is_cached_of_prompts_nobody_knows_is_not_learned_from_what_is_believed_of_it() -> None:
    prefixes, unknown, now_s = fresh(), Prompt((), 10_000, 40_000), 0.0
    for _ in range(400):
        now_s += 10.0
        cached = prefixes.cached(unknown, now_s)
        prefixes.learn(prefixes.given(None, 10_000, cached, now_s), 10, 10_000, 3_000, now_s)
    assert prefixes.cached(unknown, now_s).tokens == pytest.approx(3_000.0, rel=0.1)
