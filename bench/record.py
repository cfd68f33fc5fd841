"""Where the results of benchmarks go: with the commit, the command and the machine that they are from."""

import json
import os
import platform
import subprocess
from pathlib import Path

from tidegate.clock import Clock, iso
from tidegate.core import router

RESULTS = Path(__file__).parent / "results"
ROW_CHARS = 2000


def record(name: str, found: dict[str, object], folder: Path = RESULTS) -> None:
    """Write NAME.json into the folder, and print it. The command is the one of the Makefile: no path of this machine.

    `compiled`: the path of a request was, as where wheels are built.
    """
    result = {
        "commit": commit(),
        "command": f"make bench-{name}",
        "machine": machine(),
        "compiled": router.__file__.endswith(".so"),
        "at": iso(Clock().now_s()),
        **found,
    }
    text = _text(result)
    (folder / f"{name}.json").write_text(text)
    print(text)


def _text(result: dict[str, object]) -> str:
    """JSON for people and for `git diff`: rows that are longer than a page stand on a line each."""
    rows = {key: value for key, value in result.items() if isinstance(value, list) and len(str(value[:1])) > ROW_CHARS}
    text = json.dumps(result | dict.fromkeys(rows), indent=2) + "\n"
    for key, value in rows.items():
        lines = ",\n".join("    " + json.dumps(row) for row in value)
        text = text.replace(f'"{key}": null', f'"{key}": [\n{lines}\n  ]', 1)
    return text


def commit() -> str:
    """The commit that is checked out; `+` where files differ from it."""
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "src", "bench/*.py"], capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def machine() -> str:
    """Processor, cores and Python."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {platform.system()}"
