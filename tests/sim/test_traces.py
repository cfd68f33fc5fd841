"""Public traces, as they are and as they are not."""

import gzip
import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.clients import ask, data, played, prefix_hit_ratio
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.recorded import TraceFormat, recorded
from tidegate.sim.traces import BadTrace, azure, kvct, mooncake

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
COLUMNS = "trace_id,agent,depth,in_tokens,out_tokens,prefix_prev_tokens,think_time"


def written(folder: Path, text: str, *, zipped: bool = False) -> Path:
    path = folder / "trace"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


def row(at_ms: float, tokens: int, *ids: int, output: int = 10) -> str:
    return json.dumps({"timestamp": at_ms, "input_length": tokens, "output_length": output, "hash_ids": ids}) + "\n"


def asked(tokens: int, ids: list[object], think_s: float = 0.0, output: int = 5) -> dict[str, object]:
    return {"t": 0.0, "in": tokens, "out": output, "hash_ids": ids, "think_time": think_s}


def session(*requests: dict[str, object]) -> str:
    return json.dumps({"id": "trace_1", "block_size": 64, "requests": requests}) + "\n"


def jobs(path: Path, format: TraceFormat, **settings: object) -> list[Job]:
    return list(recorded(path, format, ask(), Chance(1), **settings).arrivals())  # type: ignore[arg-type]


# --- azure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_azures_times_count_from_the_first_across_midnight_month_and_leap_day(
    tmp_path: Path, zipped: bool, end: str
) -> None:
    times = [
        "2024-02-28 23:59:59.5000001",
        "2024-02-29 00:00:00",
        "2024-03-01 00:00:00.009930+00:00",
        "2025-01-01 00:00:00",
    ]
    text = end.join([HEADER, *(f"{time},100,{n}" for n, time in enumerate(times)), ""])
    found = list(azure(written(tmp_path, text, zipped=zipped)))
    assert [seen.at_s for seen in found] == pytest.approx(
        [0.0, 0.4999999, 86_400.5099299, 307 * 86_400 + 0.4999999], abs=1e-6
    )
    assert [(seen.prompt_tokens, seen.output_tokens) for seen in found] == [(100, 0), (100, 1), (100, 2), (100, 3)]


@pytest.mark.parametrize(
    ("lines", "line", "expected"),
    [
        (["time,in,out"], 1, HEADER),
        ([HEADER, "2023-11-16 18:17:03.97,4808"], 2, "three cells"),
        ([HEADER, "16.11.2023 18:17,4808,10"], 2, "TIMESTAMP as 2023"),
        ([HEADER, "2023-13-16 18:17:03,4808,10"], 2, "TIMESTAMP as 2023"),
        ([HEADER, "2023-11-16 18:17:03,4808,10", "2023-11-16 18:17:02,1,1"], 3, "not before the last"),
        ([HEADER, "2023-11-16 18:17:03,many,10"], 2, "ContextTokens as a whole number"),
        ([HEADER, "2023-11-16 18:17:03,4808,-1"], 2, "GeneratedTokens as a whole number"),
        ([HEADER, "2023-11-16 18:17:03,4808,1234567890"], 2, "GeneratedTokens as a whole number"),
    ],
)
def test_a_fault_in_azures_trace_is_named_by_file_line_and_what_belongs_there(
    tmp_path: Path, lines: list[str], line: int, expected: str
) -> None:
    path = written(tmp_path, "\n".join(lines))
    with pytest.raises(BadTrace) as raised:
        list(azure(path))
    assert str(raised.value).startswith(f"{path}:{line}: expected ")
    assert expected in str(raised.value)


def test_prompts_of_a_trace_without_blocks_have_nothing_in_common(tmp_path: Path) -> None:
    lines = [HEADER, *(f"2023-11-16 18:17:0{n},2000,5" for n in range(5))]
    found = jobs(written(tmp_path, "\n".join(lines)), "azure")
    assert [len(job.blocks) for job in found] == [3] * 5
    assert prefix_hit_ratio(found) == 0.0


