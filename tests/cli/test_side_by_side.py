"""Two plays in processes of their own."""

from pathlib import Path

import pytest

from tests import make as core
from tests.sim.week import Week
from tests.telemetry.test_journal import files_end_at
from tidegate.cli.output import segment
from tidegate.cli.side_by_side import Play, side_by_side
from tidegate.config.problem import ConfigError


def _no_bar(share: float) -> None:
    pass


def test_a_journal_that_the_disk_has_no_room_for_is_told_as_that(tmp_path: Path) -> None:
    written = segment("shadow", tmp_path, 0.0)
    plays = [Play(policy=core.policy(), bar=_no_bar, segment=one) for one in (None, written)]
    with files_end_at(1000), pytest.raises(ConfigError, match=f"--journal: {written}: File too large"):
        side_by_side(Week(count=10).twin(), plays)
    assert list(tmp_path.iterdir()) == []
