"""The audit log, as the gateway writes it."""

from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

from tidegate.clock import Clock
from tidegate.dashboard.changed import changes
from tidegate.gateway.changes import Changes
from tidegate.telemetry.log import Log
from tidegate.wire.changes import FILE


async def test_of_a_change_that_the_disk_takes_in_part_nothing_stays_and_the_next_is_read(tmp_path: Path) -> None:
    clock = Clock()
    log = Log.to(tmp_path / "log", clock)
    audit = Changes(tmp_path, clock=clock, log=log)
    audit.add("alice", "first", (), applied=True)
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 20, before[1]))
    try:
        audit.add("alice", "second", (), applied=True)
    finally:
        setrlimit(RLIMIT_FSIZE, before)
    audit.add("alice", "third", (), applied=True)
    log.close()
    assert (tmp_path / "log").read_text().count("cannot be written: No space left on device") == 1
    assert [one.what for one in changes(tmp_path, 10).changes] == ["third", "first"]
