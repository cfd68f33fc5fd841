"""The index says what the journal says, however it came to be read."""

import fcntl
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from tests.dashboard.harness import ALL_MINUTES, Indexed, damage, folded, indexed
from tidegate.core.model import Decision, Line, Request, Segment, replace
from tidegate.core.replay import Replay
from tidegate.core.rows import Came, Row
from tidegate.dashboard import follow
from tidegate.dashboard.figures import POINTS_MAX, Figures, Window
from tidegate.dashboard.index import Index, Place, connect
from tidegate.dashboard.requests import LIMIT_MAX, Requests, Wanted
from tidegate.telemetry.packing import DAMAGED, pack
from tidegate.telemetry.reading import read
from tidegate.telemetry.segments import segments

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def window(seen: Indexed, minutes: int = ALL_MINUTES) -> Window:
    assert seen.follower.last_s is not None
    return Window.back(seen.follower.last_s, minutes)


def ids(requests: Requests, wanted: Wanted) -> list[str]:
    """All that a search finds, page after page."""
    found: list[str] = []
    while True:
        page = requests.search(wanted)
        found += [row.id for row in page.rows]
        if page.next is None:
            return found
        wanted = Wanted(**{name: getattr(wanted, name) for name in Wanted.__struct_fields__} | {"before": page.next})


def by_time(rows: list[Row]) -> list[str]:
    return [row.id for row in sorted(rows, key=lambda row: (row.arrived_s, row.id), reverse=True)]


def test_sums_are_those_of_the_rows(journal: Path) -> None:
    rows = folded(journal)
    with indexed(journal) as seen:
        totals = seen.figures.totals(window(seen))
        flows = seen.figures.flows(window(seen))
        classes = seen.figures.classes(window(seen))
    assert (totals.requests, totals.ok) == (len(rows), sum(row.outcome == "ok" for row in rows))
    assert totals.local_requests == sum(bool(row.local) for row in rows)
    assert totals.prompt_tokens == sum(row.prompt_tokens for row in rows)
    assert totals.spent_usd == pytest.approx(sum(row.paid_usd for row in rows))
    assert totals.saved_usd == pytest.approx(
        sum(row.remote_usd - row.usd for row in rows if row.remote_usd is not None)
    )
    assert (totals.kept, totals.judged) == (
        sum(bool(row.kept) for row in rows),
        sum(row.kept is not None for row in rows),
    )
    assert totals.predicted == sum(None not in (row.ttft_s, row.predicted_ttft_s) for row in rows) > 0
    assert sum(flow.requests for flow in flows.flows) + sum(one.requests for one in flows.unserved) == len(rows)
    assert sum(one.requests for one in classes) == len(rows)


