"""Logs of other gateways are read as they are written, and what cannot be used is counted by reason."""

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.foreign_days import Record
from tidegate.core.model import Capability
from tidegate.sim import foreign, lines
from tidegate.sim.foreign import BadLog, Served, Unused, read

NOBODY = 65534

# As LiteLLM's own tests have them, with other values.
PAYLOAD: Record = {
    "id": "chatcmpl-7c1e",
    "litellm_call_id": "5a0b",
    "trace_id": "b2f0",
    "call_type": "acompletion",
    "cache_hit": False,
    "stream": True,
    "status": "success",
    "startTime": 1768809251.75,
    "endTime": 1768809253.0,
    "completionStartTime": 1768809252.0,
    "response_cost": 0.000204,
    "prompt_tokens": 1000,
    "completion_tokens": 90,
    "model": "gpt-4o-mini",
    "model_group": "support-chat",
    "api_base": "https://api.openai.com/v1",
    "metadata": {
        "user_api_key_hash": "88dc28d0f030c55e",
        "user_api_key_alias": "support",
        "usage_object": {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 512}},
        "requester_custom_headers": {"X-Tidegate-Class": "batch"},
    },
    "messages": [{"role": "user", "content": "Where is my order?"}],
    "response": {"choices": [], "usage": {"prompt_tokens": 1000}},
    "model_parameters": {"max_tokens": 256, "temperature": 0.2},
    "error_information": {"error_code": ""},
}
ROW: Record = {
    "request_id": "5a0b",
    "call_type": "acompletion",
    "api_key": "88dc28d0f030c55e",
    "spend": 0.000204,
    "prompt_tokens": 1000,
    "completion_tokens": 90,
    "startTime": "2026-01-19T07:54:11.750Z",
    "endTime": "2026-01-19 07:54:13.000",
    "completionStartTime": "2026-01-19T08:54:12+01:00",
    "model": "gpt-4o-mini",
    "model_group": "support-chat",
    "api_base": "https://api.openai.com/v1",
    "metadata": json.dumps(
        {
            "user_api_key_alias": "support",
            "additional_usage_values": {"prompt_tokens_details": {"cached_tokens": 512}},
            "requester_custom_headers": {"X-Tidegate-Class": "batch"},
        }
    ),
    "cache_hit": "None",
    "messages": "{}",
    "proxy_server_request": json.dumps(
        {"stream": True, "max_tokens": 256, "messages": [{"role": "user", "content": "Where is my order?"}]}
    ),
    "session_id": "b2f0",
    "status": "success",
}
PAIR: Record = {
    "id": "5a0b",
    "time": 1768809251750,
    "latency_ms": 1250,
    "ttft_ms": 250,
    "status": 200,
    "cost_usd": "0.000204",
    "user": "support",
    "endpoint": "https://api.openai.com/v1",
    "request": {
        "model": "support-chat",
        "stream": True,
        "max_tokens": 256,
        "messages": [{"role": "user", "content": "Where is my order?"}],
    },
    "response": {
        "model": "gpt-4o-mini",
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 90,
            "prompt_tokens_details": {"cached_tokens": 512},
        },
    },
}


def told(tmp_path: Path, record: object) -> Served | Unused:
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(record) + "\n")
    (found,) = read(file)
    return found


@pytest.mark.parametrize("record", [PAYLOAD, ROW, PAIR], ids=["payload", "row", "pair"])
def test_the_same_request_is_the_same_in_every_log(tmp_path: Path, record: Record) -> None:
    found = told(tmp_path, record)
    assert isinstance(found, Served)
    assert (found.id, found.kind, found.ok, found.stream) == ("5a0b", Capability.CHAT, True, True)
    assert (found.arrived_s, found.e2e_s, found.ttft_s) == (1768809251.75, 1.25, 0.25)
    assert (found.prompt_tokens, found.output_tokens, found.cached_tokens) == (1000, 90, 512)
    assert (found.model, found.deployment, found.base) == ("support-chat", "gpt-4o-mini", "https://api.openai.com/v1")
    assert (found.usd, found.key) == (0.000204, "support")
    assert found.fields["messages"][0]["content"] == "Where is my order?"
    assert found.fields["max_tokens"] == 256
    if record is not PAIR:
        assert (found.trace, found.headers) == ("b2f0", {"x-tidegate-class": "batch"})


