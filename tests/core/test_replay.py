"""A journal replays, or says exactly why not."""

import msgspec
import pytest

from tests import make
from tests.properties.storm import Storm
from tidegate.core.model import (
    JOURNAL_VERSION,
    Candidate,
    Decision,
    Held,
    Line,
    Observation,
    Request,
    Segment,
    Started,
    Wait,
    replace,
)
from tidegate.core.replay import Replay, ReplayError, explain, explained, replay
from tidegate.core.state import State
from tidegate.core.why import Why


def starts(lines: list[Line]) -> list[int]:
    return [index for index, line in enumerate(lines) if isinstance(line.fact, Segment)]


def written(lines: list[Line]) -> list[Line]:
    """As a file gives it back."""
    return [msgspec.json.decode(msgspec.json.encode(line), type=Line) for line in lines]


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", range(12))
def test_a_journal_replays_without_difference(seed: int) -> None:
    lines = written(Storm(seed).run(250).lines)
    report = replay(lines)
    assert report.difference is None
    assert report.decisions == sum(isinstance(line.fact, Decision) for line in lines)
    assert report.segments == len(starts(lines))
    assert report.observations + report.decisions + report.segments + sum(
        isinstance(line.fact, Request) for line in lines
    ) == len(lines)


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", range(6))
def test_it_replays_from_any_of_its_segments(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(10):
        storm.run(25).cut()
    lines = written(storm.lines)
    for index in starts(lines):
        assert replay(lines[index:]).difference is None


def test_a_segment_may_begin_between_a_request_and_its_decision() -> None:
    router = make.router()
    request = make.request("r")
    state = router.snapshot()
    segment = Segment(
        version=JOURNAL_VERSION,
        software="test",
        policy=make.policy(),
        endpoints=(make.endpoint("laptop"), make.endpoint("cloud", local=False)),
        state=state,
    )
    facts = (segment, request, segment, router.decide(request, 0.0))
    assert replay(Line(at_s=0.0, fact=fact) for fact in facts).difference is None


def test_the_first_decision_that_differs_is_reported() -> None:
    lines = Storm(3).run(200).lines
    decided = [i for i, line in enumerate(lines) if isinstance(line.fact, Decision)]
    for index in (decided[5], decided[9]):
        fact = lines[index].fact
        assert isinstance(fact, Decision)
        other = Why.BUSY if fact.why is not Why.BUSY else Why.DOWN
        lines[index] = replace(lines[index], fact=replace(fact, why=other))
    difference = replay(lines).difference
    assert difference is not None
    assert difference.recorded == lines[decided[5]].fact
    assert difference.replayed != difference.recorded
    assert difference.at_s == lines[decided[5]].at_s


def test_a_wait_that_was_tampered_into_a_refusal_is_a_difference_and_not_the_end() -> None:
    lines = Storm(1).run(200).lines
    index, fact = next(
        (i, line.fact)
        for i, line in enumerate(lines)
        if isinstance(line.fact, Decision) and line.fact.plan and isinstance(line.fact.plan[0], Wait)
    )
    lines[index] = replace(lines[index], fact=replace(fact, plan=()))
    difference = replay(lines).difference
    assert difference is not None
    assert difference.recorded == lines[index].fact


def test_facts_that_were_left_out_show_in_the_decisions() -> None:
    lines = Storm(2).run(200).lines
    kept = [line for line in lines[1:] if not isinstance(line.fact, Segment | Started)]
    assert replay([lines[0], *kept]).difference is not None


def test_another_version_is_refused_with_its_reason() -> None:
    line = Storm(0).lines[0]
    assert isinstance(line.fact, Segment)
    other = replace(line, fact=replace(line.fact, version=99, software="tidegate 9.9"))
    with pytest.raises(ReplayError, match=rf"journal format 99, this is {JOURNAL_VERSION}: .*tidegate 9\.9"):
        replay([other])


def test_a_state_of_another_shape_is_refused_with_its_reason() -> None:
    line = Storm(0).lines[0]
    assert isinstance(line.fact, Segment)
    other = replace(line, fact=replace(line.fact, state=msgspec.Raw(b'{"endpoints": 7}')))
    with pytest.raises(ReplayError, match="state in the segment header"):
        replay([other])


def test_a_state_that_another_software_has_learned_is_refused_with_what_is_wrong() -> None:
    lines = Storm(0).run(250).lines
    line = lines[starts(lines)[-1]]
    assert isinstance(line.fact, Segment)
    state = msgspec.json.decode(line.fact.state, type=State)
    learned = next(iter(state.endpoints.values())).ttft
    assert learned is not None
    learned.cells.pop()
    other = replace(line, fact=replace(line.fact, state=msgspec.Raw(msgspec.json.encode(state))))
    with pytest.raises(ReplayError, match=r"does not fit this software: .*`ttft` has 14 cells, not 15"):
        replay([other])


def test_a_journal_without_its_header_is_refused() -> None:
    lines = Storm(0).run(5).lines
    fact: Observation = Held(request=make.request())
    with pytest.raises(ReplayError, match="segment header"):
        replay([Line(at_s=0.0, fact=fact), *lines])


def test_a_decision_about_an_unknown_request_is_refused() -> None:
    lines = Storm(0).run(30).lines
    with pytest.raises(ReplayError, match="not in the journal"):
        replay(line for line in lines if not isinstance(line.fact, Request))


@pytest.mark.lengthy
def test_explain_tells_each_decision_of_a_request_with_its_candidates() -> None:
    lines = Storm(1).run(200).lines
    waited = [line.fact.request.id for line in lines if isinstance(line.fact, Held)]
    held, found = next((name, found) for name in waited if len(found := explain(lines, name)) >= 2)
    assert [one.decision for one in found] == [
        line.fact for line in lines if isinstance(line.fact, Decision) and line.fact.request_id == held
    ]
    assert all(len(one.candidates) == 5 and one.request.id == held for one in found)
    # Who waits is decided many times; what would have made it another is told of the first and the last.
    assert [one.flips is not None for one in found] == [number in (0, len(found) - 1) for number in range(len(found))]
    assert explain(iter(lines), held, len(found)) == found


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", [0, 7, 14])
def test_explain_knows_what_a_whole_replay_does(seed: int) -> None:
    """Most decisions of others are not made again for it."""
    lines, core, known = Storm(seed).run(200).lines, Replay(), dict[str, list[tuple[Candidate, ...]]]()
    for line in lines:
        request = core.requests.get(line.fact.request_id) if isinstance(line.fact, Decision) else None
        core.feed(line)
        if request is not None and core.router is not None and isinstance(line.fact, Decision):
            told = explained(core.router, request, line.fact, line.at_s)
            known.setdefault(request.id, []).append(told.candidates)
    assert len(known) > 20
    for request_id in list(known)[-8:]:
        assert [one.candidates for one in explain(lines, request_id)] == known[request_id]


def test_where_nobody_could_decide_there_are_no_candidates_and_the_last_decision_before_has_its_flips() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    router.observe(make.started(make.request("other"), "laptop"), 0.0)
    request = make.request("r")
    head = Segment(
        version=JOURNAL_VERSION, software="t", policy=router.policy, endpoints=router.endpoints, state=router.snapshot()
    )
    waits = router.decide(request, 0.0)
    assert isinstance(waits.plan[0], Wait)
    router.observe(Held(request=request), 0.0)
    refused = Decision(request_id="r", plan=(), why=Why.MODEL_FAILED, retry_after_s=1.0)
    told = ((0.0, head), (0.0, request), (0.0, waits), (0.0, Held(request=request)))
    more = ((1.0, router.decide(request, 1.0)), (2.0, router.decide(request, 2.0)), (3.0, refused))
    found = explain([Line(at_s=at_s, fact=fact) for at_s, fact in (*told, *more)], "r")
    assert [one.decision.why is Why.MODEL_FAILED for one in found] == [False, False, False, True]
    assert [bool(one.candidates) for one in found] == [True, True, True, False]
    assert [one.flips is not None for one in found] == [True, False, True, False]


@pytest.mark.lengthy
def test_a_decision_that_was_tampered_with_does_not_come_out_again() -> None:
    lines = Storm(3).run(200).lines
    asked = [line.fact.request_id for line in lines if isinstance(line.fact, Decision)]
    assert all(one.again for one in explain(lines, asked[5]))
    other = [
        replace(line, fact=replace(line.fact, retry_after_s=77.0))
        if isinstance(line.fact, Decision) and line.fact.request_id == asked[5]
        else line
        for line in lines
    ]
    assert not any(one.again for one in explain(other, asked[5]))
