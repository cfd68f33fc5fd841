"""An answer that is paid for is cut off only where it surely has more than was asked for."""

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests import make
from tests.gateway.harness import chat, completion, house, remote
from tests.wire.streams import STOP, chunk
from tidegate.core.model import Capability
from tidegate.gateway.meter import METER_S, meter_of
from tidegate.wire.openai import parse
from tidegate.wire.stream import StreamReader

# What passes where ten tokens are the bound.
MOST = 6 * 10 + 64


def reader(*frames: bytes, completions: int = 1) -> StreamReader:
    made = StreamReader(include_usage=False, completions=completions)
    made.feed(b"".join(frames))
    return made


def said(count: int, piece: str = "word ", **delta: Any) -> list[bytes]:
    """So many chunks of content."""
    return [chunk(**(delta or {"content": piece}))] * count


def meter(window: int = 2048, *, assumed: bool = True, output_tokens_max: int | None = None, **fields: Any) -> Any:
    endpoint = make.endpoint("cloud", local=False, context_tokens=2048, output_tokens_max=output_tokens_max)
    kind, body = (Capability.COMPLETION, completion) if "echo" in fields else (Capability.CHAT, chat)
    return meter_of(endpoint, parse(json.dumps(body(stream=True, **fields)).encode(), kind), window, assumed=assumed)


def test_only_what_is_surely_beyond_the_bound_is_cut() -> None:
    assert not meter(max_tokens=10).overran(reader(*said(MOST)))
    assert meter(max_tokens=10).overran(reader(*said(MOST + 1)))


def test_some_chunks_may_stand_for_a_single_token() -> None:
    assert not meter(max_tokens=1).overran(reader(*said(20)))


def test_each_of_several_answers_may_have_as_much() -> None:
    frames = [frame for index in range(3) for frame in [chunk(index=index, content="word ")] * (MOST // 2)]
    assert not meter(max_tokens=10, n=3).overran(reader(*frames, completions=3))
    assert meter(max_tokens=10, n=1).overran(reader(*frames))


def test_a_window_that_is_assumed_bounds_nothing_and_one_that_is_written_or_was_told_does() -> None:
    assert meter() is None
    beyond = reader(*said(6 * 8192 + 65))
    assert meter(assumed=False).overran(beyond)
    assert meter(window=8192).overran(beyond)
    assert not meter(window=16384).overran(beyond)
    assert meter(output_tokens_max=4096).overran(beyond)


def test_reasoning_is_bounded_by_the_endpoint_alone() -> None:
    thoughtful = reader(*said(MOST, reasoning_content="hm "), *said(10))
    assert not meter(max_tokens=10).overran(thoughtful)
    assert not meter(max_tokens=10, output_tokens_max=100).overran(thoughtful)
    assert meter(max_tokens=100, output_tokens_max=10).overran(thoughtful)
    assert not meter(max_tokens=10, assumed=False).overran(thoughtful)


@pytest.mark.parametrize(("echo", "metered"), [(True, False), (False, True), (None, True)])
def test_a_prompt_that_comes_with_its_answer_is_not_measured(echo: bool | None, metered: bool) -> None:
    assert (meter(max_tokens=10, echo=echo) is not None) is metered


def test_what_has_told_its_end_is_left_to_end() -> None:
    ended = reader(*said(MOST + 1), STOP)
    assert not meter(max_tokens=10).overran(ended)
    assert meter(max_tokens=10).again_s(ended, 5.0) == inf


def test_names_that_each_piece_of_a_call_repeats_are_not_the_models_words() -> None:
    function = {"name": "a_tool_with_a_very_long_name_indeed" * 4, "arguments": '{"a'}
    call = {"index": 0, "id": "call_" + "0123456789abcdef" * 8, "type": "function", "function": function}
    assert not meter(max_tokens=10).overran(reader(*said(MOST, tool_calls=[call])))


def test_it_is_looked_at_again_once_twice_as_much_may_have_come_and_often_beyond_the_bound() -> None:
    assert meter(max_tokens=10).again_s(reader(*said(5)), 0.2) == METER_S
    assert meter(max_tokens=10).again_s(reader(*said(5)), 40.0) == 40.0
    assert meter(max_tokens=10).again_s(reader(*said(11)), 40.0) == METER_S
    assert meter(max_tokens=10).again_s(reader(*said(11, reasoning="hm ")), 40.0) == inf


@pytest.mark.parametrize("written", [True, False])
async def test_whether_a_window_is_assumed_is_told_by_the_file(tmp_path: Path, written: bool) -> None:
    async with house(tmp_path, cloud=remote(engine="vllm")) as home:
        file = tmp_path / "tidegate.toml"
        if not written:
            file.write_text(file.read_text().replace("context_tokens = 32768\n", ""))
        assert (await home.change("POST", "/api/config")).status == 200
        assert home.gateway.dispatch.upstreams["cloud"].assumes_window is not written
