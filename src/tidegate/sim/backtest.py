"""How far the simulator is from an installation: a twin is inferred from the first part of its journal, asked what came
in the rest of it, and held against what came of that.

A preview's headline is how far a twin is from the day that it was made of. This is how far it is from a day that it has
not seen; it grows when an engine, a vendor or a link is no longer what it was, or when the simulator lacks something.
"""

from collections.abc import Sequence
from math import exp, log

import msgspec

from tidegate.core.model import Record, replace
from tidegate.core.router import Router
from tidegate.sim.observed import LEFT, Down, Observed, ObservedError, since
from tidegate.sim.outcome import Outcome, side_by_side
from tidegate.sim.preview import JUDGED_MIN, Interval, blocks_of, interval
from tidegate.sim.twin import Twin, twin

# Of either part; with fewer, chance says more.
REQUESTS_MIN = 200
# The twin is made of so much of the time.
FITTED_SHARE = 0.5
# What is alarming, unless somebody says otherwise: shares of dollars and of times, and of all requests.
RATIO, SHARE = 0.25, 0.05


class Off(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One figure as it came and as it is simulated. `error` is by how much, as a share of it, or of all requests where
    the figure is a share; it is `beyond` where all of `low` to `high` is further off than `within`."""

    figure: str
    live: float
    simulated: float
    error: float
    low: float
    high: float
    within: float

    @property
    def beyond(self) -> bool:
        """Whether it is too far off, beyond chance."""
        return self.low > self.within or self.high < -self.within


class Backtest(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A twin of `fitted` requests, held against `tested` ones that came from `start_s` to `end_s`. Neither are those
    `unended`, which a process or the journal ended before. `drifted` are the figures that are too far off."""

    fitted: int
    tested: int
    unended: int
    start_s: float
    end_s: float
    off: tuple[Off, ...]
    drifted: tuple[str, ...]


def cut_s(observed: Observed) -> float:
    """When the first part is over: so many of the requests have come. Raises `ObservedError` where they are few."""
    asked = observed.asked
    if len(asked) < 2 * REQUESTS_MIN:
        raise ObservedError(
            f"{len(asked)} requests are too few to make a twin of some and hold it against others; it takes "
            f"{2 * REQUESTS_MIN}"
        )
    return asked[int(FITTED_SHARE * len(asked))].request.arrived_s


def parts(observed: Observed, at_s: float) -> tuple[Observed, Observed]:
    """What came before, and what came from then on."""
    before = msgspec.structs.replace(
        observed,
        asked=[one for one in observed.asked if one.request.arrived_s < at_s],
        attempts={name: [a for a in some if a.sent_s < at_s] for name, some in observed.attempts.items()},
        down=[_until(one, at_s) for one in observed.down if one.at_s < at_s],
        end_s=at_s,
    )
    after = msgspec.structs.replace(
        observed,
        asked=[one for one in observed.asked if one.request.arrived_s >= at_s],
        down=[since(one, at_s) for one in observed.down if one.at_s + one.for_s > at_s],
        start_s=at_s,
    )
    return before, after


def _until(one: Down, at_s: float) -> Down:
    return replace(one, for_s=min(one.for_s, at_s - one.at_s))


def world(before: Observed, after: Observed, router: Router) -> Twin:
    """The twin of what came before, asked what came after; `router` knows what was known in between."""
    return twin(before, router, later=after)


def backtest(
    before: Observed, after: Observed, played: Sequence[Outcome], *, ratio: float = RATIO, share: float = SHARE
) -> Backtest:
    """What came, against what it came to in the twin. Further off than `ratio` of dollars or times, or than `share` of
    all requests, is too far."""
    away = {endpoint.name for endpoint in after.endpoints if not endpoint.local}
    real, twins = side_by_side([one.outcome for one in after.asked], played)
    simulated = {one.request.id: one for one in twins}
    pairs = [(one, simulated[one.request.id]) for one in real if one.outcome != LEFT and one.request.id in simulated]
    blocks = blocks_of([a.request.arrived_s for a, _ in pairs])
    found = [
        _shares("kept", [(a.judged, b.judged) for a, b in pairs], blocks, share),
        _shares("away", [(a.endpoint in away, b.endpoint in away) for a, b in pairs], blocks, share),
        _dollars([(a.usd, b.usd) for a, b in pairs], blocks, ratio),
        _times("ttft", [(a.ttft_s, b.ttft_s) if _served(a, b) else (None, None) for a, b in pairs], blocks, ratio),
        _times("e2e", [(a.e2e_s, b.e2e_s) if _served(a, b) else (None, None) for a, b in pairs], blocks, ratio),
    ]
    off = tuple(one for one in found if one is not None)
    return Backtest(
        fitted=len(before.asked),
        tested=len(pairs),
        # Counted of the whole journal.
        unended=before.unended,
        start_s=after.start_s,
        end_s=after.end_s,
        off=off,
        drifted=tuple(one.figure for one in off if one.beyond),
    )


def _served(one: Outcome, other: Outcome) -> bool:
    return one.outcome == other.outcome == "ok"


def _shares(
    figure: str, pairs: Sequence[tuple[bool | None, bool | None]], blocks: Sequence[int], within: float
) -> Off | None:
    known = [(float(a), float(b), at) for (a, b), at in zip(pairs, blocks, strict=True) if None not in (a, b)]  # type: ignore[arg-type]
    if not known:
        return None
    return _off(
        figure,
        known,
        interval([b - a for a, b, _ in known], [at for *_, at in known], least=1.0, most=1.0, another_day=False),
        within,
    )


def _dollars(pairs: Sequence[tuple[float, float]], blocks: Sequence[int], within: float) -> Off | None:
    """As a share of what was paid; where nothing was, there is no such share."""
    known = [(a, b, at) for (a, b), at in zip(pairs, blocks, strict=True)]
    paid = sum(a for a, *_ in known) / max(1, len(known))
    if paid <= 0.0:
        return None
    return _off("dollars", known, interval([(b - a) / paid for a, b, _ in known], blocks, another_day=False), within)


def _times(
    figure: str, pairs: Sequence[tuple[float | None, float | None]], blocks: Sequence[int], within: float
) -> Off | None:
    """By how much longer they are, in the mean of logarithms: a minute that is two says as much as a second that is.
    None where few are known."""
    known = [(log(a), log(b), at) for (a, b), at in zip(pairs, blocks, strict=True) if a and b]
    if len(known) < JUDGED_MIN:
        return None
    found = interval([b - a for a, b, _ in known], [at for *_, at in known], another_day=False)
    grown = Interval(figure=exp(found.figure) - 1.0, low=exp(found.low) - 1.0, high=exp(found.high) - 1.0)
    live, simulated = _means(known)
    return _told(figure, exp(live), exp(simulated), grown, within)


def _off(figure: str, known: Sequence[tuple[float, float, int]], found: Interval, within: float) -> Off:
    return _told(figure, *_means(known), found, within)


def _means(known: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    return sum(a for a, *_ in known) / len(known), sum(b for _, b, _ in known) / len(known)


def _told(figure: str, live: float, simulated: float, found: Interval, within: float) -> Off:
    return Off(
        figure=figure,
        live=live,
        simulated=simulated,
        error=found.figure,
        low=found.low,
        high=found.high,
        within=within,
    )
