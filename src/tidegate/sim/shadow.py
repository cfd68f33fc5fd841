"""What Tidegate would have made of another gateway's traffic: what it would have saved, and what it would have missed.

Both play the same requests in one twin of the installation, as its log shows it: the other one as it decided, and
Tidegate from the first day on, with nothing learned. The log's own figures say how far off the twin is.
"""

from collections.abc import Sequence

import msgspec

from tidegate.core.model import Record
from tidegate.sim.adopted import Adopted
from tidegate.sim.observed import Observed
from tidegate.sim.outcome import Outcome, side_by_side
from tidegate.sim.preview import Preview, gained, pairs_of, preview

# Requests that are told of one by one.
MISSED_MAX = 10


class Missed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One promise that the other kept, as it is played, and Tidegate did not: where it went, and where it would have
    gone, empty where nobody served it."""

    id: str
    went: str
    would_go: str
    why: str


class Shadow(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of it. In `preview`, what was played `before` is as the other decided, and `after` is Tidegate.

    Of the log's `records` the `unused` are in no figure, by reason; the others were `placed` at endpoints, each so many
    by what says so. The dollars of `billed` requests are what the log says, of the others what the prices of the
    configuration make of their tokens; of `unseen` nobody saw first content. So many prompts are `too_long` for the
    window that is assumed of an endpoint. Of the `compared` requests, all that have an end under both, `missed`
    promises are kept by the other alone, `gained` by Tidegate alone.
    """

    preview: Preview
    records: int
    unused: dict[str, int]
    strangers: dict[str, int]
    placed: dict[str, dict[str, int]]
    billed: int
    unseen: int
    too_long: dict[str, int]
    compared: int
    missed: int
    gained: int
    some_missed: tuple[Missed, ...]


def as_billed(observed: Observed, adopted: Adopted) -> Observed:
    """The same with what was really paid, where that was told."""
    billed = adopted.billed
    observed.asked = [
        msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, usd=billed[one.request.id]))
        if one.request.id in billed
        else one
        for one in observed.asked
    ]
    return observed


def shadow(adopted: Adopted, observed: Observed, theirs: Sequence[Outcome], ours: Sequence[Outcome]) -> Shadow:
    """From what the log says, and what the same requests come to as they were sent, and as Tidegate sends them."""
    served, would = side_by_side(theirs, ours)
    pairs = pairs_of(served, would)
    missed = [(a, b) for a, b in pairs if gained(a, b) < 0]
    names = adopted.strangers.most_common(MISSED_MAX)
    placed: dict[str, dict[str, int]] = {}
    for (endpoint, by), count in adopted.placed.most_common():
        placed.setdefault(endpoint, {})[str(by)] = count
    return Shadow(
        preview=preview(observed, theirs, ours),
        records=adopted.records,
        unused={str(why): count for why, count in adopted.unused.most_common()},
        strangers=dict(names),
        placed=placed,
        billed=sum(one.request.id in adopted.billed for one in observed.asked),
        unseen=adopted.unseen,
        too_long=dict(adopted.too_long),
        compared=len(pairs),
        missed=len(missed),
        gained=sum(gained(a, b) > 0 for a, b in pairs),
        some_missed=tuple(
            Missed(id=a.request.id, went=a.endpoint, would_go=b.endpoint, why=str(b.why))
            for a, b in missed[:MISSED_MAX]
        ),
    )
