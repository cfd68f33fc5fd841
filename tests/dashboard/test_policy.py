"""Policies on pages: read, checked, previewed, put in force through the gateway, and taken back."""

import asyncio
import errno
import json
import os
import shutil
import stat
import sys
import threading
import tomllib
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.dashboard.harness import Shown, shown
from tests.gateway.harness import KEY, Answer, House, house, wire
from tests.sim.week import Week
from tests.telemetry.test_journal import files_end_at
from tidegate.config.load import revision
from tidegate.dashboard.follow import Known
from tidegate.dashboard.job import Worker
from tidegate.dashboard.parent import Parent
from tidegate.dashboard.policy import POLICY, Applied, Policies, policy_of
from tidegate.dashboard.verb import PROBLEMS_MAX, Said
from tidegate.dashboard.verb import asked as asked_of_a_verb
from tidegate.telemetry.segments import SegmentName
from tidegate.wire.board import DASHBOARD
from tidegate.wire.errors import BadRequest

ALONE = (
    "[site.home]\nlocal = true\n[endpoint.a]\nsite = 'home'\nengine = 'fake'\nserves = ['m']\n"
    "url = 'http://127.0.0.1:1'\ncontext_tokens = 2048\n"
)
CHANGED = ALONE + "[policy]\nheld_max = 10\n"
OTHER = "[policy]\nheld_max = 10\n" + ALONE
SCENARIO = Path(__file__).parents[2] / "examples" / "laptop.toml"
Applying = Coroutine[Any, Any, Applied]
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


@pytest.mark.lengthy
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


@pytest.mark.lengthy
async def test_only_a_file_that_was_loaded_is_told_to_be_in_force_and_another_is_put_in_force_as_it_stands(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        assert (await policy(home))["in_force"]
        file = tmp_path / "tidegate.toml"
        edited = file.read_text().replace("[policy]\n", "[policy]\nattempts_max = 2\n")
        file.write_bytes(edited.replace("\n", "\r\n").encode())
        seen = await policy(home)
        assert not seen["in_force"]
        same = {"text": seen["text"], "revision": seen["revision"]}
        applied = await asked(home, "POST", "policy/apply", same)
        assert [change["path"] for change in applied.json["changes"]] == ["policy.attempts_max"]
        assert home.gateway.router.policy.attempts_max == 2
        assert (await policy(home))["in_force"]
        good = file.read_bytes()
        file.write_text("this is [[ broken")
        assert (await home.gateway.reloader.reload("me")).problems
        assert not (await policy(home))["in_force"]
        file.write_bytes(good)
        assert (await policy(home))["in_force"]
        assert (await policy(home))["last_good"] is None
        file.write_bytes(good + b"# by hand\n")
        another = {"text": good.decode(), "revision": (await policy(home))["revision"]}
        assert (await asked(home, "POST", "policy/apply", another)).status == 200
        # What was written by hand has never been in force.
        assert (await policy(home))["last_good"] is None


async def test_a_file_is_taken_back_with_its_own_line_ends(tmp_path: Path) -> None:
    file, before = tmp_path / "tidegate.toml", ALONE.replace("\n", "\r\n")
    policies = Policies(file, Gateway())
    file.write_bytes(before.encode())
    assert (await applied(policies, file, CHANGED)).applied
    good = policies.told().last_good
    assert good is not None
    assert good.revision == revision(before)
    assert (await rolled_back(policies, file)).applied
    assert file.read_bytes() == before.encode()


async def test_a_rollback_goes_to_the_revision_that_was_agreed_to_or_nowhere(tmp_path: Path) -> None:
    file, policies = tmp_path / "tidegate.toml", Policies(tmp_path / "tidegate.toml", Gateway())
    file.write_text(ALONE)
    assert (await applied(policies, file, CHANGED)).applied
    agreed = policies.told().last_good
    assert agreed is not None
    # Another operator tries something, finds it bad, and takes it back: the file is what it was, and the way back not.
    assert (await applied(policies, file, CHANGED + "attempts_max = 2\n")).applied
    assert (await rolled_back(policies, file)).applied
    assert file.read_text() == CHANGED
    with pytest.raises(BadRequest, match="goes to another configuration by now") as refused:
        await rolled_back(policies, file, to=agreed.revision)
    assert (refused.value.status, file.read_text()) == (409, CHANGED)
    now = policies.told().last_good
    assert now is not None
    assert (await rolled_back(policies, file, to=now.revision)).applied


async def test_a_way_back_that_is_no_text_is_none_and_is_named(tmp_path: Path) -> None:
    file, policies = tmp_path / "tidegate.toml", Policies(tmp_path / "tidegate.toml", Gateway())
    file.write_text(ALONE)
    (tmp_path / "tidegate.toml.before").write_bytes(b"\xff\xfe")
    assert policies.told().last_good is None
    with pytest.raises(BadRequest, match=r"tidegate\.toml\.before is not UTF-8"):
        await rolled_back(policies, file)
    assert file.read_text() == ALONE


IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A system whose files have other letters than ours."""
APPLYING = """
import asyncio, locale, sys
from pathlib import Path
from tests.dashboard.test_policy import Gateway, Policies, applied
assert locale.getencoding() != "utf-8"
file, said, text = Path(sys.argv[1]), sys.argv[2].encode(), Path(sys.argv[3]).read_bytes().decode()
asyncio.run(applied(Policies(file, Gateway(said)), file, text))
"""
CHECKING = """
import asyncio, sys
from pathlib import Path
from tests.dashboard.test_policy import Worker, done
async def check():
    worker = Worker(lambda: 5.0)
    worker.begin(("check", "--json"), Path(sys.argv[1]).read_bytes().decode())
    await done(worker)
    print(worker.last.state, worker.last.problem)
asyncio.run(check())
"""


async def in_ascii(snippet: str, *arguments: object) -> str:
    """What such a system's Python prints of it."""
    words = ("-c", snippet, *map(str, arguments))
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=PIPE, stderr=PIPE, cwd=Path(__file__).parents[2], env=os.environ | IN_ASCII
    )
    out, error = await child.communicate()
    assert child.returncode == 0, error.decode()
    return out.decode().strip()


