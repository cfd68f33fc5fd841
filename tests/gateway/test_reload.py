"""Another configuration for a gateway that runs: nothing under way is touched, and a bad one changes nothing."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import SURE, House, _value, chat, house, local, remote
from tests.gateway.test_fingerprint import llama
from tests.http.harness import eventually
from tidegate.config.config import Config
from tidegate.core.correction import level_of
from tidegate.core.latency import PARTS
from tidegate.core.model import Decision, Ended, Line, Segment
from tidegate.core.rows import Came, Rows
from tidegate.dashboard.changed import changes
from tidegate.engines.fake import FakeEngine, Script
from tidegate.gateway import daemon
from tidegate.sim.observed import observe
from tidegate.telemetry.journal import read, segments

SLOW = Script(tokens=40, token_s=0.01)


def file(home: House) -> Path:
    return home.folder / "tidegate.toml"


def edit(home: House, before: str, after: str) -> None:
    """Change the file where this stands, once."""
    text = file(home).read_text()
    assert text.count(before) == 1, text
    file(home).write_text(text.replace(before, after))


def add(home: House, text: str) -> None:
    file(home).write_text(file(home).read_text() + text)


async def reload(home: House, query: str = "") -> dict[str, Any]:
    """Reload, which must succeed."""
    answer = await home.change("POST", "/api/config" + query)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def paths(outcome: dict[str, Any]) -> list[str]:
    return [change["path"] for change in outcome["changes"]]


def endpoint(name: str, url: str, **settings: Any) -> str:
    table = {"site": "home", "engine": "fake", "model": "own", "url": url, "serves": ["m"]} | settings
    lines = "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
    return f"\n[endpoint.{name}]\ncontext_tokens = 8192\n{lines}"


async def test_a_file_that_has_not_changed_changes_nothing_and_begins_no_segment(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        router, before = home.gateway.router, len(segments(tmp_path / "journal"))
        outcome = await reload(home)
        assert (outcome["applied"], outcome["changes"]) == (True, [])
        assert home.gateway.router is router
        assert len(segments(tmp_path / "journal")) == before


async def test_a_new_endpoint_serves_and_one_that_is_gone_serves_no_more(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, laptop=local()) as home:
        assert (await home.ask()).endpoint == "laptop"
        text = file(home).read_text()
        file(home).write_text(text[: text.index("[endpoint.laptop]")])
        add(home, endpoint("desk", new.url))
        outcome = await reload(home)
        assert paths(outcome) == ["endpoint.desk", "endpoint.laptop"]
        answers = [await home.ask() for _ in range(3)]
        assert [a.endpoint for a in answers] == ["desk"] * 3
        shown = (await home.get("/v1/models")).json["data"][0]["tidegate"]["endpoints"]
        assert [e["name"] for e in shown] == ["desk"]
        assert list((await home.get("/api/state", admin=True)).json["endpoints"]) == ["desk"]
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_attempts_total{ending="ok",endpoint="desk",tier="local"} 3.0' in metrics
        assert "laptop" not in metrics


async def test_a_stream_from_an_endpoint_that_is_taken_out_goes_on_to_its_end(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, laptop=local(SLOW)) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 2)
        text = file(home).read_text()
        file(home).write_text(text[: text.index("[endpoint.laptop]")] + endpoint("desk", new.url))
        await reload(home)
        assert not streaming.done()
        answer = await streaming
        assert answer.text.endswith("w40 ")
        assert answer.endpoint == "laptop"
        done = home.log()[-1]
        assert (done["outcome"], done["endpoint"], done["output_tokens"]) == ("ok", "laptop", 40)


@pytest.mark.lengthy
@pytest.mark.parametrize("how", ["removed", "renamed", "another address"])
async def test_what_goes_on_at_an_endpoint_that_is_gone_is_told_with_its_end_and_its_dollars(
    tmp_path: Path, how: str
) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, cloud=remote(SLOW)) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=True, max_tokens=50)))
        await eventually(lambda: home.engines["cloud"].made > 2)
        if how == "removed":
            text = file(home).read_text()
            file(home).write_text(text[: text.index("[endpoint.cloud]")] + endpoint("desk", new.url))
        elif how == "renamed":
            edit(home, "[endpoint.cloud]", "[endpoint.sky]")
        else:
            edit(home, home.engines["cloud"].url, new.url)
        await reload(home)
        # Another reload while it goes on changes nothing of it.
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        await reload(home)
        assert not streaming.done()
        assert (await streaming).text.endswith("w40 ")
        told, rows = home.journal(), Rows()
        (row,) = [row for line in told for row in rows.feed(line)]
        (seen,) = observe(told).asked
        assert (row.outcome, row.endpoint, row.output_tokens) == (Came.OK, "cloud", 40)
        assert row.usd == pytest.approx(home.log()[0]["cost_usd"], abs=1e-9)
        assert row.usd > 0.0
        assert (seen.seen, seen.whole) == (40, True)
        named = [line.fact.going_on for line in told if isinstance(line.fact, Segment)]
        assert named == [(), (row.id,), (row.id,)]


@pytest.mark.lengthy
async def test_what_is_in_flight_keeps_the_time_out_that_it_began_with(tmp_path: Path) -> None:
    slow = Script(tokens=80, token_s=0.03)
    async with house(tmp_path, gateway={"request_timeout_s": 601}, laptop=local(slow)) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 0)
        edit(home, "request_timeout_s = 601", "request_timeout_s = 1")
        edit(home, "[policy]", "[policy]\nhold_s_max = 0.5")
        add(home, "".join(f"\n[class.{name}]\nslo = {{ ttft_ms = 500 }}\n" for name in ("interactive", "batch")))
        await reload(home)
        after = await home.ask(chat(stream=True))
        assert after.events[-1]["error"]["code"] == "request_timeout"
        assert (await streaming).text.endswith("w80 ")


async def test_what_is_in_flight_is_paid_at_the_price_that_it_began_with(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(SLOW), budget={"usd_per_day": 5}) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=True, max_tokens=50)))
        await eventually(lambda: home.engines["cloud"].made > 2)
        edit(home, '"usd_per_1m_output_tokens" = 4', '"usd_per_1m_output_tokens" = 400')
        assert paths(await reload(home)) == ["endpoint.cloud.price.usd_per_1m_output_tokens"]
        await streaming
        after = await home.ask(chat(stream=True, max_tokens=50))
        first, second = [line["cost_usd"] for line in home.log()]
        assert after.status == 200
        assert first < 0.001
        assert second > 20 * first


async def test_a_request_that_is_held_is_decided_under_the_new_settings(tmp_path: Path) -> None:
    async with (
        FakeEngine(Script(), context_tokens=8192) as new,
        house(tmp_path, laptop=local(SLOW, concurrency=1)) as home,
    ):
        first = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 0)
        second = asyncio.create_task(home.ask())
        await eventually(lambda: home.gateway.router.held == 1)
        add(home, endpoint("desk", new.url, prior=SURE))
        await reload(home)
        assert (await second).endpoint == "desk"
        assert not first.done()
        assert (await first).endpoint == "laptop"


async def test_a_plan_made_before_does_not_lead_where_data_may_no_longer_go(tmp_path: Path) -> None:
    """The second step of its plan is moved out of the house while the first one fails."""
    async with house(tmp_path, aaa=local(Script(first_s=60)), bbb=local()) as home:
        asking = asyncio.create_task(home.ask(x_tidegate_residency="local"))
        await eventually(lambda: home.engines["aaa"].in_flight == 1)
        text = file(home).read_text()
        at = text.index("[endpoint.bbb]")
        price = 'price = { "usd_per_1m_input_tokens" = 1, "usd_per_1m_output_tokens" = 1 }\n'
        file(home).write_text(text[:at] + text[at:].replace('site = "home"\n', 'site = "away"\n' + price))
        await reload(home)
        await home.fell("aaa")
        answer = await asking
        assert home.engines["bbb"].seen == []
        # Decided anew, there is nobody but who has failed.
        assert answer.status == 502
        assert "could not be reached" in answer.error["message"]
        assert (await home.ask()).endpoint == "bbb"


@pytest.mark.parametrize("hand", ["reload", "drain"])
async def test_a_plan_whose_next_step_was_taken_out_ends_in_another_decision(tmp_path: Path, hand: str) -> None:
    """While the first step of its plan fails, the second is taken out, and one that was not in it comes."""
    async with (
        FakeEngine(Script(), context_tokens=8192) as new,
        house(tmp_path, aaa=local(Script(first_s=60)), bbb=local()) as home,
    ):
        asking = asyncio.create_task(home.ask())
        await eventually(lambda: home.engines["aaa"].in_flight == 1)
        add(home, endpoint("ccc", new.url, prior=SURE))
        if hand == "reload":
            text = file(home).read_text()
            begin, end = text.index("[endpoint.bbb]"), text.index("[endpoint.ccc]")
            file(home).write_text(text[:begin] + text[end:])
        await reload(home)
        if hand == "drain":
            assert (await home.change("PUT", "/api/endpoints/bbb/drain")).status == 200
        await home.fell("aaa")
        answer = await asking
        assert (answer.status, answer.endpoint) == (200, "ccc")


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ("[endpoint.laptop", "file"),
        ('\n[endpoint.desk]\nsite = "nowhere"\nengine = "fake"\nserves = ["m"]\n', "endpoint.desk.site"),
        ('\n[endpoint.desk]\nsite = "home"\nengine = "fake"\nserves = ["m"]\n', "endpoint.desk.url"),
        ("\n[policy.deep]\nx = 1\n", "policy.deep"),
        ("\n[endpoint.desk]\napi_key = 'sk-secret'\n", "endpoint.desk"),
    ],
)
async def test_a_bad_file_is_refused_with_all_that_is_wrong_and_the_old_settings_stay(
    tmp_path: Path, bad: str, place: str
) -> None:
    async with house(tmp_path) as home:
        good, router = file(home).read_text(), home.gateway.router
        add(home, bad)
        answer = await home.change("POST", "/api/config")
        assert answer.status == 422
        assert not answer.json["applied"]
        assert place.split(".")[0] in " ".join(p["path"] or "file" for p in answer.json["problems"])
        assert all(p["remedy"] and p["file"] == str(file(home)) for p in answer.json["problems"])
        assert "sk-secret" not in answer.body.decode() + (tmp_path / "log").read_text()
        assert home.gateway.router is router
        assert (await home.ask()).status == 200
        shown = (await home.get("/api/config", admin=True)).json
        assert shown["last_reload"]["problems"]
        assert "laptop" in shown["settings"]["endpoint"]
        file(home).write_text(good)
        assert (await reload(home))["changes"] == []
    refused = [line for line in home.log("event") if line["event"].startswith("configuration refused")]
    assert len(refused) == 1
    assert refused[0]["level"] == "error"


async def test_a_file_that_is_gone_takes_nothing_down(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        file(home).unlink()
        answer = await home.change("POST", "/api/config")
        assert (answer.status, answer.json["problems"][0]["message"]) == (422, "there is no such file")
        assert (await home.ask()).status == 200


async def test_whatever_goes_wrong_the_operator_is_answered_and_the_log_has_it(tmp_path: Path) -> None:
    async with house(tmp_path) as home:

        def broken() -> Config:
            raise RuntimeError("sk-secret")

        home.gateway.reloader._source = broken
        answer = await home.change("POST", "/api/config")
        assert answer.status == 422
        (problem,) = answer.json["problems"]
        assert "RuntimeError" in problem["message"]
        # At a restart it would not start again.
        assert "restart" not in problem["remedy"]
        assert "sk-secret" not in answer.body.decode() + (tmp_path / "log").read_text()
        assert (await home.ask()).status == 200
    assert len([line for line in home.log("event") if line["event"].startswith("configuration refused")]) == 1


async def test_a_dry_run_tells_the_differences_and_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        router = home.gateway.router
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        tried = await reload(home, "?dry_run=true")
        assert (tried["applied"], paths(tried)) == (False, ["policy.decide_budget_ms"])
        assert tried["changes"][0]["before"] == 1000
        assert home.gateway.router is router
        assert (await home.get("/api/config", admin=True)).json["last_reload"] is None
        assert paths(await reload(home)) == ["policy.decide_budget_ms"]
        assert home.gateway.router is not router


@pytest.mark.parametrize("query", ["dry_run", "dry_run=yes", "dry_run=True", "dryrun=true", "dry_run=true&dry_run=0"])
async def test_a_query_that_may_have_meant_a_dry_run_is_refused_and_changes_nothing(tmp_path: Path, query: str) -> None:
    async with house(tmp_path) as home:
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        answer = await home.change("POST", f"/api/config?{query}")
        assert answer.status == 400
        assert "?dry_run=true" in answer.error["message"]
        assert home.gateway.reloader.last is None


async def test_what_needs_a_restart_is_named_and_waits_while_the_rest_is_put_in_force(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        edit(home, 'journal = "journal"', 'journal = "elsewhere"')
        edit(home, "drain_s = 5", "drain_s = 6")
        for _ in range(2):  # it waits until a restart, and says so each time
            outcome = await reload(home)
            waiting = [c["path"] for c in outcome["changes"] if c["at_restart"]]
            assert waiting == ["gateway.journal"]
        since_s = home.gateway.reloader.since_s
        await reload(home)
        assert (await home.get("/api/config", admin=True)).json["in_force_since_s"] == since_s
        assert home.gateway._built.gateway.drain_s == 6
        assert (await home.ask()).status == 200
        assert not (tmp_path / "elsewhere").exists()
    told = [line for line in home.log("event") if line["event"] == "configuration in force"]
    assert told[0]["level"] == "warning"
    assert told[0]["waiting_for_restart"] == "gateway.journal"
    assert told[0]["changed"] == "gateway.drain_s"


async def test_what_waits_for_a_restart_is_written_down_as_waiting(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        edit(home, 'journal = "journal"', 'journal = "elsewhere"')
        edit(home, "drain_s = 5", "drain_s = 6")
        await reload(home)
    (changed,) = changes(tmp_path / "journal", 10).changes
    assert changed.applied
    assert [(one.path, one.at_restart) for one in changed.changes] == [
        ("gateway.drain_s", False),
        ("gateway.journal", True),
    ]


async def test_every_decision_replays_across_reloads_and_each_begins_a_segment(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, laptop=local()) as home:
        policy, more = "[policy]\nheld_max = ", endpoint("desk", new.url)
        for before, after in (
            ("[policy]", policy + "7"),
            (policy + "7", policy + "8"),
            ("[site.home]", more + "[site.home]"),
        ):
            await asyncio.gather(*(home.ask() for _ in range(5)))
            edit(home, before, after)
            await reload(home)
        await asyncio.gather(*(home.ask() for _ in range(5)))
    journal = [line.fact for path in segments(tmp_path / "journal") for line in read(path)]
    assert [len(fact.endpoints) for fact in journal if isinstance(fact, Segment)] == [1, 1, 1, 2]
    assert sum(isinstance(fact, Decision) for fact in journal) >= 20


async def test_what_was_learned_of_an_engine_stays_and_that_of_another_begins_anew(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path) as home:
        for _ in range(3):
            await home.ask(chat(stream=True))
        learned = level(home)
        assert learned != 1.0
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        await reload(home)
        assert level(home) == learned
        edit(home, home.engines["laptop"].url, new.url)
        await reload(home)
        assert level(home) == 1.0


def level(home: House) -> float:
    """How far the local engine is from what was believed of it."""
    learned = home.gateway.router.endpoint("laptop").timing.ttft.learned
    return level_of(learned.cells[0], [1.0] * PARTS)


async def test_a_probe_that_is_lost_at_a_reload_takes_no_engine_down_that_was_up(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        home.engines["cloud"].up = False
        edit(home, '"usd_per_1m_output_tokens" = 4', '"usd_per_1m_output_tokens" = 5')
        await reload(home)
        assert home.gateway.router.endpoint("cloud").state.up
        assert (await home.ask()).status == 200
        await home.gateway.fleet._members["cloud"].prober.once()
        assert not home.gateway.router.endpoint("cloud").state.up
        edit(home, '"usd_per_1m_output_tokens" = 5', '"usd_per_1m_output_tokens" = 4')
        await reload(home)
        assert not home.gateway.router.endpoint("cloud").state.up


async def test_classes_models_and_budgets_change_too(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(), classes={"rush": {"worth_usd": 1}}) as home:
        assert (await home.ask(x_tidegate_class="quick")).status == 400
        assert (await home.ask(chat(model="other"))).status == 404
        edit(home, "[class.rush]", "[class.quick]")
        edit(home, 'serves = ["m"]', 'serves = ["m", "other"]')
        edit(home, "[budget]", "[budget]\nusd_per_day = 0.01")
        await reload(home)
        assert (await home.ask(x_tidegate_class="rush")).status == 400
        assert (await home.ask(chat(model="other", max_tokens=5), x_tidegate_class="quick")).status == 200
        dear = await home.ask(chat(max_tokens=30000))
        assert (dear.status, dear.error["code"]) == (429, "insufficient_quota")


async def test_a_ledger_is_opened_when_something_begins_to_cost_money(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as cloud, house(tmp_path, laptop=local()) as home:
        assert not (tmp_path / "ledger.db").exists()
        text = endpoint("cloud", cloud.url, site="away", api_key_env="VENDOR_KEY")
        add(home, text + "price = { usd_per_1m_input_tokens = 1000, usd_per_1m_output_tokens = 1000 }\n")
        edit(home, "[budget]", "[budget]\nusd_per_day = 5")
        await reload(home)
        await home.change("PUT", "/api/endpoints/laptop/drain")
        assert (await home.ask(chat(max_tokens=10))).endpoint == "cloud"
        caps = (await home.get("/api/state", admin=True)).json["budget"]["caps"]
        assert caps[0]["spent_usd"] + caps[0]["reserved_usd"] > 0


async def test_a_ledger_that_cannot_be_opened_refuses_the_reload_as_a_whole(tmp_path: Path) -> None:
    async with FakeEngine(Script(), context_tokens=8192) as cloud, house(tmp_path, laptop=local()) as home:
        (tmp_path / "ledger.db").write_text("this is no database, and has not been one for 16 bytes and more")
        text = endpoint("cloud", cloud.url, site="away", api_key_env="VENDOR_KEY")
        add(home, text + "price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 1 }\n")
        answer = await home.change("POST", "/api/config")
        assert answer.status == 422
        assert "ledger.db" in answer.json["problems"][0]["message"]
        assert list(home.gateway.dispatch.upstreams) == ["laptop"]
        assert (await home.ask()).endpoint == "laptop"


async def test_requests_in_a_stream_of_reloads_are_all_served(tmp_path: Path) -> None:
    """Each reload moves the engine between two addresses, while clients ask without a pause."""
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, laptop=local()) as home:
        urls = [home.engines["laptop"].url, new.url]
        stop = asyncio.Event()

        async def asks() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append((await home.ask()).status)
            return statuses

        clients = [asyncio.create_task(asks()) for _ in range(4)]
        for turn in range(10):
            edit(home, urls[turn % 2], urls[(turn + 1) % 2])
            await reload(home)
        stop.set()
        found = [status for statuses in await asyncio.gather(*clients) for status in statuses]
        assert len(found) > 40
        assert set(found) == {200}
        assert new.seen
        assert home.engines["laptop"].seen


async def test_two_reloads_at_once_are_one_and_a_refusal(tmp_path: Path) -> None:
    async with silence() as url, house(tmp_path) as home:
        add(home, endpoint("desk", url))  # nobody answers there: the first probe takes its time
        first = asyncio.create_task(home.change("POST", "/api/config"))
        await eventually(lambda: home.gateway.reloader.busy)
        second = await home.change("POST", "/api/config")
        assert (second.status, second.error["code"]) == (409, "reload_under_way")
        assert (await home.ask()).status == 200
        first.cancel()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """Somebody who takes connections, and says nothing until they are closed."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_reload_that_is_under_way_when_the_gateway_stops_is_given_up(tmp_path: Path) -> None:
    async with silence() as url, house(tmp_path) as home:
        add(home, endpoint("desk", url))  # nobody answers there: the first probe takes its time
        asking = asyncio.create_task(home.change("POST", "/api/config"))
        await eventually(lambda: home.gateway.reloader.busy)
    assert not home.gateway.reloader.busy
    assert "desk" not in home.gateway.dispatch.upstreams
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asking
    home.gateway.reloader.soon()  # a late signal
    assert home.gateway.reloader._task is None