# --- mooncake -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40).map(sorted), st.integers(0, 99))
def test_rows_of_a_tick_are_spread_over_it_in_the_order_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[int], seed: int
) -> None:
    text = "".join(row(tick * 3000, 600, 0, n + 1) for n, tick in enumerate(ticks))
    found = list(mooncake(written(tmp_path_factory.mktemp("ticks"), text), Random(seed), 0))
    assert [seen.blocks for seen in found] == [(0, n + 1) for n in range(len(ticks))]
    assert all(early.at_s <= late.at_s for early, late in pairwise(found))
    for seen, tick in zip(found, ticks, strict=True):
        assert 0.0 <= seen.at_s - (tick - ticks[0]) * 3.0 < 3.0


def test_times_finer_than_ticks_stay_where_they_are(tmp_path: Path) -> None:
    text = "".join(row(n, 100, n) for n in range(50))
    for n, seen in enumerate(list(mooncake(written(tmp_path, text), Random(1), 0))[:-1]):
        assert 0.0 <= seen.at_s - n / 1000 <= 0.001


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("{", "a JSON object with timestamp, input_length"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}', "hash_ids"),
        (row(-5, 100, 1), "a timestamp in ms"),
        (row(0, 512, 1, 2), "one id in hash_ids for each 512 tokens"),
        (row(0, 512, -1), "hash_ids from 0"),
        (row(0, 10**9, 1), "input_length as a whole number"),
        (row(0, 100, 1, output=-1), "output_length as a whole number"),
    ],
)
def test_a_fault_in_mooncakes_trace_is_named_by_file_line_and_what_belongs_there(
    tmp_path: Path, bad: str, expected: str
) -> None:
    path = written(tmp_path, row(0, 100, 1) + "\n" + bad)
    with pytest.raises(BadTrace) as raised:
        list(mooncake(path, Random(1), 0))
    assert str(raised.value).startswith(f"{path}:3: expected ")
    assert expected in str(raised.value)


def test_a_row_before_the_last_one_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r":2: expected a timestamp in ms that is not before"):
        list(mooncake(written(tmp_path, row(3000, 100, 1) + row(0, 100, 1)), Random(1), 0))


def test_reuse_counts_leading_blocks_and_no_more_than_there_are_tokens(tmp_path: Path) -> None:
    # 1024 + 600 + 1100 tokens; the second repeats all of its 600, the third its first block alone.
    text = row(0, 1024, 1, 2) + row(0, 600, 1, 2) + row(0, 1100, 1, 9, 2)
    found = jobs(written(tmp_path, text), "mooncake")
    assert prefix_hit_ratio(found) == pytest.approx((600 + 512) / (1024 + 600 + 1100))
    assert prefix_hit_ratio([]) == 0.0


@pytest.mark.parametrize("seed", [1, 2])
def test_reuse_of_mooncakes_conversations_is_known_exactly(seed: int) -> None:
    path = data("requests") / "mooncake_conversation_trace.jsonl.gz"
    found = list(recorded(path, "mooncake", ask(), Chance(seed)).arrivals())
    assert len(found) == 7218
    assert round(prefix_hit_ratio(found), 7) == 0.3551625


# --- kv-cache-tester ----------------------------------------------------------------------------------------------


def test_ids_and_runs_of_ids_are_the_same(tmp_path: Path) -> None:
    ids, runs = session(asked(330, [7, 8, 9, 4])), session(asked(330, [[7, 3], 4]))
    one = list(kvct(written(tmp_path, ids), 0))
    assert one == list(kvct(written(tmp_path, runs), 0))
    ((turn,),) = one
    assert [count for _, count in turn.runs] == [3, 1]


