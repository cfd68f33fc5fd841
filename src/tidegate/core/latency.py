"""One kind of time at one endpoint, to first token or per token: the sum of its parts, corrected, with its spread.

A regression finds what each part takes, corrections by kind of request what it cannot explain, promises how wide the
spread is, and a test whether everything has changed. Everything learned is decayed sums.
"""

from collections.abc import Collection
from math import exp, log, sqrt
from typing import Final

from tidegate.core import correction, regression
from tidegate.core.calibration import Mean, Promises, added, aged, learn_mean, ratio_of, summed
from tidegate.core.correction import Correction, Mix, Residual, level_of, log_parts
from tidegate.core.learned import Learned, Silence
from tidegate.core.record import Untracked
from tidegate.core.regression import RATIO_MAX, Sums
from tidegate.core.shift import add_error, change, unmoved

# Of every kind of time; what a prediction is the sum of.
PARTS: Final = 7
# After a change, what was known before it counts for as much as so many samples.
KEPT: Final = 3.0
# A change shows in predictions that were known well enough to be wrong.
TRUST_MIN: Final = 0.5
# Nothing that is timed repeats to better than this; errors smaller than it are no news.
SIGMA_MIN: Final = 0.03
# Nor does a single error say more of the spread than so many deviations: where it is wide, more will follow.
ERROR_MAX: Final = 3.0
ERROR_LOG_MAX: Final = 1.5
# And no more of where the middle is than half a deviation, above it or below: times are often those of two kinds, with
# and without a neighbour, and the mean of both is neither.
MIDDLE: Final = 0.5
# Until twenty or so have shown how wide the spread is.
MIDDLE_TRUST: Final = 0.87
# Work whose parts were all found to take nothing still takes something; a logarithm needs it.
RAW_S_MIN: Final = 1e-6
RAW_S_MAX: Final = 1e6
# Of attempts that are given up in one moment, more than that say nothing new.
SILENCES_MAX: Final = 16


class Sent(Untracked):
    """What was predicted of one attempt when it was sent, so that its end can teach.

    `parts` are seconds as believed at first, `raw_s` their sum with factors, `median_s` that corrected, and
    `mean_ratio` what the mean is over it. `row` and `column` are its kind, and `trust` is how well that was known.
    """

    parts: list[float]
    raw_s: float
    median_s: float
    mean_ratio: float
    sigma: float
    trust: float
    row: int
    column: int

    def had(self, factors: list[float], parts: list[float]) -> "Sent":
        """What would have been predicted of these parts, told by today's factors: by how many times what was sent they
        are, since the difference of what was predicted with two kinds of factors may be anything."""
        raw_s = min(max(self.raw_s * _times(factors, parts, self.parts), RAW_S_MIN), RAW_S_MAX)
        median_s = raw_s * self.median_s / self.raw_s
        return Sent(parts, raw_s, median_s, self.mean_ratio, self.sigma, self.trust, self.row, self.column)

    def high_s(self, deviations: float) -> float:
        """The upper quantile that lies so many deviations above the median."""
        return self.median_s * exp(deviations * self.sigma)

    def low_s(self, deviations: float) -> float:
        """The lower quantile that lies so many deviations below the median."""
        return self.median_s * exp(-deviations * self.sigma)


class _Known:
    """What is known of one kind until more is learned: its sum of parts is multiplied by a `factor`, and a normal
    spread by `stretch`. See `Mix`.

    No tuple but a class: where this is compiled, its numbers are read as they are.
    """

    __slots__ = ("at_s", "factor", "mean_ratio", "stretch", "trust", "variance", "weight")

    def __init__(self, mix: Mix, mean_ratio: float, stretch: float) -> None:
        self.factor, self.variance = exp(mix.bias), mix.variance
        self.mean_ratio, self.stretch = mean_ratio, stretch
        self.trust, self.weight, self.at_s = mix.trust, mix.weight, mix.at_s


