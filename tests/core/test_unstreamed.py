"""Answers that come in one piece: nobody saw their first content, and how fast their engine is shows all the same."""

from math import inf
from random import Random

import pytest

from tests import make
from tests.make import LOCAL_PRIOR, scaled
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Ending
from tidegate.core.output import Length

LENGTH = Length(expected_tokens=100.0, high_tokens=400.0, median_tokens=100.0, sigma=0.7)


class Engine:
    """One that takes `factor` times as long as is declared, `first` times that for prompts, give or take a tenth."""

    def __init__(self, factor: float, first: float = 1.0) -> None:
        self.model = EndpointModel(make.endpoint("laptop"), 0.9)
        self.real = scaled(LOCAL_PRIOR, factor)
        self.first = first
        self.now_s = 0.0
        # From one answer to the next; after how long the model has to be loaded again, and what that takes.
        self.idle_s, self.unload_after_s, self.load_s = 1.0, inf, 0.0
        self._used_s = 0.0
        self._draw = Random(7)

    def times(self, prompt_tokens: int) -> tuple[float, float]:
        """Seconds to first content, and per token."""
        first_s = self.real.overhead_s + self.real.prefill_s_per_token * prompt_tokens
        return self.first * first_s, self.real.decode_s_per_token

    def predicted(self, prompt_tokens: int) -> tuple[float, float]:
        """The same, as it is believed."""
        base = self.model.base(make.request(prompt_tokens=prompt_tokens), LENGTH, self.now_s)
        return base.first_s, base.tpot_s

    def whole(self) -> float:
        """How many times as long as it takes an answer of usual length is believed to take."""
        (first_s, token_s), (really_s, each_s) = self.predicted(400), self.times(400)
        return (first_s + 100.0 * token_s) / (really_s + 100.0 * each_s)

    def answer(self, count: int, *, ending: Ending = Ending.OK, cause: str = "") -> None:
        """So many, with prompts and answers of all sizes."""
        for _ in range(count):
            tokens, output = int(self._draw.lognormvariate(6.0, 1.0)) + 1, int(self._draw.lognormvariate(4.0, 1.3)) + 1
            request = make.request(prompt_tokens=tokens, prompt_bytes=4 * tokens)
            base = self.model.base(request, LENGTH, self.now_s)
            self.model.started(make.started(request, "laptop"), base, self.now_s)
            first_s, token_s = self.times(tokens)
            took_s = (first_s + (output - 1) * token_s) * self._draw.lognormvariate(0.0, 0.1)
            took_s += self.load_s if self.now_s - self._used_s > self.unload_after_s else 0.0
            self.now_s += took_s
            told = make.ended(request.id, "laptop", ending=ending, e2e_s=took_s, output_tokens=output, cause=cause)
            self.model.ended(told, self.now_s)
            self._used_s, self.now_s = self.now_s, self.now_s + self.idle_s


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_an_engine_is_known_by_answers_that_come_in_one_piece(factor: float) -> None:
    engine = Engine(factor)
    engine.answer(60)
    assert engine.whole() == pytest.approx(1.0, abs=0.2)
    assert engine.predicted(400) == pytest.approx(engine.times(400), rel=0.4)


@pytest.mark.parametrize("first", [0.2, 5.0])
def test_what_prompts_take_is_told_from_what_tokens_take_by_answers_of_other_lengths(first: float) -> None:
    engine = Engine(1.0, first)
    engine.answer(150)
    assert engine.whole() == pytest.approx(1.0, abs=0.2)
    assert engine.predicted(400) == pytest.approx(engine.times(400), rel=0.45)


def test_a_load_before_an_answer_in_one_piece_is_a_load_and_no_slow_engine() -> None:
    engine = Engine(1.0)
    engine.answer(60)
    before = engine.predicted(400)
    engine.unload_after_s, engine.load_s = 600.0, 30.0
    for _ in range(12):
        engine.now_s += 900.0
        cold = engine.model.cold.at(engine.now_s, 0)
        engine.answer(4)
    assert engine.predicted(400) == pytest.approx(before, rel=0.15)
    assert cold.share > 0.5
    assert cold.load_s == pytest.approx(30.0, rel=0.3)
    assert engine.model.cold.at(engine.now_s, 0).share < 0.05


@pytest.mark.parametrize("idle_s", [20.0, 200.0, 2000.0])
def test_a_slow_engine_that_is_seldom_asked_is_slow_and_loads_nothing(idle_s: float) -> None:
    engine = Engine(5.0)
    engine.idle_s = idle_s
    engine.answer(60)
    assert engine.whole() == pytest.approx(1.0, abs=0.25)
    assert engine.model.cold.at(engine.now_s, 0).share < 0.1


def test_it_is_learned_anew_when_the_engine_has_become_slower() -> None:
    engine = Engine(1.0)
    engine.answer(60)
    engine.real = scaled(LOCAL_PRIOR, 4.0)
    engine.answer(40)
    assert engine.whole() == pytest.approx(1.0, abs=0.25)


def test_no_promise_is_judged_by_what_nobody_saw() -> None:
    engine = Engine(3.0)
    engine.answer(60)
    ttft, tpot = engine.model.state.ttft, engine.model.state.tpot
    assert ttft is not None
    assert tpot is not None
    assert not any(one.judged for one in (*ttft.promises, *tpot.promises))


@pytest.mark.parametrize(("ending", "cause"), [(Ending.OK, "bad_request"), (Ending.FAILED, "")])
def test_what_served_nothing_says_nothing(ending: Ending, cause: str) -> None:
    engine = Engine(0.1)
    before = engine.predicted(400)
    engine.answer(20, ending=ending, cause=cause)
    assert engine.predicted(400) == pytest.approx(before, rel=0.1)


def test_an_answer_in_one_piece_is_not_taken_for_first_content_that_was_late() -> None:
    engine = Engine(1.0)
    engine.answer(20)
    assert not engine.model.late.doubts_network
    before, request = engine.model.late.telling_bytes, make.request()
    base = engine.model.base(request, LENGTH, engine.now_s)
    engine.model.started(make.started(request, "laptop"), base, engine.now_s)
    engine.model.ended(make.ended(request.id, "laptop", ending=Ending.TIMED_OUT, e2e_s=60.0), engine.now_s + 60.0)
    assert (engine.model.late.doubts_network, engine.model.late.telling_bytes < before) == (True, True)


@pytest.mark.parametrize(("times", "silent"), [(0.9, False), (20.0, True)])
def test_who_gives_up_within_the_time_of_the_whole_says_nothing_of_first_content(times: float, silent: bool) -> None:
    engine = Engine(1.0)
    engine.answer(30)
    model, usual = engine.model, engine.predicted(400)
    waits_s = times * (usual[0] + LENGTH.high_tokens * usual[1])
    for _ in range(5):
        request = make.request(prompt_tokens=400, prompt_bytes=1600, stream=False)
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, engine.now_s), engine.now_s)
        engine.now_s += waits_s
        told = make.ended(request.id, "laptop", ending=Ending.CANCELLED, e2e_s=waits_s)
        model.ended(told, engine.now_s)
    assert (model.state.breaker.strikes > 0.0) is silent
    if not silent:
        assert engine.predicted(400) == pytest.approx(usual, rel=0.02)
        assert not model.late.doubts_network
