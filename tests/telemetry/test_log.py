"""The log writes whole lines, shows no secrets, and waits for nobody."""

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.http.harness import eventually
from tidegate.clock import Clock
from tidegate.config.secret import Secret
from tidegate.telemetry import log as log_module
from tidegate.telemetry.event import WideEvent
from tidegate.telemetry.log import Log

EVENT = WideEvent(
    at_s=1.5,
    request_id="r1",
    decision_id="d1",
    key="alice-1",
    klass="interactive",
    model="m",
    endpoint="laptop",
    why="cheapest_on_time",
    attempts=1,
    hedged=False,
    resumed=False,
    stream=True,
    status=200,
    outcome="ok",
    code=None,
    cause=None,
    prompt_tokens=12,
    output_tokens=34,
    ttft_s=0.1,
    predicted_ttft_s=0.2,
    e2e_s=1.0,
    held_s=0.0,
    cost_usd=0.0001,
)


def parsed(text: bytes) -> list[dict[str, Any]]:
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_request_is_one_line_at_the_end_of_the_tick(tmp_path: Path) -> None:
    file = tmp_path / "log"

    async def run() -> None:
        log = Log.to(file, Clock())
        log.request(EVENT)
        log.request(EVENT)
        assert file.read_bytes() == b""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first, second = parsed(file.read_bytes())
        assert first == second
        assert msgspec.convert(first, WideEvent) == EVENT
        log.close()

    asyncio.run(run())
    assert file.stat().st_mode & 0o077 == 0


def test_an_event_is_written_at_once_even_without_a_loop(tmp_path: Path) -> None:
    log = Log.to(tmp_path / "log", Clock())
    log.event("info", "started", port=1, what=None)
    (line,) = parsed((tmp_path / "log").read_bytes())
    assert line.pop("at").endswith("+00:00")
    assert line == {"type": "event", "level": "info", "event": "started", "port": 1, "what": None}
    log.close()


def test_a_file_is_continued(tmp_path: Path) -> None:
    for _ in range(2):
        log = Log.to(tmp_path / "log", Clock())
        log.event("info", "started")
        log.close()
    assert len(parsed((tmp_path / "log").read_bytes())) == 2


def writes_to(log: Log, file: Path) -> bool:
    """Whether the log goes on in what has this name now."""
    return file.exists() and os.path.samestat(os.fstat(log._fd), file.stat())


def renamed(file: Path) -> Path | None:
    return file.rename(file.with_name("log.1"))


