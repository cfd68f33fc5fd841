"""One request's state machine: feed it facts, get back what to do. It does nothing itself.

```
            start            first content           completed
  PLANNED ---------> CALLING --------------> RELAYING ---------> LANDED
   | ^               ^    |                   |  |                 ^
   | |  start: wait  |    | failed: next step |  | failed          |
   v |               |    v                   |  | (buffered: next)|
   HELD -------------+  none left: wait, or give up, or client left +
     |                                        |
     +---------- failed: its rest ------------+
```

An attempt at a prompt alone commits nothing: once its KV cache is where it is to be, it is decided again. So it is
where nobody of a plan would serve what is asked, and behind a plan of which other settings have taken a step.
"""

from enum import Enum
from math import inf

from tidegate.core.actions import (
    Action,
    Again,
    Call,
    Cancel,
    Compute,
    Decide,
    Finish,
    GiveUp,
    Hold,
    Relay,
    Resume,
    Silence,
    Timer,
)
from tidegate.core.model import Prefill, Run, Step, Wait

# Over all plans that a request is given: two of the longest. More would multiply load when all are failing.
ATTEMPTS_MAX = 6
# What breaks more often is itself what breaks them, and would go from engine to engine.
RESUMES_MAX = 2


class State(Enum):
    """Where a request is between its decision and its end."""

    PLANNED = "planned"
    HELD = "held"
    CALLING = "calling"
    RELAYING = "relaying"
    LANDED = "landed"


class _Open:
    """An attempt under way, at the prompt alone where there is a `target`. For the rest see `Run`."""

    __slots__ = ("cutover_at_s", "target", "timeout_at_s", "timeout_s", "token_s_max")

    def __init__(self, step: Run | Prefill, now_s: float) -> None:
        self.target = step.target if isinstance(step, Prefill) else ""
        self.cutover_at_s = inf if step.cutover_s is None else now_s + step.cutover_s
        self.timeout_s = step.timeout_s
        self.timeout_at_s = now_s + step.timeout_s
        self.token_s_max = inf if isinstance(step, Prefill) or step.token_s_max is None else step.token_s_max


