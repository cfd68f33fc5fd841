"""The plot of relays in the documentation: what each costs, as SVG that reads in the light and in the dark."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

import msgspec

from bench.relay_figures import DIRECT, Rows, Summary
from bench.relays import TIDEGATE

FIGURE = "cpu_us"
WIDTH, LEFT, RIGHT = 760, 170, 60
ROW, BAR, HEAD, AXIS = 22, 12, 44, 40
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.end { text-anchor: end } .mid { text-anchor: middle } .title { font-weight: 600 }
.grid { stroke: #d0d7de } .bar { fill: #8c959f } .ours { fill: #0969da } .range { stroke: #24292f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .range { stroke: #e6edf3 }
  .grid { stroke: #3d444d } .bar { fill: #7d8590 } .ours { fill: #4493f8 }
}"""


class Panel(msgspec.Struct, frozen=True):
    """One load's bars: its title, and each relay's figure."""

    title: str
    bars: Sequence[tuple[str, Summary]]

    @property
    def height(self) -> int:
        """With title and axis."""
        return HEAD + ROW * len(self.bars) + AXIS


def plot(rows: Rows, titles: Mapping[str, str]) -> str:
    """A panel for each load that has a title and was measured: CPU on a logarithmic scale, the cheapest relay first."""
    panels = [_panel(title, rows[load]) for load, title in titles.items() if load in rows]
    drawn, top = [], 0
    for panel in panels:
        drawn.append(f'<g transform="translate(0 {top})">{_draw(panel)}</g>')
        top += panel.height
    label = "CPU of relays, in microseconds"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-label="{label}">'
    return "\n".join([head, f"<style>\n{STYLE}\n</style>", *drawn, "</svg>"]) + "\n"


def _panel(title: str, by: Mapping[str, Mapping[str, Summary]]) -> Panel:
    bars = [(relay, of[FIGURE]) for relay, of in by.items() if relay != DIRECT and FIGURE in of]
    return Panel(title, sorted(bars, key=lambda bar: bar[1].median))


class _Scale:
    """From microseconds to places: whole decades, logarithmic."""

    def __init__(self, bars: Sequence[tuple[str, Summary]]) -> None:
        self.first = floor(log10(min([1.0, *(of.min for _, of in bars if of.min > 0.0)])))
        self.last = max(ceil(log10(max([10.0, *(of.max for _, of in bars)]))), self.first + 1)

    def x(self, us: float) -> float:
        """The place of a value; what is nothing stands at the edge."""
        share = (log10(max(us, 10.0**self.first)) - self.first) / (self.last - self.first)
        return LEFT + (WIDTH - LEFT - RIGHT) * share


def _draw(panel: Panel) -> str:
    scale = _Scale(panel.bars)
    parts = [f'<text class="title" x="{LEFT}" y="22">{escape(panel.title)}</text>', *_grid(scale, len(panel.bars))]
    for number, (relay, of) in enumerate(panel.bars):
        parts += _bar(scale, HEAD + ROW * number, relay, of)
    return "\n".join(parts)


def _grid(scale: _Scale, rows: int) -> list[str]:
    bottom = HEAD + ROW * rows
    parts = []
    for decade in range(scale.first, scale.last + 1):
        x = scale.x(10.0**decade)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 16}">{10.0**decade:g}</text>')
    return parts


def _bar(scale: _Scale, top: int, relay: str, of: Summary) -> list[str]:
    kind = "ours" if relay.startswith(TIDEGATE) else "bar"
    end, middle = scale.x(of.median), top + BAR / 2
    least, most = scale.x(of.min), scale.x(of.max)
    return [
        f'<text class="end" x="{LEFT - 8}" y="{middle + 4:g}">{escape(relay)}</text>',
        f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR}">'
        f"<title>{of.median:g} ({of.min:g}-{of.max:g})</title></rect>",
        f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{middle:g}" y2="{middle:g}"/>',
        f'<text x="{most + 6:.1f}" y="{middle + 4:g}">{of.median:g}</text>',
    ]