class Latency:
    """Predicts and learns one kind of time. `predict`, `alone_s`, `median_s` and `factors` read; `correct`,
    `fit` and `learn_at_least` write."""

    __slots__ = (
        "_believed",
        "_columns",
        "_correction",
        "_known",
        "_measured",
        "_prior_variance",
        "_promises",
        "_unknown",
        "factors",
        "learned",
    )

    def __init__(
        self,
        believed: list[float],
        measured: Collection[int],
        rows: int,
        columns: int,
        prior_sigma: float,
        quantile: float,
        learned: Learned | None = None,
    ) -> None:
        """`believed` are the factors of the parts before anything was seen: 1 where the part was declared, else 0.

        Parts in `measured` are no declared ones but learned elsewhere, and grow with what is learned.
        """
        self._measured = measured
        self._believed = believed
        self._columns = columns
        sums = regression.empty(believed) if learned is None else learned.sums
        # What each part takes, as a multiple of what was believed of it; not to be changed.
        self.factors = sums.factors
        self._correction = Correction(
            rows, columns, prior_sigma, None if learned is None else learned.cells, self.factors
        )
        self._promises = Promises(rows * columns, quantile, None if learned is None else learned.promises)
        if learned is None:
            learned = Learned(sums, self._correction.cells, unmoved(), self._promises.kinds, Mean())
        self.learned = learned
        self._prior_variance = prior_sigma * prior_sigma
        self._unknown: list[_Known | None] = [None] * (rows * columns)
        self._known = self._unknown.copy()

    def predict(self, parts: list[float], row: int, column: int, now_s: float) -> Sent:
        """What so much work of this kind takes."""
        kind = row * self._columns + column
        known = self._known[kind]
        if known is None:
            known = self._know(kind, row, column)
        f0, f1, f2, f3, f4, f5, f6 = self.factors
        p0, p1, p2, p3, p4, p5, p6 = parts
        raw_s = f0 * p0 + f1 * p1 + f2 * p2 + f3 * p3 + f4 * p4 + f5 * p5 + f6 * p6
        if not RAW_S_MIN < raw_s < RAW_S_MAX:
            raw_s = RAW_S_MIN if raw_s <= RAW_S_MIN else RAW_S_MAX
        variance, age_s = known.variance, now_s - known.at_s
        if age_s > 0.0:
            variance += aged(variance, self._prior_variance, known.weight, age_s)
        median_s, sigma = raw_s * known.factor, sqrt(variance) * known.stretch
        return Sent(parts, raw_s, median_s, known.mean_ratio, sigma, known.trust, row, column)

    def alone_s(self, first_s: float) -> float:
        """The median of what `predict` says of a kind with nobody beside it, where all parts but the first are none."""
        raw_s = self.factors[0] * first_s
        if not RAW_S_MIN < raw_s < RAW_S_MAX:
            raw_s = RAW_S_MIN if raw_s <= RAW_S_MIN else RAW_S_MAX
        return self.median_s(raw_s, 0, 0)

    def median_s(self, raw_s: float, row: int, column: int) -> float:
        """The median of what `predict` says of this kind, where it finds that sum of parts."""
        kind = row * self._columns + column
        known = self._known[kind]
        if known is None:
            known = self._know(kind, row, column)
        return raw_s * known.factor

    def _know(self, kind: int, row: int, column: int) -> _Known:
        mix = self._correction.mixed(row, column)
        known = _Known(mix, ratio_of(self.learned.mean, mix.variance), self._promises.stretch(kind))
        self._known[kind] = known
        return known

    def correct(
        self,
        sent: Sent,
        took_s: float,
        times: float,
        missed: bool | None,
        sent_s: float,
        now_s: float,
        share: float = 1.0,
        telling: float = 1.0,
    ) -> None:
        """It took so long, `times` on end, and whether what was promised was `missed`: of what predictions lack. None
        is what nobody saw: how long that took was inferred, which says nothing of means and promises. Of other kinds
        it tells as much as so much of a sample.

        What was predicted before everything changed says nothing of spread, promises and further changes; of a change
        this is so much of a `share` of a proof.
        """
        self._settle(now_s)
        learned = self.learned
        shift, median_s, sigma, row, column = learned.shift, sent.median_s, sent.sigma, sent.row, sent.column
        error, trust = log(took_s / median_s), 0.0
        # What was predicted before a change is far off for that change, and no limit holds its sample back.
        counted_s, most = took_s, min(ERROR_MAX * sigma, ERROR_LOG_MAX)
        if sent_s >= shift.moved_s:
            trust = sent.trust
            if trust > MIDDLE_TRUST:
                counted_s = min(max(took_s, sent.low_s(MIDDLE)), sent.high_s(MIDDLE))
            if trust > TRUST_MIN:
                add_error(shift, error, max(sigma, SIGMA_MIN), share * telling)
            if missed is not None:
                self._promises.learn(row * self._columns + column, missed)
                learn_mean(learned.mean, took_s * times, median_s * times, trust, now_s)
        # Its parts are of what counts, too: of all that a stall takes they are next to nothing, as if work took less.
        scale_s = _scale_s(sent, counted_s)
        x = [part / scale_s for part in sent.parts]
        self._correction.learn(
            row,
            column,
            log(counted_s / scale_s),
            now_s,
            x=x,
            error=min(max(error, -most), most),
            trust=trust,
            telling=telling,
        )
        self._known = self._unknown.copy()

    def amend(self, sent: Sent, parts: list[float], took_s: float, sent_s: float, now_s: float) -> None:
        """What took so long were these parts and not those in `sent`, by which it was taken in: among the first of an
        endpoint, when predictions are still to find out how many tokens a text has. Later such errors scatter around
        what is known of them, and belong to what predictions are off.
        """
        self._settle(now_s)
        if sent.trust <= TRUST_MIN and parts is not sent.parts and sent_s >= self.learned.shift.moved_s:
            scale_s = _scale_s(sent, took_s)
            changes = [(part - before) / scale_s for part, before in zip(parts, sent.parts, strict=True)]
            self._correction.amend(sent.row, sent.column, changes)
            self._known = self._unknown.copy()

    def fit(self, sent: Sent, parts: list[float], took_s: float, until_s: float, now_s: float) -> None:
        """It took so long, until then: of what its parts take, those in `sent` or as they turned out to be."""
        self._settle(now_s)
        sums = self.learned.sums
        if until_s < self.learned.shift.moved_s:
            return
        scale_s = max(sent.raw_s * self._ratio(sent, parts), took_s / RATIO_MAX)
        regression.fade(sums, now_s)
        regression.add(sums, [part / scale_s for part in parts], took_s / scale_s)

    def _ratio(self, sent: Sent, parts: list[float]) -> float:
        """How many times what was sent these parts are."""
        return 1.0 if parts is sent.parts else _times(self.factors, parts, sent.parts)

    def holds_since(self, sent_s: float, now_s: float) -> bool:
        """Whether nothing has changed since then: else what was predicted was predicted of something else."""
        self._settle(now_s)
        return sent_s >= self.learned.shift.moved_s

    def learn_at_least(self, sent: Sent, waited_s: float, missed: bool, sent_s: float, now_s: float) -> None:
        """It takes that long at least; by then what was promised was `missed`, or it would still have been kept."""
        self._settle(now_s)
        if missed and sent_s >= self.learned.shift.moved_s:
            self._promises.learn(sent.row * self._columns + sent.column, missed)
            self._known = self._unknown.copy()
        if len(self.learned.silences) < SILENCES_MAX:
            x = tuple(part / sent.raw_s for part in sent.parts)
            self.learned.silences.append(Silence(sent.row, sent.column, log(waited_s / sent.raw_s), x))

    def _settle(self, now_s: float) -> None:
        """A moment is over when the next begins: what has no order by itself is taken in then."""
        learned = self.learned
        shift = learned.shift
        if now_s <= shift.at_s:
            return
        if learned.silences:
            for silence in sorted(learned.silences, key=_by_kind):
                x = list(silence.x)
                above = silence.log_ratio - log_parts(self.factors, x)
                self._correction.learn_at_least(silence.row, silence.column, above, shift.at_s, x=x)
            learned.silences.clear()
            self._known = self._unknown.copy()
        if self._promises.settle():
            self._known = self._unknown.copy()
        ratio, sums = change(shift, now_s), learned.sums
        if ratio is not None:
            regression.shift(sums, ratio, self._measured)
            regression.scale(sums, min(1.0, KEPT / max(KEPT, sums.weight)))
            learned.mean.took_s *= ratio
            learned.mean.median_s *= ratio
            self._correction.forget(KEPT, ratio, self._measured)
            self._refer()
        if regression.due(sums):
            _solve(sums, self._believed, self._correction.cells[0], self._measured)
            self._refer()

    def _refer(self) -> None:
        self.factors = self.learned.sums.factors
        self._correction.refer(self.factors)
        self._known = self._unknown.copy()


