"""What a request leaves behind: what only a collection of garbage frees would be all bodies since the last one."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.drive import Drive
from tidegate.http.client import Call


@pytest.fixture
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> dict[str, int]:
    """How many of each are still there, by kind."""
    kinds = (Drive, Attempt, Call)
    found = [type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds)]
    return {kind.__name__: found.count(kind.__name__) for kind in kinds}


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["whole", "streamed"])
@pytest.mark.parametrize("place", [local, remote], ids=["free", "paid"])
async def test_a_request_that_is_over_is_gone_at_once(
    tmp_path: Path, without_collections: None, fields: dict[str, Any], place: Callable[[], Any]
) -> None:
    async with house(tmp_path, only=place()) as home:
        for _ in range(3):
            assert (await home.ask(chat(**fields))).status == 200
        await home.quiet()
        assert left() == {"Drive": 0, "Attempt": 0, "Call": 0}
