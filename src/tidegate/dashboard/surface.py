"""Where the break-even lies: what the router, as the journal's end has made it, does with such requests as come."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tidegate.core.classify import base_of
from tidegate.core.model import Record, Request
from tidegate.core.surface import Cell, counts, lengths, surface
from tidegate.core.why import Why
from tidegate.dashboard.endpoints import router_of
from tidegate.dashboard.follow import Follower, Known
from tidegate.dashboard.index import LOCAL, REMOTE
from tidegate.wire.errors import BadRequest

# It takes a second; pages that are open side by side ask for the same.
KEPT_S: Final = 10.0
KEPT_MAX: Final = 16


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which requests, and whose load is varied; what is left out is what is most common."""

    klass: str = msgspec.field(name="class", default="")
    model: str = ""
    endpoint: str = ""


class Spot(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One length at one load; `docs/reference/dashboard.md` says what each field is."""

    goes_to: str
    tier: str | None
    waits: bool
    why: Why
    by_usd: float | None
    local_usd: float | None
    remote_usd: float | None
    local_attainment: float | None
    remote_attainment: float | None
    sure: float


class Surface(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of it, `cells` by load and in that by length."""

    at_s: float
    klass: str = msgspec.field(name="class")
    model: str
    endpoint: str
    classes: tuple[str, ...]
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    output_tokens_max: int | None
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    prompt_tokens: tuple[int, ...]
    in_flight: tuple[int, ...]
    cells: tuple[tuple[Spot, ...], ...]


_NOTHING: Final = Surface(
    at_s=0.0,
    klass="",
    model="",
    endpoint="",
    classes=(),
    models=(),
    endpoints=(),
    output_tokens_max=None,
    ttft_s=None,
    tpot_s=None,
    e2e_s=None,
    prompt_tokens=(),
    in_flight=(),
    cells=(),
)
"""Of a journal without requests that are served any more."""


class Surfaces:
    """Asks, and remembers for a moment. One thread does."""

    def __init__(self, follower: Follower, now_s: Callable[[], float]) -> None:
        self._follower = follower
        self._now_s = now_s
        self._kept: dict[Asked, tuple[float, bytes]] = {}

    def answer(self, asked: Asked) -> bytes:
        """As JSON. Raises BadRequest."""
        now_s = self._now_s()
        kept = self._kept.get(asked)
        if kept is not None and now_s - kept[0] < KEPT_S:
            return kept[1]
        known = self._follower.known()
        if known is None or not known.samples:
            return msgspec.json.encode(_NOTHING)
        made = msgspec.json.encode(_surface(known, asked))
        self._kept.pop(asked, None)
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[asked] = now_s, made
        return made


def _surface(known: Known, asked: Asked) -> Surface:
    router = router_of(known)
    samples = [one for one in known.samples if router.serving(one.model)]
    if not samples:
        return _NOTHING
    request = _sample(samples, asked)
    serving = sorted(router.serving(request.model), key=lambda one: (not one.owned, one.name))
    names = [one.name for one in serving]
    if asked.endpoint and asked.endpoint not in names:
        raise BadRequest(f"`{request.model}` is served by {', '.join(names)}.", status=404)
    endpoint = router.endpoint(asked.endpoint or names[0])
    prompts, crowds = lengths(router, request.model), counts(endpoint.endpoint.concurrency)
    cells = surface(router, request, endpoint.name, prompts, crowds, known.at_s)
    return Surface(
        at_s=known.at_s,
        klass=base_of(request.klass),
        model=request.model,
        endpoint=endpoint.name,
        classes=tuple(sorted({base_of(one.klass) for one in samples})),
        models=tuple(sorted({one.model for one in samples})),
        endpoints=tuple(names),
        output_tokens_max=request.output_tokens_max,
        ttft_s=request.slo.ttft_s,
        tpot_s=request.slo.tpot_s,
        e2e_s=request.slo.e2e_s,
        prompt_tokens=tuple(prompts),
        in_flight=tuple(crowds),
        cells=tuple(
            tuple(_spot(cell, _sure(cells, row, column)) for column, cell in enumerate(line))
            for row, line in enumerate(cells)
        ),
    )


def _sample(samples: Sequence[Request], asked: Asked) -> Request:
    """The first that fits: the most common come first."""
    klass = base_of(asked.klass)
    for one in samples:
        if klass in ("", base_of(one.klass)) and asked.model in ("", one.model):
            return one
    raise BadRequest("No such requests were journalled of late that an endpoint serves.", status=404)


def _sure(cells: Sequence[Sequence[Cell]], row: int, column: int) -> float:
    """The share of the cells around this one that go to the same side."""
    here = cells[row][column]
    around = [
        other
        for line in cells[max(0, row - 1) : row + 2]
        for other in line[max(0, column - 1) : column + 2]
        if other is not here
    ]
    return sum(other.local == here.local for other in around) / len(around) if around else 1.0


def _spot(cell: Cell, sure: float) -> Spot:
    ours, theirs = cell.ours, cell.theirs
    return Spot(
        goes_to=cell.goes_to,
        tier=None if cell.local is None else LOCAL if cell.local else REMOTE,
        waits=cell.waits,
        why=cell.why,
        by_usd=None if ours is None or theirs is None else ours.value_usd - theirs.value_usd,
        local_usd=None if ours is None else ours.value_usd,
        remote_usd=None if theirs is None else theirs.value_usd,
        local_attainment=None if ours is None else ours.attainment,
        remote_attainment=None if theirs is None else theirs.attainment,
        sure=sure,
    )