@pytest.mark.lengthy
@pytest.mark.parametrize("refused", [True, False], ids=["refused", "applied"])
async def test_a_file_is_written_and_put_back_as_utf_8_with_its_own_line_ends_whatever_the_locale(
    tmp_path: Path, refused: bool
) -> None:
    (tmp_path / "here").mkdir()
    file, wanted = tmp_path / "here" / "tidegate.toml", tmp_path / "wanted"
    before, after = f"# für alle\r\n{ALONE}".encode(), f"# 為\r\n{CHANGED}".encode()
    file.write_bytes(before)
    wanted.write_bytes(after)
    said = REFUSED if refused else b'{"applied":true}'
    await in_ascii(APPLYING, file, said.decode(), wanted)
    assert file.read_bytes() == (before if refused else after)
    if not refused:
        assert file.with_name("tidegate.toml.before").read_bytes() == before
    assert names(file.parent) == ["tidegate.toml", *([] if refused else ["tidegate.toml.before"])]


@pytest.mark.lengthy
async def test_a_job_is_given_its_text_as_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(f"# für alle\n{ALONE}".encode())
    assert await in_ascii(CHECKING, text) == "done"


async def test_a_job_that_meets_a_bug_of_ours_has_failed_and_the_next_one_may_begin() -> None:
    worker = Worker(lambda: 5.0)
    for _ in range(2):
        worker.begin(("preview",), "\ud800")
        await done(worker)
        assert (worker.last.state, worker.last.ended_s) == ("failed", 5.0)
        assert worker.last.problem == "it met a bug of ours (UnicodeEncodeError)"


@pytest.mark.lengthy
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


def applied(policies: Policies, file: Path, text: str, *, loaded: str | None = None) -> Applying:
    """Over the file as it is, which the gateway has loaded, or else this."""
    seen = file.read_bytes().decode()
    in_force = revision(seen if loaded is None else loaded)
    return policies.apply(text, revision(seen), in_force, "me", shown=True)