def test_a_window_has_the_minutes_that_it_says_whether_they_are_summed_by_hour_or_not(journal: Path) -> None:
    rows = folded(journal)
    with indexed(journal) as seen:
        end_s = max(row.arrived_s + row.e2e_s for row in rows)
        for begins_s in (end_s - 61.0, end_s - 299.5, end_s - 3599.0, end_s - 3600.0 * 30):
            first_s = -(-begins_s // 60) * 60
            expected = sum(row.arrived_s + row.e2e_s >= first_s for row in rows)
            assert seen.figures.totals(Window(begins_s=begins_s, ends_s=end_s)).requests == expected
        middle_s = end_s // 3600 * 3600
        for ends_s in (middle_s - 1.0, middle_s + 60.5):
            expected = sum(row.arrived_s + row.e2e_s < ends_s // 60 * 60 + 60 for row in rows)
            assert seen.figures.totals(Window(begins_s=0.0, ends_s=ends_s)).requests == expected


def test_the_points_of_a_series_add_up_to_its_window(journal: Path) -> None:
    with indexed(journal) as seen:
        for minutes, step in ((30, 1), (300, 7), (ALL_MINUTES, 1)):
            series = seen.figures.series(window(seen, minutes), step * 60.0)
            assert sum(point.requests for point in series.points) == seen.figures.totals(window(seen)).requests
            assert len(series.points) <= POINTS_MAX
            gaps = {b.at_s - a.at_s for a, b in zip(series.points, series.points[1:], strict=False)}
            assert gaps == {series.step_s}
        assert any(point.hedge_price is not None for point in series.points)


@pytest.mark.parametrize(
    ("minutes", "step"),
    [(1, 1), (5, 1), (5, 3), (7, 5), (90, 60), (130, 60), (1440, 1), (2880, 2), (21_600, 15), (ALL_MINUTES, 1)],
)
def test_a_series_has_what_its_window_has_in_no_more_points_than_are_promised(
    journal: Path, minutes: int, step: int
) -> None:
    with indexed(journal) as seen:
        last_s = window(seen).ends_s
        for ends_s in (last_s, last_s - 30.0, last_s - 333.0, last_s // 60 * 60, last_s + 5000.0):
            part = Window.back(ends_s, minutes)
            series = seen.figures.series(part, step * 60.0)
            assert len(series.points) <= POINTS_MAX
            assert series.begins_s + series.step_s > part.begins_s
            if series.step_s == 60.0:
                assert series.begins_s >= part.begins_s
            for name in ("requests", "local_requests", "spent_usd", "judged"):
                total = getattr(seen.figures.totals(part), name)
                assert sum(getattr(point, name) for point in series.points) == pytest.approx(total)


def test_a_search_finds_all_that_fits_and_nothing_else_page_by_page(journal: Path) -> None:
    rows = folded(journal)
    with indexed(journal) as seen:
        find = seen.requests
        assert ids(find, Wanted(limit=7)) == by_time(rows)
        for wanted, fits in (
            (Wanted(q="people-1"), lambda row: row.id.startswith("people-1")),
            (Wanted(klass="interactive"), lambda row: row.klass.startswith("interactive/")),
            (Wanted(klass="batch/medium", tier="local"), lambda row: row.klass == "batch/medium" and row.local),
            (Wanted(endpoint="cloud", why="worth_the_price", outcome="ok"), lambda row: row.endpoint == "cloud"),
            (Wanted(kept=False), lambda row: row.kept is False),
            (Wanted(model="assistant", from_s=rows[40].arrived_s), lambda row: row.arrived_s >= rows[40].arrived_s),
            (Wanted(to_s=rows[40].arrived_s, limit=3), lambda row: row.arrived_s <= rows[40].arrived_s),
            (Wanted(endpoint="nowhere"), lambda row: False),
        ):
            assert ids(find, wanted) == by_time([row for row in rows if fits(row)])
        assert len(find.search(Wanted(limit=10 * LIMIT_MAX)).rows) <= LIMIT_MAX


def test_a_search_for_what_cannot_be_says_what_can(journal: Path) -> None:
    with indexed(journal) as seen:
        for wanted, said in (
            (Wanted(outcome="bad"), "there are ok, "),
            (Wanted(tier="moon"), "there are local, remote"),
            (Wanted(before="yesterday"), "the `next` of another page"),
        ):
            with pytest.raises(ValueError, match=said):
                seen.requests.search(wanted)


def test_what_is_told_of_an_endpoint_is_what_came_there(journal: Path) -> None:
    rows = [row for row in folded(journal) if row.endpoint == "laptop" and row.local]
    with indexed(journal) as seen:
        measured = seen.figures.measured("laptop", window(seen))
    assert measured.totals.requests == len(rows)
    assert measured.ttft_s is not None
    assert measured.ttft_s.count == sum(row.ttft_s is not None for row in rows)
    prediction = measured.prediction
    assert prediction is not None
    assert prediction.attempts == len(rows)
    assert prediction.coverage == pytest.approx(
        sum(row.ttft_s <= row.predicted_ttft_s_high for row in rows if row.ttft_s and row.predicted_ttft_s_high)
        / len(rows)
    )
    assert [pair.quantile for pair in prediction.quantiles][::9] == [0.05, 0.5, 0.95]


def test_what_an_endpoint_takes_is_told_of_the_same_requests_that_its_totals_are_of(journal: Path) -> None:
    with indexed(journal) as seen:
        end_s = window(seen).ends_s
        counts = set[int]()
        for endpoint in ("laptop", "cloud"):
            for minute in range(20):
                for width_s in (60.0, 90.0, 300.0):
                    part = Window(begins_s=end_s - 60.0 * minute - width_s, ends_s=end_s - 60.0 * minute)
                    measured = seen.figures.measured(endpoint, part)
                    count = 0 if measured.e2e_s is None else measured.e2e_s.count
                    assert count == measured.totals.requests
                    counts.add(count)
        assert len(counts) > 5


def row(number: int, **changes: object) -> Row:
    """An answer of the laptop that was held for ten seconds and then came as it was predicted."""
    made = Row(
        id=f"r{number}",
        arrived_s=1000.0,
        klass="chat",
        model="m",
        key="",
        prompt_tokens=100,
        cached_tokens=None,
        output_tokens=10,
        endpoint="laptop",
        site="home",
        local=True,
        why=None,
        outcome=Came.OK,
        ttft_s=11.0,
        tpot_s=None,
        e2e_s=12.0,
        sent_s=10.0,
        predicted_ttft_s=11.0,
        predicted_ttft_s_high=12.0,
        slo_ttft_s=None,
        slo_tpot_s=None,
        slo_e2e_s=None,
        kept=None,
        usd=0.0,
        paid_usd=0.0,
        remote_usd=None,
        attempts=1,
        hedged=False,
        held_s=10.0,
        handover="",
        handover_s=None,
    )
    return replace(made, **changes)


@contextmanager
def holding(file: Path, *rows: Row) -> Iterator[Figures]:
    """What an index of these rows is asked."""
    with closing(connect(file)) as db:
        index = Index(db)
        index.place(Place(name="laptop", site="home", tier="local"))
        index.place(Place(name="cloud", site="cloud", tier="remote"))
        index.add("one", 100, rows, ())
        yield Figures(db)


WINDOW = Window(begins_s=900.0, ends_s=1100.0)


def test_how_far_predictions_are_off_is_told_of_what_was_predicted_and_not_of_what_had_passed(tmp_path: Path) -> None:
    # Held for ten seconds, predicted to take one from there on, and took two.
    with holding(tmp_path / "index.sqlite", *(row(number, ttft_s=12.0) for number in range(3))) as figures:
        prediction = figures.measured("laptop", WINDOW).prediction
    assert prediction is not None
    assert (prediction.error, prediction.bias, prediction.coverage) == (1.0, 2.0, 1.0)
    assert set(prediction.pairs) == {(1.0, 2.0)}
    assert {(pair.predicted_s, pair.actual_s) for pair in prediction.quantiles} == {(1.0, 2.0)}


def test_what_nobody_answered_is_served_by_nobody_whoever_was_asked(tmp_path: Path) -> None:
    failed = row(2, endpoint="cloud", local=None, outcome=Came.FAILED, ttft_s=None, usd=0.5, paid_usd=0.5)
    refused = row(3, endpoint="", local=None, outcome=Came.REFUSED, ttft_s=None)
    broke_off = row(4, endpoint="cloud", local=False, outcome=Came.FAILED_MID_STREAM)
    with holding(tmp_path / "index.sqlite", row(1), failed, refused, broke_off) as figures:
        totals, flows = figures.totals(WINDOW), figures.flows(WINDOW)
        cloud = figures.measured("cloud", WINDOW)
        page = Requests(figures._db).search(Wanted(endpoint="cloud"))
    assert (totals.local_requests, totals.remote_requests, totals.offload) == (1, 1, 0.5)
    assert (totals.requests, totals.failed, totals.refused, totals.spent_usd) == (4, 1, 1, 0.5)
    assert [(flow.endpoint, flow.requests) for flow in flows.flows] == [("cloud", 1), ("laptop", 1)]
    assert [(one.outcome, one.requests) for one in flows.unserved] == [(Came.FAILED, 1), (Came.REFUSED, 1)]
    assert (cloud.totals.requests, cloud.e2e_s and cloud.e2e_s.count) == (1, 1)
    assert {(one.id, one.tier) for one in page.rows} == {("r2", None), ("r4", "remote")}


def test_an_endpoint_that_changes_sides_leaves_figures_of_what_it_has_served_as_they_are(tmp_path: Path) -> None:
    saving = {"remote_usd": 1.0, "usd": 0.25}
    before, after = row(1, **saving), row(2, local=False, output_tokens=20, **saving)
    with holding(tmp_path / "index.sqlite", before, before, after) as figures:
        Index(figures._db).place(Place(name="laptop", site="cloud", tier="remote"))
        totals, (klass,) = figures.totals(WINDOW), figures.classes(WINDOW)
        (point,) = (one for one in figures.series(WINDOW, 60.0).points if one.requests)
        measured = figures.measured("laptop", WINDOW).totals
        (flow,) = figures.flows(WINDOW).flows
    for told in (totals, klass, measured, point):
        assert (told.local_requests, told.remote_requests, told.local_saved_usd) == (2, 1, 1.5)
        assert told.offload == pytest.approx(1 / 3)
    for sums in (totals, klass, measured):
        assert (sums.local_tokens, sums.remote_tokens) == (220, 120)
    assert (flow.tier, flow.requests) == ("remote", 3)


def cut(journal: Path, share: float) -> tuple[Path, bytes]:
    """The segment cut off in the midst of a line, and the rest of it."""
    path = next(journal.glob("journal-*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path, whole[int(share * len(whole)) :]


def state_of(path: Path) -> bytes:
    """What a replay of a segment, decisions and all, comes to."""
    replay = Replay()
    for line in read(path):
        replay.feed(line)
    assert replay.router is not None
    return bytes(replay.router.snapshot())


def test_a_journal_that_grows_is_followed_and_nothing_is_counted_twice(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "STEP_BYTES", 4096)
    monkeypatch.setattr(follow, "_is_left", lambda path: False)  # its gateway is there
    rows = folded(journal)
    path, rest = cut(journal, 0.5)
    with indexed(journal) as seen:
        half = seen.figures.totals(window(seen)).requests
        assert 0 < half < len(rows)
        with path.open("ab") as file:
            file.write(rest)
        seen.catch_up()
        assert seen.figures.totals(window(seen)).requests == len(rows)
        assert ids(seen.requests, Wanted()) == by_time(rows)


def beside(path: Path) -> Path:
    """The same as another gateway's that was started a day later."""
    other = path.with_name(path.name.replace("20260105", "20260106"))
    shutil.copy(path, other)
    return other


def test_of_gateways_that_share_a_folder_each_is_told_of_as_it_goes_on(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)
    path, rest = cut(journal, 0.5)
    with indexed(journal) as seen:
        other = beside(path)
        seen.catch_up()
        for each in (other, path):
            rows, (_, after) = seen.requests.extent().rows, seen.requests.newest(0, LIMIT_MAX)
            with each.open("ab") as file:
                file.write(rest)
            seen.catch_up()
            newest, last = seen.requests.newest(after, LIMIT_MAX)
            assert len(newest) == seen.requests.extent().rows - rows > 0
            assert seen.requests.newest(last, LIMIT_MAX) == ((), last)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """While its gateway is there."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_process_that_ends_without_a_word_is_noticed(journal: Path) -> None:
    path, _ = cut(journal, 0.5)
    with ExitStack() as gateway:
        gateway.enter_context(written(path))
        with indexed(journal) as seen:
            assert not seen.follower.step()
            assert seen.follower.under_way > 0
            assert seen.figures.totals(window(seen)).unknown == 0
            gateway.close()
            seen.catch_up()
            assert seen.follower.under_way == 0
            assert seen.requests.extent().rows == len(folded(path))
            assert seen.figures.totals(window(seen)).unknown > 0


def test_a_process_that_ended_while_no_dashboard_was_there_is_noticed_beside_one_that_goes_on(journal: Path) -> None:
    path, _ = cut(journal, 0.5)
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0] + b"\n")
    with written(beside(path)):
        with written(path), indexed(journal) as seen:
            before = seen.requests.extent().rows
        with indexed(journal) as seen:
            assert seen.requests.extent().rows == before // 2 + len(folded(path))


def test_what_goes_on_in_a_segment_that_begins_after_the_folder_was_listed_is_not_unknown(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, is_left = folded(journal), follow._is_left
    path, rest = parted(journal, 0.5)
    head = path.read_bytes()
    path.unlink()
    with ExitStack() as before, ExitStack() as after:
        before.enter_context(written(segments(journal)[0]))

        def turned(asked: Path) -> bool:
            if not path.exists():
                after.enter_context(written(path))
                path.write_bytes(head)
                before.close()
            return is_left(asked)

        with indexed(journal) as seen:
            monkeypatch.setattr(follow, "_is_left", turned)
            seen.catch_up()
            assert seen.follower.under_way > 0
            with path.open("ab") as file:
                file.writelines(rest)
            seen.catch_up()
            assert ids(seen.requests, Wanted()) == by_time(rows)
            assert seen.figures.totals(window(seen)).unknown == 0


def test_a_journal_that_was_copied_is_shown_as_it_was_at_its_last_line_whenever_it_is_opened(journal: Path) -> None:
    path = segments(journal)[0]
    other = beside(path)
    other.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    last_s = max(line.at_s for line in read(path))
    for written_s in (1.0, 2.0, 3.0):
        os.utime(other, (written_s, written_s))
        os.utime(path, (2.0, 2.0))
        with indexed(journal) as seen:
            assert seen.follower.last_s == last_s


@pytest.mark.parametrize("day", ["20260104", "20260106"])
def test_a_gateway_that_is_there_is_shown_also_where_one_that_is_not_had_a_clock_that_was_ahead(
    journal: Path, day: str
) -> None:
    path, rest = parted(journal, 0.5)
    with path.open("ab") as file:
        file.writelines(rest)
    half = segments(journal)[0]
    live = half.with_name(half.name.replace("20260105", day))
    begun = half.read_bytes()
    last_s = max(line.at_s for line in read(half))
    with indexed(journal) as seen:
        assert seen.follower.last_s == max(line.at_s for line in read(path)) > last_s
        with written(live):
            live.write_bytes(begun)
            seen.catch_up()
            assert (seen.follower.last_s, seen.follower.under_way > 0) == (last_s, True)
    (journal / "index.sqlite").unlink()
    with written(live):
        for _ in range(2):
            with indexed(journal) as seen:
                assert (seen.follower.last_s, seen.follower.under_way > 0) == (last_s, True)
                known = seen.follower.known()
                assert known is not None
                assert known.at_s == last_s


def test_what_comes_after_all_is_seen_where_file_systems_know_no_locks(journal: Path) -> None:
    newest = by_time(folded(journal))[0]
    path, rest = cut(journal, 0.5)
    with indexed(journal) as seen:
        seen.catch_up()
        assert newest not in ids(seen.requests, Wanted())
        with path.open("ab") as file:
            file.write(rest)
        seen.catch_up()
        assert newest in ids(seen.requests, Wanted())


def test_gateways_that_share_a_folder_are_followed_where_file_systems_know_no_locks(journal: Path) -> None:
    path, rest = cut(journal, 0.5)
    other = beside(path)
    with indexed(journal) as seen:
        for each in (other, path):
            rows = seen.requests.extent().rows
            with each.open("ab") as file:
                file.write(rest)
            seen.catch_up()
            assert seen.requests.extent().rows > rows


def parted(journal: Path, *shares: float) -> tuple[Path, list[bytes]]:
    """The segment as several that follow each other, and of the last one its beginning alone; what comes in it."""
    path = next(journal.glob("journal-*.jsonl"))
    head, *lines = path.read_bytes().splitlines(keepends=True)
    begun, replay, begin = msgspec.json.decode(head, type=Line), Replay(), 0
    assert isinstance(begun.fact, Segment)
    replay.feed(begun)
    told = [msgspec.json.decode(line, type=Line) for line in lines]
    for number, share in enumerate(shares):
        end = int(share * len(lines))
        while told[end].at_s == told[end - 1].at_s:  # what is told at once stands in one segment
            end += 1
        path.write_bytes(msgspec.json.encode(begun) + b"\n" + b"".join(lines[begin:end]))
        for line in told[begin:end]:
            if not isinstance(line.fact, Request | Decision):
                replay.feed(line)
        assert replay.router is not None
        begun, begin = replace(begun, fact=replace(begun.fact, follows=True, state=replay.router.snapshot())), end
        path = path.with_name(path.name.replace(f"-{number:06}.", f"-{number + 1:06}."))
    path.write_bytes(msgspec.json.encode(begun) + b"\n")
    return path, lines[begin:]


@pytest.mark.parametrize("shares", [(0.3,), (0.7,), (0.5, 0.51), (0.5, 0.51, 0.52)], ids=str)
@pytest.mark.parametrize("packs", [False, True], ids=["plain", "packed"])
def test_what_goes_on_from_one_segment_to_another_has_its_row_also_where_the_dashboard_comes_back(
    journal: Path, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], packs: bool
) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)
    monkeypatch.setattr(follow, "STEP_BYTES", 4096)
    rows = folded(journal)
    path, rest = parted(journal, *shares)
    with indexed(journal) as seen:
        assert seen.follower.under_way > 0
        before = seen.requests.extent().rows
    if packs:
        assert all(pack(one) for one in segments(journal)[:-1])
    with indexed(journal) as seen:
        assert seen.requests.extent().rows == before
        with path.open("ab") as file:
            file.writelines(rest)
        seen.catch_up()
        assert seen.requests.extent().rows == len(rows)
        assert ids(seen.requests, Wanted()) == by_time(rows)
        assert seen.figures.totals(window(seen)).spent_usd == pytest.approx(sum(row.paid_usd for row in rows))


def test_a_dashboard_that_comes_back_goes_on_where_it_was(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)
    rows = folded(journal)
    path, rest = cut(journal, 0.6)
    with indexed(journal) as seen:
        assert seen.figures.totals(window(seen)).requests < len(rows)
    with path.open("ab") as file:
        file.write(rest)
    with indexed(journal) as seen:
        assert seen.figures.totals(window(seen)).requests == len(rows)
        assert ids(seen.requests, Wanted()) == by_time(rows)
    with indexed(journal) as seen:
        assert seen.figures.totals(window(seen)).requests == len(rows)
        assert seen.follower.known() is not None


def test_what_is_known_is_what_all_lines_have_come_to_whenever_it_is_asked_for(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)
    path, rest = cut(journal, 0.4)
    first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    with indexed(journal) as seen:
        for more in (b"", first, second):
            with path.open("ab") as file:
                file.write(more)
            seen.catch_up()
            known = seen.follower.known()
            assert known is not None
            assert bytes(known.state) == state_of(path)
        other = journal / path.name.replace("-000000.", "-000001.")
        shutil.copy(path, other)
        seen.catch_up()
        assert pack(path)
        known = seen.follower.known()
        assert known is not None
        assert bytes(known.state) == state_of(other)


def test_however_many_models_clients_make_up_the_samples_are_of_those_that_are_served(journal: Path) -> None:
    path = next(journal.glob("journal-*.jsonl"))
    head, *lines = path.read_bytes().splitlines(keepends=True)
    asked = next(line for line in read(path) if isinstance(line.fact, Request))
    assert isinstance(asked.fact, Request)
    made_up = (
        replace(asked, fact=replace(asked.fact, id=f"x{number}", model=f"none-{number}"))
        for number in range(follow.SAMPLES_MAX)
    )
    path.write_bytes(b"".join([head, *(msgspec.json.encode(line) + b"\n" for line in made_up), *lines]))
    with indexed(journal) as seen:
        known = seen.follower.known()
    assert known is not None
    assert {one.model for one in known.samples} == {asked.fact.model}


def test_of_a_journal_that_cannot_be_replayed_nothing_is_known_and_its_rows_are_shown(journal: Path) -> None:
    path = next(journal.glob("journal-*.jsonl"))
    head, _, lines = path.read_bytes().partition(b"\n")
    segment = msgspec.json.decode(head, type=Line)
    assert isinstance(segment.fact, Segment)
    other = replace(segment, fact=replace(segment.fact, state=msgspec.Raw(b'{"endpoints":[]}')))
    path.write_bytes(msgspec.json.encode(other) + b"\n" + lines)
    with indexed(journal) as seen:
        assert seen.requests.extent().rows == 125
        assert seen.follower.known() is None
        assert seen.follower.budgets() == ()


def test_what_was_under_way_when_its_process_ended_is_unknown_and_counted_once(journal: Path) -> None:
    cut(journal, 0.5)
    rows = folded(journal)
    assert any(row.outcome == "unknown" for row in rows)
    for _ in range(2):
        with indexed(journal) as seen:
            totals = seen.figures.totals(Window.back(rows[-1].arrived_s + 900.0, ALL_MINUTES))
            assert (totals.requests, totals.unknown) == (len(rows), sum(row.outcome == "unknown" for row in rows))
            assert seen.follower.under_way == 0


def test_what_the_journal_has_no_more_the_index_has_no_more(journal: Path) -> None:
    path = next(journal.glob("journal-*.jsonl"))
    other = journal / path.name.replace("20260105", "20260106")
    shutil.copy(path, other)
    with indexed(journal) as seen:
        assert seen.requests.extent().rows == 2 * len(folded(path))
        path.unlink()
        seen.catch_up()
        assert seen.requests.extent().rows == len(folded(journal))
        assert seen.figures.totals(window(seen)).requests == len(folded(journal))
        assert len(ids(seen.requests, Wanted())) == len(folded(journal))


def test_names_that_the_journal_has_no_more_are_offered_no_more_until_they_come_again(journal: Path) -> None:
    path = segments(journal)[0]
    whole = path.read_bytes()
    other = journal / path.name.replace("20260105", "20260106")
    other.write_bytes(whole.replace(b"assistant", b"translator").replace(b"laptop", b"desktop"))
    with indexed(journal) as seen:
        assert seen.requests.values().models == ("assistant", "translator")
        path.unlink()
        seen.catch_up()
        values = seen.requests.values()
        assert values.models == ("translator",)
        assert [one.name for one in values.endpoints] == ["cloud", "desktop"]
        again = journal / path.name.replace("20260105", "20260107")
        again.write_bytes(whole)
        seen.catch_up()
        values = seen.requests.values()
        assert values.models == ("assistant", "translator")
        assert [one.name for one in values.endpoints] == ["cloud", "desktop", "laptop"]
        assert len(ids(seen.requests, Wanted(model="assistant"))) == len(folded(again))


def test_an_endpoint_that_has_served_nothing_is_told_of_as_long_as_it_is_configured(journal: Path) -> None:
    path = segments(journal)[0]
    head, _, _ = path.read_bytes().partition(b"\n")
    other = journal / path.name.replace("20260105", "20260106")
    other.write_bytes(head.replace(b"laptop", b"desktop") + b"\n")
    with indexed(journal) as seen:
        path.unlink()
        seen.catch_up()
        assert seen.requests.extent().rows == 0
        assert [one.name for one in seen.requests.values().endpoints] == ["cloud", "desktop"]


def test_a_segment_that_is_over_is_read_once_and_packed_or_not_it_is_the_same(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)
    first = segments(journal)[0]
    count = len(folded(first))
    with indexed(journal) as seen:
        second = journal / first.name.replace("-000000.", "-000001.")
        shutil.copy(first, second)  # the gateway goes on there
        seen.catch_up()
        assert seen.requests.extent().rows == 2 * count
        tail = next(iter(seen.follower._tails.values()))
        assert pack(first)
        assert [path.suffix for path in segments(journal)] == [".zst", ".jsonl"]
        seen.catch_up()
        assert (tail.name, seen.requests.extent().rows) == (second.name, 2 * count)
    with indexed(journal) as seen:
        tail = next(iter(seen.follower._tails.values()))
        assert (tail.name, seen.requests.extent().rows) == (second.name, 2 * count)
        assert not seen.follower.step()
        assert tail.name == second.name
        name = seen.requests.segment_of(folded(first)[0].id)
        assert name == second.name


def test_packed_segments_are_read_as_others_are(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "STEP_BYTES", 4096)
    rows = folded(journal)
    assert pack(segments(journal)[0])
    for _ in range(2):
        with indexed(journal) as seen:
            assert seen.figures.totals(window(seen)).requests == len(rows)
            assert seen.follower.share == 1.0


def scribbled(packed: bytes) -> bytes:
    """Others' bytes near its end."""
    place = int(0.9 * len(packed))
    return packed[:place] + b"\xff" * 100 + packed[place + 100 :]


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "damaged",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[: int(0.9 * len(packed))],
        scribbled,
        lambda packed: packed + b"no",
    ],
    ids=["without its last byte", "ends early", "scribbled", "followed"],
)
def test_of_a_packed_segment_that_is_damaged_all_that_stands_before_the_place_is_shown(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: Callable[[bytes], bytes]
) -> None:
    whole = segments(journal)[0]
    assert pack(whole)
    (packed,) = segments(journal)
    packed.write_bytes(damaged(packed.read_bytes()))
    good = tmp_path / whole.name
    good.write_bytes(readable(packed))
    rows = folded(good)
    assert len(rows) > 50
    for step_bytes in (follow.STEP_BYTES, 4096, 4096):
        monkeypatch.setattr(follow, "STEP_BYTES", step_bytes)
        with indexed(journal, tmp_path / f"{step_bytes}.sqlite") as seen:
            assert ids(seen.requests, Wanted()) == by_time(rows)
            assert seen.figures.totals(window(seen)).requests == len(rows)
            known = seen.follower.known()
            assert known is not None
            assert bytes(known.state) == state_of(good)
            assert seen.problems == [
                f"{whole} cannot be read on, and is left out from there; `tidegate journal ls` says why"
            ]


def readable(packed: Path) -> bytes:
    """What can be had of it, byte by byte."""
    found = bytearray()
    with suppress(*DAMAGED):
        decompressor = zstd.ZstdDecompressor()
        with packed.open("rb") as file:
            while not decompressor.eof:
                needed = file.read(1) if decompressor.needs_input else b""
                if decompressor.needs_input and not needed:
                    break
                found += decompressor.decompress(needed, 1)
    return bytes(found)


def test_a_file_that_is_no_index_is_made_anew(journal: Path, tmp_path: Path) -> None:
    file = tmp_path / "index.sqlite"
    file.write_bytes(b"this is no database, and larger than its header would be" * 100)
    with indexed(journal, file) as seen:
        assert seen.requests.extent().rows == 125


@pytest.mark.parametrize("table", ["segment", "request"])
def test_an_index_that_cannot_be_read_where_it_begins_is_made_anew(journal: Path, tmp_path: Path, table: str) -> None:
    file = tmp_path / "index.sqlite"
    with indexed(journal, file):
        pass
    damage(file, table)
    with indexed(journal, file) as seen:
        assert seen.requests.extent().rows == 125


def test_what_was_added_in_vain_is_added_with_its_names_later(journal: Path, tmp_path: Path) -> None:
    rows = folded(journal)
    with closing(connect(tmp_path / "index.sqlite")) as db:
        index, (pages,) = Index(db), db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            index.add("one", 100, rows, ())
        assert (index.read_bytes("one"), Requests(db).extent().rows) == ((0, False), 0)
        db.execute(f"PRAGMA max_page_count = {1 << 30}")
        index.add("one", 100, rows, ())
        found = Requests(db).search(Wanted(limit=LIMIT_MAX)).rows
        assert {(one.id, one.klass, one.endpoint) for one in found} == {(r.id, r.klass, r.endpoint) for r in rows}


def test_a_segment_that_cannot_be_read_is_passed_over_and_told_once(journal: Path) -> None:
    path = next(journal.glob("journal-*.jsonl"))
    bad = journal / path.name.replace("20260105", "20260104")
    bad.write_bytes(b'{"at_s":1.0,"fact":{"type":"segment","version":99}}\n')
    with indexed(journal) as seen:
        assert seen.requests.extent().rows == 125
        seen.follower.anew()
        seen.catch_up()
        assert not seen.follower.step()
        assert seen.problems == [f"{bad} cannot be read on, and is left out from there; `tidegate journal ls` says why"]


def test_a_segment_that_cannot_be_opened_is_left_out_and_read_once_it_can_be(journal: Path) -> None:
    path = segments(journal)[0]
    whole, count = path.read_bytes(), len(folded(journal))
    bad = path.with_name(path.name.replace("20260105", "20260104"))
    bad.mkdir()  # what nobody may open, whoever runs this
    for _ in range(2):
        with indexed(journal) as seen:
            assert (seen.requests.extent().rows, seen.follower.share) == (count, 1.0)
            assert seen.follower.last_s == max(line.at_s for line in read(path))
            seen.follower.anew()
            seen.catch_up()
            (problem,) = seen.problems
            assert problem == f"a segment is left out: {bad}: Is a directory; no segment is one: move it away"
    with indexed(journal) as seen:
        bad.rmdir()
        bad.write_bytes(whole)
        beside(path)
        seen.catch_up()
        assert (seen.requests.extent().rows, seen.follower.share) == (3 * count, 1.0)
