"""What was predicted when an attempt was sent, beside what came of it."""

import msgspec
import pytest

from tests import make
from tests.core.test_fallback import spoil
from tests.properties.storm import Storm
from tidegate.core.hindsight import Compared, Hindsight
from tidegate.core.model import (
    JOURNAL_VERSION,
    Ended,
    Ending,
    Endpoint,
    Fact,
    Line,
    ModelFailed,
    Price,
    Segment,
    Started,
)
from tidegate.core.router import Router


def compared(lines: list[Line]) -> list[Compared]:
    hindsight = Hindsight()
    return [one for line in lines if (one := hindsight.feed(line)) is not None]


class Journal:
    """A router and the journal of what it is told, each fact a tenth of a second after the one before."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints, self.lines, self.now_s = endpoints, list[Line](), 0.0
        self.router = Router(endpoints, make.policy())
        self.cut()

    def cut(self, state: bytes | None = None) -> None:
        """A new segment begins, with what was learned, or with this."""
        segment = Segment(
            version=JOURNAL_VERSION,
            software="test",
            policy=make.policy(),
            endpoints=self.endpoints,
            state=self.router.snapshot() if state is None else msgspec.Raw(state),
        )
        self.lines.append(Line(at_s=self.now_s, fact=segment))

    def tell(self, *facts: Fact) -> "Journal":
        for fact in facts:
            self.now_s += 0.1
            self.lines.append(Line(at_s=self.now_s, fact=fact))
            self.router.observe(fact, self.now_s)  # type: ignore[arg-type]
        return self


def ended(request_id: str, ending: Ending = Ending.OK, cached_tokens: int | None = None) -> Ended:
    return make.ended(
        request_id,
        "laptop",
        ending=ending,
        ttft_s=0.4,
        output_tokens=13,
        prompt_tokens=210,
        cached_tokens=cached_tokens,
    )


@pytest.mark.parametrize("seed", range(4))
def test_what_is_compared_is_what_the_router_reserved_by(seed: int) -> None:
    storm = Storm(seed).run(300)
    hindsight, reserved, seen = Hindsight(), dict[tuple[str, str], tuple[float, float]](), 0
    for line in storm.lines:
        one = hindsight.feed(line)
        if isinstance(line.fact, Started):
            assert hindsight.replay.router is not None
            sent = hindsight.replay.router.endpoint(line.fact.endpoint).state.reservations[line.fact.request_id]
            reserved[line.fact.endpoint, line.fact.request_id] = sent.ttft_s, sent.ttft_s_high
        if one is not None:
            seen += 1
            key = one.endpoint.name, one.ended.request_id
            assert (one.predicted.ttft_s, one.predicted.ttft_s_high) == reserved[key]
    assert seen > 20
    assert hindsight.otherwise == 0


@pytest.mark.parametrize("seed", range(4))
def test_where_a_segment_begins_makes_no_difference(seed: int) -> None:
    whole, cut = Storm(seed), Storm(seed)
    for _ in range(6):
        whole.run(40)
        cut.run(40).cut()
    found = [(c.sent_s, c.endpoint.name, c.predicted, c.ended) for c in compared(whole.lines)]
    assert found == [(c.sent_s, c.endpoint.name, c.predicted, c.ended) for c in compared(cut.lines)]


def test_an_attempt_that_died_with_its_process_is_not_compared_with_another_of_its_name() -> None:
    journal = Journal(make.endpoint("laptop"))
    request = make.request("r")
    journal.tell(make.started(request, "laptop")).cut(b"{}")
    assert compared([*journal.lines, Line(at_s=9.0, fact=ended("r"))]) == []


def test_an_attempt_that_was_sent_before_the_journal_begins_is_not_compared() -> None:
    journal = Journal(make.endpoint("laptop"))
    journal.tell(make.started(make.request("r"), "laptop")).cut()
    assert compared([*journal.lines[2:], Line(at_s=9.0, fact=ended("r"))]) == []


def test_an_endpoint_that_was_taken_out_is_not_compared() -> None:
    journal = Journal(make.endpoint("laptop"), make.endpoint("desk"))
    journal.tell(make.started(make.request("r"), "laptop"))
    journal.endpoints = (make.endpoint("desk"),)
    journal.router = Router(journal.endpoints, make.policy())
    journal.cut()
    assert compared([*journal.lines, Line(at_s=9.0, fact=ended("r"))]) == []


def test_an_attempt_at_which_the_model_failed_is_not_compared_and_the_journal_is_read_on() -> None:
    journal = Journal(make.endpoint("laptop"), make.endpoint("desk"))
    journal.tell(make.started(make.request("taught"), "laptop"), ended("taught"))
    spoil(journal.router, "laptop")
    journal.cut()
    failed = ModelFailed(during="started", error="IndexError at regression.py:1")
    lost, other = make.request("lost"), make.request("other")
    told = (
        make.started(lost, "laptop"),
        failed,
        ended("lost"),
        make.started(other, "desk"),
        make.ended("other", "desk"),
    )
    lines = [*journal.lines, *(Line(at_s=9.0, fact=fact) for fact in told)]
    assert [one.ended.request_id for one in compared(lines)] == ["taught", "other"]


def test_what_was_measured_is_told_where_it_is_a_sample() -> None:
    price = Price(usd_per_input_token=1e-6, usd_per_output_token=2e-6, usd_per_cached_token=0.0)
    journal = Journal(make.endpoint("laptop", price=price, usd_per_s=0.01, concurrency=2))
    for number, end in enumerate(
        (
            ended("r0", cached_tokens=110),
            ended("r1", ending=Ending.FAILED),
            make.ended("r2", "laptop", ttft_s=0.4, output_tokens=3),
            make.ended("r3", "laptop", ending=Ending.CANCELLED),
        )
    ):
        journal.tell(make.started(make.request(f"r{number}"), "laptop"), end)
    whole, failed, short, silent = compared(journal.lines)
    assert whole.ttft_s == 0.4
    assert whole.tpot_s == pytest.approx(0.05)
    assert whole.cost_usd == pytest.approx(100e-6 + 26e-6 + 0.005)
    assert whole.predicted.cost_usd > 0.0
    assert failed.tpot_s is None
    assert failed.cost_usd is None
    assert short.tpot_s is None
    assert short.cost_usd is None, "how many tokens were computed is not known"
    assert silent.ttft_s is None


def test_a_decision_that_comes_out_otherwise_is_counted() -> None:
    lines = Storm(3).run(200).lines
    without = [line for line in lines[1:] if not isinstance(line.fact, Segment | Started)]
    hindsight = Hindsight()
    for line in [lines[0], *without]:
        hindsight.feed(line)
    assert hindsight.otherwise > 0
