"""One kind of time at one endpoint, to first token or per token: the sum of its parts, corrected, with its spread.

A regression finds what each part takes, corrections by kind of request what it cannot explain, promises how wide the
spread is, and a test whether everything has changed. Everything learned is decayed sums.
"""

from math import exp, log

import msgspec

from tidegate.core import correction, regression
from tidegate.core.calibration import Mean, Promises, Tracked, added, summed
from tidegate.core.correction import Correction, Residual, level_of, log_parts
from tidegate.core.regression import RATIO_MAX, Sums
from tidegate.core.shift import Shift, unmoved

# Of every kind of time; what a prediction is the sum of.
PARTS = 6
# After a change, what was known before it counts for as much as so many samples.
KEPT = 3.0
# A change shows in predictions that were known well enough to be wrong.
TRUST_MIN = 0.5
# Nothing that is timed repeats to better than this; errors smaller than it are no news.
SIGMA_MIN = 0.03
# Nor does a single error say more of the spread than so many deviations: where it is wide, more will follow.
ERROR_MAX = 3.0
ERROR_LOG_MAX = 1.5
# Work whose parts were all found to take nothing still takes something; a logarithm needs it.
RAW_S_MIN = 1e-6
# Of attempts that are given up in one moment, more than that say nothing new.
SILENCES_MAX = 16


