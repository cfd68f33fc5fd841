"""What a request leaves behind: what only a collection of garbage frees would be all bodies since the last one."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import CHAT, House, chat, house, local, remote, wire
from tests.http.harness import client, uncollected
from tidegate.cli.serve import COLLECTS_AFTER
from tidegate.engines.fake import Fault, Script
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.drive import Drive
from tidegate.http.client import Call


@pytest.fixture
def without_collections() -> Iterator[None]:
    with uncollected():
        yield


def left() -> dict[str, int]:
    """How many of each are still there, by kind."""
    kinds = (Drive, Attempt, Call)
    found = [type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds)]
    return {kind.__name__: found.count(kind.__name__) for kind in kinds}


@pytest.mark.lengthy
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


REFUSED: dict[str, bytes] = {
    "no JSON": wire("POST", CHAT, b"{no"),
    "nested": wire("POST", CHAT, b"[" * 5_000),
    "no such model": wire("POST", CHAT, msgspec.json.encode(chat(model="nobody"))),
    "too long": wire("POST", CHAT, msgspec.json.encode(chat("word " * 40_000))),
    "no such path": wire("GET", "/nowhere"),
    "no such method": wire("GET", CHAT),
    "no HTTP": b"\x00\x01\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
}


@pytest.mark.lengthy
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_leaves_nothing_to_collect(
    tmp_path: Path, without_collections: None, refused: bytes
) -> None:
    async with house(tmp_path, only=local()) as home:
        await home.send(refused)
        gc.collect()
        for _ in range(5):
            assert (await home.send(refused)).status >= 400
        await home.quiet()
        assert gc.collect() == 0


@pytest.mark.lengthy
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_what_an_engine_refuses_leaves_nothing_to_collect(
    tmp_path: Path, without_collections: None, status: int
) -> None:
    async with house(tmp_path, only=remote(Script(status=status))) as home:
        await home.ask(chat())
        gc.collect()
        for _ in range(5):
            assert (await home.ask(chat())).status >= 400
        await home.quiet()
        assert gc.collect() == 0


@pytest.mark.lengthy
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.UNFINISHED, Fault.MALFORMED, Fault.ERROR_EVENT])
@pytest.mark.parametrize("stream", [False, True])
async def test_of_an_answer_that_breaks_off_nothing_is_left(
    tmp_path: Path, without_collections: None, fault: Fault, stream: bool
) -> None:
    async with house(tmp_path, only=remote(Script(fault=fault))) as home:
        await home.ask(chat(stream=stream))
        await home.quiet()
        assert left() == {"Drive": 0, "Attempt": 0, "Call": 0}


async def test_three_thousand_streams_that_begin_at_once_wait_for_no_collection(
    tmp_path: Path, without_collections: None
) -> None:
    slow = Script(tokens=100, token_s=1.0)
    async with house(tmp_path, only=remote(slow, concurrency=64)) as home, AsyncExitStack() as under_way:
        await begun(home, under_way)
        before = len(gc.get_objects())
        for _ in range(10):
            await begun(home, under_way)
        # The client's own are among them.
        assert (len(gc.get_objects()) - before) / 10 * 3_000 < COLLECTS_AFTER


async def begun(home: House, under_way: AsyncExitStack) -> None:
    """A stream whose first content is there."""
    reader, writer = await under_way.enter_async_context(client(home.port))
    writer.write(wire("POST", "/v1/chat/completions", msgspec.json.encode(chat(stream=True))))
    await reader.readuntil(b'"content"')


def held_bytes(drive: Drive) -> int:
    """Of texts that are reached from a request, but for what all of them share."""
    seen, found, total = {id(drive)}, [drive], 0
    for one in found:  # grows meanwhile
        if isinstance(one, bytes | bytearray | str):
            total += len(one)
        elif not isinstance(one, Dispatch | ModuleType | type | FunctionType | asyncio.AbstractEventLoop):
            fresh = [other for other in gc.get_referents(one) if id(other) not in seen]
            seen.update(map(id, fresh))
            found += fresh
    return total


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("place", "resume", "fields"),
    [(local, False, {}), (remote, False, {}), (local, True, {"response_format": {"type": "json_object"}})],
    ids=["free", "paid", "never resumed"],
)
async def test_while_an_answer_streams_nothing_of_what_was_asked_is_kept(
    tmp_path: Path, place: Callable[..., Any], resume: bool, fields: dict[str, Any]
) -> None:
    # It is still under way when it is looked at.
    slow = Script(tokens=100, token_s=1.0)
    async with house(tmp_path, only=place(slow, context_tokens=1_000_000), policy={"resume": resume}) as home:
        asked = msgspec.json.encode(chat("word " * 400_000, stream=True, **fields))
        async with client(home.port) as (reader, writer):
            writer.write(wire("POST", "/v1/chat/completions", asked))
            await reader.readuntil(b'"content"')
            (held,) = [held_bytes(one) for one in gc.get_objects() if isinstance(one, Drive) and one.request.stream]
            assert held < len(asked) / 10
