"""The hand-over between two real llama.cpp, and what a real one does while a thousand spoilt blobs come for it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.live.couriers import PROMPT, besieged, real
from tidegate.engines.courier import CourierError
from tidegate.wire.courier import Restore

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

BLOBS = 1_000


def run(main: Coroutine[Any, Any, None]) -> None:
    """On the main thread's loop, since engines die with the thread that started them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@pytest.mark.lengthy
def test_what_one_engine_has_prefilled_the_other_goes_on_with_as_from_its_own_cache(tmp_path: Path) -> None:
    async def main() -> None:
        async with real(tmp_path) as home:
            tokens = await home.prefilled()
            ticket = home.ticket((await home.client("b").health(5.0)).fingerprint or "")
            shipped = await home.client("a").ship(home.order(ticket, tokens=tokens), 30.0)
            restored = await home.client("b").restore(Restore(name=shipped.name, slot=1), 30.0)
            there = await home.complete("b", PROMPT, slot=1, tokens=16)
            here = await home.complete("a", PROMPT, slot=0, tokens=16)
            assert shipped.tokens == restored.tokens == tokens
            assert there["timings"]["cache_n"] == here["timings"]["cache_n"] == tokens - 1
            assert there["content"] == here["content"]
            assert not [file for file in home.saves.rglob("*") if file.is_file()]

    run(main())


@pytest.mark.lengthy
def test_an_engine_with_another_model_file_is_not_shipped_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with real(tmp_path) as home:
            tokens = await home.prefilled()
            with pytest.raises(CourierError, match="fingerprint"):
                await home.client("a").ship(home.order(home.ticket("0" * 64), tokens=tokens), 30.0)

    run(main())


@pytest.mark.slow
def test_a_thousand_spoilt_blobs_are_refused_while_the_engine_serves(tmp_path: Path) -> None:
    async def main() -> None:
        async with real(tmp_path) as home:
            refused, served, failed = await besieged(home, BLOBS)
            assert (refused, failed) == (BLOBS, 0)
            assert served > 0

    run(main())
