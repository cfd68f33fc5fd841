"""An answer that has begun goes on, or ends in so many words: silence and a trickle are no answer."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tests.http.harness import eventually
from tidegate.engines.fake import Script

WORDS = "w1 w2 w3 w4 "
# Two tokens, and then nothing for as long as any test lasts.
SILENT = Script(tokens=4, token_s=60.0)
# A token in nearly a second, from an engine that is believed to make thousands.
TRICKLE = Script(tokens=100, token_s=0.9)
IMPATIENT: dict[str, Any] = {"policy": {"stall_s": 1}}


@pytest.mark.parametrize(("script", "cause"), [(SILENT, "stalled"), (TRICKLE, "too_slow")], ids=["silent", "trickle"])
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
async def test_a_stream_that_stops_ends_with_an_error_and_its_engine_is_let_go(
    tmp_path: Path, script: Script, cause: str, engine: str
) -> None:
    async with house(tmp_path, laptop=local(script, engine=engine), cloud=remote(), **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
        await eventually(lambda: home.engines["laptop"].left == 1)
        (line,) = home.log()
    assert (answer.status, answer.endpoint) == (200, "laptop")
    assert answer.events[-1]["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in answer.events
    assert (line["outcome"], line["cause"]) == ("failed_mid_stream", cause)


@pytest.mark.lengthy
@pytest.mark.parametrize("script", [SILENT, TRICKLE], ids=["silent", "trickle"])
async def test_an_answer_that_is_given_whole_is_given_by_another_when_it_stops(tmp_path: Path, script: Script) -> None:
    async with house(tmp_path, laptop=local(script, engine="llamacpp"), cloud=remote(), **IMPATIENT) as home:
        answer = await home.ask(chat())
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


@pytest.mark.lengthy
async def test_an_engine_that_is_slow_by_itself_is_waited_for(tmp_path: Path) -> None:
    """A token takes it as long as it was believed to."""
    slow = local(Script(tokens=4, token_s=0.6), prior={"decode_tokens_per_s": 1.7})
    async with house(tmp_path, laptop=slow, **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
    assert (answer.status, answer.text) == (200, WORDS)
    assert answer.events[-1] == "[DONE]"


@pytest.mark.lengthy
async def test_many_tokens_in_a_chunk_are_no_trickle(tmp_path: Path) -> None:
    """Vendors send several tokens at once; the shortest chunk tells what of each is text."""
    bulky = Script(tokens=4, token_s=0.8, pad="x" * 40)
    async with house(tmp_path, laptop=local(bulky), **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
    assert answer.events[-1] == "[DONE]"