def test_what_litellm_itself_has_written_is_read() -> None:
    # By its callbacks, of four answers, a refusal and a failure of an engine of ours.
    found = [one for one in read(Path(__file__).parent / "litellm-1.110.2.jsonl") if isinstance(one, Served)]
    assert [(one.ok, one.rate_limited) for one in found] == [(True, False)] * 4 + [(False, True), (False, False)]
    assert [one.stream for one in found[:4]] == [True, False, True, False]
    assert [one.ttft_s is None for one in found] == [False, True, False, True, True, True]
    assert [one.prompt_tokens for one in found[:4]] == [138, 125, 138, 125]
    assert {one.output_tokens for one in found[:4]} == {12}
    assert all(one.usd is not None and one.usd > 2e-5 for one in found[:4])
    assert {(one.model, one.key, one.kind) for one in found} == {("gpt-4o-mini", "support", Capability.CHAT)}
    assert all(one.fields["messages"][0]["role"] == "user" for one in found)
    assert all("http://127.0.0.1:" in one.base for one in found)


def test_lines_an_array_one_object_archives_and_folders_are_logs(tmp_path: Path) -> None:
    one, other = PAYLOAD, PAYLOAD | {"litellm_call_id": "5a0c"}
    lines = "\n\n".join(json.dumps(record) for record in (one, other)) + "\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lines.jsonl").write_text(lines)
    (tmp_path / "a" / "array.json").write_text(json.dumps([one, other], indent=1))
    (tmp_path / "single").write_text(json.dumps(one, indent=2))
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / ".hidden").write_text("no log")
    counts = {path.name: len(list(read(path))) for path in (tmp_path / "a").iterdir()}
    assert counts == {"lines.jsonl": 2, "array.json": 2}
    assert len(list(read(tmp_path / "single"))) == 1
    found = list(read(tmp_path))
    assert [one.id for one in found if isinstance(one, Served)].count("5a0b") == 4
    assert len(found) == 7


def test_where_first_content_is_put_at_the_end_nobody_saw_it(tmp_path: Path) -> None:
    found = told(tmp_path, PAYLOAD | {"completionStartTime": PAYLOAD["endTime"]})
    assert isinstance(found, Served)
    assert found.ttft_s is None


def test_a_price_that_is_not_known_is_not_nothing(tmp_path: Path) -> None:
    found = told(tmp_path, PAYLOAD | {"response_cost": 0.0})
    assert isinstance(found, Served)
    assert found.usd is None


def test_a_prompt_that_was_cut_in_the_middle_is_none(tmp_path: Path) -> None:
    cut = "Where ... (litellm_truncated skipped 900 chars) ... order?"
    row = ROW | {"proxy_server_request": json.dumps({"messages": [{"role": "user", "content": cut}]})}
    found = told(tmp_path, row)
    assert isinstance(found, Served)
    assert found.fields == {}


def test_a_refusal_for_being_too_many_is_told_from_a_failure(tmp_path: Path) -> None:
    failed = PAYLOAD | {"status": "failure", "error_information": {"error_code": "429"}}
    for record in (failed, PAIR | {"status": 429, "response": None}):
        found = told(tmp_path, record)
        assert isinstance(found, Served)
        assert (found.ok, found.rate_limited) == (False, True)
    other = told(tmp_path, failed | {"error_information": {"error_code": 503}})
    assert isinstance(other, Served)
    assert (other.ok, other.rate_limited) == (False, False)


