"""`tidegate doctor`: how good predictions were, endpoint by endpoint, and whether they still are."""

import argparse
import sys

from rich.markup import escape
from rich.table import Table

from tidegate import clock
from tidegate.cli.output import Console, print_json, print_table, while_read
from tidegate.core.diagnosis import Accuracy, Diagnosis, Finding, Health, Promise, Total
from tidegate.core.doctor import Doctor
from tidegate.core.overlap import overlap_text
from tidegate.core.replay import ReplayError
from tidegate.telemetry.reading import JournalError, read, written


def doctor(options: argparse.Namespace) -> int:
    """Examine a journal: 0 where nothing alarms, 1 where something does, 2 where it cannot be read, or nothing
    is written in it."""
    examined = Doctor()
    try:
        for line in written(options.journal, read(options.journal)):
            examined.feed(line)
    except (JournalError, ReplayError) as error:
        print(f"tidegate doctor: {error}", file=sys.stderr)
        return 2
    diagnosis = examined.diagnosis()
    with while_read():
        if options.json:
            print_json(diagnosis)
        else:
            print_diagnosis(Console(highlight=False), diagnosis)
    return 1 if diagnosis.alarm else 0


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """For people: a table of figures, then what was found at each endpoint."""
    if diagnosis.from_s is not None:
        console.print(
            f"{diagnosis.decisions} decisions from {clock.iso(diagnosis.from_s)} to {clock.iso(diagnosis.until_s)}",
            soft_wrap=True,
        )
    if diagnosis.overlapping:
        console.print(overlap_text(diagnosis.overlapping), soft_wrap=True)
    if diagnosis.otherwise:
        console.print(
            f"{diagnosis.otherwise} of them come out otherwise now: this journal was written by other software, or has "
            "a gap, and predictions are what this software makes of it",
            soft_wrap=True,
        )
    table = Table(
        "endpoint", "taught", "TTFT off", "TPOT off", "E2E off", "promises", "tokens", "cost",
        box=None, header_style="bold", padding=(0, 2, 0, 0),
    )  # fmt: skip
    for health in diagnosis.endpoints:
        table.add_row(*_row(health))
    print_table(console, table)
    for health in diagnosis.endpoints:
        console.print(f"[bold]{escape(health.endpoint)}[/]")
        for finding in health.findings:
            _print_finding(console, finding)
        if not health.findings:
            console.print("  nothing was found that means anything")
    console.print("[bold red]alarm[/]" if diagnosis.alarm else "no alarm")


def _print_finding(console: Console, finding: Finding) -> None:
    since = "" if finding.at_s is None else f" (since {clock.iso(finding.at_s)})"
    mark = "[bold red]alarm:[/] " if finding.alarm else ""
    console.print(f"  {mark}{escape(finding.means)}{since} \\[{finding.symptom.value}]", soft_wrap=True)
    console.print(f"    {escape(finding.do)}", soft_wrap=True)


def _row(health: Health) -> list[str]:
    return [
        health.endpoint,
        str(health.taught),
        _accuracy(health.ttft),
        _accuracy(health.tpot),
        _accuracy(health.whole),
        _promise(health.promise),
        _total(health.output_tokens),
        _total(health.cost_usd),
    ]


def _accuracy(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{accuracy.error:.0%} ({accuracy.bias:+.0%})"


def _promise(promise: Promise | None) -> str:
    return "-" if promise is None else f"{promise.kept:.1%} of {promise.quantile:.0%}"


def _total(total: Total | None) -> str:
    return "-" if total is None else f"{total.predicted / total.measured - 1.0:+.0%}"
