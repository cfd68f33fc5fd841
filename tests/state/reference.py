"""What a ledger should say, by the plainest means: a list of leases that is added up anew for every question."""

import copy
from dataclasses import dataclass, field

from tidegate.clock import day_number, month_number
from tidegate.state.cap import Cap, Period, Status

NUSD = 1_000_000_000


@dataclass
class Entry:
    """One lease that was ever made, in nano-dollars. `orphan`: its process is gone. `rest`: of its bound, what may have
    been billed beyond what was settled."""

    key: str
    upper: int
    made_s: float
    state: str = "reserved"
    spent: int = 0
    rest: int = 0
    endpoint: str = ""
    orphan: bool = False


@dataclass
class Reference:
    """The entries as they are, and as they are on the disk."""

    caps: list[Cap]
    lease_s: float
    entries: dict[str, Entry] = field(default_factory=dict)
    durable: dict[str, Entry] = field(default_factory=dict)

    def reserve(self, name: str, key: str, upper: int, now_s: float) -> bool:
        """Whether it fits."""
        self.expire(now_s)
        if name in self.entries:
            if self.entries[name].state in ("reserved", "unconfirmed"):
                return True
            # A name that is used again is another lease: what became of the first stands.
            self.entries[f"{name}, earlier {len(self.entries)}"] = self.entries.pop(name)
        for cap in self.caps:
            if cap.key in (None, key) and self.held(cap, now_s) + upper > round(cap.usd * NUSD):
                return False
        self.entries[name] = Entry(key, upper, now_s)
        return True

    def settle(self, name: str, spent: int, now_s: float, endpoint: str, *, whole: bool = True) -> None:
        self.expire(now_s)
        entry = self.entries.get(name)
        if entry is not None and entry.state in ("reserved", "unconfirmed"):
            entry.state, entry.spent, entry.endpoint = "spent", spent, endpoint
            entry.rest = 0 if whole else max(0, entry.upper - spent)

    def release(self, name: str) -> None:
        entry = self.entries.get(name)
        if entry is not None and entry.state in ("reserved", "unconfirmed"):
            entry.state = "gone"

    def expire(self, now_s: float) -> None:
        for entry in self.entries.values():
            if entry.orphan and entry.state == "reserved" and entry.made_s + self.lease_s <= now_s:
                entry.state = "unconfirmed"

    def commit(self) -> None:
        self.durable = copy.deepcopy(self.entries)

    def crash(self) -> None:
        """What was not committed never happened, and what is open has lost its process."""
        self.entries = copy.deepcopy(self.durable)
        for entry in self.entries.values():
            entry.orphan = True

    def amounts(self, cap: Cap, now_s: float) -> tuple[int, int, int]:
        """Spent, unconfirmed and reserved in the window of that time."""
        window = window_of(cap.period, now_s)
        found = [
            e for e in self.entries.values() if cap.key in (None, e.key) and window_of(cap.period, e.made_s) == window
        ]
        held = {state: sum(e.upper for e in found if e.state == state) for state in ("unconfirmed", "reserved")}
        return sum(e.spent for e in found), held["unconfirmed"] + sum(e.rest for e in found), held["reserved"]

    def held(self, cap: Cap, now_s: float) -> int:
        return sum(self.amounts(cap, now_s))

    def headroom(self, key: str, now_s: float) -> int | None:
        """Room for a bound, None without any cap."""
        rooms = [round(c.usd * NUSD) - self.held(c, now_s) for c in self.caps if c.key in (None, key)]
        return max(0, min(rooms)) if rooms else None

    def open_now(self) -> set[str]:
        """Leases that can still be settled."""
        return {name for name, e in self.entries.items() if e.state in ("reserved", "unconfirmed")}

    def stored(self) -> dict[str, bool]:
        """Leases that are on the disk, and whether they have expired. Of a key and a day, all rests are one."""
        rests = {f"unconfirmed {day_number(e.made_s)} {e.key}": True for e in self.durable.values() if e.rest}
        return rests | {
            name: e.state == "unconfirmed" for name, e in self.durable.items() if e.state in ("reserved", "unconfirmed")
        }

    def history(self) -> dict[tuple[int, str, str], tuple[int, int, int]]:
        """Spent, settled and overruns by day, key and endpoint, as far as they are on the disk."""
        rows: dict[tuple[int, str, str], tuple[int, int, int]] = {}
        for e in self.durable.values():
            if e.state == "spent":
                where = (day_number(e.made_s), e.key, e.endpoint)
                nusd, settled, overruns = rows.get(where, (0, 0, 0))
                rows[where] = (nusd + e.spent, settled + 1, overruns + (e.spent > e.upper))
        return rows

    def agrees(self, status: Status, now_s: float) -> bool:
        """Whether the ledger shows what it should, to the nano-dollar."""
        self.expire(now_s)
        shown = [
            tuple(round(usd * NUSD) for usd in (s.spent_usd, s.unconfirmed_usd, s.reserved_usd)) for s in status.caps
        ]
        return shown == [self.amounts(cap, now_s) for cap in self.caps]


def window_of(period: Period, at_s: float) -> int:
    day = day_number(at_s)
    return day if period is Period.DAY else month_number(day)
