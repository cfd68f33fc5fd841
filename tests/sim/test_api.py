"""A fleet behind an API."""

import math
from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.sim.api import PRESETS, Answer, Api, ApiProfile, CacheProfile, Spread
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job

NOW_S = 1_700_000_000.0
PLAIN = ApiProfile(ttft_s=0.5, ttft_s_per_cached_token=1e-6, ttft_s_per_uncached_token=1e-5, tpot_s=0.02)
gaps_s = st.floats(0.0, 40.0)
seeds = st.integers(0, 2**32)


def api(seed: int = 1, profile: ApiProfile = PLAIN, **changes: object) -> Api:
    return Api(msgspec.structs.replace(profile, **changes), Chance(seed), "api")


def job(id: str = "r", *, output_tokens_max: int | None = None, **changes: object) -> Job:
    request = make.request(id, output_tokens_max=output_tokens_max)
    return msgspec.structs.replace(Job(request=request, prompt_tokens=1000, output_tokens=100), **changes)


def prompt(*blocks: int, id: str = "r") -> Job:
    """A prompt of these blocks, of a thousand tokens each, and another hundred tokens."""
    return job(id, blocks=blocks, block_tokens=1000, prompt_tokens=1000 * len(blocks) + 100)


# --- chance -----------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from(sorted(PRESETS)), st.lists(st.tuples(gaps_s, st.integers(1, 200_000)), max_size=10))
def test_what_a_request_meets_does_not_depend_on_who_else_is_there(
    seed: int, preset: str, others: list[tuple[float, int]]
) -> None:
    profile = msgspec.structs.replace(PRESETS[preset], requests_per_minute=None)
    alone, busy = api(seed, profile), api(seed, profile)
    at_s = NOW_S
    for index, (gap_s, tokens) in enumerate(others):
        at_s += gap_s
        busy.answer(job(f"other{index}", prompt_tokens=tokens), at_s)
    assert busy.answer(job(), at_s) == alone.answer(job(), at_s)


def test_another_attempt_another_request_another_seed_and_another_api_draw_anew() -> None:
    noisy = msgspec.structs.replace(PLAIN, ttft_spread=Spread(sigma=0.5))
    first = api(1, noisy)
    met = [first.answer(job(), NOW_S).ttft_s, first.answer(job(), NOW_S).ttft_s, first.answer(job("s"), NOW_S).ttft_s]
    met.append(api(2, noisy).answer(job(), NOW_S).ttft_s)
    met.append(Api(noisy, Chance(1), "other").answer(job(), NOW_S).ttft_s)
    assert len(set(met)) == 5
    assert api(1, noisy).answer(job(), NOW_S + 1000.0).ttft_s == met[0]


def test_who_was_refused_meets_what_it_would_have_met_at_first() -> None:
    noisy = msgspec.structs.replace(PLAIN, ttft_spread=Spread(sigma=0.5))
    full, down, free = api(1, noisy, requests_per_minute=1.0), api(1, noisy), api(1, noisy)
    full.answer(job("other"), NOW_S)
    down.down = True
    assert [one.answer(job(), NOW_S).status for one in (full, down)] == [429, 503]
    down.down = False
    assert full.answer(job(), NOW_S + 60.0) == down.answer(job(), NOW_S) == free.answer(job(), NOW_S)


@pytest.mark.parametrize(("sigma", "tail", "tail_sigma"), [(0.3, 0.0, 0.0), (0.2, 0.1, 1.0), (0.0, 0.4, 2.0)])
def test_a_spread_has_the_body_and_the_tail_that_it_says(sigma: float, tail: float, tail_sigma: float) -> None:
    noisy = api(ttft_spread=Spread(sigma=sigma, tail=tail, tail_sigma=tail_sigma), ttft_s_per_uncached_token=0.0)
    logs = sorted(math.log(noisy.answer(job(f"r{index}"), NOW_S).ttft_s / 0.5) for index in range(4000))
    assert logs[400] == pytest.approx(-sigma * 1.2816 * (1.0 - tail), abs=0.05)  # a tenth of a body is below this
    far = 1.645 * tail_sigma  # a tenth of the tail is above
    if tail:
        assert sum(log > far for log in logs) / 4000 == pytest.approx(0.1 * tail, rel=0.35)


