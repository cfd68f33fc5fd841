"""Feed a journal to the core: every decision in it must come out again."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

import msgspec

from tidegate.core import density
from tidegate.core.density import Density, Running
from tidegate.core.endpoint import EndpointModel
from tidegate.core.flips import Copy, Flip, first, flips
from tidegate.core.model import (
    JOURNAL_VERSION,
    Candidate,
    Decision,
    Ended,
    Held,
    Line,
    ModelFailed,
    Prefill,
    Record,
    Released,
    Request,
    Segment,
    Started,
    Wait,
    replace,
)
from tidegate.core.output import Length
from tidegate.core.revive import unfit
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.timeline import Stage, Timeline, beside
from tidegate.core.why import Why


class ReplayError(Exception):
    """The journal cannot be replayed; the message says why."""


class Difference(Record, frozen=True, kw_only=True):
    """A decision that came out otherwise.

    It stands in a segment that began at `since_s`, written by `software`. These `parts` of it differ. Where its first
    step does, `flips` are those on whose other side it would be as recorded.
    """

    at_s: float
    since_s: float
    software: str
    recorded: Decision
    replayed: Decision
    parts: tuple[str, ...]
    flips: tuple[Flip, ...] = ()


class Part(Record, frozen=True, kw_only=True):
    """What replay found in one segment, which began at `at_s`; see `Segment` for `follows`.

    `begun` is a digest of what it began with, and `ended` one of what it came to.
    """

    at_s: float
    follows: bool
    decisions: int
    observations: int
    difference: Difference | None
    begun: bytes
    ended: bytes


class Report(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What replay found; `difference` is the first one, None where every decision came out again.

    At `parted_s` a segment began, first of all, with something else than the one before it had come to, though it
    follows that one.
    """

    segments: int
    decisions: int
    observations: int
    difference: Difference | None = None
    parted_s: float | None = None


class Explained(Record, frozen=True, kw_only=True):
    """One decision with the candidates it chose from, and how dense their computing is; recomputed.

    Keeping the promise was worth `worth_usd`, which is `worth_share` of the most; None where no target moves it. Upper
    bounds of estimates hold with probability `quantile`.
    `flips` are the least that would have made it another one, None where nobody has looked for them. By its `prefills`
    the prompt could have been computed for one of ours. At the last decision of a request stand the `stages` of what
    became of it, and the `endings` of its attempts. Where it does not come out `again`, another one was recorded than
    what is recomputed here. Of one that was made without the model (`Why.MODEL_FAILED`) nothing is recomputed: it has
    no candidates.
    """

    at_s: float
    request: Request
    decision: Decision
    candidates: tuple[Candidate, ...]
    worth_usd: float
    quantile: float
    worth_share: float | None = None
    densities: tuple[Density, ...] = ()
    flips: tuple[Flip, ...] | None = None
    prefills: tuple[Candidate, ...] = ()
    stages: tuple[Stage, ...] = ()
    endings: tuple[Ended, ...] = ()
    again: bool = True


class Replay:
    """Feeds lines one by one; `router` is as it was after the last one, `requests` those not yet sent or refused.

    Where a fact was not taken in whole, the next line says so: the same software fails here, too, and knows as much
    after that as it did then. Another one may know more from there on, until the next segment begins with what was
    known.
    """

    def __init__(self) -> None:
        self.router: Router | None = None
        self.requests: dict[str, Request] = {}
        self._failure: Exception | None = None

    def feed(self, line: Line) -> Decision | None:
        """Take in one line. For a decision, what the core decides now; None for every other fact, and where not even
        the static rule could decide."""
        fact, now_s = line.fact, line.at_s
        failure, self._failure = self._failure, None
        if failure is not None and not isinstance(fact, ModelFailed):
            raise ReplayError(
                f"{type(failure).__name__} at a fact that was taken in when the journal was written; "
                "replay it with the software that wrote it"
            ) from failure
        if isinstance(fact, Segment):
            self._begin(fact)
            return None
        if isinstance(fact, Request):
            self.requests[fact.id] = fact
            return None
        if self.router is None:
            raise ReplayError("the journal does not begin with a segment header; give the whole segment file")
        if isinstance(fact, Decision):
            request = self.requests.get(fact.request_id)
            if request is None:
                raise ReplayError(f"decision about {fact.request_id}, whose request is not in the journal")
            if not fact.plan:
                self.requests.pop(fact.request_id)
            return None if fact.why is Why.MODEL_FAILED else self.router.decide(request, now_s)
        if isinstance(fact, Started | Released):
            self.requests.pop(fact.request_id, None)
        elif isinstance(fact, Held):
            self.requests[fact.request.id] = fact.request
        try:
            self.router.observe(fact, now_s)
        except Exception as error:
            # Of a failure that was not taken in whole no second one is told.
            self._failure = None if isinstance(fact, ModelFailed) else error
        return None

    def _begin(self, segment: Segment) -> None:
        if segment.version != JOURNAL_VERSION:
            raise ReplayError(
                f"journal format {segment.version}, this is {JOURNAL_VERSION}: "
                f"replay it with the software that wrote it ({segment.software})"
            )
        try:
            state = msgspec.json.decode(segment.state, type=State)
        except msgspec.DecodeError as error:
            raise ReplayError(
                f"the state in the segment header does not fit this software: {error}; "
                f"replay it with the software that wrote it ({segment.software})"
            ) from error
        if wrong := unfit(state):
            raise ReplayError(
                f"the state in the segment header does not fit this software: {wrong}; "
                f"replay it with the software that wrote it ({segment.software})"
            )
        self.router = Router(segment.endpoints, segment.policy, state)
        # What was read but not yet decided before this segment is decided in it.
        self.requests |= state.held


