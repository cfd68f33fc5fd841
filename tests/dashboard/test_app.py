"""The dashboard over the wire: questions and answers, pages and their rules, streams, and who is not answered."""

import asyncio
import gzip
import socket
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests.dashboard.harness import ALL_MINUTES, damage, events, folded, indexed, shown
from tests.gateway.harness import wire
from tests.http.harness import client
from tests.telemetry.test_journal import files_end_at
from tidegate.cli.main import main
from tidegate.clock import DAY_S
from tidegate.core.model import Drawn, Line
from tidegate.core.why import WHY_TEXT
from tidegate.dashboard import follow, live
from tidegate.dashboard.app import WAITING_MAX
from tidegate.dashboard.live import STREAMS_MAX
from tidegate.dashboard.parent import Parent
from tidegate.dashboard.store import FILE
from tidegate.telemetry.segments import SegmentName, segments
from tidegate.wire.board import TOKEN, Begun

STYLE = "body { color: black }\n" * 200


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    (folder / "assets" / "vendor").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>here</title>")
    (folder / "login.html").write_text("<!doctype html><title>who</title>")
    (folder / "assets" / "a.css").write_text(STYLE)
    (folder / "assets" / "vendor" / "f.woff2").write_bytes(b"font")
    (folder / "assets" / "x.exe").write_bytes(b"no")
    (tmp_path / "secret.css").write_text("secret")
    return folder


async def test_every_question_is_answered_of_a_journal(journal: Path) -> None:
    rows = folded(journal)
    async with shown(journal) as page:
        summary = await page.ask("summary", minutes=ALL_MINUTES)
        assert (summary["mode"], summary["journal"], summary["rows"]) == ("journal", True, len(rows))
        assert summary["window"]["requests"] == len(rows)
        assert sum(one["requests"] for one in summary["classes"]) == len(rows)
        assert {one["tier"] for one in (await page.ask("flow", minutes=600))["flows"]} == {"local", "remote"}
        assert len((await page.ask("series", minutes=60, step=5))["points"]) == 13
        found = await page.ask("endpoints", minutes=600)
        assert {one["name"]: one["state"]["up"] for one in found["endpoints"]} == {"laptop": True, "cloud": True}
        assert (await page.ask("reasons")) == {why.value: text for why, text in WHY_TEXT.items()}
        values = await page.ask("values")
        assert values["outcomes"] == ["ok"]
        assert "worth_the_price" in values["whys"]
        one = (await page.ask("requests", q="people-1", limit=1))["rows"][0]
        assert one["id"].startswith("people-1")
        assert one["why_text"] == WHY_TEXT[one["why"]]


