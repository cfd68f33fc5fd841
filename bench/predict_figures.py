"""How good predictions were: errors, coverage, losses, recoveries, bias."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import exp, inf, lgamma, log
from random import Random
from statistics import median

import msgspec

from bench.predict_tap import Row
from tidegate.sim.api import Spread

WARM_UP = 200
BUCKET_ROWS_MIN = 60
PROMPT_EDGES = (256, 1024, 4096, 16_384)
LOAD_EDGES = (0, 3, 15)
CONFIDENCE = 0.95
RUNNING = 10
RECOVERED_ERROR = 0.15


def error(predicted: float, actual: float) -> float:
    """Absolute, relative to what was measured."""
    return abs(predicted - actual) / actual


# --- errors -------------------------------------------------------------------------------------------------------


class Errors(msgspec.Struct, kw_only=True):
    """Median absolute relative errors over the same rows; `ratio` is ours over the reference's."""

    rows: int
    ours: float
    reference: float
    ratio: float


def errors(
    rows: Sequence[Row],
    others: Sequence[float | None],
    target: Callable[[Row], float | None],
    ours: Callable[[Row], float],
) -> Errors | None:
    """Ours beside what `others` predict of the same rows, as far as they do; None where there is too little to tell."""
    pairs = []
    for row, other in zip(rows, others, strict=True):
        actual = target(row)
        if other is not None and actual:
            pairs.append((error(ours(row), actual), error(other, actual)))
    if len(pairs) < BUCKET_ROWS_MIN:
        return None
    own, theirs = median(one for one, _ in pairs), median(one for _, one in pairs)
    return Errors(rows=len(pairs), ours=own, reference=theirs, ratio=own / theirs if theirs else inf)


def noise_floor(spread: Spread, draws: int = 20_000) -> float:
    """The median error of who knows the median of these factors."""
    draw = Random(0)
    factors = [spread.drawn(draw) for _ in range(draws)]
    middle = median(factors)
    return median(error(middle, factor) for factor in factors)


# --- the upper quantile -------------------------------------------------------------------------------------------


class Bucket(msgspec.Struct, kw_only=True):
    """Rows that are alike: how many of them came in below the predicted quantile, and the losses."""

    prompt: str
    load: str
    rows: int
    covered: float
    inside: bool
    pinball: float
    pinball_best: float


def buckets(rows: Sequence[Row], quantile: float) -> list[Bucket]:
    """By length of prompt and load, those with enough rows after the warm-up."""
    parts: dict[tuple[int, int], list[Row]] = {}
    for row in rows[WARM_UP:]:
        key = bisect_left(PROMPT_EDGES, row.feature("prompt_tokens")), bisect_left(LOAD_EDGES, row.feature("in_flight"))
        parts.setdefault(key, []).append(row)
    found = []
    for (prompt, load), part in sorted(parts.items()):
        known = [hit for row in part if (hit := covered(row)) is not None]
        measured = [row for row in part if row.ttft_s]
        if len(known) < BUCKET_ROWS_MIN or not measured:
            continue
        hits = sum(known)
        found.append(
            Bucket(
                prompt=_named(PROMPT_EDGES, prompt),
                load=_named(LOAD_EDGES, load),
                rows=len(known),
                covered=hits / len(known),
                inside=inside(hits, len(known), quantile),
                pinball=sum(pinball(row.ttft_s or 0.0, row.predicted.ttft_s_high, quantile) for row in measured),
                pinball_best=best_pinball(measured, quantile),
            )
        )
    return found


class Whole(msgspec.Struct, kw_only=True):
    """How true it is what is said of all of an answer: the share of the rows that ended within the predicted quantile,
    and by how much the share of drawn promises that were kept was off from what was predicted, on average by tenths."""

    rows: int
    e2e_covered: float
    attainment_off: float


def whole(rows: Sequence[Row]) -> Whole | None:
    """Of answers that came to their end after the warm-up; None where these are too few."""
    ended = [row for row in rows[WARM_UP:] if row.ttft_s is not None and row.tpot_s is not None]
    if len(ended) < BUCKET_ROWS_MIN:
        return None
    tenths: dict[int, float] = {}
    for row in ended:
        said = row.predicted.attainment
        tenth = min(9, int(10.0 * said))
        tenths[tenth] = tenths.get(tenth, 0.0) + said - _kept(row)
    return Whole(
        rows=len(ended),
        e2e_covered=sum(row.e2e_s <= row.predicted.e2e_s_high for row in ended) / len(ended),
        attainment_off=sum(map(abs, tenths.values())) / len(ended),
    )


