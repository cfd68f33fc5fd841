"""Secrets: where they come from, and a type that does not show them."""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tidegate.config.problem import Problems
from tidegate.config.table import SecretTable

SECRET_BYTES_MAX = 16 * 1024  # signed tokens have 2 KiB; more is another file
# There is no such file. Its name may be the key itself, written here by mistake, and is then not repeated.
_NO_FILE = (errno.ENOENT, errno.ENAMETOOLONG)
_CREATE = "create it with the key in it, readable by this user only; the key itself never stands here"
# A variable's name in the usual spelling. A key written here by mistake rarely has it, and is then not repeated in
# an error message.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


class SecretError(Exception):
    """A secret cannot be had. It says why and what to do about it, never the secret."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Secret:
    """Text that shows itself only when asked: not in logs, not in tracebacks, not in what msgspec or pickle write."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself; call it where the bytes for the upstream are made, and nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    __hash__ = None  # type: ignore[assignment]  # a digest of it would be a trace of it

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self


def from_variable(name: str, variables: Mapping[str, str], *, alone: bool = False) -> Secret:
    """The secret in an environment variable; `alone`: where it can stand in no file."""
    if not _VARIABLE.fullmatch(name):
        raise SecretError(  # without the name: it may be the key itself
            "this is not the name of a variable",
            "write the variable's name in capitals; the key itself never stands here",
        )
    text = variables.get(name)
    if text is None or not text.strip():
        state = "not set" if text is None else "empty"
        raise SecretError(
            f"the environment variable {name} is {state}",
            f"export {name}=... before the start{'' if alone else ', or name a file that holds it'}",
        )
    return _checked(text, f"the environment variable {name}")


def of_few(file: Path) -> str:
    """How a file comes to be read by its owner alone."""
    return (
        f"chmod 600 {file}; of a mount, say its mode where it is mounted, as 0400 for its owner or 0440 for its group"
    )


def from_file(path: Path) -> Secret:
    """The secret in a file that not everybody can read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer must not hang us
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise SecretError(f"{path} is not a file", "name a file that holds the key and nothing else")
            if mode & stat.S_IROTH:
                raise SecretError(f"{path} can be read by everybody on this machine", of_few(path))
            content = file.read(SECRET_BYTES_MAX + 1)
    except ValueError:
        raise SecretError("this is not the name of a file", _CREATE) from None
    except OSError as error:
        shown = "the file" if error.errno in _NO_FILE else path
        remedy = "write the whole path: `~` is nobody's home here" if "~" in path.parts else _CREATE
        raise SecretError(f"{shown} cannot be read: {error.strerror}", remedy) from None
    if len(content) > SECRET_BYTES_MAX:
        raise SecretError(f"{path} is larger than any key", "name a file that holds the key and nothing else")
    return _checked(content.decode("latin-1"), str(path))


def api_key(
    path: str, variable: str, file: str, folder: Path, problems: Problems, variables: Mapping[str, str]
) -> Secret | None:
    """What the `api_key_env` or `api_key_file` of the table at `path` holds; None where it names neither, or where that
    is wrong, which is noted."""
    if variable and file:
        problems.add(f"{path}.api_key_file", "there is `api_key_env` too", "remove one of the two")
        return None
    where = "api_key_env" if variable else "api_key_file"
    try:
        if variable:
            return from_variable(variable, variables)
        if file:
            return from_file(folder / file)
    except SecretError as error:
        problems.add(f"{path}.{where}", error.message, error.remedy)
    return None


def of_table(
    table: SecretTable,
    example: str,
    folder: Path,
    variables: Mapping[str, str],
    *,
    chars_min: int = 0,
    made_by: str = "",
) -> Secret:
    """What the variable or the file holds that a table names; `example` is what such a file may be called. Raises
    SecretError, also where it is shorter than `chars_min`, with what it is better `made_by`."""
    if bool(table.env) == bool(table.file):
        raise SecretError("it names both or neither", f'write {{ env = "VARIABLE" }} or {{ file = "{example}" }}')
    found = from_variable(table.env, variables) if table.env else from_file(folder / table.file)
    if len(found.reveal()) < chars_min:
        raise SecretError(f"it has fewer than {chars_min} characters", f"make one with {made_by}")
    return found


def setting(path: str, table: SecretTable) -> str:
    """Where that is wrong: in one of the settings of the table at `path`, or in the table."""
    if bool(table.env) == bool(table.file):
        return path
    return f"{path}.env" if table.env else f"{path}.file"


def _checked(text: str, origin: str) -> Secret:
    text = text.strip()
    if not text:
        raise SecretError(f"{origin} is empty", "put the key into it")
    # It goes into a request header: anything else would end the header, or begin another.
    if not text.isascii() or not text.isprintable():
        raise SecretError(
            f"{origin} holds characters that no key has (a line break inside, or not ASCII)",
            "put the key alone into it, on one line",
        )
    return Secret(text)
