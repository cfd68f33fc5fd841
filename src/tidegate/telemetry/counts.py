"""Counters and histograms by label: plain numbers, and no more labels than there is room for."""

from typing import Final

from tidegate.core.edges import place_of

# Classes are configured and sizes are three, but a bound that is not enforced is none: beyond it, `other`.
LABELS_MAX = 1000
OTHER = "other"
SECONDS_MAX: Final = 1e12
"""Longer is no time, and no ratio of times."""
# Up to ten minutes, which a request may take unless another time-out is set, and what is usual beyond.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
# Of tokens: from a small model on a good accelerator to what no reader waits for, each at most twice the one before.
TPOT_SECONDS = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0)
# Of decisions and of the event loop, which something may stop for seconds.
SHORT_SECONDS = (10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.25, 1.0, 5.0)
RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class Histogram:
    """Counts per bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; one that is none, by a division by next to nothing, would spoil the sum for ever."""
        if not 0.0 <= value < SECONDS_MAX:
            return
        self.counts[place_of(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        total, found = 0, []
        for bound, count in zip([*map(repr, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Counters:
    """Numbers by a tuple of labels."""

    def __init__(self) -> None:
        self.by_labels: dict[tuple[str, ...], float] = {}

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Count."""
        by_labels = self.by_labels
        found = by_labels.get(labels)
        if found is None:
            if len(by_labels) >= LABELS_MAX:
                labels = (OTHER,) * len(labels)
            found = by_labels.get(labels, 0.0)
        by_labels[labels] = found + amount
