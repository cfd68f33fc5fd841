"""Prefill that is sent away: whose prompts, at what prices, and what is advised."""

from itertools import count

import msgspec
import pytest

from tests.core.paths import LOCAL_S, POOLS, learned, shortest_sent, work
from tidegate.core.model import replace
from tidegate.core.offload import LOOK_S, SOLVE_S, Backlog, Path, Work, fault, fresh
from tidegate.core.throughput import Bound

IDLE = Backlog(0.0, 0.0, 0.0)


def test_before_anything_is_known_a_prompt_goes_where_it_is_ready_first() -> None:
    path = fresh(POOLS, 0.0)
    assert path.gain_s(Work(4.0, 1.0, 1e9), IDLE, 0.0) == pytest.approx(3.0)
    assert path.gain_s(Work(1.0, 4.0, 1e9), IDLE, 0.0) == pytest.approx(-3.0)
    assert path.gain_s(Work(4.0, 1.0, 1e9), Backlog(0.0, 5.0, 0.0), 0.0) == pytest.approx(-2.0)
    assert path.gain_s(Work(4.0, 1.0, 1e9), Backlog(0.0, 0.0, 9e9), 0.0) == pytest.approx(-6.0)
    assert path.spares_s(work(50_000.0)) == 0.0
    assert path.advice() is None


def test_where_pools_are_busy_what_is_sent_is_what_saves_most() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    assert path.busy > 1.0
    assert path.spares_s(work(2_000.0)) < 0.0 < path.spares_s(work(60_000.0))


def test_where_hardly_anybody_asks_a_second_is_worth_nothing_to_others() -> None:
    path = learned(per_s=0.05, link_bytes_per_s=1e9)
    assert path.busy < 0.1


def test_after_a_night_who_comes_is_believed_within_minutes() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    begins_s = path.at_s + 8 * 3600.0
    asked_per_s = []
    for number in range(1, 601):
        path.arrived(3_000.0, work(3_000.0), begins_s + number / 2.0)
        if number in (120, 600):
            advice = path.advice()
            assert advice is not None
            asked_per_s.append(advice.asked_per_s)
    assert asked_per_s == pytest.approx([1.0, 2.0], rel=0.05)


def test_who_comes_in_the_first_minute_is_believed() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9, requests=40)
    advice = path.advice()
    assert advice is not None
    assert advice.asked_per_s == pytest.approx(2.0, rel=0.1)


def test_the_length_that_is_sent_follows_the_link() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    before, now_s = shortest_sent(path), path.at_s
    for _ in range(2):
        now_s += 2.0
        path.crossed(0.5e9, 2.0, now_s)
    path.settle(now_s + 1.0)
    assert path.link_bytes_per_s == pytest.approx(0.25e9)
    assert shortest_sent(path) > 1.3 * before


def test_one_slow_transfer_is_no_change() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    prices = path.prices
    path.crossed(0.5e9, 2.0, path.at_s + 1.0)
    path.settle(path.at_s + 1.0)
    assert path.prices == prices


def test_prices_stay_where_little_has_changed_and_it_is_not_yet_time() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    path.settle(path.solved_s + SOLVE_S)
    prices = path.prices
    for i in range(3):
        path.crossed(1.05e9, 1.0, path.at_s + 1.0 + i)
    assert path.prices == prices


def test_a_link_that_was_lost_is_tried_again() -> None:
    path = learned(per_s=0.1, link_bytes_per_s=1e9)
    now_s = path.at_s
    for _ in range(3):
        now_s += 1.0
        path.crossed(1e3, 1.0, now_s)
    one = work(60_000.0)
    assert path.gain_s(one, IDLE, now_s) < 0.0
    assert path.gain_s(one, IDLE, now_s + LOOK_S + 1.0) > 0.0
    # What is under way will tell: one is enough.
    assert path.gain_s(one, Backlog(0.0, 0.0, one.kv_bytes), now_s + LOOK_S + 1.0) < 0.0


def test_more_nodes_prefill_where_the_link_brings_less() -> None:
    fast = learned(per_s=2.0, link_bytes_per_s=12.5e9).advice()
    slow = learned(per_s=2.0, link_bytes_per_s=0.25e9).advice()
    assert fast is not None
    assert slow is not None
    assert fast.prefill + fast.decode == slow.prefill + slow.decode == 8
    assert slow.prefill > fast.prefill
    assert slow.threshold_tokens > fast.threshold_tokens
    assert slow.per_s > slow.per_s_now
    assert (slow.prefill_now, slow.decode_now) == (3, 5)
    assert slow.bound is Bound.DECODE
    assert slow.asked_per_s == pytest.approx(2.0, rel=0.1)


def test_nodes_stay_where_little_is_gained() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=12.5e9)
    path.told(replace(path.pools, prefill=4.0, decode=4.0), path.at_s + 1.0)
    advice = path.advice()
    assert advice is not None
    assert (advice.prefill, advice.per_s) == (4, advice.per_s_now)


def test_other_instances_change_prices_at_once() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=12.5e9)
    before = shortest_sent(path)
    path.told(replace(path.pools, remote=1.0), path.at_s + 1.0)
    assert shortest_sent(path) > before


def test_what_is_written_down_is_what_was_known() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    path.crossed(0.5e9, 1.0, path.at_s + 1.0)
    again = msgspec.json.decode(msgspec.json.encode(path), type=Path)
    assert again == path
    assert not fault(again)


def test_what_cannot_be_is_found() -> None:
    for field, value in (("came", [1.0]), ("recent", float("nan")), ("link_bytes_per_s", 0.0), ("tokens", [-1.0] * 48)):
        path = learned(per_s=2.0, link_bytes_per_s=1e9)
        setattr(path, field, value)
        assert fault(path)


def test_lengths_of_an_hour_ago_are_gone() -> None:
    path = learned(per_s=2.0, link_bytes_per_s=1e9)
    now_s, numbers = path.at_s, count(1)
    for _ in range(3_600):
        now_s += 1.0
        path.arrived(3_000.0 + next(numbers) % 100, work(3_000.0), now_s)
    advice = path.advice()
    assert advice is not None
    assert advice.per_s == pytest.approx(5.0 * POOLS.decode_per_s, rel=0.5)
    assert path.best_per_s > 3.0 / LOCAL_S.at(3_100.0)
