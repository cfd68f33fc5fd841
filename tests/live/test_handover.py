"""A gateway that has long prompts computed by one real llama.cpp and decoded by another, with couriers between them."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from bench.gateway import free_ports

from tests.courier.harness import HOST, SECRET
from tests.live.handing import handing
from tidegate.core.model import Decision, Ended, Prefill, Shipped, Started
from tidegate.core.replay import replay
from tidegate.telemetry.reading import read

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TEXT = "Once upon a time a lighthouse keeper counted the ships that came home. " * 24


def run(main: Coroutine[Any, Any, None]) -> None:
    """On the main thread's loop, since engines die with the thread that started them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@pytest.mark.lengthy
@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "streamed"])
def test_a_long_prompt_is_computed_at_the_rack_and_decoded_at_home(tmp_path: Path, stream: bool) -> None:
    async def main() -> None:
        async with handing(tmp_path) as gateway:
            headers, said = await gateway.chat(TEXT, stream=stream)
            assert headers[b"x-tidegate-endpoint"] == b"laptop"
            assert SECRET.encode() not in said
            again, hit = await gateway.chat(TEXT, stream=stream)
            assert again[b"x-tidegate-endpoint"] == b"laptop", "it is cached at home now"
            assert _text(said, stream=stream) == _text(hit, stream=stream), "as from a cache of its own"
            told = (await gateway.state())["handovers"]["rack>laptop"]
            assert (told["breaker"], told["one_model"], told["under_way"]) == ("closed", True, 0)
            assert 0.5 < told["sent_to_declared"] < 2.0
        facts = gateway.facts()
        plans = [fact.plan for fact in facts if isinstance(fact, Decision)]
        assert isinstance(plans[0][0], Prefill)
        assert all(fact.ok for fact in facts if isinstance(fact, Shipped))
        ended = [fact for fact in facts if isinstance(fact, Ended)]
        assert [one.endpoint for one in ended[:2]] == ["rack", "laptop"]
        assert ended[1].cached_tokens == (ended[1].prompt_tokens or 0) - 1, "one token was computed at home"
        assert replay(read(tmp_path / "journal")).difference is None
        assert not [file for file in gateway.home.saves.rglob("*") if file.is_file()], "nothing is left"
        assert "lighthouse" not in (tmp_path / "gateway.log").read_text()

    run(main())


@pytest.mark.slow
def test_where_no_courier_answers_the_request_is_served_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        (nobody,) = free_ports(1)
        async with handing(tmp_path, here=f"{HOST}:{nobody}") as gateway:
            for number in range(4):
                await gateway.chat(f"{number} {TEXT}", tokens=4)
        told = [fact for fact in gateway.facts() if isinstance(fact, Shipped)]
        assert told
        assert not any(one.ok for one in told)
        assert replay(read(tmp_path / "journal")).difference is None

    run(main())


@pytest.mark.slow
def test_a_client_that_leaves_while_its_prompt_is_computed_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with handing(tmp_path) as gateway:
            asking = asyncio.ensure_future(gateway.chat(f"gone {TEXT}"))
            for _ in range(200):
                if any(isinstance(fact, Started) for fact in gateway.facts()):
                    break
                await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await gateway.chat(f"here {TEXT}")
            assert (await gateway.state())["handovers"]["rack>laptop"]["under_way"] == 0
        assert replay(read(tmp_path / "journal")).difference is None
        assert not [file for file in gateway.home.saves.rglob("*") if file.is_file()]

    run(main())


def _text(said: bytes, *, stream: bool) -> str:
    if not stream:
        return str(msgspec.json.decode(said)["choices"][0]["message"]["content"])
    found = ""
    for line in said.splitlines():
        if line.startswith(b"data: {"):
            choices = msgspec.json.decode(line[6:])["choices"]
            found += (choices[0]["delta"].get("content") or "") if choices else ""
    return found
