"""A report as one page of HTML that needs nothing else: no script, no font, no request."""

from collections.abc import Sequence
from html import escape

from tidegate.config.moment import iso
from tidegate.sim import plot, sheet
from tidegate.sim.plot import Range, Series
from tidegate.sim.report import Group, Percentiles, Report
from tidegate.sim.sheet import Sheet, number, share

SHOWN_MAX = 6
"""Endpoints with a colour of their own; the others are shown as one."""

_STYLE = """
:root{--page:#fcfcfb;--card:#fff;--ink:#1b1f23;--soft:#5c6670;--rule:#e4e7ea;--good:#1a7f4b;--bad:#c0392b;
--c0:#3266ad;--c1:#d08327;--c2:#2a9d84;--c3:#8a5fb0;--c4:#c2567a;--c5:#7a8b2f;--c6:#8b95a0}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--card:#1b1f23;--ink:#e8ebee;--soft:#9aa5b1;--rule:#2e353c;
--good:#4cc38a;--bad:#ff7b6b;--c0:#6c9fe6;--c1:#e9a657;--c2:#56c7ac;--c3:#b695dc;--c4:#e58ba8;--c5:#b0c25c;--c6:#9aa5b1}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:15px;margin:0 0 2px}
p{margin:0}
.soft,figcaption{color:var(--soft);font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:24px 0}
.tile,figure,section{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;margin:0}
.tile b{display:block;font-size:24px;line-height:1.3;font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:12px;margin-bottom:12px}
section{margin-bottom:12px;overflow-x:auto}
svg{display:block;width:100%;height:auto;margin-top:8px}
svg text{font-size:12px;fill:var(--soft)}svg text.ink{fill:var(--ink)}.end{text-anchor:end}.mid{text-anchor:middle}
.grid{stroke:var(--rule)}.bar{stroke:var(--soft);stroke-width:2;opacity:.5}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}
.c6{fill:var(--c6)}
.dot{fill:var(--c0);stroke:var(--card);stroke-width:1.5}.s1{fill:var(--c2)}.s2{fill:var(--c1)}.s3{fill:var(--c4)}
.key{display:flex;flex-wrap:wrap;gap:2px 14px;color:var(--soft);font-size:13px}
.key i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
table{border-collapse:collapse;width:100%;margin-top:6px}
th,td{padding:4px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left;padding-left:0}tr:last-child td{border-bottom:0}
.why td:last-child,.why th:last-child{text-align:left;white-space:normal;width:100%}
ul{list-style:none;margin:6px 0 0;padding:0}.holds{color:var(--good)}.broken{color:var(--bad)}
li b{display:inline-block;width:64px;font-weight:600}
"""


def page(report: Report) -> str:
    """The page."""
    whole = report.groups[0]
    title = f"{report.scenario}, policy {report.policy}, seed {report.seed}"
    said = f"From {iso(report.start_s)}, {whole.requests} requests in {report.elapsed_s:.0f} simulated seconds."
    body = "".join(
        (
            f"<h1>{escape(report.scenario)}</h1>",
            f'<p class="soft">Policy {escape(report.policy)}, seed {report.seed}. {said}</p>',
            _tiles(whole),
            _bounds(report),
            '<div class="plots">',
            *_plots(report),
            "</div>",
            section("Promises and dollars", sheet.promises(report)),
            section("Times", sheet.times(report)),
            section("Endpoints", sheet.endpoints(report)),
            section("Reasons of the last decisions", sheet.reasons(report), "why"),
        )
    )
    return document(title, body)


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around a body of HTML, with what else its style says. The title is text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{_STYLE}{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def key(names: Sequence[tuple[str, str]]) -> str:
    """Which colour, by the name of its class, is what."""
    entries = "".join(
        f'<span><i style="background:var(--{colour})"></i>{escape(name)}</span>' for name, colour in names
    )
    return f'<div class="key">{entries}</div>'


def _tiles(whole: Group) -> str:
    refused = whole.refused_share + whole.failed_share
    tiles = (
        (share(whole.attainment), "of promises kept"),
        (number(whole.kept_per_s), "promises kept a second"),
        (f"${number(whole.usd_per_hour)}", "an hour"),
        ("-" if whole.usd_per_1k_kept is None else f"${number(whole.usd_per_1k_kept)}", "for a thousand kept"),
        ("-" if whole.ttft_s is None else f"{number(whole.ttft_s.p99)} s", "to first content, p99"),
        (share(refused), "refused or failed"),
    )
    return '<div class="tiles">' + "".join(tile(value, text) for value, text in tiles) + "</div>"


def tile(value: str, text: str) -> str:
    """A figure that stands out, and what it is."""
    return f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(text)}</span></div>'


