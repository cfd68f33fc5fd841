"""The control address and the command of the emulated network."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from tests.lab.processes import running
from tests.lab.raw import exchange
from tests.lab.test_wan import LOCAL, echo, round_trip_s, serving
from tidegate.clock import Clock
from tidegate.lab.wan import Link, Outage, Wan, control_server, parse

AS_STARTED = {"rtt_ms": 100.0, "jitter_ms": 0.0, "rate_mbit": None, "outage": "none"}


@asynccontextmanager
async def controlled() -> AsyncIterator[tuple[Wan, int]]:
    """A Wan with a round trip of 100 ms, and the port of its control address."""
    async with serving(echo) as upstream, Wan((LOCAL, 0), upstream, Link(rtt_s=0.1)) as wan:
        server = control_server(wan, Clock())
        await server.start(LOCAL, 0)
        yield wan, server.port
        await server.close(grace_s=0.0)


def test_the_link_is_told_in_the_units_in_which_it_is_set() -> None:
    async def scenario() -> None:
        async with controlled() as (_, port):
            assert msgspec.json.decode((await exchange(port, "GET", "/link")).body) == AS_STARTED
            wanted = {"rtt_ms": 300.0, "jitter_ms": 20.0, "rate_mbit": 8.0, "outage": "hang"}
            for method, body in (("PUT", wanted), ("GET", None)):
                answer = await exchange(port, method, "/link", body)
                assert (answer.status, msgspec.json.decode(answer.body)) == (200, wanted)

    asyncio.run(scenario())


def test_what_a_change_leaves_out_stays_as_it_is() -> None:
    async def scenario() -> None:
        async with controlled() as (wan, port):
            await exchange(port, "PUT", "/link", {"rate_mbit": 8})
            assert wan.link == Link(rtt_s=0.1, rate_bytes_per_s=1e6)
            await exchange(port, "PUT", "/link", {"rate_mbit": None, "outage": "refuse"})
            assert wan.link == Link(rtt_s=0.1, outage=Outage.REFUSE)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"rtt": 300}, "rtt"),
        ({"rtt_ms": -1}, "$.rtt_ms"),
        ({"rtt_ms": "300"}, "$.rtt_ms"),
        ({"rate_mbit": 0}, "$.rate_mbit"),
        ({"outage": "yes"}, "$.outage"),
        ([300], "object"),
        (None, "truncated"),
    ],
)
def test_bad_settings_change_nothing_and_are_answered_with_what_and_remedy(body: object, what: str) -> None:
    async def scenario() -> None:
        async with controlled() as (wan, port):
            answer = await exchange(port, "PUT", "/link", body)
            message = msgspec.json.decode(answer.body)["error"]["message"]
            assert answer.status == 400
            assert what in message
            assert "rtt_ms, jitter_ms, rate_mbit, outage" in message
            assert wan.link == Link(rtt_s=0.1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/link", 405)])
def test_other_addresses_say_where_the_link_is(method: str, path: str, status: int) -> None:
    async def scenario() -> None:
        async with controlled() as (_, port):
            assert (await exchange(port, method, path)).status == status

    asyncio.run(scenario())


def test_the_command_relays_with_delay_and_ends_on_sigterm_with_status_0() -> None:
    async def scenario() -> None:
        async with serving(echo) as (host, port, *_):
            words = ["-m", "tidegate.lab.wan", f"--to={host}:{port}", "--rtt-ms=50", "--control=0"]
            async with running(sys.executable, *words, stdout=asyncio.subprocess.PIPE) as process:
                assert process.stdout is not None
                listening = int((await process.stdout.readline()).decode().rsplit(":", 1)[1])
                reader, writer = await asyncio.open_connection(LOCAL, listening)
                assert await round_trip_s(reader, writer) >= 0.05
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
                writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--to=localhost"], "HOST:PORT"),
        (["--to=localhost:http"], "HOST:PORT"),
        (["--to=localhost:80", "--rtt-ms=-5"], "round trip"),
        (["--to=localhost:80", "--rate-mbit=0"], "rate"),
    ],
)
def test_a_bad_command_line_says_what_is_wrong(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert what in capsys.readouterr().err
