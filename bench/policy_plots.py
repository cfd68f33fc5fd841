"""Plots of what was found, as SVG text: a world's rules with their front, and which share of a gap is closed by regime.

Colours are classes, which the page says.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from math import floor, pi, sin, sqrt

from bench.policy_judged import CLOSED, Judged, Point
from bench.policy_rules import TODAY

WIDTH, HEIGHT = 360, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 40
LEAST = 0.01  # a plot spans no less, where all dots are in one place
USD_TICKS = (0.0, 1.0, 0.1, 0.5, 0.25, 0.01, 2.0, 0.05, 0.02, 0.001)
MISSED_TICKS = (0.0, 0.1, 0.5, 0.01, 1.0, 0.2, 0.05, 0.02, 0.001)
"""Which ticks are wanted, the most first; those stay away that would come too close to others."""
USD_APART, MISSED_APART = 28.0, 16.0
COURSE_TOP, COURSE_HEIGHT = 18, 96
STEPS = 12  # of a mixture's curve
STRIP_LEFT, STRIP_EDGE, STRIP_HEIGHT, STRIP_BOTTOM = 104, 12, 24, 26
CLOSED_LEAST = -1.0  # what is below stands at the edge, as an arrow


class _Corner:
    """From dollars and attainment to places.

    The best there is, all kept for nothing, is the corner at the top left, and how far one is from it goes by square
    roots: what matters is close to it.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.usd_most = max([LEAST, *(one.usd for one in points)])
        self.missed_most = max([LEAST, *(1.0 - one.attainment for one in points)])

    def x(self, usd: float) -> float:
        """The place of dollars."""
        return LEFT + (WIDTH - LEFT - RIGHT) * sqrt(max(usd, 0.0) / self.usd_most)

    def y(self, attainment: float) -> float:
        """The place of a share of promises."""
        return TOP + (HEIGHT - TOP - BOTTOM) * sqrt(max(1.0 - attainment, 0.0) / self.missed_most)

    def grid(self) -> Iterator[str]:
        """What is drawn behind."""
        floor_y, kept = HEIGHT - BOTTOM, [1.0 - missed for missed in MISSED_TICKS if missed <= self.missed_most]
        for attainment, y in _apart([(one, self.y(one)) for one in kept], MISSED_APART):
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{100.0 * attainment:g}%</text>'
        usd_shown = [(usd, self.x(usd)) for usd in USD_TICKS if usd <= self.usd_most]
        for usd, x in _apart(usd_shown, USD_APART):
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor_y}"/>'
            yield f'<text class="mid" x="{x:.1f}" y="{floor_y + 16}">{usd:g}</text>'
        yield f'<text class="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}">dollars a request</text>'
        yield f'<text class="end" x="{LEFT - 6}" y="{TOP - 12}">kept</text>'


def front(world: Judged) -> str:
    """A dot for each rule and knob, what mixtures of them reach at best, and where we are."""
    corner = _Corner([*world.points, world.ours])
    path = "L".join(f"{corner.x(usd):.1f},{corner.y(kept):.1f}" for usd, kept in _mixtures(hull(world.points)))
    dots = [
        f'<circle class="{"today" if one.name in TODAY else "rule"}" cx="{corner.x(one.usd):.1f}" '
        f'cy="{corner.y(one.attainment):.1f}" r="3.5"><title>{escape(_said(one))}</title></circle>'
        for one in world.points
    ]
    x, y = corner.x(world.ours.usd), corner.y(world.ours.attainment)
    ours = (
        f'<path class="ours" d="M{x:.1f},{y - 8:.1f}l8,8l-8,8l-8,-8Z"><title>{escape(_said(world.ours))}</title></path>'
    )
    return "".join(
        (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(world.name)}">',
            *corner.grid(),
            f'<path class="hull" d="M{path}"/>' if path else "",
            *dots,
            ours,
            "</svg>",
        )
    )


def hull(points: Sequence[Point]) -> list[Point]:
    """The lower hull: from the most that is kept for the least dollars to the least dollars for the most."""
    corners: list[Point] = []
    for one in sorted(points, key=lambda one: (one.usd, -one.attainment)):
        if corners and one.attainment <= corners[-1].attainment:
            continue
        while len(corners) > 1 and _below(corners[-2], corners[-1], one):
            corners.pop()
        corners.append(one)
    return corners


def _below(first: Point, middle: Point, last: Point) -> bool:
    """Whether a mixture of the outer two keeps as much as the middle one, for as much."""
    gained, asked = middle.attainment - first.attainment, last.attainment - first.attainment
    return gained * (last.usd - first.usd) <= asked * (middle.usd - first.usd)