def test_what_a_batch_writes_is_one_deeper(tmp_path: Path) -> None:
    record = {
        "custom_id": "a-1",
        "created": 1768809251,
        "latency_s": 2.0,
        "request": json.dumps(PAIR["request"]),
        "response": {"status_code": 200, "request_id": "req_9", "body": PAIR["response"]},
        "error": None,
    }
    found = told(tmp_path, record)
    assert isinstance(found, Served)
    assert (found.id, found.ok, found.output_tokens, found.e2e_s) == ("a-1", True, 90, 2.0)


def test_rows_with_counts_alone_are_enough(tmp_path: Path) -> None:
    record = {
        "request_id": "r1",
        "request_created_at": "2026-01-19T07:54:11Z",
        "request_model": "gpt-4o-mini",
        "response_status": 200,
        "delay_ms": 1308,
        "time_to_first_token": 200,
        "prompt_tokens": "1000",
        "completion_tokens": 90.0,
        "prompt_cache_read_tokens": 512,
        "costUSD": 0.0002,
    }
    found = told(tmp_path, record)
    assert isinstance(found, Served)
    assert (found.model, found.prompt_tokens, found.output_tokens) == ("gpt-4o-mini", 1000, 90)
    assert (found.ttft_s, found.e2e_s, found.cached_tokens) == (0.2, 1.308, 512)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cache_hit": True}, Unused.CACHED),
        ({"cache_hit": "True"}, Unused.CACHED),
        ({"call_type": "aembedding"}, Unused.OTHER_KIND),
        ({"metadata": {"is_silent_experiment": True}}, Unused.INTERNAL),
        ({"metadata": {"internal_call_origin": "shadow_eval_judge"}}, Unused.INTERNAL),
        ({"startTime": None}, Unused.NO_TIMES),
        ({"startTime": "yesterday"}, Unused.NO_TIMES),
        ({"endTime": 1.0}, Unused.NO_TIMES),
        ({"startTime": 1000.0, "endTime": 1001.0}, Unused.NO_TIMES),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, change: Record, why: Unused) -> None:
    assert told(tmp_path, PAYLOAD | change) is why


def test_embeddings_are_no_chat(tmp_path: Path) -> None:
    record = PAIR | {"request": {"model": "e", "input": "text"}, "response": {"usage": {"prompt_tokens": 3}}}
    assert told(tmp_path, record) is Unused.OTHER_KIND


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "log.jsonl:1: expected the first line of a log; the file is empty"),
        ("no json\n", "log.jsonl:1: expected a JSON object on each line, or one array of them"),
        ("no json\nneither\n", "log.jsonl:1: expected a JSON object on each line, or one array of them"),
        ("[1]", "log.jsonl:1: expected a JSON object"),
        ('{"a": 1}\n', "log.jsonl:1: expected LiteLLM's record, or an object with `request`"),
        (json.dumps(PAYLOAD | {"metadata": "{'a': 1}"}), "`generic_api_use_v1` writes an older form"),
        (json.dumps({**PAIR, "latency": 3, "latency_ms": None}), "`latency_ms` or `latency_s` in place of `latency`"),
    ],
)
def test_what_is_no_log_says_file_line_and_what_belongs_there(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(text)
    with pytest.raises(BadLog) as error:
        list(read(file))
    assert said in str(error.value)


def test_of_a_log_what_is_no_record_is_one_of_many_and_counted(tmp_path: Path) -> None:
    one, file = json.dumps(PAYLOAD), tmp_path / "log.jsonl"
    lines = [one, '{"a": NaN}', "{", "null", one.replace("Where", "\\ud83d")]
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode() + b"\n")
    found = list(read(file))
    assert isinstance(found[0], Served)
    assert found[1:4] == [Unused.UNREADABLE] * 3
    file.write_text(f"[{one}, null, 7]")
    assert [one for one in read(file) if isinstance(one, Unused)] == [Unused.UNREADABLE] * 2


