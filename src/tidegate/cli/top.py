"""`tidegate top`: a running gateway, once a second, with hands on its endpoints."""

import argparse
import sys
from collections.abc import Callable

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import DataTable, Footer, Static

from tidegate.cli.live import Address, Live, Shown, UnreachableError, address, look
from tidegate.cli.status import headline, reasons, row

LOOK_S = 1.0
# Beyond 80 columns there is room for what is looked at less often.
WIDE = 100
GAP = 1
# More would leave the endpoints no room.
REASONS_MAX = 3
COLUMNS = ("endpoint", "side", "state", "in flight", "queued", "ttft s", "of pred.", "failed", "usd")
MORE = ("site", "rtt ms")
HELP = """\
endpoint   as it is configured
side       local or remote
state      up, down, broken (breaker open), drained, drifted, unlike (its model)
in flight  our attempts there, of as many as it may have at once
queued     requests of others that wait there, as it reports
ttft s     median time to first content, of all attempts since the start
of pred.   the same, as measured over predicted: x1.00 is exact
failed     attempts that did not end well, of all
usd        what its attempts cost

s  sort by the next column      d  drain: it gets nothing new      u  undrain
?  this help                    r  look now                        q  quit"""

# What a column is sorted by: names upwards, figures from the largest, what is unknown at the end.
_KEYS: tuple[Callable[[Shown], tuple[object, ...]], ...] = (
    lambda one: (one.name,),
    lambda one: (not one.local, one.name),
    lambda one: (one.state == "up", one.state, one.name),
    lambda one: (-one.in_flight, one.name),
    lambda one: (-(one.queued or 0.0), one.name),
    lambda one: (-(one.ttft_s or 0.0), one.name),
    lambda one: (-(one.actual_to_predicted or 0.0), one.name),
    lambda one: (-one.failed, one.name),
    lambda one: (-one.usd, one.name),
)


def run(options: argparse.Namespace) -> int:
    """Show it until somebody quits; 2 where nobody could."""
    # It is drawn on standard error, where Textual draws.
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("tidegate top: it needs a terminal; `tidegate status` says it once", file=sys.stderr)
        return 2
    Top(address(options.admin, options.config)).run()
    return 0


class Top(App[None]):
    """Looks once a second. A gateway that does not answer is asked again, and what was seen last stays in sight."""

    TITLE = "tidegate top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #said { height: auto; padding: 0 1; }
    #trouble { height: auto; padding: 0 1; text-style: bold reverse; display: none; }
    #help { height: auto; padding: 1; display: none; }
    DataTable { height: 1fr; }
    """
    BINDINGS = [  # noqa: RUF012 - as the framework declares it
        Binding("s", "sort", "Sort"),
        Binding("d", "drain", "Drain"),
        Binding("u", "undrain", "Undrain"),
        Binding("r", "look", "Look"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, at: Address) -> None:
        super().__init__()
        self._at = at
        self._live: Live | None = None
        self._sorted_by = 0
        # Looks are numbered as they begin: the last one, and that of which the answer is shown.
        self._looks = self._shown = 0

    def compose(self) -> ComposeResult:
        """What all of it comes to, what is wrong, the endpoints, and the keys."""
        yield Static(f"{self._at.url}: asking", id="said", markup=False)
        yield Static("", id="trouble", markup=False)
        yield DataTable(cursor_type="row", cell_padding=0)
        yield Static(HELP, id="help", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.set_interval(LOOK_S, self.action_look)
        self.action_look()

    def on_resize(self) -> None:
        """Other columns may fit now."""
        self._draw()

    def action_look(self) -> None:
        """Ask, beside the screen; of two that are under way the later one counts."""
        self._looks += 1
        number = self._looks
        self.run_worker(lambda: self._look(number), thread=True, group="look")

    def action_sort(self) -> None:
        """By the next column."""
        self._sorted_by = (self._sorted_by + 1) % len(_KEYS)
        self._draw()

    def action_drain(self) -> None:
        """The chosen endpoint gets nothing new."""
        self._set(on=True)

    def action_undrain(self) -> None:
        """It does again."""
        self._set(on=False)

    def action_help(self) -> None:
        """Show what columns and keys mean, or hide it."""
        shown = self.query_one("#help")
        shown.display = not shown.display

    def _set(self, *, on: bool) -> None:
        name = self._chosen
        if name is not None:
            self.run_worker(lambda: self._change(name, on=on), thread=True, group="change")

    @property
    def _chosen(self) -> str | None:
        """The endpoint on which the cursor stands."""
        table = self.query_one(DataTable)
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value if table.row_count else None

    def _change(self, name: str, *, on: bool) -> None:
        try:
            self._at.drain(name, on=on)
        except UnreachableError as error:
            self.call_from_thread(self._failed, str(error))
            return
        self.call_from_thread(self.action_look)

    def _look(self, number: int) -> None:
        found: Live | str
        try:
            found = look(self._at)
        except UnreachableError as error:
            found = str(error)
        self.call_from_thread(self._answered, number, found)

    def _answered(self, number: int, found: Live | str) -> None:
        """Show it, or why there is none, unless a later look was quicker. None is given up for a later one: where each
        takes longer than from one to the next, nothing would ever be shown."""
        if number < self._shown or not self.is_running:
            return
        self._shown = number
        if isinstance(found, Live):
            self._seen(found)
        else:
            self._failed(found)

    def _failed(self, why: str) -> None:
        if not self.is_running:
            return
        trouble = self.query_one("#trouble", Static)
        stale = "" if self._live is None else "; below is what was seen last"
        trouble.update(f"{why}; asking again{stale}")
        trouble.display = True

    def _seen(self, live: Live) -> None:
        self._live = live
        self.query_one("#trouble").display = False
        self._draw()

    def _draw(self) -> None:
        live = self._live
        if live is None:
            return
        by = COLUMNS[self._sorted_by]
        said = [f"{self._at.url}: {headline(live)}; sorted by {by}", *reasons(live)[:REASONS_MAX]]
        self.query_one("#said", Static).update("\n".join(said))
        wide = self.size.width >= WIDE
        columns = COLUMNS + (MORE if wide else ())
        endpoints = sorted(live.endpoints, key=_KEYS[self._sorted_by])
        rows = [row(one) + (_more(one) if wide else []) for one in endpoints]
        # The cursor stays with its endpoint, wherever that is sorted to: a key must not mean another one.
        chosen = self._chosen
        table = self.query_one(DataTable)
        table.clear(columns=True)
        for name, *cells in zip(columns, *rows, strict=True):
            table.add_column(name, width=max(len(cell) for cell in (name, *cells)) + GAP)
        for one, cells in zip(endpoints, rows, strict=True):
            style = "bold" if one.state in ("down", "broken") else ""
            table.add_row(*(Text(cell, style=style) for cell in cells), key=one.name)
        names = [one.name for one in endpoints]
        table.move_cursor(row=names.index(chosen) if chosen in names else 0)


def _more(one: Shown) -> list[str]:
    """The cells of the columns that a wide terminal has besides."""
    return [one.site, "-" if one.rtt_s is None else f"{1000.0 * one.rtt_s:.1f}"]
