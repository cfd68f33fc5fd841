"""A result bears the commit of the code that was measured, and says where that is not all there was."""

import argparse
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench.record import NO_COMMIT, Checkout, chosen

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
FILES = ("src/a.py", "bench/a.py", "bench/rig/a.c", "bench/results/a.json", "build_hooks/a.py", "scenarios/a.toml")


def git(root: Path, *arguments: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *named, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "a")
    return git(root, "rev-parse", "--short=12", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for name in (*FILES, "pyproject.toml", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    committed(tmp_path)
    return tmp_path


def test_whoever_commits_during_a_run_changes_nothing_of_what_was_measured(root: Path) -> None:
    head, checkout = git(root, "rev-parse", "--short=12", "HEAD"), Checkout(root)
    assert checkout.commit() == head
    (root / "src/a.py").write_text("after")
    later = committed(root)
    assert later != head
    assert checkout.commit() == f"{head}+"
    assert Checkout(root).commit() == later


@pytest.mark.parametrize("name", [*(one for one in FILES if "results" not in one), "pyproject.toml", "bench/rig/new.h"])
def test_what_is_measured_and_changed_is_told(root: Path, name: str) -> None:
    head, before = git(root, "rev-parse", "--short=12", "HEAD"), Checkout(root)
    (root / name).write_text("after")
    assert before.commit() == Checkout(root).commit() == f"{head}+"


def test_what_was_changed_at_the_start_and_is_mended_at_the_end_is_told(root: Path) -> None:
    (root / "src/a.py").write_text("after")
    head, checkout = git(root, "rev-parse", "--short=12", "HEAD"), Checkout(root)
    (root / "src/a.py").write_text("before")
    assert checkout.commit() == f"{head}+"


@pytest.mark.parametrize("name", ["README.md", "bench/results/a.json", "bench/results/new.json"])
def test_what_is_not_measured_may_change(root: Path, name: str) -> None:
    head, checkout = git(root, "rev-parse", "--short=12", "HEAD"), Checkout(root)
    (root / name).write_text("after")
    assert checkout.commit() == Checkout(root).commit() == head


def no_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))


def no_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("missing", [no_repository, no_git])
def test_where_there_is_no_repository_no_commit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    missing(tmp_path, monkeypatch)
    assert Checkout(tmp_path).commit() == NO_COMMIT


def test_what_was_chosen_is_told_as_the_makefile_takes_it_and_no_folder_of_a_machine() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--relays", default="tidegate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--out", type=Path)
    assert chosen(parser, parser.parse_args(["--rounds", "3", "--out", "a"])) == ""
    asked = ["--relays", "before=/a/folder tidegate", "--rounds", "2", "--tls"]
    assert chosen(parser, parser.parse_args(asked)) == 'RELAYS="before=FOLDER tidegate" ROUNDS=2 TLS=1'
