"""`tidegate simulate`, as somebody types it."""

import json
import os
import re
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.test_journal import files_end_at
from tidegate.cli.main import main
from tidegate.cli.output import lines_into, segment
from tidegate.core.model import Line, Probed
from tidegate.telemetry.reading import read
from tidegate.telemetry.segments import segments

LAPTOP = "scenarios/laptop-and-cloud.toml"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2026-01-01 00:00:{n:02}.0000000,{100 + n},{5 + n}\n" for n in range(30)
)
MOONCAKE = "".join(
    json.dumps({"timestamp": 3000 * n, "input_length": 1000, "output_length": 20, "hash_ids": [1, n + 2]}) + "\n"
    for n in range(10)
)


def run(*arguments: str | Path) -> int:
    return main(["simulate", *map(str, arguments)])


def as_json(path: Path, *arguments: str | Path) -> dict[str, Any]:
    assert run(LAPTOP, "--json", path, *arguments) in (0, 1)
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def shown(value: float | None) -> str:
    """As the table shows a number: three digits that matter, whole ones whole."""
    if value is None:
        return "-"
    return str(int(value)) if value == int(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def test_the_table_shows_what_the_json_holds_however_narrow_the_terminal_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = as_json(tmp_path / "out.json")
    rows = cells(capsys.readouterr().out)
    for group in found["groups"]:
        shares = [f"{group[key]:.1%}" for key in ("attainment", "refused_share", "failed_share")]
        rates = [shown(group[key]) for key in ("kept_per_s", "kept_tokens_per_s", "usd", "usd_per_hour")]
        assert [group["name"], shown(group["requests"]), *shares, *rates, shown(group["usd_per_1k_kept"])] in rows
        times: list[tuple[Any, tuple[str, ...]]] = [(group["ttft_s"], ("p50", "p90", "p95", "p99"))]
        times += [(group[key], ("p50", "p99")) for key in ("tpot_s", "e2e_s", "held_s")]
        flat = [shown(found_s and found_s[p]) for found_s, percentiles in times for p in percentiles]
        assert [group["name"], *flat] in rows
    for endpoint in found["endpoints"]:
        row = next(row for row in rows if row[:1] == [endpoint["name"]])
        assert row[1:3] == [shown(endpoint["attempts"]), shown(endpoint["served"])]
        assert row[5] == f"{endpoint['slots_used']:.1%}"
        assert row[-3:] == [
            shown(endpoint["usd"]),
            *(shown(endpoint["prediction"][k]) for k in ("error_p50", "error_p90")),
        ]
    for mark in found["bounds"]:
        assert ["holds", mark["path"], "=", f"{mark['bound']:g},", "found", shown(mark["figure"])] in rows


def test_the_page_shows_the_same_and_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(LAPTOP, "--html", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    table = next(row for row in cells(capsys.readouterr().out) if row[:1] == ["interactive"])
    assert "".join(f"<td>{cell}</td>" for cell in table) in page
    assert "laptop-and-cloud" in page
    assert page.count("<svg") == page.count("</svg>") == 6
    assert not re.search(r"https?://|<script|<link|@import|url\(|\bsrc=", page)
    assert "prefers-color-scheme:dark" in page


def test_a_page_says_names_as_they_are_and_never_as_markup(tmp_path: Path) -> None:
    file = tmp_path / "<b>&.toml"
    file.write_text(Path(LAPTOP).read_text())
    run(file, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>&." not in page
    assert "&lt;b&gt;&amp;" in page


def test_a_table_and_a_bar_say_names_as_they_are_and_never_as_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, policy = tmp_path / "[day].toml", tmp_path / "[" / "rush].toml"
    policy.parent.mkdir()
    file.write_text(Path(LAPTOP).read_text())
    policy.write_text("[policy]\nhold_s_max = 2.0\n")
    run(file, "--policy", policy)
    assert capsys.readouterr().out.startswith(f"[day], policy {policy}, seed")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(file, "--json", tmp_path / "out.json")
    assert "[day]" in capsys.readouterr().err


def test_what_is_printed_as_json_is_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(tmp_path / "out.json")
    capsys.readouterr()
    assert run(LAPTOP, "--json") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_json_is_utf_8_whatever_letters_a_terminal_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "día.toml"
    file.write_text(Path(LAPTOP).read_text())
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, "ascii"))
    assert run(file, "--json") == 0
    assert "día" in json.loads(written.getvalue()).values()


@pytest.mark.lengthy
def test_a_journal_that_is_written_is_explained_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "journal"
    assert run("scenarios/crash-at-peak.toml", "--journal", folder) == 0
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 0
    assert "all came out again" in capsys.readouterr().out
    assert main(["explain", "peak-7", "--journal", str(folder)]) == 0
    assert "peak-7" in capsys.readouterr().out


def test_a_broken_bound_is_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "strict.toml"
    file.write_text(Path(LAPTOP).read_text() + "ttft_s_p50_max = 0.001\n")
    assert run(file) == 1
    assert "broken  bounds.class.batch.ttft_s_p50_max = 0.001" in capsys.readouterr().out


@pytest.mark.lengthy
def test_another_seed_is_another_run_and_the_same_one_the_same(tmp_path: Path) -> None:
    first, again, other = (as_json(tmp_path / f"{n}.json", "--seed", str(n)) for n in (5, 5, 6))
    assert first == again
    assert first["groups"] != other["groups"]
    assert first["seed"] == 5


@pytest.mark.parametrize(("format", "text", "requests"), [("azure", AZURE, 30), ("mooncake", MOONCAKE, 10)])
def test_a_trace_drives_a_scenario_as_it_is(format: str, text: str, requests: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(text)
    found = as_json(tmp_path / "out.json", "--trace", trace, "--trace-format", format)
    assert found["groups"][0]["requests"] == requests
    assert sum(b["arrivals"] for b in found["timeline"]) == requests


@pytest.mark.lengthy
def test_a_policy_is_a_file_or_a_baseline(tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("[class.interactive]\nworth_usd = 0\nworth_usd_per_1k_tokens = 0\nlate_usd_per_s = 0\n")
    stingy = as_json(tmp_path / "a.json", "--policy", policy)
    local = as_json(tmp_path / "b.json", "--policy", "always-local")
    assert stingy["policy"] == str(policy)
    assert local["policy"] == "always-local"
    assert {e["name"]: e["attempts"] for e in local["endpoints"]}["cloud"] == 0
    assert stingy["groups"][0]["usd"] < as_json(tmp_path / "c.json")["groups"][0]["usd"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((LAPTOP, "--trace", "t.csv"), "go together"),
        ((LAPTOP, "--trace-format", "azure"), "go together"),
        ((LAPTOP, "--trace", "t.csv", "--trace-format", "azur"), "no such format"),
        ((LAPTOP, "--policy", "best"), "neither a file nor a baseline"),
        ((LAPTOP, "--policy", "cheapest", "--journal", "j"), "none that replay could reproduce"),
        ((LAPTOP, "--html", "no/such/folder/x.html"), "--html"),
        (("no-such.toml",), "there is no such file"),
        (("scenarios",), "this is a folder"),
        ((LAPTOP, "--trace", "scenarios/slow-wan.toml", "--trace-format", "azure"), "slow-wan.toml:1: expected"),
    ],
)
def test_what_is_asked_wrongly_is_exit_status_2_with_a_remedy(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    text = capsys.readouterr().err
    assert said in text
    assert "remedy:" in text


def test_a_journal_folder_that_cannot_be_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(LAPTOP, "--journal", tmp_path / "file" / "below") == 2
    assert "name a folder" in capsys.readouterr().err


def test_no_journal_is_written_beside_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "journal-20260101T000000000Z-7-000000.jsonl.zst"
    packed.write_bytes(b"")
    assert run(LAPTOP, "--journal", tmp_path) == 2
    said = capsys.readouterr().err
    assert "has a journal already" in said
    assert "name another folder" in said
    assert list(tmp_path.iterdir()) == [packed]


def test_a_journal_that_the_disk_has_no_room_for_is_exit_status_2_and_no_broken_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_end_at(1000):
        assert run(LAPTOP, "--journal", tmp_path / "journal") == 2
    said = capsys.readouterr().err
    assert "--journal" in said
    assert "disk that has room" in said
    assert list((tmp_path / "journal").iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from tidegate.cli.output import BUFFER_BYTES, lines_into, segment
from tidegate.core.model import Line, Probed

with lines_into(segment("simulate", Path(sys.argv[1]), 0.0)) as write:
    for number in range(BUFFER_BYTES // 20):
        write(Line(at_s=float(number), fact=Probed(endpoint="laptop", up=True)))
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_what_a_run_that_is_killed_leaves_is_no_journal_and_in_the_way_of_none(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False).returncode == -signal.SIGTERM
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size
    assert segments(tmp_path) == []
    assert run(LAPTOP, "--journal", tmp_path) == 0
    (written,) = tmp_path.iterdir()
    assert segments(tmp_path) == [written]
    assert all(line.at_s >= 0.0 for line in read(written))


def test_of_two_that_write_into_one_folder_the_second_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lines_into(segment("simulate", tmp_path, 0.0)) as write:
        assert write is not None
        write(Line(at_s=0.0, fact=Probed(endpoint="laptop", up=True)))
        assert run(LAPTOP, "--journal", tmp_path) == 2
        assert "another run writes one there" in capsys.readouterr().err
    (written,) = tmp_path.iterdir()
    assert written.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_played(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (tmp_path / "none" / "out", tmp_path):
        assert run(LAPTOP, option, wrong, "--journal", tmp_path / "journal") == 2
        assert option in "".join(capsys.readouterr())
    assert not (tmp_path / "journal").exists()


@pytest.mark.slow
def test_the_whole_command_is_the_same_in_every_process(tmp_path: Path) -> None:
    made = set()
    for seed in ("0", "1", "77"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "tidegate.cli.main", "simulate", "scenarios/slow-wan.toml"]
            + [f"--{option}={folder / option}" for option in ("json", "html", "journal")],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        (journal,) = (folder / "journal").iterdir()
        made.add(((folder / "json").read_bytes(), (folder / "html").read_bytes(), journal.read_bytes()))
    assert len(made) == 1
