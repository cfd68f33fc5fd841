"""The provider itself: it does what the list says, whoever asks, and has an end."""

import asyncio
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, wire
from tests.http.harness import client, eventually, read_response
from tests.lab.processes import running
from tidegate.cli.chaos import show
from tidegate.cli.main import main
from tidegate.cli.output import Console
from tidegate.engines.faults import EXPECTED, FAULTS, Fault, Kind
from tidegate.engines.words import Words
from tidegate.lab import chaos as chaos_module
from tidegate.lab.chaos import Chaos, Tally
from tidegate.lab.misdeeds import Asked, Pace, Then, play

PACE = Pace(token_s=0.0, trickle_s=0.0, comment_s=0.0)
ON_PATHS = [fault for fault, told in FAULTS.items() if not told.below_http]


def post(fault: Fault | None, **fields: Any) -> bytes:
    prefix = f"/{fault.value}" if fault else ""
    return wire("POST", f"{prefix}/v1/chat/completions", json.dumps(chat(**fields)).encode())


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


def test_every_fault_is_described_and_every_kind_has_an_expectation() -> None:
    assert list(FAULTS) == list(Fault)
    assert set(EXPECTED) == set(Kind)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("chatting", [True, False])
@pytest.mark.parametrize("fault", ON_PATHS)
def test_the_script_of_a_fault_stalls_if_and_only_if_its_description_says_so(
    fault: Fault, chatting: bool, streamed: bool
) -> None:
    words = Words(model="m", chat=chatting, body_bytes=40)
    script = play(fault, Asked(words=words, streamed=streamed, now_s=0.0), PACE)
    steps = list(islice(script, 5000))
    comes_to_no_end = len(steps) == 5000 or steps[-1] is Then.STALL
    assert comes_to_no_end is FAULTS[fault].waits


@pytest.mark.parametrize("fault", [f for f in ON_PATHS if FAULTS[f].kind in (Kind.HARMLESS, Kind.FINAL)])
async def test_a_connection_outlives_an_answer_that_is_complete(fault: Fault) -> None:
    async with Chaos(pace=PACE) as chaos, client(port_of(chaos.base_url(fault))) as (reader, writer):
        for count in (1, 2):
            writer.write(post(fault, stream=True))
            await read_response(reader)
            assert chaos.seen[fault].requests == count
            await eventually(lambda: chaos.seen[fault].in_flight == 0)


async def test_without_a_fault_it_behaves() -> None:
    async with Chaos(pace=PACE) as chaos, client(port_of(chaos.base_url())) as (reader, writer):
        writer.write(post(None))
        assert json.loads((await read_response(reader)).body)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", ["/v1/models", "/health"])
@pytest.mark.parametrize("fault", ON_PATHS)
async def test_a_probe_is_answered_as_if_nothing_were_wrong(fault: Fault, path: str) -> None:
    async with Chaos(pace=PACE) as chaos, client(port_of(chaos.base_url(fault))) as (reader, writer):
        writer.write(wire("GET", f"/{fault.value}{path}"))
        assert (await read_response(reader)).status == 200
        assert chaos.seen[fault].requests == 0


async def test_what_it_saw_is_told_at_seen() -> None:
    async with Chaos(pace=PACE) as chaos:
        async with client(port_of(chaos.base_url(Fault.SILENT))) as (_, writer):
            writer.write(post(Fault.SILENT))
            await eventually(lambda: chaos.seen[Fault.SILENT].in_flight == 1)
        await eventually(lambda: chaos.seen[Fault.SILENT].left == 1)
        async with client(port_of(chaos.base_url())) as (reader, writer):
            writer.write(wire("GET", "/seen"))
            seen = json.loads((await read_response(reader)).body)
    assert seen == {"silent": {"requests": 1, "left": 1, "in_flight": 0}}


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00", b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n"])
async def test_what_it_cannot_serve_is_told(raw: bytes) -> None:
    async with Chaos() as chaos, client(port_of(chaos.base_url())) as (reader, writer):
        writer.write(raw)
        response = await read_response(reader)
        assert response.status in (400, 404)
        assert json.loads(response.body)["error"]["message"]


async def test_a_body_that_is_no_request_is_told() -> None:
    async with Chaos() as chaos, client(port_of(chaos.base_url())) as (reader, writer):
        writer.write(wire("POST", "/cut/v1/chat/completions", b"[]"))
        assert (await read_response(reader)).status == 400


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.COMMENTS, Fault.UNREAD])
async def test_a_stall_that_nobody_ends_has_an_end(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_module, "ANSWER_S_MAX", 0.05)
    async with Chaos() as chaos, client(port_of(chaos.base_url(fault))) as (reader, writer):
        writer.write(post(fault, stream=True))
        said = b""
        with suppress(ConnectionResetError):  # what was not read is lost, which the system tells so
            said = await reader.read()
        assert b"[DONE]" not in said
        await eventually(lambda: chaos.seen[fault].in_flight == 0)


