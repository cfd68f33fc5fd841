"""Verbs that read a journal: explain and replay."""

import argparse
import sys
from collections.abc import Sequence
from math import ceil, floor, log, log10

from rich.markup import escape
from rich.progress import track
from rich.table import Table

from tidegate import __version__, clock
from tidegate.cli.output import Console, print_json, print_table, printable, while_read
from tidegate.core.density import Density, Phase
from tidegate.core.flips import Axis, Flip
from tidegate.core.model import Candidate, Decision, Prefill, Ruling, Step, Wait
from tidegate.core.replay import Difference, Explained, ReplayError, Report, summed
from tidegate.core.timeline import Stage
from tidegate.core.why import WHY_TEXT, Why
from tidegate.telemetry.explain import find
from tidegate.telemetry.reading import JournalError, unwritten
from tidegate.telemetry.replaying import reproduce

_AXES = {
    Axis.PROMPT_TOKENS: ("of prompt", " tokens", 1.0),
    Axis.TTFT_S: ("promised to the first token", " s", 1.0),
    Axis.TPOT_S: ("promised per token", " ms", 1e3),
    Axis.E2E_S: ("promised for the whole", " s", 1.0),
    Axis.WORTH: ("what it is worth", " times", 1.0),
    Axis.IN_FLIGHT: ("in flight", "", 1.0),
    Axis.PRICE: ("the price of tokens", " times", 1.0),
    Axis.USD_PER_S: ("to run the engine", " m$/s", 1e3),
    Axis.RTT_S: ("of round trip", " ms", 1e3),
    Axis.UPLOAD: ("of upload", " kB/s", 1e-3),
}
"""What is changed, in which unit, and how many of that unit are in one of the flip's."""
_SMALL = 1e-6
_CHOSEN = "green"
USD = ["promise", "lateness", "cost"]
"""What makes up a value, in the order of its columns."""
RARE = ["rule", "budget"]
"""What only makes up some."""
SHORT = {"lateness": "late"}


def explain(options: argparse.Namespace) -> int:
    """Print every decision about one request, with its candidates: 0, 1 where there is none or it does not come out
    again, 2 where the journal cannot be read."""
    try:
        found = find(options.journal, options.id)
    except (JournalError, ReplayError) as error:
        print(f"tidegate explain: {error}", file=sys.stderr)
        return 1 if isinstance(error, ReplayError) else 2
    if not found:
        what = f"decision {options.id}" if options.id else "decision"
        print(f"tidegate explain: no {what} in {options.journal}; x-tidegate-decision names one", file=sys.stderr)
        return 1
    if options.json:
        print_json(found)
    else:
        console = Console(highlight=False)
        for one in found:
            print_explained(console, one)
    return 0 if all(one.again for one in found) else 1


def replay(options: argparse.Namespace) -> int:
    """Reproduce a journal: 0 where every decision came out again, 1 where one did not, or nothing is written in it."""
    console = Console(stderr=True)
    try:
        count, found = reproduce(options.journal, options.jobs)
        shown = track(found, "segments", total=count, console=console, transient=True, disable=not console.is_terminal)
        report = summed(shown)
        if not report.segments:
            raise unwritten(options.journal)
    except (JournalError, ReplayError) as error:
        print(f"tidegate replay: {error}", file=sys.stderr)
        return 1
    with while_read():
        if options.json:
            print_json(report)
        else:
            print_replayed(report)
    return 0 if report.difference is None else 1


def print_replayed(report: Report) -> None:
    """For people: what came out again, and of what did not, why."""
    difference = report.difference
    said = "all came out again" if difference is None else "one came out otherwise"
    counted = f"{report.decisions} decisions over {report.observations} observations, {report.segments} segments"
    print(f"{counted}: {said}")
    if difference is not None:
        called = printable(difference.recorded.request_id)
        print(f"  {called} at {clock.iso(difference.at_s)}: its {', '.join(difference.parts)}")
        print(f"  recorded {_plan_text(difference.recorded)} ({difference.recorded.why.value})")
        print(f"  replayed {_plan_text(difference.replayed)} ({difference.replayed.why.value})")
        print(f"  {cause_text(difference, report.parted_s, f'tidegate {__version__}')}")
        for flip in sorted(difference.flips, key=_distance):
            print(f"  as recorded: {flip_text(flip)}")
    elif report.parted_s is not None:
        print(f"  {_parted_text(report.parted_s)}; no decision was another one for that")


def cause_text(difference: Difference, parted_s: float | None, software: str) -> str:
    """Why it came out otherwise, as far as the journal tells; `software` is what replays it."""
    if difference.software != software:
        return f"because {difference.software} wrote it, and {software} decides otherwise: replay it with the former"
    if parted_s is not None and parted_s <= difference.since_s:
        return f"because {_parted_text(parted_s)}"
    since = clock.iso(difference.since_s)
    return f"because since {since}, when its segment began, a fact is missing, or one was changed"


def _parted_text(parted_s: float) -> str:
    return (
        f"the segment that began at {clock.iso(parted_s)} begins with something else than the one before it came to: "
        "facts are missing there, or were changed"
    )


