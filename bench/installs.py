"""How other relays come to this machine: each into a folder of its own, in one version, when it is first asked for."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.relays import Absent

Command = Sequence[str | Path]

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
        pip: Command = [self.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        make: Command = [sys.executable, "-m", "venv", self._folder()]
        _once(self._folder(), what, [make, [*pip, *self.options, what]])
        return self.version

    def program(self, name: str) -> Path:
        """The path of a program that came with it."""
        return self._folder() / "bin" / name

    def _folder(self) -> Path:
        return FOLDER.resolve() / self.name.partition("[")[0]


class Npm(msgspec.Struct, frozen=True):
    """A package for Node.js. `overrides`: versions of what it depends on, where it does not run with the newest."""

    name: str
    version: str
    overrides: Mapping[str, str] = {}

    def ready(self) -> str:
        """Install it unless that has been done."""
        if shutil.which("npm") is None:
            raise Absent("npm is not on this machine")
        wanted = {"dependencies": {self.name: self.version}, "overrides": self.overrides}
        package = msgspec.json.encode(wanted).decode()
        install: Command = ["npm", "install", "--no-fund", "--no-audit", "--prefix", self._folder()]
        _once(self._folder(), package, [install], {"package.json": package})
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


def _once(folder: Path, what: str, commands: Sequence[Command], files: Mapping[str, str] | None = None) -> None:
    """Run the commands beside these files, unless they were for the same thing. What was there before is removed."""
    mark = folder / "installed"
    if mark.is_file() and mark.read_text() == what:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.CalledProcessError as error:
            raise Absent(f"cannot be installed: {_reason(error.stderr)}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Absent(f"cannot be installed: {error}") from error
    mark.write_text(what)


def _reason(said: str) -> str:
    """The line that tells it: what pip says of an error in a program that it calls tells less than that program."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for word in ("fatal:", "error:", ""):
        telling = [line for line in lines if line.lower().startswith(word)]
        if telling:
            return telling[-1][:200]
    return "its installer says nothing"
