"""What became of each request, read from the journal as an operator would."""

from collections.abc import Iterable
from statistics import median

from tidegate.core.model import (
    Candidate,
    Decision,
    Ended,
    Ending,
    Line,
    Prefill,
    Price,
    Record,
    Run,
    Segment,
    Started,
)
from tidegate.core.replay import Explained, Replay, handover_of
from tidegate.core.timeline import Stage, Timeline, beside


class Trip(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One request: where it went and why, predicted and measured. TTFT counts from its arrival.

    Where it was decided that its prompt be `prefilled` at another endpoint, `stages` are what became of it.
    """

    id: str
    title: str = ""
    endpoint: str | None
    why: str
    held_s: float
    predicted_ttft_s: float | None
    measured_ttft_s: float | None
    prompt_tokens: int | None
    output_tokens: int | None
    cost_usd: float
    others: tuple[Candidate, ...]
    prefilled: str = ""
    stages: tuple[Stage, ...] = ()

    @property
    def handed_over(self) -> bool:
        """Whether its prompt came from where it was prefilled, and nothing failed on the way."""
        return bool(self.stages) and all(stage.is_whole for stage in self.stages)

    @property
    def error(self) -> float | None:
        """How far the prediction of TTFT was off, relative to what was measured."""
        if self.predicted_ttft_s is None or not self.measured_ttft_s:
            return None
        return abs(self.predicted_ttft_s - self.measured_ttft_s) / self.measured_ttft_s


class _Story:
    """The facts of one request as they come."""

    def __init__(self) -> None:
        self.explained: list[Explained] = []
        self.sent_s: dict[str, float] = {}
        self.ended: list[Ended] = []
        # Where its prompt alone was computed.
        self.elsewhere: set[str] = set()
        self.stages: tuple[Stage, ...] = ()


def trips(lines: Iterable[Line]) -> dict[str, Trip]:
    """Every request in a journal that was sent somewhere, by decision id."""
    lines = list(lines)
    core = Replay()
    stories: dict[str, _Story] = {}
    prices: dict[str, Price] = {}
    for line in lines:
        fact = line.fact
        decided = core.feed(line)
        if isinstance(fact, Segment):
            prices = {e.name: e.price for e in fact.endpoints}
        elif isinstance(fact, Decision) and decided is not None and core.router is not None:
            request = core.requests[fact.request_id]
            candidates = tuple(core.router.candidates(request, line.at_s))
            worth_usd = core.router.worth_usd(request, line.at_s)
            found = Explained(
                at_s=line.at_s,
                request=request,
                decision=fact,
                candidates=candidates,
                worth_usd=worth_usd,
                quantile=core.router.policy.quantile,
                prefills=tuple(core.router.prefills(request, line.at_s)),
            )
            stories.setdefault(fact.request_id, _Story()).explained.append(found)
        elif isinstance(fact, Started):
            story = stories[fact.request_id]
            story.sent_s[fact.endpoint] = line.at_s
            if fact.target:
                story.elsewhere.add(fact.endpoint)
        elif isinstance(fact, Ended):
            stories[fact.request_id].ended.append(fact)
    for request_id, story in stories.items():
        if story.elsewhere:
            timeline = Timeline(request_id)
            for line in lines:
                timeline.feed(line)
            story.stages = tuple(timeline.stages)
    return {i: _trip(i, story, prices) for i, story in stories.items()}


def _trip(request_id: str, story: _Story, prices: dict[str, Price]) -> Trip:
    # What it was handed over for says more than what was decided once its prompt had come.
    handed = [one for one in story.explained if one.decision.plan and isinstance(one.decision.plan[0], Prefill)]
    last = handed[-1] if handed else story.explained[-1]
    arrived_s = last.request.arrived_s
    served = next((e for e in story.ended if e.ending is Ending.OK and e.endpoint not in story.elsewhere), None)
    endpoint = served.endpoint if served is not None else None
    step = last.decision.plan[0] if last.decision.plan else None
    chosen = next((c for c in last.candidates if isinstance(step, Run) and c.endpoint == step.endpoint), None)
    handover = handover_of(last)
    chosen = handover or chosen
    predicted_s = measured_s = None
    if chosen is not None and chosen.estimate is not None:
        # What it would take from here on, and the time that had passed.
        predicted_s = last.at_s - arrived_s + chosen.estimate.ttft_s - chosen.estimate.wait_s
    if served is not None and served.ttft_s is not None:
        measured_s = story.sent_s[served.endpoint] - arrived_s + served.ttft_s
    return Trip(
        id=request_id,
        endpoint=endpoint,
        why=last.decision.why.value,
        held_s=last.at_s - arrived_s if last is not story.explained[0] else 0.0,
        predicted_ttft_s=predicted_s,
        measured_ttft_s=measured_s,
        prompt_tokens=served.prompt_tokens if served else None,
        output_tokens=served.output_tokens if served else None,
        cost_usd=sum(_usd(prices[e.endpoint], e) for e in story.ended),
        others=tuple(c for c in story.explained[0].candidates if handover is not None or c.endpoint != endpoint),
        prefilled="" if handover is None else handover.endpoint,
        stages=story.stages if handover is None else beside(story.stages, handover),
    )


def _usd(price: Price, ended: Ended) -> float:
    return price.usd(ended.prompt_tokens or 0, ended.output_tokens or 0, ended.cached_tokens or 0)


def lost(title: str) -> Trip:
    """A request that was not served."""
    return Trip(
        id="",
        title=title,
        endpoint=None,
        why="",
        held_s=0.0,
        predicted_ttft_s=None,
        measured_ttft_s=None,
        prompt_tokens=None,
        output_tokens=None,
        cost_usd=0.0,
        others=(),
    )


def median_error(found: Iterable[Trip]) -> tuple[float, int]:
    """Median absolute relative error of predicted TTFT, and over how many requests."""
    errors = [t.error for t in found if t.error is not None]
    return (median(errors) if errors else float("nan")), len(errors)
