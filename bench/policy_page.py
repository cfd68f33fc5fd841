"""What was found, as one page of HTML that needs nothing else; what is lost stands first."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from statistics import median

from bench.policy_figures import Interval
from bench.policy_judged import Judged, TakenApart, lost
from bench.policy_plots import course, front, strips
from bench.promise import Promise
from tidegate.sim import plot
from tidegate.sim.page import document, key
from tidegate.sim.sheet import MISSING, share

TITLE = "How good the decision is"
LOSING_SHOWN = 8
"""Worlds in which a promise is not kept that stand in the open; the others are folded away."""

_STYLE = """
main{max-width:1200px}a{color:inherit;text-decoration-color:var(--rule);text-underline-offset:3px}
h2{margin-top:0}h2+p{margin-bottom:6px}.all{margin:24px 0 12px}
.fronts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(320px,100%),1fr));gap:12px;margin-bottom:12px}
.promises td,.promises th{text-align:left;white-space:normal;vertical-align:top}
.promises b{display:block}.promises ul{margin:0}summary{color:var(--soft);cursor:pointer}
.worlds td:nth-child(6),.worlds th:nth-child(6){text-align:left}
.worlds td:first-child,.worlds th:first-child{position:sticky;left:-16px;padding-left:16px;background:var(--card)}
.worlds{margin-left:-16px;font-size:14px}.worlds td,.worlds th{padding:4px 7px}
.rule{fill:var(--c6);opacity:.75}.today{fill:var(--c1)}.hull{fill:none;stroke:var(--c2);stroke-width:2}
.behind{fill:none;stroke:var(--c1);stroke-width:2}.planned{fill:none;stroke:var(--c4);stroke-width:2}
.ours{fill:var(--c0);stroke:var(--card);stroke-width:1.5}
.parts{font-size:14px}.parts td,.parts th{padding:4px 7px}
.strips{max-width:720px}.aim{stroke:var(--good);stroke-dasharray:4 3}.zero{stroke:var(--soft)}
.dot.c0{fill:var(--c0)}.dot.c1{fill:var(--c1)}.dot.c2{fill:var(--c2)}.dot.c3{fill:var(--c3)}.dot.c4{fill:var(--c4)}
.dot.c5{fill:var(--c5)}.dot.c6{fill:var(--c6)}
@media(max-width:640px){main{padding:20px 10px 48px}.promises thead{display:none}
.promises td{display:block;padding:2px 0;border:0}.promises td:first-child{padding-top:10px}}
"""


def page(
    commit: str,
    machine: str,
    worlds: Sequence[Judged],
    promises: Sequence[Promise],
    apart: TakenApart | None = None,
) -> str:
    """The page. `apart` are worlds that were taken apart, where that was done."""
    count = f"{len(worlds)} world{'' if len(worlds) == 1 else 's'}"
    head = f'<h1>{TITLE}</h1><p class="soft">{escape(f"{count}, at commit {commit}. {machine}.")}</p>'
    if not worlds:
        return document(TITLE, f'{head}<section class="all"><p>No world was played: nothing was found.</p></section>')
    order = sorted(worlds, key=lambda one: (one.gain.figure, one.name))
    parts = _ablations(apart) + _chains(apart, worlds) if apart is not None and apart.worlds else ""
    body = (head, _promises(promises), _table(order), parts, _closed(worlds), _fronts(order))
    return document(TITLE, "".join(body), _STYLE)


def _promises(promises: Sequence[Promise]) -> str:
    rows = "".join(
        f'<tr><td><b class="{word}">{word}</b>{escape(one.promise)}</td>'
        f"<td>{escape(one.found)}</td><td>{_losing(one.losing)}</td></tr>"
        for one in sorted(promises, key=lambda one: one.kept)
        for word in ("holds" if one.kept else "broken",)
    )
    return (
        '<section class="all"><h2>Promises</h2><table class="promises"><thead><tr><th>promised</th><th>found</th>'
        f"<th>where not, the worst first</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _losing(names: Sequence[str]) -> str:
    shown, folded = _list(names[:LOSING_SHOWN]), names[LOSING_SHOWN:]
    if not folded:
        return shown or MISSING
    return f"{shown}<details><summary>{len(folded)} more</summary>{_list(folded)}</details>"


def _list(names: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(name)}</li>" for name in names) + "</ul>" if names else ""


def _table(order: Sequence[Judged]) -> str:
    columns = ("world", "gain in value", "saved", "kept", "dollars", "best rule", "gap closed", "bracket")
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = "".join(_row(number, one) for number, one in enumerate(order))
    said = (
        "The largest loss first, by what a request is worth less what it takes, against the rule that is worth most. "
        "Saved are dollars for a kept promise against the lower hull of all rules. Dollars and values are a request's, "
        "in what sending everything away takes; the bracket is from the schedule of who knows everything to the bound."
    )
    return (
        f'<section><h2>Worlds</h2><p class="soft">{said}</p>'
        f'<table class="worlds"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _row(number: int, one: Judged) -> str:
    found = one.bounds
    bracket = MISSING if found is None else f"{found.schedule:.3f} to {found.bound:.3f} ({found.wide:.1%})"
    cells = (
        f'<a href="#w{number}">{escape(one.name)}</a>',
        _interval(one.gain, "+.3f"),
        _interval(one.saved, "+.0%"),
        share(one.ours.attainment),
        f"{one.ours.usd:.3f}",
        escape(one.best),
        MISSING if one.closed_bound is None else f"{one.closed_bound:+.0%}",
        bracket,
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _ablations(apart: TakenApart) -> str:
    """What each part of the decision is worth: what is lost without it."""
    rows = ""
    for name, found in sorted(lost(apart.worlds).items(), key=lambda one: median(value for _, value in one[1])):
        values = sorted((value, world) for world, value in found)
        (least, loses), (most, wins) = values[0], values[-1]
        rows += (
            f"<tr><td>{escape(name)}</td><td>{_signed(median(value for value, _ in values))}</td>"
            f"<td>{_signed(least)} <span class=soft>{escape(loses)}</span></td>"
            f"<td>{_signed(most)} <span class=soft>{escape(wins)}</span></td>"
            f"<td>{sum(value < 0.0 for value, _ in values)} of {len(values)}</td></tr>"
        )
    said = (
        f"The same worlds, {len(apart.worlds)} of them at commit {apart.commit}, decided without one part: by how much "
        "less a request was worth then. Parts that do harm stand first."
    )
    return (
        f'<section><h2>What each part is worth</h2><p class="soft">{escape(said)}</p><table class="parts"><thead><tr>'
        "<th>without</th><th>median</th><th>least</th><th>most</th><th>does harm in</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _chains(apart: TakenApart, worlds: Sequence[Judged]) -> str:
    """What is in the way of more, world by world: each step knows one thing more than the one before it."""
    bounds = {one.name: one.bounds for one in worlds}
    names = [step.knows for step in apart.worlds[0].chain]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("world", *names, "who comes next", "bound"))
    rows = ""
    for world in sorted(apart.worlds, key=lambda one: one.chain[-1].reached.value - one.chain[0].reached.value):
        values = [step.reached.value for step in world.chain]
        steps = "".join(f"<td>{_signed(after - before)}</td>" for before, after in pairwise(values))
        found = bounds.get(world.name)
        rest = f"<td>{MISSING}</td>" * 2
        if found is not None:
            rest = f"<td>{_signed(found.schedule - values[-1])}</td><td>{_signed(found.bound - found.schedule)}</td>"
        rows += f"<tr><td>{escape(world.name)}</td><td>{values[0]:.3f}</td>{steps}{rest}</tr>"
    said = (
        "What a request is worth as it is, and what is added where the router is told one thing more with each column; "
        "then what the schedule of who knows everything has beyond that, and the bound beyond the schedule."
    )
    return (
        f'<section><h2>What is in the way</h2><p class="soft">{escape(said)}</p><table class="parts"><thead><tr>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _interval(one: Interval, form: str) -> str:
    """A figure with its interval, and a colour where it is on one side of zero with all of that."""
    said = f"{one.figure:{form}} ({one.low:{form}} to {one.high:{form}})"
    kind = "broken" if one.high < 0.0 else "holds" if one.low > 0.0 else ""
    return f'<span class="{kind}">{said}</span>' if kind else said


def _fronts(order: Sequence[Judged]) -> str:
    names = key([("Tidegate", "c0"), ("rules of today", "c1"), ("other rules", "c6"), ("best mixtures", "c2")])
    regret = key([("the best rule in hindsight", "c1"), ("the schedule of who knows everything", "c4")])
    behind = (
        "Below, regret: by how much more all requests up to then were worth than ours, above the line where they were."
    )
    said = (
        "A dot is a rule with one value of its knob, chosen in hindsight; the line is what mixtures of two reach. "
        "The best place is the top left: all promises kept, for nothing. Both scales go by square roots from there."
    )
    figures = "".join(_front(number, one) for number, one in enumerate(order))
    return (
        f'<section><h2>Dollars and kept promises, and regret over time</h2><p class="soft">{said}</p>{names}'
        f'<p class="soft">{behind}</p>{regret}</section>'
        f'<div class="fronts">{figures}</div>'
    )


def _front(number: int, one: Judged) -> str:
    said = f"{one.ours.attainment:.1%} kept for {one.ours.usd:.3f}, {one.saved.figure:+.0%} saved against {one.hull}"
    return (
        f'<figure id="w{number}"><h2>{escape(one.name)}</h2><figcaption>{escape(said)}</figcaption>'
        f"{front(one)}{course(one)}</figure>"
    )


def _closed(worlds: Sequence[Judged]) -> str:
    known = [one for one in worlds if one.closed_bound is not None]
    without = sorted(one.name for one in worlds if one.closed_bound is None)
    said = (
        "Of the gap in value between the best rule and the bound, the regime with the largest loss first. The broken "
        "line is what was promised."
    )
    if without:
        said += f" Without a bound, or a gap to it: {', '.join(without)}."
    colours = {trace: f"c{n % plot.COLOURS}" for n, trace in enumerate(_named(one.trace for one in known))}
    regimes = [(name, [one for one in known if one.regime == name]) for name in _named(one.regime for one in known)]
    regimes.sort(key=lambda row: min(one.closed_bound or 0.0 for one in row[1]))
    drawn = key(list(colours.items())) + strips(regimes, colours) if known else ""
    return f'<section><h2>Share of the gap closed</h2><p class="soft">{escape(said)}</p>{drawn}</section>'


def _named(names: Iterable[str]) -> list[str]:
    return sorted(set(names))
