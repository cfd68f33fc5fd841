"""`tidegate journal`: what it lists, prints, follows and exports is what the journal tells."""

import asyncio
import csv
import fcntl
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO

import duckdb
import msgspec
import pytest

from tests.gateway.test_disk import may_mount
from tests.sim.days import Stage
from tests.telemetry import make
from tests.telemetry.test_journal import written
from tidegate.cli.export import COLUMNS
from tidegate.cli.main import main
from tidegate.core.model import JOURNAL_VERSION, Fact, Line, Request, Segment, replace
from tidegate.core.rows import Row, Rows
from tidegate.telemetry import following as following_module
from tidegate.telemetry.following import Following
from tidegate.telemetry.packing import open_segment, pack
from tidegate.telemetry.reading import JournalError
from tidegate.telemetry.requests import requests, run_of
from tidegate.telemetry.segments import SegmentName, segments

PAGE = Path("docs/reference/journal.md")


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(2, trouble=True)


@pytest.fixture
def journal(stage: Stage, tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / str(SegmentName.first(0.0))).write_bytes(msgspec.json.Encoder().encode_lines(stage.lines))
    return folder


@pytest.fixture
def rows(stage: Stage) -> list[Row]:
    fold = Rows()
    return [row for line in stage.lines for row in fold.feed(line)] + fold.rest()


