"""What processes take of the machine."""

from pathlib import Path


def cpu_s(pid: int) -> float:
    """Seconds on a core of every thread of a process, by the kernel's count."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9
