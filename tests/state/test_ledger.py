"""What a ledger promises, one thing at a time."""

import random
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.state.crash import bills, leave, open_leases
from tidegate.clock import DAY_S, day_number, month_starts_s, utc
from tidegate.state.books import DAYS_OPEN, Books
from tidegate.state.cap import Cap, CapStatus, Period
from tidegate.state.ledger import NUSD, Ledger
from tidegate.state.store import DAYS_KEPT, LedgerError, SpentRow, Store

LEASE_S = 600.0
NOON_S = month_starts_s(2026 * 12 + 10) + 23 * DAY_S + DAY_S / 2  # the 24th of November 2026
DAY_CAP = Cap(usd=1.0, period=Period.DAY)


def opened(folder: Path, *caps: Cap) -> Ledger:
    return Ledger.open(folder / "ledger", caps, LEASE_S)


def killed(ledger: Ledger, folder: Path, *caps: Cap) -> Ledger:
    """The ledger that the next process finds after this one was killed."""
    left = leave(folder / "ledger", folder / "left")
    ledger.close()
    left.replace(folder / "ledger")
    (folder / "left-wal").replace(folder / "ledger-wal")
    return opened(folder, *caps)


def only(ledger: Ledger, now_s: float = NOON_S) -> CapStatus:
    (status,) = ledger.status(now_s).caps
    return status


# --- caps -------------------------------------------------------------------------------------------------------------


