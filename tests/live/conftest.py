"""One stack for the whole folder: engines take seconds to start, and the journal of it all is replayed at the end."""

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.stack import Stack


class Running:
    """A stack and the loop that its parts live on."""

    def __init__(self, stack: Stack, runner: asyncio.Runner) -> None:
        self.stack = stack
        self._runner = runner

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run it once both engines are up: while no test runs, the WAN stands still, and probes through it fail."""

        async def main() -> None:
            await self.stack.both_up()
            await test

        self._runner.run(main())


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The stack, with the runner of its loop: what is sent from outside needs the WAN's loop to turn."""
    folder: Path = tmp_path_factory.mktemp("live")
    stack = Stack(folder)
    with asyncio.Runner() as runner:
        runner.run(stack.start())
        yield Running(stack, runner)
        assert runner.run(stack.stop()) == 0