def busy(stage: Stage) -> int:
    """After so many lines, most requests are under way."""
    fold, under_way = Rows(), list[int]()
    for line in stage.lines:
        fold.feed(line)
        under_way.append(fold.open)
    return under_way.index(max(under_way)) + 1


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main(["journal", *(str(one) for one in arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_segments_are_listed_with_their_span_their_size_and_who_wrote_them(
    journal: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    assert pack(segment)
    (listed,) = json.loads(said(capsys, "ls", journal, "--json")[0])
    assert listed["lines"] == len(stage.lines)
    assert (listed["from_s"], listed["until_s"]) == (stage.lines[0].at_s, stage.lines[-1].at_s)
    assert (listed["packed"], listed["written"]) == (True, False)
    assert listed["bytes"] == (journal / listed["name"]).stat().st_size
    _, line, total = said(capsys, "ls", journal)
    assert line.split()[0] == listed["name"]
    assert total.startswith(f"1 segments, {len(stage.lines)} lines")
    # Its name before it was packed leads there, too.
    assert json.loads(said(capsys, "ls", segment, "--json")[0]) == [listed]
    packed = journal / listed["name"]
    packed.write_bytes(packed.read_bytes()[:-9])
    assert main(["journal", "ls", str(segment), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["unread"]


def test_a_segment_that_cannot_be_read_is_listed_as_such_beside_the_others(
    journal: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    head, *lines = segment.read_bytes().splitlines(keepends=True)
    headless, torn, loop = (journal / str(SegmentName.first(float(at_s))) for at_s in (1, 2, 3))
    headless.write_bytes(b"".join(lines))
    torn.write_bytes(head + lines[0] + b"{}\n" + lines[1])
    loop.symlink_to(loop)
    assert main(["journal", "ls", str(journal)]) == 1
    told = capsys.readouterr()
    _, whole, *broken, total = told.out.splitlines()
    assert "cannot be read" not in whole
    assert [line.split(", ")[-1] for line in broken] == [f"cannot be read from line {n} on" for n in (1, 3, 1)]
    assert total.startswith(f"4 segments, {len(stage.lines) + 2} lines")
    remedy = "move this segment away, or name the others one by one"
    for path, place in ((headless, ":1: "), (torn, ":3: ")):
        (line,) = (line for line in told.err.splitlines() if f"{path}{place}" in line)
        assert line.endswith(remedy)
    assert main(["journal", "ls", str(journal), "--json"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert [bool(one["unread"]) for one in listed] == [False, True, True, True]
    assert main(["journal", "show", str(journal)]) == 2
    assert remedy in capsys.readouterr().err


def test_requests_are_printed_one_a_line(journal: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    _, *lines = said(capsys, "show", journal)
    assert [line.split()[1] for line in lines] == [row.id for row in rows]
    found = [msgspec.json.decode(line, type=Row) for line in said(capsys, "show", journal, "--json")]
    assert found == rows


CSI = "\x9b"  # begins an order to a terminal, in one letter that JSON does not escape


def test_what_an_id_has_in_it_moves_no_cursor(
    journal: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"r17"', b'"r17\\u001b[2J"'))
    _, *lines = said(capsys, "show", journal)
    assert [line.split()[1] for line in lines] == [row.id.replace("r17", "r17[2J") for row in rows]
    assert all(line.isprintable() for line in lines)


def test_nor_does_anything_else_that_others_have_written_there(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = segments(journal)
    text = re.sub(r'("(?:software|klass|name|endpoint)":"[^"]+)', rf"\1{CSI}31m", path.read_text())
    path.write_text(text)
    printed = [*said(capsys, "ls", journal), *said(capsys, "show", journal)]
    assert all(line.isprintable() for line in printed)
    served = [line for line in printed if " ok " in line]
    assert served
    assert all(line.count("31m") == 2 for line in served)
    path.write_text(text.replace(f'"version":{JOURNAL_VERSION}', f'"version":{JOURNAL_VERSION + 1}', 1))
    assert main(["journal", "show", str(journal)]) == 2
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_nor_does_json_and_it_says_the_same(
    journal: Path, stage: Stage, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked = next(line.fact for line in stage.lines if isinstance(line.fact, Request))
    model = f"=1+1{CSI}31m\x7f\U000e0001"
    (path,) = segments(journal)
    path.write_text(path.read_text().replace(f'"model":"{asked.model}"', f'"model":"{model}"'))
    for what in ([], ["--kind", "request"]):
        assert main(["journal", "show", str(journal), "--json", *what]) == 0
        lines = capsysbinary.readouterr().out.splitlines()
        assert all(line.decode().isprintable() for line in lines)
        assert {fact.get("fact", fact)["model"] for fact in map(json.loads, lines)} == {model}


@pytest.mark.parametrize("count", [1, 2])
def test_requests_under_way_are_not_unknown_where_a_segment_is_begun_while_one_of_so_many_is_read(
    journal: Path, stage: Stage, count: int
) -> None:
    (path,) = journal.iterdir()
    name, part, encode = SegmentName.parse(path.name), busy(stage), msgspec.json.Encoder().encode_lines
    assert name is not None
    fold, more = Rows(), head(stage, follows=True)
    ended = [row for line in stage.lines[:part] for row in fold.feed(line)]
    path.write_bytes(encode(stage.lines[: part + 1 - count]))
    if count == 2:
        name = name.next()
        (journal / str(name)).write_bytes(encode([more, stage.lines[part - 1]]))
    with (journal / str(name)).open("rb") as written_:
        fcntl.flock(written_, fcntl.LOCK_EX)
        found = requests(journal)
        first = next(found)
        (journal / str(name.next())).write_bytes(encode([more, *stage.lines[part:]]))
    assert [first, *found] == ended


def test_what_is_written_while_the_journal_is_read_makes_no_request_unknown(journal: Path, stage: Stage) -> None:
    (path,) = journal.iterdir()
    lines, fold = stage.lines[: busy(stage)], Rows()
    ended = [row for line in lines for row in fold.feed(line)]
    path.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    found = list[Row]()
    with path.open("rb") as gateway:
        fcntl.flock(gateway, fcntl.LOCK_EX)
        for row in requests(journal):
            found.append(row)
            gateway.close()
    assert found == ended


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("--id", "r17", "id"),
        ("--endpoint", "cloud", "endpoint"),
        ("--outcome", "ok", "outcome"),
        ("--why", "cheapest_on_time", "why"),
        ("--class", "chat", "klass"),
    ],
)
def test_those_that_are_asked_for_are_printed(
    journal: Path, rows: list[Row], capsys: pytest.CaptureFixture[str], option: str, value: str, field: str
) -> None:
    wanted = [row for row in rows if getattr(row, field) == value]
    assert wanted
    lines = said(capsys, "show", journal, "--json", option, value)
    assert [msgspec.json.decode(line, type=Row) for line in lines] == wanted


@pytest.mark.parametrize("verb", ["show", "tail"])
def test_facts_have_no_outcome_to_be_asked_for_by(journal: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main(["journal", verb, str(journal), "--kind", "decision", "--outcome", "ok"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--outcome: requests have one, and facts have none" in err


def test_times_bound_them(journal: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    span = ("--since", "1970-01-01T00:00:03", "--until", "1970-01-01T00:00:05")
    lines = said(capsys, "show", journal, "--json", *span)
    assert len(lines) == sum(3.0 <= row.arrived_s < 5.0 for row in rows) > 0
    assert said(capsys, "show", journal, "--json", "--since", "90m") == []


def test_facts_are_printed_as_they_stand(journal: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "show", journal, "--kind", "ended", "--id", "r17")
    found = [msgspec.json.decode(line, type=Line) for line in lines]
    ended = [line for line in stage.lines if line.fact.__struct_config__.tag == "ended"]
    assert found == [line for line in ended if getattr(line.fact, "request_id", "") == "r17"]
    assert len(said(capsys, "show", journal, "--kind", "all")) == len(stage.lines)


@pytest.mark.lengthy
def test_whatever_letters_a_terminal_has_json_is_utf_8_and_the_rest_is_escaped(
    journal: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = next(line.fact for line in stage.lines if isinstance(line.fact, Request))
    (path,) = segments(journal)
    path.write_bytes(path.read_bytes().replace(b'"%b"' % asked.model.encode(), '"ñope日本"'.encode()))
    printed = {}
    for verb in ("explain --journal", "explain --json --journal", "journal show --kind request"):
        written = BytesIO()
        monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, "ascii"))
        assert main([*verb.split(), str(journal)]) == 0
        printed[verb] = written.getvalue()
    text, told, facts = printed.values()
    assert rb"\xf1ope\u65e5\u672c" in text
    assert "ñope日本" in told.decode()
    assert {json.loads(line)["fact"]["model"] for line in facts.splitlines()} == {"ñope日本"}


def test_what_is_no_journal_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["ls"], ["show"], ["tail"], ["export", "--csv", str(tmp_path / "x")]):
        assert main(["journal", *verb, str(tmp_path / "none")]) == 2
        assert "none" in capsys.readouterr().err


def test_what_nobody_may_look_into_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is too long, since a superuser may look everywhere."""
    long = str(tmp_path / ("x" * 300))
    verbs = [["journal", "ls"], ["journal", "show"], ["journal", "tail"], ["journal", "export", "--csv", "/dev/null"]]
    for verb in (*verbs, ["doctor"], ["backtest"], ["explain", "--journal"]):
        assert main([*verb, long]) == 2, verb
        assert "File name too long" in capsys.readouterr().err, verb
    assert main(["replay", long]) == 1
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may look everywhere")
def test_what_this_user_may_not_read_is_told_with_who_may(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (segment,) = journal.iterdir()
    for closed in (segment, journal):
        mode = closed.stat().st_mode
        closed.chmod(0)
        for verb in ("ls", "show", "tail"):
            assert main(["journal", verb, str(journal)]) in (1, 2)
            assert "Permission denied; do this as the gateway's user" in capsys.readouterr().err
        closed.chmod(mode)


def test_a_folder_that_is_named_like_a_segment_is_told_with_what_to_do(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = journal / str(SegmentName.first(60.0))
    folder.mkdir()
    assert main(["journal", "show", str(journal)]) == 2
    assert f"{folder}: Is a directory; no segment is one: move it away" in capsys.readouterr().err


def test_a_file_that_no_export_can_be_written_to_is_told_with_what_to_do(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (tmp_path / "none" / "x", tmp_path):
        for form in ("--csv", "--parquet"):
            assert main(["journal", "export", str(journal), form, str(file)]) == 1
            assert capsys.readouterr().err.endswith("; name a file that can be written\n")


@pytest.mark.parametrize("ago", ["9" * 320 + "d", "9" * 5000 + "d", "d", "yesterday"])
def test_what_is_no_time_is_refused(journal: Path, capsys: pytest.CaptureFixture[str], ago: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["journal", "show", str(journal), "--since", ago])
    assert "is no time" in capsys.readouterr().err


def test_of_a_folder_without_a_journal_nothing_is_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["journal", "tail", str(tmp_path)]) == 2
    assert f"{tmp_path}: no journal here" in capsys.readouterr().err


def test_duckdb_reads_from_parquet_what_the_journal_tells(
    journal: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "requests.parquet"
    assert said(capsys, "export", journal, "--parquet", file) == [f"{len(rows)} requests in {file}"]
    relation = duckdb.read_parquet(str(file))
    assert relation.columns == [column.name for column in COLUMNS]
    found = relation.aggregate(
        "count(*), sum(prompt_tokens), sum(output_tokens), sum(usd), sum(ttft_s), count(ttft_s), "
        "count(*) filter (outcome = 'ok'), count(*) filter (kept), count(*) filter (local), "
        'epoch(min(arrived_at)), count(distinct "class")'
    ).fetchall()
    times = [row.ttft_s for row in rows if row.ttft_s is not None]
    assert found == [
        pytest.approx(
            (
                len(rows),
                sum(row.prompt_tokens for row in rows),
                sum(row.output_tokens or 0 for row in rows),
                sum(row.usd for row in rows),
                sum(times),
                len(times),
                sum(row.outcome == "ok" for row in rows),
                sum(row.kept is True for row in rows),
                sum(row.local is True for row in rows),
                min(row.arrived_s for row in rows),
                len({row.klass for row in rows}),
            )
        )
    ]


def test_what_was_predicted_is_exported(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "requests.csv"
    said(capsys, "export", journal, "--csv", file, "--outcome", "ok")
    with file.open() as lines:
        found = list(csv.DictReader(lines))
    assert found
    assert all(float(one["predicted_ttft_s"]) <= float(one["predicted_ttft_s_high"]) for one in found)


def test_csv_has_the_same_columns_and_rows(
    journal: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "requests.csv"
    said(capsys, "export", journal, "--csv", file)
    relation = duckdb.read_csv(str(file))
    assert relation.columns == [column.name for column in COLUMNS]
    found = relation.aggregate("count(*), sum(usd), epoch(max(arrived_at))").fetchall()
    wanted = (len(rows), sum(row.usd for row in rows), max(row.arrived_s for row in rows))
    assert found == [pytest.approx(wanted)]


@pytest.mark.parametrize("first", list("=+-@\t\r"))
def test_no_text_of_a_csv_is_a_formula_to_a_spreadsheet(
    first: str, journal: Path, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = next(line.fact for line in stage.lines if isinstance(line.fact, Request))
    (path,) = segments(journal)
    model = json.dumps(f"{first}1+1")
    path.write_text(path.read_text().replace(f'"model":"{asked.model}"', f'"model":{model}'))
    file = tmp_path / "requests.csv"
    said(capsys, "export", journal, "--csv", file)
    with file.open(newline="") as lines:
        assert {one["model"] for one in csv.DictReader(lines)} == {f"'{first}1+1"}


@pytest.mark.parametrize("form", ["--csv", "--parquet"])
def test_an_export_that_fails_leaves_what_was_exported_before(
    form: str, journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, broken = tmp_path / "requests", tmp_path / "broken"
    said(capsys, "export", journal, form, file)
    before = file.read_bytes()
    (segment,) = journal.iterdir()
    broken.write_bytes(segment.read_bytes() + b"{}\n")
    for wrong in (broken, PAGE):
        assert main(["journal", "export", str(wrong), form, str(file)]) == 2
        assert wrong.name in capsys.readouterr().err
        assert file.read_bytes() == before
    assert main(["journal", "export", str(broken), form, str(tmp_path / "new")]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"requests", "broken", "journal"}


def test_an_export_into_a_pipe_goes_through_it(
    journal: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        said(capsys, "export", journal, "--csv", pipe)
        assert os.read(end, 1 << 20).count(b"\n") == 1 + len(rows)
        assert pipe.is_fifo()
    finally:
        os.close(end)


def test_an_export_leaves_its_file_as_private_as_it_was(journal: Path, tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.touch(mode=0o600)
    assert main(["journal", "export", str(journal), "--csv", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size > 0


def test_an_export_leaves_a_file_alone_that_is_called_like_one_under_way(journal: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "requests.csv.new"
    theirs.write_text("theirs")
    assert main(["journal", "export", str(journal), "--csv", str(tmp_path / "requests.csv")]) == 0
    assert theirs.read_text() == "theirs"
    assert {path.name for path in tmp_path.iterdir()} == {"requests.csv", "requests.csv.new", "journal"}


@pytest.mark.lengthy
@pytest.mark.parametrize("folder_is_ours", [True, False])
def test_an_export_goes_into_a_file_that_is_mounted(
    journal: Path, rows: list[Row], tmp_path: Path, *, folder_is_ours: bool
) -> None:
    """As containers mount one; no other may be made beside it where its folder is mounted to be read alone."""
    if not may_mount(tmp_path):
        pytest.skip("mount namespaces are not to be had here")
    source, folder = tmp_path / "source", tmp_path / "folder"
    file = folder / "requests.csv"
    folder.mkdir()
    source.touch()
    file.touch()
    mounts = [f"mount --bind {source} {file}"]
    if not folder_is_ours:
        mounts = [f"mount --bind {folder} {folder}", f"mount -o remount,bind,ro {folder}", *mounts]
    export = f"{sys.executable} -m tidegate.cli.main journal export {journal} --csv {file}"
    subprocess.run(["unshare", "-rm", "sh", "-c", " && ".join([*mounts, export])], check=True)
    assert len(source.read_text().splitlines()) == 1 + len(rows)
    assert list(folder.iterdir()) == [file]


def test_without_the_extra_it_says_what_to_install(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["journal", "export", str(journal), "--parquet", str(tmp_path / "x")]) == 1
    assert "pip install 'tidegate[parquet]'" in capsys.readouterr().err


def test_every_column_stands_in_the_reference() -> None:
    page = PAGE.read_text()
    for column in COLUMNS:
        assert f"| `{column.name}` | {column.means} |" in page


def test_the_newest_requests_are_printed(journal: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    _, *lines = said(capsys, "tail", "-n", "3", journal)
    assert [line.split()[1] for line in lines] == [row.id for row in rows[-3:]]


def test_what_ended_with_its_process_is_among_the_newest_and_what_is_under_way_is_not(
    journal: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    lines, fold = stage.lines[: busy(stage)], Rows()
    segment.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    ended = [row for line in lines for row in fold.feed(line)]
    for count, under_way in ((10_000, []), (3, []), (10_000, fold.rest())):
        with segment.open("rb") as gateway:
            if not under_way:
                fcntl.flock(gateway, fcntl.LOCK_EX)
            told = said(capsys, "tail", "-n", str(count), "--json", journal)
        assert [msgspec.json.decode(line, type=Row) for line in told] == [*ended, *under_way][-count:]
    assert any(row.outcome == "unknown" for row in under_way)


def head(stage: Stage, *, follows: bool) -> Line:
    """What a segment begins with: the first one of a run, or one that follows another."""
    begun = stage.lines[0]
    assert isinstance(begun.fact, Segment)
    return replace(begun, at_s=stage.lines[-1].at_s, fact=replace(begun.fact, follows=follows))


def test_the_newest_requests_are_those_before_a_restart_where_none_has_come_since(
    journal: Path, stage: Stage, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    again = SegmentName.first(stage.lines[-1].at_s + 60.0)
    (journal / str(again)).write_bytes(msgspec.json.Encoder().encode_lines([head(stage, follows=False)]))
    assert [line.split()[1] for line in said(capsys, "tail", "-n", "3", journal)[1:]] == [row.id for row in rows[-3:]]
    facts = said(capsys, "tail", "-n", "2", "--kind", "ended", journal)
    ends = [line for line in stage.lines if line.fact.__struct_config__.tag == "ended"]
    assert [msgspec.json.decode(line, type=Line) for line in facts] == ends[-2:]


def reloaded(journal: Path, stage: Stage, count: int) -> None:
    """As often, with nothing asked between."""
    (segment,) = journal.iterdir()
    name = SegmentName.parse(segment.name)
    for _ in range(count):
        assert name is not None
        name = name.next()
        (journal / str(name)).write_bytes(msgspec.json.Encoder().encode_lines([head(stage, follows=True)]))


def test_the_newest_requests_are_found_however_many_reloads_ago_they_came(
    journal: Path, stage: Stage, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    reloaded(journal, stage, 9)
    assert [line.split()[1] for line in said(capsys, "tail", "-n", "3", journal)[1:]] == [row.id for row in rows[-3:]]


def of_another_format(journal: Path, stage: Stage, at_s: float) -> Path:
    """A segment that only other software reads, of a run that began then."""
    path = journal / str(SegmentName.first(at_s))
    begun = head(stage, follows=False)
    assert isinstance(begun.fact, Segment)
    path.write_bytes(msgspec.json.encode(replace(begun, fact=replace(begun.fact, version=JOURNAL_VERSION - 1))) + b"\n")
    return path


def test_after_an_upgrade_the_newest_requests_are_those_since(
    stage: Stage, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = of_another_format(tmp_path, stage, 0.0)
    (tmp_path / str(SegmentName.first(60.0))).write_bytes(msgspec.json.Encoder().encode_lines(stage.lines))
    ended = [row.id for row in rows]
    for count, told in ((3, ""), (10_000, f"tidegate journal: what is older is not shown: {old}:1: journal format")):
        assert main(["journal", "tail", "-n", str(count), str(tmp_path)]) == 0
        printed = capsys.readouterr()
        assert [line.split()[1] for line in printed.out.splitlines()[1:]] == ended[-count:]
        assert printed.err.startswith(told) if told else not printed.err


def test_requests_since_an_upgrade_are_found_however_many_restarts_ago_they_came(
    stage: Stage, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        of_another_format(tmp_path, stage, float(number))
    (tmp_path / str(SegmentName.first(60.0))).write_bytes(msgspec.json.Encoder().encode_lines(stage.lines))
    again = msgspec.json.Encoder().encode_lines([head(stage, follows=False)])
    for number in range(2):
        (tmp_path / str(SegmentName.first(70.0 + number))).write_bytes(again)
    assert [line.split()[1] for line in said(capsys, "tail", "-n", "10000", tmp_path)[1:]] == [row.id for row in rows]


@pytest.mark.parametrize("harm", ["damaged", "unopened"])
def test_an_older_segment_that_cannot_be_read_hides_no_newer_request(
    journal: Path, stage: Stage, harm: str, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    name = SegmentName.first(-60.0)
    before = journal / f"{name}.zst"
    if harm == "damaged":
        assert pack(segment)
        (packed,) = journal.iterdir()
        before.write_bytes(packed.read_bytes()[:-9])
    else:
        before.symlink_to(before)
    assert main(["journal", "tail", "-n", "10000", str(journal)]) == 0
    told = capsys.readouterr()
    assert [line.split()[1] for line in told.out.splitlines()[1:]] == [row.id for row in rows]
    assert str(before) in told.err


def test_nobody_looks_for_them_in_all_of_a_large_journal(
    journal: Path, stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reloaded(journal, stage, 9)
    monkeypatch.setattr(following_module, "LINES_MAX", 4)
    assert said(capsys, "tail", "-n", "3", "--json", journal) == []


def test_the_newest_of_runs_that_overlap_are_told_by_time(
    journal: Path, stage: Stage, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = journal.iterdir()
    soon_over = msgspec.json.Encoder().encode_lines(stage.lines[:80])
    (journal / str(SegmentName.first(1.0))).write_bytes(soon_over)
    ended = [row.id for row in rows if row.outcome != "unknown"]
    with segment.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert [line.split()[1] for line in said(capsys, "tail", "-n", "3", journal)[1:]] == ended[-3:]


def test_of_none_of_the_newest_none_is_printed(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "tail", "-n", "0", "--json", journal) == []


def test_a_journal_is_followed_from_segment_to_segment_also_where_they_are_packed(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path, segment_bytes=3000)
        following = Following(tmp_path)
        found: list[object] = []
        for number in range(200):
            journal.append(make.fact(number), 1.0)
            await written(journal)
            if number % 7 == 0:
                found += [line.fact for _, line in following.lines()]
            if number % 50 == 0:
                for path in segments(tmp_path):
                    pack(path)
        await journal.close()
        found += [line.fact for _, line in following.lines()]
        following.close()
        facts = [fact for fact in found if fact in [make.fact(number) for number in range(200)]]
        assert facts == [make.fact(number) for number in range(200)]

    asyncio.run(run())


def test_a_run_that_goes_on_in_another_segment_has_not_ended_and_one_that_does_not_has_once(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        ours = run_of(journal.path)
        with closing(Following(tmp_path)) as following:
            assert (len(list(following.lines())), following.ended()) == (1, [])
            journal.turn(lambda: None)
            # Until the thread lets go of the one before, that may still be locked.
            while len(found := [*following.lines(), *following.lines()]) == 0:
                await written(journal)
            assert (len(found), following.ended()) == (1, [])
            await journal.close()
            assert (list(following.lines()), following.ended()) == ([], [ours])
            assert (list(following.lines()), following.ended()) == ([], [])

    asyncio.run(run())


def test_a_segment_that_is_empty_yet_is_read_once_it_has_begun(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        following, path = Following(tmp_path), journal.path
        await journal.close()
        written_, empty = path.read_bytes(), path.rename(tmp_path.parent / path.name)
        assert list(Following(tmp_path).lines()) == []
        with closing(following):
            path.touch()
            assert list(following.lines()) == []
            path.write_bytes(written_)
            assert len(list(following.lines())) == 1
        empty.unlink()

    asyncio.run(run())


def test_a_segment_that_is_begun_while_it_is_looked_at_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / str(SegmentName.first(1.0))
    lines: list[Fact] = [make.segment(), make.fact(1), make.fact(2)]
    path.touch()  # its writer has made it, and not locked it yet
    with path.open("ab", buffering=0) as writer, closing(Following(tmp_path)) as following:

        def write(fact: Fact) -> None:
            writer.write(msgspec.json.encode(Line(at_s=1.0, fact=fact)) + b"\n")

        def opened(segment: Path) -> BinaryIO:
            fcntl.flock(writer, fcntl.LOCK_EX)
            write(lines[0])
            return open_segment(segment)

        monkeypatch.setattr(following_module, "open_segment", opened)
        assert len(list(following.lines())) == 1
        for fact in lines[1:]:
            write(fact)
            assert [line.fact for _, line in following.lines()] == [fact]
        assert following.ended() == []


def test_a_segment_that_is_not_begun_yet_is_followed_also_where_another_run_is_newer(tmp_path: Path) -> None:
    path = tmp_path / str(SegmentName.first(1.0).next())
    header = msgspec.json.encode(Line(at_s=1.0, fact=make.segment())) + b"\n"
    for left in (tmp_path / str(SegmentName.first(1.0)), tmp_path / str(SegmentName.first(2.0))):
        left.write_bytes(header)
    path.touch()
    with closing(Following(tmp_path)) as following, path.open("ab", buffering=0) as writer:
        list(following.lines())
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(header)
        assert [run for run, _ in following.lines()] == [run_of(path)]


def test_a_packed_segment_that_is_damaged_is_told_of_by_its_name(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        following, path = Following(tmp_path), journal.path
        await journal.close()
        assert pack(path)
        packed = path.with_name(path.name + ".zst")
        packed.write_bytes(packed.read_bytes()[:-9])
        with pytest.raises(JournalError, match=rf"^{packed}:\d+: the segment is damaged"):
            list(following.lines())
        following.close()

    asyncio.run(run())


def test_a_segment_of_another_format_is_not_followed_as_if_it_were_of_this_one(journal: Path) -> None:
    (path,) = journal.iterdir()
    head, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(head.replace(b'"version":%d' % JOURNAL_VERSION, b'"version":99') + b"\n" + rest)
    with (
        closing(Following(journal)) as following,
        pytest.raises(JournalError, match=rf"^{path}:1: journal format 99, .* read it with the software"),
    ):
        list(following.lines())
    path.write_bytes(rest)
    with (
        closing(Following(journal)) as following,
        pytest.raises(JournalError, match=rf"^{path}:1: a segment begins with a segment line"),
    ):
        list(following.lines())


@pytest.mark.parametrize("broken", [b"{}", b'{"at_s":1.0,"fact":{"type":"\xff"}}', b"[" * 100_000])
def test_what_is_no_line_is_told_of_by_its_number_wherever_it_is_read_on(journal: Path, broken: bytes) -> None:
    (path,) = journal.iterdir()
    with closing(Following(journal)) as following, path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # its gateway is there
        count = len(list(following.lines()))
        file.write(broken + b"\n")
        file.flush()
        with pytest.raises(JournalError, match=rf"^{path}:{count + 1}: "):
            list(following.lines())


def test_a_line_that_is_being_written_is_followed_once_it_is_whole(tmp_path: Path) -> None:
    async def run() -> None:
        journal = make.journal(tmp_path)
        following = Following(tmp_path)
        assert len(list(following.lines())) == 1
        line = msgspec.json.encode(Line(at_s=1.0, fact=make.fact(1))) + b"\n"
        with journal.path.open("ab", buffering=0) as writer:
            writer.write(line[:20])
            assert list(following.lines()) == []
            writer.write(line[20:])
        assert [one.fact for _, one in following.lines()] == [make.fact(1)]
        following.close()
        await journal.close()

    asyncio.run(run())


def test_followed_requests_are_printed_as_they_end(tmp_path: Path, stage: Stage, rows: list[Row]) -> None:
    encode, half = msgspec.json.Encoder().encode_lines, len(stage.lines) // 2
    fold = Rows()
    before = [row for line in stage.lines[:half] for row in fold.feed(line)]
    after = [row for line in stage.lines[half:] for row in fold.feed(line)]
    command = (sys.executable, "-m", "tidegate.cli.main", "journal", "tail", "-f", "-n", "1000", "--json", tmp_path)
    with (tmp_path / str(SegmentName.first(0.0))).open("wb", buffering=0) as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(encode(stage.lines[:half]))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert [msgspec.json.decode(process.stdout.readline(), type=Row) for _ in before] == before
                writer.write(encode(stage.lines[half:]))
                assert [msgspec.json.decode(process.stdout.readline(), type=Row) for _ in after] == after
            finally:
                process.kill()


@pytest.mark.lengthy
def test_what_ends_with_its_process_is_printed_though_nothing_comes_after_it(tmp_path: Path, stage: Stage) -> None:
    lines, fold = stage.lines[: busy(stage)], Rows()
    before = [row for line in lines for row in fold.feed(line)]
    lost = fold.rest()
    command = (sys.executable, "-m", "tidegate.cli.main", "journal", "tail", "-f", "-n", "1000", "--json", tmp_path)
    with (tmp_path / str(SegmentName.first(0.0))).open("wb", buffering=0) as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(msgspec.json.Encoder().encode_lines(lines))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert [msgspec.json.decode(process.stdout.readline(), type=Row) for _ in before] == before
                writer.close()
                assert [msgspec.json.decode(process.stdout.readline(), type=Row) for _ in lost] == lost
            finally:
                process.kill()
    assert lost
