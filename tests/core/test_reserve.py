"""Work in flight: how long an engine is busy with it, and when its slots are free."""

import pytest

from tests import make
from tidegate.core.estimator import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending, Prior

LENGTHS = LengthModel()
# One second a prefill, one a decode, and known exactly: means and medians are one.
PRIOR = Prior(overhead_s=1.0, prefill_s_per_token=0.0, decode_s_per_token=0.01, sigma=0.0)


def model(concurrency: int = 4, *, shares_compute: bool = True, owned: bool = True) -> EndpointModel:
    endpoint = make.endpoint("e", concurrency=concurrency, prior=PRIOR, shares_compute=shares_compute, owned=owned)
    return EndpointModel(endpoint, 0.9)


def send(engine: EndpointModel, name: str, now_s: float) -> None:
    request = make.request(name, prompt_bytes=0)
    engine.started(make.started(request, "e"), engine.base(request, LENGTHS.at("chat", 100), now_s), now_s)


def end(engine: EndpointModel, name: str, now_s: float, ending: Ending = Ending.CANCELLED) -> None:
    engine.ended(Ended(request_id=name, endpoint="e", ending=ending, e2e_s=0.01), now_s)


def left_s(engine: EndpointModel, now_s: float) -> float:
    return round(engine.state.prefills.left_s(now_s), 3)


def test_prefills_are_worked_on_one_after_the_other() -> None:
    engine = model()
    for index in range(3):
        send(engine, f"r{index}", 0.0)
    assert left_s(engine, 0.0) == 3.0
    assert left_s(engine, 0.5) == 2.5


def test_the_next_prefill_begins_when_the_one_before_it_is_done_not_when_it_was_sent() -> None:
    engine = model()
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    engine.first("a", 1.0)
    assert left_s(engine, 1.0) == 1.0


def test_one_that_overtakes_says_nothing_of_the_oldest() -> None:
    engine = model()
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    engine.first("b", 0.5)
    assert left_s(engine, 0.5) == 0.5


def test_an_overdue_prefill_is_never_taken_for_done() -> None:
    engine = model()
    send(engine, "a", 0.0)
    assert left_s(engine, 10.0) == 2.0
    send(engine, "b", 10.0)
    assert left_s(engine, 10.0) == 3.0


def test_a_cancelled_prefill_leaves_the_queue() -> None:
    engine = model()
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    end(engine, "b", 0.2)
    assert left_s(engine, 0.2) == 0.8
    end(engine, "a", 0.4)
    assert left_s(engine, 0.4) == 0.0


def test_where_compute_is_not_shared_nobody_queues() -> None:
    engine = model(concurrency=64, shares_compute=False, owned=False)
    for index in range(20):
        send(engine, f"r{index}", 0.0)
    assert engine.base(make.request(), LENGTHS.at("chat", 100), 0.0).queue_s == 0.0


def test_a_request_that_has_to_wait_for_a_slot_is_not_told_to_queue_as_well() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    base = engine.base(make.request(prompt_bytes=0), LENGTHS.at("chat", 100), 0.0)
    assert base.queue_s == 0.0
    assert base.first_s == pytest.approx(1.0, rel=1e-3)


def test_slots_are_free_at_once_while_there_are_any() -> None:
    engine = model(concurrency=3)
    send(engine, "a", 0.0)
    now, soon, later = engine.slots_free_s(0.0)
    assert (now, soon) == (0.0, 0.0)
    assert later > 1.0


def test_filled_beyond_its_slots_as_many_must_end_as_there_are_too_many() -> None:
    engine = model(concurrency=1)
    for index, at_s in enumerate((0.0, 5.0, 9.0)):
        send(engine, f"r{index}", at_s)
    ends_s = sorted(r.ends_s(9.0) for r in engine.state.reservations.values())
    assert engine.slots_free_s(9.0) == [ends_s[-1]]
    assert engine.room == -2


def test_an_attempt_that_is_overdue_is_expected_to_last_a_fifth_of_its_age_more() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    engine.first("a", 1.0)
    assert engine.slots_free_s(100.0)[0] == pytest.approx(120.0, rel=1e-3)


def test_slots_are_predicted_anew_after_each_fact() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    assert engine.slots_free_s(0.5)[0] > 0.5
    end(engine, "a", 0.5)
    assert engine.slots_free_s(0.5) == [0.5]


def test_an_ending_nobody_knows_of_changes_nothing() -> None:
    engine = model()
    end(engine, "stranger", 0.0, Ending.FAILED)
    assert engine.state.breaker.strikes == 0.0