def test_a_recorded_session_is_asked_at_the_pace_of_its_answers(tmp_path: Path) -> None:
    text = session(asked(1100, [[1, 16]]), asked(1700, [[1, 26]], think_s=12.0), asked(2048, [[1, 20], [99, 12]], 2.0))
    traffic = recorded(written(tmp_path, text), "kvct", ask(), Chance(1), users=1, speed=2.0)
    (first,) = traffic.arrivals()
    second = traffic.follows(first, 100.0, served=True)
    assert second is not None
    third = traffic.follows(second, 200.0, served=False)
    assert third is not None
    assert (second.request.arrived_s, third.request.arrived_s) == (106.0, 201.0)
    assert [(job.session, job.turn, job.prompt_tokens) for job in (first, second, third)] == [
        ("trace-0", 0, 1100),
        ("trace-0", 1, 1700),
        ("trace-0", 2, 2048),
    ]
    assert [len(job.blocks) for job in (first, second, third)] == [2, 3, 4]
    assert second.blocks[:2] == first.blocks
    # The third has 20 blocks of 64 tokens as before, so two whole ones of 512.
    assert (third.blocks[:2], third.blocks[2] != second.blocks[2]) == (second.blocks[:2], True)
    assert traffic.follows(third, 300.0, served=True) is None


def test_a_sub_agent_is_a_session_of_its_own(tmp_path: Path) -> None:
    text = session(
        asked(640, [[1, 10]]), {"t": 1.0, "requests": [asked(64, [50]), asked(128, [50, 51])]}, asked(650, [])
    )
    found = list(kvct(written(tmp_path, text), 0))
    assert [[turn.prompt_tokens for turn in turns] for turns in found] == [[640, 650], [64, 128]]


def test_each_user_takes_the_next_session_until_there_is_none(tmp_path: Path) -> None:
    text = "".join(session(asked(100 + n, [n]), asked(200 + n, [n])) for n in range(5))
    traffic = recorded(written(tmp_path, text), "kvct", ask(), Chance(1), users=2)
    assert len(list(traffic.arrivals())) == 2
    found = played(traffic, 100)
    assert sorted(job.request.id for job in found) == sorted(f"trace-{n}.{turn}" for n in range(5) for turn in (0, 1))
    assert len({job.request.session for job in found}) == 5
    limited = recorded(written(tmp_path, text), "kvct", ask(), Chance(1), users=2, rows_max=5)
    assert len(played(limited, 100)) == 5


def test_the_table_has_the_blocks_that_it_says_were_kept(tmp_path: Path) -> None:
    lines = [
        COLUMNS,
        "a,main,0,1024,5,0,0",
        "a,sub,1,640,5,0,",
        "a,main,0,2048,5,1024,3.5",
        "a,main,0,2048,5,512,1",
        "b,main,0,1024,5,0,0",
    ]
    found = list(kvct(written(tmp_path, "\n".join(lines)), 0))
    assert [[turn.prompt_tokens for turn in turns] for turns in found] == [[1024, 2048, 2048], [640], [1024]]
    assert [turn.think_s for turn in found[0]] == [0.0, 3.5, 1.0]

    def blocks(session: int, turn: int) -> list[int]:
        return [first + i for first, count in found[session][turn].runs for i in range(count)]

    one, two, three = (blocks(0, turn) for turn in range(3))
    assert (len(one), len(two), len(three)) == (16, 32, 32)
    assert two[:16] == one
    assert three[:8] == two[:8]
    assert not set(three[8:]) & set(two)
    assert not (set(blocks(1, 0)) | set(blocks(2, 0))) & (set(one) | set(two) | set(three))


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (session(asked(64, [1])) + "{", 2, "a JSON object with requests"),
        (session({"out": 5}), 1, "`in`, the prompt's tokens"),
        (session(asked(64, [1, 2])), 1, "one id in hash_ids for each whole 64 tokens"),
        (session(asked(64, [[1, 0]])), 1, "hash_ids from 0"),
        (session(asked(64, [-1])), 1, "hash_ids from 0"),
        (session(asked(64, [1], think_s=-1.0)), 1, "think_time in seconds"),
        (session(asked(64, [1], output=-1)), 1, "out as a whole number"),
        ('{"requests": [], "block_size": 16}', 1, "a block_size of 64"),
        ("trace_id,agent\n", 1, "a header with the columns trace_id, agent, in_tokens"),
        (f"{COLUMNS}\na,main,0,1\n", 2, "7 cells, found 4"),
        (f"{COLUMNS}\na,main,0,x,5,0,0\n", 2, "in_tokens as a whole number"),
        (f"{COLUMNS}\na,main,0,1,5,0,soon\n", 2, "think_time in seconds"),
        (f"{COLUMNS}\na,main,0,1,5,0,nan\n", 2, "think_time in seconds"),
    ],
)
def test_a_fault_in_sessions_is_named_by_file_line_and_what_belongs_there(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadTrace) as raised:
        list(kvct(path, 0))
    assert str(raised.value).startswith(f"{path}:{line}: expected ")
    assert expected in str(raised.value)


