"""A choice for each of many, all of whom need of the same resources: as a linear program, and as its dual.

It knows nothing of requests and engines; `oracle` says what is chosen.
"""

from collections.abc import Sequence
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Part(msgspec.Struct, frozen=True):
    """Work that is done where there is room for it: at each of some places at most the share `most` of all of it.

    All of it at one place would use `uses[i]` of the resource `resources[i, place]`.
    """

    resources: Ints
    uses: Floats
    most: Floats


class Option(msgspec.Struct, frozen=True):
    """One way to serve somebody: what it is worth in dollars, and all that has to be done for it."""

    usd: float
    parts: tuple[Part, ...]


class Supply(msgspec.Struct, frozen=True):
    """What may be done, up to `most`, for the sake of all: each of it uses so much of resources, or makes so much
    where that is negative."""

    resources: tuple[int, ...]
    uses: tuple[float, ...]
    most: float


class Program(msgspec.Struct, frozen=True):
    """For each of `choices` one of its options is taken, or none. Of each resource there is `capacity`."""

    choices: Sequence[Sequence[Option]]
    supplies: Sequence[Supply]
    capacity: Floats

    def dual(self, prices: Floats) -> float:
        """Dollars that no choice exceeds, whatever the prices, which must not be negative."""
        assert prices.shape == self.capacity.shape
        assert not (prices < 0.0).any(), "a price is not negative"
        usd = float(prices @ self.capacity)
        for supply in self.supplies:
            gain = -sum(use * float(prices[at]) for at, use in zip(supply.resources, supply.uses, strict=True))
            # None of it, where nothing is gained by it, and it may be without limit.
            usd += gain * supply.most if gain > 0.0 else 0.0
        for options in self.choices:
            usd += max(0.0, max((one.usd - _cost(one, prices) for one in options), default=0.0))
        return usd


class Solved(msgspec.Struct, frozen=True):
    """What is chosen, as shares of each option, what that is worth, and the price of each resource (no prices where
    choices are whole)."""

    usd: float
    shares: list[list[float]]
    prices: Floats


def solve(program: Program, *, whole: bool = False) -> Solved:
    """The best choice; with `whole`, that nothing is done by halves. Raises `RuntimeError` where the solver fails."""
    if not program.choices:
        return Solved(0.0, [], np.zeros_like(program.capacity))
    columns = _Columns(program)
    # In numbers near one, since tolerances are absolute.
    scale = float(np.abs(columns.usd).max()) or 1.0
    if whole:
        return _whole(program, columns, scale)
    result = linprog(
        -columns.usd / scale,
        A_ub=columns.at_most,
        b_ub=columns.limits,
        A_eq=columns.equal,
        b_eq=np.zeros(columns.equal.shape[0]),
        bounds=np.column_stack([np.zeros_like(columns.most), columns.most]),
        method="highs-ipm",  # thrice as fast here as the simplex
    )
    if result.x is None:
        raise RuntimeError(f"the linear program is not solved: {result.message}")
    prices = np.maximum(0.0, -result.ineqlin.marginals[: len(program.capacity)]) * scale
    return Solved(-float(result.fun) * scale, columns.shares(result.x), prices)


def _whole(program: Program, columns: "_Columns", scale: float) -> Solved:
    integrality = np.zeros(len(columns.usd))
    integrality[: columns.options] = 1
    result = milp(
        -columns.usd / scale,
        integrality=integrality,
        bounds=Bounds(np.zeros_like(columns.most), columns.most),
        constraints=[
            LinearConstraint(columns.at_most, -inf, columns.limits),
            LinearConstraint(columns.equal, 0.0, 0.0),
        ],
        options={"mip_rel_gap": 1e-6},
    )
    if result.x is None:
        raise RuntimeError(f"the integer program is not solved: {result.message}")
    # What cannot be more, in case it is not the best.
    return Solved(-float(result.mip_dual_bound) * scale, columns.shares(result.x), np.zeros_like(program.capacity))


def _cost(option: Option, prices: Floats) -> float:
    """The least that its work costs."""
    return sum(_part_cost(part, prices) for part in option.parts)


def _part_cost(part: Part, prices: Floats) -> float:
    each = part.uses @ prices[part.resources]
    order = np.argsort(each, kind="stable")
    most = part.most[order]
    # The cheapest places first, each as full as it may be.
    before = np.concatenate([[0.0], np.cumsum(most)[:-1]])
    return float(each[order] @ np.clip(1.0 - before, 0.0, most))


class _Columns:
    """The program as matrices: first all options, then their work, then supplies."""

    def __init__(self, program: Program) -> None:
        self._counts = [len(options) for options in program.choices]
        flat = [option for options in program.choices for option in options]
        self.options = len(flat)
        rows, cols, data = [], [], []  # of what is limited
        equal_rows, equal_cols, equal_data = [], [], []
        mosts: list[Floats] = [np.ones(self.options)]
        resources = len(program.capacity)
        at, parts = self.options, 0
        for number, option in enumerate(flat):
            for part in option.parts:
                size = len(part.most)
                places = np.arange(at, at + size)
                rows.append(part.resources.ravel())
                cols.append(np.tile(places, len(part.uses)))
                data.append(np.repeat(part.uses, size))
                equal_rows.append(np.full(size + 1, parts))
                equal_cols.append(np.append(places, number))
                equal_data.append(np.append(np.ones(size), -1.0))
                mosts.append(part.most)
                at, parts = at + size, parts + 1
        for supply in program.supplies:
            rows.append(np.array(supply.resources))
            cols.append(np.full(len(supply.resources), at))
            data.append(np.array(supply.uses))
            mosts.append(np.array([supply.most]))
            at += 1
        # Of each one option at most.
        rows.append(resources + np.repeat(np.arange(len(self._counts)), self._counts))
        cols.append(np.arange(self.options))
        data.append(np.ones(self.options))
        shape = resources + len(self._counts), at
        self.at_most = csr_array((np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=shape)
        self.limits: Floats = np.concatenate([program.capacity, np.ones(len(self._counts))])
        pairs = [np.concatenate(one) if one else np.zeros(0, dtype=np.int64) for one in (equal_rows, equal_cols)]
        values = np.concatenate(equal_data) if equal_data else np.zeros(0)
        self.equal = csr_array((values, (pairs[0], pairs[1])), shape=(parts, at))
        self.most: Floats = np.concatenate(mosts)
        self.usd = np.zeros(at)
        self.usd[: self.options] = [option.usd for option in flat]

    def shares(self, x: Floats) -> list[list[float]]:
        """Of each option of each choice, from 0 to 1."""
        taken = iter(np.clip(x[: self.options], 0.0, 1.0).tolist())
        return [[next(taken) for _ in range(count)] for count in self._counts]
