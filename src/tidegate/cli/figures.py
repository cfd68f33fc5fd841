"""A simulated scenario's figures in the terminal."""

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tidegate import clock
from tidegate.cli.output import Console, print_table, printable
from tidegate.sim import sheet
from tidegate.sim.report import Report
from tidegate.sim.sheet import Sheet


def print_report(console: Console, report: Report) -> None:
    """All sheets, and whether the bounds hold."""
    console.print(
        f"[bold]{escape(report.scenario)}[/], policy {escape(report.policy)}, seed {report.seed}, "
        f"from {clock.iso(report.start_s)}: {report.groups[0].requests} requests in {report.elapsed_s:.0f} s",
        soft_wrap=True,
    )
    for one in (sheet.promises(report), sheet.times(report), sheet.endpoints(report)):
        console.print()
        print_sheet(console, one)
    console.print()
    for count, why in sheet.reasons(report).rows:
        console.print(f"{count:>7}  {why}", soft_wrap=True)
    for mark in report.bounds:
        said = "[green]  holds[/]" if mark.holds else "[bold red] broken[/]"
        console.print(f"{said}  {escape(sheet.mark(mark))}", soft_wrap=True)


def print_sheet(console: Console, one: Sheet) -> None:
    """A sheet, its figures to the right."""
    made = Table(*one.columns, box=None, header_style="bold", padding=(0, 1, 0, 0))
    for column in made.columns[1:]:
        column.justify = "right"
    for row in one.rows:
        # What comes from outside is no mark-up, and moves no cursor.
        made.add_row(*(Text(printable(cell)) for cell in row))
    print_table(console, made)
