"""What became of each request, as the demo reads it from a journal."""

from dataclasses import dataclass, field

from tests.core.test_handover import long, pair
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ended,
    Ending,
    Fact,
    FirstToken,
    Line,
    Prefill,
    Request,
    Run,
    Segment,
    Shipped,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.sending import started
from tidegate.core.timeline import What
from tidegate.lab.trip import Trip, trips

USD_IN, USD_OUT = 1e-8, 1e-4


@dataclass
class Written:
    """A journal as it is written beside a router."""

    router: Router = field(default_factory=pair)
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        router = self.router
        segment = Segment(
            version=JOURNAL_VERSION,
            software="",
            policy=router.policy,
            endpoints=router.endpoints,
            state=router.snapshot(),
        )
        self.lines.append(Line(at_s=0.0, fact=segment))

    def decide(self, request: Request, at_s: float) -> Decision:
        decision = self.router.decide(request, at_s)
        self.lines += [Line(at_s=at_s, fact=request), Line(at_s=at_s, fact=decision)]
        return decision

    def tell(self, fact: Fact, at_s: float) -> None:
        self.router.observe(fact, at_s)  # type: ignore[arg-type]
        self.lines.append(Line(at_s=at_s, fact=fact))


def handed_over(*, arrives: bool) -> Trip:
    """A prompt computed at the rack in a second, and decoded at home."""
    journal, request = Written(), long()
    decision = journal.decide(request, 0.0)
    assert isinstance(decision.plan[0], Prefill)
    name, tokens = request.id, request.prompt_tokens
    journal.tell(started(request, "rack", target="laptop"), 0.0)
    journal.tell(FirstToken(request_id=name, endpoint="rack", ttft_s=1.0), 1.0)
    ended = Ended(request_id=name, endpoint="rack", ending=Ending.OK, e2e_s=1.0, ttft_s=1.0)
    journal.tell(replace(ended, prompt_tokens=tokens, output_tokens=1), 1.0)
    size = 20_000 * tokens if arrives else 0
    shipped = Shipped(request_id=name, endpoint="rack", target="laptop", ok=arrives, cause="" if arrives else "peer")
    journal.tell(replace(shipped, kv_bytes=size, left_bytes=size, seconds=4.0), 5.0)
    here = replace(request, shipped="rack>laptop") if arrives else request
    if arrives:
        again = journal.decide(here, 5.0)
        assert isinstance(again.plan[0], Run)
    journal.tell(started(here, "laptop"), 5.0)
    first_s = 0.1 if arrives else 20.0
    journal.tell(FirstToken(request_id=name, endpoint="laptop", ttft_s=first_s), 5.0 + first_s)
    ended = Ended(request_id=name, endpoint="laptop", ending=Ending.OK, e2e_s=first_s + 3.0, ttft_s=first_s)
    journal.tell(replace(ended, prompt_tokens=tokens, output_tokens=30), 8.0 + first_s)
    return trips(journal.lines)[name]


def test_a_prompt_that_was_handed_over_is_told_by_stages_each_beside_what_was_predicted() -> None:
    trip = handed_over(arrives=True)
    assert (trip.prefilled, trip.endpoint, trip.handed_over) == ("rack", "laptop", True)
    assert [stage.what for stage in trip.stages] == [What.PREFILL, What.TRANSFER, What.RESTORE, What.DECODE]
    assert [round(stage.took_s, 6) for stage in trip.stages] == [1.0, 4.0, 0.1, 3.0]
    predicted_s = [stage.predicted_s for stage in trip.stages]
    assert None not in predicted_s
    assert trip.predicted_ttft_s is not None
    assert abs(sum(s or 0.0 for s in predicted_s[:3]) - trip.predicted_ttft_s) < 1e-9
    assert trip.measured_ttft_s is not None
    assert abs(trip.measured_ttft_s - 5.1) < 1e-9


def test_it_costs_the_prompt_and_one_token_of_who_computed_it() -> None:
    trip = handed_over(arrives=True)
    assert abs(trip.cost_usd - 4_000 * USD_IN - USD_OUT) < 1e-12
    assert trip.output_tokens == 30, "those of who decoded"


def test_running_whole_on_either_side_is_what_else_could_have_been_done() -> None:
    assert [other.endpoint for other in handed_over(arrives=True).others] == ["laptop", "rack"]


def test_a_way_that_failed_is_told_so() -> None:
    trip = handed_over(arrives=False)
    assert (trip.prefilled, trip.endpoint, trip.handed_over) == ("rack", "laptop", False)
    assert [(stage.what, stage.failed) for stage in trip.stages] == [
        (What.PREFILL, False),
        (What.TRANSFER, True),
        (What.PREFILL, False),
        (What.DECODE, False),
    ]
