"""Reading what a journal, or an accident, left behind."""

from errno import EACCES, EIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make as core
from tests.telemetry import make
from tidegate.core.model import JOURNAL_VERSION, Line
from tidegate.telemetry.reading import JournalError, asked_in, read, unopened
from tidegate.telemetry.segments import SegmentName, segments

HEAD = msgspec.json.encode(Line(at_s=0.0, fact=make.segment())) + b"\n"
FACTS = [msgspec.json.encode(Line(at_s=float(n), fact=make.fact(n))) + b"\n" for n in range(5)]
NAME = "journal-20261124T170000000Z-1-000000.jsonl"


def left(folder: Path, content: bytes, name: str = NAME) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def test_who_may_not_read_a_journal_is_told_who_may() -> None:
    error = unopened(Path("journal"), PermissionError(EACCES, "Permission denied"))
    assert str(error) == "journal: Permission denied; do this as the gateway's user, or let this user read it"
    assert str(unopened(Path("journal"), OSError(EIO, "Input/output error"))) == "journal: Input/output error"


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    whole = HEAD + b"".join(FACTS)
    for end in range(len(HEAD), len(whole) + 1):
        found = make.facts(left(tmp_path, whole[:end]))
        assert found == [make.fact(n) for n in range(whole[:end].count(b"\n") - 1)]


def test_a_file_without_a_whole_line_is_empty(tmp_path: Path) -> None:
    assert make.lines(left(tmp_path, b"")) == []
    assert make.lines(left(tmp_path, HEAD[:-1])) == []


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path: Path) -> None:
    assert make.facts(left(tmp_path, HEAD + FACTS[0] + FACTS[1][:20] + bytes(4096))) == [make.fact(0)]


@pytest.mark.parametrize(
    "broken", [b"{\n", b"\0\0\n", b"\n", b"null\n", b'{"at_s":1}\n', b"\xff\n", b"[" * 5000 + b"\n"]
)
def test_a_broken_line_in_the_middle_is_named_by_file_and_number(tmp_path: Path, broken: bytes) -> None:
    file = left(tmp_path, HEAD + FACTS[0] + broken + FACTS[1])
    with pytest.raises(JournalError, match=f"^{file}:3: "):
        list(read(file))


def test_another_format_is_refused_with_the_software_that_reads_it(tmp_path: Path) -> None:
    later = b'{"at_s":"soon","fact":{"type":"segment","version":7,"software":"tidegate 9.9","new":[]}}\n'
    with pytest.raises(JournalError, match=rf":1: journal format 7, this is {JOURNAL_VERSION}: .*tidegate 9\.9"):
        list(read(left(tmp_path, later)))


@pytest.mark.parametrize("first", [FACTS[0], b"hello\n", b"{}\n"])
def test_a_file_that_does_not_begin_with_a_segment_is_none(tmp_path: Path, first: bytes) -> None:
    with pytest.raises(JournalError, match=":1: a segment begins with a segment line"):
        list(read(left(tmp_path, first)))


def test_a_journal_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"no such file or folder; name it \(--journal, .* relative to its config"):
        list(read(tmp_path / "none"))
    with pytest.raises(JournalError, match="no journal here"):
        list(read(tmp_path))


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    left(tmp_path, HEAD + FACTS[0])
    left(tmp_path, b"mine", "notes.jsonl")
    left(tmp_path, b"mine", "journal-old.jsonl")
    assert make.facts(tmp_path) == [make.fact(0)]


def test_a_segment_removed_while_the_folder_is_read_is_passed_over(tmp_path: Path) -> None:
    left(tmp_path, HEAD + FACTS[0])
    second = left(tmp_path, HEAD + FACTS[1], NAME.replace("000000.", "000001."))
    left(tmp_path, HEAD + FACTS[2], NAME.replace("000000.", "000002."))
    lines = read(tmp_path)
    next(lines)
    second.unlink()
    assert [line.fact for line in lines if line.fact in (make.fact(0), make.fact(1), make.fact(2))] == [
        make.fact(0),
        make.fact(2),
    ]


def test_segments_in_which_nobody_asked_for_anything_are_passed_over(tmp_path: Path) -> None:
    request = msgspec.json.encode(Line(at_s=1.0, fact=core.request())) + b"\n"
    asked = left(tmp_path, HEAD + FACTS[0] + request)
    idle = left(tmp_path, HEAD + FACTS[0], NAME.replace("-1-", "-2-"))
    assert asked_in([asked, idle]) == [asked]
    assert asked_in([idle]) == [idle]


def test_segments_of_runs_that_overlap_do_not_interleave(tmp_path: Path) -> None:
    early, late = "20261124T170000000Z", "20261124T170000001Z"
    wanted = [
        f"journal-{early}-99-000000.jsonl",
        f"journal-{early}-99-000001.jsonl",
        f"journal-{early}-100-000000.jsonl",
        f"journal-{late}-7-999999.jsonl",
        f"journal-{late}-7-1000000.jsonl",
    ]
    for name in reversed(wanted):
        left(tmp_path, HEAD, name)
    assert [path.name for path in segments(tmp_path)] == wanted


@given(
    at_s=st.floats(min_value=0, max_value=4e9),
    counter=st.integers(min_value=0, max_value=10**7),
)
def test_a_name_is_read_as_it_is_written(at_s: float, counter: int) -> None:
    name = msgspec.structs.replace(SegmentName.first(at_s), counter=counter)
    assert SegmentName.parse(str(name)) == name
