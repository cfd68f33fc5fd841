"""A gateway that has prompts computed by one real vLLM and fetched by another: see `tests/lab/vllm.py`."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.fetching import TEXT, between, breaker, facts
from tests.gateway.harness import chat
from tests.lab.raw import exchange
from tests.lab.record import CHAT
from tests.lab.vllm import MODEL, Engine, nixl, python, shared, two
from tidegate.core.model import Decision, Ended, Prefill, Shipped

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not python(), reason="TIDEGATE_VLLM names no Python that has vLLM"),
]
# Of one core each, beside whatever else the machine does.
SLOWER = 20.0


@pytest.mark.parametrize("by", ["nixl", "folder"])
def test_the_text_is_that_of_a_plain_run(tmp_path: Path, by: str) -> None:
    asyncio.run(handed_over(tmp_path, nixl() if by == "nixl" else shared(tmp_path / "store")))


async def handed_over(folder: Path, connector: dict[str, Any]) -> None:
    async with two(connector, folder) as (rack, laptop):
        # The first request of all takes its time.
        await said(laptop, "Say hi")
        plain = await said(rack, TEXT)
        async with between(folder, rack.url, laptop.url, slower=SLOWER) as home:
            whole = await home.ask(chat(TEXT, temperature=0, max_tokens=24))
            assert (whole.endpoint, whole.text) == ("laptop", plain)
            streamed = await home.ask(chat(f"Well. {TEXT}", temperature=0, max_tokens=24, stream=True))
            assert (streamed.endpoint, streamed.text) == ("laptop", await said(rack, f"Well. {TEXT}"))
            assert breaker(home).strikes == 0.0
            assert all(isinstance(one.plan[0], Prefill) for one in facts(home, Decision)[::2])
            assert [one.ok for one in facts(home, Shipped)] == [True, True]
            ended = facts(home, Ended)
            assert [one.endpoint for one in ended] == ["rack", "laptop"] * 2
            assert all(one.cached_tokens >= 0.9 * one.prompt_tokens for one in ended[1::2])


async def said(engine: Engine, text: str) -> str:
    """What an engine says by itself."""
    body = chat(text, temperature=0, max_tokens=24) | {"model": MODEL}
    answer = await exchange(engine.port, "POST", CHAT, body)
    assert answer.status == 200, answer.body
    return str(msgspec.json.decode(answer.body)["choices"][0]["message"]["content"])