def rolled_back(policies: Policies, file: Path, *, to: str = "", loaded: str | None = None) -> Applying:
    seen = file.read_bytes().decode()
    return policies.roll_back(revision(seen), to, revision(seen if loaded is None else loaded), "me", shown=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


REFUSED = b'{"applied":false,"problems":["no room for the ledger"]}'


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "unchanged"])
async def test_what_changed_nothing_leaves_the_way_back_as_it_was(tmp_path: Path, refused: bool) -> None:
    file, gateway = tmp_path / "tidegate.toml", Gateway()
    first, second, third = (ALONE + f"[policy]\nheld_max = {count}\n" for count in (10, 20, 30))
    file.write_text(first)
    policies = Policies(file, gateway)
    assert (await applied(policies, file, second)).applied
    if refused:
        gateway.said = REFUSED
        assert not (await applied(policies, file, third)).applied
    else:
        assert (await applied(policies, file, second)).applied
    assert file.read_text() == second
    gateway.said = b'{"applied":true}'
    for text in (first, second):  # and forth again
        assert (await rolled_back(policies, file)).applied
        assert file.read_text() == text
    assert names(tmp_path) == ["tidegate.toml", "tidegate.toml.before"]


@pytest.mark.parametrize("by_hand", ["this is [[ broken", ALONE + "[policy]\nheld_max = 30\n"], ids=["broken", "good"])
async def test_the_way_back_is_to_what_was_in_force_and_not_to_a_file_that_never_was(
    tmp_path: Path, by_hand: str
) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(ALONE)
    policies = Policies(file, Gateway())
    assert (await applied(policies, file, CHANGED)).applied
    file.write_text(by_hand)
    last = ALONE + "[policy]\nheld_max = 20\n"
    assert (await applied(policies, file, last, loaded=CHANGED)).applied
    good = policies.told().last_good
    assert good is not None
    assert good.revision == revision(ALONE)
    file.write_text(by_hand)
    assert (await rolled_back(policies, file, loaded=last)).applied
    assert (file.read_text(), policies.told().last_good) == (ALONE, None)
    assert names(tmp_path) == ["tidegate.toml", "tidegate.toml.before"]


