"""Policies on pages: read, checked, previewed, put in force through the gateway, and taken back."""

import asyncio
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.dashboard.harness import Shown, shown
from tests.gateway.harness import KEY, Answer, House, house, wire
from tests.sim.week import Week
from tidegate.dashboard.job import Worker
from tidegate.dashboard.parent import Parent
from tidegate.dashboard.policy import POLICY, Policies, policy_of, revision
from tidegate.telemetry.segments import SegmentName
from tidegate.wire.board import DASHBOARD
from tidegate.wire.errors import BadRequest

ALONE = (
    "[site.home]\nlocal = true\n[endpoint.a]\nsite = 'home'\nengine = 'fake'\nserves = ['m']\n"
    "url = 'http://127.0.0.1:1'\ncontext_tokens = 2048\n"
)
SCENARIO = Path(__file__).parents[2] / "examples" / "laptop.toml"
OURS = {DASHBOARD.decode().replace("-", "_"): "1", "content_type": "application/json"}


async def told(page: Shown, name: str, body: object, **headers: str) -> Answer:
    sent = json.dumps(body).encode()
    return await page.send("POST", f"/api/dashboard/{name}", sent, **(OURS | headers))


async def asked(home: House, method: str, name: str, body: object = None) -> Answer:
    headers = [(key.replace("_", "-"), value) for key, value in OURS.items()]
    raw = b"" if body is None else json.dumps(body).encode()
    return await home.send(wire(method, f"/api/dashboard/{name}", raw, headers), port=home.admin_port)


async def policy(home: House) -> Any:
    return (await asked(home, "GET", "policy")).json


