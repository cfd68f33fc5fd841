"""When to stop trying an endpoint, and when to try again."""

import msgspec

from tidegate.core.model import Ending

# Three failures within half a minute are a pattern and add up to this; two are bad luck and never do.
STRIKES_OPEN = 2.2
STRIKE_HALF_LIFE_S = 30.0
OPEN_S_MIN = 5.0
# An endpoint that keeps failing is tried every two minutes: rare enough to cost nothing, often enough to come back.
OPEN_S_MAX = 120.0
# Openings beyond this one change nothing: the time has reached its bound.
OPENINGS_MAX = 6

_STRIKES = {Ending.FAILED: 1.0, Ending.TIMED_OUT: 1.0, Ending.REFUSED: 0.5}


class Breaker(msgspec.Struct):
    """Closed, open until a time, or half-open: then one attempt, the trial, decides whether it closes.

    An attempt that started before it opened is a straggler. Its failure keeps the breaker open, yet is no failed trial;
    its success does not close it. It closes when the trial begins to answer, which may go on for minutes. Until that is
    over, `answered` is how often it had opened in a row: should this answer break off, or others fail meanwhile, it
    opens for as long as after a failed trial.

    Of the strikes, `refused` are refusals, from `refusing_s` on. Who begins to answer what was sent since then does
    serve: these are no pattern, however long it takes until the answer is over. A failure may be one that comes later.
    """

    strikes: float = 0.0
    refused: float = 0.0
    refusing_s: float = 0.0
    at_s: float = 0.0
    open_until_s: float = 0.0
    openings: int = 0
    trial: str = ""
    answered: int = 0

    def blocks(self, now_s: float) -> bool:
        """Whether no attempt may start now."""
        return self.openings > 0 and (now_s < self.open_until_s or self.trial != "")

    def reachable(self, now_s: float) -> None:
        """It could not be reached, and can be again: half-open from now on, whatever was left of its time. A trial that
        hangs since before tells nothing of who is there now."""
        self.open_until_s = min(self.open_until_s, now_s)
        if self.openings:
            self.trial = ""

    @property
    def state(self) -> str:
        """`closed` or `open`; whether an open one is due for a trial depends on the time."""
        return "open" if self.openings else "closed"


# Every attempt tells these: a function takes half as long as a method of a record does where this is compiled.
def started(breaker: Breaker, request_id: str, now_s: float) -> None:
    """Take in that an attempt was sent: in a half-open breaker it is the trial."""
    if breaker.openings and now_s >= breaker.open_until_s and not breaker.trial:
        breaker.trial = request_id


def first(breaker: Breaker, request_id: str) -> bool:
    """First content of an attempt came. Whether that was the trial, so that it is closed."""
    if not breaker.openings or breaker.trial != request_id:
        return False
    breaker.strikes, breaker.refused = 0.0, 0.0
    breaker.openings, breaker.open_until_s, breaker.answered = 0, 0.0, breaker.openings
    return True


def answers(breaker: Breaker, sent_s: float) -> None:
    """First content came of an attempt that was no trial, and was sent then."""
    if breaker.refused and not breaker.openings and sent_s > breaker.refusing_s:
        breaker.strikes, breaker.refused = max(0.0, breaker.strikes - breaker.refused), 0.0


def learn(breaker: Breaker, request_id: str, ending: Ending, now_s: float) -> None:
    """Take in how an attempt ended. A later failure never shortens the time it stays open."""
    tried = breaker.trial != "" and breaker.trial == request_id
    answered = breaker.answered
    if tried:
        breaker.trial, breaker.answered = "", 0
    if ending is Ending.OK:
        if tried or not breaker.openings:
            breaker.strikes, breaker.refused, breaker.openings, breaker.open_until_s = 0.0, 0.0, 0, 0.0
        return
    strike = _STRIKES.get(ending)
    if strike is None:
        return
    left = 0.5 ** (max(0.0, now_s - breaker.at_s) / STRIKE_HALF_LIFE_S)
    breaker.strikes = breaker.strikes * left + strike
    breaker.refused *= left
    if ending is Ending.REFUSED:
        if not breaker.refused:
            breaker.refusing_s = now_s
        breaker.refused += strike
    breaker.at_s = now_s
    if tried or not breaker.openings:
        if not tried and breaker.strikes < STRIKES_OPEN:
            return
        breaker.openings = min(max(breaker.openings, answered) + 1, OPENINGS_MAX)
        if answered:
            # The trial, where it still goes on, is a straggler now.
            breaker.trial, breaker.answered = "", 0
    open_s = min(OPEN_S_MIN * 2.0 ** (breaker.openings - 1), OPEN_S_MAX)
    breaker.open_until_s = max(breaker.open_until_s, now_s + open_s)


def revived(breaker: Breaker, now_s: float) -> Breaker:
    """What is left after a restart: no trial, and no time beyond now but the rest of an open one; see `core.revive`."""
    return Breaker(
        strikes=breaker.strikes,
        refused=breaker.refused,
        refusing_s=min(breaker.refusing_s, now_s),
        at_s=min(breaker.at_s, now_s),
        open_until_s=min(breaker.open_until_s, now_s + OPEN_S_MAX),
        openings=breaker.openings,
    )
