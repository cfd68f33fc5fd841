"""What can be asked by GET: each path, what it takes, and who answers."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from tidegate.core.model import Record
from tidegate.core.why import WHY_TEXT
from tidegate.dashboard.endpoints import endpoints
from tidegate.dashboard.figures import MINUTES_MAX, ClassTotals, Figures, Flows, Series, Totals, Window
from tidegate.dashboard.follow import Follower, Known
from tidegate.dashboard.index import MINUTE_S
from tidegate.dashboard.prices import Budget
from tidegate.dashboard.requests import Requests, Row, Values, Wanted
from tidegate.wire.errors import BadRequest

NEWEST_MAX: Final = 20
FIELDS_MAX: Final = 32  # a search takes a dozen


class Summary(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The day and a window, and how much of the journal that is."""

    now_s: float
    mode: str
    journal: bool
    indexed_share: float
    first_s: float | None
    last_s: float | None
    rows: int
    under_way: int
    quantile: float | None
    today: Totals
    window: Totals
    classes: tuple[ClassTotals, ...]
    budgets: tuple[Budget, ...]


class Tick(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is told of a change."""

    summary: Summary
    flow: Flows
    newest: tuple[Row, ...]


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far back."""

    minutes: int = 60


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far back, and in which steps."""

    minutes: int = 60
    step: int = 1


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No question takes less."""


class Queries:
    """Answers from one thread."""

    def __init__(
        self,
        figures: Figures,
        requests: Requests,
        follower: Follower,
        now_s: Callable[[], float],
        mode: str,
        *,
        journal: bool,
    ) -> None:
        """It stands beside what `mode` says; without a `journal` nothing comes."""
        self._journal = journal
        self._figures = figures
        self._requests = requests
        self._follower = follower
        self._now_s = now_s
        self._mode = mode
        self._by_path: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
            "summary": (Span, self.summary),
            "flow": (Span, self._flow),
            "series": (Steps, self._series),
            "requests": (Wanted, requests.search),
            "values": (Nothing, self._values),
            "reasons": (Nothing, lambda _: WHY_TEXT),
        }

    def answers(self, name: str) -> bool:
        """Whether there is something by this name."""
        return name in self._by_path

    def answer(self, name: str, query: str) -> bytes:
        """As JSON. Raises BadRequest."""
        kind, ask = self._by_path[name]
        try:
            return msgspec.json.encode(ask(asked(query, kind)))
        except (ValueError, OverflowError) as error:
            raise BadRequest(str(error)) from None

    def summary(self, span: Span) -> Summary:
        """All of the figures of the first page."""
        figures, follower, now_s = self._figures, self._follower, self._now_s()
        extent, window = self._requests.extent(), Window.back(now_s, _minutes(span.minutes))
        return Summary(
            now_s=now_s,
            mode=self._mode,
            journal=self._journal,
            indexed_share=follower.share,
            first_s=extent.first_s,
            last_s=extent.last_s,
            rows=extent.rows,
            under_way=follower.under_way,
            quantile=follower.quantile(),
            today=figures.totals(Window.today(now_s)),
            window=figures.totals(window),
            classes=figures.classes(window),
            budgets=follower.budgets(),
        )

    def tick(self, minutes: int, after: int) -> tuple[bytes, int]:
        """What has changed since row number `after`, and the number to ask with next."""
        newest, last = self._requests.newest(after, NEWEST_MAX)
        span = Span(minutes)
        return msgspec.json.encode(Tick(summary=self.summary(span), flow=self._flow(span), newest=newest)), last

    def endpoints(self, minutes: int, known: Known | None) -> bytes:
        """Each endpoint, as JSON, with what is `known` of it, which nobody in this thread waits for."""
        return msgspec.json.encode(endpoints(self._figures, Window.back(self._now_s(), minutes), known))

    def minutes(self, query: str) -> int:
        """How far back a page looks. Raises BadRequest."""
        return _minutes(asked(query, Span).minutes)

    def _flow(self, span: Span) -> Flows:
        return self._figures.flows(Window.back(self._now_s(), _minutes(span.minutes)))

    def _series(self, steps: Steps) -> Series:
        window = Window.back(self._now_s(), _minutes(steps.minutes))
        return self._figures.series(window, _minutes(steps.step) * MINUTE_S)

    def _values(self, _: Nothing) -> Values:
        return self._requests.values()


def asked(query: str, kind: type[Any]) -> Any:
    """The parameters of a question. Raises BadRequest."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest(f"more than {FIELDS_MAX} parameters are no question of ours") from None
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"{name[:40]} is given twice")
        if value:
            found[name] = value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None


def _minutes(minutes: int) -> int:
    if not 1 <= minutes <= MINUTES_MAX:
        raise BadRequest(f"minutes are from 1 to {MINUTES_MAX}")
    return minutes
