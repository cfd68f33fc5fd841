"""The dashboard beside a gateway: who may see it, what is relayed, and that it comes back and goes with its gateway."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.dashboard.harness import events
from tests.gateway.harness import KEY, Answer, House, house, wire
from tests.http.harness import SetClock, client, eventually, read_request, upstream
from tidegate.clock import Clock
from tidegate.gateway import sessions
from tidegate.gateway.board import Board
from tidegate.gateway.sessions import Sessions
from tidegate.telemetry.log import Log
from tidegate.wire.board import DASHBOARD, TOKEN, Ready, Wish

SECRET = "an admin's secret that nobody guesses"
OURS = (DASHBOARD.decode(), "1")


def guarded(folder: Path) -> dict[str, Any]:
    file = folder / "admin.key"
    file.write_text(SECRET)
    file.chmod(0o600)
    return {"dashboard": True, "admin_key": {"file": "admin.key"}}


async def asked(home: House, method: str, path: str, body: object = None, *headers: tuple[str, str]) -> Answer:
    raw = b"" if body is None else json.dumps(body).encode()
    return await home.send(wire(method, path, raw, headers), port=home.admin_port)


async def up(home: House, *headers: tuple[str, str]) -> None:
    """Until the dashboard is there, and has read what there is."""
    while (await asked(home, "GET", "/api/dashboard/summary", None, *headers)).json["indexed_share"] < 1.0:
        pass


def cookie_of(answer: Answer) -> tuple[str, str]:
    return "cookie", answer.header("set-cookie").partition(";")[0]


@pytest.mark.lengthy
async def test_what_a_gateway_serves_is_seen_in_its_dashboard_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        async with client(home.admin_port) as (reader, writer):
            writer.write(wire("GET", "/api/dashboard/live?minutes=5"))
            seen = b""
            while not events(seen):
                seen += await reader.read(65536)
            assert events(seen)[0]["summary"]["mode"] == "gateway"
            said = await home.ask()
            while len(events(seen)) < 2:
                seen += await reader.read(65536)
        tick = events(seen)[-1]
        assert tick["summary"]["today"]["requests"] == 1
        assert [row["id"] for row in tick["newest"]] == [said.header("x-tidegate-decision")]
        assert [flow["endpoint"] for flow in tick["flow"]["flows"]] == [said.endpoint]
        found = (await asked(home, "GET", "/api/dashboard/requests?limit=5")).json
        assert [row["endpoint"] for row in found["rows"]] == [said.endpoint]


@pytest.mark.lengthy
async def test_where_there_is_no_journal_what_the_dashboard_tells_is_empty(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True, "journal": ""}) as home:
        await up(home)
        await home.ask()
        summary = (await asked(home, "GET", "/api/dashboard/summary")).json
        assert (await asked(home, "GET", "/api/dashboard/surface")).json["cells"] == []
    assert (summary["journal"], summary["rows"], summary["today"]["requests"]) == (False, 0, 0)


@pytest.mark.lengthy
async def test_a_dashboard_that_ends_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.gateway.board.RETRY_S_MIN", 0.01)
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        board = home.gateway.board
        assert board is not None
        first = board.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: board.pid not in (None, first))
        await up(home)
        assert any(line["event"].startswith("the dashboard has ended") for line in home.log("event"))


@pytest.mark.lengthy
async def test_it_is_started_when_somebody_looks_who_is_answered_when_it_is_there(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        board = home.gateway.board
        assert board is not None
        await home.ask()
        assert board.pid is None
        page, told = await asyncio.gather(asked(home, "GET", "/login"), asked(home, "GET", "/api/dashboard/summary"))
        assert (page.status in (200, 404), told.status) == (True, 200)
        assert board.port is not None


@pytest.mark.lengthy
async def test_who_asks_for_it_beside_too_many_others_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.gateway.board.WAITING_MAX", 0)
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        for path, refresh in (("/", "1"), ("/api/dashboard/reasons", "")):
            answer = await asked(home, "GET", path)
            assert (answer.status, answer.header("retry-after"), answer.header("refresh")) == (503, "1", refresh)
        while (await asked(home, "GET", "/api/dashboard/summary")).status == 503:
            pass


@pytest.mark.lengthy
async def test_who_leaves_before_it_is_there_is_forgotten(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        board = home.gateway.board
        assert board is not None
        async with client(home.admin_port) as (_, writer):
            writer.write(wire("GET", "/api/dashboard/summary"))
            await eventually(lambda: board.pid is not None)
        await up(home)


@pytest.mark.parametrize("executable", ["/bin/false", "/bin/is-not-there"])
async def test_who_waits_for_it_is_told_where_it_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr("sys.executable", executable)
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        answer = await asked(home, "GET", "/api/dashboard/summary")
        assert (answer.status, answer.header("retry-after")) == (503, "1")


def is_there(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def saying(folder: Path, *lines: Ready | Wish, stays: bool = True) -> Path:
    """A program that says what a dashboard would, and stays until its gateway ends or leaves at once."""
    said, program = folder / "said", folder / "saying"
    said.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    program.write_text(f"#!/bin/sh\ncat {said}\n" + ("exec cat >/dev/null\n" if stays else ""))
    program.chmod(0o700)
    return program


async def test_a_dashboard_that_dies_while_its_wish_is_fulfilled_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.gateway.board.RETRY_S_MIN", 0.01)
    wishing = saying(tmp_path, Ready(port=1), Wish(number=1, who="", what=""), stays=False)
    monkeypatch.setattr("sys.executable", str(wishing))
    pids = list[int]()

    async def fulfil(_: Wish) -> bytes:
        assert board.pid is not None
        pids.append(board.pid)
        await eventually(lambda: not is_there(pids[-1]))
        return b"{}"

    clock = Clock()
    log = Log.to(tmp_path / "log", clock)
    board = Board(None, tmp_path / "tidegate.toml", fulfil, str, clock=clock, log=log)
    watching = asyncio.get_running_loop().create_task(board.watch())
    board._wanted.set()
    await eventually(lambda: len(pids) > 1)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    log.close()


async def test_a_gateway_ends_while_its_dashboard_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = tmp_path / "ending"
    ending.write_text("#!/bin/sh\necho nonsense\nexec sleep 60\n")
    ending.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(ending))
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        # What it says is not understood, so it is to end, and is waited for.
        assert (await asked(home, "GET", "/api/dashboard/summary")).status == 503


@pytest.mark.lengthy
async def test_a_dashboard_ends_with_its_gateway(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        board = home.gateway.board
        assert board is not None
        pid = board.pid
        assert pid is not None
    assert not is_there(pid)


@pytest.mark.lengthy
async def test_a_dashboard_answers_its_gateway_alone(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        board = home.gateway.board
        assert board is not None
        for headers in ((), ((TOKEN.decode(), "0" * 64),)):
            answer = await home.send(wire("GET", "/api/dashboard/summary", b"", headers), port=board.port)
            assert answer.status == 403
        large = wire("POST", "/api/dashboard/policy/check", bytes(100_000))
        assert (await home.send(large, port=board.port)).status == 413  # nothing of it is kept
        # A token that somebody sends to the gateway is not passed on.
        answer = await asked(home, "GET", "/api/dashboard/summary", None, (TOKEN.decode(), "0" * 64))
        assert answer.status == 200


@pytest.mark.lengthy
async def test_without_the_secret_there_is_a_page_to_log_in_and_nothing_else(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        await up(home, ("authorization", f"Bearer {SECRET}"))
        assert (await asked(home, "GET", "/api/dashboard/summary")).status == 401
        assert (await asked(home, "POST", "/api/dashboard/audit", {}, OURS)).status == 401
        away = await asked(home, "GET", "/")
        assert (away.status, away.header("location")) == (303, "/login")
        # Whether they are there or not: nobody is asked who he is.
        assert (await asked(home, "GET", "/assets/none.css")).status == 404
        assert (await asked(home, "GET", "/login")).status in (200, 404)
        assert (await asked(home, "POST", "/assets/none.css", {}, OURS)).status == 401


@pytest.mark.lengthy
async def test_a_browser_logs_in_and_out(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        await up(home, ("authorization", f"Bearer {SECRET}"))
        answer = await asked(home, "POST", "/login", {"key": SECRET}, OURS)
        assert answer.status == 204
        words = answer.header("set-cookie").split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(words)
        cookie = cookie_of(answer)
        assert (await asked(home, "GET", "/api/dashboard/summary", None, cookie)).status == 200
        assert (await asked(home, "GET", "/api/state", None, cookie)).status == 200
        assert (await asked(home, "GET", "/api/state", None, ("cookie", "tidegate=" + "a" * 43))).status == 401
        assert (await asked(home, "POST", "/logout", {}, OURS, cookie)).status == 204
        assert (await asked(home, "GET", "/api/state", None, cookie)).status == 401


async def test_gateways_on_several_ports_of_a_host_leave_each_others_operators_logged_in() -> None:
    browser: dict[bytes, bytes] = {}
    one, other = (Sessions(SetClock(), list[str]().append) for _ in range(2))
    hosts = {b"localhost:8401": one, b"localhost:9401": other}
    for host, known in hosts.items():
        _, given = sessions.cookie(known.begin(), {b"host": host}, secure=False)
        name, _, value = given.partition(b";")[0].partition(b"=")
        browser[name] = value
    jar = b"; ".join(b"%b=%b" % pair for pair in browser.items())
    for host, known in hosts.items():
        assert known.name({b"host": host, b"cookie": jar}) is not None
    one.end({b"host": b"localhost:8401", b"cookie": jar})
    assert one.name({b"host": b"localhost:8401", b"cookie": jar}) is None
    assert other.name({b"host": b"localhost:9401", b"cookie": jar}) is not None


async def test_who_guesses_is_slowed_down_and_the_secret_still_opens(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        seen = [
            (await asked(home, "POST", "/login", {"key": "wrong"}, OURS)).status
            for _ in range(sessions.FAILURES_PER_MINUTE + 2)
        ]
        assert seen[0] == 401
        assert seen[-1] == 429
        assert (await asked(home, "POST", "/login", {"key": SECRET}, OURS)).status == 429
        bearer = "authorization", f"Bearer {SECRET}"
        assert (await asked(home, "GET", "/api/state", None, bearer)).status == 200
        assert (await asked(home, "POST", "/login", {"no": 1}, OURS)).status == 429


async def test_who_guesses_keeps_out_nobody_at_another_address_until_many_do() -> None:
    clock = SetClock()
    known = Sessions(clock, list[str]().append)
    for _ in range(sessions.FAILURES_PER_MINUTE):
        assert known.wait_s("192.0.2.1") == 0.0
        known.fail("192.0.2.1")
    assert known.wait_s("192.0.2.1") > 0.0
    assert known.wait_s("192.0.2.2") == 0.0
    clock.at_s += 60.0
    assert known.wait_s("192.0.2.1") == 0.0
    for number in range(sessions.FAILURES_OF_ALL_PER_MINUTE):
        assert known.wait_s("192.0.2.1") == 0.0
        known.fail(f"2001:db8::{number:x}")
    assert known.wait_s("192.0.2.1") > 0.0


async def test_of_all_who_have_failed_to_log_in_no_more_are_remembered_than_have_to_wait() -> None:
    clock = SetClock()
    known = Sessions(clock, list[str]().append)
    for number in range(1000):
        clock.at_s += (wait_s := known.wait_s(f"one {number}"))
        known.fail(f"one {number}")
    assert wait_s > 0.0
    assert len(known._failures_of) == (most := 2 * sessions.FAILURES_OF_ALL_PER_MINUTE)
    # Whoever failed last has to wait, however early he was the first to fail.
    clock.at_s += 60.0
    early = next(iter(known._failures_of))
    for _ in range(sessions.FAILURES_PER_MINUTE):
        known.fail(early)
    known.fail("one more")
    assert known.wait_s(early) > 0.0
    assert len(known._failures_of) == most


async def test_a_page_of_others_changes_nothing_with_a_cookie_of_ours(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        pin = "/api/endpoints/laptop/pin"
        for headers in ((), (OURS, ("origin", "https://evil.example"))):
            assert (await asked(home, "PUT", pin, {}, cookie, *headers)).status == 403
        assert (await asked(home, "POST", "/login", {"key": SECRET})).status == 403
        own = "origin", "http://127.0.0.1"
        assert (await asked(home, "PUT", pin, {}, cookie, OURS, own)).status == 200
        assert (await asked(home, "DELETE", pin, {}, cookie, OURS)).status == 200


@pytest.mark.lengthy
async def test_without_a_secret_no_page_of_others_sees_the_dashboard(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        for path in ("/", "/api/dashboard/summary", "/login", "/assets/a.js"):
            answer = await home.send(
                b"GET %b HTTP/1.1\r\nhost: evil.example\r\n\r\n" % path.encode(), port=home.admin_port
            )
            assert answer.status == 403
        embedded = ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")
        assert (await asked(home, "GET", "/api/dashboard/live", None, *embedded)).status == 403
        followed = ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")
        assert (await asked(home, "GET", "/", None, *followed)).status == 200


async def test_another_secret_ends_every_session(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        (tmp_path / "admin.key").write_text(SECRET + " and more")
        assert not (await home.gateway.reloader.reload("a test")).problems
        assert (await asked(home, "GET", "/api/state", None, cookie)).status == 401


@pytest.mark.lengthy
@pytest.mark.parametrize("by", ["logging out", "another secret", "others"])
async def test_a_stream_ends_with_what_has_opened_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        await up(home, cookie)
        async with client(home.admin_port) as (reader, writer):
            writer.write(wire("GET", "/api/dashboard/live", b"", (cookie,)))
            await reader.readuntil(b"event: tick")
            if by == "logging out":
                assert (await asked(home, "POST", "/logout", None, cookie, OURS)).status == 204
            elif by == "others":
                for _ in range(2):
                    assert (await asked(home, "POST", "/login", {"key": SECRET}, OURS)).status == 204
            else:
                (tmp_path / "admin.key").write_text(SECRET + " and more")
                assert not (await home.gateway.reloader.reload("a test")).problems
            await asyncio.wait_for(reader.read(), 5.0)  # to its end


async def test_a_stream_that_is_being_opened_when_its_session_ends_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for, goes_on, hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def opens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked_for.set()
        await goes_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await reader.read()
        hung_up.set()

    async with upstream(opens) as dashboard, house(tmp_path, gateway=guarded(tmp_path)) as home:
        monkeypatch.setattr("sys.executable", str(saying(tmp_path, Ready(port=dashboard.port))))
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        async with client(home.admin_port) as (reader, writer):
            writer.write(wire("GET", "/api/dashboard/live", b"", (cookie,)))
            await asked_for.wait()
            assert (await asked(home, "POST", "/logout", None, cookie, OURS)).status == 204
            goes_on.set()
            await asyncio.wait_for(hung_up.wait(), 5.0)
            assert await reader.read() == b""


@pytest.mark.parametrize("asks", [True, False])
async def test_a_session_that_is_old_enough_ends_whether_it_asks_or_not(
    monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    monkeypatch.setattr(sessions, "LOOK_S", 3600.0 if asks else 0.01)
    clock, ended = SetClock(), list[str]()
    known = Sessions(clock, ended.append)
    _, given = sessions.cookie(known.begin(), {}, secure=False)
    headers = {b"cookie": given.partition(b";")[0]}
    clock.at_s += sessions.AGE_S - 1.0
    name = known.name(headers)
    assert (name is None, ended) == (False, [])
    clock.at_s += 1.0
    if asks:
        assert known.name(headers) is None
    await eventually(lambda: ended == [name])


async def test_what_operators_change_is_written_down_with_who_they_are(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        await asked(home, "PUT", "/api/static", {}, cookie, OURS)
        await asked(home, "POST", "/api/config?dry_run=true", {}, ("authorization", f"Bearer {SECRET}"))
        await asked(home, "POST", "/api/config", {}, ("authorization", f"Bearer {SECRET}"))
        await asked(home, "DELETE", "/api/static", {}, cookie, OURS)
    lines = [json.loads(line) for line in (tmp_path / "journal" / "changes.jsonl").read_text().splitlines()]
    assert [(line["what"], line["applied"]) for line in lines] == [
        ("set by hand", True),
        ("configuration reloaded", True),
        ("set by hand", True),
    ]
    assert lines[0]["changes"] == [{"path": "overrides.static", "before": False, "after": True}]
    assert lines[0]["who"].startswith("session ")
    assert lines[1]["who"].startswith("admin_key from ")
    assert SECRET not in json.dumps(lines)


@pytest.mark.lengthy
async def test_who_has_shown_the_secret_changes_all_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", KEY)  # of the dashboard's process, as of its gateway's
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        cookie = cookie_of(await asked(home, "POST", "/login", {"key": SECRET}, OURS))
        await up(home, cookie)
        seen = (await asked(home, "GET", "/api/dashboard/policy", None, cookie)).json
        wanted = {"text": seen["text"].replace("[budget]", "[budget]\nusd_per_day = 5"), "revision": seen["revision"]}
        sent = cookie, OURS, ("content-type", "application/json")
        assert (await asked(home, "POST", "/api/dashboard/policy/apply", wanted, *sent)).json["applied"]


async def test_the_head_of_an_answer_is_told_without_it(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        answer = await home.get("/api/dashboard/reasons", method="HEAD", admin=True)
        assert (answer.status, answer.body) == (200, b"")
        assert (await home.get("/api/dashboard/live", method="HEAD", admin=True)).status == 200


async def test_a_slow_reader_holds_up_nobody_else(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        await up(home)
        async with client(home.admin_port) as (_, writer):
            writer.write(wire("GET", "/api/dashboard/live"))  # and reads nothing
            answers = await asyncio.gather(*(asked(home, "GET", "/api/dashboard/reasons") for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
