"""What is compiled beside what mypyc compiles, and what mypyc's compiler is told.

The module that is C itself is built here. Compiled modules are to read attributes and names as the interpreter does
(see lookups.h beside this), and hatch-mypyc knows no flags for the C compiler, which takes them from the environment:
CFLAGS stand in for Python's own, and TIDEGATE_CFLAGS come after them; LDFLAGS are added to Python's own.
"""

import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HEADER = Path(__file__).with_name("lookups.h")
LANES = "tidegate.http._lanes"
# Nobody puts a function of his own in the place of one of ours, as is done with those of libraries: without this,
# compiled functions call each other by a table all the same. Elsewhere than with ELF nobody does.
DIRECT = "-Wl,-Bsymbolic"


def flags(set_before: str | None, more: str = "") -> str:
    """What the compiler is told: what it is told without, the header, and what `more` it is to be told."""
    usual = sysconfig.get_config_var("CFLAGS") or ""
    return f"{set_before or usual} -include {shlex.quote(str(HEADER))} {more}".rstrip()


def lanes(root: Path, into: Path) -> Path:
    """Compile them from the project at `root`, with what is written on the way in `into`; where the module is."""
    # Only who compiles has it.
    from setuptools import Distribution, Extension

    source = root.joinpath("src", *LANES.split(".")).with_suffix(".c")
    extension = Extension(LANES, [str(source)])
    command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(into)
    command.force = True  # flags may be others, which no file's time tells
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(LANES))


class Compiled(BuildHookInterface[Any]):
    """Runs before mypyc's hook, being listed before it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is C, which asks for Linux, and tell the compiler, where it is one that includes files so."""
        if sys.platform == "linux" and version != "editable":
            made = lanes(Path(self.root), Path(self.root) / "build" / "lanes")
            build_data["force_include"][str(made)] = f"{LANES.replace('.', '/').removesuffix('_lanes')}{made.name}"
            build_data["pure_python"], build_data["infer_tag"] = False, True
        if os.name == "posix":
            os.environ["CFLAGS"] = flags(os.environ.get("CFLAGS"), os.environ.get("TIDEGATE_CFLAGS", ""))
        if sys.platform == "linux":
            os.environ["LDFLAGS"] = f"{os.environ.get('LDFLAGS', '')} {DIRECT}".lstrip()
