"""A share of a core for a process, kept by the kernel: by a control group, of version 2 or 1, which takes root."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PERIOD_US = 100_000
V2, V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")
NAME = "tidegate-throttled"


@contextmanager
def throttled(pid: int, share: float) -> Iterator[str]:
    """`pid` has so much of a core until this is left; yields how. OSError where this machine lets nobody do that."""
    above, how = _above()
    group = above / NAME
    group.mkdir(exist_ok=True)
    quota_us = int(share * PERIOD_US)
    if above == V2:
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield f"{how}: {quota_us / 1e3:g} ms of each {PERIOD_US / 1e3:g}"
    finally:
        # It may have ended meanwhile.
        with suppress(OSError):
            (above / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()


def _above() -> tuple[Path, str]:
    """Where a group can be made that bounds cores, and what that is called."""
    controllers = V2 / "cgroup.subtree_control"
    if controllers.exists():
        if "cpu" not in controllers.read_text().split():
            controllers.write_text("+cpu")
        return V2, "cgroup v2 cpu.max"
    if (V1 / "cpu.cfs_period_us").exists():
        return V1, "cgroup v1 cpu.cfs_quota_us"
    raise OSError("there is no control group here that bounds cores")