class Flight:
    """Failover and cutover before the commit point, its rest after it where that can be had, cancellation at any time.

    `buffered`: nothing reaches the client before the answer is complete, so a failure after first content can still
    be made good elsewhere. An answer that has begun has to bring something in each `stall_s`, and as many tokens as its
    step demands.
    """

    __slots__ = (
        "_buffered",
        "_committed",
        "_next",
        "_open",
        "_plan",
        "_resumes",
        "_stall_s",
        "_uncounted",
        "_watched_s",
        "attempts",
        "state",
        "tokens",
        "winner",
    )

    def __init__(self, *, buffered: bool = False, stall_s: float = inf) -> None:
        self._buffered = buffered
        self._committed = False
        self._resumes = 0
        self._stall_s = stall_s
        # How many tokens had come of the answer that goes on, when it was looked at last.
        self._watched_s = 0.0
        self.tokens = 1
        self._plan: tuple[Step, ...] = ()
        self._next = 0
        self._open: dict[str, _Open] = {}
        self.state = State.PLANNED
        self.winner = ""
        self.attempts = 0
        # Attempts that tell nothing of whoever was not in the plan: those before it, and whose endpoint found fault.
        self._uncounted = 0

    def start(self, plan: tuple[Step, ...], now_s: float) -> list[Action]:
        """Follow this plan. Called again with a new plan after a hold, for the rest of an answer, and
        after `Decide` and `Again`."""
        assert self.state in (State.PLANNED, State.HELD), "a plan is followed once"
        assert plan, "an empty plan is a refusal, which has no flight"
        first = plan[0]
        if isinstance(first, Wait):
            self.state = State.HELD
            return [Hold(until_s=first.until_s)]
        assert len({step.endpoint for step in plan}) == len(plan), "an attempt is known by its endpoint"
        self._plan, self._next, self._uncounted = plan, 0, self.attempts
        self.state = State.CALLING
        return self._call_next(now_s)

    def content(self, endpoint: str, now_s: float) -> list[Action]:
        """First content of an attempt: it wins, the others are cancelled."""
        actions = self._commit(endpoint)
        if actions:
            self._watched_s, self.tokens = now_s, 1
            actions += self._watch()
        return actions

    def _commit(self, endpoint: str) -> list[Action]:
        if self.state is not State.CALLING or not self._answers(endpoint):
            return []
        self.state, self.winner = State.RELAYING, endpoint
        if not self._buffered:
            # Nothing of its plan is followed any more, and an answer may take minutes.
            self._committed, self._plan = True, ()
        if len(self._open) == 1:
            return [Relay(endpoint=endpoint)]
        losers = [name for name in self._open if name != endpoint]
        for name in losers:
            self._close(name)
        return [*(Cancel(endpoint=name) for name in losers), Relay(endpoint=endpoint)]

    def shipped(self, endpoint: str) -> list[Action]:
        """The KV cache that an attempt has computed is where it was to be sent."""
        attempt = self._open.get(endpoint)
        if attempt is None or not attempt.target:
            return []
        self._close(endpoint)
        if self._open:
            # Another attempt was started beside it meanwhile, and goes on.
            return self._timer()
        self.state = State.PLANNED
        return [Decide(endpoint=endpoint, target=attempt.target)]

    def completed(self, endpoint: str) -> list[Action]:
        """An attempt delivered its whole answer."""
        if self.state is State.CALLING and self._answers(endpoint):
            # Complete without content: an empty answer is an answer.
            return self._commit(endpoint) + self.completed(endpoint)
        if self.state is not State.RELAYING or endpoint != self.winner:
            return []
        self._close(endpoint)
        self.state = State.LANDED
        return [Finish(endpoint=endpoint)]

    def failed(
        self,
        endpoint: str,
        now_s: float,
        *,
        may_resume: bool = False,
        fetching: bool = False,
        at_fault: bool = False,
    ) -> list[Action]:
        """An attempt ended without its answer. `may_resume`: somebody could be asked for the rest of what has come.
        `fetching`: it was to fetch the KV cache of its prompt, or to have it sent: without that, whoever does best with
        the whole may well succeed, also who has just computed the prompt. `at_fault`: it found fault with what is
        asked, as an endpoint does that cannot be sent it."""
        if endpoint not in self._open:
            return []
        self._close(endpoint)
        if at_fault:
            self._uncounted = min(self._uncounted + 1, self.attempts)
        if self.state is State.RELAYING:
            if not self._buffered:
                return self._resume(may_resume=may_resume)
            self.state, self.winner = State.CALLING, ""
        if self._open:
            return self._timer()
        return self._decide(endpoint) if fetching else self._go_on(now_s)

    def passed_over(
        self, endpoint: str, now_s: float, *, fetching: bool = False, outdated: bool = False
    ) -> list[Action]:
        """Nothing was sent there, which is no attempt. `fetching`: see `failed`. `outdated`: the plan was made under
        other settings, so that whoever is not in it may serve by now, whatever became of the steps before."""
        if endpoint not in self._open:
            return []
        self._close(endpoint)
        self.attempts -= 1
        if outdated:
            self._uncounted = self.attempts
        if self._open:
            return self._timer()
        return self._decide(endpoint) if fetching else self._go_on(now_s)

    @property
    def open(self) -> list[str]:
        """The endpoints of attempts under way."""
        return list(self._open)

    def timeout_s(self, endpoint: str) -> float:
        """How long the attempt there, which is under way, may take to its first content."""
        return self._open[endpoint].timeout_s

    def timer(
        self,
        now_s: float,
        *,
        may_hedge: bool = True,
        tokens: int | None = None,
        finished: bool = False,
        may_resume: bool = False,
        fetching: str = "",
    ) -> list[Action]:
        """Time has passed: start what is due, give up what has shown nothing for too long.

        `may_hedge`: whether another attempt may start beside those under way; one that may not is left out for good.
        `tokens`: how many have come so far of the answer that goes on; None where it is not the engine's fault that
        there are no more. `finished`: it has come to its end, and is not given up any more; see `is_silent`.
        `may_resume`: see `failed`, and so for the attempt at `fetching`.
        """
        if self.state is State.RELAYING:
            return self._look(now_s, tokens, finished=finished, may_resume=may_resume)
        if self.state is not State.CALLING:
            return []
        actions: list[Action] = []
        gave_up = False
        for name, attempt in list(self._open.items()):
            if now_s >= attempt.timeout_at_s:
                self._close(name)
                gave_up = gave_up or name == fetching
                actions.append(Cancel(endpoint=name, gave_up=Silence.NO_CONTENT))
            elif now_s >= attempt.cutover_at_s:
                attempt.cutover_at_s = inf
                if may_hedge and self._next < len(self._plan):
                    actions += self._call_next(now_s)
        if not self._open:
            return actions + (self._decide(fetching) if gave_up else self._call_next(now_s))
        return actions + self._timer()

    def is_silent(self, now_s: float, tokens: int | None) -> bool:
        """Whether the answer that goes on has brought none of its `tokens` for as long as it may; see `timer`."""
        silent = tokens is not None and tokens <= self.tokens
        return silent and self.state is State.RELAYING and now_s >= self._watched_s + self._stall_s

    def left(self) -> list[Action]:
        """The client is gone: everything under way is cancelled."""
        names = list(self._open)
        for name in names:
            self._close(name)
        self.state = State.LANDED
        return [Cancel(endpoint=name) for name in names]

    def _answers(self, endpoint: str) -> bool:
        """Whether an attempt there is under way, at more than the prompt."""
        attempt = self._open.get(endpoint)
        return attempt is not None and not attempt.target

    def _look(self, now_s: float, tokens: int | None, *, finished: bool, may_resume: bool) -> list[Action]:
        """Whether the answer that goes on brings enough to be waited for."""
        if now_s < self._watched_s + self._stall_s:
            return self._watch()
        if tokens is not None:
            came, token_s_max = tokens - self.tokens, self._open[self.winner].token_s_max
            self.tokens = tokens
            slow = came <= 0 or came * token_s_max < now_s - self._watched_s
            if slow and not finished:
                silence = Silence.TOO_SLOW if came > 0 else Silence.STALLED
                return self._let_go(silence, now_s, may_resume=may_resume)
        self._watched_s = now_s
        return self._watch()

    def _let_go(self, silence: Silence, now_s: float, *, may_resume: bool) -> list[Action]:
        """Give up the answer that goes on; what the client has not seen of it can be made good elsewhere."""
        name = self.winner
        self._close(name)
        cancel: list[Action] = [Cancel(endpoint=name, gave_up=silence)]
        if not self._buffered:
            return cancel + self._resume(may_resume=may_resume)
        self.state, self.winner = State.CALLING, ""
        return cancel + self._call_next(now_s)

    def _resume(self, *, may_resume: bool) -> list[Action]:
        """The client has seen the beginning: it gets the rest, or is told."""
        if not may_resume or self._resumes == RESUMES_MAX:
            return self._give_up()
        self._resumes += 1
        self.state = State.PLANNED
        return [Resume(endpoint=self.winner)]

    def _decide(self, endpoint: str) -> list[Action]:
        """The KV cache of its prompt could not be had there: begin again, as if nothing had been computed."""
        self.state = State.PLANNED
        return [Decide(endpoint=endpoint)]

    def _watch(self) -> list[Action]:
        return [] if self._stall_s == inf else [Timer(at_s=self._watched_s + self._stall_s)]

    def _go_on(self, now_s: float) -> list[Action]:
        """The next step; behind the last, whoever was not in the plan, where it met nobody who would serve this."""
        if self._next == len(self._plan) and self.attempts == self._uncounted and self.attempts < ATTEMPTS_MAX:
            self.state = State.PLANNED
            return [Again()]
        return self._call_next(now_s)

    def _call_next(self, now_s: float) -> list[Action]:
        if self._next == len(self._plan):
            return self._give_up()
        step = self._plan[self._next]
        if isinstance(step, Wait):
            # A hedge needs no slot that is not free; and whoever keeps failing has had its chances.
            if self._open:
                return self._timer()
            if self.attempts >= ATTEMPTS_MAX:
                return self._give_up()
            self.state = State.HELD
            return [Hold(until_s=step.until_s)]
        self._next += 1
        hedge = bool(self._open)
        self._open[step.endpoint] = _Open(step, now_s)
        self.attempts += 1
        if isinstance(step, Prefill):
            return [Compute(endpoint=step.endpoint, target=step.target, hedge=hedge), *self._timer()]
        return [Call(endpoint=step.endpoint, hedge=hedge), *self._timer()]

    def _timer(self) -> list[Action]:
        at_s = inf
        for attempt in self._open.values():
            if attempt.cutover_at_s < at_s:
                at_s = attempt.cutover_at_s
            if attempt.timeout_at_s < at_s:
                at_s = attempt.timeout_at_s
        return [Timer(at_s=at_s)]

    def _close(self, endpoint: str) -> None:
        del self._open[endpoint]

    def _give_up(self) -> list[Action]:
        self.state = State.LANDED
        return [GiveUp(committed=self._committed)]
