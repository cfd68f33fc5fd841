"""Requests that come in one tick of the loop are dealt with step by step, and come to what they would one by one."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.harness import CHAT, SURE, House, chat, house, local, remote, wire
from tests.gateway.test_budget import busy
from tests.http.harness import eventually
from tests.http.test_segments import Wire
from tidegate.core.model import Decision, Ended, Ending, Held, ModelFailed, Request, Started
from tidegate.engines.fake import Fault, Script
from tidegate.gateway.dispatch import ROW_MAX
from tidegate.gateway.drive import Drive
from tidegate.http.client import Cause, TransportError
from tidegate.http.connection import Connection


def asks(slo_ttft_ms: str = "", **fields: Any) -> bytes:
    """A request as its client sends it."""
    named = [("x-tidegate-slo-ttft-ms", slo_ttft_ms)] if slo_ttft_ms else []
    return wire("POST", CHAT, json.dumps(chat(**fields)).encode(), named)


ASKED = asks(max_tokens=10)
RESET = b"\1\0\0\0\0\0\0\0"  # a close that lingers for no time tells the peer at once


class Broken(dict[str, Any]):
    """Takes nothing in."""

    def __setitem__(self, key: str, value: object) -> None:
        raise RuntimeError("of ours")


@asynccontextmanager
async def at_once(home: House, asked: Sequence[bytes]) -> AsyncIterator[None]:
    """As many clients, whose requests are all there before the loop looks for any."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", home.port))) for _ in asked]
        await eventually(lambda: home.gateway.server.statistics().open == len(asked))
        for one, raw in zip(clients, asked, strict=True):
            one.sendall(raw)
        yield


async def test_each_of_a_tick_is_decided_when_the_one_before_it_has_its_place(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(concurrency=2), desk=local(concurrency=2)) as home:
        async with at_once(home, [ASKED] * 8):
            await eventually(lambda: len(home.log()) == 8)
        told = [type(line.fact) for line in home.journal() if isinstance(line.fact, Decision | Started | Held)]
    assert told[:16:2] == [Decision] * 8
    assert told[1:16:2] == [Started] * 4 + [Held] * 4  # four places, and four that wait for them


async def test_of_a_tick_nobody_counts_on_the_money_of_another(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1000, "usd_per_1m_output_tokens": 4000}
    async with house(tmp_path, budget={"usd_per_day": 1.0}, cloud=remote(price=price)) as home:
        async with at_once(home, [ASKED] * 4):
            await eventually(lambda: len(home.log()) == 4)
        left = [line.fact.budget_usd for line in home.journal() if isinstance(line.fact, Request)]
    assert [usd is not None for usd in left] == [True] * 4
    assert left == sorted(set(left), reverse=True)  # type: ignore[type-var]


@pytest.mark.lengthy
async def test_who_is_held_has_no_more_money_than_when_it_was_decided(tmp_path: Path) -> None:
    ours = busy(Script(first_s=0.05, token_s=0.05, tokens=20), decode_tokens_per_s=20.0)
    quick = remote(Script(first_s=0.3), prior=SURE | {"overhead_ms": 60})
    asked = [asks("300", max_tokens=tokens) for tokens in (5, 5000, 5000, 5000, 100, 10)]
    async with house(tmp_path, budget={"usd_per_day": 0.03, "pace": False}, laptop=ours, cloud=quick) as home:
        async with at_once(home, asked):
            await eventually(lambda: len(home.log()) == 6)
        told = [line.fact for line in home.journal()]
    asked_last, held = dict[str, Request](), 0
    for fact in told:
        if isinstance(fact, Request):
            asked_last[fact.id] = fact
        elif isinstance(fact, Held):
            held += 1
            assert fact.request == asked_last[fact.request.id]
    assert held
    assert not [fact for fact in told if isinstance(fact, ModelFailed)]


async def test_what_has_come_makes_room_first_for_who_waits_and_then_for_who_comes(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT), concurrency=1)) as home:
        async with home.asking():
            await eventually(lambda: home.gateway.dispatch.in_flight == 1)
            drive = _drive(home)
            async with home.asking():
                await eventually(lambda: home.gateway.router.held == 1)
                (waits,) = home.gateway.dispatch._held
                connection = _connected(home)
                connection.data_received(ASKED)
                _answer(drive, "laptop")
                await eventually(lambda: waits not in home.gateway.dispatch._held)
                comes = next(iter(home.gateway.dispatch._held))
                connection.connection_lost(None)
        await home.quiet()
        told = [line.fact for line in home.journal()]
    (ended,) = [number for number, fact in enumerate(told) if isinstance(fact, Ended) and fact.ending is Ending.OK]
    after = [fact for fact in told[ended:] if isinstance(fact, Decision | Started | Held)]
    found = [(type(fact), fact.request.id if isinstance(fact, Held) else fact.request_id) for fact in after[:4]]
    assert found == [(Decision, waits), (Started, waits), (Decision, comes), (Held, comes)]


