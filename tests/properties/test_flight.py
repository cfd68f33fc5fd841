"""Whatever is told to a flight, in any order: one winner, nothing after landing, every call accounted for."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidegate.core.actions import (
    Action,
    Call,
    Cancel,
    Compute,
    Decide,
    Finish,
    GiveUp,
    Hold,
    Relay,
    Resume,
    Timer,
)
from tidegate.core.flight import ATTEMPTS_MAX, RESUMES_MAX, Flight, State
from tidegate.core.model import Prefill, Run, Step, Wait

ENDPOINTS = ("a", "b", "c")


@st.composite
def plans(draw: st.DrawFn) -> tuple[Step, ...]:
    """Attempts, some at the prompt alone, and at the end of some a wait for an endpoint that is merely full."""
    names = draw(st.permutations(ENDPOINTS))[: draw(st.integers(1, 3))]
    runs: list[Step] = []
    for name in names:
        timeout_s, cutover_s = draw(st.floats(5.0, 20.0)), draw(st.none() | st.floats(0.0, 8.0))
        if draw(st.integers(0, 3)):
            runs.append(Run(endpoint=name, timeout_s=timeout_s, cutover_s=cutover_s))
        else:
            runs.append(Prefill(endpoint=name, target="home", timeout_s=timeout_s, cutover_s=cutover_s))
    return (*runs, Wait(endpoint="full", until_s=1.0)) if len(runs) < 3 and draw(st.booleans()) else tuple(runs)


class FlightMachine(RuleBasedStateMachine):
    """Keeps its own books of what is under way, from the actions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.open: set[str] = set()
        self.called: list[str] = []
        self.relayed: list[str] = []
        self.attempts = 0
        self.wake_s: float | None = None
        self.finished = self.gave_up = self.resumes = self.ships = self.unfetched = 0
        self.computing: set[str] = set()
        self.client_left = False

    @initialize(plan=plans(), buffered=st.booleans(), waits=st.integers(0, 2))
    def begin(self, plan: tuple[Step, ...], buffered: bool, waits: int) -> None:
        self.flight, self.plan, self.buffered = Flight(buffered=buffered), plan, buffered
        for _ in range(waits):
            assert self.flight.start((Wait(endpoint="a", until_s=1.0),), self.now_s) == [Hold(until_s=1.0)]
        self.take(self.flight.start(plan, self.now_s))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.gave_up, "nothing follows giving up"
            match action:
                case Call() | Compute():
                    assert action.endpoint not in self.called, "no endpoint is tried twice in one plan"
                    assert action.hedge == bool(self.open)
                    self.called.append(action.endpoint)
                    self.attempts += 1
                    self.open.add(action.endpoint)
                    if isinstance(action, Compute):
                        self.computing.add(action.endpoint)
                case Cancel():
                    self.open.remove(action.endpoint)
                    self.computing.discard(action.endpoint)
                case Decide():
                    assert not self.open, "who was started beside it would go on"
                    assert not self.relayed or self.buffered or self.resumes, "nobody answers yet"
                case Relay():
                    assert action.endpoint in self.open - self.computing, "a prompt is no answer"
                    assert self.buffered or len(self.relayed) == self.resumes, "a stream has one author at a time"
                    assert self.open == {action.endpoint}, "the losers are cancelled first"
                    self.relayed.append(action.endpoint)
                case Timer():
                    assert action.at_s >= 0.0
                    self.wake_s = action.at_s
                case Resume():
                    assert not self.open, "nobody else has a part of it"
                    assert not self.buffered, "what nobody has seen is begun anew"
                    assert action.endpoint == self.relayed[-1]
                    self.resumes += 1
                case Hold():
                    assert not self.open, "nothing is held while an attempt is under way"
                    assert isinstance(self.plan[-1], Wait)
                case Finish():
                    self.finished += 1
                case GiveUp():
                    assert action.committed == (bool(self.relayed) and not self.buffered)
                    self.gave_up += 1

    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def content(self, endpoint: str) -> None:
        self.take(self.flight.content(endpoint, self.now_s))

    @rule(endpoint=st.sampled_from(ENDPOINTS), may_resume=st.booleans(), fetching=st.booleans())
    def failed(self, endpoint: str, may_resume: bool, fetching: bool) -> None:
        # An engine is told once where to fetch from.
        fetching = fetching and not self.unfetched
        self.open.discard(endpoint)
        self.computing.discard(endpoint)
        actions = self.flight.failed(endpoint, self.now_s, may_resume=may_resume, fetching=fetching)
        self.unfetched += any(isinstance(action, Decide) for action in actions)
        self.take(actions)

    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def shipped(self, endpoint: str) -> None:
        computing = endpoint in self.computing
        self.ships += computing
        self.computing.discard(endpoint)
        if computing:
            self.open.discard(endpoint)
        actions = self.flight.shipped(endpoint)
        self.take(actions)
        assert computing or actions == []

    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def completed(self, endpoint: str) -> None:
        actions = self.flight.completed(endpoint)
        self.take(actions)
        if endpoint not in self.computing:
            self.open.discard(endpoint)
        else:
            assert actions == [], "that is told once its KV cache has come"
        if endpoint not in self.called:
            assert actions == []

    @rule(later_s=st.floats(0.0, 6.0))
    def time_passes(self, later_s: float) -> None:
        self.now_s += later_s
        if self.wake_s is not None and self.now_s >= self.wake_s:
            calls = len(self.called)
            self.take(self.flight.timer(self.now_s))
            if self.flight.state is State.CALLING:
                assert self.wake_s > self.now_s or len(self.called) > calls, "a timer that fired does not fire again"

    @precondition(lambda self: not self.unfetched)
    @rule(later_s=st.floats(0.0, 20.0), fetching=st.sampled_from(ENDPOINTS))
    def time_passes_for_who_fetches(self, later_s: float, fetching: str) -> None:
        self.now_s += later_s
        actions = self.flight.timer(self.now_s, fetching=fetching)
        self.unfetched += any(isinstance(action, Decide) for action in actions)
        self.take(actions)

    @precondition(lambda self: self.flight.state in (State.HELD, State.PLANNED))
    @rule(plan=plans())
    def decided_again(self, plan: tuple[Step, ...]) -> None:
        self.plan, self.called = plan, []
        self.take(self.flight.start(plan, self.now_s))

    @precondition(lambda self: not self.client_left)
    @rule()
    def timer_at_any_time(self) -> None:
        self.take(self.flight.timer(self.now_s))

    @rule()
    def client_leaves(self) -> None:
        self.client_left = True
        self.take(self.flight.left())
        assert not self.open, "everything under way is cancelled"

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "flight"):
            return
        assert self.resumes <= RESUMES_MAX
        begun = self.resumes + self.ships + self.unfetched
        assert self.attempts == self.flight.attempts <= ATTEMPTS_MAX + 2 + len(ENDPOINTS) * begun
        assert self.called == [step.endpoint for step in self.plan[: len(self.called)]]
        assert self.finished + self.gave_up <= 1
        landed = self.flight.state is State.LANDED
        assert landed == bool(self.finished or self.gave_up or self.client_left)
        if landed:
            assert not self.open, "no call outlives its flight"
        else:
            on_ground = self.flight.state in (State.HELD, State.PLANNED)
            assert bool(self.open) == (not on_ground), "in the air something is under way"


FlightMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None, derandomize=True)
TestFlight = FlightMachine.TestCase
