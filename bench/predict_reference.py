"""What a batch-fitted model predicts, from the same features, of the same attempts."""

from collections.abc import Callable, Sequence
from math import exp, log

from sklearn.ensemble import HistGradientBoostingRegressor

from bench.predict_figures import WARM_UP
from bench.predict_tap import Row

REFIT_EVERY = 200
REFIT_ON = 2000
ROWS_MIN = 60


def reference(rows: Sequence[Row], target: Callable[[Row], float | None]) -> list[float | None]:
    """What gradient-boosted trees predict of each row after the warm-up, None before.

    They are fitted anew every 200 rows, to the logarithm of the last 2,000 that had ended by then.
    """
    found: list[float | None] = [None] * len(rows)
    for begin in range(WARM_UP, len(rows), REFIT_EVERY):
        now_s = rows[begin].sent_s
        known = [(row.features, value) for row in rows[:begin] if row.ended_s <= now_s and (value := target(row))]
        known = known[-REFIT_ON:]
        if len(known) < ROWS_MIN:
            continue
        model = HistGradientBoostingRegressor(max_iter=120, learning_rate=0.08, min_samples_leaf=8, random_state=0)
        model.fit([list(features) for features, _ in known], [log(value) for _, value in known])
        part = rows[begin : begin + REFIT_EVERY]
        for index, value in enumerate(model.predict([list(row.features) for row in part])):
            found[begin + index] = exp(value)
    return found
