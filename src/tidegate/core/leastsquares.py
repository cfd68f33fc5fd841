"""Least squares with physical signs: nothing takes less than no time."""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from typing import Final

# Of a column of length 1: what the others leave of it is rounding.
SINGULAR: Final = 1e-10


def non_negative(rows: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """The x >= 0 with the least squares of `rows x - target`.

    At the least, those above zero solve the problem of their own columns: with so few columns all sets of them can be
    tried. Of two that explain as much, the smaller set counts.
    """
    columns = list(zip(*rows, strict=True))
    sizes = [sqrt(sum(value * value for value in column)) or 1.0 for column in columns]
    scaled = [[value / size for value in column] for column, size in zip(columns, sizes, strict=True)]
    gram = [[_dot(one, other) for other in scaled] for one in scaled]
    right = [_dot(one, target) for one in scaled]
    best, explained_best = [0.0] * len(columns), 0.0
    for count in range(1, len(columns) + 1):
        for chosen in combinations(range(len(columns)), count):
            found = _system([[gram[i][j] for j in chosen] for i in chosen], [right[i] for i in chosen])
            if found is None or min(found) < 0.0:
                continue
            explained = sum(x * right[i] for x, i in zip(found, chosen, strict=True))
            if explained > explained_best * (1.0 + SINGULAR):
                explained_best = explained
                best = [0.0] * len(columns)
                for x, i in zip(found, chosen, strict=True):
                    best[i] = x / sizes[i]
    return best


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _system(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """The solution of a small symmetric system, None where it has no single one (Cholesky's decomposition)."""
    size = len(right)
    low = [[0.0] * size for _ in right]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - _dot(low[i][:j], low[j][:j])
            if i == j:
                if rest <= SINGULAR:
                    return None
                low[i][i] = sqrt(rest)
            else:
                low[i][j] = rest / low[j][j]
    half: list[float] = []
    for i in range(size):
        half.append((right[i] - _dot(low[i][:i], half)) / low[i][i])
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (half[i] - sum(low[j][i] * found[j] for j in range(i + 1, size))) / low[i][i]
    return found