@pytest.mark.parametrize("fault", [Fault.TLS_STALL, Fault.UNREAD])
async def test_who_leaves_a_listener_that_says_nothing_is_counted(fault: Fault) -> None:
    async with Chaos() as chaos:
        async with client(port_of(chaos.base_url(fault))) as (_, writer):
            writer.write(post(fault))
            await eventually(lambda: chaos.seen[fault].in_flight == 1)
        await eventually(lambda: chaos.seen[fault].left == 1)
        assert chaos.seen[fault] == Tally(requests=1, left=1)


@pytest.mark.lengthy
async def test_what_is_sent_to_who_never_reads_stays_with_the_sender() -> None:
    async with Chaos() as chaos:
        async with client(port_of(chaos.base_url(Fault.UNREAD))) as (_, writer):
            # Closed like this, it does not wait for what was sent to be taken.
            asked = writer.get_extra_info("socket")
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(b" " * (64 * 1024 * 1024))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 1.0)
            assert chaos.seen[Fault.UNREAD] == Tally(requests=1, in_flight=1)
            writer.transport.abort()
        await eventually(lambda: chaos.seen[Fault.UNREAD].left == 1)


async def test_a_request_before_the_last_was_answered_ends_the_connection() -> None:
    async with Chaos() as chaos, client(port_of(chaos.base_url(Fault.SILENT))) as (reader, writer):
        writer.write(post(Fault.SILENT) + post(Fault.SILENT))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


def four_free_ports() -> int:
    """The first of four, below those that the system hands out by itself."""
    for first in range(20_000, 30_000, 4):
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + 4):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no four ports in a row are free")


@pytest.mark.parametrize("offset", range(4))
async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open(offset: int) -> None:
    first = four_free_ports()
    with (
        socket.create_server(("127.0.0.1", first + offset)),
        pytest.raises(OSError, match="in use"),
    ):
        await Chaos(port=first).__aenter__()
    async with Chaos(port=first) as chaos:
        assert port_of(chaos.base_url()) == first


def test_a_wrong_option_is_refused_with_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in ((["--only", "typo"], "huge_frame"), (["--port", "65533"], "from 0 to 65532")):
        with pytest.raises(SystemExit) as caught:
            main(["chaos", *options])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("only", [None, Fault.REFUSED, Fault.SILENT])
async def test_the_list_is_whole_however_narrow_the_terminal_is_and_whom_it_shows_how_to_ask_answers(
    only: Fault | None,
) -> None:
    text = io.StringIO()
    async with Chaos(pace=PACE) as chaos:
        rows = [row for row in chaos.rows() if only in (None, row.fault)]
        show(Console(file=text, width=40), rows, chaos.base_url())
        said = text.getvalue()
        for row in rows:
            told = next(line for line in said.splitlines() if row.base_url in line)
            assert told.split() == [row.fault.value, row.base_url, *row.meaning.split()]
        (aimed,) = re.findall(r"curl http://127.0.0.1:\d+(\S*/v1/chat/completions) ", said)
        async with client(port_of(chaos.base_url())) as (reader, writer):
            writer.write(wire("POST", aimed, json.dumps(chat()).encode()))
            assert (await read_response(reader)).status == 200


def test_who_has_read_enough_of_the_list_is_not_told_of_a_port() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tidegate.cli.main", "chaos", "--port", "0", "--json"]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.lengthy
@pytest.mark.parametrize("as_json", [True, False])
async def test_the_command_prints_what_to_aim_at_and_ends_when_it_is_told_to(as_json: bool, tmp_path: Path) -> None:
    command = ["tidegate.cli.main", "chaos", "--port", "0", "--only", "cut", "stall", *(["--json"] if as_json else [])]
    here = Path(__file__).parents[2]
    async with running(sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE, cwd=here) as process:
        assert process.stdout is not None
        said = b""
        while b"/seen" not in said and b"]\n" not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line
        process.terminate()
        assert await process.wait() == 0
    if as_json:
        rows = {row["fault"]: row for row in json.loads(said)}
        assert rows.keys() == {"cut", "stall"}
        assert rows["cut"]["base_url"].endswith("/cut/v1")
        assert rows["cut"]["expected"] == EXPECTED[Kind.AFTER_CONTENT]
        assert rows["stall"]["waits"]
    else:
        assert b"/cut/v1" in said
        assert b"/html/v1" not in said
        assert EXPECTED[Kind.AFTER_CONTENT].encode() in said