@pytest.mark.parametrize(
    "odd",
    [
        {"time": 1},
        PAYLOAD | {"metadata": "{'a': 1}"},
        {**PAIR, "latency": 3, "latency_ms": None},
    ],
    ids=["unknown", "older", "no unit"],
)
def test_of_a_log_a_record_of_no_known_form_is_counted_wherever_it_stands(tmp_path: Path, odd: Record) -> None:
    file = tmp_path / "log.jsonl"
    for records in ([odd, PAYLOAD], [PAYLOAD, odd]):
        for text in ("\n".join(json.dumps(one) for one in records), json.dumps(records)):
            file.write_text(text)
            found = list(read(file))
            assert found[records.index(odd)] is Unused.UNKNOWN
            assert isinstance(found[records.index(PAYLOAD)], Served)


def test_a_log_that_begins_in_the_middle_of_a_line_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f'pletion", "status": "success"}}\n{json.dumps(PAYLOAD)}\n')
    first, second = read(file)
    assert first is Unused.UNREADABLE
    assert isinstance(second, Served)


@pytest.mark.parametrize(
    "cut", ['pletion", "status": "success"}', '{"call_type": "acomp', ""], ids=["rest", "begin", "whole"]
)
def test_only_what_is_in_one_piece_may_be_too_large_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    monkeypatch.setattr(foreign, "FILE_BYTES_MAX", 2000)
    lines = [json.dumps(PAYLOAD)] * 5
    (tmp_path / "log.jsonl").write_text("\n".join([cut, *lines]))
    found = [one for one in read(tmp_path / "log.jsonl") if isinstance(one, Served)]
    assert len(found) == 5
    (tmp_path / "log.json").write_text(f"[\n{','.join(lines)}]")
    with pytest.raises(BadLog, match="larger than 2000 bytes in one piece"):
        list(read(tmp_path / "log.json"))


@pytest.mark.parametrize("packed", [False, True])
def test_an_array_on_one_line_may_be_longer_than_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 1000)
    content = b"\xef\xbb\xbf \n" + json.dumps([PAYLOAD] * 5).encode()
    (tmp_path / "log.json").write_bytes(gzip.compress(content) if packed else content)
    assert len([one for one in read(tmp_path / "log.json") if isinstance(one, Served)]) == 5


@pytest.mark.parametrize("code", [400, "422"])
def test_what_is_a_requests_own_fault_is_told_from_a_failure(tmp_path: Path, code: object) -> None:
    failed = PAYLOAD | {"status": "failure", "error_information": {"error_code": code}}
    for record, at_fault in ((failed, True), (PAIR | {"status": code, "response": None}, True), (PAIR, False)):
        found = told(tmp_path, record)
        assert isinstance(found, Served)
        assert (found.ok, found.at_fault, found.rate_limited) == (not at_fault, at_fault, False)


@pytest.mark.parametrize(
    ("other", "unused"),
    [
        ('{"time": 1}\n{"time": 2}\n', [Unused.UNKNOWN] * 2),
        (json.dumps(PAYLOAD)[:50], [Unused.UNREADABLE]),
        ("", []),
        ("\n", []),
    ],
    ids=["something else", "cut", "empty", "blank"],
)
def test_of_a_folder_a_file_that_is_none_or_has_none_is_no_reason_to_refuse_the_others(
    tmp_path: Path, other: str, unused: list[Unused]
) -> None:
    (tmp_path / "a.json").write_text(other)
    (tmp_path / "b.json").write_text(json.dumps(PAYLOAD))
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    *found, one = read(tmp_path)
    assert isinstance(one, Served)
    assert found == unused
    # Where no file has one, the first of them says what belongs there.
    (tmp_path / "b.json").unlink()
    with pytest.raises(BadLog, match=r"a\.json:1: expected"):
        list(read(tmp_path))