def _scale_s(sent: Sent, took_s: float) -> float:
    """What its parts are told by, in what is learned of them."""
    return max(sent.raw_s, took_s / RATIO_MAX)


def _times(factors: list[float], parts: list[float], before: list[float]) -> float:
    """How many times as long as those before these parts take."""
    return max(sum_of(factors, parts), RAW_S_MIN) / max(sum_of(factors, before), RAW_S_MIN)


def sum_of(factors: list[float], parts: list[float]) -> float:
    """What parts take with their factors."""
    seconds = 0.0
    for i, factor in enumerate(factors):
        seconds += factor * parts[i]
    return seconds


def _solve(sums: Sums, believed: list[float], whole: Residual, measured: Collection[int]) -> None:
    """Find the factors. How much of what is believed of an engine it takes is told by its own work alone: what others'
    requests add, the last part, may be of any size, and was found before that is asked."""
    regression.solve(sums, believed, level_of(whole, believed), whole.spread, measured)
    if whole.x and whole.x[-1] > 0.0:
        own = [*believed[:-1], sums.factors[-1]]
        regression.solve(sums, believed, level_of(whole, own), whole.spread, measured)


def _by_kind(silence: Silence) -> tuple[int, int, float, tuple[float, ...]]:
    return silence.row, silence.column, silence.log_ratio, silence.x


def combined(one: Learned, other: Learned, believed: list[float], measured: Collection[int]) -> Learned:
    """What both have learned of the same endpoint. A change that one of them suspects is suspected by nobody."""
    sums = regression.combined(one.sums, other.sums)
    cells = [correction.combined(a, b, believed) for a, b in zip(one.cells, other.cells, strict=True)]
    found = Learned(
        sums=sums,
        cells=cells,
        shift=unmoved(),
        mean=summed(one.mean, other.mean),
        promises=[added(a, b) for a, b in zip(one.promises, other.promises, strict=True)],
        silences=sorted([*one.silences, *other.silences], key=_by_kind)[:SILENCES_MAX],
    )
    _solve(sums, believed, cells[0], measured)
    return found
