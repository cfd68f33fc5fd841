"""Two plays in processes of their own."""

from pathlib import Path

import pytest

from tests import make as core
from tests.sim.week import Week
from tidegate.cli.side_by_side import Play, side_by_side
from tidegate.config.problem import ConfigError


def _no_bar(share: float) -> None:
    pass


def test_a_journal_that_the_disk_has_no_room_for_is_told_as_that() -> None:
    plays = [Play(policy=core.policy(), bar=_no_bar, segment=segment) for segment in (None, Path("/dev/full"))]
    with pytest.raises(ConfigError, match="--journal: /dev/full: No space left on device"):
        side_by_side(Week(count=10).twin(), plays)
