"""Work in flight: how long an engine is busy with it, and when its slots are free."""

from math import inf

import msgspec
import pytest

from tests import make
from tidegate.core import prefills
from tidegate.core.counts import Turns
from tidegate.core.endpoint import EndpointModel
from tidegate.core.inflight import begins_s, ends_s
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending, Prior, Probed, Uploaded, replace
from tidegate.core.slots import free_s

LENGTHS = LengthModel()
# One second a prefill, one a decode, and known exactly: means and medians are one.
PROMPT_TOKENS = 2048
PRIOR = Prior(overhead_s=0.5, prefill_s_per_token=0.5 / PROMPT_TOKENS, decode_s_per_token=0.01, sigma=0.0)


def model(
    concurrency: int = 4,
    *,
    shares_compute: bool = True,
    owned: bool = True,
    rtt_s: float = 0.0,
    batch_tokens: int | None = None,
) -> EndpointModel:
    prior = replace(PRIOR, rtt_s=rtt_s, batch_tokens=batch_tokens)
    endpoint = make.endpoint("e", concurrency=concurrency, prior=prior, shares_compute=shares_compute, owned=owned)
    return EndpointModel(endpoint, 0.9)


def send(engine: EndpointModel, name: str, now_s: float, *, stream: bool = True, prompt_bytes: int = 0) -> None:
    request = make.request(name, prompt_tokens=PROMPT_TOKENS, prompt_bytes=prompt_bytes, stream=stream)
    engine.started(make.started(request, "e"), engine.base(request, LENGTHS.at("chat", 100), now_s), now_s)


def end(engine: EndpointModel, name: str, now_s: float, ending: Ending = Ending.CANCELLED) -> None:
    engine.ended(Ended(request_id=name, endpoint="e", ending=ending, e2e_s=0.01), now_s)


def queue_s(engine: EndpointModel, now_s: float) -> float:
    """How long a prompt waits for others that comes now."""
    return round(engine.base(make.request(prompt_tokens=PROMPT_TOKENS), LENGTHS.at("chat", 100), now_s).queue_s, 3)


def left_s(engine: EndpointModel, now_s: float) -> float:
    return round(prefills.left_s(engine.state.prefills, now_s), 3)


def test_prefills_are_worked_on_one_after_the_other() -> None:
    engine = model()
    for index in range(3):
        send(engine, f"r{index}", 0.0)
    assert left_s(engine, 0.0) == 3.0
    assert left_s(engine, 0.5) == 2.5