class Silence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of an attempt of this kind that was given up before it showed anything: how long that took at least, over what
    its parts `x` were predicted to take.
    """

    row: int
    column: int
    log_ratio: float
    x: tuple[float, ...]


class Learned(msgspec.Struct):
    """All that is learned of one kind of time: what `Latency` works on.

    What `silences` mean depends on what is believed, so they wait for the moment to be over, and have no order then.
    """

    sums: Sums
    cells: list[Residual]
    shift: Shift
    promises: list[Tracked]
    mean: Mean
    silences: list[Silence] = []


class Sent(msgspec.Struct, gc=False):
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

    def high_s(self, deviations: float) -> float:
        """The upper quantile that lies so many deviations above the median."""
        return self.median_s * exp(deviations * self.sigma)


class Latency:
    """Predicts and learns one kind of time. `predict` and `factors` read; `learn`, `judge`, `learn_at_least` write."""

    __slots__ = ("_believed", "_columns", "_correction", "_factors", "_promises", "_stretches", "learned")

    def __init__(
        self,
        believed: list[float],
        rows: int,
        columns: int,
        prior_sigma: float,
        deviations: float,
        learned: Learned | None = None,
    ) -> None:
        """`believed` are the factors of the parts before anything was seen: 1 where the part was declared, else 0."""
        self._believed = believed
        self._columns = columns
        sums = regression.empty(believed) if learned is None else learned.sums
        self._factors = sums.factors
        self._correction = Correction(
            rows, columns, prior_sigma, None if learned is None else learned.cells, self._factors
        )
        self._promises = Promises(rows * columns, deviations, None if learned is None else learned.promises)
        if learned is None:
            learned = Learned(sums, self._correction.cells, unmoved(), self._promises.kinds, Mean())
        self.learned = learned
        self._stretches: list[float] = []
        self._stretch()

    @property
    def factors(self) -> list[float]:
        """What each part takes, as a multiple of what was believed of it; not to be changed."""
        return self._factors

    def predict(self, parts: list[float], row: int, column: int, now_s: float) -> Sent:
        """What so much work of this kind takes."""
        mix, sigma = self._correction.at(row, column, now_s)
        factors = self._factors
        raw_s = (
            factors[0] * parts[0]
            + factors[1] * parts[1]
            + factors[2] * parts[2]
            + factors[3] * parts[3]
            + factors[4] * parts[4]
            + factors[5] * parts[5]
        )
        if raw_s < RAW_S_MIN:
            raw_s = RAW_S_MIN
        stretch = self._stretches[row * self._columns + column]
        return Sent(
            parts,
            raw_s,
            raw_s * mix.factor,
            self.learned.mean.ratio(mix.variance),
            sigma * stretch,
            mix.trust,
            row,
            column,
        )

    def learn(self, sent: Sent, parts: list[float], took_s: float, times: float, now_s: float) -> None:
        """It took so long, `times` on end. `parts` are those in `sent`, or as they turned out to be."""
        self._settle(now_s)
        learned, median_s, raw_s = self.learned, sent.median_s, sent.raw_s
        if parts is not sent.parts:
            ratio = max(sum_of(self._factors, parts), RAW_S_MIN) / max(sum_of(self._factors, sent.parts), RAW_S_MIN)
            raw_s, median_s = raw_s * ratio, median_s * ratio
        scale_s = max(raw_s, took_s / RATIO_MAX)
        x = [part / scale_s for part in parts]
        learned.sums.fade(now_s)
        learned.sums.add(x, took_s / scale_s)
        error = log(took_s / median_s)
        most = min(ERROR_MAX * sent.sigma, ERROR_LOG_MAX)
        learned.mean.learn(took_s * times, median_s * times, sent.trust, now_s)
        self._correction.learn(
            sent.row,
            sent.column,
            log(took_s / scale_s),
            now_s,
            x=x,
            error=min(max(error, -most), most),
            trust=sent.trust,
        )
        if sent.trust > TRUST_MIN:
            learned.shift.add(error, max(sent.sigma, SIGMA_MIN))

    def judge(self, sent: Sent, missed: bool, quantile: float, sent_s: float) -> None:
        """Whether what was promised at this quantile was missed.

        What was promised before everything changed says nothing of promises now.
        """
        if sent_s < self.learned.shift.moved_s:
            return
        kind = sent.row * self._columns + sent.column
        self._promises.learn(kind, missed, quantile)
        self._stretch()

    def learn_at_least(self, sent: Sent, waited_s: float, now_s: float) -> None:
        """It takes that long at least."""
        self._settle(now_s)
        if len(self.learned.silences) < SILENCES_MAX:
            x = tuple(part / sent.raw_s for part in sent.parts)
            self.learned.silences.append(Silence(sent.row, sent.column, log(waited_s / sent.raw_s), x))

    def _settle(self, now_s: float) -> None:
        """A moment is over when the next begins: what has no order by itself is taken in then."""
        learned = self.learned
        if now_s <= learned.shift.at_s:
            return
        if learned.silences:
            for silence in sorted(learned.silences, key=_by_kind):
                x = list(silence.x)
                above = silence.log_ratio - log_parts(self._factors, x)
                self._correction.learn_at_least(silence.row, silence.column, above, learned.shift.at_s, x=x)
            learned.silences.clear()
        ratio = learned.shift.settled(now_s)
        if ratio is not None:
            learned.sums.shift(ratio)
            learned.sums.scale(min(1.0, KEPT / max(KEPT, learned.sums.weight)))
            learned.mean.took_s *= ratio
            learned.mean.median_s *= ratio
            self._correction.forget(KEPT, log(ratio))
            self._refer()
        if learned.sums.due:
            level = self._correction.level(self._believed)
            learned.sums.solve(self._believed, level, self._correction.cells[0].spread)
            self._refer()

    def _refer(self) -> None:
        self._factors = self.learned.sums.factors
        self._correction.refer(self._factors)

    def _stretch(self) -> None:
        promises = self._promises
        self._stretches = [promises.stretch(kind) for kind in range(len(promises.kinds) - 1)]


def sum_of(factors: list[float], parts: list[float]) -> float:
    """What parts take with their factors."""
    return sum(factor * part for factor, part in zip(factors, parts, strict=True))


def _by_kind(silence: Silence) -> tuple[int, int, float, tuple[float, ...]]:
    return silence.row, silence.column, silence.log_ratio, silence.x


def combined(one: Learned, other: Learned, believed: list[float]) -> Learned:
    """What both have learned of the same endpoint. A change that one of them suspects is suspected by nobody."""
    sums = regression.combined(one.sums, other.sums)
    cells = [correction.combined(a, b) for a, b in zip(one.cells, other.cells, strict=True)]
    found = Learned(
        sums=sums,
        cells=cells,
        shift=unmoved(),
        mean=summed(one.mean, other.mean),
        promises=[added(a, b) for a, b in zip(one.promises, other.promises, strict=True)],
        silences=sorted([*one.silences, *other.silences], key=_by_kind)[:SILENCES_MAX],
    )
    whole = cells[0]
    level = level_of(whole, believed)
    sums.solve(believed, level, whole.spread)
    return found