# --- time -------------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from(sorted(PRESETS)), st.integers(1, 500_000), st.integers(1, 500_000))
def test_a_longer_prompt_never_takes_less_time(seed: int, preset: str, one: int, other: int) -> None:
    low, high = (
        api(seed, PRESETS[preset], errors=0.0).answer(job(prompt_tokens=tokens), NOW_S)
        for tokens in sorted((one, other))
    )
    assert low.ttft_s <= high.ttft_s


def test_the_hour_of_day_counts_for_the_first_token_and_a_slow_down_for_all() -> None:
    day = api(load=tuple(1.0 + hour for hour in range(24)), ttft_s_per_uncached_token=0.0)
    assert day.answer(job(), 86400.0 * 3 + 3600.0 * 5 + 1.0) == Answer(status=200, ttft_s=3.0, tpot_s=0.02)
    day.slowdown = 10.0
    assert day.answer(job("s"), 86400.0 * 4) == Answer(status=200, ttft_s=5.0, tpot_s=0.2)


def test_a_model_that_nobody_used_starts_from_cold_once_for_all_who_wait() -> None:
    rare = api(idle_s=60.0, cold_start_s=20.0, ttft_s_per_uncached_token=0.0)
    waits = [rare.answer(job(f"r{at_s}"), NOW_S + at_s).ttft_s for at_s in (0.0, 5.0, 30.0)]
    assert waits == [20.5, 15.5, 0.5]
    for at_s in (0.0, 5.0, 30.0):
        rare.ended(job(f"r{at_s}"), NOW_S + 40.0)
    assert rare.answer(job("warm"), NOW_S + 100.0).ttft_s == 0.5
    assert rare.answer(job("used"), NOW_S + 500.0).ttft_s == 0.5  # `warm` has not ended
    rare.ended(job("warm"), NOW_S + 500.0)
    rare.ended(job("used"), NOW_S + 500.0)
    assert rare.answer(job("late"), NOW_S + 561.0).ttft_s == 20.5


# --- limits -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(gaps_s, st.integers(1, 5000)), max_size=40))
def test_no_span_of_time_admits_more_than_a_full_bucket_and_what_flows_in(asked: list[tuple[float, int]]) -> None:
    limited = api(requests_per_minute=5.0, tokens_per_minute=5000.0)
    admitted, at_s = [], NOW_S
    for index, (gap_s, tokens) in enumerate(asked):
        at_s += gap_s
        if limited.answer(job(f"r{index}", prompt_tokens=tokens), at_s).status == 200:
            admitted.append((at_s, tokens))
    for begin, (from_s, _) in enumerate(admitted):
        for end in range(begin, len(admitted)):
            minutes = (admitted[end][0] - from_s) / 60.0
            assert end - begin + 1 <= 5.0 * (1.0 + minutes) + 1e-3
            assert sum(tokens for _, tokens in admitted[begin : end + 1]) <= 5000.0 * (1.0 + minutes) + 1e-3


@given(st.lists(st.tuples(gaps_s, st.integers(1, 5000), st.booleans()), min_size=1, max_size=40))
def test_whoever_comes_back_when_told_is_admitted(asked: list[tuple[float, int, bool]]) -> None:
    limited, at_s = api(requests_per_minute=3.0, tokens_per_minute=5000.0), NOW_S
    for index, (gap_s, tokens, ends) in enumerate(asked):
        at_s += gap_s
        one = job(f"r{index}", prompt_tokens=tokens)
        answer = limited.answer(one, at_s)
        if answer.status == 429:
            assert answer.retry_after_s is not None
            assert answer.retry_after_s == int(answer.retry_after_s) >= 1
            at_s += answer.retry_after_s
            answer = limited.answer(one, at_s)
        assert answer.status == 200
        if ends:
            at_s += 5.0
            limited.ended(one, at_s)