@pytest.fixture(autouse=True)
def vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration names is in the environment, as it is of the dashboard that a gateway starts."""
    monkeypatch.setenv("VENDOR_KEY", KEY)


async def test_a_policy_is_put_in_force_and_taken_back_and_both_are_written_down(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        seen = await policy(home)
        assert seen["applies"]
        assert seen["last_good"] is None
        assert seen["text"] == (tmp_path / "tidegate.toml").read_text()
        text = seen["text"].replace("[policy]\n", "[policy]\nattempts_max = 2\n")
        checked = (await asked(home, "POST", "policy/check", {"text": text})).json
        assert checked["problems"] == []
        change = {"path": "policy.attempts_max", "before": 3, "after": 2, "at_restart": False}
        assert checked["changes"] == [change]
        applied = await asked(home, "POST", "policy/apply", {"text": text, "revision": seen["revision"]})
        assert applied.status == 200, applied.body
        assert applied.json["applied"]
        assert applied.json["changes"] == [change]
        assert home.gateway.router.policy.attempts_max == 2
        now = await policy(home)
        assert (now["text"], now["revision"]) == (text, applied.json["revision"])
        assert now["last_good"]["revision"] == seen["revision"]
        back = await asked(home, "POST", "policy/rollback", {"revision": now["revision"]})
        assert back.json["revision"] == seen["revision"]
        assert home.gateway.router.policy.attempts_max == 3
        assert (tmp_path / "tidegate.toml").read_text() == seen["text"]
        changes = (await asked(home, "GET", "changes?limit=5")).json["changes"]
        assert [one["what"] for one in changes] == ["policy rolled back", "policy applied"]
        assert changes[1]["changes"] == [{"path": "policy.attempts_max", "before": 3, "after": 2}]
        assert changes[1]["who"].startswith("anybody at 127.0.0.1")


async def test_what_is_wrong_is_said_and_what_was_in_force_still_is(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        seen = await policy(home)
        wrong = seen["text"].replace("[policy]\n", "[policy]\nattempts_max = 99\n")
        checked = (await asked(home, "POST", "policy/check", {"text": wrong})).json
        assert [problem["path"] for problem in checked["problems"]] == ["policy.attempts_max"]
        refused = await asked(home, "POST", "policy/apply", {"text": wrong, "revision": seen["revision"]})
        assert (refused.status, refused.json["applied"]) == (422, False)
        assert refused.json["problems"]
        stale = await asked(home, "POST", "policy/apply", {"text": seen["text"], "revision": "0" * 24})
        assert stale.status == 409
        assert (await asked(home, "POST", "policy/rollback", {"revision": seen["revision"]})).status == 409
        assert (tmp_path / "tidegate.toml").read_text() == seen["text"]
        assert home.gateway.router.policy.attempts_max == 3


class Gateway(Parent):
    """One that says this of each wish, and before it does something of its own."""

    def __init__(self, said: bytes = b'{"applied":true}', before: Callable[[], object] = lambda: None) -> None:
        self.said, self._before = said, before

    async def wish(self, who: str, what: str) -> bytes:
        self._before()
        return self.said


REFUSED = b'{"applied":false,"problems":["no room for the ledger"]}'


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "unchanged"])
async def test_what_changed_nothing_leaves_the_way_back_as_it_was(tmp_path: Path, refused: bool) -> None:
    file, gateway = tmp_path / "tidegate.toml", Gateway()
    first, second, third = (ALONE + f"[policy]\nheld_max = {count}\n" for count in (10, 20, 30))
    file.write_text(first)
    policies = Policies(file, gateway)

    async def applied(text: str) -> bool:
        return (await policies.apply(text, revision(file.read_text()), "me", shown=True)).applied

    assert await applied(second)
    if refused:
        gateway.said = REFUSED
        assert not await applied(third)
    else:
        assert await applied(second)
    assert file.read_text() == second
    gateway.said = b'{"applied":true}'
    for text in (first, second):  # and forth again
        assert (await policies.roll_back(revision(file.read_text()), "me", shown=True)).applied
        assert file.read_text() == text
    assert sorted(path.name for path in file.parent.iterdir()) == ["tidegate.toml", "tidegate.toml.before"]


async def test_what_was_refused_is_put_back_even_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(ALONE)
    policies = Policies(file, Gateway(REFUSED, (tmp_path / "tidegate.toml.new").mkdir))
    found = await policies.apply(ALONE + "[policy]\nheld_max = 10\n", revision(ALONE), "me", shown=True)
    assert (found.applied, found.revision, file.read_text()) == (False, revision(ALONE), ALONE)


async def test_who_has_shown_no_secret_changes_policies_and_not_where_keys_are_sent(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        seen = await policy(home)
        for text in (
            seen["text"].replace("http://127.0.0.1:", "http://localhost:"),
            seen["text"].replace("[budget]", "[budget]\nusd_per_day = 5"),
            seen["text"].replace('log = "log"', 'log = "other"'),
        ):
            assert text != seen["text"]
            refused = await asked(home, "POST", "policy/apply", {"text": text, "revision": seen["revision"]})
            assert (refused.status, refused.error["code"]) == (403, "http_403")
            assert "admin_key" in refused.error["message"]
        (tmp_path / "tidegate.toml.before").write_text(text)
        assert (await asked(home, "POST", "policy/rollback", {"revision": seen["revision"]})).status == 403
        assert (tmp_path / "tidegate.toml").read_text() == seen["text"]


async def test_a_dashboard_that_stands_alone_checks_and_changes_nothing(journal: Path, tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(
        "[site.home]\nlocal = true\n[endpoint.a]\nsite = 'home'\nengine = 'fake'\nurl = 'http://127.0.0.1:1'\n"
    )
    async with shown(journal, config=file) as page:
        seen = (await page.get("/api/dashboard/policy")).json
        assert (seen["file"], seen["applies"]) == (str(file.resolve()), False)
        checked = (await told(page, "policy/check", {"text": seen["text"] + "bad = 1\n"})).json
        assert checked["problems"]
        assert (await told(page, "policy/apply", {"text": "", "revision": seen["revision"]})).status == 409
    async with shown(journal) as page:
        seen = (await page.get("/api/dashboard/policy")).json
        assert (seen["file"], seen["text"], seen["applies"]) == (None, "", False)
        assert (await told(page, "policy/check", {"text": ""})).status == 404


@pytest.fixture
def week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal that is played in a second, by a process that does not wait for all others."""
    monkeypatch.setattr("tidegate.dashboard.verb.LOW", 0)
    folder = tmp_path / "week"
    folder.mkdir()
    (folder / str(SegmentName.first(0.0))).write_bytes(msgspec.json.Encoder().encode_lines(Week(count=12).lines))
    return folder


