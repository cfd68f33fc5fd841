"""How far predicted output lengths are from those of public traces.

    TIDEGATE_DATA=... make bench-length

The rows are those of bench/length_rows.py. Of each trace the first 60 % of the rows, in the order of arrival, warm; the
rest is scored, online: a row is predicted as it comes, and learned when its output is known, by everybody.

Scored is the pinball loss at 0.5, 0.9 and 0.95, in tokens, and its mean over the three. The references are empirical
quantiles:

- `class`: of all rows of the class (`core/classify`) known before. The number to reach is 0.9 of its loss, over the
  rows of all traces and, since tokens of long outputs are the most, as the geometric mean of the traces' ratios.
- `static`: of the class, of the rows that warm.
- `class, model and key`: the finest that was seen twenty times, of (class, model, key), (class, model) and class.

And given that so many tokens have streamed and more come: the quantiles of the whole length, and of the expected rest
the mean absolute error, its root mean square and the mean. The references: what was predicted at first, cut at what has
streamed, and `class`, of those longer.

`brier` is the mean square error of the probability that an output is not longer than each of a few limits, as
`core/value` has it from median and spread; and as it is from the mean with half a natural logarithm. What loses is told
first.
"""

import os
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import ceil, log, sqrt
from statistics import fmean, geometric_mean

from bench.length_rows import Row, all_traces
from bench.record import record
from tidegate.core import bins
from tidegate.core.counts import Turns
from tidegate.core.length import LengthModel, beginnings_of
from tidegate.core.model import Request
from tidegate.core.output import Length
from tidegate.core.value import probability_below

TRAIN_SHARE = 0.6
SHARES = (0.5, 0.9, 0.95)
STREAMED = (10, 50, 200, 500)
LIMITS = (25, 100, 400, 1600)
# Fewer say nothing of one row in twenty.
SEEN_MIN = 20
BOUND = 0.9

Quantile = Callable[[float], float]
Losses = dict[str, list[float]]
"""Of each row the pinball loss of each share, by who predicted."""


class Empirical:
    """The quantiles of all lengths of a group; where it was hardly seen, of the next larger one."""

    def __init__(self, groups: Callable[[Request], tuple[str, ...]], seen_min: int = 1) -> None:
        self._groups, self._seen_min = groups, seen_min
        self._seen: dict[str, list[int]] = defaultdict(list)

    def learn(self, request: Request, tokens: int) -> None:
        """Take in how long one output was."""
        for group in self._groups(request):
            insort(self._seen[group], tokens)

    def at(self, request: Request, streamed: int = 0) -> list[int]:
        """The lengths beyond what has streamed, in order."""
        seen: list[int] = []
        for group in self._groups(request):
            seen = self._seen[group]
            seen = seen[bisect_right(seen, streamed) :] if streamed else seen
            if len(seen) >= self._seen_min:
                break
        return seen


def empirical(ordered: list[int], streamed: int = 0) -> Quantile:
    """The least value that so many are not beyond."""

    def quantile(share: float) -> float:
        return float(ordered[max(0, ceil(share * len(ordered)) - 1)]) if ordered else streamed + 1.0

    return quantile


def believed(length: Length) -> Quantile:
    """The quantiles of what the core believes."""

    def quantile(share: float) -> float:
        return bins.quantiles(length.shares, [share])[0]

    return quantile


def pinball(quantile: Quantile, tokens: float) -> list[float]:
    """By share, in tokens."""
    return [max(share * (tokens - q), (share - 1.0) * (tokens - q)) for share in SHARES for q in (quantile(share),)]


def by_class(request: Request) -> tuple[str, ...]:
    """Its class, and what it is for."""
    return request.klass, request.klass.split("/", 1)[0]


def by_all(request: Request) -> tuple[str, ...]:
    """The finest group first."""
    klass, model, key = request.klass, request.model, request.key
    return f"{klass}|{model}|{key}", f"{klass}|{model}", *by_class(request)


class Model:
    """What the core believes."""

    def __init__(self) -> None:
        self._lengths = LengthModel()

    def turns(self, request: Request) -> Turns | None:
        """What is known of its conversation as it is sent."""
        return self._lengths.turns(request.session, beginnings_of(request))

    def learn(self, request: Request, tokens: int, now_s: float, turns: Turns | None) -> None:
        """Take in how long one output was."""
        self._lengths.learn(
            request.klass,
            float(tokens),
            now_s,
            model=request.model,
            key=request.key,
            prompt_tokens=request.prompt_tokens,
            session=request.session,
            beginning=next(reversed(beginnings_of(request)), 0),
            turns=turns,
        )

    def at(self, request: Request, turns: Turns | None) -> Length:
        """What is believed of its length."""
        return self._lengths.at(
            request.klass, request.output_tokens_max, request.model, request.key, request.prompt_tokens, turns
        )


