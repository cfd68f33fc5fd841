"""The ledger: real dollars paid to others, held back before they are spent and counted when they were.

Each lease takes one way through it:

    reserved --settle--> spent          the bill is known
    reserved --settle in part--> spent, and the rest of the bound unconfirmed
    reserved --release--> nothing       never sent, or never billed
    reserved --its process died, and its time ran out--> unconfirmed
    unconfirmed --settle--> spent, unconfirmed --release--> nothing

Reserved and unconfirmed dollars count against the caps like spent ones: what a provider may have billed is never spent
again. All sums are whole nano-dollars, so they are exact.
"""

import os
from collections import deque
from collections.abc import Iterable
from heapq import nsmallest
from math import ceil, inf
from pathlib import Path

from tidegate.clock import day_number, month_number, month_starts_s
from tidegate.core.model import Drawn
from tidegate.state.books import DAYS_OPEN, NOTHING, Books, Lease
from tidegate.state.cap import Cap, CapStatus, Period, Refused, Status
from tidegate.state.store import DAYS_KEPT, LeaseRow, SpentRow, Store

NUSD = 1_000_000_000  # nano-dollars: the cheapest token there is costs ten of them
NOISE_NUSD = 0.001  # what is above a whole number by less is rounding of the multiplication: 0.07 dollars are whole
LEASE_USD_MAX = 1_000_000.0  # for one request: beyond, a unit was mixed up


