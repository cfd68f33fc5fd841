"""What a shadow would have done, as sheets of text, and as one page of HTML that needs nothing else."""

from html import escape

from tidegate.config.moment import iso
from tidegate.sim.page import document, section, tile
from tidegate.sim.preview_page import affected, changes, figures, notes, off, points, promises_text, spent_text
from tidegate.sim.shadow import Shadow
from tidegate.sim.sheet import MISSING, Sheet

_ROWS = ("the log says", "simulated", "Tidegate")


def headline(found: Shadow) -> str:
    """How far the twin is from what came: what the rest is worth."""
    return f"With each request sent where this log says it went, the simulation is off by {off(found.preview.backtest)}"


def verdict(found: Shadow) -> str:
    """What it would have saved, and what it would have missed."""
    spent = spent_text(found.preview.saved_usd_per_1k)
    return f"Tidegate would have {spent}; {promises_text(found.compared, found.gained, found.missed)}."


def sheets(found: Shadow) -> list[tuple[str, Sheet]]:
    """With what each is about."""
    shown = [
        ("What came, and what would have come", figures(found.preview, _ROWS)),
        ("What changes", changes(found.preview, "Tidegate - simulated")),
        ("Whom", affected(found.preview)),
    ]
    if found.some_missed:
        rows = tuple((one.id, one.went, one.would_go or MISSING, one.why) for one in found.some_missed)
        shown.append(("Promises that it would have missed", Sheet(("", "went to", "would go to", "why"), rows)))
    return shown


def remarks(found: Shadow) -> list[str]:
    """What is in no figure, and what the figures rest on."""
    requests = found.preview.real.requests
    said = [f"Of {found.records} records {requests + found.preview.left} are looked at."]
    said += [f"{count} are not: {why}." for why, count in found.unused.items()]
    places = (f"{name} {n} (by {by})" for name, counts in found.placed.items() for by, n in counts.items())
    said.append(f"The log has them served at {', '.join(places)}.")
    if found.strangers:
        names = ", ".join(f"{name or '(no name)'} ({count})" for name, count in found.strangers.items())
        said.append(f"No endpoint or model is known for {names}: write it down, or say --at NAME=ENDPOINT.")
    said.append(
        f"Dollars of {found.billed} requests are what the log says was billed, of {requests - found.billed} what the "
        "prices of the configuration make of their tokens."
    )
    if found.unseen:
        said.append(
            f"Of {found.unseen} answers nobody saw first content: whether their promises were kept is known of some "
            "alone, and what is simulated of it is a guess."
        )
    said += [
        f"{name} is taken to have the usual window, since no engine can be asked for its own here: {count} prompts are "
        "too long for it. Write its context_tokens."
        for name, count in found.too_long.items()
    ]
    said += notes(found.preview)
    said.append("Whether answers are as good was not compared.")
    return said


def page(found: Shadow, log: str) -> str:
    """All of it."""
    saved = found.preview.saved_usd_per_1k
    tiles = (
        tile(f"${saved.figure:+.3g}", f"saved of a thousand requests ({saved.low:+.3g} to {saved.high:+.3g})"),
        tile(str(found.gained), f"promises kept that were not kept, of {found.compared} requests"),
        tile(str(found.missed), f"promises missed that were kept, of {found.compared} requests"),
        tile(f"{found.preview.backtest.usd:+.1%}", "the simulation is off in dollars, on what really came"),
        tile(points(found.preview.backtest.kept), "and in promises kept"),
    )
    span = f"{found.preview.real.requests} requests from {iso(found.preview.start_s)} to {iso(found.preview.end_s)}"
    body = "".join(
        (
            f"<h1>{escape(log)}</h1>",
            f'<p class="soft">{escape(span)}. {escape(verdict(found))} {escape(headline(found))}.</p>',
            '<div class="tiles">',
            *tiles,
            "</div>",
            *(section(title, one) for title, one in sheets(found)),
            *(f'<p class="soft">{escape(one)}</p>' for one in remarks(found)),
        )
    )
    return document(f"Shadow of {log}", body)
