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


# So near to the best a choice of whole options is taken for it, and what is told is what none exceeds.
_GAP = 1e-4


class Part(msgspec.Struct, frozen=True):
    """Work that is done where there is room for it: at each of some places at most the share `most` of all of it.

    All of it at one place would use `uses[i, place]` of the resource `resources[i, place]`.
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


class Resources:
    """What there is of everything, in the making: `rows` by the name of each resource."""

    def __init__(self) -> None:
        self.rows: dict[str, Ints] = {}
        self.supplies: list[Supply] = []
        self.capacity: Floats = np.zeros(0)

    def add(self, name: str, capacity: Floats) -> Ints:
        """One more resource, of which there is so much in each span; the numbers by which it is called."""
        rows = self.rows[name] = np.arange(len(self.capacity), len(self.capacity) + len(capacity))
        self.capacity = np.concatenate([self.capacity, capacity])
        return rows

    def supply(self, resources: tuple[int, ...], uses: tuple[float, ...], most: float) -> None:
        """Something that may be done for all."""
        self.supplies.append(Supply(resources, uses, most))


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
    if not any(program.choices):
        return Solved(0.0, [[] for _ in program.choices], np.zeros_like(program.capacity))
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
        options={"mip_rel_gap": _GAP},
    )
    if result.x is None:
        raise RuntimeError(f"the integer program is not solved: {result.message}")
    # What cannot be more, in case it is not the best.
    return Solved(-float(result.mip_dual_bound) * scale, columns.shares(result.x), np.zeros_like(program.capacity))


def _cost(option: Option, prices: Floats) -> float:
    """The least that its work costs."""
    return sum(_part_cost(part, prices) for part in option.parts)


def _part_cost(part: Part, prices: Floats) -> float:
    each = (part.uses * prices[part.resources]).sum(axis=0)
    order = np.argsort(each, kind="stable")
    most = part.most[order]
    # The cheapest places first, each as full as it may be.
    before = np.concatenate([[0.0], np.cumsum(most)[:-1]])
    return float(each[order] @ np.clip(1.0 - before, 0.0, most))


class _Entries:
    """A sparse matrix in the making."""

    def __init__(self) -> None:
        self._rows: list[Ints] = []
        self._columns: list[Ints] = []
        self._values: list[Floats] = []

    def add(self, rows: Ints, columns: Ints, values: Floats) -> None:
        """So many entries, one for each of these."""
        self._rows.append(rows)
        self._columns.append(columns)
        self._values.append(values)

    def matrix(self, rows: int, columns: int) -> csr_array:
        """All of them."""
        if not self._rows:
            return csr_array((rows, columns))
        at = np.concatenate(self._rows), np.concatenate(self._columns)
        return csr_array((np.concatenate(self._values), at), shape=(rows, columns))


class _Columns:
    """The program as matrices: first all options, then their work, then supplies."""

    def __init__(self, program: Program) -> None:
        self._counts = [len(options) for options in program.choices]
        flat = [option for options in program.choices for option in options]
        self.options = self._width = len(flat)
        self._limited, self._equal = _Entries(), _Entries()
        self._mosts: list[Floats] = [np.ones(self.options)]
        resources, choices = len(program.capacity), len(self._counts)
        # Of each one option at most.
        each = resources + np.repeat(np.arange(choices), self._counts)
        self._limited.add(each, np.arange(self.options), np.ones(self.options))
        self._parts = 0
        for number, option in enumerate(flat):
            for part in option.parts:
                self._add(part, number)
        for supply in program.supplies:
            column = self._columns(np.array([supply.most]))
            self._limited.add(np.array(supply.resources), column.repeat(len(supply.uses)), np.array(supply.uses))
        self.at_most = self._limited.matrix(resources + choices, self._width)
        self.equal = self._equal.matrix(self._parts, self._width)
        self.limits: Floats = np.concatenate([program.capacity, np.ones(choices)])
        self.most: Floats = np.concatenate(self._mosts)
        self.usd = np.zeros(self._width)
        self.usd[: self.options] = [option.usd for option in flat]

    def _columns(self, most: Floats) -> Ints:
        """So many more."""
        self._mosts.append(most)
        columns = np.arange(self._width, self._width + len(most))
        self._width += len(most)
        return columns

    def _add(self, part: Part, option: int) -> None:
        size = len(part.most)
        done = self._columns(part.most)
        self._limited.add(part.resources.ravel(), np.tile(done, len(part.uses)), part.uses.ravel())
        row, self._parts = self._parts, self._parts + 1
        self._equal.add(np.full(size + 1, row), np.append(done, option), np.append(np.ones(size), -1.0))

    def shares(self, x: Floats) -> list[list[float]]:
        """Of each option of each choice, from 0 to 1."""
        taken = iter(np.clip(x[: self.options], 0.0, 1.0).tolist())
        return [[next(taken) for _ in range(count)] for count in self._counts]
