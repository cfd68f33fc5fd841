"""A preview as sheets of text, and as one page of HTML that needs nothing else."""

from html import escape

from tidegate.config.moment import iso
from tidegate.core.overlap import overlap_text
from tidegate.sim.page import document, section, tile
from tidegate.sim.preview import JUDGED_MIN, Backtest, Figures, Interval, Preview
from tidegate.sim.robust import EFFECTIVE_MIN, Robust
from tidegate.sim.sheet import MISSING, Sheet, number, share


def headline(found: Preview) -> str:
    """How far the twin is from what came: what the rest is worth."""
    return f"On this journal, with the policy that was in force, the simulation is off by {off(found.backtest)}"


def off(by: Backtest) -> str:
    """How far a simulation is from what came."""
    ttft = "" if by.ttft is None else f", TTFT in the median {by.ttft:+.1%}"
    return (
        f"{by.usd:+.1%} of dollars, {points(by.kept)} of promises kept, {points(by.away)} of requests sent away{ttft}"
    )


def points(difference: float | None) -> str:
    """A difference of shares."""
    if difference is None:
        return "unknown points"
    return f"{100.0 * difference:+.1f} points"


def figures(found: Preview, names: tuple[str, str, str] = ("real", "simulated", "changed")) -> Sheet:
    """What came, what the simulation makes of it, and what it makes of the other policy; rows have these `names`."""
    columns = ("", "requests", "kept", "served", "away", "$/1k", "ttft p50", "p95")
    rows = zip(names, (found.real, found.before, found.after), strict=True)
    return Sheet(columns, tuple(figures_row(name, one) for name, one in rows))


def changes(found: Preview, name: str = "changed - simulated") -> Sheet:
    """The differences, and where they lie in nine of ten days like this."""
    rows = (
        ("saved, $/1k", _usd(found.saved_usd_per_1k)),
        ("kept", _shares(found.kept_more)),
        ("away", _shares(found.away_more)),
    )
    return Sheet((name, "", "from", "to"), tuple((name, *cells) for name, cells in rows))


def affected(found: Preview) -> Sheet:
    """Whom it changes."""
    columns = ("", "requests", "go elsewhere", "kept", "$/1k")
    rows = [
        (
            f"{one.kind} {one.name}",
            number(one.requests),
            share(one.moved),
            MISSING if one.kept is None else points(one.kept),
            f"{one.usd_per_1k:+.3g}",
        )
        for one in found.affected
    ]
    return Sheet(columns, tuple(rows))


def spent_text(saved: Interval) -> str:
    """What would have been spent less, or more, for people."""
    word = "less" if saved.figure >= 0.0 else "more"
    least, most = sorted((-saved.low, -saved.high))
    # What does not differ from nothing is no saving.
    sure = ", so perhaps nothing" if least < 0.0 < most else ""
    return f"spent ${abs(saved.figure):.4g} {word} on a thousand requests ({least:+.4g} to {most:+.4g}{sure})"


def promises_text(requests: int, gained: int, missed: int) -> str:
    """Which promises would have been kept, and which not: of all requests, and not of a thousand."""
    return (
        f"of all {requests} requests it would have kept {gained} promises that were not kept, and missed {missed} that "
        "were"
    )


def robust_text(one: Robust | None) -> str:
    """The estimate by what was tried, or why there is none."""
    if one is None:
        return "Nothing was explored (`policy.explore_share`), so that what was tried says nothing of what was not."
    left_out = ""
    if one.untried:
        left_out += f" {one.untried} are in no figure, with which it would do what was certain not to be tried."
    if one.unseen:
        left_out += f" {one.unseen} are in no figure, of which nobody sees whether their promises are kept."
    if one.more_usd_per_1k is None:
        return (
            f"By what was explored there is no estimate: of {one.requests} requests {one.otherwise} would go "
            f"elsewhere, and what was tried of that counts as {one.effective:.0f}; it takes {EFFECTIVE_MIN:.0f}."
            f"{left_out}"
        )
    return (
        f"By what was explored, without a simulation, it is worth ${one.more_usd_per_1k:+.3g} of a thousand requests "
        f"more (${one.low:+.3g} to ${one.high:+.3g}): {one.otherwise} of {one.requests} would go elsewhere, and what "
        f"was tried of that counts as {one.effective:.0f} requests.{left_out}"
    )


