"""`tidegate keys`: what it prints, what it changes, and how it refuses."""

import json
import os
import pwd
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.state.crash import cut_short
from tidegate.cli.main import main
from tidegate.state.keys import KeyFile, digest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder of its own, in which the file is `keys.db`."""
    monkeypatch.chdir(tmp_path)


def keys(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a verb says with --json."""
    assert main(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def opened(secret: str) -> str | None:
    """The id of the key that this secret opens."""
    with closing(KeyFile(Path("keys.db"))) as file:
        known = {one.digest: one.profile.id for one in file.changed() or ()}
    return known.get(digest(secret.encode()))


def test_a_key_is_created_with_all_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "create alice --classes quick,batch --models a/b,c --residency local,partner --requests-per-minute 60 "
        "--tokens-per-minute 100000 --concurrency 4 --usd-per-day 2.5 --usd-per-month 30 --days 30"
    )
    made = keys(capsys, *words.split())
    key = made["key"]
    assert opened(made["secret"]) == key["id"]
    assert key["id"].startswith("alice-")
    assert key["expires_s"] - key["created_s"] == pytest.approx(30 * 86_400)
    asked = {name: key[name] for name in key if name not in ("id", "created_s", "expires_s")}
    assert asked == {
        "name": "alice",
        "classes": ["quick", "batch"],
        "class_default": "quick",
        "models": ["a/b", "c"],
        "residency": ["local", "partner"],
        "weight": 1.0,
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "concurrency": 4,
        "usd_per_day": 2.5,
        "usd_per_month": 30.0,
        "revoked_s": None,
    }
    assert keys(capsys, "show", "alice") == keys(capsys, "show", key["id"]) == key


def test_people_are_shown_the_secret_once_with_a_line_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "alice"]) == 0
    out = capsys.readouterr().out
    (secret,) = {word for word in out.replace("'", " ").split() if word.startswith("tk-")}
    assert f"curl http://127.0.0.1:8400/v1/models -H 'Authorization: Bearer {secret}'" in out
    for words in ("list", "list --all", "show alice", "audit", "revoke alice"):
        assert main(["keys", *words.split()]) == 0
        out = capsys.readouterr().out
        assert "alice-" in out
        assert secret not in out
    assert secret.encode() not in Path("keys.db").read_bytes()


def test_what_is_in_brackets_is_part_of_a_models_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["keys", "create", "alice", "--models", "n[awq],m[/x]", "--classes", "c[/]"]) == 0
    for words in ("list", "show alice"):
        capsys.readouterr()
        assert main(["keys", *words.split()]) == 0
        said = capsys.readouterr().out
        assert "n[awq], m[/x]" in said
        assert "c[/]" in said


def test_a_rotated_key_opens_by_its_new_secret_alone(capsys: pytest.CaptureFixture[str]) -> None:
    old = keys(capsys, "create", "alice")
    new = keys(capsys, "rotate", "alice")
    assert new["key"] == old["key"]
    assert [opened(made["secret"]) for made in (old, new)] == [None, old["key"]["id"]]
    newest = keys(capsys, "rotate", "alice", "--grace-hours", "1")
    assert opened(new["secret"]) == opened(newest["secret"]) == old["key"]["id"]


def test_a_key_has_another_weight_from_now_on_and_the_audit_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    made = keys(capsys, "create", "alice", "--weight", "2")
    assert made["key"]["weight"] == 2.0
    assert keys(capsys, "change", "alice", "--weight", "0.5")["weight"] == 0.5
    assert keys(capsys, "show", "alice")["weight"] == 0.5
    assert keys(capsys, "audit")[-1]["what"] == "changed: weight 0.5"
    assert opened(made["secret"]) == made["key"]["id"]


def test_a_revoked_key_opens_nothing_and_is_listed_only_where_all_are(capsys: pytest.CaptureFixture[str]) -> None:
    made = keys(capsys, "create", "alice")
    revoked = keys(capsys, "revoke", "alice")
    assert revoked["revoked_s"] >= made["key"]["created_s"]
    assert opened(made["secret"]) is None
    assert keys(capsys, "list") == []
    assert keys(capsys, "list", "--all") == [revoked]


@pytest.mark.parametrize("verb", ["revoke", "rotate", "show"])
def test_a_change_that_was_cut_short_keeps_nobody_from_the_next(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    keys(capsys, "create", "alice")
    cut_short(Path("keys.db"))
    keys(capsys, verb, "alice")
    assert len(keys(capsys, "list", "--all")) == 1


def test_the_audit_tells_who_did_what(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    keys(capsys, "create", "alice")
    keys(capsys, "rotate", "alice")
    keys(capsys, "revoke", "alice")
    rows = keys(capsys, "audit")
    assert [row["what"].split(maxsplit=1)[0].rstrip(":,") for row in rows] == ["created", "rotated", "revoked"]
    assert {row["who"] for row in rows} == {pwd.getpwuid(os.getuid()).pw_name}
    assert keys(capsys, "audit", "--last", "1") == rows[-1:]


def test_the_name_of_the_file_need_not_be_text(capsys: pytest.CaptureFixture[str]) -> None:
    file = os.fsdecode(b"k\xff.db")
    made = keys(capsys, "create", "alice", "--file", file)
    assert [one["id"] for one in keys(capsys, "list", "--file", file)] == [made["key"]["id"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list", "keys create NAME"),
        ("show alice", "no such file"),
        ("revoke alice", "no such file"),
        ("rotate alice", "no such file"),
        ("audit", "no such file"),
        (f"list --file {'n' * 300}", "name too long"),
        (f"create alice --file {'n' * 300}", "name too long"),
        ("create alice --file .", "this is a folder"),
        ("create alice --file no/such/folder/keys.db", "no/such/folder"),
        ("create alice --classes a --class-default b", "none of --classes"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_remedy_and_leaves_no_file(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert main(["keys", *words.split()]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"tidegate keys {words.split()[0]}: ")
    assert said in told.err
    assert not Path("keys.db").exists()


@pytest.mark.parametrize("words", ["create alice", "show bob", "revoke bob", "rotate bob"])
def test_a_name_that_is_taken_or_unknown_is_refused(capsys: pytest.CaptureFixture[str], words: str) -> None:
    keys(capsys, "create", "alice")
    assert main(["keys", *words.split()]) == 1
    assert words.split()[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "",
        "create",
        "create Alice",
        "create " + "a" * 65,
        "create a --classes ,",
        "create a --class-default ,",
        "create a --class-default b,c",
        "create a --class-default \udcff",
        "create a --residency anywhere,local",
        "create a --residency sömewhere",
        "create a --requests-per-minute 0",
        "create a --tokens-per-minute 1.5",
        "create a --concurrency -1",
        "create a --usd-per-day nan",
        "create a --usd-per-month inf",
        "create a --days x",
        "create a --days 0",
        "create a --weight 0",
        "change a",
        "change a --weight 101",
        "rotate a --grace-hours -1",
        "audit --last 0",
    ],
)
def test_what_is_asked_wrongly_ends_with_two_and_makes_no_file(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *words.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("tidegate keys")
    assert not Path("keys.db").exists()


def test_a_gateway_whose_file_is_no_file_of_keys_says_so_and_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_text("not a database, " * 100)
    (tmp_path / "tidegate.toml").write_text(
        "[gateway]\nlisten = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nkeys = 'keys.db'\n[site.home]\nlocal = true\n"
        "[endpoint.mine]\nsite = 'home'\nengine = 'llamacpp'\nurl = 'http://127.0.0.1:1'\nserves = ['m']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", "serve"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "keys.db: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