def test_a_prompt_beyond_a_whole_minute_of_tokens_is_refused_without_a_time_to_come_back() -> None:
    assert api(tokens_per_minute=999.0, refusal_s=0.1).answer(job(), NOW_S) == Answer(status=429, ttft_s=0.1)


def test_output_counts_when_it_has_ended_as_far_as_it_was_made() -> None:
    def wait_s(ended_after_s: float, output_tokens_max: int | None = None) -> float | None:
        limited = api(tokens_per_minute=6000.0, ttft_s_per_uncached_token=0.0)
        one = job(output_tokens_max=output_tokens_max, output_tokens=1000)
        limited.answer(one, NOW_S)
        limited.ended(one, NOW_S + ended_after_s)
        return limited.answer(job("next", prompt_tokens=6000), NOW_S + ended_after_s).retry_after_s

    # A hundred tokens flow in each second, and 6000 are all there is room for.
    assert wait_s(0.4) == 10.0  # cancelled before the first token: 960 are missing
    assert wait_s(0.5 + 999 * 0.02) == 10.0  # those of the prompt are back after 20 s, and 1000 of output missing
    assert wait_s(0.5 + 499 * 0.02) == 5.0  # cancelled after 500 tokens
    assert wait_s(0.5 + 99 * 0.02, 100) == 9.0  # bounded by the client: 1100 less 248


def test_a_full_house_refuses_until_somebody_has_left() -> None:
    small = api(concurrency=2, retry_after_s=7.0)
    one, two, three = job("1"), job("2"), job("3")
    assert [small.answer(each, NOW_S).status for each in (one, two)] == [200, 200]
    refused = small.answer(three, NOW_S)
    assert (refused.status, refused.retry_after_s) == (429, 7.0)
    small.ended(three, NOW_S)
    assert small.answer(three, NOW_S).status == 429
    small.ended(one, NOW_S)
    small.ended(one, NOW_S)
    assert small.answer(three, NOW_S).status == 200
    assert small.answer(job("4"), NOW_S).status == 429


def test_errors_are_told_after_the_times_that_they_took() -> None:
    poor = api(errors=1.0, error_times_s=(2.0, 9.0), refusal_s=0.1)
    told = {poor.answer(job(f"r{number}"), NOW_S).ttft_s for number in range(40)}
    assert told == {2.0, 9.0}
    assert api(errors=1.0, refusal_s=0.1).answer(job(), NOW_S).ttft_s == 0.1


def test_streams_break_off_at_their_rate_and_anywhere() -> None:
    poor, usual = api(broken=0.25), api()
    told = [poor.answer(job(f"r{number}"), NOW_S) for number in range(2000)]
    broken = [one.breaks_at for one in told if one.breaks_at is not None]
    assert len(broken) / 2000 == pytest.approx(0.25, abs=0.03)
    assert sum(broken) / len(broken) == pytest.approx(0.5, abs=0.05)
    # What they are like besides is what it would be.
    whole = [usual.answer(job(f"r{number}"), NOW_S) for number in range(2000)]
    assert [(one.ttft_s, one.tpot_s) for one in told] == [(one.ttft_s, one.tpot_s) for one in whole]


def test_errors_come_at_their_rate_and_take_no_place() -> None:
    poor = api(errors=0.25, error_status=529, concurrency=1)
    met = []
    for index in range(2000):
        one = job(f"r{index}")
        met.append(poor.answer(one, NOW_S).status)
        if met[-1] == 200:
            poor.ended(one, NOW_S)
    assert set(met) == {200, 529}
    assert met.count(529) / 2000 == pytest.approx(0.25, abs=0.03)


def test_an_api_that_is_down_says_so_and_remembers_nothing_of_it() -> None:
    off = api(requests_per_minute=1.0, refusal_s=0.2)
    off.down = True
    assert off.answer(job("a"), NOW_S) == Answer(status=503, ttft_s=0.2)
    off.down = False
    assert off.answer(job("b"), NOW_S).status == 200


# --- cache ------------------------------------------------------------------------------------------------------