def notes(found: Preview) -> list[str]:
    """What is not in the figures."""
    said = []
    if found.overlapping:
        said.append(overlap_text(found.overlapping))
    if min(found.real.judged, found.before.judged) < found.real.requests:
        said.append(
            f"Whether promises were kept is known of {found.real.judged} of {found.real.requests} requests as they "
            f"came, and of {found.before.judged} under both policies: nobody saw the first content of the others, or "
            "they were refused for ever."
        )
    if found.kept_more is None:
        said.append(
            f"Whether promises were kept is known of {found.before.judged} requests under both policies: too few to "
            f"say how that changes; it takes {JUDGED_MIN}."
        )
    if found.left:
        said.append(f"{found.left} requests are in no figure, whose clients went away before they were served.")
    if found.several:
        said.append(f"{found.several} requests are in no figure and not played, which asked for several answers.")
    if found.client_errors:
        said.append(f"{found.client_errors} requests are in no figure and not played, which failed by their own fault.")
    if found.unended:
        said.append(
            f"{found.unended} requests are in no figure and not played, since a process or the journal ended before "
            "they did."
        )
    if found.before_it:
        said.append(
            f"{found.before_it} requests before {iso(found.start_s)} are left out: they came under another "
            "configuration, or are too many."
        )
    if found.overridden:
        said.append(f"Operators took a hand {found.overridden} times, which is not played.")
    if found.budgeted:
        said.append(
            f"{found.budgeted} requests had a budget. No spending is played: what is left of it is as it was at each "
            "moment, and not as this policy would have left it."
        )
    if found.beside:
        said.append(
            f"Of the endpoints {', '.join(found.beside)}, several are one engine. Each is played as if it had one of "
            "its own: none waits for another, and no model is unloaded for another one."
        )
    return said


def page(found: Preview, estimate: Robust | None, policy: str) -> str:
    """All of it."""
    saved, (more, low, high) = found.saved_usd_per_1k, _shares(found.kept_more)
    tiles = (
        tile(f"{found.backtest.usd:+.1%}", "off in dollars, on what really came"),
        tile(points(found.backtest.kept), "off in promises kept"),
        tile(f"${saved.figure:+.3g}", f"saved of a thousand requests ({saved.low:+.3g} to {saved.high:+.3g})"),
        tile(more, f"of promises kept ({low} to {high})"),
    )
    span = f"{found.real.requests} requests from {iso(found.start_s)} to {iso(found.end_s)}"
    body = "".join(
        (
            f"<h1>{escape(policy)}</h1>",
            f'<p class="soft">{escape(span)}. {escape(headline(found))}.</p>',
            '<div class="tiles">',
            *tiles,
            "</div>",
            section("What came, and what would have come", figures(found)),
            section("What changes", changes(found)),
            section("Whom", affected(found)),
            f"<section><h2>By what was tried</h2><p>{escape(robust_text(estimate))}</p></section>",
            *(f'<p class="soft">{escape(note)}</p>' for note in notes(found)),
        )
    )
    return document(f"Preview of {policy}", body)


def figures_row(name: str, one: Figures) -> tuple[str, ...]:
    """One row of `figures`."""
    return (
        name,
        number(one.requests),
        MISSING if one.kept is None else share(one.kept),
        share(one.served),
        share(one.away),
        f"{one.usd_per_1k:.4g}",
        MISSING if one.ttft_s_p50 is None else f"{one.ttft_s_p50:.3g} s",
        MISSING if one.ttft_s_p95 is None else f"{one.ttft_s_p95:.3g} s",
    )


def _usd(one: Interval) -> tuple[str, str, str]:
    return f"{one.figure:+.4g}", f"{one.low:+.4g}", f"{one.high:+.4g}"


def _shares(one: Interval | None) -> tuple[str, str, str]:
    if one is None:
        return MISSING, MISSING, MISSING
    return points(one.figure), points(one.low), points(one.high)
