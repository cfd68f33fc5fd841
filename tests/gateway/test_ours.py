"""A fault of the gateway's own ends the request that met it: it is answered, and nobody waits behind it."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.harness import House, chat, house, local
from tests.http.harness import eventually
from tidegate.engines.fake import Script
from tidegate.gateway.upstream import Upstream


class Faulty(dict[str, Upstream]):
    """Fails when it is asked for the next time."""

    fails = True

    def __getitem__(self, name: str) -> Upstream:
        if self.fails:
            self.fails = False
            raise RuntimeError("a fault of ours")
        return super().__getitem__(name)


def spoil(home: House) -> list[str]:
    """Let the next attempt meet a fault; the list is what is told of it."""
    home.gateway.dispatch.upstreams = Faulty(home.gateway.dispatch.upstreams)
    told: list[str] = []
    handler = lambda _, context: told.append(f"{context['message']}: {context['exception']}")  # noqa: E731
    asyncio.get_running_loop().set_exception_handler(handler)
    return told


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_meets_one_is_answered_and_nothing_of_it_stays(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path, laptop=local()) as home:
        told = spoil(home)
        answer = await home.ask(chat(stream=stream))
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "log" in answer.error["message"]
        assert (home.gateway.dispatch.in_flight, home.gateway.router.held) == (0, 0)
        assert (await home.ask(chat(stream=stream))).status == 200
        (line, _) = home.log()
    assert (line["status"], line["outcome"], line["code"]) == (500, "failed", "internal_error")
    assert told == ["a request is given up for a fault of the gateway: a fault of ours"]


async def test_those_that_are_held_behind_it_have_their_turn(tmp_path: Path) -> None:
    slow = Script(first_s=0.2, tokens=2)
    async with house(tmp_path, laptop=local(slow, concurrency=1)) as home:
        first = asyncio.create_task(home.ask())
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        behind = [asyncio.create_task(home.ask()) for _ in range(3)]
        await eventually(lambda: home.gateway.router.held == 3)
        told = spoil(home)
        answers = await asyncio.gather(first, *behind)
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 500]
        assert (home.gateway.dispatch.in_flight, home.gateway.router.held) == (0, 0)
    assert len(told) == 1