async def test_a_signal_during_a_reload_is_followed_by_another(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        reloader = home.gateway.reloader
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        reloader.soon()
        reloader.soon()
        await eventually(lambda: len([e for e in home.log("event") if e["event"].startswith("configuration")]) == 1)
        edit(home, "decide_budget_ms = 999", "decide_budget_ms = 998")
        reloader.soon()
        await eventually(lambda: home.gateway._built.policy.decide_budget_s == 0.998)


def readers() -> int:
    """Threads that read the configuration."""
    return len([thread for thread in threading.enumerate() if thread.name == daemon.NAMED + "configuration"])


async def test_a_file_that_never_answers_is_refused_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home:
        good = file(home).read_text()
        file(home).unlink()
        os.mkfifo(file(home))
        with monkeypatch.context() as hasty:
            hasty.setattr("tidegate.gateway.reload.READ_S", 0.05)
            answers = [await home.change("POST", "/api/config")]
        assert readers() == 1
        # While it hangs, nobody is sent after it.
        answers.append(await home.change("POST", "/api/config"))
        assert readers() == 1
        for answer in answers:
            assert answer.status == 422
            (problem,) = answer.json["problems"]
            assert "did not answer within" in problem["message"]
            assert "disk" in problem["remedy"]
        os.close(os.open(file(home), os.O_WRONLY))  # who still reads it has read nothing, and ends
        await eventually(lambda: not readers())
        file(home).unlink()
        file(home).write_text(good.replace("decide_budget_ms = 1000", "decide_budget_ms = 999"))
        assert paths(await reload(home)) == ["policy.decide_budget_ms"]


async def test_without_a_file_a_reload_says_what_to_do(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.gateway.reloader._source = None
        answer = await home.change("POST", "/api/config")
        assert answer.status == 422
        assert "tidegate discover --write" in answer.json["problems"][0]["remedy"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole_and_without_usage"])
async def test_an_attempt_that_ends_after_its_endpoint_is_gone_is_settled_and_told(
    tmp_path: Path, stream: bool
) -> None:
    slow = msgspec.structs.replace(SLOW, usage=stream)
    async with FakeEngine(Script(), context_tokens=8192) as new, house(tmp_path, cloud=remote(slow)) as home:
        streaming = asyncio.create_task(home.ask(chat(stream=stream, max_tokens=50)))
        await eventually(lambda: home.engines["cloud"].made > 2)
        text = file(home).read_text()
        file(home).write_text(text[: text.index("[endpoint.cloud]")] + endpoint("desk", new.url))
        await reload(home)
        assert (await streaming).status == 200
        ledger = home.gateway.spending.ledger
        assert ledger is not None
        await eventually(lambda: not ledger._leases)
        assert home.log()[-1]["cost_usd"] > 0
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'endpoint="cloud"' not in metrics
        assert "tidegate_spent_usd_total 0.0" not in metrics.splitlines()
    ended = [line for line in _facts(home.journal()) if isinstance(line, Ended)]
    assert [(fact.endpoint, fact.ending) for fact in ended] == [("cloud", "ok")]


def _facts(lines: list[Line]) -> list[Any]:
    return [line.fact for line in lines]


class Calendar:
    """A clock that can be put forward by days: it is the day before the prices change."""

    forward_s = 0.0  # nothing is under way meanwhile

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return self.steady_s() + self.ahead_s

    def steady_s(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time() % 1000.0


DATED = [
    {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 1},
    {"from": date(2023, 11, 15), "usd_per_1m_input_tokens": 3, "usd_per_1m_output_tokens": 3},
]


def price(home: House) -> float:
    return home.gateway.router.endpoint("cloud").endpoint.price.usd_per_input_token


async def test_the_prices_of_a_new_day_hold_from_midnight_without_a_reload(tmp_path: Path) -> None:
    clock = Calendar()
    async with house(tmp_path, clock=clock, cloud=remote(price=DATED)) as home:  # type: ignore[arg-type]
        assert price(home) == pytest.approx(1e-6)
        await home.gateway.reloader.look_at_the_day()
        assert price(home) == pytest.approx(1e-6)
        clock.ahead_s = 86_400.0
        await home.gateway.reloader.look_at_the_day()
        assert price(home) == pytest.approx(3e-6)


async def test_prices_that_cannot_be_put_in_force_are_told_and_tried_again(tmp_path: Path) -> None:
    """What was free costs money from midnight on, and where that is to be written down there is no database."""
    clock, ledger = Calendar(), tmp_path / "ledger.db"
    free = {"usd_per_1m_input_tokens": 0, "usd_per_1m_output_tokens": 0}
    ledger.write_text("this is no database, and has not been one for 16 bytes and more")
    cloud = remote(price=[free, DATED[1]])
    async with house(tmp_path, clock=clock, laptop=local(), cloud=cloud) as home:  # type: ignore[arg-type]
        clock.ahead_s = 86_400.0
        for times in (1, 2):
            await home.gateway.reloader.look_at_the_day()
            told = [e for e in home.log("event") if e["event"] == "the prices of the day are not in force"]
            assert [one["level"] for one in told] == ["error"] * times
            assert price(home) == 0.0
        assert "ledger.db" in told[0]["reason"]
        ledger.unlink()
        await home.gateway.reloader.look_at_the_day()
        assert price(home) == pytest.approx(3e-6)


def led_elsewhere(home: House, name: str, url: str) -> None:
    edit(home, home.engines[name].url, url)


def replaced(home: House, name: str, url: str) -> None:
    edit(home, f"[endpoint.{name}]", "[endpoint.new]")
    led_elsewhere(home, name, url)


@pytest.mark.parametrize("change", [led_elsewhere, replaced])
async def test_a_conversation_whose_endpoint_leads_elsewhere_or_is_gone_stays_with_its_model(
    tmp_path: Path, change: Callable[[House, str, str], None]
) -> None:
    async with (
        FakeEngine(Script(), context_tokens=8192, weights="/models/b.gguf") as other,
        house(tmp_path, one=llama(), two=llama()) as home,
    ):
        began = (await home.ask(x_tidegate_session="diary")).endpoint
        change(home, began, other.url)
        await reload(home)
        goes_on = await home.ask(x_tidegate_session="diary")
        assert {began, goes_on.endpoint} == {"one", "two"}
        assert goes_on.header("x-tidegate-why") == "only_continuing"


async def test_a_reload_vouches_for_a_model_that_changed_and_a_new_day_does_not(tmp_path: Path) -> None:
    laptop = local(engine="llamacpp")
    laptop.weights = "/models/a.gguf"
    async with house(tmp_path, laptop=laptop) as home:
        model, prober = home.gateway.router.endpoint, home.gateway.fleet._members["laptop"].prober
        home.engines["laptop"].weights = "/models/b.gguf"
        await prober.once()
        assert model("laptop").identity.likeness == {"m": "same_family"}
        refused = await home.ask()
        assert (refused.status, refused.error["code"]) == (400, "model_not_alike")
        await home.gateway.put_in_force(home.gateway.reloader.config, by_hand=False)
        assert (await home.ask()).status == 400
        assert paths(await reload(home)) == []
        assert home.gateway.router.endpoint("laptop").identity.likeness == {}
        assert (await home.ask()).status == 200


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("loading", [False, True])
async def test_a_reload_vouches_for_a_model_that_no_probe_has_seen_yet(
    tmp_path: Path, edited: bool, loading: bool
) -> None:
    async with house(tmp_path, laptop=llama()) as home:
        engine = home.engines["laptop"]
        # Its engine is started anew with another file, and the gateway told, before a probe comes.
        engine.weights, engine.up = "/models/b.gguf", not loading
        if edited:
            edit(home, "[endpoint.laptop]\n", '[endpoint.laptop]\nfingerprint = { weights = "gguf:b.gguf:1000:500" }\n')
        await reload(home)
        member = home.gateway.fleet._members["laptop"]
        if loading:
            for _ in range(2):  # one that is lost is bad luck
                await member.prober.once()
            assert (await home.ask()).error["code"] == "no_endpoint_available"
            engine.up = True
        await member.prober.once()
        assert home.gateway.router.endpoint("laptop").identity.doubts == {}
        assert (await home.ask()).header("x-tidegate-likeness") == "identical"
        # What it becomes after that, nobody has vouched for.
        engine.weights = "/models/c.gguf"
        await member.prober.once()
        assert (await home.ask()).error["code"] == "model_not_alike"


async def test_what_was_told_of_an_engine_was_not_told_of_the_next_one_by_its_name(tmp_path: Path) -> None:
    models = {"m": {"endpoints": {"laptop": "identical"}, "fingerprint": {"weights": "gguf:b.gguf:1000:500"}}}
    async with (
        FakeEngine(Script(), context_tokens=8192) as new,
        house(tmp_path, models=models, laptop=llama()) as home,
    ):
        new.weights = home.engines["laptop"].weights
        edit(home, home.engines["laptop"].url, new.url)
        await reload(home)
        assert (await home.ask()).error["code"] == "model_not_alike"
        told = [line["event"] for line in home.log("event") if line["event"].startswith("fingerprint ")]
        assert told == ["fingerprint contradicts"] * 2


async def test_a_probe_that_is_lost_at_a_reload_takes_back_nothing_that_a_name_demands(tmp_path: Path) -> None:
    models = {"m": {"endpoints": {"laptop": "identical"}, "fingerprint": {"weights": "gguf:b.gguf:1000:500"}}}
    async with house(tmp_path, models=models, laptop=llama()) as home:
        engine, told = home.engines["laptop"], {"fingerprint contradicts", "fingerprint agrees again"}
        assert (await home.ask()).error["code"] == "model_not_alike"
        engine.up = False
        await reload(home)
        engine.up = True
        assert (await home.ask()).error["code"] == "model_not_alike"
        member = home.gateway.fleet._members["laptop"]
        await member.prober.once()
        assert (await home.ask()).error["code"] == "model_not_alike"
        # Started anew, now with what is demanded.
        engine.up = False
        await reload(home)
        for _ in range(2):  # one that is lost is bad luck
            await member.prober.once()
        assert (await home.ask()).error["code"] == "no_endpoint_available"
        assert [line["event"] for line in home.log("event") if line["event"] in told] == ["fingerprint contradicts"]
        engine.weights, engine.up = "/models/b.gguf", True
        await home.gateway.fleet._members["laptop"].prober.once()
        assert (await home.ask()).header("x-tidegate-likeness") == "identical"