def replay(lines: Iterable[Line]) -> Report:
    """Reproduce every decision of a journal and report the first that differs."""
    return summed(parts(lines))


def parts(lines: Iterable[Line], requests: Mapping[str, Request] | None = None) -> Iterator[Part]:
    """What replay finds in each segment, as soon as it is over; `requests` were read before, and not decided."""
    core, counts = Replay(), _Counts()
    core.requests |= requests or {}
    for line in lines:
        if isinstance(line.fact, Segment) and counts.segment is not None:
            yield counts.part(core)
        counts.take(core, line)
    if counts.segment is not None:
        yield counts.part(core)


def undecided(lines: Iterable[Line]) -> dict[str, Request]:
    """The requests that were read, and not decided yet when the lines end."""
    found: dict[str, Request] = {}
    for line in lines:
        if isinstance(line.fact, Request):
            found[line.fact.id] = line.fact
        elif isinstance(line.fact, Decision):
            found.pop(line.fact.request_id, None)
    return found


def summed(found: Iterable[Part]) -> Report:
    """All of them, in their order."""
    segments = decisions = observations = 0
    difference: Difference | None = None
    parted_s: float | None = None
    before = b""
    for one in found:
        segments, decisions, observations = segments + 1, decisions + one.decisions, observations + one.observations
        difference = difference or one.difference
        if one.follows and before and one.begun != before and parted_s is None:
            parted_s = one.at_s
        before = one.ended
    return Report(
        segments=segments,
        decisions=decisions,
        observations=observations,
        difference=difference,
        parted_s=parted_s,
    )


class _Counts:
    """What was found in the segment that is being replayed."""

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self._since_s = 0.0
        self._decisions = self._observations = 0
        self._difference: Difference | None = None

    def take(self, core: Replay, line: Line) -> None:
        fact = line.fact
        request = core.requests.get(fact.request_id) if isinstance(fact, Decision) else None
        decided = core.feed(line)
        if isinstance(fact, Segment):
            self.segment, self._since_s = fact, line.at_s
            self._decisions = self._observations = 0
            self._difference = None
        elif isinstance(fact, Decision):
            self._decisions += 1
            if decided is not None and decided != fact and self._difference is None:
                self._difference = self._differs(core, request, fact, decided, line.at_s)
        elif not isinstance(fact, Request):
            self._observations += 1

    def part(self, core: Replay) -> Part:
        """It is over."""
        segment = self.segment
        assert segment is not None
        assert core.router is not None
        return Part(
            decisions=self._decisions,
            observations=self._observations,
            difference=self._difference,
            begun=_digest(segment.state),
            ended=_digest(core.router.snapshot()),
            follows=segment.follows,
            at_s=self._since_s,
        )

    def _differs(
        self, core: Replay, request: Request | None, recorded: Decision, replayed: Decision, at_s: float
    ) -> Difference:
        assert core.router is not None
        assert self.segment is not None
        nearest: tuple[Flip, ...] = ()
        if request is not None and first(recorded) != first(replayed):
            wanted = first(recorded)
            found = flips(Copy(core.router), request, at_s)
            nearest = tuple(one for one in found if (one.goes_to, one.waits) == wanted)
        return Difference(
            at_s=at_s,
            since_s=self._since_s,
            software=self.segment.software,
            recorded=recorded,
            replayed=replayed,
            parts=_parts(recorded, replayed),
            flips=nearest,
        )


def _parts(recorded: Decision, replayed: Decision) -> tuple[str, ...]:
    """What of a decision differs, in the words of people."""
    names = [[step.endpoint for step in one.plan] for one in (recorded, replayed)]
    differs = {
        "first step": first(recorded) != first(replayed),
        "later steps": names[0][1:] != names[1][1:],
        "times": names[0] == names[1] and recorded.plan != replayed.plan and first(recorded) == first(replayed),
        "reason": recorded.why != replayed.why,
        "propensity": recorded.propensity != replayed.propensity,
        "time to come back": recorded.retry_after_s != replayed.retry_after_s,
    }
    return tuple(name for name, otherwise in differs.items() if otherwise)


def _digest(state: msgspec.Raw) -> bytes:
    return blake2b(state, digest_size=16).digest()


