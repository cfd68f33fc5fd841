"""The page of a request's states: found by flying, not written down."""

from collections.abc import Callable, Iterator

from tidegate.core.actions import Action, Call, Cancel, GiveUp, Hold
from tidegate.core.flight import Flight, State
from tidegate.core.model import Run, Wait

STALL_S = 60.0
# Two endpoints, and one that is merely full; and a plan for one whose turn has come.
PLAN = (
    Run(endpoint="a", timeout_s=100.0, cutover_s=5.0, token_s_max=0.5),
    Run(endpoint="b", timeout_s=100.0),
    Wait(endpoint="c", until_s=1e3),
)
LATER = (Run(endpoint="c", timeout_s=100.0),)
MOVES_MAX = 6

_Fly = Callable[[Flight, float], list[Action]]
_OF = "of the answer that goes on"
# What happens, in which states it can, how much later, and how the flight is told.
_EVENTS: dict[str, tuple[tuple[State, ...], float, _Fly]] = {
    "a plan that begins with an attempt": ((State.PLANNED,), 0.0, lambda f, s: f.start(PLAN, s)),
    "a plan that begins with waiting": ((State.PLANNED,), 0.0, lambda f, s: f.start(PLAN[2:], s)),
    "its turn has come": ((State.HELD,), 1.0, lambda f, s: f.start(LATER, s)),
    "it has to wait on": ((State.HELD,), 1.0, lambda f, s: f.start(PLAN[2:], s)),
    "first content": ((State.CALLING,), 1.0, lambda f, s: f.content(f.open[-1], s)),
    "an attempt fails": ((State.CALLING,), 1.0, lambda f, s: f.failed(f.open[0], s)),
    "an answer without content": ((State.CALLING,), 1.0, lambda f, _: f.completed(f.open[0])),
    "the time of the next step, which may start": ((State.CALLING,), 5.0, lambda f, s: f.timer(s)),
    "the time of the next step, which may not": ((State.CALLING,), 5.0, lambda f, s: f.timer(s, may_hedge=False)),
    "no content in time": ((State.CALLING,), 125.0, lambda f, s: f.timer(s)),
    f"a minute {_OF}": ((State.RELAYING,), STALL_S, lambda f, s: f.timer(s, tokens=f.tokens + 10**6)),
    "a minute in which the client did not read": ((State.RELAYING,), STALL_S, lambda f, s: f.timer(s, tokens=None)),
    f"a minute without a token {_OF}": ((State.RELAYING,), STALL_S, lambda f, s: f.timer(s, tokens=f.tokens)),
    f"a minute with next to no tokens {_OF}": (
        (State.RELAYING,),
        STALL_S,
        lambda f, s: f.timer(s, tokens=f.tokens + 3),
    ),
    f"the end {_OF}": ((State.RELAYING,), 1.0, lambda f, _: f.completed(f.winner)),
    f"a failure {_OF}": ((State.RELAYING,), 1.0, lambda f, s: f.failed(f.winner, s)),
    f"a failure {_OF}, whose rest may be asked for": (
        (State.RELAYING,),
        1.0,
        lambda f, s: f.failed(f.winner, s, may_resume=True),
    ),
    "the client leaves": ((State.PLANNED, State.HELD, State.CALLING, State.RELAYING), 1.0, lambda f, _: f.left()),
}
_PAGE = """# The states of a request

A request is a state machine (`core/flight.py`): it is told what happens, and says what to do. These tables were made by
flying all ways of up to {moves} moves with a plan of two endpoints and a third that is full. *Streamed* is an answer of
which the client sees the beginning before the end; of one that is given *whole* nothing is seen before it is complete,
so that what breaks in the middle is made good elsewhere.

A second attempt starts beside the first at its time, [if it may](../explanation/hedging.md); of several the first to
show content wins, and the others are cancelled. An answer that goes on is looked at once in `policy.stall_s`, here a
minute. After content a stream is never begun anew: it ends as it should, or with an error in so many words, and where
operators allow it, [its rest](../explanation/resuming.md) is asked for elsewhere, twice at most.
"""


def _said(action: Action) -> str:
    match action:
        case Call(hedge=True):
            return "call the next one beside it"
        case Call():
            return "call the next one"
        case Cancel(gave_up=None):
            return "cancel"
        case Cancel():
            return f"give it up (`{action.gave_up}`)"
        case Hold():
            return "hold it"
        case GiveUp(committed=True):
            return "end the stream with an error"
        case GiveUp():
            return "answer with an error"
        case _:
            names = {"Relay": "relay it", "Resume": "plan its rest", "Finish": "finish", "Timer": "set the timer"}
            return names[type(action).__name__]


def _flown(moves: tuple[str, ...], *, buffered: bool) -> tuple[Flight, float, list[Action]]:
    """A flight after these moves, and what the last of them brought."""
    flight, now_s, actions = Flight(buffered=buffered, stall_s=STALL_S), 0.0, list[Action]()
    for move in moves:
        _, later_s, fly = _EVENTS[move]
        now_s += later_s
        actions = fly(flight, now_s)
    return flight, now_s, actions


def _rows(*, buffered: bool) -> Iterator[tuple[State, str, str, State]]:
    """All that can happen: from which state, what, what is done, and the state after it."""
    ways: list[tuple[str, ...]] = [()]
    for _ in range(MOVES_MAX):
        further = []
        for way in ways:
            before, _, _ = _flown(way, buffered=buffered)
            for move in [m for m, (states, _, _) in _EVENTS.items() if before.state in states]:
                after, _, actions = _flown((*way, move), buffered=buffered)
                done = ", ".join(dict.fromkeys(_said(action) for action in actions)) or "nothing"
                yield before.state, move, done, after.state
                if after.state is not State.LANDED:
                    further.append((*way, move))
        ways = further


def _table(*, buffered: bool) -> dict[str, str]:
    found: dict[tuple[int, int], dict[str, None]] = {}
    states, moves = list(State), list(_EVENTS)
    for before, move, done, after in _rows(buffered=buffered):
        found.setdefault((states.index(before), moves.index(move)), {})[f"{done} → {after.value}"] = None
    return {f"| {states[s].value} | {moves[m]} |": "; or ".join(sorted(done)) for (s, m), done in sorted(found.items())}


def _text(rows: dict[str, str]) -> str:
    head = ["| state | what happens | what is done → state |", "| --- | --- | --- |"]
    return "\n".join([*head, *(f"{begin} {done} |" for begin, done in rows.items())])


def flight() -> str:
    """The page."""
    streamed, whole = _table(buffered=False), _table(buffered=True)
    others = {begin: done for begin, done in whole.items() if streamed[begin] != done}
    page = _PAGE.format(moves=MOVES_MAX)
    return f"{page}\n## Streamed\n\n{_text(streamed)}\n\n## Whole, where that differs\n\n{_text(others)}\n"
