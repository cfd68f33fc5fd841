"""Errors of predictions, counted in steps of one per cent: medians of any number of them in bounded memory."""

from math import exp, expm1, floor, log, sqrt

# Of the logarithm. A median is right to half a step.
STEP = 0.01
# A prediction that is wrong by more is a fault of a clock; 1,001 steps are all there are.
LOG_MAX = 5.0


class Histogram:
    """How often each log(measured / predicted) was seen. Adding two up is seeing what either has seen."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, log_ratio: float) -> None:
        """Count one."""
        step = _step(log_ratio)
        self.counts[step] = self.counts.get(step, 0) + 1
        self.total += 1

    def take(self, other: "Histogram") -> None:
        """Count all that the other one has."""
        for step, count in other.counts.items():
            self.counts[step] = self.counts.get(step, 0) + count
        self.total += other.total

    def below(self, log_ratio: float) -> float:
        """The share of what was seen that is less; of what is equal a half counts. Never 0 or 1."""
        step = _step(log_ratio)
        less = sum(count for one, count in self.counts.items() if one < step)
        return (less + self.counts.get(step, 0) / 2.0 + 0.5) / (self.total + 1.0)

    @property
    def ratio(self) -> float:
        """The median of measured / predicted."""
        return exp(self._middle(sorted(self.counts.items())))

    @property
    def bias(self) -> float:
        """The median of predicted / measured - 1: above zero, more was predicted than it took."""
        return 1.0 / self.ratio - 1.0

    @property
    def error(self) -> float:
        """The median of |predicted / measured - 1|."""
        return abs(expm1(-self._middle(sorted(self.counts.items(), key=lambda one: abs(expm1(-STEP * one[0]))))))

    def _middle(self, ranked: list[tuple[int, int]]) -> float:
        """The log ratio in the middle, of steps in this order."""
        assert self.total, "there is no median of nothing"
        seen = 0
        for step, count in ranked:
            seen += count
            if 2 * seen >= self.total:
                return STEP * step
        raise AssertionError("all were counted")


class Stretch:
    """A series of any length, in `PARTS` histograms at most, so that its beginning and end can be told apart."""

    PARTS = 48

    __slots__ = ("_each", "_parts")

    def __init__(self) -> None:
        self._parts = [Histogram()]
        self._each = 4

    def add(self, log_ratio: float) -> None:
        """Count the next one."""
        if self._parts[-1].total >= self._each:
            if len(self._parts) == self.PARTS:
                self._halve()
            self._parts.append(Histogram())
        self._parts[-1].add(log_ratio)

    def _halve(self) -> None:
        """As many parts, twice as long."""
        for index in range(self.PARTS // 2):
            self._parts[index] = _sum(self._parts[2 * index : 2 * index + 2])
        del self._parts[self.PARTS // 2 :]
        self._each *= 2

    def whole(self) -> Histogram:
        """All of it."""
        return _sum(self._parts)

    def thirds(self) -> tuple[Histogram, Histogram]:
        """The first and the last third, to a part."""
        third = max(1, len(self._parts) // 3)
        return _sum(self._parts[:third]), _sum(self._parts[-third:])


class Coverage:
    """How often a bound held that should hold with some probability."""

    __slots__ = ("held", "total")

    def __init__(self, held: int = 0, total: int = 0) -> None:
        self.held, self.total = held, total

    def add(self, *, held: bool) -> None:
        """Count one."""
        self.held += held
        self.total += 1

    def interval(self, deviations: float) -> tuple[float, float]:
        """Where the probability lies (Wilson's score interval); 1.96 deviations are 95 %."""
        n, z2 = self.total, deviations * deviations
        share = self.held / n
        middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n)
        half = deviations / (1.0 + z2 / n) * sqrt(share * (1.0 - share) / n + z2 / (4.0 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def log_ratio(measured: float, predicted: float) -> float:
    """How much longer it took than predicted, as a logarithm within what is counted."""
    if measured <= 0.0 or predicted <= 0.0:
        return 0.0 if measured == predicted else (LOG_MAX if measured > predicted else -LOG_MAX)
    return min(max(log(measured / predicted), -LOG_MAX), LOG_MAX)


def _step(ratio: float) -> int:
    return floor(min(max(ratio, -LOG_MAX), LOG_MAX) / STEP + 0.5)


def _sum(parts: list[Histogram]) -> Histogram:
    found = Histogram()
    for part in parts:
        found.take(part)
    return found
