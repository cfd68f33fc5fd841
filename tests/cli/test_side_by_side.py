"""Two plays in processes of their own."""

import os
import signal
from multiprocessing import active_children
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


def test_an_interrupt_of_a_terminal_is_for_whoever_waits_for_them() -> None:
    def interrupts(share: float) -> None:
        for child in active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGINT)

    (played,) = side_by_side(Week(count=50).twin(), [Play(policy=core.policy(), bar=interrupts)])
    assert len(played) == 50


def test_a_journal_that_the_disk_has_no_room_for_is_told_as_that(tmp_path: Path) -> None:
    written = segment("shadow", tmp_path, 0.0)
    plays = [Play(policy=core.policy(), bar=_no_bar, segment=one) for one in (None, written)]
    with files_end_at(1000), pytest.raises(ConfigError, match=f"--journal: {written}: File too large"):
        side_by_side(Week(count=10).twin(), plays)
    assert list(tmp_path.iterdir()) == []
