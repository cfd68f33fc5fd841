"""Has the compiled modules read attributes and names as the interpreter does; see lookups.h beside this.

hatch-mypyc knows no flags for the C compiler, which takes them from the environment: CFLAGS stand in for Python's own,
and TIDEGATE_CFLAGS come after them; LDFLAGS are added to Python's own.
"""

import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HEADER = Path(__file__).with_suffix(".h")
# Nobody puts a function of his own in the place of one of ours, as is done with those of libraries: without this,
# compiled functions call each other by a table all the same. Elsewhere than with ELF nobody does.
DIRECT = "-Wl,-Bsymbolic"


def flags(set_before: str | None, more: str = "") -> str:
    """What the compiler is told: what it is told without, the header, and what `more` it is to be told."""
    usual = sysconfig.get_config_var("CFLAGS") or ""
    return f"{set_before or usual} -include {shlex.quote(str(HEADER))} {more}".rstrip()


class Lookups(BuildHookInterface[Any]):
    """Runs before mypyc's hook, being listed before it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Tell the compiler, where it is one that includes files so."""
        if os.name == "posix":
            os.environ["CFLAGS"] = flags(os.environ.get("CFLAGS"), os.environ.get("TIDEGATE_CFLAGS", ""))
        if sys.platform == "linux":
            os.environ["LDFLAGS"] = f"{os.environ.get('LDFLAGS', '')} {DIRECT}".lstrip()
