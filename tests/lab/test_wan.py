"""The emulated network: never faster than asked, every byte in order, and changeable under way."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from math import nan

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.clock import tick_s
from tidegate.lab.link import PIECE_BYTES_MAX, uniform
from tidegate.lab.wan import Address, Link, Outage, Wan

LOCAL = "127.0.0.1"
PATIENCE_S = 20.0  # what no busy machine needs
QUIET_S = 0.1  # how long nothing has to happen
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[None, None, None]], None]:
    """Runs a scenario on either event loop."""

    def run_on_loop(scenario: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scenario, PATIENCE_S))

    return run_on_loop


Run = Callable[[Coroutine[None, None, None]], None]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Address]:
    """A server of a few lines as the upstream."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, LOCAL, 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def wan_to(handler: Handler, link: Link, **options: int) -> AsyncIterator[Wan]:
    async with serving(handler) as upstream, Wan((LOCAL, 0), upstream, link, **options) as wan:
        yield wan


@asynccontextmanager
async def client_of(wan: Wan) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*wan.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def round_trip_s(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"x") -> float:
    started_s = tick_s()
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return tick_s() - started_s


def reset(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - counters announce nothing
        await asyncio.sleep(0)


async def is_quiet(future: asyncio.Future[bytes]) -> bool:
    done, _ = await asyncio.wait({future}, timeout=QUIET_S)
    return not done


links = st.builds(
    Link,
    rtt_s=st.floats(0.0, 0.02),
    jitter_s=st.floats(0.0, 0.02),
    rate_bytes_per_s=st.none() | st.floats(1e6, 1e9),
)


@pytest.mark.lengthy
@given(link=links, payloads=st.lists(st.binary(max_size=40_000), max_size=8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_arrive_intact_and_in_order_both_ways(run: Run, link: Link, payloads: list[bytes], seed: int) -> None:
    async def scenario() -> None:
        async with wan_to(echo, link, seed=seed) as wan, client_of(wan) as (reader, writer):
            for payload in payloads:
                writer.write(payload)
            writer.write_eof()
            assert await reader.read(-1) == b"".join(payloads)

    run(scenario())


@pytest.mark.parametrize("rtt_s", [0.0, 0.003, 0.05])
def test_a_round_trip_is_never_faster_than_asked_and_a_connection_costs_another(run: Run, rtt_s: float) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link(rtt_s=rtt_s)) as wan:
            opened_s = tick_s()
            async with client_of(wan) as ends:
                await round_trip_s(*ends)
                assert 2 * rtt_s <= tick_s() - opened_s < 2 * rtt_s + 2.0
                for _ in range(5):
                    assert rtt_s <= await round_trip_s(*ends) < rtt_s + 2.0

    run(scenario())


def test_jitter_only_ever_adds(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link(rtt_s=0.01, jitter_s=0.01)) as wan, client_of(wan) as ends:
            took_s = [await round_trip_s(*ends) for _ in range(20)]
            assert min(took_s) >= 0.01
            assert max(took_s) - min(took_s) > 0.001

    run(scenario())


@given(st.integers(), st.text(), st.text())
def test_chance_depends_on_seed_purpose_and_key_alone(seed: int, purpose: str, key: str) -> None:
    assert 0.0 <= uniform(seed, purpose, key) < 1.0
    assert uniform(seed, purpose, key) == uniform(seed, purpose, key)


def test_chance_is_the_same_in_every_process() -> None:
    assert uniform(1, "jitter", "1|up|0") == 0.9254250812073461


@pytest.mark.lengthy
@pytest.mark.parametrize("connections", [1, 3])
def test_all_connections_together_are_never_faster_than_the_rate(run: Run, connections: int) -> None:
    payload = bytes(120_000)

    async def transfer(wan: Wan) -> None:
        async with client_of(wan) as ends:
            await round_trip_s(*ends, payload)

    async def scenario() -> None:
        async with wan_to(echo, Link(rate_bytes_per_s=1e6)) as wan:
            started_s = tick_s()
            await asyncio.gather(*(transfer(wan) for _ in range(connections)))
            least_s = connections * len(payload) / 1e6
            assert least_s <= tick_s() - started_s < 2 * least_s + 2.0

    run(scenario())


@pytest.mark.lengthy
def test_a_long_transfer_does_not_hold_up_a_short_one_beside_it(run: Run) -> None:
    async def scenario() -> None:
        async with (
            wan_to(echo, Link(rate_bytes_per_s=1e6)) as wan,
            client_of(wan) as long_ends,
            client_of(wan) as short_ends,
        ):
            long = asyncio.create_task(round_trip_s(*long_ends, bytes(1_000_000)))
            await until(lambda: wan.statistics().delivered_up_bytes > 0)
            await round_trip_s(*short_ends)
            assert not long.done()
            await long

    run(scenario())


def test_a_change_of_delay_holds_for_what_is_sent_from_then_on(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link()) as wan, client_of(wan) as ends:
            await round_trip_s(*ends)
            await wan.change(rtt_s=0.1)
            assert await round_trip_s(*ends) >= 0.1
            await wan.change(rtt_s=0.0)
            assert await round_trip_s(*ends) < 5.0

    run(scenario())


def test_a_change_of_rate_frees_what_waits(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link(rate_bytes_per_s=10.0)) as wan, client_of(wan) as ends:
            waiting = asyncio.create_task(round_trip_s(*ends, bytes(10_000)))
            await until(lambda: wan.statistics().in_flight_bytes > 0)
            await wan.change(rate_bytes_per_s=None)
            assert await waiting < 500.0  # half of what it would have taken

    run(scenario())


def test_an_outage_stalls_what_is_open_and_loses_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link()) as wan, client_of(wan) as (reader, writer):
            await round_trip_s(reader, writer)
            await wan.change(outage=Outage.HANG)
            writer.write(b"held")
            arriving = asyncio.ensure_future(reader.readexactly(4))
            assert await is_quiet(arriving)
            await wan.change(outage=Outage.NONE)
            assert await arriving == b"held"

    run(scenario())


def test_what_is_in_the_air_when_an_outage_begins_arrives_after_it(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link(rtt_s=0.1)) as wan, client_of(wan) as (reader, writer):
            await round_trip_s(reader, writer)
            writer.write(b"x")
            await until(lambda: wan.statistics().in_flight_bytes > 0)
            await wan.change(outage=Outage.HANG)
            arriving = asyncio.ensure_future(reader.readexactly(1))
            assert await is_quiet(arriving)
            await wan.change(outage=Outage.NONE)
            assert await arriving == b"x"

    run(scenario())


def test_a_hanging_network_answers_a_new_connection_only_when_it_is_back(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link(outage=Outage.HANG)) as wan, client_of(wan) as (reader, writer):
            writer.write(b"hello")
            arriving = asyncio.ensure_future(reader.readexactly(5))
            assert await is_quiet(arriving)
            await wan.change(outage=Outage.NONE)
            assert await arriving == b"hello"

    run(scenario())


def test_a_refusing_network_refuses_and_comes_back_on_the_same_port(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link()) as wan:
            before = wan.address
            await wan.change(outage=Outage.REFUSE)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*before)
            await wan.change(outage=Outage.NONE)
            assert wan.address == before
            async with client_of(wan) as ends:
                await round_trip_s(*ends)

    run(scenario())