def print_explained(console: Console, one: Explained) -> None:
    """One decision for people: where, why, and each candidate with what makes up its value."""
    request, decision = one.request, one.decision
    # What clients and other gateways' logs call things is no mark-up, and moves no cursor.
    called, model = escape(printable(request.id)), escape(printable(request.model))
    console.print(
        f"[bold]{called}[/] at {clock.iso(one.at_s)}: {request.klass}, {model}, about "
        f"{request.prompt_tokens} prompt tokens",
        soft_wrap=True,
    )
    console.print(
        f"  -> [bold {_CHOSEN}]{_plan_text(decision)}[/]: {WHY_TEXT[decision.why]} ({decision.why.value})",
        soft_wrap=True,
    )
    if not one.again:
        console.print(
            f"  it does not come out again: what stands below is what tidegate {__version__} makes of it, and tidegate "
            "replay says how it differs",
            soft_wrap=True,
        )
    if decision.why is Why.MODEL_FAILED:
        console.print("  it was made without the model: there are no candidates", soft_wrap=True)
    if decision.propensity < 1.0:
        console.print(f"  chosen with a probability of {decision.propensity:.4g}, for some requests explore")
    for ruling in request.rulings:
        console.print(f"  rule [bold]{ruling.rule}[/] holds: {ruling_text(ruling)}", soft_wrap=True)
    if request.attainment is not None and one.worth_share is not None:
        console.print(
            f"  its promise is worth ${one.worth_usd:.6f}, {one.worth_share:.1%} of the most: of its class "
            f"{request.attainment:.3g} are to be kept",
            soft_wrap=True,
        )
    # What rules and budgets put on endpoints is shown where it is anything.
    usd = [*USD, *(part for part in RARE if any(part in c.contributions_usd for c in one.candidates))]
    bound = f"{100 * one.quantile:.3g} % <"
    table = Table(
        "candidate", "value $", *(SHORT.get(part, part) for part in usd), "cached", "ttft s", bound, "load", "kept",
        box=None, header_style="bold", padding=(0, 1, 0, 0),
    )  # fmt: skip
    candidates = sorted((*one.candidates, *one.prefills), key=_rank)
    for candidate in candidates:
        table.add_row(*_row(candidate, usd), style=_style(candidate, decision))
    if candidates:
        print_table(console, table)
    for candidate in candidates:
        if candidate.excluded is not None:
            by = f" ({candidate.rule})" if candidate.rule else ""
            console.print(f"  not {_name(candidate)}: {WHY_TEXT[candidate.excluded]}{by}", soft_wrap=True, markup=False)
    for candidate in one.candidates:
        if candidate.kv_free_tokens is not None:
            console.print(
                f"  memory of {candidate.endpoint}: about {candidate.kv_tokens} tokens are needed, "
                f"{candidate.kv_free_tokens} are free",
                soft_wrap=True,
            )
        if (estimate := candidate.estimate) is not None and estimate.failed_share + estimate.broken_share > 0.0:
            console.print(
                f"  of attempts at {candidate.endpoint} about {estimate.failed_share:.0%} fail, after "
                f"{estimate.failed_after_s:.3g} s, and {estimate.broken_share:.0%} break off",
                soft_wrap=True,
            )
    for candidate in one.prefills:
        if candidate.kv_bytes is not None and candidate.computed_s is not None and candidate.ship_s is not None:
            console.print(
                f"  computed at {candidate.endpoint} in {candidate.computed_s:.3g} s, its KV cache (about "
                f"{candidate.kv_bytes / 1e6:.3g} MB) is at {candidate.target} {candidate.ship_s:.3g} s later",
                soft_wrap=True,
            )
    if one.densities:
        print_densities(console, one.densities)
    if one.flips is not None:
        print_flips(console, one.flips, decision)
    if one.stages:
        print_stages(console, one.stages)


def print_stages(console: Console, stages: Sequence[Stage]) -> None:
    """What became of the request, in its order."""
    foreseen = any(stage.predicted_s is not None for stage in stages)
    names = ["what became of it", "began s", "took s", *(["predicted s"] if foreseen else []), ""]
    table = Table(*names, box=None, header_style="bold", padding=(0, 1, 0, 0))
    for stage in stages:
        where = f" {stage.endpoint}" if stage.endpoint else ""
        to = f" > {stage.target}" if stage.target else ""
        sent = f"{stage.kv_bytes / 1e6:.3g} MB" if stage.kv_bytes else ""
        failed = f"failed ({stage.cause})" if stage.cause else "failed"
        said = failed if stage.failed else "cancelled" if stage.cancelled else sent
        predicted = "-" if stage.predicted_s is None else f"{stage.predicted_s:.3f}"
        seconds = [f"{stage.began_s:.3f}", f"{stage.took_s:.3f}", *([predicted] if foreseen else [])]
        table.add_row(f"{stage.what.value}{where}{to}", *seconds, said)
    print_table(console, table)