async def test_of_a_budget_of_all_is_spent_what_was_paid_since_pricing_was_told(journal: Path) -> None:
    (path,) = segments(journal)
    head, _, rest = path.read_bytes().partition(b"\n")
    at_s = msgspec.json.decode(head, type=Line).at_s
    told = [
        Drawn(budget=name, usd=5.0, spent_usd=0.001, begins_s=at_s // DAY_S * DAY_S, ends_s=(at_s // DAY_S + 1) * DAY_S)
        for name in ("day", "day/alice")
    ]
    lines = [msgspec.json.encode(Line(at_s=at_s, fact=fact)) for fact in told]
    path.write_bytes(b"\n".join([head, *lines, rest]))
    paid_usd = sum(row.paid_usd for row in folded(journal))
    assert paid_usd > 0.0
    async with shown(journal) as page:
        budgets = (await page.ask("summary"))["budgets"]
    assert {one["name"]: one["spent_usd"] for one in budgets} == {
        "day": pytest.approx(0.001 + paid_usd),
        "day/alice": 0.001,
    }


async def test_the_break_even_is_that_of_the_requests_that_came(journal: Path) -> None:
    async with shown(journal) as page:
        found = await page.ask("surface")
        assert (found["class"], found["model"], found["endpoint"]) == ("interactive", "assistant", "laptop")
        assert len(found["cells"]) == len(found["in_flight"])
        assert {len(line) for line in found["cells"]} == {len(found["prompt_tokens"])}
        tiers = {cell["tier"] for line in found["cells"] for cell in line}
        assert {"local", "remote"} <= tiers
        assert all(0.0 <= cell["sure"] <= 1.0 for line in found["cells"] for cell in line)
        batch = await page.ask("surface", **{"class": "batch", "endpoint": "laptop"})
        assert (batch["class"], batch["e2e_s"]) == ("batch", 300.0)
        for query in ("class=nobody", "endpoint=nowhere"):
            assert (await page.get(f"/api/dashboard/surface?{query}")).status == 404


async def test_the_break_even_is_that_of_requests_that_are_served(journal: Path) -> None:
    path = segments(journal)[0]
    asked = next(line for line in path.read_bytes().splitlines(keepends=True) if b'"type":"request"' in line)
    gone = asked.replace(b'"assistant"', b'"gone"')
    with path.open("ab") as file:
        file.writelines(gone.replace(b'"people-', b'"%d-people-' % number) for number in range(200))
    async with shown(journal) as page:
        found = await page.ask("surface")
        assert (found["model"], found["models"]) == ("assistant", ["assistant"])
        assert (await page.get("/api/dashboard/surface?model=gone")).status == 404


async def test_of_a_segment_that_was_cut_off_after_it_was_read_all_is_told_but_how_endpoints_are(journal: Path) -> None:
    async with shown(journal) as page:
        with segments(journal)[0].open("r+b") as file:
            file.truncate(1000)
        found = await page.ask("endpoints", minutes=600)
        assert {one["name"]: one["state"] for one in found["endpoints"]} == {"laptop": None, "cloud": None}
        assert sum(one["totals"]["requests"] for one in found["endpoints"]) > 0
        assert (await page.ask("surface"))["cells"] == []


async def test_what_can_be_no_id_is_not_looked_for(journal: Path) -> None:
    async with shown(journal) as page:
        for path in ("people-19%00", "people-19%00x", "%0a", "%1b"):
            answer = await page.get(f"/api/decisions/{path}")
            assert (answer.status, answer.error["message"]) == (404, "This is no id of a decision.")


@pytest.mark.lengthy
async def test_a_decision_that_could_not_be_looked_for_is_not_said_to_be_none(tmp_path: Path) -> None:
    segment = tmp_path / str(SegmentName.first(0.0))
    segment.write_bytes(b'{"at_s":1.0,"fact":{"type":"segment","version":99}}\n')
    async with shown(tmp_path) as page:
        answer = await page.get("/api/decisions/people-19")
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert "journal format 99" in answer.error["message"]


@pytest.mark.lengthy
@pytest.mark.parametrize("segments", [0, 1])
async def test_where_nothing_is_written_there_is_no_decision(tmp_path: Path, segments: int) -> None:
    for _ in range(segments):
        (tmp_path / str(SegmentName.first(0.0))).touch()
    async with shown(tmp_path) as page:
        answer = await page.get("/api/decisions/people-19")
        assert (answer.status, answer.error["message"]) == (404, "The journal has no decision of this id.")


@pytest.mark.lengthy
async def test_a_decision_is_explained_wherever_it_is_asked_for(journal: Path) -> None:
    async with shown(journal) as page:
        for path in ("/api/dashboard/decisions/people-19", "/api/decisions/people%2D19"):
            found = (await page.get(path)).json
            assert found["row"]["id"] == "people-19"
            assert found["explained"][0]["decision"]["why"] == found["row"]["why"]
            assert found["explained"][-1]["flips"]
        for path in ("/api/decisions/nobody", "/api/decisions/--help", "/api/decisions/"):
            answer = await page.get(path)
            assert answer.status == 404
            assert answer.error["message"]


async def test_what_cannot_be_asked_is_said_and_what_is_not_there_is_not(journal: Path) -> None:
    async with shown(journal) as page:
        for query, status in (
            ("summary?minutes=0", 400),
            *((f"{name}?" + "x=1&" * 40, 400) for name in ("summary", "surface", "changes", "live")),
            ("summary?minutes=x", 400),
            ("summary?minutes=1&minutes=2", 400),
            ("summary?more=1", 400),
            ("requests?outcome=bad", 400),
            ("requests?before=1-99999999999999999999999", 400),
            ("nothing", 404),
            ("live?minutes=-1", 400),
        ):
            answer = await page.get(f"/api/dashboard/{query}")
            assert answer.status == status, query
            assert answer.error["message"]
        assert (await page.send("DELETE", "/api/dashboard/summary", b"")).status == 405


async def test_pages_are_served_with_rules_that_let_no_script_in(journal: Path, pages: Path) -> None:
    async with shown(journal, pages=pages) as page:
        front = await page.get("/")
        assert front.body.startswith(b"<!doctype html><title>here")
        rules = dict(part.strip().partition(" ")[::2] for part in front.header("content-security-policy").split(";"))
        assert rules["default-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe" not in front.header("content-security-policy")
        assert front.header("x-content-type-options") == "nosniff"
        assert front.header("content-type") == "text/html; charset=utf-8"
        assert (await page.get("/login")).status == 200
        assert (await page.get("/assets/vendor/f.woff2")).header("content-type") == "font/woff2"
        told = await page.get("/api/dashboard/reasons")
        assert told.header("content-security-policy") == front.header("content-security-policy")
        assert told.header("cache-control") == "no-store"


async def test_a_page_that_has_not_changed_is_not_sent_again(journal: Path, pages: Path) -> None:
    async with shown(journal, pages=pages) as page:
        first = await page.get("/assets/a.css", accept_encoding="gzip, br")
        assert first.header("content-encoding") == "gzip"
        assert gzip.decompress(first.body).decode() == STYLE
        assert (await page.get("/assets/a.css")).body.decode() == STYLE
        again = await page.get("/assets/a.css", if_none_match=first.header("etag"))
        assert (again.status, again.body) == (304, b"")
        (pages / "assets" / "a.css").write_text("p {}")
        changed = await page.get("/assets/a.css", if_none_match=first.header("etag"))
        assert (changed.status, changed.body) == (200, b"p {}")


async def test_nothing_but_pages_is_served_from_the_disk(journal: Path, pages: Path) -> None:
    async with shown(journal, pages=pages) as page:
        for path in (
            "/assets/../../secret.css",
            "/assets/%2e%2e/%2e%2e/secret.css",
            "/assets//etc/passwd",
            "/assets/.hidden.css",
            "/assets/x.exe",
            "/assets/",
            "/assets/vendor",
            "/index.html",
            "/secret.css",
        ):
            assert (await page.get(path)).status == 404, path


async def test_a_stranger_is_not_answered(journal: Path, pages: Path) -> None:
    async with shown(journal, pages=pages) as page:
        own = f"http://127.0.0.1:{page.port}"
        for path in ("/", "/api/dashboard/summary", "/assets/a.css"):
            raw = f"GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n".encode()
            async with client(page.port) as (reader, writer):
                writer.write(raw)
                assert (await reader.readline()).split()[1] == b"403"
            assert (await page.get(path, origin="https://evil.example")).status == 403
            raw = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{page.port}\r\norigin: {own}\r\n\r\n".encode()
            async with client(page.port) as (reader, writer):
                writer.write(raw)
                assert (await reader.readline()).split()[1] == b"200"


@pytest.mark.lengthy
async def test_an_open_page_is_told_what_comes(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_is_left", lambda path: False)  # its gateway is there
    path = segments(journal)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    async with shown(journal) as page, client(page.port) as (reader, writer):
        writer.write(wire("GET", f"/api/dashboard/live?minutes={ALL_MINUTES}"))
        seen = b""
        while not events(seen):
            seen += await reader.read(1 << 20)
        first = events(seen)[0]
        assert len(first["newest"]) == 20
        with path.open("ab") as file:
            file.write(whole[len(whole) // 2 :])
        while events(seen)[-1]["summary"]["rows"] < 125:
            seen += await reader.read(1 << 20)
        rows = [one["summary"]["rows"] for one in events(seen)]
        assert rows == sorted(rows)
        assert events(seen)[-1]["newest"]


async def test_a_page_hears_that_somebody_is_there_also_where_nothing_changes(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(live, "QUIET_S", 0.02)
    async with shown(journal) as page, client(page.port) as (reader, writer):
        writer.write(wire("GET", "/api/dashboard/live"))
        seen = b""
        while seen.count(b"event: still\ndata: {}\n\n") < 3:
            seen += await reader.read(1 << 20)
        assert len(events(seen)) <= 2


async def test_there_are_so_many_streams_and_no_more(journal: Path) -> None:
    async with shown(journal) as page:
        for _ in range(2):  # who has left makes room
            async with asyncio.TaskGroup() as group:
                opened = [
                    group.create_task(asyncio.open_connection("127.0.0.1", page.port)) for _ in range(STREAMS_MAX)
                ]
            streams = [task.result() for task in opened]
            for reader, writer in streams:
                writer.write(wire("GET", "/api/dashboard/live"))
                assert b" 200 " in await reader.readline()
            answer = await page.get("/api/dashboard/live")
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            for _, writer in streams:
                writer.close()
                await writer.wait_closed()
            while (await page.send("HEAD", "/api/dashboard/live", b"")).status == 503:
                pass


async def test_too_many_questions_at_once_are_told_to_come_again(journal: Path) -> None:
    async with shown(journal) as page:
        go_on = threading.Event()
        page.dashboard._asker.submit(go_on.wait)
        try:
            asked = [asyncio.ensure_future(page.get("/api/dashboard/values")) for _ in range(WAITING_MAX + 1)]
            (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert (refused.result().status, refused.result().header("retry-after")) == (503, "1")
        finally:
            go_on.set()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


KNOWN = {TOKEN.decode().replace("-", "_"): "known"}


class Beside(Parent):
    """The gateway that it stands beside."""

    def __init__(self) -> None:
        self.begun = Begun(token="known", journal="", config="")


async def test_beside_a_gateway_windows_end_now_also_after_a_sleep_and_where_the_clock_was_put_back(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shown(journal, parent=Beside()) as page:
        began_s = time.time()
        # A machine that sleeps: the system's time goes on, and what is timed by does not.
        monkeypatch.setattr(time, "time", lambda: began_s + 8 * 3600.0)
        summary = (await page.get("/api/dashboard/summary", **KNOWN)).json
        assert summary["now_s"] > began_s + 7 * 3600.0
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    async with shown(journal, parent=Beside()) as page:
        summary = (await page.get("/api/dashboard/summary", **KNOWN)).json
        assert summary["now_s"] == page.dashboard._store.follower.last_s
        assert summary["window"]["requests"] > 0


async def test_what_is_damaged_is_answered_by_the_next_dashboard(journal: Path) -> None:
    with indexed(journal, journal / FILE):
        pass
    damage(journal / FILE, "by_id")
    told = asyncio.Event()
    async with shown(journal, on_damage=told.set) as page:
        answer = await page.get("/api/dashboard/requests?q=people-1")
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert told.is_set()
        assert page.dashboard.damaged
    async with shown(journal) as page:
        assert (await page.ask("requests", q="people-1", limit=1))["rows"]


def test_a_dashboard_that_can_have_no_index_anywhere_says_so(journal: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with files_end_at(1024):
        assert main(["dashboard", "--journal", str(journal), "--listen", "127.0.0.1:0"]) == 1
    assert "there can be no index" in capfd.readouterr().err


def test_a_dashboard_that_others_could_reach_is_not_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for listen, status, said in (
        ("0.0.0.0:0", 2, "gateway.admin_key"),
        ("8403", 2, "a port is missing"),
        ("127.0.0.1:0", 1, "there is no such folder; name it (--journal"),
    ):
        folder = str(tmp_path / "none")
        assert main(["dashboard", "--journal", folder, "--listen", listen]) == status
        assert said in capsys.readouterr().err


def test_a_dashboard_of_a_configuration_or_a_journal_that_cannot_be_read_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for config, said in ((tmp_path / "none.toml", "there is no such file"), (tmp_path, "this is a folder")):
        assert main(["dashboard", "--journal", str(tmp_path), "--listen", "127.0.0.1:0", "--config", str(config)]) == 2
        told = capsys.readouterr().err
        assert f"{config}: file: {said}" in told
        assert "remedy: name" in told
    # A name that is too long, since a superuser may look everywhere.
    assert main(["dashboard", "--journal", str(tmp_path / ("x" * 300)), "--listen", "127.0.0.1:0"]) == 1
    assert "File name too long" in capsys.readouterr().err


def test_a_dashboard_whose_port_is_taken_says_which_option_names_another(
    journal: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["dashboard", "--journal", str(journal), "--listen", listen]) == 1
    assert capfd.readouterr().err.endswith("see --listen and --journal\n")
