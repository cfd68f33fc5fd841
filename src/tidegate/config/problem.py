"""What is wrong with a configuration: where, what, and what to do about it."""

import difflib
import json
import re
from collections.abc import Iterable

import msgspec

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to repair. `path` names the setting as in `endpoint.cloud.price`, empty for the file as a whole."""

    file: str
    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return f"{where}: {self.message}\n    {self.remedy}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has everything that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class Problems:
    """Collects the problems of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.found: list[Problem] = []

    def add(self, path: str, message: str, remedy: str) -> None:
        """Note one; the path may be empty."""
        self.found.append(Problem(file=self._file, path=path, message=message, remedy=remedy))


def join(*keys: str) -> str:
    """The path of a setting; keys that TOML would quote are quoted."""
    return ".".join(key if _BARE.match(key) else json.dumps(key[:80]) for key in keys)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or the whole list."""
    names = sorted(known)
    if not names:
        return "there is none"
    if close := difflib.get_close_matches(word[:80], names, n=1):
        return f"did you mean `{close[0]}`?"
    return "known are: " + ", ".join(f"`{name}`" for name in names)