def test_what_would_exceed_a_cap_is_refused_with_what_is_left_and_when_to_come_back(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    assert ledger.reserve("a", "ann", 0.7, NOON_S) is None
    refused = ledger.reserve("b", "ann", 0.4, NOON_S)
    assert refused is not None
    assert (refused.cap, refused.left_usd) == (DAY_CAP, 0.3)
    assert utc(refused.resets_at_s).isoformat() == "2026-11-25T00:00:00+00:00"
    assert ledger.reserve("c", "ann", 0.3, NOON_S) is None
    ledger.close()


def test_of_several_caps_the_one_that_lasts_longest_is_told(tmp_path: Path) -> None:
    month = Cap(usd=1.0, period=Period.MONTH, key="ann")
    ledger = opened(tmp_path, DAY_CAP, month)
    refused = ledger.reserve("a", "ann", 2.0, NOON_S)
    assert refused is not None
    assert refused.cap == month
    assert utc(refused.resets_at_s).isoformat() == "2026-12-01T00:00:00+00:00"
    ledger.close()


def test_a_key_nobody_heard_of_has_the_overall_caps_alone(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP, Cap(usd=0.1, period=Period.DAY, key="ann"))
    assert ledger.headroom_usd("stranger", NOON_S) == 1.0
    assert ledger.headroom_usd("ann", NOON_S) == 0.1
    assert ledger.reserve("a", "stranger", 0.95, NOON_S) is None
    assert ledger.headroom_usd("ann", NOON_S) == pytest.approx(0.05)
    ledger.close()


def test_without_caps_there_is_no_end(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.headroom_usd("ann", NOON_S) == inf
    assert ledger.reserve("a", "ann", 1_000_000.0, NOON_S) is None
    ledger.close()


def test_sums_are_exact_to_the_last_cent(tmp_path: Path) -> None:
    ledger = opened(tmp_path, Cap(usd=0.7, period=Period.DAY))
    assert [ledger.reserve(f"r{i}", "ann", 0.07, NOON_S) for i in range(10)] == [None] * 10
    assert ledger.reserve("more", "ann", 1e-9, NOON_S) is not None
    ledger.close()


def test_a_cap_below_what_is_spent_refuses_new_work_and_changes_nothing_else(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.5, NOON_S)
    ledger.reserve("b", "ann", 0.4, NOON_S)
    ledger.settle("a", 0.5, NOON_S, "cloud")
    ledger.set_caps([Cap(usd=0.1, period=Period.DAY)])
    assert ledger.reserve("c", "ann", 0.0, NOON_S) is not None
    assert ledger.headroom_usd("ann", NOON_S) == 0.0
    ledger.settle("b", 0.3, NOON_S, "cloud")
    status = only(ledger)
    assert (status.spent_usd, status.reserved_usd, status.left_usd) == (0.8, 0.0, -0.7)
    ledger.close()


def test_a_bill_above_its_bound_is_written_as_it_is_and_counted(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.9, NOON_S)
    ledger.settle("a", 1.5, NOON_S, "cloud")
    assert (only(ledger).spent_usd, only(ledger).left_usd) == (1.5, -0.5)
    assert ledger.status(NOON_S).overruns == 1
    ledger.close()
    again = opened(tmp_path, DAY_CAP)
    assert again.status(NOON_S).overruns == 1
    assert bills(again)[0].overruns == 1
    again.close()


def test_a_bill_that_nobody_believes_is_counted_as_one_above_its_bound(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.9, NOON_S)
    ledger.settle("a", 0.1, NOON_S, "cloud", overran=True)
    assert (only(ledger).spent_usd, ledger.status(NOON_S).overruns) == (0.1, 1)
    ledger.close()


def test_a_thousand_leases_at_once_never_exceed_the_cap(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    fits = [ledger.reserve(f"r{i}", f"key{i % 7}", 0.001, NOON_S) is None for i in range(1200)]
    assert fits == [True] * 1000 + [False] * 200
    for i in range(0, 1000, 2):
        ledger.settle(f"r{i}", 0.0004, NOON_S, "cloud")
    ledger.commit()
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert (only(ledger).spent_usd, only(ledger).reserved_usd) == (0.2, 0.5)
    late_s = NOON_S + LEASE_S
    assert (only(ledger, late_s).spent_usd, only(ledger, late_s).unconfirmed_usd) == (0.2, 0.5)
    assert [ledger.reserve(f"s{i}", "ann", 0.001, late_s) is None for i in range(301)] == [True] * 300 + [False]
    ledger.close()


# --- time -------------------------------------------------------------------------------------------------------------


def test_two_weeks_across_a_month_spend_what_day_and_month_allow(tmp_path: Path) -> None:
    caps = (DAY_CAP, Cap(usd=5.0, period=Period.MONTH))
    ledger = opened(tmp_path, *caps)
    spent = []
    for day in range(15):
        tried = 0
        for hour in range(24):
            now_s = NOON_S - DAY_S / 2 + day * DAY_S + hour * 3600.0
            name = f"{day} {hour}"
            if ledger.reserve(name, "ann", 0.1, now_s) is None:
                ledger.commit()
                ledger.settle(name, 0.1, now_s + 60.0, "cloud")
                tried += 1
        spent.append(tried)
        ledger.commit()
        if day % 3 == 0:
            ledger = killed(ledger, tmp_path, *caps)
    # From the 24th to the 30th of November, then from the 1st to the 8th of December.
    assert spent == [10] * 5 + [0] * 2 + [10] * 5 + [0] * 3
    assert [row.nusd for row in bills(ledger)] == [NUSD] * 10
    ledger.close()


def test_money_belongs_to_the_day_of_its_reservation(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    midnight_s = NOON_S + DAY_S / 2
    ledger.reserve("a", "ann", 0.9, midnight_s - 0.001)
    assert ledger.headroom_usd("ann", midnight_s) == 1.0
    ledger.settle("a", 0.8, midnight_s, "cloud")
    ledger.commit()
    assert only(ledger, midnight_s).spent_usd == 0.0
    assert only(ledger, midnight_s - 0.001).spent_usd == 0.8
    assert bills(ledger) == [SpentRow(day_number(NOON_S), "ann", "cloud", 8 * NUSD // 10, 1, 0)]
    ledger.close()


def test_a_clock_that_is_set_back_finds_the_budget_of_that_day_as_it_was_left(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    for now_s in (NOON_S, NOON_S + DAY_S):
        ledger.reserve(f"at {now_s}", "ann", 1.0, now_s)
        ledger.settle(f"at {now_s}", 1.0, now_s, "cloud")
    assert ledger.headroom_usd("ann", NOON_S) == 0.0
    ledger.commit()
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert ledger.headroom_usd("ann", NOON_S) == 0.0
    assert ledger.reserve("again", "ann", 0.1, NOON_S) is not None
    ledger.close()


def test_a_clock_that_jumped_years_ahead_and_back_takes_nothing_with_it(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.6, NOON_S)
    ledger.settle("a", 0.6, NOON_S, "cloud")
    ledger.commit()
    far_s = NOON_S + 3650 * DAY_S
    ledger.reserve("b", "ann", 1.0, far_s)
    ledger.settle("b", 1.0, far_s, "cloud")
    ledger.commit()
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert ledger.headroom_usd("ann", NOON_S) == pytest.approx(0.4)
    assert ledger.headroom_usd("ann", NOON_S + DAY_S) == 1.0
    ledger.close()


def test_a_clock_that_is_set_back_beyond_what_is_kept_opens_no_budget(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    for day in range(DAYS_KEPT + 50):
        now_s = NOON_S + day * DAY_S
        ledger.reserve(f"{day}", "ann", 1.0, now_s)
        ledger.settle(f"{day}", 1.0, now_s, "cloud")
        ledger.commit()
    rows = bills(ledger)
    assert len(rows) == DAYS_KEPT
    assert rows[0].day == day_number(NOON_S) + 50
    assert ledger.headroom_usd("ann", NOON_S) == 0.0
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert ledger.headroom_usd("ann", NOON_S) == 0.0
    assert ledger.headroom_usd("ann", NOON_S + (DAYS_KEPT + 50) * DAY_S) == 1.0
    ledger.close()


@pytest.mark.parametrize("seed", range(30))
def test_of_what_was_spent_no_more_is_read_at_the_start_than_is_kept_at_hand(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, noon = random.Random(seed), day_number(NOON_S)
    every = rng.choice((1.0, 0.7, 0.1))
    days = [day for day in range(noon - 390, noon) if rng.random() < every][-rng.choice((400, 42, 41, 40, 39, 1)) :]
    opened(tmp_path).close()
    with closing(Store(tmp_path / "ledger")) as store:
        rows = [
            SpentRow(day, key, "cloud", rng.randrange(10**9), 1, rng.randrange(2)) for day in days for key in ("a", "b")
        ]
        store.write((), (), rows, prune=False)
    books = Books()
    for row in rows:
        books.spend(row.day, row.key, row.nusd)
    read: list[SpentRow] = []

    def counted(*columns: Any) -> SpentRow:
        read.append(SpentRow(*columns))
        return read[-1]

    with monkeypatch.context() as counting:
        counting.setattr("tidegate.state.store.SpentRow", counted)
        ledger = opened(tmp_path, DAY_CAP, *(Cap(usd=1.0, period=period, key="a") for period in Period))
    with closing(ledger):
        assert len(read) <= 2 * (DAYS_OPEN + 1 + 31)
        for day in range(noon - 400, noon + 2):
            status = ledger.status(day * DAY_S)
            assert status.overruns == sum(row.overruns for row in rows)
            assert [one.spent_usd for one in status.caps] == [
                books.sums(cap.key, cap.period, books.day(day)).spent / NUSD for cap in ledger._caps
            ]


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_of_a_killed_process_holds_then_expires_and_can_still_be_settled(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    ledger.commit()
    ledger = killed(ledger, tmp_path, DAY_CAP)
    status = only(ledger, NOON_S + LEASE_S - 0.001)
    assert (status.spent_usd, status.unconfirmed_usd, status.reserved_usd) == (0.0, 0.0, 0.8)
    status = only(ledger, NOON_S + LEASE_S)
    assert (status.spent_usd, status.unconfirmed_usd, status.reserved_usd) == (0.0, 0.8, 0.0)
    assert status.left_usd == pytest.approx(0.2)
    ledger.settle("a", 0.5, NOON_S + 2 * LEASE_S, "cloud")
    ledger.settle("a", 0.7, NOON_S + 2 * LEASE_S, "cloud")
    status = only(ledger, NOON_S + 2 * LEASE_S)
    assert (status.spent_usd, status.unconfirmed_usd, status.reserved_usd) == (0.5, 0.0, 0.0)
    ledger.close()


def test_a_lease_of_this_process_holds_however_long_it_takes(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    assert only(ledger, NOON_S + 10 * LEASE_S).reserved_usd == 0.8
    ledger.close()


def test_what_a_crash_left_unconfirmed_counts_against_its_month_though_nothing_was_settled_before(
    tmp_path: Path,
) -> None:
    month = Cap(usd=100.0, period=Period.MONTH)
    ledger = opened(tmp_path, month)
    ledger.reserve("lost", "ann", 40.0, NOON_S)
    ledger.commit()
    ledger = killed(ledger, tmp_path, month)
    for day in (1, 2):
        now_s = NOON_S + day * DAY_S
        ledger.reserve(f"on day {day}", "ann", 1.0, now_s)
        ledger.settle(f"on day {day}", 0.5, now_s, "cloud")
        ledger.commit()
    ledger = killed(ledger, tmp_path, month)
    status = only(ledger, NOON_S + 2 * DAY_S)
    assert (status.spent_usd, status.unconfirmed_usd, status.left_usd) == (1.0, 40.0, 59.0)
    ledger.close()


def test_the_rest_of_what_may_not_be_the_whole_bill_is_never_spent_again_and_takes_one_row_a_day(
    tmp_path: Path,
) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    for name in ("a", "b", "c"):
        ledger.reserve(name, "ann", 0.3, NOON_S)
        ledger.commit()
        ledger.settle(name, 0.1, NOON_S, "cloud", whole=False)
    ledger.commit()
    assert list(open_leases(tmp_path / "ledger").values()) == [True]
    for _ in range(2):
        status = only(ledger)
        assert (status.spent_usd, status.unconfirmed_usd, status.reserved_usd) == (0.3, 0.6, 0.0)
        assert ledger.reserve("more", "ann", 0.2, NOON_S) is not None
        ledger = killed(ledger, tmp_path, DAY_CAP)
    assert ledger.headroom_usd("ann", NOON_S + DAY_S) == 1.0
    ledger.close()


def test_a_reservation_that_was_not_committed_is_not_there_after_a_crash(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert only(ledger).reserved_usd == 0.0
    ledger.close()


def test_a_bill_that_was_not_committed_leaves_its_reservation_after_a_crash(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    ledger.commit()
    ledger.settle("a", 0.1, NOON_S, "cloud")
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert (only(ledger).spent_usd, only(ledger).reserved_usd) == (0.0, 0.8)
    ledger.close()


def test_a_name_that_is_used_again_before_its_end_was_written_leaves_nothing_behind(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    ledger.commit()
    ledger.release("a")
    ledger.reserve("a", "ann", 0.3, NOON_S)
    ledger.release("a")
    ledger.commit()
    assert open_leases(tmp_path / "ledger") == {}
    ledger.close()


@pytest.mark.parametrize("usd", [-0.01, inf, float("nan"), 2e6])
def test_an_amount_that_is_none_is_a_mistake_of_the_caller(tmp_path: Path, usd: float) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    with pytest.raises(AssertionError):
        ledger.reserve("a", "ann", usd, NOON_S)
    ledger.reserve("a", "ann", 0.5, NOON_S)
    with pytest.raises(AssertionError):
        ledger.settle("a", usd, NOON_S, "cloud")
    assert only(ledger).reserved_usd == 0.5
    ledger.close()


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_the_disk_refuses_stays_staged_and_goes_with_the_next_commit(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("kept", "ann", 0.2, NOON_S)
    ledger.commit()
    ledger.settle("kept", 0.1, NOON_S, "cloud")
    ledger.reserve("a", "ann", 0.3, NOON_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "ledger-wal").stat().st_size + 100, hard))
    try:
        for _ in range(3):
            with pytest.raises(LedgerError, match=r"ledger: .*the disk has room"):
                ledger.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_leases(tmp_path / "ledger") == {"kept": False}
    assert (only(ledger).spent_usd, only(ledger).reserved_usd) == (0.1, 0.3)
    ledger.commit()
    ledger = killed(ledger, tmp_path, DAY_CAP)
    assert (only(ledger).spent_usd, only(ledger).reserved_usd) == (0.1, 0.3)
    assert bills(ledger)[0].settled == 1
    ledger.close()


def test_a_ledger_that_is_open_is_refused_to_the_next(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with pytest.raises(LedgerError, match=r"open in another process; stop that, or give each gateway a ledger"):
        opened(tmp_path)
    ledger.close()
    opened(tmp_path).close()


@pytest.mark.parametrize("names", [("ledger", "link"), ("link", "ledger"), ("link", "link")])
@pytest.mark.parametrize("there", [True, False])
def test_a_ledger_that_is_open_is_refused_to_the_next_by_whatever_name(
    tmp_path: Path, names: tuple[str, str], there: bool
) -> None:
    (tmp_path / "other").mkdir()
    paths = {"ledger": tmp_path / "ledger", "link": tmp_path / "other" / "link"}
    paths["link"].symlink_to(paths["ledger"])
    if there:
        opened(tmp_path).close()
    first, second = (paths[name] for name in names)
    with closing(Ledger.open(first, (), LEASE_S)), pytest.raises(LedgerError, match="open in another process"):
        Ledger.open(second, (), LEASE_S)
    assert paths["link"].is_symlink()
    Ledger.open(second, (), LEASE_S).close()


@pytest.mark.parametrize(
    ("pragma", "message"),
    [("user_version = 2", "has format 2, and this version of Tidegate reads 1"), ("application_id = 7", "no ledger")],
)
def test_another_format_is_refused_and_left_alone(tmp_path: Path, pragma: str, message: str) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger")) as db:
        db.execute(f"PRAGMA {pragma}")
    before = (tmp_path / "ledger").read_bytes()
    with pytest.raises(LedgerError, match=f"ledger: .*{message}.*move it away"):
        opened(tmp_path)
    assert (tmp_path / "ledger").read_bytes() == before


def _zeros(content: bytes) -> bytes:
    return content[:4096] + bytes(4096) + content[8192:]


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda c: c[:5000], lambda c: b"x" * len(c), _zeros, lambda c: c[:4096] + b"\xff" * len(c[4096:])],
    ids=["empty", "cut off", "garbage", "a page of zeros", "all pages but the first"],
)
def test_a_damaged_file_is_refused_with_a_remedy_and_no_guess(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    for i in range(200):
        ledger.reserve(f"r{i}", "ann", 0.001, NOON_S)
    ledger.close()
    file = tmp_path / "ledger"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(LedgerError, match=r"ledger: .*(put back a copy|move it away)"):
        opened(tmp_path, DAY_CAP)
    # The lock is let go of: a copy that is put back opens.
    file.unlink()
    opened(tmp_path, DAY_CAP).close()


def test_books_begun_anew_take_nothing_from_a_log_that_was_left_behind(tmp_path: Path) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.8, NOON_S)
    ledger.commit()
    log = (tmp_path / "ledger-wal").read_bytes()
    ledger.close()
    (tmp_path / "ledger").unlink()
    (tmp_path / "ledger-wal").write_bytes(log)
    ledger = opened(tmp_path, DAY_CAP)
    assert only(ledger).reserved_usd == 0.0
    ledger.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"none/ledger\.lock: No such file.*folder exists"):
        Ledger.open(tmp_path / "none" / "ledger", (), LEASE_S)


def removed(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> None:
    leave(file, file.with_name("copy")).replace(file)


@pytest.mark.parametrize("harm", [removed, replaced])
@pytest.mark.parametrize("name", ["ledger", "ledger-wal"])
@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_written_to_a_ledger_that_others_have_taken_away_or_whose_log_they_have(
    tmp_path: Path, harm: Callable[[Path], None], name: str, linked: bool
) -> None:
    opened(tmp_path).close()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "ledger")
    ledger = Ledger.open(link if linked else tmp_path / "ledger", (DAY_CAP,), LEASE_S)
    ledger.reserve("a", "ann", 0.2, NOON_S)
    ledger.commit()
    kept = tmp_path / "kept"
    kept.hardlink_to(tmp_path / name)
    harm(tmp_path / name)
    ledger.reserve("b", "ann", 0.3, NOON_S)
    told = link if linked and name == "ledger" else tmp_path / name
    message = f"{told}: another program removed or replaced .* move the very files back, .* a copy of the ledger"
    for _ in range(2):
        with pytest.raises(LedgerError, match=message):
            ledger.commit()
    assert only(ledger).reserved_usd == 0.5
    kept.replace(tmp_path / name)
    ledger.commit()
    assert open_leases(tmp_path / "ledger") == {"a": False, "b": False}
    ledger.close()


@pytest.mark.parametrize("harm", [removed, replaced])
def test_a_lock_that_others_have_taken_away_is_taken_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    harm(tmp_path / "ledger.lock")
    ledger.reserve("a", "ann", 0.2, NOON_S)
    ledger.commit()
    with pytest.raises(LedgerError, match="the ledger is open in another process"):
        opened(tmp_path)
    ledger.close()
    opened(tmp_path).close()


def test_a_lock_that_another_process_took_meanwhile_is_not_taken_nor_is_one_that_it_left_when_it_had_written(
    tmp_path: Path,
) -> None:
    ledger = opened(tmp_path, DAY_CAP)
    removed(tmp_path / "ledger.lock")
    other = opened(tmp_path, DAY_CAP)
    ledger.reserve("a", "ann", 0.2, NOON_S)
    with pytest.raises(LedgerError, match="the ledger is open in another process"):
        ledger.commit()
    other.reserve("b", "ann", 0.3, NOON_S)
    other.close()
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"ledger\.lock: another program removed or replaced"):
            ledger.commit()
    with pytest.raises(LedgerError):
        ledger.close()
    assert open_leases(tmp_path / "ledger") == {"b": False}


def test_what_others_wrote_while_it_was_locked_keeps_no_lock_from_being_taken_anew(tmp_path: Path) -> None:
    with closing(opened(tmp_path, DAY_CAP)) as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger")) as shell:
            shell.execute("CREATE TABLE notes (line)")
        ledger.reserve("a", "ann", 0.2, NOON_S)
        ledger.commit()
        removed(tmp_path / "ledger.lock")
        ledger.reserve("b", "ann", 0.3, NOON_S)
        ledger.commit()
        assert open_leases(tmp_path / "ledger") == {"a": False, "b": False}


def test_a_copy_without_a_log_of_its_own_gets_one(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger")) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    with closing(opened(tmp_path, DAY_CAP)) as ledger:
        ledger.reserve("a", "ann", 0.2, NOON_S)
        ledger.commit()
        assert open_leases(tmp_path / "ledger") == {"a": False}


def test_another_program_that_holds_the_file_does_not_hold_us_for_longer_than_a_second(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        assert ledger._store._file.connection.execute("PRAGMA busy_timeout").fetchone() == (1000,)
