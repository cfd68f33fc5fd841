"""What pages ask of the index about single requests: one of them, the newest, those that are searched for.

Each answer is a record whose fields `docs/reference/dashboard.md` explains. Reads only.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tidegate.core.model import Record
from tidegate.core.rows import Came
from tidegate.core.why import WHY_TEXT, Why
from tidegate.dashboard.index import HOUR_S, OUTCOMES, TIERS, Place, places_of

VALUES_MAX: Final = 256
LIMIT_MAX: Final = 200
# So many rows are looked up and sorted in 20 ms.
RARE_MAX: Final = 5000
_AFTER_ALL: Final = "\U0010ffff"


class Promised(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The limits of a promise; None is no promise."""

    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None


class Row(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One request that is over."""

    id: str
    at_s: float
    ended_s: float
    klass: str = msgspec.field(name="class")
    model: str
    key: str
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int | None
    endpoint: str | None
    site: str | None
    tier: str | None
    why: str | None
    why_text: str | None
    outcome: Came
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float
    sent_s: float | None
    predicted_ttft_s: float | None
    predicted_ttft_s_high: float | None
    slo: Promised
    kept: bool | None
    usd: float
    paid_usd: float
    remote_usd: float | None
    saved_usd: float | None
    attempts: int
    hedged: bool
    held_s: float
    handover: str
    handover_s: float | None


class Rows(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A page of them, the newest first; `next` asks for those before."""

    rows: tuple[Row, ...]
    next: str | None


class Values(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What there is to be asked for."""

    classes: tuple[str, ...]
    models: tuple[str, ...]
    endpoints: tuple[Place, ...]
    keys: tuple[str, ...]
    outcomes: tuple[str, ...]
    whys: dict[str, str]


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests are searched for; what is left out is any."""

    q: str = ""
    klass: str = msgspec.field(name="class", default="")
    model: str = ""
    endpoint: str = ""
    tier: str = ""
    why: str = ""
    outcome: str = ""
    key: str = ""
    kept: bool | None = None
    from_s: float | None = None
    to_s: float | None = None
    before: str = ""
    limit: int = 50


class Extent(Record, frozen=True, kw_only=True):
    """How many rows there are, and when the first and the last of them arrived."""

    rows: int
    first_s: float | None
    last_s: float | None


_SELECT = (
    "SELECT n, r.id, at_s, ended_s, k.text, m.text, y.text, e.text, w.text, outcome, kept, r.tier, prompt_tokens, "
    "cached_tokens, output_tokens, ttft_s, tpot_s, e2e_s, sent_s, predicted_s, predicted_s_high, slo_ttft_s, "
    "slo_tpot_s, slo_e2e_s, usd, paid_usd, remote_usd, attempts, hedged, held_s, handover, handover_s, place.site "
    "FROM request r LEFT JOIN word k ON k.id = klass LEFT JOIN word m ON m.id = model LEFT JOIN word y ON y.id = key "
    "LEFT JOIN word e ON e.id = endpoint LEFT JOIN word w ON w.id = why LEFT JOIN place ON place.name = e.text "
)


class Requests:
    """Answers from one connection; one thread has it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def extent(self) -> Extent:
        """What is there."""
        rows = self._db.execute("SELECT coalesce(sum(rows), 0) FROM segment").fetchone()[0]
        first_s, last_s = (
            self._db.execute(f"SELECT at_s FROM request ORDER BY at_s {way} LIMIT 1").fetchone()  # noqa: S608
            for way in ("ASC", "DESC")
        )
        return Extent(rows=rows, first_s=first_s and first_s[0], last_s=last_s and last_s[0])

    def row(self, request_id: str) -> Row | None:
        """The request with this id, the newest where there are several."""
        found = self._db.execute(f"{_SELECT} WHERE r.id = ? ORDER BY n DESC LIMIT 1", (request_id,)).fetchone()
        return None if found is None else _row(found)

    def segment_of(self, request_id: str) -> str | None:
        """The segment that tells the end of it."""
        found = self._db.execute(
            "SELECT s.name FROM request r JOIN segment s ON s.id = r.segment WHERE r.id = ? ORDER BY n DESC LIMIT 1",
            (request_id,),
        ).fetchone()
        return None if found is None else str(found[0])

    def newest(self, after: int, limit: int) -> tuple[tuple[Row, ...], int]:
        """The newest of those that were added after that number, and the number up to which they are."""
        last = self._db.execute("SELECT max(n) FROM request").fetchone()[0] or 0
        found = self._db.execute(f"{_SELECT} WHERE n > ? ORDER BY n DESC LIMIT ?", (after, limit)).fetchall()
        return tuple(_row(one) for one in found), int(last)

    def search(self, wanted: Wanted) -> Rows:
        """A page of requests. ValueError says what cannot be asked."""
        limit = min(max(1, wanted.limit), LIMIT_MAX)
        where, values = self._where(wanted)
        by = "by_id" if wanted.q and self._is_rare(wanted.q) else "by_time"
        # The numbers first: which rows these are is in the index, and only a page of them is looked up.
        inner = f"SELECT n FROM request INDEXED BY {by} WHERE {where} ORDER BY at_s DESC, n DESC LIMIT ?"  # noqa: S608
        found = self._db.execute(
            f"{_SELECT} WHERE n IN ({inner}) ORDER BY at_s DESC, n DESC", (*values, limit + 1)
        ).fetchall()
        rows = tuple(_row(one) for one in found[:limit])
        more = f"{found[limit - 1][2]!r}-{found[limit - 1][0]}" if len(found) > limit else None
        return Rows(rows=rows, next=more)

    def values(self) -> Values:
        """What occurs."""
        words: dict[str, list[str]] = {}
        for kind, text in self._db.execute("SELECT kind, text FROM word ORDER BY text"):
            words.setdefault(kind, []).append(text)
        return Values(
            classes=tuple(words.get("class", ())[:VALUES_MAX]),
            models=tuple(words.get("model", ())[:VALUES_MAX]),
            endpoints=tuple(sorted(places_of(self._db).values(), key=lambda one: one.name)[:VALUES_MAX]),
            keys=tuple(words.get("key", ())[:VALUES_MAX]),
            outcomes=tuple(name for name, count in zip(OUTCOMES, self._outcomes(), strict=True) if count),
            whys={why: WHY_TEXT[Why(why)] for why in words.get("why", ()) if why in WHY_TEXT},
        )

    def _outcomes(self) -> list[int]:
        """How many requests ended in each way."""
        counted = ", ".join(f"sum({name})" for name in OUTCOMES)
        found = self._db.execute(f"SELECT {counted} FROM sum WHERE step_s = ?", (HOUR_S,))  # noqa: S608
        return [int(count or 0) for count in found.fetchone()]

    def _where(self, wanted: Wanted) -> tuple[str, list[object]]:
        terms, values = ["1"], list[object]()
        if wanted.q:
            terms.append("id >= ? AND id < ?")
            values += [wanted.q, wanted.q + _AFTER_ALL]
        if wanted.klass:
            terms.append("klass IN (SELECT id FROM word WHERE kind = 'class' AND (text = ? OR substr(text, 1, ?) = ?))")
            values += [wanted.klass, len(wanted.klass) + 1, wanted.klass + "/"]
        for kind in ("model", "endpoint", "why", "key"):
            if text := getattr(wanted, kind):
                terms.append(f"{kind} = (SELECT id FROM word WHERE kind = '{kind}' AND text = ?)")  # noqa: S608
                values.append(text)
        if wanted.outcome:
            terms.append("outcome = ?")
            values.append(_number(OUTCOMES, wanted.outcome, "outcome"))
        if wanted.tier:
            terms.append("tier = ?")
            values.append(_number(TIERS, wanted.tier, "tier"))
        if wanted.kept is not None:
            terms.append("kept = ?")
            values.append(wanted.kept)
        for term, bound in (("at_s >= ?", wanted.from_s), ("at_s <= ?", wanted.to_s)):
            if bound is not None:
                terms.append(term)
                values.append(bound)
        if wanted.before:
            at_s, _, n = wanted.before.rpartition("-")
            terms.append("(at_s, n) < (?, ?)")
            try:
                values += [float(at_s), int(n)]
            except ValueError:
                raise ValueError("`before` is the `next` of another page") from None
        return " AND ".join(terms), values

    def _is_rare(self, beginning: str) -> bool:
        """Whether few ids begin like this: else those that do are soon found in the order of time."""
        few = "SELECT 1 FROM request INDEXED BY by_id WHERE id >= ? AND id < ? LIMIT ?"
        values = beginning, beginning + _AFTER_ALL, RARE_MAX + 1
        return bool(self._db.execute(f"SELECT count(*) FROM ({few})", values).fetchone()[0] <= RARE_MAX)  # noqa: S608


def _number(names: Sequence[str | None], name: str, what: str) -> int:
    if name not in names:
        known = ", ".join(one for one in names if one)
        raise ValueError(f"there is no {what} `{name[:40]}`; there are {known}")
    return names.index(name)


def _row(found: Sequence[Any]) -> Row:
    (_, id, at_s, ended_s, klass, model, key, endpoint, why, outcome, kept, tier, prompt_tokens, cached_tokens,
     output_tokens, ttft_s, tpot_s, e2e_s, sent_s, predicted_s, predicted_s_high, slo_ttft_s, slo_tpot_s, slo_e2e_s,
     usd, paid_usd, remote_usd, attempts, hedged, held_s, handover, handover_s, site) = found  # fmt: skip
    return Row(
        id=id,
        at_s=at_s,
        ended_s=ended_s,
        klass=klass or "",
        model=model or "",
        key=key or "",
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        output_tokens=output_tokens,
        endpoint=endpoint,
        site=site,
        tier=TIERS[tier],
        why=why,
        why_text=WHY_TEXT.get(why),
        outcome=OUTCOMES[outcome],
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        e2e_s=e2e_s,
        sent_s=sent_s,
        predicted_ttft_s=predicted_s,
        predicted_ttft_s_high=predicted_s_high,
        slo=Promised(ttft_s=slo_ttft_s, tpot_s=slo_tpot_s, e2e_s=slo_e2e_s),
        kept=None if kept is None else bool(kept),
        usd=usd,
        paid_usd=paid_usd,
        remote_usd=remote_usd,
        saved_usd=None if remote_usd is None else remote_usd - usd,
        attempts=attempts,
        hedged=bool(hedged),
        held_s=held_s,
        handover=handover,
        handover_s=handover_s,
    )