async def test_of_a_tick_all_are_sent_and_answered(tmp_path: Path) -> None:
    many = 2 * ROW_MAX + 1
    async with house(tmp_path, laptop=local(concurrency=many), cloud=remote()) as home:
        async with at_once(home, [ASKED] * many):
            await eventually(lambda: len(home.log()) == many)
        told = [type(line.fact) for line in home.journal() if isinstance(line.fact, Decision | Started)]
        assert [line["outcome"] for line in home.log()] == ["ok"] * many
    assert told == [Decision, Started] * many


async def test_what_is_sent_in_a_row_keeps_its_order_and_one_that_fails_keeps_nobody_back(tmp_path: Path) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    async with house(tmp_path) as home:
        dispatch, sent = home.gateway.dispatch, list[int]()
        dispatch.send_in_turn(partial(Broken().__setitem__, "x", 1))
        for number in range(ROW_MAX):
            dispatch.send_in_turn(partial(sent.append, number))
        assert sent == list(range(ROW_MAX - 1))
        dispatch.catch_up()
    assert sent == list(range(ROW_MAX))
    assert told == ["of ours"]


async def test_a_fault_of_ours_before_anything_is_decided_is_answered_with_500(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with house(tmp_path) as home:
        dispatch = home.gateway.dispatch
        dispatch._live = Broken()
        assert (await home.ask()).status == 500
        everybody = home.gateway.auth._open
        assert everybody is not None
        assert everybody._in_flight == 0
        dispatch._live = {}
        assert (await home.ask()).status == 200
        assert [line["outcome"] for line in home.log()] == ["failed", "ok"]
    assert [str(context["exception"]) for context in told] == ["of ours"]


async def test_who_has_come_when_the_gateway_goes_down_is_told_so(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home:
        told = Wire()
        connection = _connected(home, told)
        connection.data_received(ASKED)
        home.gateway.dispatch.stop()
        await eventually(lambda: b" 503 " in told.written)
        connection.connection_lost(None)


@pytest.mark.parametrize("large", [False, True])
async def test_who_has_come_does_not_wait_for_a_large_body_to_be_read(tmp_path: Path, large: bool) -> None:
    async with house(tmp_path) as home:
        first, second = _connected(home), _connected(home)
        first.data_received(ASKED)
        second.data_received(asks(prompt="word " * (20_000 if large else 20)))
        assert home.gateway.dispatch.in_flight == large
        for one in (first, second):
            one.connection_lost(None)


async def test_a_client_that_is_gone_before_it_is_refused_is_no_fault_of_ours(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1000, "usd_per_1m_output_tokens": 4000}
    async with house(tmp_path, budget={"usd_per_day": 0.01}, cloud=remote(price=price)) as home:
        connection = _connected(home)
        connection.data_received(ASKED)
        connection.connection_lost(None)
        await _logged(home, 1)
        (line,) = home.log()
    assert (line["outcome"], line["status"]) == ("refused", 429)


async def test_a_client_that_is_gone_before_its_tick_is_over_has_left_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        connection = _connected(home)
        connection.data_received(ASKED)
        connection.connection_lost(None)
        await _logged(home, 1)
        (line,) = home.log()
        assert home.gateway.server.idle
    assert (line["outcome"], line["status"]) == ("client_left", 499)


async def test_an_answer_that_has_come_is_not_lost_to_what_comes_next_in_its_tick(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home:
        for number, then in enumerate((_timer, _expire, _stop, _leave)):
            async with home.asking():
                await eventually(lambda: home.gateway.dispatch.in_flight == 1)
                drive = _drive(home)
                _answer(drive, "laptop")
                assert home.gateway.dispatch.in_flight == 1  # until the end of its tick
                then(home, drive)
                await _logged(home, number + 1)
            assert home.log()[-1]["outcome"] == "ok", then


async def test_of_two_attempts_that_end_in_one_tick_the_answer_counts(tmp_path: Path) -> None:
    silent = Script(fault=Fault.SILENT)
    async with house(tmp_path, laptop=local(silent), cloud=remote(silent), desk=local(silent)) as home:
        for number, then in enumerate((_fails, _finds_fault, _answer)):
            async with home.asking(x_tidegate_slo_ttft_ms="100"):
                await eventually(lambda: home.gateway.dispatch.in_flight == 1 and len(_drive(home)._attempts) == 2)
                drive = _drive(home)
                first, second = drive._attempts
                attempt = drive._attempts[second]
                _answer(drive, first)
                then(drive, second)
                await _logged(home, number + 1)
            line = home.log()[-1]
            assert (line["outcome"], line["endpoint"], line["attempts"]) == ("ok", first, 2), then
            assert attempt.over


async def test_an_answer_that_is_whole_goes_before_one_that_begins_in_its_tick(tmp_path: Path) -> None:
    silent = Script(fault=Fault.SILENT)
    async with house(tmp_path, laptop=local(silent, engine="llamacpp"), cloud=remote(silent)) as home:
        async with home.asking(chat(stream=False), x_tidegate_slo_ttft_ms="100"):
            await eventually(lambda: home.gateway.dispatch.in_flight == 1 and len(_drive(home)._attempts) == 2)
            drive = _drive(home)
            begins, whole = sorted(drive._attempts.values(), key=lambda attempt: not attempt.streamed)
            assert (begins.streamed, whole.streamed) == (True, False)
            _answer(drive, whole.endpoint)
            begins.on_head(200, {b"content-type": b"text/event-stream"})
            begins.on_data(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
            assert begins.over
            await _logged(home, 1)
        await home.quiet()
        (line,) = home.log()
        assert (line["outcome"], line["endpoint"], line["attempts"]) == ("ok", whole.endpoint, 2)
        told = [line.fact for line in home.journal()]
    endings = {fact.endpoint: fact.ending for fact in told if isinstance(fact, Ended)}
    assert endings == {whole.endpoint: Ending.OK, begins.endpoint: Ending.CANCELLED}
    assert not [fact for fact in told if isinstance(fact, ModelFailed)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_leave_at_whatever_tick(tmp_path: Path, stream: bool) -> None:
    raw = asks(stream=stream)
    async with house(tmp_path, laptop=local(Script(tokens=2, token_s=0.0)), cloud=remote()) as home:
        for ticks in range(40):
            with socket.create_connection(("127.0.0.1", home.port)) as one:
                one.sendall(raw)
                for _ in range(ticks):
                    await asyncio.sleep(0)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await home.quiet()
        await eventually(lambda: home.gateway.server.idle)
        outcomes = [line["outcome"] for line in home.log()]
    # Whether one that left at once was read at all, is the system's affair. The rest is looked at with every house.
    assert {"ok", "client_left"} >= set(outcomes)
    assert "ok" in outcomes


def _connected(home: House, to: Wire | None = None) -> Connection:
    """A client whose bytes come when they are given, and not when the loop looks."""
    connection = Connection(home.gateway.server)
    connection.connection_made(cast("asyncio.Transport", Wire() if to is None else to))
    return connection


async def _logged(home: House, many: int) -> None:
    await eventually(lambda: len(home.log()) == many)


def _drive(home: House) -> Drive:
    """The one request under way."""
    ((drive, _),) = home.gateway.dispatch._live.values()
    assert isinstance(drive, Drive)
    return drive


def _answer(drive: Drive, endpoint: str) -> None:
    """All of an answer has come from there."""
    message = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    attempt = drive._attempts[endpoint]
    attempt.on_head(200, {b"content-type": b"application/json"})
    attempt.on_data(json.dumps({"object": "chat.completion", "model": "m", "choices": [message]}).encode())
    attempt.on_end()


def _fails(drive: Drive, endpoint: str) -> None:
    drive._attempts[endpoint].on_error(TransportError(Cause.RESET, "reset"))


def _finds_fault(drive: Drive, endpoint: str) -> None:
    attempt = drive._attempts[endpoint]
    attempt.on_head(400, {b"content-type": b"application/json"})
    attempt.on_data(b'{"error":{"message":"no","type":"invalid_request_error","param":"messages","code":null}}')
    attempt.on_end()


def _timer(home: House, drive: Drive) -> None:
    drive.timer(home.gateway.clock.now_s() + 3600.0)


def _expire(home: House, drive: Drive) -> None:
    drive.expire(home.gateway.clock.now_s())


def _stop(home: House, drive: Drive) -> None:
    drive.stop(home.gateway.clock.now_s())


def _leave(_: House, drive: Drive) -> None:
    drive._exchange.leave()
