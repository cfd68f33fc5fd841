"""A ledger against its reference: any order of calls, crashes at any instant, any clock."""

import copy
import shutil
import tempfile
from math import inf
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.state.crash import bills, leave, open_leases, wal
from tests.state.reference import NUSD, Reference
from tidegate.clock import DAY_S, month_number, month_starts_s
from tidegate.state.cap import Cap, CapStatus, Period
from tidegate.state.ledger import Ledger

LEASE_S = 600.0
START_S = month_starts_s(2026 * 12 + 10) + 22 * DAY_S  # the 23rd of November 2026
KEYS = ("ann", "bob", "eve")

amounts = st.integers(0, 2 * NUSD)
cap_sets = st.lists(
    st.builds(
        Cap,
        usd=st.integers(0, 8 * NUSD).map(lambda nusd: nusd / NUSD),
        period=st.sampled_from(Period),
        key=st.sampled_from((None, *KEYS[:2])),
    ),
    max_size=5,
)
folders = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # memory, where there is some: no disk is tested here


class LedgerMachine(RuleBasedStateMachine):
    @initialize(caps=cap_sets)
    def begin(self, caps: list[Cap]) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folders))
        self.generation = 0
        self.path = self.folder / "ledger.0"
        self.now_s = START_S
        self.names: list[str] = []
        self.reference = Reference(caps, LEASE_S)
        self.ledger = Ledger.open(self.path, caps, LEASE_S)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def _reopen(self, log: bytes | None = None) -> None:
        self.generation += 1
        left = leave(self.path, self.folder / f"ledger.{self.generation}", log)
        self.ledger.close()
        self.path = left
        self.ledger = Ledger.open(left, self.reference.caps, LEASE_S)

    # --- calls --------------------------------------------------------------------------------------------------------

    def _name(self, data: st.DataObject) -> str:
        """A lease, more often one that is open; or none at all."""
        held = self.reference.open_now()
        return data.draw(st.sampled_from([*sorted(held), *sorted(held), *self.names, "unheard of"]))

    @rule(data=st.data(), key=st.sampled_from(KEYS), upper=amounts, new=st.integers(0, 5))
    def reserve(self, data: st.DataObject, key: str, upper: int, new: int) -> None:
        closed = sorted(set(self.names) - self.reference.open_now())
        name = f"lease {len(self.names)}" if new or not closed else data.draw(st.sampled_from(closed))
        self.names.append(name)
        fits = self.reference.reserve(name, key, upper, self.now_s)
        refused = self.ledger.reserve(name, key, upper / NUSD, self.now_s)
        assert (refused is None) == fits
        if refused is not None:
            assert refused.cap.key in (None, key)
            assert refused.left_usd * NUSD < upper
            assert refused.resets_at_s > self.now_s

    @rule(data=st.data(), upper=amounts)
    def reserve_again(self, data: st.DataObject, upper: int) -> None:
        if opened := sorted(self.reference.open_now()):
            assert self.ledger.reserve(data.draw(st.sampled_from(opened)), "eve", upper / NUSD, self.now_s) is None

    @rule(
        data=st.data(),
        share=st.integers(0, 100),
        overrun=st.just(0) | amounts,
        endpoint=st.sampled_from("xy"),
        whole=st.booleans(),
    )
    def settle(self, data: st.DataObject, share: int, overrun: int, endpoint: str, whole: bool) -> None:
        name = self._name(data)
        entry = self.reference.entries.get(name)
        spent = (entry.upper * share // 100 if entry else 0) + overrun
        self.reference.settle(name, spent, self.now_s, endpoint, whole=whole)
        self.ledger.settle(name, spent / NUSD, self.now_s, endpoint, whole=whole)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = self._name(data)
        self.reference.release(name)
        self.ledger.release(name)

    @rule()
    def commit(self) -> None:
        self.reference.commit()
        self.ledger.commit()

    @rule(caps=cap_sets)
    def set_caps(self, caps: list[Cap]) -> None:
        self.reference.caps = caps
        self.ledger.set_caps(caps)

    # --- what the world does ------------------------------------------------------------------------------------------

    @rule()
    def crash(self) -> None:
        self.reference.crash()
        self._reopen()

    @rule(cut=st.floats(0.0, 1.0))
    def crash_in_a_commit(self, cut: float) -> None:
        before = wal(self.path).read_bytes()
        self.ledger.commit()
        after = wal(self.path).read_bytes()
        at = round(cut * len(after))
        committed = copy.deepcopy(self.reference)
        committed.commit()
        committed.crash()
        self.reference.crash()
        self._reopen(after[:at] + before[at:])
        if open_leases(self.path) == committed.stored() and _rows(self.ledger) == committed.history():
            self.reference = committed
        else:
            assert at < len(after)
        assert open_leases(self.path) == self.reference.stored()

    @rule()
    def stop_and_start(self) -> None:
        self.reference.commit()
        self.reference.crash()
        self.ledger.close()
        self.ledger = Ledger.open(self.path, self.reference.caps, LEASE_S)

    @rule(seconds=st.just(LEASE_S) | st.floats(0.0, 2 * LEASE_S))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(days=st.integers(-3, 3), before_s=st.sampled_from((0.001, 1.0, LEASE_S)))
    def jump_to_just_before_a_midnight(self, days: int, before_s: float) -> None:
        self.now_s = max(START_S - 5 * DAY_S, (self.now_s // DAY_S + days) * DAY_S - before_s)

    @rule(months=st.integers(0, 1), before_s=st.sampled_from((0.001, 1.0, LEASE_S)))
    def jump_to_just_before_a_month_ends(self, months: int, before_s: float) -> None:
        this = month_number(int(self.now_s // DAY_S))
        self.now_s = month_starts_s(this + months) - before_s

    # --- what must be true --------------------------------------------------------------------------------------------

    @invariant()
    def shows_what_the_reference_shows(self) -> None:
        if hasattr(self, "ledger"):
            assert self.reference.agrees(self.ledger.status(self.now_s), self.now_s)
            for key in KEYS:
                room = self.reference.headroom(key, self.now_s)
                assert self.ledger.headroom_usd(key, self.now_s) == (inf if room is None else room / NUSD)
            assert _rows(self.ledger) == self.reference.history()

    @invariant()
    def tells_of_those_that_run_out_first_where_not_of_all(self) -> None:
        if hasattr(self, "ledger"):
            told = self.ledger.status(self.now_s).caps
            for most in range(len(told) + 2):
                few = self.ledger.status(self.now_s, most)
                assert sorted(map(_scarcity, few.caps)) == sorted(map(_scarcity, told))[:most]
                assert set(few.caps) <= set(told)
                assert few.more == len(told) - len(few.caps)

    @invariant()
    def nothing_is_negative(self) -> None:
        if hasattr(self, "ledger"):
            for shown in self.ledger.status(self.now_s).caps:
                assert min(shown.spent_usd, shown.unconfirmed_usd, shown.reserved_usd) >= 0.0
                assert shown.resets_at_s > self.now_s


def _scarcity(shown: CapStatus) -> tuple[bool, float]:
    limit = round(shown.cap.usd * NUSD)
    return shown.cap.key is not None, round(shown.left_usd * NUSD) / limit if limit else 0.0


def _rows(ledger: Ledger) -> dict[tuple[int, str, str], tuple[int, int, int]]:
    return {(row.day, row.key, row.endpoint): (row.nusd, row.settled, row.overruns) for row in bills(ledger)}


LedgerMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLedger = pytest.mark.lengthy(LedgerMachine.TestCase)