def print_flips(console: Console, flips: Sequence[Flip], decision: Decision) -> None:
    """The least that would have made it another decision, nearest first; of one that chance has made, another one than
    it would be without."""
    if decision.why is Why.EXPLORES and decision.propensity < 1.0 and len(decision.plan) > 1:
        # Behind the one that chance asks first stands the best.
        console.print(f"  without chance it would have gone to {decision.plan[1].endpoint}", soft_wrap=True)
    if not flips:
        console.print("  nothing that was tried would have made it another decision")
        return
    console.print("  it would have been another decision:", highlight=False)
    for flip in sorted(flips, key=_distance):
        console.print(f"    {flip_text(flip)}", soft_wrap=True)


def flip_text(flip: Flip) -> str:
    """One of them, for people."""
    goes = "refused" if not flip.goes_to else f"waits for {flip.goes_to}" if flip.waits else flip.goes_to
    what, unit, factor = _AXES[flip.axis]
    at, now = (_number(value * factor, value - flip.now) for value in (flip.at, flip.now))
    bound = "or more" if flip.at > flip.now else "or less"
    whose = f" at {flip.endpoint}" if flip.endpoint else ""
    return f"{goes} with {at}{unit} {bound} {what}{whose} (it has {now}{unit})"


def _number(value: float, away: float) -> str:
    """Four digits, rounded away from where it stands: what is printed flips, too."""
    if value == 0.0:
        return "0"
    if value == int(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    size = 10.0 ** (floor(log10(abs(value))) - 3)
    digits = value / size
    near = round(digits) if abs(digits - round(digits)) < 1e-9 else ceil(digits) if away > 0.0 else floor(digits)
    return f"{near * size:.4g}"


def _distance(flip: Flip) -> float:
    """How far away it is, whatever its unit."""
    return abs(log((flip.at + _SMALL) / (flip.now + _SMALL)))


def print_densities(console: Console, densities: Sequence[Density]) -> None:
    """How fast each candidate computes the request, what sending it there saves, and what bounds it."""
    table = Table(
        "computing", "s", f"x {densities[0].over}", "saved us/B", "prefill FLOP/B", "decode FLOP/B", "ridge", "batch",
        box=None, header_style="bold", padding=(0, 1, 0, 0),
    )  # fmt: skip
    for one in sorted(densities, key=lambda one: one.compute_s):
        table.add_row(
            one.endpoint,
            f"{one.compute_s:.3f}",
            f"{one.speed_up:.3g}",
            "-" if one.saved_s_per_byte is None else f"{1e6 * one.saved_s_per_byte:.3g}",
            _phase(one.prefill),
            _phase(one.decode),
            "-" if one.ridge_flop_per_byte is None else f"{one.ridge_flop_per_byte:.3g}",
            "-" if one.batch is None else str(one.batch),
        )
    print_table(console, table)


def _phase(phase: Phase | None) -> str:
    return "-" if phase is None else f"{phase.intensity_flop_per_byte:.3g} {phase.bound.value}"


def _style(candidate: Candidate, decision: Decision) -> str:
    """What is chosen stands out, and what could not be steps back; its words say the same."""
    if candidate.excluded is not None:
        return "dim"
    first = decision.plan[0] if decision.plan else None
    target = first.target if isinstance(first, Prefill) else ""
    return _CHOSEN if first is not None and (first.endpoint, target) == (candidate.endpoint, candidate.target) else ""


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return candidate.excluded is not None, -(candidate.value_usd or 0.0)


def _row(candidate: Candidate, parts: Sequence[str]) -> list[str]:
    estimate = candidate.estimate
    if estimate is None or candidate.value_usd is None:
        return [_name(candidate), *["-"] * (6 + len(parts))]
    usd = [candidate.value_usd, *(candidate.contributions_usd.get(part, 0.0) for part in parts)]
    seconds = [estimate.ttft_s, estimate.ttft_s_high]
    return [
        _name(candidate),
        *(f"{u:+.6f}" for u in usd),
        f"{estimate.cached_tokens:.0f}",
        *(f"{s:.2f}" for s in seconds),
        f"{estimate.cold_share:.0%} {estimate.load_s:.3g} s" if estimate.cold_share else "-",
        f"{estimate.attainment:.0%}",
    ]


def _name(candidate: Candidate) -> str:
    return f"{candidate.endpoint} > {candidate.target}" if candidate.target else candidate.endpoint


def ruling_text(ruling: Ruling) -> str:
    """What an operators' rule says, for people."""
    if ruling.klass:
        return f"class {ruling.klass}"
    to = ", ".join(ruling.to)
    return f"{to}, and nowhere else" if ruling.hard else f"{to}, or elsewhere for ${ruling.break_usd:g} less"


def _plan_text(decision: Decision) -> str:
    return ", then ".join(_step_text(step) for step in decision.plan) or "refused"


def _step_text(step: Step) -> str:
    if isinstance(step, Prefill):
        return f"prefill at {step.endpoint} for {step.target}"
    return f"wait for {step.endpoint}" if isinstance(step, Wait) else step.endpoint