def test_records_without_ids_are_told_apart_by_file_and_place(tmp_path: Path) -> None:
    record = {key: value for key, value in PAIR.items() if key != "id"}
    for day in ("01", "02"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "part.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(record)}\n")
    ids = {one.id for one in read(tmp_path) if isinstance(one, Served)}
    assert ids == {"01/part.jsonl-1", "01/part.jsonl-2", "02/part.jsonl-1", "02/part.jsonl-2"}


@pytest.mark.parametrize(
    ("said", "base"),
    [
        ({"endpoint": "/v1/chat/completions"}, ""),
        ({"endpoint": "/v1/chat/completions", "api_base": "https://a.example/v1"}, "https://a.example/v1"),
        ({"endpoint": "cloud", "provider": "openai"}, "cloud"),
        ({"endpoint": None, "provider": "openai"}, "openai"),
    ],
)
def test_a_path_says_nothing_of_who_served_it(tmp_path: Path, said: Record, base: str) -> None:
    found = told(tmp_path, PAIR | said)
    assert isinstance(found, Served)
    assert found.base == base


@pytest.mark.parametrize(("status", "ok"), [("failure", False), ("error", False), ("Success", True), ("200", True)])
def test_a_status_may_be_a_word(tmp_path: Path, status: str, ok: bool) -> None:
    found = told(tmp_path, PAIR | {"status": status})
    assert isinstance(found, Served)
    assert found.ok is ok


def test_a_failure_needs_no_answer_to_be_one(tmp_path: Path) -> None:
    record = {"id": "a", "time": 1768809251, "latency_ms": 5, "status": 500, "model": "m", "prompt_tokens": 9}
    found = told(tmp_path, record)
    assert isinstance(found, Served)
    assert not found.ok


def test_what_anthropic_counts_beside_the_input_is_of_the_prompt_too(tmp_path: Path) -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 50_000,
        "cache_creation_input_tokens": 90,
        "output_tokens": 5,
    }
    found = told(tmp_path, PAIR | {"response": {"usage": usage}})
    assert isinstance(found, Served)
    assert (found.prompt_tokens, found.cached_tokens) == (50_100, 50_000)


def test_files_that_are_not_there_and_folders_without_any_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadLog, match="cannot be read"):
        list(read(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadLog, match="the folder is empty"):
        list(read(tmp_path / "empty"))
    with pytest.raises(BadLog, match="cannot be read"):
        list(read(tmp_path / ("x" * 300)))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:20])
    with pytest.raises(BadLog, match="cut or damaged"):
        list(read(tmp_path / "cut.gz"))


@contextmanager
def whom_files_are_closed_to() -> Iterator[None]:
    """A superuser may look everywhere, and is somebody else as long as this lasts."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["log", "log/older"])
def test_a_folder_that_may_not_be_looked_into_is_said_so_and_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (tmp_path / "log" / "older").mkdir(parents=True)
    (tmp_path / "log" / "newer.jsonl").write_text(json.dumps(PAYLOAD))
    (tmp_path / closed).chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with whom_files_are_closed_to(), pytest.raises(BadLog, match=f"^{closed}: cannot be read .Permission denied"):
        list(read(Path("log")))
    (tmp_path / closed).chmod(0o700)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    record=st.sampled_from([PAYLOAD, ROW, PAIR]),
    changes=st.dictionaries(st.sampled_from(sorted({*PAYLOAD, *ROW, *PAIR})), anything, max_size=4),
)
def test_whatever_stands_in_a_record_it_is_read_counted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, record: Record, changes: Record
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_text(json.dumps(record | changes) + "\n")
    try:
        (found,) = read(file)
    except BadLog:
        return
    if isinstance(found, Served):
        assert found.e2e_s > 0.0
        assert found.ttft_s is None or 0.0 < found.ttft_s < found.e2e_s
        assert found.usd is None or found.usd >= 0.0
        assert found.prompt_tokens is None or found.prompt_tokens > 0