@pytest.mark.lengthy
def test_a_reader_that_does_not_read_stops_the_writer(run: Run) -> None:
    bound = 100_000
    may_read = asyncio.Event()
    received = bytearray()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        while data := await reader.read(1 << 20):
            received.extend(data)

    async def scenario() -> None:
        async with wan_to(late, Link(), in_flight_bytes_max=bound) as wan, client_of(wan) as (reader, writer):
            written = 0
            blocked = False
            while not blocked:
                assert written < 100_000_000, "somebody holds all of it"
                writer.write(bytes(1_000_000))
                written += 1_000_000
                drained = asyncio.ensure_future(writer.drain())
                done, _ = await asyncio.wait({drained}, timeout=0.5)
                blocked = not done
            assert wan.statistics().in_flight_bytes <= bound + PIECE_BYTES_MAX
            may_read.set()
            writer.write_eof()
            assert await reader.read() == b""
            assert len(received) == written

    run(scenario())


def test_a_client_that_has_said_all_still_hears_the_answer(run: Run) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(-1))[::-1])

    async def scenario() -> None:
        async with wan_to(answer_at_the_end, Link(rtt_s=0.01)) as wan, client_of(wan) as (reader, writer):
            writer.write(b"abc")
            writer.write_eof()
            assert await reader.read(-1) == b"cba"

    run(scenario())


def test_a_reset_of_the_upstream_reaches_the_client_after_what_was_sent(run: Run) -> None:
    async def part_then_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        await reader.readexactly(1)
        reset(writer)

    async def scenario() -> None:
        async with wan_to(part_then_reset, Link(rtt_s=0.02)) as wan, client_of(wan) as (reader, writer):
            await round_trip_s(reader, writer)
            writer.write(b"y")
            started_s = tick_s()
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
            assert tick_s() - started_s >= 0.019

    run(scenario())


def test_a_reset_of_the_client_reaches_the_upstream(run: Run) -> None:
    saw: list[type[Exception]] = []
    seen = asyncio.Event()

    async def until_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        try:
            await reader.read(1)
        except ConnectionError as error:
            saw.append(type(error))
        seen.set()

    async def scenario() -> None:
        async with wan_to(until_reset, Link(rtt_s=0.01)) as wan:
            async with client_of(wan) as (reader, writer):
                await round_trip_s(reader, writer)
                reset(writer)
                await seen.wait()
            assert saw == [ConnectionResetError]

    run(scenario())


def test_an_upstream_that_refuses_is_a_reset_after_a_round_trip(run: Run) -> None:
    async def scenario() -> None:
        with socket.create_server((LOCAL, 0)) as unused:
            nowhere = unused.getsockname()
        async with Wan((LOCAL, 0), nowhere, Link(rtt_s=0.05)) as wan:
            started_s = tick_s()
            async with client_of(wan) as (reader, _):
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)
            assert tick_s() - started_s >= 0.05

    run(scenario())


def test_a_client_that_leaves_during_the_hand_shake_costs_no_connection(run: Run) -> None:
    reached: list[bool] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(True)

    async def scenario() -> None:
        async with wan_to(note, Link(rtt_s=50.0)) as wan:
            async with client_of(wan) as (_, writer):
                await until(lambda: wan.statistics().connections == 1)
                reset(writer)
            await until(lambda: wan.statistics().connections == 0)
            assert reached == []

    run(scenario())


def test_a_stopped_wan_has_reset_everybody_and_counted_every_byte(run: Run) -> None:
    async def scenario() -> None:
        async with wan_to(echo, Link()) as wan, client_of(wan) as (reader, writer):
            await round_trip_s(reader, writer, b"12345")
            await wan.stop()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            done = wan.statistics()
            assert (done.connections, done.in_flight_bytes) == (0, 0)
            assert (done.delivered_up_bytes, done.delivered_down_bytes) == (5, 5)

    run(scenario())


@pytest.mark.parametrize(
    ("field", "value"),
    [("rtt_s", -0.1), ("rtt_s", 300.0), ("rtt_s", nan), ("jitter_s", -1.0), ("rate_bytes_per_s", 0.0)],
)
def test_an_impossible_link_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        msgspec.structs.replace(Link(), **{field: value})