def _mixtures(corners: Sequence[Point]) -> Iterator[tuple[float, float]]:
    """Dollars and attainment along the hull: a mixture is on a line, which roots bend."""
    for one, after in pairwise(corners):
        for step in range(STEPS):
            part = sin(0.5 * pi * step / STEPS) ** 2  # close together at its ends, where roots bend most
            yield one.usd + part * (after.usd - one.usd), one.attainment + part * (after.attainment - one.attainment)
    for last in corners[-1:]:
        yield last.usd, last.attainment


def course(world: Judged) -> str:
    """By how much more all requests up to each moment were worth elsewhere: by the best rule, and by the schedule."""
    lines = [("behind", world.behind_rule)]
    if world.behind_schedule is not None:
        lines.append(("planned", world.behind_schedule))
    values = [0.0, *(value for _, found in lines for value in found)]
    least, most = min(values), max(values)
    span = max(most - least, LEAST)
    bottom = COURSE_HEIGHT - 6

    def y(value: float) -> float:
        return COURSE_TOP + (bottom - COURSE_TOP) * (most - value) / span

    zero = y(0.0)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {COURSE_HEIGHT}" role="img" aria-label="Regret of {escape(world.name)}">',
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
        f'<text class="end" x="{WIDTH - RIGHT}" y="10">requests</text>',
    ]
    for value, at in _apart([(one, y(one)) for one in (0.0, least, most)], 14.0):
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{at + 4:.1f}">{value:.3g}</text>')
    for kind, found in lines:
        step = (WIDTH - LEFT - RIGHT) / len(found)
        places = "L".join(f"{LEFT + step * number:.1f},{y(value):.1f}" for number, value in enumerate([0.0, *found]))
        parts.append(f'<path class="{kind}" d="M{places}"><title>{found[-1]:+.3g} in the end</title></path>')
    return "".join([*parts, "</svg>"])


def strips(regimes: Sequence[tuple[str, Sequence[Judged]]], colours: dict[str, str]) -> str:
    """A row for each regime, with a dot for each of its worlds in the colour of its trace, where the gap is known."""
    least = min((one.closed_bound or 0.0 for _, worlds in regimes for one in worlds), default=0.0)
    low = max(CLOSED_LEAST, min(0.0, floor(2.0 * least) / 2.0))
    height = STRIP_EDGE + STRIP_HEIGHT * len(regimes) + STRIP_BOTTOM

    def x(share: float) -> float:
        return STRIP_LEFT + (WIDTH - STRIP_LEFT - 2 * STRIP_EDGE) * (max(share, low) - low) / (1.0 - low)

    parts = [f'<svg class="strips" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Share of the gap closed">']
    marks = [("grid", low), ("grid", 0.5), ("grid", 1.0), ("aim", CLOSED), ("zero", 0.0)]
    for kind, share in marks:
        at = x(share)
        parts.append(
            f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{STRIP_EDGE}" y2="{height - STRIP_BOTTOM}"/>'
        )
        if kind != "aim":
            parts.append(f'<text class="mid" x="{at:.1f}" y="{height - 8}">{share:.0%}</text>')
    for number, (regime, worlds) in enumerate(regimes):
        y = STRIP_EDGE + STRIP_HEIGHT * (number + 0.5)
        parts.append(f'<text class="end ink" x="{STRIP_LEFT - 14}" y="{y + 4:.1f}">{escape(regime)}</text>')
        for one in worlds:
            if one.closed_bound is not None:
                said = f"<title>{escape(f'{one.name}: {one.closed_bound:+.0%}')}</title>"
                parts.append(_dot(x(one.closed_bound), y, colours[one.trace], said, beyond=one.closed_bound < low))
    return "".join([*parts, "</svg>"])


def _dot(x: float, y: float, colour: str, said: str, *, beyond: bool) -> str:
    """A dot; beyond the end of the scale an arrow."""
    if beyond:
        return f'<path class="dot {colour}" d="M{x - 8:.1f},{y:.1f}l12,-7v14Z">{said}</path>'
    return f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{said}</circle>'


def _said(one: Point) -> str:
    return f"{one.name} {one.knob:g}: {one.attainment:.1%} kept for {one.usd:.3f}"


def _apart(wanted: Sequence[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    """Those whose place is so far from the places of all that are wanted more."""
    found: list[tuple[float, float]] = []
    for value, place in wanted:
        if all(abs(place - other) >= apart for _, other in found):
            found.append((value, place))
    return found