def _bounds(report: Report) -> str:
    if not report.bounds:
        return ""
    rows = "".join(
        f'<li><b class="{word}">{word}</b>{escape(sheet.mark(mark))}</li>'
        for mark in report.bounds
        for word in ("holds" if mark.holds else "broken",)
    )
    return f"<section><h2>Bounds</h2><ul>{rows}</ul></section>"


def _plots(report: Report) -> list[str]:
    bins, bin_s = report.timeline, report.bin_s
    flying = _endpoints(report)
    asked = [
        Series("kept", [b.kept / bin_s for b in bins]),
        Series("not kept", [(b.arrivals - b.kept) / bin_s for b in bins]),
    ]
    held = [Series("held", [b.held for b in bins])]
    usd = [Series("dollars", [b.usd / bin_s * 3600.0 for b in bins])]
    return [
        _figure("Requests", "a second, by arrival", plot.areas("Requests a second", asked, bin_s), asked),
        _figure("In flight", "in the mean, by endpoint", plot.areas("In flight", flying, bin_s), flying),
        _figure("Held", "waiting here for a slot of our own, in the mean", plot.areas("Held", held, bin_s), []),
        _figure("Dollars", "an hour, by when requests ended", plot.areas("Dollars an hour", usd, bin_s), []),
        _percentiles("Time to first content", [(one.name, one.ttft_s) for one in report.groups]),
        _percentiles("Time to the end", [(one.name, one.e2e_s) for one in report.groups]),
    ]


def _endpoints(report: Report) -> list[Series]:
    """In flight by endpoint, the busiest first; what has no colour of its own is one."""
    order = sorted(report.endpoints, key=lambda one: (-one.in_flight_mean, one.name))
    series = [Series(one.name, [b.in_flight[one.name] for b in report.timeline]) for one in order]
    if len(series) <= SHOWN_MAX:
        return series
    others = [sum(values) for values in zip(*(one.values for one in series[SHOWN_MAX:]), strict=True)]
    return [*series[:SHOWN_MAX], Series("others", others)]


def _percentiles(title: str, rows: Sequence[tuple[str, Percentiles | None]]) -> str:
    made = [
        Range(name, [("p50", found.p50), ("p90", found.p90), ("p95", found.p95), ("p99", found.p99)])
        for name, found in rows
        if found is not None
    ]
    shades = key([("p50", "c0"), ("p90", "c2"), ("p95", "c1"), ("p99", "c4")])
    drawn = plot.ranges(title, made, "s")
    return f"<figure><h2>{escape(title)}</h2><figcaption>of what was served</figcaption>{shades}{drawn}</figure>"


def _figure(title: str, caption: str, drawn: str, series: Sequence[Series]) -> str:
    names = key([(one.name, f"c{i % plot.COLOURS}") for i, one in enumerate(series)]) if series else ""
    return f"<figure><h2>{escape(title)}</h2><figcaption>{escape(caption)}</figcaption>{names}{drawn}</figure>"


def section(title: str, one: Sheet, kind: str = "") -> str:
    """A sheet under its title."""
    head = "".join(f"<th>{escape(column)}</th>" for column in one.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in one.rows)
    return (
        f'<section><h2>{escape(title)}</h2><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )
