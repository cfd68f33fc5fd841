"""Keys before the real gateway: who is let in, what each may do, how often, and that no secret leaves a trace."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.harness import SURE, Answer, House, chat, house, local, remote, wire
from tests.gateway.test_budget import fill_up
from tests.http.harness import SetClock, eventually
from tidegate.clock import Clock
from tidegate.core.model import Request
from tidegate.core.profile import Profile
from tidegate.engines.fake import Fault, Script
from tidegate.gateway import daemon
from tidegate.gateway.auth import PRESENTED_BYTES_MAX
from tidegate.state.keys import KeyFile, new_secret

ADMIN = "zyx-admin-0123456789abcdef"
CLASSES = {"quick": {"worth_usd": 0.01}, "medical": {"residency": ["local"]}, "abroad": {"residency": ["away"]}}


def create(folder: Path, name: str = "alice", **fields: Any) -> str:
    """A key with these limits in the house's file; its secret."""
    secret = new_secret()
    with closing(KeyFile(folder / "keys.db", write=True)) as file:
        file.create(Profile(id=f"{name}-1", name=name, created_s=0.0, **fields), secret, "tester")
    return secret


def guarded(folder: Path, clock: Clock | None = None, **settings: Any) -> Any:
    """A house whose door has a lock."""
    return house(folder, gateway={"keys": "keys.db"}, clock=clock, **settings)


@asynccontextmanager
async def one_key(
    folder: Path, clock: Clock | None = None, **fields: Any
) -> AsyncIterator[tuple[House, dict[str, str]]]:
    """A house with a key of these limits, and the header that opens it."""
    secret = create(folder, **fields)
    async with guarded(folder, clock, classes=CLASSES) as home:
        yield home, {"authorization": f"Bearer {secret}"}


def limits(answer: Answer, kind: str) -> list[str]:
    return [answer.header(f"x-ratelimit-{what}-{kind}") for what in ("limit", "remaining", "reset")]


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer {}"},
        {"authorization": "bearer  {}"},
        {"x_api_key": "{}"},
        {"authorization": "Basic YTpi", "x_api_key": "{}"},
    ],
    ids=lambda headers: "+".join(headers),
)
async def test_a_key_opens_as_bearer_or_as_x_api_key(tmp_path: Path, headers: dict[str, str]) -> None:
    secret = create(tmp_path)
    async with guarded(tmp_path) as home:
        named = {name: value.format(secret) for name, value in headers.items()}
        assert (await home.ask(**named)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "{}"},
        {"authorization": "Bearer tk-0000000000000000000000000000000"},
        {"authorization": "Bearer {}x"},
        {"authorization": "Bearer {}, Bearer {}"},
        {"authorization": "Bearer " + "x" * (PRESENTED_BYTES_MAX + 1)},
        {"authorization": "Bearer other", "x_api_key": "{}"},
        {"x_api_key": "\xe9"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nothing"])
async def test_what_opens_nothing_is_told_so_and_reaches_no_engine(
    tmp_path: Path, headers: dict[str, str], path: str
) -> None:
    secret = create(tmp_path)
    async with guarded(tmp_path) as home:
        named = {name: value.format(secret, secret) for name, value in headers.items()}
        answer = await home.ask(path=path, method="GET" if path == "/v1/models" else "POST", **named)
        assert all(not engine.seen for engine in home.engines.values())
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.header("www-authenticate") == "Bearer"
    assert secret not in answer.body.decode()


async def test_a_body_is_not_read_before_the_key(tmp_path: Path) -> None:
    create(tmp_path)
    async with guarded(tmp_path) as home:
        assert (await home.ask(b"{")).status == 401


async def test_a_large_body_is_not_even_taken_without_a_key(tmp_path: Path) -> None:
    prompt = "word " * 20_000
    async with one_key(tmp_path) as (home, key):
        assert (await home.ask(chat(prompt), **key)).status == 200
        head = wire("POST", "/v1/chat/completions", headers=[("authorization", "Bearer other")])
        refused = await home.send(head.replace(b"content-length: 0", b"content-length: 100000"))
        assert (refused.status, refused.error["code"]) == (413, "http_413")
        assert "without a valid key" in refused.error["message"]


async def test_whoever_watches_needs_no_key(tmp_path: Path) -> None:
    create(tmp_path)
    async with guarded(tmp_path) as home:
        assert [(await home.get(path)).status for path in ("/livez", "/readyz", "/health")] == [200, 200, 200]


async def test_a_file_without_a_live_key_lets_nobody_in(tmp_path: Path) -> None:
    secret = create(tmp_path)
    with closing(KeyFile(tmp_path / "keys.db", write=True)) as file:
        file.revoke("alice", 1.0, "tester")
    async with guarded(tmp_path) as home:
        assert (await home.ask(authorization=f"Bearer {secret}")).status == 401
        assert (await home.ask()).status == 401


async def test_without_a_file_everybody_is_served_and_nothing_is_said_of_limits(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(authorization="Bearer whatever")
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith(b"x-ratelimit")]
        assert home.log()[0]["key"] is None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://evil.example:8400", "HTTP://localhost.evil", "null"]
)
async def test_without_a_file_no_page_from_elsewhere_spends(tmp_path: Path, origin: str) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(origin=origin, content_type="text/plain")  # for which browsers want no leave of ours
        assert answer.status == 403
        assert answer.endpoint == ""


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "app://notes"])
async def test_without_a_file_what_runs_on_this_machine_is_served(tmp_path: Path, origin: str) -> None:
    async with house(tmp_path) as home:
        assert (await home.ask(origin=origin)).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/v1/chat/completions"])
async def test_without_a_file_no_page_reads_by_a_name_of_its_own_that_it_made_to_mean_us(
    tmp_path: Path, path: str
) -> None:
    async with house(tmp_path) as home:
        answer = await home.send(b"GET %b HTTP/1.1\r\nhost: evil.example:8400\r\n\r\n" % path.encode())
    assert answer.status == 403
    assert b"gateway.keys" in answer.body


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8400", "[::1]:8400", "192.168.1.7", "203.0.113.7:80", "localhost:8400", "LOCALHOST"),
        *("gateway", "mac.local:8400", "host.docker.internal:8400", socket.gethostname(), ""),
    ],
)
async def test_without_a_file_whoever_asks_by_an_address_or_a_name_that_is_nobody_elses_is_served(
    tmp_path: Path, host: str
) -> None:
    async with house(tmp_path) as home:
        answer = await home.send(b"GET /v1/models HTTP/1.1\r\nhost: %b\r\n\r\n" % host.encode())
    assert answer.status == 200


async def test_a_page_of_anybody_is_served_with_a_key(tmp_path: Path) -> None:
    secret = create(tmp_path)
    async with guarded(tmp_path) as home:
        assert (await home.ask(origin="https://chat.example", authorization=f"Bearer {secret}")).status == 200
        head = f"GET /v1/models HTTP/1.1\r\nhost: gateway.example\r\nauthorization: Bearer {secret}\r\n\r\n"
        assert (await home.send(head.encode())).status == 200


async def test_a_key_opens_until_it_expires(tmp_path: Path) -> None:
    clock = SetClock()
    async with one_key(tmp_path, clock, expires_s=1500.0) as (home, key):
        assert (await home.ask(**key)).status == 200
        clock.at_s = 1500.0
        assert (await home.ask(**key)).status == 401


async def test_keys_are_created_rotated_and_revoked_while_the_gateway_runs(tmp_path: Path) -> None:
    old, new = create(tmp_path), new_secret()
    async with guarded(tmp_path) as home:

        async def opened() -> list[int]:
            await home.gateway.auth.refresh()
            return [(await home.get_with("/v1/models", secret)).status for secret in (old, new, bob)]

        bob = create(tmp_path, "bob")
        assert await opened() == [200, 401, 200]
        with closing(KeyFile(tmp_path / "keys.db", write=True)) as file:
            file.rotate("alice", new, home.gateway.clock.now_s(), 60.0, "tester")
            assert await opened() == [200, 200, 200]
            file.rotate("alice", new_secret(), home.gateway.clock.now_s(), 0.0, "tester")
            assert await opened() == [401, 401, 200]
            file.revoke("bob", 1.0, "tester")
            assert await opened() == [401, 401, 401]


async def test_what_goes_on_of_a_key_that_is_revoked_is_paid_for_within_its_budget(tmp_path: Path) -> None:
    secret = create(tmp_path, usd_per_day=0.0001)
    slow = local(Script(first_s=0.05, token_s=0.01, tokens=10), concurrency=1, prior=SURE | {"overhead_ms": 50})
    async with guarded(tmp_path, laptop=slow, cloud=remote()) as home:
        key = {"authorization": f"Bearer {secret}"}
        async with home.asking(chat(max_tokens=10), **key):
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
            held = asyncio.create_task(home.ask(chat(max_tokens=10), x_tidegate_slo_ttft_ms="300", **key))
            await eventually(lambda: home.gateway.router.held == 1)
            with closing(KeyFile(tmp_path / "keys.db", write=True)) as file:
                file.revoke("alice", 1.0, "tester")
            await home.gateway.auth.refresh()
            assert (await home.ask(**key)).status == 401
            answer = await held
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert home.engines["cloud"].seen == []
        await home.quiet()
        create(tmp_path, "bob")
        await home.gateway.auth.refresh()
        assert (await home.get("/api/state", admin=True)).json["budget"]["caps"] == [], "nothing goes on"


async def test_a_key_that_comes_back_has_what_is_left_of_its_limits(tmp_path: Path) -> None:
    secret, path = create(tmp_path, concurrency=1), tmp_path / "keys.db"
    key = {"authorization": f"Bearer {secret}"}
    async with guarded(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home, home.asking(**key):
        await eventually(lambda: home.gateway.dispatch.in_flight == 1)
        before = path.read_bytes()
        with closing(KeyFile(path, write=True)) as file:
            file.revoke("alice", 1.0, "tester")
        await home.gateway.auth.refresh()
        assert (await home.ask(**key)).status == 401
        (tmp_path / "restored").write_bytes(before)
        (tmp_path / "restored").replace(path)
        await home.gateway.auth.refresh()
        assert "under way" in (await home.ask(**key)).error["message"]


@pytest.mark.lengthy
async def test_the_gateway_looks_for_changes_by_itself(tmp_path: Path) -> None:
    create(tmp_path)
    async with guarded(tmp_path) as home:
        with closing(KeyFile(tmp_path / "keys.db", write=True)) as file:
            file.revoke("alice", 1.0, "tester")
        await eventually(lambda: [line.get("secrets") for line in home.log("event") if "secrets" in line] == [1, 0])


async def test_an_unreadable_file_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    async with one_key(tmp_path) as (home, key):
        (tmp_path / "keys.db").rename(tmp_path / "gone.db")
        for _ in range(3):
            await home.gateway.auth.refresh()
        assert (await home.ask(**key)).status == 200
        assert [line["event"] for line in home.log("event") if line["level"] == "error"] == [
            "keys cannot be read; those that were known hold"
        ]


@pytest.mark.lengthy
async def test_a_disk_that_hangs_under_the_file_stops_neither_clients_nor_the_end_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.db"
    async with one_key(tmp_path) as (home, key):
        await eventually(lambda: not readers())
        path.unlink()
        os.mkfifo(path)  # who opens it waits for a writer
        monkeypatch.setattr("tidegate.gateway.auth.READ_S", 0.05)
        await eventually(lambda: bool(readers()))
        assert (await home.ask(**key)).status == 200
        for _ in range(3):
            await home.gateway.auth.refresh()
        assert len(readers()) == 1
        (told,) = [line for line in home.log("event") if line["level"] == "error"]
        assert told["event"] == "keys cannot be read; those that were known hold"
        assert "did not answer within" in told["reason"]
    (hangs,) = readers()
    assert hangs.daemon, "the process would wait for it"
    os.close(os.open(path, os.O_WRONLY))
    hangs.join()


@pytest.mark.lengthy
async def test_a_disk_that_has_hung_is_read_again_once_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside = tmp_path / "keys.db", tmp_path / "aside"
    async with one_key(tmp_path) as (home, key):
        await eventually(lambda: not readers())
        path.rename(aside)
        os.mkfifo(path)
        with monkeypatch.context() as patch:
            patch.setattr("tidegate.gateway.auth.READ_S", 0.05)
            await home.gateway.auth.refresh()
        writer = os.open(path, os.O_WRONLY)
        aside.replace(path)
        os.close(writer)
        with closing(KeyFile(path, write=True)) as file:
            file.revoke("alice", 1.0, "tester")
        await eventually(lambda: not home.gateway.auth.profiles())
        assert (await home.ask(**key)).status == 401


def readers() -> list[threading.Thread]:
    """Those that have the file open, or wait for that."""
    return [thread for thread in threading.enumerate() if thread.name == daemon.NAMED + "keys"]


# --- what it may do ---------------------------------------------------------------------------------------------------


async def test_a_class_that_is_not_for_this_key_is_refused_with_those_that_are(tmp_path: Path) -> None:
    async with one_key(tmp_path, classes=("quick", "batch")) as (home, key):
        refused = [await home.ask(x_tidegate_class=name, **key) for name in ("interactive", "medical", "none")]
        assert (await home.ask(x_tidegate_class="batch", **key)).status == 200
        assert (await home.ask(**key)).status == 200
        assert [line["klass"].split("/")[0] for line in home.log()] == ["batch", "quick"]
    for answer in refused:
        assert (answer.status, answer.error["code"]) == (403, "class_not_allowed")
        assert "batch, quick" in answer.error["message"]
        assert "medical" not in answer.error["message"]


async def test_a_request_that_names_no_class_is_of_the_keys_default(tmp_path: Path) -> None:
    async with one_key(tmp_path, class_default="batch") as (home, key):
        await home.ask(**key)
        await home.ask(x_tidegate_class="interactive", **key)
        assert [line["klass"].split("/")[0] for line in home.log()] == ["batch", "interactive"]


async def test_a_model_that_is_not_for_this_key_does_not_exist_for_it(tmp_path: Path) -> None:
    secret = create(tmp_path, models=("mine",))
    places: dict[str, Any] = {"laptop": local(serves=["mine"]), "cloud": remote(serves=["theirs"])}
    async with guarded(tmp_path, **places) as home:
        key = {"authorization": f"Bearer {secret}"}
        listed = await home.get_with("/v1/models", secret)
        others = [await home.get_with(f"/v1/models/{name}", secret) for name in ("theirs", "none")]
        asked = [await home.ask(chat(model=name), **key) for name in ("theirs", "none")]
        assert (await home.ask(chat(model="mine"), **key)).status == 200
        assert home.engines["cloud"].seen == []
    assert [model["id"] for model in listed.json["data"]] == ["mine"]
    for one, other in (others, asked):
        assert (one.status, one.error["code"]) == (404, "model_not_found")
        assert (one.body, one.headers.keys()) == (other.body, other.headers.keys())


@pytest.mark.parametrize(
    "extra",
    [
        {"models": ["m", "other"]},
        {"preset": "large"},
        {"fallbacks": ["other"]},
        {"context_window_fallbacks": [{"m": ["other"]}]},
        {"content_policy_fallbacks": [{"m": ["other"]}]},
        {"extra_body": {"model": "other"}},
    ],
    ids=lambda extra: next(iter(extra)),
)
async def test_a_key_for_some_models_has_no_vendor_answer_with_others(tmp_path: Path, extra: dict[str, Any]) -> None:
    limited, free = create(tmp_path, models=("m",)), create(tmp_path, "bob")
    async with guarded(tmp_path, cloud=remote()) as home:
        refused = await home.ask(chat(**extra), authorization=f"Bearer {limited}")
        assert (refused.status, refused.error["code"]) == (403, "option_not_allowed")
        assert refused.error["param"] == next(iter(extra))
        assert home.engines["cloud"].seen == []
        assert (await home.ask(chat(models=None), authorization=f"Bearer {limited}")).status == 200
        assert (await home.ask(chat(**extra), authorization=f"Bearer {free}")).status == 200


@pytest.mark.parametrize("extra", [{"preset": "x"}, {"context_window_fallbacks": [{"m": ["big"]}]}, {"extra_body": {}}])
async def test_nor_where_it_is_asked_in_the_vendors_own_dialect(tmp_path: Path, extra: dict[str, Any]) -> None:
    limited = create(tmp_path, models=("m",))
    async with guarded(tmp_path, cloud=remote(engine="anthropic")) as home:
        asked = chat(max_tokens=1, **extra)
        refused = await home.ask(asked, path="/v1/messages", authorization=f"Bearer {limited}")
        assert (refused.status, home.engines["cloud"].seen) == (403, [])


@pytest.mark.parametrize("engine", ["fake", "ollama"])
async def test_nor_where_its_name_is_written_in_another_case(tmp_path: Path, engine: str) -> None:
    limited = create(tmp_path, models=("m",))
    async with guarded(tmp_path, cloud=remote(engine=engine)) as home:
        for path in ("/v1/chat/completions", "/v1/messages"):
            asked = chat(max_tokens=1, Model="other")
            refused = await home.ask(asked, path=path, authorization=f"Bearer {limited}")
            assert (refused.status, "`Model`" in refused.json["error"]["message"]) == (400, True)
        assert home.engines["cloud"].seen == []


@pytest.mark.parametrize("asked", [None, "anywhere", "away", "away,local"])
async def test_a_request_cannot_widen_where_its_keys_data_may_go(tmp_path: Path, asked: str | None) -> None:
    secret = create(tmp_path, residency=("local",))
    async with guarded(tmp_path, laptop=local(Script(status=500)), cloud=remote()) as home:
        headers = {} if asked is None else {"x_tidegate_residency": asked}
        answer = await home.ask(authorization=f"Bearer {secret}", **headers)
        assert bool(home.engines["laptop"].seen) == (asked != "away")
        assert home.engines["cloud"].seen == []
    assert answer.status >= 400


async def test_a_request_may_narrow_where_its_keys_data_may_go(tmp_path: Path) -> None:
    async with one_key(tmp_path, residency=("home", "away")) as (home, key):
        assert (await home.ask(x_tidegate_residency="away", **key)).endpoint == "cloud"


async def test_a_class_whose_sites_the_key_may_not_use_is_refused(tmp_path: Path) -> None:
    async with one_key(tmp_path, residency=("local",)) as (home, key):
        answer = await home.ask(x_tidegate_class="abroad", **key)
        assert all(not engine.seen for engine in home.engines.values())
    assert (answer.status, answer.error["code"]) == (403, "residency_not_allowed")


async def test_keys_that_name_sites_without_an_endpoint_are_told_of_once_and_the_refusal_says_whose_the_bound_is(
    tmp_path: Path,
) -> None:
    def told(home: House) -> list[tuple[str, str]]:
        return [(line["keys"], line["sites"]) for line in home.log("event") if "sites" in line]

    secret = create(tmp_path, "typo", residency=("lokal",))
    create(tmp_path, "right", residency=("home", "away"))
    create(tmp_path, "own", residency=("local",))
    async with guarded(tmp_path) as home:
        answer = await home.ask(authorization=f"Bearer {secret}")
        assert (answer.status, answer.error["code"]) == (400, "site_not_allowed")
        assert "its class or key" in answer.error["message"]
        create(tmp_path, "bob")
        await home.gateway.auth.refresh()
        assert told(home) == [("typo", "lokal")]
        create(tmp_path, "more", residency=("home", "hme"))
        await home.gateway.auth.refresh()
        assert told(home) == [("typo", "lokal"), ("more, typo", "hme, lokal")]


async def test_a_site_that_a_reload_takes_away_is_told_of_with_the_keys_that_name_it(tmp_path: Path) -> None:
    create(tmp_path, residency=("home", "away"))
    async with guarded(tmp_path) as home:
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace("site.away", "site.far").replace('site = "away"', 'site = "far"'))
        assert (await home.change("POST", "/api/config")).status == 200
        assert [line["sites"] for line in home.log("event") if "sites" in line] == ["away"]


def told_of_classes(home: House) -> list[tuple[str, str]]:
    return [(line["keys"], line["classes"]) for line in home.log("event") if "classes" in line]


async def test_keys_that_name_classes_which_are_not_there_are_told_of_once(tmp_path: Path) -> None:
    create(tmp_path, "typo", classes=("quick", "bach"), class_default="quick")
    create(tmp_path, "right", class_default="batch")
    async with guarded(tmp_path, classes=CLASSES) as home:
        create(tmp_path, "bob")
        await home.gateway.auth.refresh()
        assert told_of_classes(home) == [("typo", "bach")]
        create(tmp_path, "more", class_default="quik")
        await home.gateway.auth.refresh()
        assert told_of_classes(home) == [("typo", "bach"), ("more, typo", "bach, quik")]


async def test_a_class_that_a_reload_takes_away_is_told_of_and_the_refusal_says_whose_default_it_is(
    tmp_path: Path,
) -> None:
    secrets = [create(tmp_path, "alice", class_default="gold")]
    secrets += [create(tmp_path, "bob", classes=("gold", "batch"), class_default="gold")]
    async with guarded(tmp_path, classes={"gold": {"worth_usd": 0.01}}) as home:
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace("[class.gold]", "[class.silver]"))
        assert (await home.change("POST", "/api/config")).status == 200
        assert told_of_classes(home) == [("alice, bob", "gold")]
        refused = [await home.ask(authorization=f"Bearer {secret}") for secret in secrets]
        for secret in secrets:
            assert (await home.ask(authorization=f"Bearer {secret}", x_tidegate_class="batch")).status == 200
    assert [answer.status for answer in refused] == [400, 403]
    for answer in refused:
        assert answer.error["message"].startswith("This key's default class `gold` is not configured")
    assert "silver" in refused[0].error["message"]
    assert "silver" not in refused[1].error["message"]


# --- how often --------------------------------------------------------------------------------------------------------


async def test_requests_beyond_the_limit_are_told_when_to_come_back(tmp_path: Path) -> None:
    clock = SetClock()
    async with one_key(tmp_path, clock, requests_per_minute=2) as (home, key):
        answers = [await home.ask(**key) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [limits(answer, "requests") for answer in answers] == [
            ["2", "1", "30.000s"], ["2", "0", "60.000s"], ["2", "0", "60.000s"]
        ]  # fmt: skip
        assert answers[2].error["code"] == "rate_limit_exceeded"
        assert answers[2].header("retry-after") == "30"
        clock.at_s += 29.0
        assert (await home.ask(**key)).status == 429
        clock.at_s += 1.0
        assert (await home.ask(**key)).status == 200


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/api/show"])
async def test_what_is_asked_without_inference_counts_too_where_it_has_a_body_to_read(
    tmp_path: Path, path: str
) -> None:
    async with one_key(tmp_path, SetClock(), requests_per_minute=1) as (home, key):
        assert (await home.ask(chat(), path=path, **key)).status == 200
        refused = await home.ask(b"{", path=path, **key)
        assert refused.status == 429
        assert refused.header("retry-after") == "60"


async def test_every_answer_of_a_limited_key_tells_where_it_stands(tmp_path: Path) -> None:
    async with one_key(tmp_path, SetClock(), requests_per_minute=9, tokens_per_minute=1000) as (home, key):
        secret = key["authorization"][7:]
        answers = [
            await home.ask(**key),
            await home.ask(chat(stream=True), **key),
            await home.ask(x_tidegate_dry_run="1", **key),
            await home.ask(b"{", **key),
            await home.ask(chat(model="none"), **key),
            await home.ask(path="/nothing", **key),
            await home.get_with("/v1/models", secret),
        ]
    assert [answer.status for answer in answers] == [200, 200, 200, 400, 404, 404, 200]
    assert [limits(answer, "requests")[:2] for answer in answers] == [
        ["9", left] for left in ("8", "7", "6", "5", "4", "4", "4")
    ]
    assert all(limits(answer, "tokens")[0] == "1000" for answer in answers)


async def test_tokens_are_held_back_by_the_estimate_and_counted_by_the_usage(tmp_path: Path) -> None:
    clock = SetClock()
    async with one_key(tmp_path, clock, tokens_per_minute=1000) as (home, key):
        begun = await home.ask(chat(max_tokens=600, stream=True), **key)
        assert int(limits(begun, "tokens")[1]) < 400
        await home.quiet()
        line = home.log()[0]
        used = line["prompt_tokens"] + line["output_tokens"]
        assert 0 < used < 600
        listed = await home.get_with("/v1/models", key["authorization"][7:])
        assert limits(listed, "tokens")[1] == str(1000 - used)


async def test_tokens_beyond_the_limit_are_told_when_to_come_back(tmp_path: Path) -> None:
    clock = SetClock()
    script = Script(fault=Fault.SILENT)
    secret = create(tmp_path, tokens_per_minute=600)
    key = {"authorization": f"Bearer {secret}"}
    async with guarded(tmp_path, clock, laptop=local(script)) as home:
        async with home.asking(chat(max_tokens=300), **key):
            await eventually(lambda: home.gateway.dispatch.in_flight == 1)
            refused = await home.ask(chat(max_tokens=300), **key)
            assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
            assert 1 <= int(refused.header("retry-after")) <= 30
        await home.quiet()


async def test_a_request_that_reached_no_engine_gives_its_tokens_back(tmp_path: Path) -> None:
    secret = create(tmp_path, tokens_per_minute=1000)
    async with guarded(tmp_path, SetClock(), laptop=local(Script(status=500))) as home:
        assert (await home.ask(chat(max_tokens=500), authorization=f"Bearer {secret}")).status == 502
        listed = await home.get_with("/v1/models", secret)
    assert limits(listed, "tokens")[1] == "1000"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_an_engine_finds_fault_with_gives_its_tokens_back(tmp_path: Path, streamed: bool) -> None:
    secret = create(tmp_path, tokens_per_minute=1000)
    async with guarded(tmp_path, SetClock(), laptop=local(Script(status=400))) as home:
        for most in (500, 100_000):
            answer = await home.ask(chat(max_tokens=most, stream=streamed), authorization=f"Bearer {secret}")
            assert answer.status == 400
            listed = await home.get_with("/v1/models", secret)
            assert limits(listed, "tokens")[1] == "1000"


async def test_a_request_that_could_not_be_sent_gives_its_tokens_back(tmp_path: Path) -> None:
    secret = create(tmp_path, tokens_per_minute=1000)
    async with guarded(tmp_path, SetClock(), cloud=remote()) as home:
        fill_up(home)
        answer = await home.ask(chat(max_tokens=500), authorization=f"Bearer {secret}")
        assert answer.error["code"] == "spending_unrecorded"
        listed = await home.get_with("/v1/models", secret)
    assert limits(listed, "tokens")[1] == "1000"


async def test_an_answer_that_does_not_say_what_it_took_uses_what_was_held_back_for_it(tmp_path: Path) -> None:
    secret = create(tmp_path, tokens_per_minute=1000)
    async with guarded(tmp_path, SetClock(), laptop=local(Script(usage=False))) as home:
        assert (await home.ask(chat(max_tokens=600), authorization=f"Bearer {secret}")).status == 200
        (line,) = home.log()
        assert line["prompt_tokens"] > 0
        listed = await home.get_with("/v1/models", secret)
    assert limits(listed, "tokens")[1] == str(400 - line["prompt_tokens"])


async def test_a_prompt_that_no_minute_has_room_for_is_not_tried_again(tmp_path: Path) -> None:
    async with one_key(tmp_path, tokens_per_minute=100) as (home, key):
        answer = await home.ask(chat("word " * 500), **key)
        assert (answer.status, answer.header("x-should-retry"), answer.header("retry-after")) == (429, "false", "")
        assert (await home.ask(chat(max_tokens=5000), **key)).status == 200


async def test_no_more_than_the_limit_are_under_way_and_one_that_leaves_makes_room(tmp_path: Path) -> None:
    secret = create(tmp_path, concurrency=1)
    key = {"authorization": f"Bearer {secret}"}
    async with guarded(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home:
        async with home.asking(**key):
            await eventually(lambda: home.gateway.dispatch.in_flight == 1)
            answer = await home.ask(**key)
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
            assert answer.header("retry-after") == "1"
        await home.quiet()
        async with home.asking(**key):
            await eventually(lambda: home.gateway.dispatch.in_flight == 1)
        await home.quiet()


async def test_limits_are_each_keys_own_and_outlive_a_change_of_others(tmp_path: Path) -> None:
    alice = create(tmp_path, requests_per_minute=1)
    async with guarded(tmp_path, SetClock()) as home:
        assert (await home.ask(authorization=f"Bearer {alice}")).status == 200
        bob = create(tmp_path, "bob", requests_per_minute=1)
        await home.gateway.auth.refresh()
        assert (await home.ask(authorization=f"Bearer {bob}")).status == 200
        assert (await home.ask(authorization=f"Bearer {alice}")).status == 429


async def test_another_weight_gives_no_limits_anew(tmp_path: Path) -> None:
    secret = create(tmp_path, concurrency=1, requests_per_minute=2)
    key = {"authorization": f"Bearer {secret}"}
    async with guarded(tmp_path, SetClock(), laptop=local(Script(fault=Fault.SILENT))) as home:
        async with home.asking(**key):
            await eventually(lambda: home.gateway.dispatch.in_flight == 1)
            with closing(KeyFile(tmp_path / "keys.db", write=True)) as file:
                file.weigh("alice", 2.0, 1.0, "tester")
            await home.gateway.auth.refresh()
            assert [profile.weight for profile in home.gateway.auth.profiles()] == [2.0]
            assert "under way" in (await home.ask(**key)).error["message"]
        await home.quiet()
        assert "2 requests a minute" in (await home.ask(**key)).error["message"]


# --- what is known of it ----------------------------------------------------------------------------------------------


async def test_requests_are_logged_journalled_and_counted_under_the_keys_id(tmp_path: Path) -> None:
    async with one_key(tmp_path, requests_per_minute=2) as (home, key):
        for _ in range(3):
            answer = await home.ask(x_tidegate_residency="away", **key)
        assert answer.status == 429
        metrics = await home.get("/metrics", admin=True)
        assert [line["key"] for line in home.log()] == ["alice-1"] * 2
        cost_usd = sum(line["cost_usd"] for line in home.log())
    requests = [line.fact for line in home.journal() if isinstance(line.fact, Request)]
    assert [request.key for request in requests] == ["alice-1"] * 2
    families = text_string_to_metric_families(metrics.body.decode())
    found = {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}
    assert found["tidegate_key_requests_total", "alice-1", "ok"] == 2
    assert found["tidegate_key_refusals_total", "alice-1", "rate_limit_exceeded"] == 1
    assert found["tidegate_key_tokens_total", "alice-1"] > 0
    assert found["tidegate_key_cost_usd_total", "alice-1"] == pytest.approx(cost_usd)


@pytest.mark.lengthy
async def test_no_secret_is_written_or_shown_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(ADMIN)
    file.chmod(0o600)
    secret, wrong = create(tmp_path, requests_per_minute=6), new_secret()
    gateway = {"keys": "keys.db", "admin_key": {"file": "admin.key"}}
    async with house(tmp_path, gateway=gateway, laptop=local(Script(status=500)), cloud=remote()) as home:
        asked = [
            await home.ask(body, **{header: value.format(key)}, **more)
            for key in (secret, wrong, ADMIN)
            for header, value in (("authorization", "Bearer {}"), ("x_api_key", "{}"))
            for body in (chat(), chat(stream=True), b"{")
            for more in ({}, {"x_tidegate_dry_run": "1"})
        ]
        assert {answer.status for answer in asked} >= {200, 400, 401, 429}
        admin = [("authorization", f"Bearer {ADMIN}")]
        for page in ("/metrics", "/api/state", f"/api/decisions/{asked[0].header('x-tidegate-decision')}"):
            asked.append(await home.send(wire("GET", page, headers=admin), port=home.admin_port))
            assert asked[-1].status == 200
        for engine in home.engines.values():
            assert all(mark not in str(engine.seen) for mark in (secret, wrong, ADMIN))
    written = [
        file.read_bytes() for file in (tmp_path / "log", tmp_path / "keys.db", *(tmp_path / "journal").iterdir())
    ]
    shown = [b" ".join([*answer.headers, *answer.headers.values(), answer.body]) for answer in asked]
    for place in (*written, *shown):
        assert [mark for mark in (secret, wrong, ADMIN) if mark.encode() in place] == []


# --- the admin address ------------------------------------------------------------------------------------------------


async def test_the_admin_address_asks_for_its_own_secret(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(ADMIN)
    file.chmod(0o600)
    client = create(tmp_path)
    async with house(tmp_path, gateway={"keys": "keys.db", "admin_key": {"file": "admin.key"}}) as home:

        async def status(path: str, *headers: tuple[str, str], method: str = "GET") -> int:
            answer = await home.send(wire(method, path, headers=headers), port=home.admin_port)
            if answer.status == 401:
                assert answer.header("www-authenticate") == "Bearer"
            return answer.status

        pages = ("/metrics", "/api/state", "/api/decisions/x", "/none")
        right, wrong = ("authorization", f"Bearer {ADMIN}"), ("authorization", f"Bearer {client}")
        assert [await status(page, right) for page in pages] == [200, 200, 404, 404]
        assert [await status(page, wrong) for page in pages] == [401] * 4
        assert [await status(page) for page in pages] == [401] * 4
        assert await status("/metrics", ("x-api-key", ADMIN)) == 401
        assert await status("/metrics", method="POST") == 401
        assert [await status(page) for page in ("/livez", "/readyz")] == [200, 200]
        assert (await home.ask(authorization=f"Bearer {ADMIN}")).status == 401


# --- shares -----------------------------------------------------------------------------------------------------------


async def test_each_keys_share_of_our_engines_is_told_and_its_weight_is_in_the_journal(tmp_path: Path) -> None:
    heavy, light = create(tmp_path, "heavy", weight=3.0), create(tmp_path, "light")
    async with guarded(tmp_path, laptop=local()) as home:
        for secret in (heavy, heavy, light):
            assert (await home.ask(authorization=f"Bearer {secret}")).status == 200
        shares = (await home.get("/api/state", admin=True)).json["shares"]
    assert shares.keys() == {"heavy-1", "light-1"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["heavy-1"] > shares["light-1"]
    asked = [line.fact for line in home.journal() if isinstance(line.fact, Request)]
    assert [one.weight for one in asked] == [3.0, 3.0, 1.0]
