"""The record of what is learned of one kind of time."""

import msgspec

from tidegate.core.calibration import Mean
from tidegate.core.correction import Residual
from tidegate.core.counts import Tracked
from tidegate.core.regression import Sums


class Side(msgspec.Struct, array_like=True):
    """Errors of one sign since they began to add up: how far they did, their sum and their number."""

    height: float = 0.0
    total: float = 0.0
    count: float = 0.0


class Shift(msgspec.Struct):
    """Watches errors of predictions, log(actual / predicted), until `at_s`. `moved_s` is when a change was last
    found."""

    up: Side
    down: Side
    at_s: float = 0.0
    moved_s: float = 0.0


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
