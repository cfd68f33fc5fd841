"""Plots as SVG text: series over time, and ranges on a logarithmic scale. Nothing is loaded, nothing is run.

Colours are classes (`c0` to `c6`, `grid`, `ink`), so that the page says what they are in the light and in the dark.
"""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

import msgspec

WIDTH, HEIGHT = 520, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 26
COLOURS = 7
LEAST = 1e-6  # on a logarithmic scale: a microsecond is nothing to who waits
TICKS, TIME_TICKS = 4, 6


class Series(msgspec.Struct, frozen=True):
    """A name and a value for each stretch of time."""

    name: str
    values: Sequence[float]


class Range(msgspec.Struct, frozen=True):
    """A row of marks, each with its name: from the least to the largest."""

    name: str
    marks: Sequence[tuple[str, float]]


class _Frame:
    """From values to places, with what is drawn behind them."""

    def __init__(self, label: str, span_s: float, most: float) -> None:
        self.step = _step(most)
        self.most = max(self.step * ceil(most / self.step - 1e-9), self.step)
        self._span_s = span_s
        self.parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
        self._grid()

    def x(self, at_s: float) -> float:
        """The place of a time."""
        return LEFT + (WIDTH - LEFT - RIGHT) * at_s / self._span_s

    def y(self, value: float) -> float:
        """The place of a value."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.most

    def end(self) -> str:
        """All of it."""
        return "".join([*self.parts, "</svg>"])

    def _grid(self) -> None:
        for i in range(round(self.most / self.step) + 1):
            value = i * self.step
            y = self.y(value)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{value:g}</text>')
        minutes = self._span_s / 60.0
        step = _step(minutes, TIME_TICKS)
        for i in range(floor(minutes / step + 1e-9) + 1):
            x = self.x(i * step * 60.0)
            unit = " min" if i == 0 else ""
            self.parts.append(f'<text class="mid" x="{x:.1f}" y="{HEIGHT - 8}">{i * step:g}{unit}</text>')


def areas(label: str, series: Sequence[Series], bin_s: float) -> str:
    """Series on top of each other, as steps."""
    size = max((len(one.values) for one in series), default=0)
    totals = [sum(one.values[i] for one in series) for i in range(size)]
    frame = _Frame(label, max(size, 1) * bin_s, max(totals, default=0.0))
    below = [0.0] * size
    for number, one in enumerate(series):
        above = [low + value for low, value in zip(below, one.values, strict=True)]
        there, back = _steps(frame, above, bin_s), _steps(frame, below, bin_s)[::-1]
        path = "M" + "L".join(there + back) + "Z" if there else ""
        frame.parts.append(
            f'<path class="fill c{number % COLOURS}" d="{path}"><title>{escape(one.name)}</title></path>'
        )
        below = above
    return frame.end()


def ranges(label: str, rows: Sequence[Range], unit: str) -> str:
    """One row for each, its marks on a logarithmic scale from the smallest to the largest of all."""
    values = [max(value, LEAST) for row in rows for _, value in row.marks]
    low, high = floor(log10(min(values, default=0.1))), ceil(log10(max(values, default=1.0)) + 1e-9)
    left, row_height = 120, 30
    height = TOP + row_height * len(rows) + BOTTOM

    def x(value: float) -> float:
        place = (log10(max(value, 10.0**low)) - low) / max(high - low, 1)
        return left + (WIDTH - left - 40) * place

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text class="mid" x="{at:.1f}" y="{height - 8}">{10.0**power:g} {escape(unit)}</text>')
    for number, row in enumerate(rows):
        y = TOP + row_height * (number + 0.5)
        parts.append(f'<text class="end ink" x="{left - 12}" y="{y + 4:.1f}">{escape(_short(row.name))}</text>')
        places = [x(value) for _, value in row.marks]
        if places:
            parts.append(f'<line class="bar" x1="{places[0]:.1f}" x2="{places[-1]:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for shade, (name, value) in enumerate(row.marks):
            said = f"{row.name} {name}: {value:.3g} {unit}"
            parts.append(
                f'<circle class="dot s{shade}" cx="{x(value):.1f}" cy="{y:.1f}" r="5.5">'
                f"<title>{escape(said)}</title></circle>"
            )
    return "".join([*parts, "</svg>"])


def _steps(frame: _Frame, values: Sequence[float], bin_s: float) -> list[str]:
    places = []
    for i, value in enumerate(values):
        y = frame.y(value)
        places += [f"{frame.x(i * bin_s):.1f},{y:.1f}", f"{frame.x((i + 1) * bin_s):.1f},{y:.1f}"]
    return places


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


def _step(most: float, ticks: int = TICKS) -> float:
    """A round distance, of which a few cover the most there is."""
    if most <= 0.0:
        return 1.0
    rough = most / ticks
    power = 10.0 ** floor(log10(rough))
    return next(power * nice for nice in (1.0, 2.0, 2.5, 5.0, 10.0) if power * nice >= rough * 0.999)
