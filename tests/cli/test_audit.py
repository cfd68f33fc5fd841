"""`tidegate audit`, from a journal to a table and JSON, and what it says where it cannot."""

import sys
from pathlib import Path

import msgspec
import pytest

from tests.sim.week import Week
from tidegate.cli.audit import recommended_text, show
from tidegate.cli.main import main
from tidegate.cli.output import Console
from tidegate.sim.audit import Audit
from tidegate.telemetry.segments import SegmentName

NEEDS_SCIPY = tuple(f"tidegate.{name}" for name in ("cli.audit", "sim.audit", "sim.oracle", "sim.owned", "sim.program"))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / str(SegmentName.first(0.0))).write_bytes(msgspec.json.Encoder().encode_lines(Week(count=12).lines))
    return folder


@pytest.mark.lengthy
def test_an_audit_says_what_is_missing_of_what_and_what_to_change(
    journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["audit", "--journal", str(journal)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The busiest 12 requests")
    for words in ("as it was", "the best that was reached", "nobody exceeds", "are missing to what"):
        assert words in said
    assert main(["audit", "--journal", str(journal), "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Audit)
    assert found.requests == 12
    assert ("Recommended" in said) == (found.recommended is not None)
    better = msgspec.structs.replace(found, recommended=found.changes[0].name)
    assert found.changes[0].name in recommended_text(better)
    assert "handed over" not in said
    show(Console(width=200), msgspec.structs.replace(found, handed=True))
    assert "handed over. Neither the bound" in capsys.readouterr().out
    assert "No other setting" in recommended_text(msgspec.structs.replace(found, recommended=None))


def test_what_is_no_journal_and_what_is_missing_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["audit", "--journal", str(tmp_path / "none")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    segment = tmp_path / str(SegmentName.first(0.0))
    segment.touch()
    assert main(["audit", "--journal", str(tmp_path)]) == 2
    assert f"{tmp_path}: nothing is written in this journal; see that" in capsys.readouterr().err
    segment.write_bytes(msgspec.json.encode(Week(count=1).lines[0]) + b"\n")
    assert main(["audit", "--journal", str(tmp_path)]) == 1
    assert "nobody asked" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    for name in [one for one in sys.modules if one.startswith(NEEDS_SCIPY)]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["audit", "--journal", str(tmp_path)]) == 1
    assert "pip install 'tidegate[oracle]'" in capsys.readouterr().err