class Scores:
    """What is scored of one trace."""

    def __init__(self) -> None:
        self.at: dict[str, list[list[float]]] = defaultdict(list)
        self.given: dict[int, dict[str, list[list[float]]]] = {s: defaultdict(list) for s in STREAMED}
        self.rest: dict[int, dict[str, list[float]]] = {s: defaultdict(list) for s in STREAMED}
        self.covered: list[list[bool]] = []
        self.brier: dict[str, list[float]] = defaultdict(list)

    def row(self, row: Row, length: Length, klass: Empirical, finest: Empirical, static: Empirical) -> None:
        """Score everybody on one row."""
        request, tokens, quantile = row.request, row.output_tokens, believed(length)
        self.at["model"].append(pinball(quantile, tokens))
        self.covered.append([tokens <= quantile(share) for share in SHARES])
        for limit in LIMITS:
            for name, middle, sigma in (
                ("median and spread", length.median_tokens, length.sigma),
                ("mean and half a logarithm", length.expected_tokens, 0.5),
            ):
                self.brier[name].append((probability_below(log(limit / middle) / sigma) - (tokens <= limit)) ** 2)
        for name, reference in (("class", klass), ("static", static), ("class, model and key", finest)):
            self.at[name].append(pinball(empirical(reference.at(request)), tokens))
        for streamed in STREAMED:
            if tokens > streamed:
                self._given(row, streamed, length, klass)

    def _given(self, row: Row, streamed: int, length: Length, klass: Empirical) -> None:
        tokens, given, rest = row.output_tokens, self.given[streamed], self.rest[streamed]
        quantile, later = believed(length), length.given(streamed)
        longer = klass.at(row.request, streamed)
        given["model"].append(pinball(believed(later), tokens))
        given["cut"].append(pinball(lambda share: max(quantile(share), streamed), tokens))
        given["class"].append(pinball(empirical(longer, streamed), tokens))
        left = tokens - streamed
        rest["model"].append(later.expected_tokens - streamed - left)
        rest["cut"].append(max(0.0, length.expected_tokens - streamed) - left)
        rest["class"].append((fmean(longer) - streamed if longer else 1.0) - left)


def score(rows: list[Row], *, train: float = TRAIN_SHARE, end: float = 1.0) -> Scores:
    """The rows between two shares of a trace, online."""
    scores, model = Scores(), Model()
    klass, finest, static = Empirical(by_class), Empirical(by_all, SEEN_MIN), Empirical(by_class)
    first, last = int(train * len(rows)), int(end * len(rows))
    under_way: list[tuple[float, int, Turns | None]] = []
    for number, row in enumerate(rows[:last]):
        while under_way and under_way[0][0] <= row.request.arrived_s:
            known_s, known, turns = heappop(under_way)
            request, tokens = rows[known].request, rows[known].output_tokens
            model.learn(request, tokens, known_s, turns)
            klass.learn(request, tokens)
            finest.learn(request, tokens)
            if known < first:
                static.learn(request, tokens)
        turns = model.turns(row.request)
        if number >= first:
            scores.row(row, model.at(row.request, turns), klass, finest, static)
        heappush(under_way, (row.known_s, number, turns))
    return scores


def figures(scores: Scores) -> dict[str, object]:
    """What is told of one trace, or of several together."""
    losses = {name: _mean(found) for name, found in scores.at.items()}
    mine = losses["model"]
    return {
        "rows": len(scores.covered),
        "ratio": _ratio(mine, losses["class"]),
        "ratio by share": _by_share(scores.at["model"], scores.at["class"]),
        "ratio to static": _ratio(mine, losses["static"]),
        "ratio to class, model and key": _ratio(mine, losses["class, model and key"]),
        "pinball_tokens": {name: round(loss, 2) for name, loss in losses.items()},
        "covered": {
            str(share): round(fmean(c[place] for c in scores.covered), 4) for place, share in enumerate(SHARES)
        },
        "brier": {name: round(fmean(errors), 4) for name, errors in scores.brier.items()},
        "given": {str(s): _given(scores.given[s], scores.rest[s]) for s in STREAMED if scores.given[s]},
    }


def _given(given: dict[str, list[list[float]]], rest: dict[str, list[float]]) -> dict[str, object]:
    mine = _mean(given["model"])
    return {
        "rows": len(given["model"]),
        "ratio to cut": _ratio(mine, _mean(given["cut"])),
        "ratio to class": _ratio(mine, _mean(given["class"])),
        "rest_tokens_error": {name: round(fmean(abs(e) for e in errors), 1) for name, errors in rest.items()},
        "rest_tokens_rms": {name: round(sqrt(fmean(e * e for e in errors)), 1) for name, errors in rest.items()},
        "rest_tokens_bias": {name: round(fmean(errors), 1) for name, errors in rest.items()},
    }


def _mean(found: Iterable[list[float]]) -> float:
    return fmean(fmean(losses) for losses in found)


def _ratio(mine: float, theirs: float) -> float:
    return round(mine / theirs, 4)


def _by_share(mine: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    return {
        str(share): _ratio(fmean(row[place] for row in mine), fmean(row[place] for row in theirs))
        for place, share in enumerate(SHARES)
    }


def pooled(parts: Iterable[Scores]) -> Scores:
    """All rows together."""
    whole = Scores()
    for part in parts:
        whole.covered += part.covered
        for name, errors in part.brier.items():
            whole.brier[name] += errors
        for name, found in part.at.items():
            whole.at[name] += found
        for streamed in STREAMED:
            for name, found in part.given[streamed].items():
                whole.given[streamed][name] += found
            for name, errors in part.rest[streamed].items():
                whole.rest[streamed][name] += errors
    return whole


def found() -> dict[str, object]:
    """All that is recorded."""
    scored = {name: score(rows) for name, rows in all_traces().items()}
    told = {name: figures(scores) for name, scores in scored.items()}
    ratios = {name: float(str(told[name]["ratio"])) for name in told}
    worst_first = sorted(ratios, key=lambda name: -ratios[name])
    return {
        "bound": BOUND,
        "missed": [name for name in worst_first if ratios[name] > BOUND],
        "ratio of traces": round(geometric_mean(ratios.values()), 4),
        "all": figures(pooled(scored.values())),
        **{name: told[name] for name in worst_first},
    }


def main() -> None:
    """Predict, compare, record."""
    assert "TIDEGATE_DATA" in os.environ, "TIDEGATE_DATA names the folder of public traces"
    record("length", found())


if __name__ == "__main__":
    main()
