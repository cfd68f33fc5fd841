"""How good predictions were, endpoint by endpoint, and whether they still are: from a journal, in bounded memory."""

from bisect import bisect_left
from collections import deque

from tidegate.core.diagnosis import Accuracy, Bucket, Diagnosis, Drift, Health, Promise, Total, findings
from tidegate.core.hindsight import Compared, Hindsight
from tidegate.core.histogram import Coverage, Histogram, Stretch, log_ratio
from tidegate.core.model import Decision, Ending, Line
from tidegate.core.overlap import Overlap
from tidegate.core.watch import Alarm, Watch

# Prompt tokens, and how many others are in flight: errors are told apart by these.
LENGTH_EDGES = (64, 256, 1024, 4096, 16384)
LOAD_EDGES = (0, 1, 3, 7)
# An alarm is on while it was raised among so many attempts; older ones are told of, and are history.
RECENT = 100
# Of an endpoint, or of one of its buckets: fewer say nothing.
ATTEMPTS_MIN = 30
BUCKET_MIN = 15
# 95 of 100 such intervals hold what they are about, and 999 of 1,000: the first is told, by the second an alarm goes.
INTERVAL_DEVIATIONS = 1.96
ALARM_DEVIATIONS = 3.29
# Endpoints of a configuration are a handful; names that reloads brought and took are told of up to this many.
ENDPOINTS_MAX = 1024


class _Figure:
    """TTFT, TPOT, or E2E of answers in one piece, of one endpoint."""

    def __init__(self) -> None:
        self.all = Stretch()
        self.cells: dict[tuple[int, int], Histogram] = {}
        self.watch = Watch()

    def add(self, one: Compared, measured_s: float, predicted_s: float, believed_s: float | None) -> None:
        ratio, cell = log_ratio(measured_s, predicted_s), _bucket(one)
        self.all.add(ratio)
        self.cells.setdefault(cell, Histogram()).add(ratio)
        if believed_s is not None:
            self.watch.add(cell, log_ratio(measured_s, believed_s), one.ended_s)

    def told(self) -> Accuracy | None:
        """The figures, None where there are too few to tell."""
        whole = self.all.whole()
        if whole.total < ATTEMPTS_MIN:
            return None
        first, last = self.all.thirds()
        return Accuracy(
            attempts=whole.total,
            error=whole.error,
            bias=whole.bias,
            error_first_third=first.error,
            error_last_third=last.error,
            worst=self._worst(),
            slower=self._drift(self.watch.slower.alarm),
            faster=self._drift(self.watch.faster.alarm),
        )

    def _worst(self) -> Bucket | None:
        known = [(counted.error, cell) for cell, counted in self.cells.items() if counted.total >= BUCKET_MIN]
        if len(known) < 2:
            return None
        _, (row, column) = max(known)
        counted = self.cells[row, column]
        return Bucket(
            prompt_tokens=_span(LENGTH_EDGES, row),
            load=_span(LOAD_EDGES, column),
            attempts=counted.total,
            error=counted.error,
            bias=counted.bias,
        )

    def _drift(self, alarm: Alarm | None) -> Drift | None:
        if alarm is None:
            return None
        ago = self.watch.number - alarm.number
        return Drift(
            since_s=alarm.since_s,
            noticed_s=alarm.noticed_s,
            attempts_ago=ago,
            ratio=alarm.seen.ratio,
            now=ago < RECENT,
        )


class _Sums:
    """What was predicted and what it came to, added up; and the errors of each."""

    def __init__(self) -> None:
        self.predicted = self.measured = 0.0
        self.errors = Histogram()

    def add(self, predicted: float, measured: float) -> None:
        self.predicted += predicted
        self.measured += measured
        self.errors.add(log_ratio(measured, predicted))

    def told(self) -> Total | None:
        errors = self.errors
        if errors.total < ATTEMPTS_MIN or self.measured <= 0.0:
            return None
        return Total(attempts=errors.total, predicted=self.predicted, measured=self.measured, error=errors.error)


