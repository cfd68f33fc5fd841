"""What operators set by hand: drains, pins and the switch to the static rule. Hard rules hold all the same."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.gateway.harness import House, chat, house, local, remote, wire
from tests.gateway.test_reload import edit, endpoint, file, reload
from tests.http.harness import client, eventually
from tidegate.core.model import Overrides
from tidegate.engines.fake import FakeEngine, Script

SLOW = Script(tokens=40, token_s=0.01)
SECRET = "an-admin-secret-of-24-bytes"


async def put(home: House, path: str) -> Overrides:
    answer = await home.change("PUT", path)
    assert answer.status == 200, answer.body
    return msgspec.convert(answer.json, Overrides)


async def test_a_drained_endpoint_finishes_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(SLOW), cloud=remote()) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 2)
        assert (await put(home, "/api/endpoints/laptop/drain")).drained == ("laptop",)
        assert [(await home.ask()).endpoint for _ in range(3)] == ["cloud"] * 3
        shown = (await home.get("/api/state", admin=True)).json["endpoints"]["laptop"]
        assert (shown["drained"], shown["in_flight"]) == (True, 1)
        assert (await streaming).text.endswith("w40 ")
        back = await home.change("DELETE", "/api/endpoints/laptop/drain")
        assert back.json == {"drained": [], "pinned": [], "static": False}
        assert (await home.ask()).endpoint == "laptop"
    told = [e for e in home.log("event") if e["event"] == "overrides set by hand"]
    assert [e["drained"] for e in told] == ["laptop", ""]


async def test_where_all_is_drained_the_refusal_says_so(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        await put(home, "/api/endpoints/laptop/drain")
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (503, "no_endpoint_available")
    assert "draining" in answer.error["message"]
    assert answer.header("x-tidegate-why") == "drained"


async def test_what_is_held_for_a_drained_endpoint_goes_elsewhere(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(SLOW, concurrency=1), cloud=remote()) as home:
        first = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 0)
        second = asyncio.create_task(home.ask(x_tidegate_slo_e2e_ms="60000"))
        await eventually(lambda: home.gateway.router.held == 1)
        await put(home, "/api/endpoints/laptop/drain")
        assert (await second).endpoint == "cloud"
        assert not first.done()
        await first


async def test_a_pinned_model_is_served_there_and_nowhere_else_even_when_it_fails(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote()) as home:
        assert (await put(home, "/api/endpoints/cloud/pin")).pinned == ("cloud",)
        answer = await home.ask()
        assert (answer.endpoint, answer.header("x-tidegate-why")) == ("cloud", "only_pinned")
        home.engines["cloud"].script = Script(status=500)
        assert (await home.ask()).status == 502
        assert home.engines["laptop"].seen == []


async def test_a_pin_takes_no_data_where_it_may_not_go(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote()) as home:
        await put(home, "/api/endpoints/cloud/pin")
        answer = await home.ask(x_tidegate_residency="local")
        assert answer.status == 503
        assert "pinned this model to another endpoint" in answer.error["message"]
        assert home.engines["cloud"].seen == []


async def test_a_step_of_a_plan_from_before_a_drain_is_not_taken(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(first_s=60)), cloud=remote()) as home:
        asking = asyncio.create_task(home.ask(x_tidegate_slo_ttft_ms="50000"))
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        await put(home, "/api/endpoints/cloud/drain")
        await home.fell("laptop")
        # Decided anew, there is nobody but who has failed.
        assert (await asking).status == 502
        assert home.engines["cloud"].seen == []


async def test_the_switch_puts_the_static_rule_in_force_until_it_is_taken_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        assert (await put(home, "/api/static")).static
        assert [(await home.ask()).header("x-tidegate-why") for _ in range(2)] == ["static_rule"] * 2
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert "tidegate_static_rule 1.0" in metrics
        assert (await home.get("/api/overrides", admin=True)).json["static"] is True
        await home.change("DELETE", "/api/static")
        assert (await home.ask()).header("x-tidegate-why") != "static_rule"


async def test_the_switch_takes_force_for_what_is_held_and_shows(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(SLOW, concurrency=1), policy={"recheck_ms": 10_000}) as home:
        first = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 0)
        second = asyncio.create_task(home.ask())
        await eventually(lambda: home.gateway.router.held == 1)
        await put(home, "/api/static")
        assert (await home.get("/api/state", admin=True)).json["static"] is True
        # It keeps waiting for its slot, and no prediction lets it start.
        assert (await second).header("x-tidegate-why") == "static_rule"
        await first
        assert home.engines["laptop"].peak == 1


async def test_the_switch_outlives_a_reload(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await put(home, "/api/static")
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        assert (await reload(home))["applied"]
        assert home.gateway.router.overrides.static
        assert (await home.ask()).header("x-tidegate-why") == "static_rule"


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_operators_do_what_must_stay_stays(tmp_path: Path, seed: int) -> None:
    """Drains, pins, the switch and reloads in any order, under a stream of requests that must stay local."""
    draw = Random(seed)
    async with house(tmp_path, laptop=local(), desk=local(), cloud=remote()) as home:
        good, moved = file(home).read_text(), []
        for name in ("laptop", "desk"):
            at = good.index(f"[endpoint.{name}]")
            price = 'price = { "usd_per_1m_input_tokens" = 1, "usd_per_1m_output_tokens" = 1 }\n'
            moved.append(good[:at] + good[at:].replace('site = "home"\n', 'site = "away"\n' + price, 1))
        asked = []
        assert (await home.ask(x_tidegate_residency="local")).status == 200

        def ask(mark: str) -> None:
            asked.append(asyncio.create_task(home.ask(chat(mark, stream=True), x_tidegate_residency="local")))

        for turn in range(12):
            ask(f"before {turn}")
            handle = draw.choice(("drain", "pin", "static", "reload", "reload"))
            if handle == "reload":
                file(home).write_text(draw.choice((good, *moved)))
                await reload(home)
            else:
                name = draw.choice(("laptop", "desk", "cloud"))
                path = "/api/static" if handle == "static" else f"/api/endpoints/{name}/{handle}"
                await home.change(draw.choice(("PUT", "DELETE")), path)
            away = [n for n, u in home.gateway.dispatch.upstreams.items() if not u.endpoint.local]
            for _ in range(3):
                ask(f"after {turn}.")
            await asyncio.gather(*asked)
            for name in away:
                assert not any(f"after {turn}." in seen.body.decode() for seen in home.engines[name].seen)
        answers = await asyncio.gather(*asked)
        assert home.engines["cloud"].seen == []
    assert {a.status for a in answers} <= {200, 400, 503}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/endpoints/nowhere/drain", 404),
        ("DELETE", "/api/endpoints/nowhere/drain", 404),
        ("PUT", "/api/endpoints/laptop/paint", 404),
        ("PUT", "/api/endpoints/", 404),
        ("POST", "/api/endpoints/laptop/drain", 405),
        ("GET", "/api/static", 405),
        ("PUT", "/api/overrides", 405),
        ("DELETE", "/api/config", 405),
    ],
)
async def test_what_cannot_be_set_is_refused_by_name(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with house(tmp_path) as home:
        answer = await home.change(method, path)
        assert (answer.status, answer.error["code"]) == (status, f"http_{status}")
        assert answer.error["message"]
        assert home.gateway.router.overrides == Overrides()


@pytest.mark.parametrize(
    "lines",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"origin": "http://localhost:3000", "host": "localhost:8401"},  # what another port serves
        {"origin": "http://127.0.0.1:8401", "host": "localhost:8401"},
        {"host": "evil.example:8401"},  # a name of its own that it made to mean this machine
        {"host": ""},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},  # as an image or a script
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_page_of_others_in_a_browser_changes_nothing_and_reads_nothing(
    tmp_path: Path, lines: dict[str, str]
) -> None:
    async with house(tmp_path) as home:
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        writes = (("PUT", "/api/static"), ("POST", "/api/config"), ("PUT", "/api/endpoints/laptop/drain"))
        reads = ("/api/config", "/api/state", "/api/decisions/x", "/metrics")
        for method, path in (*writes, *(("GET", path) for path in reads)):
            assert (await home.change(method, path, **lines)).status == 403
        assert home.gateway.router.overrides == Overrides()
        assert home.gateway.reloader.last is None
        page = await home.change("PUT", "/api/static", origin="http://LocalHost:8401", host="localhost:8401")
        assert page.status == 200


async def test_with_an_admin_secret_nothing_is_changed_without_it_and_it_can_be_changed_too(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text(SECRET)
    (tmp_path / "admin.key").chmod(0o600)
    async with house(tmp_path, gateway={"admin_key": {"file": "admin.key"}}) as home:
        assert (await home.change("PUT", "/api/static")).status == 401
        assert (await home.change("PUT", "/api/static", secret=SECRET, host="gate.example")).status == 200
        (tmp_path / "admin.key").write_text(SECRET + "-new")
        outcome = await home.change("POST", "/api/config", secret=SECRET)
        assert [c["path"] for c in outcome.json["changes"]] == ["gateway.admin_key"]
        assert SECRET not in outcome.body.decode() + (tmp_path / "log").read_text()
        assert (await home.change("DELETE", "/api/static", secret=SECRET)).status == 401
        assert (await home.change("DELETE", "/api/static", secret=SECRET + "-new")).status == 200


async def test_the_admin_secret_stays_as_long_as_its_address_is_one_that_others_reach(tmp_path: Path) -> None:
    """The new address is loopback, which needs no secret, and waits for a restart."""
    (tmp_path / "admin.key").write_text(SECRET)
    (tmp_path / "admin.key").chmod(0o600)
    async with house(tmp_path, gateway={"admin": "0.0.0.0:0", "admin_key": {"file": "admin.key"}}) as home:
        edit(home, 'admin = "0.0.0.0:0"', 'admin = "127.0.0.1:0"')
        edit(home, 'admin_key = { "file" = "admin.key" }\n', "")
        for _ in range(2):
            outcome = (await home.change("POST", "/api/config", secret=SECRET)).json
            waiting = [c["path"] for c in outcome["changes"] if c["at_restart"]]
            assert waiting == ["gateway.admin", "gateway.admin_key"]
            assert (await home.get("/api/state", admin=True)).status == 401
            assert (await home.change("PUT", "/api/static", host="localhost")).status == 401


async def test_what_was_set_by_hand_outlives_a_restart(tmp_path: Path) -> None:
    async with FakeEngine(Script()) as engine, FakeEngine(Script()) as cloud:
        laptop, away = local(url=engine.url), remote(url=cloud.url)
        async with house(tmp_path, laptop=laptop, cloud=away) as home:
            await put(home, "/api/endpoints/laptop/drain")
            await put(home, "/api/static")
        # Also where what was learned is refused, being of another policy.
        async with house(tmp_path, policy={"held_max": 7}, laptop=laptop, cloud=away) as home:
            assert home.gateway.router.overrides == Overrides(drained=("laptop",), static=True)
            assert (await home.ask()).endpoint == "cloud"
            assert any(e["event"] == "overrides in force from before" for e in home.log("event"))


async def test_a_disk_that_is_slow_keeps_two_snapshots_of_what_is_set_and_the_last_is_written(tmp_path: Path) -> None:
    disk = threading.Event()
    async with house(tmp_path) as home:
        worker = home.gateway.keeper._worker
        worker.submit(disk.wait)
        for _ in range(20):
            await put(home, "/api/static")
            await home.change("DELETE", "/api/static")
        await put(home, "/api/endpoints/cloud/drain")
        assert worker._work_queue.qsize() <= 1
        disk.set()
        assert home.gateway.keeper._saving is not None
        await home.gateway.keeper._saving
        assert home.gateway.keeper._file is not None
        (_, newest), *_ = await asyncio.wrap_future(worker.submit(home.gateway.keeper._file.read))
        assert isinstance(newest, bytes)
        assert msgspec.json.decode(newest)["state"]["overrides"]["drained"] == ["cloud"]


async def test_a_drain_lasts_while_its_endpoint_is_away_and_can_be_taken_back_meanwhile(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote()) as home:
        with_both = file(home).read_text()
        await put(home, "/api/endpoints/cloud/drain")
        file(home).write_text(with_both[: with_both.index("[endpoint.cloud]")])
        await reload(home)
        assert home.gateway.router.overrides.drained == ("cloud",)
        file(home).write_text(with_both)
        await reload(home)
        assert home.gateway.router.endpoint("cloud").drained
        file(home).write_text(with_both[: with_both.index("[endpoint.cloud]")])
        await reload(home)
        assert (await home.change("DELETE", "/api/endpoints/cloud/drain")).json["drained"] == []


async def test_the_schema_is_served_and_describes_the_file(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.get("/api/config/schema", admin=True)
        settings = (await home.get("/api/config", admin=True)).json["settings"]
    assert answer.header("content-type") == "application/schema+json"
    document = answer.json["$defs"]["Document"]["properties"]
    tables = {"gateway", "policy", "budget", "switchback", "trace", "class", "rule", "site", "model", "endpoint"}
    assert set(document) == set(settings) == tables


@asynccontextmanager
async def running(
    config: Path, stdin: int = subprocess.DEVNULL
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A gateway in a process of its own, and where it answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.cli.main", "serve", "--json", "--config", str(config)),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(await process.stdout.readline())["file"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_hangup_reloads_and_a_bad_file_then_stops_nothing(tmp_path: Path) -> None:
    async with FakeEngine(Script()) as engine:
        async with house(tmp_path, laptop=local(url=engine.url)) as home:
            pass
        log = tmp_path / "log"

        def said(event: str) -> bool:
            return any(json.loads(line)["event"].startswith(event) for line in log.read_text().splitlines())

        async with running(tmp_path / "tidegate.toml") as (process, _):
            good = file(home).read_text()
            file(home).write_text(good.replace("drain_s = 5", "drain_s = 1"))
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: said("configuration in force"))
            file(home).write_text("[gateway")
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: said("configuration refused"))
            assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def reader_of(fifo: Path) -> int:
    """Wait for somebody who reads it: from then on what is written here is all that comes."""
    while True:
        with suppress(OSError):  # nobody does yet
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        await asyncio.sleep(0.001)


async def test_a_file_that_never_answers_keeps_no_gateway_from_ending(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        pass
    async with running(file(home)) as (process, _):
        file(home).unlink()
        os.mkfifo(file(home))
        process.send_signal(signal.SIGHUP)
        silent = await reader_of(file(home))
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        os.close(silent)
    assert home.log("event")[-1]["event"] == "stopped"


async def test_a_hangup_during_the_start_is_a_reload_after_it(tmp_path: Path) -> None:
    probed, answer = asyncio.Event(), asyncio.Event()

    async def engine(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        probed.set()
        await answer.wait()
        writer.close()

    async with house(tmp_path) as home:
        pass
    async with await asyncio.start_server(engine, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "tidegate.toml").write_text(
            file(home).read_text().split("[endpoint.")[0] + endpoint("desk", f"http://127.0.0.1:{port}")
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tidegate.cli.main", "serve", "--config", str(tmp_path / "tidegate.toml")),
            stderr=subprocess.DEVNULL,
        )
        try:
            await probed.wait()
            process.send_signal(signal.SIGHUP)
            answer.set()
            log = tmp_path / "log"
            await eventually(lambda: "configuration unchanged" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def listens(port: int) -> bool:
    try:
        async with client(port):
            return True
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was closed with this client still waiting
        return False


@pytest.mark.lengthy
async def test_a_terminal_that_is_closed_ends_the_gateway_in_order_however_often_that_is_said(tmp_path: Path) -> None:
    async with FakeEngine(Script(tokens=200, token_s=0.01)) as engine:
        async with house(tmp_path, laptop=local(url=engine.url)) as home:
            pass
        text = file(home).read_text()
        file(home).write_text(text.replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{home.port}"'))
        terminal, stdin = os.openpty()
        async with running(tmp_path / "tidegate.toml", stdin) as (process, _):
            os.close(stdin)
            body = json.dumps(chat(stream=True)).encode()
            streaming = asyncio.create_task(home.send(wire("POST", "/v1/chat/completions", body)))
            await eventually(lambda: engine.made > 2)
            os.close(terminal)
            process.send_signal(signal.SIGHUP)
            while await listens(home.port):
                pass
            process.send_signal(signal.SIGHUP)
            assert (await streaming).text.endswith("w200 ")
            assert await process.wait() == 0
