"""Where the results of benchmarks go: with the commit, the command and the machine that they are from."""

import argparse
import json
import os
import platform
import re
import subprocess
from pathlib import Path

from tidegate.clock import Clock, iso
from tidegate.core import router

RESULTS = Path(__file__).parent / "results"
ROW_CHARS = 2000
# Whatever figures may depend on; results are written by runs themselves.
MEASURED = ("src", "bench", ":(exclude)bench/results", "build_hooks", "pyproject.toml", "scenarios")
NO_COMMIT = "unknown+"


def record(name: str, found: dict[str, object], folder: Path = RESULTS, choice: str = "") -> None:
    """Write NAME.json into the folder, and print it. The command is the one of the Makefile, with the `choice` that was
    made of what it has (`ROUNDS=2`): no path of this machine.

    `compiled`: the path of a request was, as where wheels are built.
    """
    result = {
        "commit": commit(),
        "command": f"make bench-{name} {choice}".rstrip(),
        "machine": _MACHINE,
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


def chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """What was asked for that is not usual, as the Makefile takes it: `LOADS="W1 W4" TLS=1`. Folders are not told."""
    usual, found = vars(parser.parse_args([])), list[str]()
    for name, value in vars(options).items():
        if value != usual[name] and not isinstance(value, Path):
            text = re.sub(r"=\S+", "=FOLDER", value) if isinstance(value, str) else str(int(value))
            found.append(f'{name.upper()}="{text}"' if " " in text else f"{name.upper()}={text}")
    return " ".join(found)


class Checkout:
    """What a repository has checked out, from when this is made: a run of an hour has read its code by then."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._begun = self._found()

    def commit(self) -> str:
        """The commit of then; `+` where what is measured differed from it, or either has changed since."""
        return self._begun if self._found() == self._begun else self._begun.removesuffix("+") + "+"

    def _found(self) -> str:
        head = self._git("rev-parse", "--short=12", "HEAD")
        if head is None:
            # Whoever reads what was recorded needs no repository.
            return NO_COMMIT
        return head + ("+" if self._git("status", "--porcelain", "--", *MEASURED) else "")

    def _git(self, *arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=self._root, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()


_CHECKOUT = Checkout(Path(__file__).parent.parent)


def commit() -> str:
    """The commit that this was begun on; see `Checkout`."""
    return _CHECKOUT.commit()


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


_MACHINE = machine()  # before a run pins itself to one of its cores
