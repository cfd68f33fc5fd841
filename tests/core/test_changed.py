"""An engine that has become slower: what is known of it before answers end, and from what was sent before."""

from math import log

import pytest

from tests import make
from tidegate.core.calibration import Promises
from tidegate.core.latency import PARTS, Latency
from tidegate.core.model import FirstToken, Request
from tidegate.core.router import Router

PROMPT_TOKENS = 1000
USUAL_S = 1.05


def talk(index: int) -> Request:
    """One whose prompt an earlier one may have begun."""
    digests = (7, 8, 9, 100 + index)
    return make.request(prompt_tokens=PROMPT_TOKENS, prompt_bytes=4 * PROMPT_TOKENS, prefix=digests)


def taught() -> tuple[Router, float]:
    """An engine that tells what it had cached, which was nothing, and always took as long."""
    router, at_s = make.router(make.endpoint("laptop")), 0.0
    for index in range(40):
        request = talk(index)
        router.observe(make.started(request, "laptop"), at_s)
        router.observe(FirstToken(request_id=request.id, endpoint="laptop", ttft_s=USUAL_S), at_s + USUAL_S)
        fact = make.ended(
            request.id,
            "laptop",
            e2e_s=2.0,
            ttft_s=USUAL_S,
            output_tokens=40,
            prompt_tokens=PROMPT_TOKENS,
            cached_tokens=0,
        )
        router.observe(fact, at_s + 2.0)
        at_s += 3.0
    return router, at_s


@pytest.mark.parametrize(("times", "teaches"), [(1.0, False), (8.0, True)])
def test_what_is_later_than_with_nothing_cached_teaches_at_once(times: float, teaches: bool) -> None:
    router, at_s = taught()
    request, model = talk(99), router.endpoint("laptop")
    router.observe(make.started(request, "laptop"), at_s)
    assert (given := model.state.reservations[request.id].given) is not None
    assert given.spans
    took_s = times * USUAL_S
    router.observe(FirstToken(request_id=request.id, endpoint="laptop", ttft_s=took_s), at_s + took_s)
    assert model.state.reservations[request.id].corrected is teaches


def test_what_was_sent_before_a_change_is_no_less_true_for_being_far_off() -> None:
    one = Latency([1.0] + [0.0] * (PARTS - 1), (), 1, 1, 0.3, 0.9)
    parts, at_s = [1.0] + [0.0] * (PARTS - 1), 0.0
    for _ in range(60):
        at_s += 1.0
        one.correct(one.predict(parts, 0, 0, at_s), 1.0, 1.0, False, at_s, at_s)
    before, sent_s = one.predict(parts, 0, 0, at_s), at_s
    while one.learned.shift.moved_s == 0.0:
        at_s += 1.0
        one.correct(one.predict(parts, 0, 0, at_s), 4.0, 1.0, True, at_s, at_s)
        one.holds_since(at_s, at_s + 0.5)
    for _ in range(10):
        at_s += 1.0
        one.correct(before, 4.0, 1.0, True, sent_s, at_s)
    assert log(one.predict(parts, 0, 0, at_s).median_s / 4.0) == pytest.approx(0.0, abs=0.05)


def test_a_queue_that_has_grown_with_the_change_is_not_corrected_for_it_once_more() -> None:
    one, at_s = Latency([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], (3,), 1, 1, 0.3, 0.9), 0.0
    for _ in range(60):
        at_s += 1.0
        one.correct(one.predict([0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0], 0, 0, at_s), 1.0, 1.0, False, at_s, at_s)
    while one.learned.shift.moved_s == 0.0:
        at_s += 1.0
        one.correct(one.predict([0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0], 0, 0, at_s), 3.0, 1.0, True, at_s, at_s)
        one.holds_since(at_s, at_s + 0.5)
    after = one.predict([0.5, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0], 0, 0, at_s + 1.0)
    assert after.median_s == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("moved", [0.97, 1.0, 1.03])
def test_what_would_have_been_predicted_of_less_is_less_by_as_much_whatever_was_learned_since(moved: float) -> None:
    sent = Latency([1.0] * PARTS, (), 1, 1, 0.3, 0.9).predict([0.05, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0, 0, 0.0)
    had = sent.had([moved] * PARTS, [0.05, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert had.median_s == pytest.approx(0.1)


def test_a_promise_that_was_easy_for_long_is_what_it_says_again_soon() -> None:
    promises = Promises(1, 0.9)
    for _ in range(10_000):
        promises.learn(0, missed=False)
        promises.settle()
    tightest = promises.stretch(0)
    for index in range(60):
        promises.learn(0, missed=index % 5 < 2)
        promises.settle()
    assert promises.stretch(0) > 4.0 * tightest