def removed(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> Path | None:
    old = renamed(file)
    file.touch()
    return old


@pytest.mark.parametrize("rotate", [renamed, removed, replaced])
def test_a_file_that_is_rotated_is_followed_by_another_of_its_name(
    rotate: Callable[[Path], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LOOK_S", 0.001)
    file = tmp_path / "log"

    async def run() -> None:
        log = Log.to(file, Clock())
        watching = asyncio.create_task(log.watch())
        log.event("info", "before")
        old = rotate(file)
        log.event("info", "between")
        await eventually(lambda: writes_to(log, file))
        log.event("info", "after")
        watching.cancel()
        log.close()
        if old is not None:
            assert [line["event"] for line in parsed(old.read_bytes())] == ["before", "between"]

    asyncio.run(run())
    assert [line["event"] for line in parsed(file.read_bytes())] == ["after"]


def test_a_file_that_is_made_after_one_that_was_rotated_has_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LOOK_S", 0.001)
    file = tmp_path / "log"

    async def run() -> None:
        log = Log.to(file, Clock())
        file.chmod(0o664)
        watching = asyncio.create_task(log.watch())
        renamed(file)
        await eventually(lambda: writes_to(log, file))
        assert stat.S_IMODE(file.stat().st_mode) == 0o664
        renamed(file)
        file.touch(0o600)
        await eventually(lambda: writes_to(log, file))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, "whoever made it has given it a mode"
        watching.cancel()
        log.close()

    asyncio.run(run())


def test_a_pipe_that_nobody_reads_in_the_place_of_the_file_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LOOK_S", 0.001)
    file, opening, tried = tmp_path / "log", os.open, list[object]()

    def seen(path: object, flags: int, mode: int = 0o777) -> int:
        assert flags & os.O_NONBLOCK, "it would wait for a reader"
        tried.append(path)
        return opening(path, flags, mode)  # type: ignore[arg-type]

    async def run() -> None:
        log = Log.to(file, Clock())
        old = renamed(file)
        assert old is not None
        os.mkfifo(file)
        monkeypatch.setattr(os, "open", seen)
        watching = asyncio.create_task(log.watch())
        await eventually(lambda: tried.count(file) > 1)
        log.event("info", "between")
        assert [line["event"] for line in parsed(old.read_bytes())] == ["between"]
        file.unlink()
        await eventually(lambda: writes_to(log, file))
        watching.cancel()
        log.close()

    asyncio.run(run())


def test_a_pipe_that_nobody_reads_is_no_log_to_begin_with_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log"
    os.mkfifo(file)
    with pytest.raises(OSError, match="nobody reads this pipe") as refused:
        Log.to(file, Clock())
    assert str(file) in str(refused.value)


def test_a_pipe_that_somebody_reads_takes_lines_and_again_when_its_reader_is_back(tmp_path: Path) -> None:
    file = tmp_path / "log"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    log = Log.to(file, Clock())
    log.event("info", "one")
    assert [line["event"] for line in parsed(os.read(reader, 65536))] == ["one"]
    os.close(reader)
    log.event("info", "two")
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    log.event("info", "three")
    assert [line["event"] for line in parsed(os.read(reader, 65536))] == ["two", "three"]
    os.close(reader)
    log.close()


def test_a_disk_that_hangs_where_it_is_asked_for_the_file_does_not_stop_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LOOK_S", 0.001)
    file, look = tmp_path / "log", Path.stat
    asking, go_on = list[threading.Thread](), threading.Event()

    def hanging(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == file:
            asking.append(threading.current_thread())
            go_on.wait(10)
        return look(path, follow_symlinks=follow_symlinks)

    async def run() -> None:
        log = Log.to(file, Clock())
        monkeypatch.setattr(Path, "stat", hanging)
        watching = asyncio.create_task(log.watch())
        await eventually(lambda: bool(asking))
        log.event("info", "meanwhile")
        assert len(parsed(file.read_bytes())) == 1
        assert not go_on.is_set()
        assert threading.main_thread() not in asking
        watching.cancel()
        go_on.set()
        log.close()

    asyncio.run(run())


def test_a_secret_is_not_written(tmp_path: Path) -> None:
    log = Log.to(tmp_path / "log", Clock())
    log.event("info", "started", key=Secret("sk-verysecret"))  # type: ignore[arg-type]
    (line,) = parsed((tmp_path / "log").read_bytes())
    assert line["key"] == "***"
    log.close()


def test_what_cannot_be_encoded_is_dropped_and_told(tmp_path: Path) -> None:
    log = Log.to(tmp_path / "log", Clock())
    log.event("info", "\ud800")
    log.event("info", "next")
    assert [line["event"] for line in parsed((tmp_path / "log").read_bytes())] == ["log lines dropped", "next"]
    assert log.dropped == 1
    log.close()


@pytest.fixture
def soon_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of some hundred lines, and no time between two tries."""
    monkeypatch.setattr(log_module, "BACKLOG_BYTES_MAX", 200_000)
    monkeypatch.setattr(log_module, "RETRY_S", 0.001)


def stalls_for_nobody(reading: int, writing: int) -> None:
    """Nobody reads; then somebody does."""

    async def run() -> None:
        log = Log(writing, Clock())
        for _ in range(20):
            for _ in range(200):
                log.request(EVENT)
            await asyncio.sleep(0)
        assert log.dropped > 0
        assert len(log._backlog) <= log_module.BACKLOG_BYTES_MAX + 1000
        found = b""
        os.set_blocking(reading, False)
        async with asyncio.timeout(20):
            while b"log lines dropped" not in found:
                try:
                    found += os.read(reading, 1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0)
        assert any(line.get("event") == "log lines dropped" for line in parsed(found[: found.rfind(b"\n") + 1]))
        log.close()

    asyncio.run(run())


@pytest.mark.usefixtures("soon_full")
def test_a_pipe_that_nobody_reads_does_not_stop_the_loop_and_what_was_dropped_is_told_later() -> None:
    reading, writing = os.pipe()
    stalls_for_nobody(reading, writing)
    assert os.get_blocking(writing), "the flag belongs to all who share the pipe"
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("soon_full")
def test_a_socket_that_nobody_reads_does_not_stop_the_loop() -> None:
    reading, writing = socket.socketpair()
    stalls_for_nobody(reading.fileno(), writing.fileno())
    reading.close()
    writing.close()


def test_a_terminal_that_stands_still_does_not_stop_the_loop() -> None:
    reading, writing = os.openpty()
    log = Log(writing, Clock())
    for _ in range(2000):
        log.event("info", "x" * 100)
    assert len(log._backlog) > 0
    log.close()
    os.close(reading)
    os.close(writing)


def test_a_pipe_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = Log(writing, Clock())
    log.event("info", "anybody there")
    log.close()
    os.close(writing)


def test_lines_of_several_processes_do_not_mix_in_a_pipe() -> None:
    """Each write holds whole lines and no more than a pipe takes at once."""
    reading, writing = os.pipe()
    log = Log(writing, Clock())

    async def run() -> None:
        for _ in range(30):
            log.request(EVENT)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert len(parsed(os.read(reading, 1 << 20))) == 30
    piece = log_module._piece(bytearray(b"a" * 3000 + b"\n" + b"b" * 3000 + b"\n"))
    assert piece == b"a" * 3000 + b"\n"
    log.close()
    os.close(reading)
    os.close(writing)
