"""How other relays come to this machine: each into a folder of its own, in one version, when it is first asked for."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.relays import Absent

FOLDER = Path("build/peers")
INSTALL_S = 900.0


class Wheel(msgspec.Struct, frozen=True):
    """A Python package in an environment of its own; `source` is what pip is told where that is not `name==version`."""

    name: str
    version: str
    source: str = ""
    options: tuple[str, ...] = ()

    def ready(self) -> str:
        """Install it unless that has been done."""
        what = self.source or f"{self.name}=={self.version}"
        pip = [self.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        make = [sys.executable, "-m", "venv", "--clear", self._folder()]
        _once(self._folder(), what, [make, [*pip, *self.options, what]])
        return self.version

    def program(self, name: str) -> Path:
        """The path of a program that came with it."""
        return self._folder() / "bin" / name

    def _folder(self) -> Path:
        return FOLDER.resolve() / self.name.partition("[")[0]


class Npm(msgspec.Struct, frozen=True):
    """A package for Node.js, and those of what it depends on that it does not run with in their newest versions."""

    name: str
    version: str
    beside: tuple[str, ...] = ()

    def ready(self) -> str:
        """Install it unless that has been done."""
        if shutil.which("npm") is None:
            raise Absent("npm is not on this machine")
        what = [f"{self.name}@{self.version}", *self.beside]
        _once(self._folder(), " ".join(what), [["npm", "install", "--no-fund", "--prefix", self._folder(), *what]])
        return self.version

    def file(self, path: str) -> Path:
        """The path of a file of the package."""
        return self._folder() / "node_modules" / self.name / path

    def _folder(self) -> Path:
        return FOLDER.resolve() / self.name.rpartition("/")[0].lstrip("@")


class OnPath(msgspec.Struct, frozen=True):
    """A program of the system's own packages, in the version that is there."""

    name: str

    def ready(self) -> str:
        """What it says of its version."""
        program = shutil.which(self.name)
        if program is None:
            raise Absent(f"{self.name} is not on this machine; its system package has it")
        said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
        return (said.stdout + said.stderr).splitlines()[0]


def _once(folder: Path, what: str, commands: Sequence[Sequence[str | Path]]) -> None:
    """Run the commands unless they have been run for the same thing."""
    mark = folder / "installed"
    if mark.is_file() and mark.read_text() == what:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.CalledProcessError as error:
            raise Absent(f"cannot be installed: {_reason(error.stderr)}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Absent(f"cannot be installed: {error}") from error
    mark.write_text(what)


def _reason(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1][:200] if lines else "its installer says nothing"