class _Patient:
    """One endpoint."""

    def __init__(self) -> None:
        self.attempts = self.taught = self.untold = 0
        self.ttft, self.tpot, self.whole = _Figure(), _Figure(), _Figure()
        self.output_tokens, self.cost_usd = _Sums(), _Sums()
        # Another quantile is another promise: what was kept of the old one says nothing of it.
        self.quantile = 0.0
        self.kept = Coverage()
        self.recent: deque[bool] = deque(maxlen=RECENT)

    def add(self, one: Compared) -> None:
        self.attempts += 1
        if not one.teaches:
            return
        predicted, believed, ended = one.predicted, one.believed, one.ended
        if one.ttft_s is not None:
            self.taught += 1
            self.ttft.add(one, one.ttft_s, predicted.ttft_s, None if believed is None else believed.ttft_s)
            self._judge(one.quantile, held=one.ttft_s <= predicted.ttft_s_high)
        elif one.left_s is not None and one.left_s > predicted.ttft_s_high:
            # Nobody waited for its first content: it would have come too late in any case.
            self._judge(one.quantile, held=False)
        elif (tokens := one.whole_tokens) is not None:
            self.taught += 1
            believed_s = None if believed is None else believed.whole_s(tokens)
            self.whole.add(one, ended.e2e_s, predicted.whole_s(tokens), believed_s)
        elif one.in_one_piece and ended.output_tokens is None:
            self.untold += 1
        if one.tpot_s is not None:
            self.tpot.add(one, one.tpot_s, predicted.tpot_s, None if believed is None else believed.tpot_s)
        if ended.ending is Ending.OK and ended.output_tokens:
            self.output_tokens.add(predicted.output_tokens, ended.output_tokens)
        if one.cost_usd is not None and max(one.cost_usd, predicted.cost_usd) > 0.0:
            self.cost_usd.add(predicted.cost_usd, one.cost_usd)

    def _judge(self, quantile: float, *, held: bool) -> None:
        if quantile != self.quantile:
            self.quantile, self.kept = quantile, Coverage()
            self.recent.clear()
        self.kept.add(held=held)
        self.recent.append(held)

    def told(self, endpoint: str) -> Health:
        health = Health(
            endpoint=endpoint,
            attempts=self.attempts,
            taught=self.taught,
            untold=self.untold,
            ttft=self.ttft.told(),
            tpot=self.tpot.told(),
            whole=self.whole.told(),
            promise=self._promise(),
            output_tokens=self.output_tokens.told(),
            cost_usd=self.cost_usd.told(),
        )
        return findings(health, ATTEMPTS_MIN)

    def _promise(self) -> Promise | None:
        if self.kept.total < ATTEMPTS_MIN:
            return None
        low, high = self.kept.interval(INTERVAL_DEVIATIONS)
        recent = Coverage(sum(self.recent), len(self.recent))
        return Promise(
            attempts=self.kept.total,
            quantile=self.quantile,
            kept=self.kept.held / self.kept.total,
            low=low,
            high=high,
            kept_lately=recent.held / recent.total,
            broken_now=recent.interval(ALARM_DEVIATIONS)[1] < self.quantile,
        )


class Doctor:
    """Feed it a journal, line by line; `diagnosis` says how things are so far."""

    def __init__(self) -> None:
        self._hindsight = Hindsight()
        self._overlap = Overlap()
        self._patients: dict[str, _Patient] = {}
        self._from_s: float | None = None
        self._until_s = 0.0
        self._decisions = 0

    def feed(self, line: Line) -> None:
        """Take in one line. Raises `ReplayError` where it cannot be replayed."""
        compared = self._hindsight.feed(line)
        self._from_s = line.at_s if self._from_s is None else self._from_s
        # Of runs that overlap, the last that is read need not be the last to write.
        self._until_s = max(self._until_s, line.at_s)
        self._overlap.feed(line)
        self._decisions += isinstance(line.fact, Decision)
        if compared is None:
            return
        name = compared.endpoint.name
        patient = self._patients.get(name)
        if patient is None:
            if len(self._patients) >= ENDPOINTS_MAX:
                return
            patient = self._patients[name] = _Patient()
        patient.add(compared)

    def diagnosis(self) -> Diagnosis:
        """What there is to say, of every endpoint that the journal ends with or was seen at work."""
        router = self._hindsight.replay.router
        names = set(self._patients) | (set() if router is None else set(router.state.endpoints))
        told = tuple(self._patients.get(name, _Patient()).told(name) for name in sorted(names))
        return Diagnosis(
            from_s=self._from_s,
            until_s=self._until_s,
            decisions=self._decisions,
            otherwise=self._hindsight.otherwise,
            overlapping=self._overlap.runs,
            alarm=any(finding.alarm for health in told for finding in health.findings),
            endpoints=told,
        )


def _bucket(one: Compared) -> tuple[int, int]:
    predicted = one.predicted
    return bisect_left(LENGTH_EDGES, predicted.prompt_tokens), bisect_left(LOAD_EDGES, predicted.load)


def _span(edges: tuple[int, ...], index: int) -> tuple[int, int | None]:
    """The least and the most of a bucket; None is no end."""
    return (0 if index == 0 else edges[index - 1] + 1), (None if index == len(edges) else edges[index])