def _kept(row: Row) -> bool:
    drawn = row.predicted.drawn
    took = ((row.ttft_s, drawn.ttft_s), (row.tpot_s, drawn.tpot_s), (row.e2e_s, drawn.e2e_s))
    return all(seconds is not None and most is not None and seconds <= most for seconds, most in took)


def covered(row: Row) -> bool | None:
    """Whether it came in time; None where it was given up before that could be told."""
    if row.ttft_s is not None:
        return row.ttft_s <= row.predicted.ttft_s_high
    if row.given_up_s is not None and row.given_up_s > row.predicted.ttft_s_high:
        return False
    return None


def inside(hits: int, rows: int, share: float) -> bool:
    """Whether `share` is within the exact (Clopper-Pearson) interval of what was seen: neither tail is too thin."""
    tail = (1.0 - CONFIDENCE) / 2.0
    below = sum(_binomial(k, rows, share) for k in range(hits + 1))
    above = sum(_binomial(k, rows, share) for k in range(hits, rows + 1))
    return below > tail and above > tail


def _binomial(k: int, n: int, p: float) -> float:
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1.0 - p))


def pinball(actual: float, bound: float, quantile: float) -> float:
    """The loss that the quantile makes least."""
    return quantile * (actual - bound) if actual > bound else (1.0 - quantile) * (bound - actual)


def best_pinball(rows: Sequence[Row], quantile: float) -> float:
    """The least loss that a constant multiple of the predicted medians could have had: that of a weighted quantile."""
    ratios = sorted(((row.ttft_s or 0.0) / row.predicted.ttft_s, row.predicted.ttft_s) for row in rows)
    left = quantile * sum(weight for _, weight in ratios)
    factor = ratios[-1][0]
    for ratio, weight in ratios:
        left -= weight
        if left <= 0.0:
            factor = ratio
            break
    return sum(pinball(row.ttft_s or 0.0, factor * row.predicted.ttft_s, quantile) for row in rows)


def _named(edges: Sequence[int], index: int) -> str:
    return f"<={edges[index]}" if index < len(edges) else f">{edges[-1]}"


# --- changes and schedules ----------------------------------------------------------------------------------------


class Recovery(msgspec.Struct, kw_only=True):
    """Requests after a change until the median error of the last ten is below 15 % and stays so for the next ten; None
    where it never is. `before` is how often that holds of any time before the change: more cannot be expected."""

    after: int | None
    before: float


def recovery(rows: Sequence[Row], changed_s: float) -> Recovery:
    """By the order in which attempts were sent."""
    measured = [row for row in rows[WARM_UP - RUNNING :] if row.ttft_s]
    first = next((index for index, row in enumerate(measured) if row.sent_s > changed_s), len(measured))
    errors = [error(row.predicted.ttft_s, row.ttft_s or inf) for row in measured]
    good = [median(errors[end - RUNNING : end]) < RECOVERED_ERROR for end in range(RUNNING, len(errors) + 1)]
    stays = [all(good[begin : begin + RUNNING + 1]) for begin in range(len(good) - RUNNING)]
    changed = max(0, first - RUNNING)
    earlier = stays[: max(0, changed - RUNNING)]
    after = next((index for index, one in enumerate(stays[changed:]) if one), None)
    return Recovery(after=after, before=sum(earlier) / len(earlier) if earlier else 0.0)


class Bias(msgspec.Struct, kw_only=True):
    """Predicted over actual, of sums: of the time in a slot with the true and with the expected length of outputs, and
    of the time to first content."""

    occupancy: float
    occupancy_by_length: float
    ttft: float


def bias(rows: Sequence[Row]) -> Bias | None:
    """Over what was served, after the warm-up."""
    served = [row for row in rows[WARM_UP:] if row.output_tokens and row.ttft_s]
    if not served:
        return None
    actual_s = sum(row.e2e_s for row in served)
    ttft_s = sum(row.predicted.first_s_mean for row in served)
    known_s = sum(row.predicted.tpot_s_mean * ((row.output_tokens or 1) - 1) for row in served)
    expected_s = sum(row.predicted.tpot_s_mean * row.predicted.output_tokens for row in served)
    return Bias(
        occupancy=(ttft_s + known_s) / actual_s,
        occupancy_by_length=(ttft_s + expected_s) / actual_s,
        ttft=ttft_s / sum(row.ttft_s or 0.0 for row in served),
    )