@pytest.mark.slow
def test_both_forms_of_the_public_sessions_are_read_whole_and_are_reused_alike() -> None:
    found = []
    for name in ("kvct_agentic_traces_rle.jsonl.gz", "kvct_agentic_requests.csv.gz"):
        traffic = recorded(data("requests") / name, "kvct", ask(), Chance(1), users=16)
        found.append(played(traffic, 60_000))
    assert [len(jobs) for jobs in found] == [49_334, 49_334]
    # 0.963 were published, with the last six requests; blocks taken eight at a time lose 0.002 of it.
    assert [prefix_hit_ratio(jobs) for jobs in found] == pytest.approx([0.961, 0.961], abs=0.001)


# --- all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["azure", "mooncake", "kvct"])
def test_a_file_that_cannot_be_read_is_named_with_a_remedy(tmp_path: Path, format: TraceFormat) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadTrace, match=r"cannot be read .*; name a trace file") as raised:
            jobs(path, format)
        assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("format", ["azure", "mooncake", "kvct"])
def test_an_empty_file_is_no_trace_and_blank_lines_are_nothing(tmp_path: Path, format: TraceFormat) -> None:
    with pytest.raises(BadTrace, match=r":1: expected the first line of a trace"):
        jobs(written(tmp_path, "\n\n"), format)
    whole = {
        "azure": [HEADER, "2023-11-16 18:17:03,2000,5", "2023-11-16 18:17:04,2000,5"],
        "mooncake": [row(0, 100, 1), row(3000, 100, 2)],
        "kvct": [COLUMNS, "a,main,0,100,5,0,0", "b,main,0,100,5,0,0"],
    }[format]
    found = jobs(written(tmp_path, "\n\n" + "\n\n".join(whole)), format)
    assert found == jobs(written(tmp_path, "\n".join(whole)), format)
    assert len(found) == 2


@pytest.mark.parametrize("cut", [-20, 40])
def test_an_archive_that_is_cut_is_no_shorter_trace(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.gz"
    text = "".join(row(n * 3000, 100, n) for n in range(1000))
    path.write_bytes(gzip.compress(text.encode())[:cut])
    with pytest.raises(BadTrace, match=r"cut\.gz:\d+: expected more of a gzip archive"):
        jobs(path, "mooncake")


def test_a_trace_can_be_sped_up_cut_and_begun_later(tmp_path: Path) -> None:
    lines = [HEADER, *(f"2023-11-16 18:17:0{n},2000,5" for n in range(5))]
    path = written(tmp_path, "\n".join(lines))
    found = jobs(path, "azure", speed=4.0, rows_max=3, begins_s=100.0)
    assert [job.request.arrived_s for job in found] == [100.0, 100.25, 100.5]
    assert jobs(path, "azure", rows_max=0) == []
