"""The configuration as operators edit it: read, checked, put in force through the gateway's reload, and taken back.

What was in force before is kept beside the file, so that there is always one way back.
"""

import asyncio
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.config.diff import Change, diff
from tidegate.config.load import FILE_BYTES_MAX, document, load, parse, read, revision
from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import Record
from tidegate.dashboard.parent import Parent
from tidegate.telemetry.packing import sync_folder
from tidegate.wire.errors import BadRequest

POLICY: Final = ("policy", "class", "rule")
"""The tables that a preview can try, and that are changed by who has shown no secret. Whoever changes an endpoint's URL
is sent its key: that may be any user of this machine only where the file's owner has let him."""
_HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_-]+)")
_BEFORE: Final = ".before"
_KEPT, _NEW = ".kept", ".new"
"""While a change is under way: the file as it was, and what is being written. The former is whole wherever it is."""


class Good(Record, frozen=True, kw_only=True):
    """What was in force last before another was put in its place from here, and since when it is not."""

    at_s: float
    revision: str


class Told(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The file as it is. `applies`: a gateway is there to put another in force; `in_force`: it has loaded this one.
    `last_good` is what a rollback goes to, None where that is nothing, or what the file says."""

    file: str | None
    text: str
    revision: str
    applies: bool
    in_force: bool
    last_good: Good | None


class Checked(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is wrong with a text, and what it would change of the file; None where that is broken: nobody can say."""

    problems: tuple[Problem, ...]
    changes: tuple[Change, ...] | None


class Applied(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What came of it; with `problems` all is as it was. `revision` is that of the file now."""

    applied: bool
    changes: tuple[Any, ...]
    problems: tuple[Any, ...]
    revision: str


class _Outcome(msgspec.Struct):
    """As much of a reload's outcome as is told on."""

    applied: bool
    changes: tuple[Any, ...] = ()
    problems: tuple[Any, ...] = ()


class Policies:
    """The one configuration, in `file` or where that leads just now; None where none is known."""

    def __init__(self, file: Path | None, parent: Parent | None) -> None:
        self._file = file
        self._parent = parent
        self._lock = asyncio.Lock()
        if file is not None and parent is not None:
            _settle(file.resolve())

    def told(self, loaded: str = "") -> Told:
        """As it is, of which the gateway has `loaded` that revision; empty of none. Raises BadRequest."""
        if self._file is None or not self._file.is_file():
            return Told(file=None, text="", revision="", applies=False, in_force=False, last_good=None)
        file = self._known
        text, good = _text(file), None
        now = revision(text)
        with suppress(OSError, UnicodeDecodeError):
            before = _beside(file, _BEFORE)
            kept = Good(at_s=before.stat().st_mtime, revision=revision(before.read_bytes().decode()))
            good = None if kept.revision == now else kept
        applies = self._parent is not None
        return Told(
            file=str(file), text=text, revision=now, applies=applies, in_force=applies and now == loaded, last_good=good
        )

    def check(self, text: str, *, shown: bool) -> Checked:
        """Against the file. Raises BadRequest where there is none.

        Of a configuration all files are opened, and all variables looked up, that it names: who has not `shown` the
        admin's secret has no more of it looked at than `POLICY`.
        """
        # By the name that the gateway knows: other files are named from where a link stands, not from where it leads.
        file = self._named
        try:
            document(_sized(text), str(file))
            if not shown and _goes_beyond(_text(file), text):
                raise BadRequest(
                    "Without gateway.admin_key, only [policy], [class] and [[rule]] are checked and changed from here: "
                    "set one, or edit the file itself.",
                    status=403,
                )
            wanted = parse(text, str(file))
        except ConfigError as error:
            return Checked(problems=tuple(error.problems), changes=())
        try:
            return Checked(problems=(), changes=diff(load(file), wanted))
        except ConfigError:
            return Checked(problems=(), changes=None)

    async def apply(self, text: str, seen: str, loaded: str, who: str, *, shown: bool) -> Applied:
        """Put it in force in place of the revision that was `seen`. Raises BadRequest.

        What was in the file is the way back only where that is the revision that the gateway has `loaded`. Who has not
        `shown` the admin's secret changes no more than `POLICY`.
        """
        return await self._change(text, seen, loaded, who, "policy applied", shown=shown)

    async def roll_back(self, seen: str, to: str, loaded: str, who: str, *, shown: bool) -> Applied:
        """Put in force again what was before the last change, as `apply` does. Raises BadRequest, also where that is
        not the revision `to`, empty where it does not matter: others change it while the file comes to be the same."""
        kept = _beside(self._known, _BEFORE)
        try:
            # As it is, with its own line ends.
            text = (await asyncio.to_thread(kept.read_bytes))[:FILE_BYTES_MAX].decode()
        except OSError:
            raise BadRequest("There is nothing to roll back to: nothing was changed from here.", status=409) from None
        except UnicodeDecodeError:
            raise BadRequest(f"{kept} is not UTF-8: somebody else has changed it; move it away.", status=409) from None
        if to not in ("", revision(text)):
            raise BadRequest("A rollback goes to another configuration by now; look at it again.", status=409)
        return await self._change(text, seen, loaded, who, "policy rolled back", shown=shown)

    async def _change(self, text: str, seen: str, loaded: str, who: str, what: str, *, shown: bool) -> Applied:
        parent = self._parent
        if parent is None:
            raise BadRequest("No gateway is beside this dashboard: there is nothing to put in force.", status=409)
        if self._lock.locked():
            raise BadRequest("A change is under way; look again when it is done.", status=409)
        async with self._lock:
            file = self._known
            before = await asyncio.to_thread(_text, file)
            if revision(before) != seen:
                raise BadRequest("The file has been changed meanwhile; look at it again.", status=409)
            checked = await asyncio.to_thread(self.check, text, shown=shown)
            if checked.problems:
                return Applied(applied=False, changes=(), problems=checked.problems, revision=seen)
            try:
                # What was there is written down first: to put it back, or to keep it, takes no room on the disk.
                kept = (await asyncio.to_thread(_written, file, before)).replace(_beside(file, _KEPT))
                _put(await asyncio.to_thread(_written, file, text), file)
                outcome = await self._outcome(parent, who, what)
                if outcome.problems:
                    _put(kept, file)
                elif outcome.applied and text != before and seen == loaded:
                    kept.replace(_beside(file, _BEFORE))
                else:
                    kept.unlink()
            except OSError as error:
                raise BadRequest(f"{file} cannot be written: {error.strerror}.", status=409) from None
            finally:
                _settle(file)
            now = revision(before if outcome.problems else text)
            return Applied(applied=outcome.applied, changes=outcome.changes, problems=outcome.problems, revision=now)

    async def _outcome(self, parent: Parent, who: str, what: str) -> _Outcome:
        """What comes of it at the gateway."""
        try:
            return msgspec.json.decode(await parent.wish(who, what), type=_Outcome)
        except OSError:  # a time-out, or it is gone
            return _Outcome(False, problems=(_silent(self._named),))

    @property
    def _named(self) -> Path:
        if self._file is None:
            raise BadRequest("No configuration is known here; --config names one.", status=404)
        return self._file

    @property
    def _known(self) -> Path:
        """What is read and written. The gateway follows links anew at each reload, too."""
        return self._named.resolve()


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _text(file: Path) -> str:
    try:
        return read(str(file))
    except ConfigError as error:
        raise BadRequest(error.problems[0].message, status=409) from None


def _written(file: Path, text: str) -> Path:
    """A file beside this one, to take its place, with its mode; and its owner, where that may be given away."""
    new, status = _beside(file, _NEW), file.stat()
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(text.encode())
        stream.flush()
        with suppress(OSError):
            os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, status.st_mode & 0o777)
        os.fsync(fd)
    return new


def _put(new: Path, file: Path) -> None:
    """In the place of this file; over what is in it, where it is mounted alone and cannot be replaced."""
    try:
        new.replace(file)
    except OSError:
        before = file.read_bytes()
        try:
            _write_over(file, new.read_bytes())
        except OSError:
            _write_over(file, before)
            raise
        new.unlink()
    else:
        # What is in force is to be the file's also after a power cut.
        with suppress(OSError):
            sync_folder(file.parent)


def _write_over(file: Path, content: bytes) -> None:
    """In place of what is in it, whose room on the disk is not let go before: there may be none to be had."""
    with file.open("r+b") as out:
        out.write(content)
        out.flush()
        out.truncate()
        os.fsync(out.fileno())


def _settle(file: Path) -> None:
    """What a change has left that failed, or that a death has cut short: the file as it was is the way back, unless it
    is that still."""
    with suppress(OSError):
        kept = _beside(file, _KEPT)
        if kept.read_bytes() != file.read_bytes():
            kept.replace(_beside(file, _BEFORE))
        kept.unlink(missing_ok=True)
    with suppress(OSError):
        _beside(file, _NEW).unlink(missing_ok=True)


def _goes_beyond(before: str, after: str) -> bool:
    """Whether more than a policy differs; so it is where nobody can say."""
    try:
        one, other = document(before, ""), document(after, "")
        return any(one.get(name) != other.get(name) for name in {*one, *other} - {*POLICY})
    except (ConfigError, RecursionError):
        return True


def policy_of(text: str) -> str:
    """The tables of a configuration that a preview can try, as they are written. Raises BadRequest."""
    kept, on = [], False
    for line in _sized(text).splitlines(keepends=True):
        if (header := _HEADER.match(line)) is not None:
            on = header[1] in POLICY
        if on:
            kept.append(line)
    found = "".join(kept)
    try:
        whole = document(text, "")
        if document(found, "") == {name: table for name, table in whole.items() if name in POLICY}:
            return found
    except ConfigError as error:
        raise BadRequest(f"This is no TOML: {error.problems[0].message}") from None
    except RecursionError:
        raise BadRequest("This is no TOML: it is nested too deeply") from None
    raise BadRequest("To be previewed, [policy], [class.NAME] and [[rule]] have to be written as tables.")


def _sized(text: str) -> str:
    if len(text) > FILE_BYTES_MAX:
        raise BadRequest("It is larger than 1 MiB; a configuration has a few KiB.", status=413)
    return text


def _silent(file: Path) -> Problem:
    return Problem(
        file=str(file), path="", message="the gateway has not said what came of it", remedy="look at its log"
    )
