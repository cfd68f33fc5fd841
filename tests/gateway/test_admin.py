"""The admin address: alive, ready, counted, and every decision explained."""

import asyncio
from pathlib import Path
from shutil import which
from subprocess import run

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import make
from tests.gateway.harness import MODEL, House, chat, house, local, remote
from tests.gateway.test_budget import fill_up
from tests.http.harness import client, eventually
from tidegate.core.model import replace
from tidegate.engines.fake import Fault, Script
from tidegate.gateway.explainer import Explainer
from tidegate.gateway.probe import Prober
from tidegate.telemetry.families import PREFIX, TABLE


async def test_the_gateway_is_ready_while_an_endpoint_is_up(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        assert (await home.get("/readyz", admin=True)).status == 200
        assert (await home.get("/readyz")).status == 200


async def test_the_gateway_is_alive_but_not_ready_while_every_endpoint_is_down(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote(up=False)) as home:
        assert [(await home.get("/readyz", admin=a)).status for a in (True, False)] == [503, 503]
        assert [(await home.get("/livez", admin=a)).status for a in (True, False)] == [200, 200]
        assert (await home.get("/health")).status == 503
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (503, "no_endpoint_available")
    seconds, milliseconds = int(answer.header("retry-after")), int(answer.header("retry-after-ms"))
    assert 1 <= milliseconds <= seconds * 1000


async def test_an_endpoint_that_is_drained_makes_nothing_ready(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        await home.change("PUT", "/api/endpoints/cloud/drain")
        assert [(await home.get("/readyz", admin=a)).status for a in (True, False)] == [503, 503]
        assert (await home.ask()).status == 503
        await home.change("DELETE", "/api/endpoints/cloud/drain")
        assert (await home.get("/readyz")).status == 200


async def test_one_lost_probe_is_bad_luck_and_two_are_an_outage_until_one_comes_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        gateway, engine, seen = home.gateway, home.engines["laptop"], []
        prober = Prober(gateway.dispatch, gateway.dispatch.upstreams["laptop"], 3600)
        for engine.up in (True, False, True, False, False, True):
            await prober.once()
            seen.append(gateway.router.endpoint("laptop").state.up)
    assert seen == [True, True, True, True, False, True]


async def test_a_window_that_was_written_down_is_narrowed_by_what_the_engine_tells_and_never_widened(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, laptop=local(engine="llamacpp")) as home:
        gateway, laptop = home.gateway, home.gateway.dispatch.upstreams["laptop"]
        for written, found in ((4096, 4096), (16384, 8192), (None, 8192)):
            await Prober(gateway.dispatch, laptop, 3600, written).once()
            assert gateway.router.endpoint("laptop").context_tokens == found


async def test_every_metric_parses_and_counts_what_happened(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=500)), cloud=remote()) as home:
        await home.ask(chat(stream=True))
        await home.ask(b"{")
        answer = await home.get("/metrics", admin=True)
    families = {f.name: f for f in text_string_to_metric_families(answer.body.decode())}
    assert set(families) == {PREFIX + spec.name for spec in TABLE}
    samples = {(s.name, *sorted(s.labels.values())): s.value for f in families.values() for s in f.samples}
    assert samples[PREFIX + "attempts_total", "failed", "laptop", "local"] == 1
    assert samples[PREFIX + "attempts_total", "cloud", "ok", "remote"] == 1
    assert samples[PREFIX + "requests_total", "interactive/short", "ok", "remote"] == 1
    assert samples[PREFIX + "bad_requests_total", "400"] == 1
    assert samples[PREFIX + "cost_usd_total", "cloud", "remote"] > 0
    assert samples[PREFIX + "up", "laptop"] == 1
    assert answer.header("content-type").startswith("text/plain")


async def test_what_was_sent_where_it_may_not_go_is_counted_whatever_came_of_it(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=500))) as home:
        upstream = home.gateway.dispatch.upstreams["laptop"]
        await home.ask(x_tidegate_residency="local")
        assert await counted(home, "residency_breaches_total") == 0
        # The rules take it for one of ours, and it is none.
        upstream.endpoint = replace(upstream.endpoint, local=False, site="away")
        await home.ask(x_tidegate_residency="local", x_tidegate_no_fallback="true")
        assert await counted(home, "residency_breaches_total") == 1


async def test_to_give_up_the_rest_of_an_answer_is_no_refusal(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        for name, said_tokens in (("whole", 0), ("rest", 3)):
            request = make.request(name, model=MODEL, arrived_s=now_s, residency=("nowhere",), said_tokens=said_tokens)
            dispatch.arrived(request, now_s)
            assert dispatch.decide(request, now_s).plan == ()
        assert await counted(home, "refusals_total") == 1


async def test_what_parts_of_the_gateway_know_by_themselves_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        names = ("spending_problem", "log_dropped_total", "ledger_overruns_total")
        assert [await counted(home, name) for name in names] == [0, 0, 0]
        home.gateway.log.dropped = 2
        fill_up(home)
        await home.ask(x_tidegate_residency="away")
        assert [await counted(home, name) for name in names] == [1, 2, 0]


async def test_bills_above_their_bound_are_counted_from_the_start_and_told_of_all_days(tmp_path: Path) -> None:
    for before in (0, 1):
        async with house(tmp_path) as home:
            ledger, now_s = home.gateway.spending.ledger, home.gateway.clock.now_s()
            assert ledger is not None
            assert await counted(home, "ledger_overruns_total") == 0
            ledger.reserve(f"lease {before}", "", 0.1, now_s)
            ledger.settle(f"lease {before}", 0.2, now_s, "cloud")
            assert await counted(home, "ledger_overruns_total") == 1
            state = (await home.get("/api/state", admin=True)).json
        assert state["budget"]["overruns"] == before + 1


@pytest.mark.lengthy
async def test_what_is_scraped_after_traffic_is_as_prometheus_wants_it(tmp_path: Path) -> None:
    if (promtool := which("promtool")) is None:
        pytest.skip("promtool is not installed")
    async with house(tmp_path, laptop=local(), cloud=remote(Script(status=500)), budget={"usd_per_day": 1.0}) as home:
        for streamed in (True, False):
            assert (await home.ask(chat(stream=streamed))).status == 200
        text = (await home.get("/metrics", admin=True)).body
    done = await asyncio.to_thread(run, [promtool, "check", "metrics"], input=text, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("place", "elsewhere"), [("laptop", {"x_tidegate_residency": "local"}), ("cloud", {"x_tidegate_residency": "away"})]
)
async def test_what_an_answer_would_have_cost_in_one_tier_is_counted_where_it_may_go_there(
    tmp_path: Path, place: str, elsewhere: dict[str, str]
) -> None:
    async with house(tmp_path, laptop=local(), cloud=remote()) as home:
        answer = await home.ask(**elsewhere)
        bound = await baselines(home)
        free = await home.ask()
        both = await baselines(home)
    assert (answer.endpoint, free.endpoint) == (place, "laptop")
    spent_usd = float(answer.header("x-tidegate-cost-usd"))
    # Kept from the other tier, it would have cost there what it did.
    assert bound == pytest.approx({"compared": spent_usd, "all-local": spent_usd, "all-remote": spent_usd})
    usage = free.json["usage"]
    remote_usd = usage["prompt_tokens"] * 1e-6 + usage["completion_tokens"] * 4e-6
    assert both == pytest.approx(
        {"compared": spent_usd, "all-local": spent_usd, "all-remote": spent_usd + remote_usd}, abs=1e-9
    )


async def test_who_is_turned_away_for_want_of_room_is_counted(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"connections_max": 1}) as home:
        async with client(home.port):
            await eventually(lambda: home.gateway.server.statistics().open == 1)
            assert (await home.get("/readyz")).status == 503
            assert await counted(home, "http_connections_refused_total") == 1
        await eventually(lambda: home.gateway.server.statistics().open == 0)
        assert (await home.get("/readyz")).status == 200
        assert await counted(home, "http_connections_refused_total") == 1


async def test_of_a_chunk_of_a_stream_neither_journal_nor_metrics_are_told(tmp_path: Path) -> None:
    lines, samples = [], []
    for tokens in (4, 400):
        folder = tmp_path / str(tokens)
        folder.mkdir()
        async with house(folder, laptop=local(Script(tokens=tokens))) as home:
            await home.ask(chat(stream=True, max_tokens=tokens))
            text = (await home.get("/metrics", admin=True)).body.decode()
        families = {f.name: f for f in text_string_to_metric_families(text)}
        samples.append({n: [s.value for s in f.samples if s.name.endswith("_count")] for n, f in families.items()})
        lines.append([type(line.fact).__name__ for line in home.journal()])
    assert lines[0] == lines[1]
    # How often its timer fires follows from how long it all takes.
    assert all(one.pop(PREFIX + "loop_lag_seconds") for one in samples)
    assert samples[0] == samples[1]


async def counted(home: House, name: str) -> float:
    """A metric, of all labels."""
    text = (await home.get("/metrics", admin=True)).body.decode()
    return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == PREFIX + name)


async def baselines(home: House) -> dict[str, float]:
    text = (await home.get("/metrics", admin=True)).body.decode()
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    named = {PREFIX + "baseline_usd_total", PREFIX + "compared_usd_total"}
    return {s.labels.get("baseline", "compared"): s.value for s in samples if s.name in named}


async def test_the_state_shows_what_is_under_way(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        secret = {"x_tidegate_residency": "local"}
        async with home.asking(**secret), home.asking(**secret):
            await eventually(lambda: home.gateway.router.held == 1)
            state = (await home.get("/api/state", admin=True)).json
        await home.quiet()
        after = (await home.get("/api/state", admin=True)).json
    assert (state["in_flight"], state["held"], state["ready"]) == (2, 1, True)
    laptop = state["endpoints"]["laptop"]
    assert (laptop["in_flight"], laptop["local"], laptop["up"], laptop["breaker"]) == (1, True, True, "closed")
    assert (after["in_flight"], after["held"]) == (0, 0)


async def test_the_memory_that_an_engine_tells_of_is_shown_less_what_is_ours(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), engine="llamacpp")
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        gateway = home.gateway
        prober = Prober(gateway.dispatch, gateway.dispatch.upstreams["laptop"], 3600.0)
        home.engines["laptop"].slots = 3
        async with home.asking(chat(stream=True), x_tidegate_residency="local"):
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
            fact = await prober.look()
            gateway.dispatch.probed(fact)
            state = (await home.get("/api/state", admin=True)).json["endpoints"]
            text = (await home.get("/metrics", admin=True)).body.decode()
    assert (fact.slots, fact.kv_share, fact.preemptions) == (3, None, None)
    assert fact.context_tokens is not None
    assert fact.kv_tokens_max == 3 * fact.context_tokens
    told = state["laptop"]["memory"]
    assert (told["kv_tokens_max"], told["slots"]) == (fact.kv_tokens_max, 3)
    assert 0 < told["kv_tokens_max"] - told["kv_free_tokens"] < 100
    assert state["cloud"]["memory"] is None
    assert f'tidegate_kv_tokens_max{{endpoint="laptop"}} {float(fact.kv_tokens_max)}' in text
    assert f'tidegate_kv_tokens_free{{endpoint="laptop"}} {float(told["kv_free_tokens"])}' in text
    assert 'tidegate_kv_tokens_free{endpoint="cloud"}' not in text


async def test_the_load_of_others_is_told_less_what_is_ours(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), engine="llamacpp")
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        gateway = home.gateway
        prober = Prober(gateway.dispatch, gateway.dispatch.upstreams["laptop"], 3600.0)
        home.engines["laptop"].others = (3, 2)
        async with home.asking(x_tidegate_residency="local"):
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
            fact = await prober.look()
            gateway.dispatch.probed(fact)
            state = (await home.get("/api/state", admin=True)).json["endpoints"]
            text = (await home.get("/metrics", admin=True)).body.decode()
    assert (fact.running, fact.queued) == (4, 2)
    assert fact.measured_s is not None
    assert fact.measured_s <= gateway.clock.now_s()
    told = state["laptop"]["others"]
    assert (told["running"], told["queued"]) == pytest.approx((3.0, 2.0), rel=0.1)
    assert told["trust"] == 1.0
    assert state["cloud"]["others"] is None
    assert 'tidegate_report_trust{endpoint="laptop"} 1.0' in text
    assert 'tidegate_report_trust{endpoint="cloud"}' not in text


async def test_a_decision_is_explained_with_its_candidates_and_what_came_of_it(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        asked = await home.ask()
        decision_id = asked.header("x-tidegate-decision")
        first = asyncio.create_task(home.get(f"/api/decisions/{decision_id}", admin=True))
        await eventually(lambda: home.gateway._admin._explainer.busy)
        second = await home.get(f"/api/decisions/{decision_id}", admin=True)
        found = (await first).json
    assert (second.status, second.error["code"], second.header("retry-after")) == (503, "http_503", "1")
    (explained,) = found["explained"]
    assert {c["endpoint"]: c.get("excluded") for c in explained["candidates"]} == {"cloud": None, "laptop": None}
    assert explained["decision"] == found["decisions"][0][1]
    assert explained["request"] == found["request"]
    assert [e["ending"] for e in found["endings"]] == ["ok"]
    assert set(found["why"]) == {"cheapest_on_time"}


async def test_without_a_journal_a_decision_is_shown_and_not_explained(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"journal": ""}) as home:
        asked = await home.ask()
        found = await home.get(f"/api/decisions/{asked.header('x-tidegate-decision')}", admin=True)
    assert asked.status == 200
    assert found.json["explained"] is None
    assert found.json["decisions"][0][1]["why"] == "cheapest_on_time"


@pytest.mark.lengthy
async def test_the_same_facts_are_told_of_a_decision_with_a_journal_and_without(tmp_path: Path) -> None:
    found = []
    for journal in ("journal", ""):
        (folder := tmp_path / f"house {journal}").mkdir()
        async with house(folder, gateway={"journal": journal}) as home:
            asked = await home.ask()
            found.append((await home.get(f"/api/decisions/{asked.header('x-tidegate-decision')}", admin=True)).json)
    written, remembered = found
    assert written.keys() == remembered.keys()
    assert written["why"] == remembered["why"]
    assert written["request"].keys() == remembered["request"].keys()
    for name in ("decisions", "endings"):
        assert len(written[name]) == len(remembered[name]) == 1
    assert written["decisions"][0][1].keys() == remembered["decisions"][0][1].keys()
    assert written["endings"][0].keys() == remembered["endings"][0].keys()


async def test_a_decision_that_cannot_be_explained_now_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home:
        asked = await home.ask()
        monkeypatch.setattr("sys.executable", "/nowhere/python")
        found = await home.get(f"/api/decisions/{asked.header('x-tidegate-decision')}", admin=True)
    assert (found.status, found.error["code"]) == (503, "http_503")
    assert "cannot be started" in found.error["message"]


async def test_a_decision_that_is_not_there_is_404_with_a_journal_and_without(tmp_path: Path) -> None:
    said = []
    for journal in ("journal", ""):
        (folder := tmp_path / f"house {journal}").mkdir()
        async with house(folder, gateway={"journal": journal}) as home:
            for decision_id in ("nobody", "--help", "x" * 129, ""):
                found = await home.get(f"/api/decisions/{decision_id}", admin=True)
                said.append((found.status, found.error["message"]))
    none, no_id = (404, "The journal has no decision of this id."), (404, "This is no id of a decision.")
    without = (404, "No recent decision has this id; of older ones a journal would tell.")
    assert said == [none, *3 * [no_id], *4 * [without]]


async def test_what_is_not_there_is_404_and_what_changes_something_is_405(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        missing = [await home.get(path, admin=True) for path in ("/", "/api/decisions/none", "/v1/models")]
        changing = await home.get("/api/state", method="DELETE", admin=True)
    assert [(a.status, a.error["code"]) for a in missing] == [(404, "http_404")] * 3
    assert (changing.status, changing.error["code"], changing.header("allow")) == (405, "http_405", "GET, HEAD")


async def test_a_stop_does_not_wait_for_an_explanation(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        decision_id = (await home.ask()).header("x-tidegate-decision")
        asking = asyncio.create_task(home.get(f"/api/decisions/{decision_id}", admin=True))
        explainer = home.gateway._admin._explainer
        await eventually(lambda: explainer.busy)
        task = explainer._asking
    assert not explainer.busy
    assert task is not None
    assert task.cancelled()
    assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.IncompleteReadError)


async def test_a_dry_run_says_what_would_make_it_another_decision_and_sends_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"journal": ""}) as home:
        before = bytes(home.gateway.router.snapshot())
        first = asyncio.create_task(home.ask(x_tidegate_dry_run="flips"))
        await eventually(lambda: home.gateway._explainer.busy)
        second = await home.ask(x_tidegate_dry_run="flips", x_request_id="mine")
        found = await first
        assert bytes(home.gateway.router.snapshot()) == before
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    assert (second.status, second.error["code"], second.header("retry-after")) == (503, "busy", "1")
    assert found.status == 200
    assert found.json["decision"]["plan"][0]["endpoint"] == "laptop"
    by_axis = {(flip["axis"], flip.get("endpoint")): flip for flip in found.json["flips"]}
    assert by_axis["prompt_tokens", None]["goes_to"] == "cloud"
    assert by_axis["in_flight", "laptop"]["now"] == 0.0


@pytest.mark.lengthy
async def test_what_lies_where_it_was_started_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    async with house(tmp_path) as home:
        found = await home.ask(x_tidegate_dry_run="flips")
    assert found.json["flips"]


async def test_a_dry_run_answers_without_flips_where_nobody_can_look_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home:
        monkeypatch.setattr("sys.executable", "/nowhere/python")
        found = await home.ask(x_tidegate_dry_run="flips")
    assert found.status == 200
    assert "flips" not in found.json
    assert found.json["decision"]["plan"]


@pytest.mark.lengthy
async def test_who_leaves_stops_the_explaining_and_clients_keep_no_operator_waiting(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        decision_id = (await home.ask()).header("x-tidegate-decision")
        explainer = home.gateway._explainer
        async with home.asking(x_tidegate_dry_run="flips"):
            await eventually(lambda: explainer.busy)
            found = await home.get(f"/api/decisions/{decision_id}", admin=True)
            assert found.status == 200
            assert found.json["explained"][0]["flips"]
        async with home.asking(x_tidegate_dry_run="flips"):
            await eventually(lambda: explainer.busy)
        await eventually(lambda: not explainer.busy)
        assert (await home.ask(x_tidegate_dry_run="flips")).json["flips"]


async def test_what_is_cancelled_before_it_has_begun_keeps_nobody_waiting() -> None:
    explainer, said = Explainer(), list[object]()
    explainer.begin("any", lambda *told: said.append(told))
    explainer.cancel()
    await eventually(lambda: not explainer.busy)
    assert said == []