def explain(
    lines: Iterable[Line],
    request_id: str,
    decisions: int | None = None,
    *,
    before: Iterable[Line] = (),
    after: Iterable[Line] = (),
) -> list[Explained]:
    """Every decision about one request, each with its candidates as they stood then.

    The first and the last of them with what would have made it another: who waits is decided many times. There are so
    many `decisions` of the model about it; None where they are to be counted, for which all lines are kept. What became
    of it may have begun `before` these lines of its run, and end `after` them: of these so many are read as it takes.
    """
    if decisions is None:
        lines = list(lines)
        decisions = sum(is_of_the_model(line) for line in lines if is_about(line, request_id))
    core, found, timeline = Replay(), list[Explained](), Timeline(request_id)
    for line in before:
        timeline.feed(line)
        if isinstance(line.fact, Request) and line.fact.id == request_id:
            core.requests[request_id] = line.fact
    for line in lines:
        request = core.requests.get(request_id)
        if request is not None:
            timeline.arrived(request.arrived_s)
        timeline.feed(line)
        about = is_about(line, request_id)
        if isinstance(line.fact, Decision) and not about:
            # What sent nothing taught nothing, and need not be made again; what was asked for before these lines, and
            # before those that were read of it, cannot be.
            if not line.fact.plan:
                core.requests.pop(line.fact.request_id, None)
            if not _sends(line.fact) or line.fact.request_id not in core.requests:
                continue
        decided = core.feed(line)
        if request is None or not about:
            continue
        assert core.router is not None
        assert isinstance(line.fact, Decision)
        if decided is None:
            found.append(_undecided(core.router, request, line.fact, line.at_s))
            continue
        decisions -= 1
        one = replace(explained(core.router, request, line.fact, line.at_s), again=decided == line.fact)
        found.append(with_flips(one, Copy(core.router)) if not found or not decisions else one)
    for line in after:
        if not timeline.goes_on:
            break
        timeline.feed(line)
    if found:
        handed = [chosen for chosen in map(handover_of, found) if chosen is not None]
        stages = beside(timeline.stages, handed[-1]) if handed else tuple(timeline.stages)
        found[-1] = replace(found[-1], stages=stages, endings=tuple(timeline.endings))
    return found


def _sends(decision: Decision) -> bool:
    """Whether an attempt began by it at once."""
    return bool(decision.plan) and not isinstance(decision.plan[0], Wait)


def handover_of(one: Explained) -> Candidate | None:
    """The handover that it was decided for; None where it was for something else."""
    step = one.decision.plan[0] if one.decision.plan else None
    if not isinstance(step, Prefill):
        return None
    return next((c for c in one.prefills if (c.endpoint, c.target) == (step.endpoint, step.target)), None)


def is_about(line: Line, request_id: str) -> bool:
    """Whether it is a decision about this request."""
    return isinstance(line.fact, Decision) and line.fact.request_id == request_id


def is_of_the_model(line: Line) -> bool:
    """Whether it is a decision that the model has made, or the static rule, so that it can be made again."""
    return isinstance(line.fact, Decision) and line.fact.why is not Why.MODEL_FAILED


def with_flips(one: Explained, copy: Copy) -> Explained:
    """The same with what would have made it another; `copy` knows what was known when it was decided. What leads where
    it went is none of that: it went there by chance, and would go elsewhere without."""
    went, found = first(one.decision), flips(copy, one.request, one.at_s)
    return replace(one, flips=tuple([flip for flip in found if (flip.goes_to, flip.waits) != went]))


def _undecided(router: Router, request: Request, decision: Decision, at_s: float) -> Explained:
    """A decision that nobody has made: what failed then may fail again."""
    return Explained(
        at_s=at_s,
        request=request,
        decision=decision,
        candidates=(),
        worth_usd=0.0,
        quantile=router.policy.quantile,
    )


def explained(router: Router, request: Request, decision: Decision, at_s: float) -> Explained:
    """A decision about a request with the candidates as this router sees them at `at_s`."""
    candidates = tuple(router.candidates(request, at_s))
    running = [_running(router.endpoint(one.endpoint), one, request, at_s) for one in candidates]
    return Explained(
        at_s=at_s,
        request=request,
        decision=decision,
        candidates=candidates,
        worth_usd=router.worth_usd(request, at_s),
        quantile=router.policy.quantile,
        worth_share=None if request.attainment is None else router.worth_share(request.klass, at_s),
        densities=density.densities(request, candidates, running),
        prefills=tuple(router.prefills(request, at_s)),
    )


def _running(model: EndpointModel, candidate: Candidate, request: Request, at_s: float) -> Running:
    reservations = model.state.reservations.values()
    output_tokens = 0.0 if candidate.estimate is None else candidate.estimate.output_tokens
    length = Length(output_tokens, output_tokens, output_tokens, sigma=0.0)
    return Running(
        endpoint=model.endpoint,
        fingerprint=model.identity.fingerprint,
        prefill_s=model.base(request, length, at_s).prefill_s,
        load=len(reservations),
        context_tokens=sum(one.prompt_tokens for one in reservations),
    )