async def done(worker: Worker) -> None:
    """Until its verb is over."""
    assert worker._task is not None
    await asyncio.wait([worker._task])


async def test_a_preview_plays_the_policy_of_the_text_on_the_journal(week: Path) -> None:
    async with shown(week) as page:
        assert (await page.ask("policy/preview"))["state"] == "none"
        text = "[gateway]\nlisten = '127.0.0.1:1'\n[policy]\nattempts_max = 1\n"
        begun = await told(page, "policy/preview", {"text": text})
        assert (begun.status, begun.json["state"]) == (202, "running")
        assert (await told(page, "policy/preview", {"text": text})).status == 409
        await done(page.dashboard._previewer)
        job = await page.ask("policy/preview")
        assert job["state"] == "done", job["problem"]
        assert job["result"]["preview"]["after"]["requests"] == 12
        assert job["ended_s"] >= job["began_s"]


async def test_why_a_job_has_no_result_is_told(tmp_path: Path) -> None:
    async with shown(tmp_path) as page:
        assert (await told(page, "audit", {})).status == 202
        await done(page.dashboard._auditor)
        job = await page.ask("audit")
        assert (job["state"], job["result"]) == ("failed", None)
        assert "no journal here" in job["problem"]


async def test_a_policy_that_cannot_be_written_down_has_no_preview_and_the_next_one_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    worker = Worker(lambda: 5.0)
    for _ in range(2):
        worker.begin(("preview",), "[policy]")
        await done(worker)
        assert (worker.last.state, worker.last.ended_s) == ("failed", 5.0)
        assert "No such file" in worker.last.problem


@pytest.mark.slow
async def test_an_audit_is_run_on_demand(week: Path) -> None:
    pytest.importorskip("scipy")
    async with shown(week) as page:
        assert (await told(page, "audit", {})).status == 202
        await done(page.dashboard._auditor)
        job = await page.ask("audit")
        assert job["state"] == "done", job["problem"]
        assert job["result"]["requests"] == 12


async def test_nothing_is_changed_by_what_a_page_of_others_can_send(journal: Path) -> None:
    async with shown(journal) as page:
        body = b'{"text": ""}'
        for headers in ({}, {"content_type": "text/plain"}, OURS | {"content_type": "text/plain"}):
            answer = await page.send("POST", "/api/dashboard/policy/check", body, **headers)
            assert answer.status in (403, 415)
        assert (await told(page, "policy/check", {"text": ""}, origin="https://evil.example")).status == 403
        for name, sent, status in (
            ("policy/check", {"no": 1}, 400),
            ("policy/apply", {"revision": "x"}, 400),
            ("audit", {"more": 1}, 400),
            ("nothing", {}, 405),
        ):
            assert (await told(page, name, sent)).status == status


def test_the_policy_of_a_configuration_is_what_stands_in_its_tables() -> None:
    text = SCENARIO.read_text() + (
        "\n[class.chat] # mine\nworth_usd = 0.5\n"
        "[[rule]]\nname = 'r'\nwhen = '''\nprompt_tokens > 5'''\nto = ['cloud']\n"
        "[site.moon]\nlocal = false\n"
    )
    whole = tomllib.loads(text)
    assert tomllib.loads(policy_of(text)) == {name: table for name, table in whole.items() if name in POLICY}
    for wrong in ("policy.seed = 1\n", "a." * 50_000 + "a = 1\n", "[policy\n", "[policy]\nx = '''\n[site.a]\n'''\n"):
        with pytest.raises(BadRequest):
            policy_of(wrong)