def test_what_a_text_changes_of_a_file_that_is_broken_nobody_says(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("this is [[ broken")
    policies = Policies(file, Gateway())
    assert (policies.check(ALONE, shown=True).problems, policies.check(ALONE, shown=True).changes) == ((), None)
    file.write_text(ALONE)
    assert policies.check(ALONE, shown=True).changes == ()


async def test_what_was_refused_is_put_back_even_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(ALONE)
    policies = Policies(file, Gateway(REFUSED, (tmp_path / "tidegate.toml.new").mkdir))
    found = await applied(policies, file, CHANGED)
    assert (found.applied, found.revision, file.read_text()) == (False, revision(ALONE), ALONE)


@pytest.mark.parametrize("said", [b'{"applied":true}', REFUSED], ids=["applied", "refused"])
async def test_who_may_read_the_file_may_read_it_after_a_change(tmp_path: Path, said: bytes) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(ALONE)
    file.chmod(0o664)
    mask = os.umask(0o077)
    try:
        await applied(Policies(file, Gateway(said)), file, CHANGED)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o664


@pytest.mark.parametrize("said", [b'{"applied":true}', REFUSED], ids=["applied", "refused"])
async def test_a_file_that_is_mounted_alone_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    file, replace = tmp_path / "tidegate.toml", os.replace

    def replacing(source: Path, target: Path) -> None:
        if target == file:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(source, target)

    file.write_text(ALONE)
    monkeypatch.setattr(os, "replace", replacing)
    found = await applied(Policies(file, Gateway(said)), file, CHANGED)
    if said == REFUSED:
        assert (found.applied, file.read_text(), names(tmp_path)) == (False, ALONE, ["tidegate.toml"])
    else:
        assert (found.applied, file.read_text()) == (True, CHANGED)
        assert names(tmp_path) == ["tidegate.toml", "tidegate.toml.before"]


async def test_a_file_that_is_mounted_alone_where_the_disk_has_no_room_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, replace = tmp_path / "tidegate.toml", os.replace
    with ExitStack() as full:

        def replacing(source: Path, target: Path) -> None:
            if target == file:
                full.enter_context(files_end_at(len(ALONE)))
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            replace(source, target)

        file.write_text(ALONE)
        monkeypatch.setattr(os, "replace", replacing)
        with pytest.raises(BadRequest, match="cannot be written: File too large"):
            await applied(Policies(file, Gateway()), file, OTHER)
    assert (names(tmp_path), file.read_text()) == (["tidegate.toml"], ALONE)


async def test_a_change_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    file = tmp_path / "tidegate.toml"
    file.write_text(ALONE)
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(BadRequest, match="Read-only"):
        await applied(Policies(file, Gateway()), file, CHANGED)
    assert (names(tmp_path), file.read_text()) == (["tidegate.toml"], ALONE)


async def test_a_death_in_the_midst_of_a_change_leaves_a_way_back(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file, then = tmp_path / "here" / "tidegate.toml", tmp_path / "then"
    file.write_text(ALONE)
    midst = Gateway(before=partial(shutil.copytree, file.parent, then))
    await applied(Policies(file, midst), file, CHANGED)
    left = then / "tidegate.toml"
    assert left.read_text() == CHANGED
    policies = Policies(left, Gateway())
    good = policies.told().last_good
    assert good is not None
    assert good.revision == revision(ALONE)
    assert (await rolled_back(policies, left)).applied
    assert left.read_text() == ALONE


def test_a_death_before_a_change_leaves_the_way_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(CHANGED)
    (tmp_path / "tidegate.toml.before").write_text(ALONE)
    (tmp_path / "tidegate.toml.kept").write_text(CHANGED)
    good = Policies(file, Gateway()).told().last_good
    assert good is not None
    assert good.revision == revision(ALONE)
    assert names(tmp_path) == ["tidegate.toml", "tidegate.toml.before"]


async def test_what_is_changed_is_where_a_link_leads_by_then(tmp_path: Path) -> None:
    link, one, other = (tmp_path / name for name in ("tidegate.toml", "one.toml", "other.toml"))
    one.write_text(ALONE)
    other.write_text(CHANGED)
    link.symlink_to(one)
    policies = Policies(link, Gateway())
    assert policies.told().text == ALONE
    link.unlink()
    link.symlink_to(other)
    assert (policies.told().text, policies.told().file) == (CHANGED, str(other))
    text = CHANGED.replace("10", "20")
    assert (await applied(policies, other, text)).applied
    assert (link.is_symlink(), one.read_text(), other.read_text()) == (True, ALONE, text)


async def test_files_that_a_linked_configuration_names_are_looked_for_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "tidegate.toml", tmp_path / "here" / "tidegate.toml"
    key = tmp_path / "here" / "vendor.key"
    key.write_text("secret\n")
    key.chmod(0o600)
    before = ALONE + "api_key_file = 'vendor.key'\n"
    after = before + "[policy]\nheld_max = 10\n"
    file.write_text(before)
    link.symlink_to(file)
    policies = Policies(link, Gateway())
    checked = policies.check(after, shown=True)
    assert checked.problems == ()
    assert [change.path for change in checked.changes or ()] == ["policy.held_max"]
    wrong = policies.check(after.replace("vendor.key", "no.key"), shown=True).problems
    assert [(one.file, one.path) for one in wrong] == [(str(link), "endpoint.a.api_key_file")]
    assert (await applied(policies, file, after)).applied
    assert (link.is_symlink(), file.read_text()) == (True, after)
    assert (await rolled_back(policies, file)).applied
    assert (link.is_symlink(), file.read_text()) == (True, before)
    assert names(link.parent) == ["tidegate.toml", "vendor.key"]


@pytest.mark.lengthy
async def test_who_has_shown_no_secret_changes_policies_and_not_where_keys_are_sent(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"dashboard": True}) as home:
        seen = await policy(home)
        for text in (
            seen["text"].replace("http://127.0.0.1:", "http://localhost:"),
            seen["text"].replace("[budget]", "[budget]\nusd_per_day = 5"),
            seen["text"].replace('log = "log"', 'log = "other"'),
        ):
            assert text != seen["text"]
            for verb, edited in (("check", {"text": text}), ("apply", {"text": text, "revision": seen["revision"]})):
                refused = await asked(home, "POST", f"policy/{verb}", edited)
                assert (refused.status, refused.error["code"]) == (403, "http_403")
                assert "admin_key" in refused.error["message"]
        broken = await asked(home, "POST", "policy/check", {"text": "this is [[ broken"})
        assert broken.json["problems"]
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
        checked = (await told(page, "policy/check", {"text": seen["text"] + "[policy]\nbad = 1\n"})).json
        assert checked["problems"]
        assert (await told(page, "policy/check", {"text": seen["text"] + "bad = 1\n"})).status == 403
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


@pytest.mark.lengthy
async def test_a_preview_plays_the_policy_of_the_text_on_the_journal(week: Path) -> None:
    async with shown(week) as page:
        assert (await page.ask("policy/preview"))["state"] == "none"
        text = "[gateway]\nlisten = '127.0.0.1:1'\n[policy]\nattempts_max = 1\n"
        begun = await told(page, "policy/preview", {"text": text})
        assert (begun.status, begun.json["state"]) == (202, "running")
        assert begun.json["revision"] == revision(text)
        assert (await told(page, "policy/preview", {"text": text})).status == 409
        await done(page.dashboard._previewer)
        job = await page.ask("policy/preview")
        assert job["state"] == "done", job["problem"]
        assert job["result"]["preview"]["after"]["requests"] == 12
        assert job["at_s"] >= job["ended_s"] >= job["began_s"]
        assert job["revision"] == revision(text)


@pytest.mark.lengthy
async def test_a_preview_of_a_policy_that_is_wrong_has_failed_and_says_where_and_what_to_do(week: Path) -> None:
    async with shown(week) as page:
        text = "[policy]\nattempts_max = 0\nheld_maxx = 5\n"
        assert (await told(page, "policy/preview", {"text": text})).status == 202
        await done(page.dashboard._previewer)
        job = await page.ask("policy/preview")
        assert (job["state"], job["result"]) == ("failed", None)
        first, second = job["problem"].split("\n")
        assert first.startswith("policy.attempts_max: 0 is not a whole number from 1 to 10; ")
        assert second.startswith("policy.held_maxx: ")
        assert second.endswith("; did you mean `held_max`?")
        many = "[policy]\n" + "".join(f"wrong{number} = 1\n" for number in range(PROBLEMS_MAX + 3))
        assert (await told(page, "policy/preview", {"text": many})).status == 202
        await done(page.dashboard._previewer)
        lines = (await page.ask("policy/preview"))["problem"].split("\n")
        assert (len(lines), lines[-1]) == (PROBLEMS_MAX + 1, "and 3 more")


async def test_half_a_result_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '{\"preview\":{'\necho 'it was killed' >&2\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    assert await asked_of_a_verb(("preview",), timeout_s=60.0) == Said(None, "it was killed")


@pytest.mark.lengthy
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


async def test_who_waits_for_what_the_router_has_learned_keeps_nobody_else_waiting(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    async with shown(journal) as page:
        follower = page.dashboard._store.follower
        known = follower.known

        def late() -> Known | None:
            loop.call_soon_threadsafe(waits.set)
            goes_on.wait()
            return known()

        monkeypatch.setattr(follower, "known", late)
        asking = loop.create_task(page.ask("endpoints"))
        try:
            await waits.wait()
            async with asyncio.timeout(5.0):
                assert (await page.ask("summary"))["rows"]
            assert not asking.done()
        finally:
            goes_on.set()
        assert {one["name"] for one in (await asking)["endpoints"]} == {"laptop", "cloud"}


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