REMEMBERS = CacheProfile(ttl_s=300.0, block_tokens=1000, tokens_min=2000)


def test_a_prompt_is_remembered_for_its_time_after_its_last_use() -> None:
    kept = api(cache=REMEMBERS)
    asked = [kept.answer(prompt(1, 2, 3), NOW_S + at_s).cached_tokens for at_s in (0.0, 300.0, 599.0, 900.0)]
    assert asked == [0, 3000, 3000, 0]


def test_a_longer_prompt_keeps_what_it_begins_with_alive() -> None:
    kept = api(cache=REMEMBERS)
    kept.answer(prompt(1, 2), NOW_S)
    assert kept.answer(prompt(1, 2, 3, 4), NOW_S + 200.0).cached_tokens == 2000
    assert kept.answer(prompt(1, 2), NOW_S + 400.0).cached_tokens == 2000
    assert kept.answer(prompt(1, 2, 3, 4), NOW_S + 600.0).cached_tokens == 2000


def test_only_whole_blocks_from_the_least_size_on_count_and_never_the_last_token() -> None:
    kept = api(cache=msgspec.structs.replace(REMEMBERS, block_tokens=1500))
    kept.answer(prompt(1, 2, 3), NOW_S)
    assert kept.answer(prompt(1), NOW_S).cached_tokens == 0
    assert kept.answer(prompt(1, 2), NOW_S).cached_tokens == 0  # 1500 of 2000 in whole blocks, which is too little
    assert kept.answer(prompt(1, 2, 3), NOW_S).cached_tokens == 3000
    bare = job(blocks=(1, 2, 3), block_tokens=1000, prompt_tokens=3000)
    assert kept.answer(bare, NOW_S).cached_tokens == 0  # 2999 are 1500 in whole blocks


@given(st.lists(st.lists(st.integers(0, 1), max_size=6), min_size=1, max_size=30))
def test_cached_are_the_most_leading_blocks_in_common_with_any_prompt_before(paths: list[list[int]]) -> None:
    kept = api(cache=CacheProfile(ttl_s=300.0, block_tokens=1, tokens_min=0))
    known: set[tuple[int, ...]] = {()}
    for index, path in enumerate(paths):
        begins = [tuple(path[: size + 1]) for size in range(len(path))]
        # The identity of a block tells what precedes it too.
        blocks = tuple(int("1" + "".join(map(str, begin)), 2) for begin in begins)
        cached = kept.answer(prompt(*blocks, id=f"r{index}"), NOW_S).cached_tokens
        assert cached == 1000 * sum(begin in known for begin in begins)
        known.update(begins)


def test_of_the_requests_some_meet_a_part_of_the_fleet_that_does_not_remember() -> None:
    large = api(cache=msgspec.structs.replace(REMEMBERS, met=0.7))
    cached = [large.answer(prompt(1, 2, 3, id=f"r{index}"), NOW_S).cached_tokens for index in range(2000)]
    assert set(cached) == {0, 3000}
    assert cached.count(3000) / 2000 == pytest.approx(0.7, abs=0.04)


def test_what_is_cached_takes_the_time_of_cached_tokens() -> None:
    kept = api(cache=REMEMBERS)
    kept.answer(prompt(1, 2, 3), NOW_S)
    assert kept.answer(prompt(1, 2, 3), NOW_S).ttft_s == pytest.approx(0.5 + 3000 * 1e-6 + 100 * 1e-5)


# --- profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        '"load": [1, 2]',
        '"errors": 1.5',
        '"error_status": 429',
        '"requests_per_minute": 0.5',
        '"concurrency": 0',
        '"x": 1',
    ],
)
def test_a_profile_that_cannot_be_is_refused(field: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"ttft_s": 1, "tpot_s": 0.1, {field}}}', type=ApiProfile)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_profile_can_be_written_down_and_read_again(preset: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(PRESETS[preset]), type=ApiProfile) == PRESETS[preset]


def test_office_hours_leave_the_median_of_a_day_where_it_is() -> None:
    assert median(PRESETS["commercial-long-context"].load) == pytest.approx(1.0, abs=0.01)