def test_an_engine_that_reads_by_slot_may_have_a_new_prompt_before_those_that_it_has_or_after_them() -> None:
    engine = model(batch_tokens=PROMPT_TOKENS // 5, owned=False)
    send(engine, "a", 0.0)
    behind = engine.base(make.request(prompt_tokens=PROMPT_TOKENS), LENGTHS.at("chat", 100), 0.0)
    # A tenth of a second is the step under way; of the rest, half in the mean, and as much either way.
    assert behind.queue_s == pytest.approx(0.1 + 0.45, abs=0.001)
    assert behind.sigma * behind.first_s == pytest.approx(0.45, rel=0.01)
    # Among many it is nearer to the middle.
    for index in range(8):
        send(engine, f"more {index}", 0.0)
    many = engine.base(make.request(prompt_tokens=PROMPT_TOKENS), LENGTHS.at("chat", 100), 0.0)
    assert many.sigma * many.first_s < 0.32 * prefills.left_s(engine.state.prefills, 0.0)


def test_of_prompts_that_are_read_while_a_slot_is_waited_for_only_the_rest_delays() -> None:
    engine = model(1, batch_tokens=PROMPT_TOKENS // 5)
    send(engine, "a", 0.0)
    free_at_s = engine.slots_free_s(0.0)[0]
    assert free_at_s > prefills.left_s(engine.state.prefills, 0.0)
    assert queue_s(engine, 0.0) == 0.0
    line = prefills.Prefills(since_s=0.0, head_s=20.0, behind_s=0.0, count=1)
    assert prefills.by_slot_s(line, 1.0, 5.0, inf, 0.0) == (8.0, 7.0)
    assert prefills.by_slot_s(line, 1.0, 25.0, inf, 0.0) == (0.0, 0.0)


def test_what_is_not_sent_before_little_is_left_comes_after_the_rest_for_sure() -> None:
    line = prefills.Prefills(since_s=0.0, head_s=20.0, behind_s=0.0, count=1)
    assert prefills.by_slot_s(line, 1.0, 0.0, 2.0, 0.0) == (19.5, 0.5)
    assert prefills.by_slot_s(line, 1.0, 0.0, 0.1, 0.0) == (20.0, 0.0)
    assert prefills.by_slot_s(line, 1.0, 0.0, 8.0, 12.0) == prefills.by_slot_s(line, 1.0, 0.0, inf, 12.0)


def test_who_is_computed_before_one_that_came_first_has_had_its_time() -> None:
    engine = model(batch_tokens=PROMPT_TOKENS // 5)
    send(engine, "a", 0.0)
    send(engine, "b", 0.2)
    engine.first("b", 1.2)
    assert left_s(engine, 1.2) == pytest.approx(0.8, abs=0.01)
    # One that has not got there yet was computed by nobody.
    engine = model(batch_tokens=PROMPT_TOKENS // 5, rtt_s=4.0)
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    there_s = engine.state.prefills.since_s
    engine.first("b", 0.5)
    assert there_s == engine.state.prefills.since_s > 0.5
    # As they came, the first one has been computed all the while.
    engine = model()
    send(engine, "a", 0.0)
    send(engine, "b", 0.2)
    engine.first("b", 1.2)
    assert left_s(engine, 1.2) < 0.3
    # Whoever is given up had nothing computed for it.
    engine = model(batch_tokens=PROMPT_TOKENS // 5)
    send(engine, "a", 0.0)
    send(engine, "b", 0.2)
    end(engine, "b", 0.4)
    assert left_s(engine, 0.4) == pytest.approx(0.6, abs=0.01)


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


def test_an_engine_that_others_use_is_given_nothing_more_while_its_oldest_prompt_is_overdue() -> None:
    engine = model()
    engine.probed(Probed(endpoint="e", up=True, running=3, queued=0), 0.0)
    send(engine, "a", 0.0)
    assert engine.prompts_done_s(0.5) == pytest.approx(1.0, rel=0.01)
    assert engine.prompts_done_s(3.0) == pytest.approx(6.0, rel=0.01)
    engine.first("a", 3.0)
    assert engine.prompts_done_s(3.0) == 3.0


def test_an_engine_of_ours_alone_is_given_more_once_its_prompts_should_be_computed() -> None:
    engine = model()
    engine.probed(Probed(endpoint="e", up=True, running=0, queued=0), 0.0)
    send(engine, "a", 0.0)
    assert engine.prompts_done_s(3.0) == 3.0


def test_an_overdue_prefill_is_never_taken_for_done() -> None:
    engine = model()
    send(engine, "a", 0.0)
    assert left_s(engine, 10.0) == 2.0
    send(engine, "b", 10.0)
    assert left_s(engine, 10.0) == 3.0


@pytest.mark.parametrize("seconds", [0.05, 10.0])
def test_a_prompt_is_begun_when_it_has_got_there_sooner_or_later_than_was_believed(seconds: float) -> None:
    engine = model(rtt_s=0.1)
    send(engine, "a", 0.0, prompt_bytes=1_000_000)
    engine.uploaded(Uploaded(request_id="a", endpoint="e", upload_bytes=1_000_000, seconds=seconds), seconds)
    there_s = seconds + engine.network.rtt_s
    assert left_s(engine, there_s) == 1.0
    assert left_s(engine, there_s + 0.6) == 0.4
    assert engine.prompts_done_s(there_s) == pytest.approx(there_s + 1.0)


def test_a_prompt_that_came_while_another_was_computed_is_not_begun_before_that_is_done() -> None:
    engine = model(rtt_s=0.1)
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    engine.first("a", 5.0)
    engine.probed(Probed(endpoint="e", up=True, rtt_s=0.2), 5.5)
    engine.probed(Probed(endpoint="e", up=True, rtt_s=0.2), 5.6)
    assert engine.network.rtt_s == pytest.approx(0.2)
    assert left_s(engine, 5.6) == 0.4


@pytest.mark.parametrize("seconds", [1.0, 2.0, 10.0])
def test_what_has_come_and_what_is_computed_in_one_moment_is_told_in_any_order(seconds: float) -> None:
    found = []
    for order in ("ab", "ba"):
        engine = model(rtt_s=0.1)
        send(engine, "a", 0.0)
        send(engine, "b", 0.0, prompt_bytes=200_000_000)
        for name in order:
            if name == "a":
                engine.first("a", seconds)
            else:
                there = Uploaded(request_id="b", endpoint="e", upload_bytes=200_000_000, seconds=seconds)
                engine.uploaded(there, seconds)
        found.append(left_s(engine, seconds + 0.5))
    assert found[0] == found[1] == pytest.approx(0.6, abs=0.01)


def test_a_prompt_is_begun_as_much_later_as_the_round_trip_turns_out_to_be_longer() -> None:
    engine = model(rtt_s=0.1)
    send(engine, "a", 0.0)
    assert left_s(engine, 0.6) == 0.5
    engine.probed(Probed(endpoint="e", up=True, rtt_s=0.4), 0.2)
    engine.probed(Probed(endpoint="e", up=True, rtt_s=0.4), 0.3)
    assert engine.network.rtt_s == pytest.approx(0.4)
    assert left_s(engine, 0.6) == 0.8


def test_a_cancelled_prefill_leaves_the_queue() -> None:
    engine = model()
    send(engine, "a", 0.0)
    send(engine, "b", 0.0)
    end(engine, "b", 0.2)
    assert left_s(engine, 0.2) == 0.8
    end(engine, "a", 0.4)
    assert left_s(engine, 0.4) == 0.0


def test_of_an_answer_in_one_piece_the_prompt_is_computed_when_it_should_be() -> None:
    engine = model(concurrency=8)
    for name in ("a", "b", "c"):
        send(engine, name, 0.0, stream=False)
    assert queue_s(engine, 1.5) == 1.5
    assert queue_s(engine, 2.5) == 0.5
    assert queue_s(engine, 9.0) == 0.0
    send(engine, "d", 9.0, stream=False)
    assert queue_s(engine, 9.0) == 1.0
    end(engine, "a", 9.2, Ending.OK)
    assert queue_s(engine, 9.2) == 0.8
    assert engine.prompts_done_s(9.2) == pytest.approx(10.0)


def test_behind_an_answer_in_one_piece_the_turn_of_a_prompt_comes_when_that_one_is_computed() -> None:
    engine = model()
    send(engine, "whole", 0.0, stream=False)
    send(engine, "streamed", 0.0)
    assert queue_s(engine, 1.5) == 0.5
    assert queue_s(engine, 11.0) == 2.0, "the streamed one has been waited for since 1.0"
    engine.first("streamed", 11.0)
    assert queue_s(engine, 11.0) == 0.0


def test_who_takes_an_engine_over_knows_which_prompts_are_taken_for_computed() -> None:
    engine = model()
    send(engine, "a", 0.0, stream=False)
    send(engine, "b", 5.0, stream=False)
    again = EndpointModel(engine.endpoint, 0.9, engine.state)
    assert queue_s(again, 5.0) == 1.0
    end(again, "b", 5.5, Ending.OK)
    assert queue_s(again, 5.5) == 0.0


def test_looking_changes_nothing_of_what_is_computed() -> None:
    engine = model()
    send(engine, "a", 0.0, stream=False)
    before = msgspec.json.encode(engine.state)
    queue_s(engine, 5.0)
    engine.prompts_done_s(5.0)
    assert msgspec.json.encode(engine.state) == before


def test_a_quick_engine_is_given_prompts_for_as_long_as_it_may_take_to_hear_of_it() -> None:
    quick = replace(PRIOR, overhead_s=0.001, prefill_s_per_token=0.001 / PROMPT_TOKENS)
    engine = EndpointModel(make.endpoint("e", concurrency=500, prior=quick), 0.9)
    count = 0
    while engine.prompts_done_s(0.0) <= engine.ahead_s:
        send(engine, f"r{count}", 0.0)
        count += 1
    assert 20 < count < 30, "of two milliseconds each"


def test_prompts_that_share_an_iteration_have_in_common_what_each_would_take_alone() -> None:
    engine = EndpointModel(make.endpoint("e", concurrency=64, prior=PRIOR), 0.9)
    for index in range(16):
        request = make.request(f"r{index}", prompt_tokens=PROMPT_TOKENS // 16)
        engine.started(make.started(request, "e"), engine.base(request, LENGTHS.at("chat", 100), 0.0), 0.0)
    assert left_s(engine, 0.0) == 1.0


def test_where_compute_is_not_shared_nobody_queues() -> None:
    engine = model(concurrency=64, shares_compute=False, owned=False)
    for index in range(20):
        send(engine, f"r{index}", 0.0)
    assert engine.base(make.request(), LENGTHS.at("chat", 100), 0.0).queue_s == 0.0


def test_a_request_that_has_to_wait_for_a_slot_is_not_told_to_queue_as_well() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    base = engine.base(make.request(prompt_tokens=PROMPT_TOKENS), LENGTHS.at("chat", 100), 0.0)
    assert base.queue_s == 0.0
    assert base.first_s == pytest.approx(1.0, rel=1e-3)


def test_slots_are_free_at_once_while_there_are_any() -> None:
    engine = model(concurrency=3)
    send(engine, "a", 0.0)
    now, soon, later = engine.slots_free_s(0.0, 3)
    assert (now, soon) == (0.0, 0.0)
    assert later > 1.0


def test_filled_beyond_its_slots_as_many_must_end_as_there_are_too_many() -> None:
    engine = model(concurrency=1)
    for index, at_s in enumerate((0.0, 5.0, 9.0)):
        send(engine, f"r{index}", at_s)
    least_s = [(begins_s(r, 9.0), ends_s(r, 9.0)) for r in engine.state.reservations.values()]
    assert engine.slots_free_s(9.0) == free_s(least_s, 9.0, 3)[-1:]
    assert engine.room == -2


def test_before_its_first_token_one_that_is_overdue_is_expected_to_need_a_fifth_of_its_age_more() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    assert engine.slots_free_s(1000.0)[0] == pytest.approx(1200.0, rel=1e-3)


def test_beyond_its_bound_an_output_is_slower_than_was_thought_and_needs_a_fifth_more_of_what_it_took() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    engine.first("a", 1.0)
    assert engine.slots_free_s(100.0)[0] == pytest.approx(1.0 + 1.2 * 99.0, rel=1e-3)


def test_an_answer_in_one_piece_frees_its_slot_as_soon_as_one_that_streams() -> None:
    whole, streamed = model(concurrency=1), model(concurrency=1)
    send(whole, "a", 0.0, stream=False)
    send(streamed, "a", 0.0)
    streamed.first("a", 1.0)
    assert whole.slots_free_s(1.5)[0] == pytest.approx(streamed.slots_free_s(1.5)[0], rel=0.05)


def test_what_has_streamed_tells_how_much_is_left() -> None:
    """Half of the outputs have 20 tokens, half of them 2,000: one that goes on after 50 is one of the long ones."""
    lengths, engine = LengthModel(), model(concurrency=1)
    for index in range(400):
        lengths.learn("chat", 20.0 if index % 2 else 2_000.0, 0.0)
    sent = make.request("a", prompt_bytes=0)
    engine.started(make.started(sent, "e"), engine.base(sent, lengths.at("chat", None), 0.0), 0.0)
    engine.first("a", 1.0)
    assert engine.slots_free_s(1.0)[0] == pytest.approx(1.0 + 10.1, rel=0.1)
    assert engine.slots_free_s(1.5)[0] == pytest.approx(1.0 + 20.0, rel=0.15)


def test_the_first_of_several_slots_is_free_before_any_of_them_is_expected_to_be() -> None:
    lengths, engine = LengthModel(), model(concurrency=4)
    for index in range(4):
        sent = make.request(f"r{index}", prompt_bytes=0)
        engine.started(make.started(sent, "e"), engine.base(sent, lengths.at("chat", None), 0.0), 0.0)
        engine.first(sent.id, 1.0)
    slots_s = engine.slots_free_s(1.0, 4)
    each_s = [sum(ends_s(r, 1.0)) / 3.0 for r in engine.state.reservations.values()]
    assert slots_s[0] < min(each_s)
    assert max(each_s) < slots_s[-1]
    assert sum(slots_s) == pytest.approx(sum(each_s), rel=0.1)


def test_ends_that_are_known_to_the_moment_are_when_slots_are_free() -> None:
    known = [(0.0, (at_s, at_s, at_s)) for at_s in (7.0, 3.0, 3.0, 11.0)]
    assert free_s(known, 0.0, 4) == pytest.approx([3.0, 3.0, 7.0, 11.0], abs=1e-5)
    assert free_s([], 5.0, 0) == []


def test_of_many_that_may_end_at_any_time_one_ends_as_much_sooner_as_they_are_many() -> None:
    """Each may end at any moment of twelve seconds: among 24 somebody does every half of a second."""
    anywhere = (2.0, 6.0, 10.0)
    slots_s = free_s([(0.0, anywhere)] * 24, 0.0, 24)
    assert slots_s == pytest.approx([0.25 + 0.5 * place for place in range(24)])


def test_no_slot_is_free_before_what_has_it_can_end() -> None:
    slots_s = free_s([(4.0, (4.5, 9.0, 30.0)), (6.0, (6.0, 7.0, 8.0))], 1.0, 2)
    assert slots_s == sorted(slots_s)
    assert slots_s[0] > 4.0


def test_what_older_software_expected_of_an_output_counts_as_its_mean() -> None:
    engine = model(concurrency=1)
    send(engine, "a", 0.0)
    sent = engine.state.reservations["a"]
    sent.ahead = ((3, 50), (9, 70), (40, 90))
    assert ends_s(sent, 0.0) == pytest.approx((sent.first_s_mean + sent.decode_s_mean,) * 3)


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


def test_what_was_predicted_and_asked_stands_where_it_belongs() -> None:
    """Of so many fields that are given by their places, each is what its name says."""
    engine, request = model(rtt_s=0.02), make.request("a", session="s", key="k", prompt_bytes=900, stream=False)
    fact = replace(
        make.started(request, "e"), said_tokens=3, target="t", shipped="e>f", completions=2, output_tokens_max=77
    )
    base = engine.base(request, LENGTHS.at("chat", 100), 5.0)
    base.trust, base.gain, base.stretch = 0.3, 0.4, 1.5
    base.cold_share, base.load_s, base.load_sigma = 0.8, 30.0, 0.1
    turns = Turns(0, 0, 1, 7)
    engine.started(fact, base, 5.0, turns, beginning=99)
    sent = engine.state.reservations["a"]
    asked = ("klass", "prompt_tokens", "output_tokens_max", "completions", "model", "key", "session")
    for name in (*asked, "said_tokens", "target", "shipped", "stream"):
        assert getattr(sent, name) == getattr(fact, name), name
    found = ("network_s", "warm_s_high", "e2e_s_high", "ttft", "tpot", "first_s_mean", "decode_s_mean", "load_s_mean")
    for name in (*found, "trust", "gain", "stretch", "load_s"):
        assert getattr(sent, name) == getattr(base, name), name
    assert (sent.started_s, sent.ttft_s, sent.ttft_s_high) == (5.0, base.first_s, base.first_s_high)
    assert (sent.turns, sent.beginning, sent.output_tokens_high) == (turns, 99, int(base.length.high_tokens))
    assert (sent.first_s, sent.corrected, sent.teaches, sent.sampled) == (None, False, True, True)
    assert (sent.was_cold, sent.rest, sent.raced, sent.hedge_usd, sent.computed) == (False, False, False, 0.0, False)
    assert sent.ahead == base.length.ahead()
    assert sent.given is not None
    assert sent.cold is not None
    assert sent.carried is not None
    assert sent.carried.upload_bytes == 900