class Ledger:
    """Reserve before sending, settle or release after; `commit` makes what happened since the last one durable.

    `reserve`, `settle`, `release` and `headroom_usd` touch memory only. A reservation outlives this process once it is
    committed, so nothing is sent on the strength of one that is not. What `commit` could not write stays staged and
    goes with the next one.
    """

    def __init__(self, store: Store, caps: Iterable[Cap], lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._books = Books()
        self._leases: dict[str, Lease] = {}
        self._staged: dict[str, Lease | None] = {}
        self._staged_spent: dict[tuple[int, str, str], list[int]] = {}
        self._prune = False
        # As the file has it from before; `status` tells of all.
        self.overruns_before = self._overruns = store.overruns(DAYS_KEPT)
        # One day more than stays open, by which the books know that those before are closed; and all of its month.
        first = day_number(month_starts_s(month_number(store.oldest(DAYS_OPEN + 1))))
        for spent in store.spent_since(first):
            self._books.spend(spent.day, spent.key, spent.nusd)
        for row in store.leases():
            self._leases[row.id] = self._books.lease(row, stored=True)
        # Whoever made these is gone: nobody will tell what became of them unless somebody finds out.
        self._orphans = deque(lease for lease in self._leases.values() if not lease.row.expired)
        self.set_caps(caps)

    @classmethod
    def open(cls, path: str | os.PathLike[str], caps: Iterable[Cap], lease_s: float) -> "Ledger":
        """The ledger in the file at `path`, made if it is not there.

        Leases that an earlier process left open hold their bound until `lease_s` after they were made. Raises
        LedgerError where the file is in use, damaged or of another format.
        """
        store = Store(Path(path))
        try:
            return cls(store, caps, lease_s)
        except BaseException:
            store.close()
            raise

    def set_caps(self, caps: Iterable[Cap]) -> None:
        """Put these caps in force. One that is below what was spent refuses new work, and changes nothing else."""
        self._caps = tuple(caps)
        # As they run out where nothing is drawn on them: those of all first, then those that have nothing to give.
        self._undrawn = sorted(self._caps, key=lambda cap: (cap.key is not None, round(cap.usd * NUSD) > 0))
        self._limits: dict[str | None, tuple[tuple[Cap, int], ...]] = {None: ()}
        for cap in self._caps:
            self._limits[cap.key] = (*self._limits.get(cap.key, ()), (cap, round(cap.usd * NUSD)))

    # --- spending ---------------------------------------------------------------------------------------------------

    def reserve(self, lease_id: str, key: str, upper_usd: float, now_s: float) -> Refused | None:
        """Hold back the most that a request of this key can cost; None if every cap has room for it.

        A lease that is open already is left as it is.
        """
        assert 0.0 <= upper_usd <= LEASE_USD_MAX, "a bound is finite and in dollars"
        if lease_id in self._leases:
            return None
        self._expire(now_s)
        nusd = ceil(upper_usd * NUSD - NOISE_NUSD)
        today = self._books.day(day_number(now_s))
        refused = self._refusal(key, nusd, today)
        if refused is not None:
            return refused
        row = LeaseRow(lease_id, key, nusd, today, now_s, False)
        known = lease_id in self._staged  # closed under this name, and not yet gone from the file
        self._prune = self._prune or not self._books.known(today)
        self._leases[lease_id] = self._staged[lease_id] = self._books.lease(row, stored=known)
        return None

    def settle(
        self, lease_id: str, usd: float, now_s: float, endpoint: str, *, whole: bool = True, overran: bool = False
    ) -> None:
        """What the request did cost. Counted in the windows of its reservation, also where it exceeds the bound.

        Where that may not be the `whole` bill, what is left of the bound stays unconfirmed, for good. It `overran`
        also where the bill that was told is beyond belief, and `usd` is what is believed.

        Of a lease that is not known, because it was settled or released before, nothing is changed.
        """
        assert 0.0 <= usd <= LEASE_USD_MAX, "a bill is finite and in dollars"
        self._expire(now_s)
        lease = self._close(lease_id)
        if lease is None:
            return
        row, nusd = lease.row, round(usd * NUSD)
        lease.spend(nusd)
        if not whole and nusd < row.nusd:
            self._unconfirm(row, row.nusd - nusd)
        overrun = int(overran or nusd > row.nusd)
        self._overruns += overrun
        staged = self._staged_spent.setdefault((row.day, row.key, endpoint), [0, 0, 0])
        staged[0] += nusd
        staged[1] += 1
        staged[2] += overrun

    def release(self, lease_id: str) -> None:
        """Give back what was held: it was never sent, or is known not to be billed."""
        self._close(lease_id)

    def commit(self) -> None:
        """Make durable what is staged, in one transaction. LedgerError if it cannot be; then all of it stays staged."""
        if not self._staged and not self._staged_spent:
            return
        put = [lease.row for lease in self._staged.values() if lease is not None]
        drop = [lease_id for lease_id, lease in self._staged.items() if lease is None]
        spent = [SpentRow(*where, *amounts) for where, amounts in self._staged_spent.items()]
        self._store.write(put, drop, spent, prune=self._prune)
        for lease in self._staged.values():
            if lease is not None:
                lease.stored = True
        self._staged, self._staged_spent, self._prune = {}, {}, False

    def touch(self) -> None:
        """Write, though nothing changes: LedgerError where the file takes nothing."""
        self._store.touch()

    def close(self) -> None:
        """Commit, and let go of the file. LedgerError if that could not be written; it is let go of all the same."""
        try:
            self.commit()
        finally:
            self._store.close()

    # --- reading ----------------------------------------------------------------------------------------------------

    def headroom_usd(self, key: str, now_s: float) -> float:
        """The highest bound that would fit now; infinite without caps, never negative."""
        today = self._books.day(day_number(now_s))
        room = inf
        for scope in (None, key):
            for cap, limit in self._limits.get(scope, ()):
                room = min(room, (limit - self._books.sums(scope, cap.period, today).held) / NUSD)
        return max(0.0, room)

    def budgets(self, key: str) -> tuple[str, ...]:
        """The caps that a request of this key draws on, by name."""
        return tuple([cap.name for scope in (None, key) for cap, _ in self._limits.get(scope, ())])

    def drawn(self, key: str, now_s: float) -> list[Drawn]:
        """What is spent of each cap that a request of this key draws on; what may have been billed counts."""
        today = self._books.day(day_number(now_s))
        found = []
        for scope in (None, key):
            for cap, _ in self._limits.get(scope, ()):
                sums = self._books.sums(scope, cap.period, today)
                found.append(cap.drawn((sums.spent + sums.unconfirmed) / NUSD, today))
        return found

    def status(self, now_s: float, most: int | None = None) -> Status:
        """Every cap in its present window, or so many at most: those of all, and those with the smallest share left."""
        self._expire(now_s)
        today = self._books.day(day_number(now_s))
        caps = self._caps if most is None or most >= len(self._caps) else self._scarcest(most, today)
        told = tuple(self._cap_status(cap, today) for cap in caps)
        return Status(caps=told, more=len(self._caps) - len(told), overruns=self._overruns)

    # --- within -----------------------------------------------------------------------------------------------------

    def _refusal(self, key: str, nusd: int, today: int) -> Refused | None:
        refused: Refused | None = None
        for scope in (None, key):
            for cap, limit in self._limits.get(scope, ()):
                left = limit - self._books.sums(scope, cap.period, today).held
                if nusd > left:
                    resets_at_s = cap.period.ends_s(cap.period.number(today))
                    if refused is None or resets_at_s > refused.resets_at_s:
                        refused = Refused(cap=cap, left_usd=left / NUSD, resets_at_s=resets_at_s)
        return refused

    def _scarcest(self, most: int, today: int) -> list[Cap]:
        # Of many keys few have asked for anything: the others have all of their budgets, and are not looked at.
        sums = self._books.sums
        found = [cap for cap in self._undrawn[:most] if sums(cap.key, cap.period, today) is NOTHING]
        for period in Period:
            for scope in self._books.scopes(period, today):
                found += [cap for cap, _ in self._limits.get(scope, ()) if cap.period is period]

        def scarcity(cap: Cap) -> tuple[bool, float]:
            limit = round(cap.usd * NUSD)
            left = limit - sums(cap.key, cap.period, today).held
            return cap.key is not None, left / limit if limit else 0.0

        return nsmallest(most, found, key=scarcity)

    def _cap_status(self, cap: Cap, today: int) -> CapStatus:
        sums = self._books.sums(cap.key, cap.period, today)
        return CapStatus(
            cap=cap,
            spent_usd=sums.spent / NUSD,
            unconfirmed_usd=sums.unconfirmed / NUSD,
            reserved_usd=sums.reserved / NUSD,
            left_usd=(round(cap.usd * NUSD) - sums.held) / NUSD,
            resets_at_s=cap.period.ends_s(cap.period.number(today)),
        )

    def _expire(self, now_s: float) -> None:
        """Let orphans whose time has run out become unconfirmed."""
        orphans = self._orphans
        while orphans and orphans[0].row.made_s + self._lease_s <= now_s:
            lease = orphans.popleft()
            if lease.row.id in self._leases:
                lease.expire()
                self._staged[lease.row.id] = lease

    def _unconfirm(self, row: LeaseRow, nusd: int) -> None:
        """So much of what this lease held may have been billed besides. Nobody will ever tell, so one lease stands for
        all of it that a key has on a day: what is kept does not grow with how often it happens."""
        name = f"unconfirmed {row.day} {row.key}"
        before = self._close(name)
        stored = before is not None and before.stored
        if before is not None:
            nusd += before.row.nusd
        rest = self._books.lease(LeaseRow(name, row.key, nusd, row.day, row.made_s, True), stored=stored)
        self._leases[name] = self._staged[name] = rest

    def _close(self, lease_id: str) -> Lease | None:
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return None
        lease.close()
        if lease.stored:
            self._staged[lease_id] = None
        else:
            del self._staged[lease_id]
        return lease
