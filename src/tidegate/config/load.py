"""Reads the configuration file: everything that is wrong with it, at once, and never a traceback."""

import os
import tomllib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from tidegate.config import classes, door, mutual, trace
from tidegate.config.check import check, check_candidate
from tidegate.config.config import Config
from tidegate.config.convert import convert, listed, named, names, unknown
from tidegate.config.draft import Draft
from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.problem import ConfigError, Problem, Problems
from tidegate.config.rule import RULES_MAX, RuleTable
from tidegate.config.schema import BudgetTable, GatewayTable, PolicyTable, SiteTable, SwitchbackTable
from tidegate.config.trace import TraceTable

FILE_BYTES_MAX = 1024 * 1024  # a thousand endpoints take a quarter of it
# A key stands on one line, and has three dots here. What tomllib takes grows with the square of them: 100 KB that are
# one key take 10 GB of memory. A line of prices, dated and tiered, has some dozens.
DOTS_MAX = 200
_DEPTH_MAX = 50  # tables are three deep, and what is in them a few more
_WHOLE_BITS_MAX = 4096  # TOML promises 64; Python writes out no number of more than some 14,000

_ABSENT = "name the file, or copy one from examples/"  # what to do where a gateway's is not there

_NAMED = ("class", "site", "model", "endpoint")
TABLES = ("policy", "budget", "rule", *_NAMED)
"""The tables that say what is decided about, and how; `gateway`, `switchback` and `trace` are the service's."""


def load(path: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file at `path`; ConfigError tells everything that is wrong with it.

    Keys are looked up in `variables`, by default the process's environment.
    """
    shown = os.fspath(path)
    return parse(read(shown, _ABSENT), shown, variables)


def load_unreached(path: str | os.PathLike[str], absent: str = _ABSENT) -> Config:
    """The same where nobody is going to be reached: no key is looked up, and no address needed, though none may be
    wrong. `absent` says what to do where there is no such file."""
    shown = os.fspath(path)
    return _parsed(read(shown, absent), shown, None)


def parse(text: str, path: str, variables: Mapping[str, str] | None = None) -> Config:
    """The configuration in `text`, which is or would be the content of the file at `path`. As `load` otherwise."""
    return _parsed(text, path, os.environ if variables is None else variables)


def _parsed(text: str, path: str, variables: Mapping[str, str] | None) -> Config:
    problems = Problems(path)
    tables = document(text, path)
    unknown(tables, ("gateway", "switchback", "trace", *TABLES), problems)
    config = checked(tables, Path(path), problems, variables)
    if config is None:
        raise ConfigError(problems.found)
    return msgspec.structs.replace(config, revision=revision(text))


def revision(text: str) -> str:
    """What tells one text of a file from another."""
    return blake2b(text.encode(), digest_size=12).hexdigest()


def checked(
    tables: dict[str, Any], file: Path, problems: Problems, variables: Mapping[str, str] | None
) -> Config | None:
    """The configuration in the tables of a file; None where there are problems, and then all of them are noted.

    With None in place of `variables` no key is looked up and no address needed: nobody is going to be reached.
    """
    draft = _sections(file, tables, problems)
    admin_key = None
    if draft.gateway is not None and variables is not None:
        admin_key = door.check(draft.gateway, draft.folder, problems, variables)
    elif draft.gateway is not None:
        door.addresses(draft.gateway, problems)
    ticket_secret = None
    if draft.gateway is not None and draft.gateway.couriers is not None and variables is not None:
        couriers = draft.gateway.couriers
        mutual.check("gateway.couriers.tls", mutual.files(couriers.tls, draft.folder), problems)
        path = "gateway.couriers.secret"
        ticket_secret = mutual.ticket_secret(path, couriers.secret, draft.folder, problems, variables)
    trace_secret = None
    if draft.trace is not None and variables is not None:
        trace_secret = trace.check(draft.trace, draft.folder, problems, variables)
    secrets, authorities = check(draft, problems, variables)
    candidate = None
    if draft.switchback is not None and draft.switchback.policy and not problems.found:
        candidate = _candidate(tables, file, draft, problems, variables)
    if problems.found:
        return None
    assert draft.gateway is not None
    assert draft.policy is not None
    assert draft.budget is not None
    assert draft.switchback is not None
    assert draft.trace is not None
    return Config(
        file=file,
        gateway=draft.gateway,
        policy=draft.policy,
        budget=draft.budget,
        switchback=draft.switchback,
        trace=draft.trace,
        classes=draft.classes,
        rules=draft.rules,
        sites=draft.sites,
        models=draft.models,
        endpoints=draft.endpoints,
        secrets=secrets,
        authorities=authorities,
        admin_key=admin_key,
        ticket_secret=ticket_secret,
        trace_secret=trace_secret,
        candidate=candidate,
    )


def policy_tables(file: Path) -> dict[str, Any]:
    """The tables of a policy's file, which are well-formed; ConfigError tells everything that is wrong with them."""
    shown = os.fspath(file)
    tables, problems = document(read(shown), shown), Problems(shown)
    unknown(tables, ("policy", "class", "rule"), problems)
    convert(tables.get("policy", {}), "policy", PolicyTable, problems)
    classes.read(tables, problems)
    listed(tables, "rule", RuleTable, RULES_MAX, problems)
    if problems.found:
        raise ConfigError(problems.found)
    return tables


def _candidate(
    tables: dict[str, Any],
    file: Path,
    draft: Draft,
    problems: Problems,
    variables: Mapping[str, str] | None,
) -> Config | None:
    """The same configuration with the tables of the policy that is tried."""
    assert draft.switchback is not None
    policy = file.parent / draft.switchback.policy
    try:
        other = policy_tables(policy)
    except ConfigError as error:
        problems.found += error.problems
        return None
    found = Problems(f"{file} with {policy}")
    # Of a candidate nothing is tried.
    without = {name: table for name, table in tables.items() if name != "switchback"}
    config = checked(without | other, file, found, variables)
    if config is not None:
        check_candidate(draft, config, found)
    problems.found += found.found
    return config


def read(path: str, absent: str = "name the file") -> str:
    """The text of the file at `path`; ConfigError says why there is none. `absent` is what to do where it is not
    there."""
    if not path or "\0" in path:
        raise _refuse(path, "this is not the name of a file", "name the file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise _refuse(path, "there is no such file", absent) from None
    except IsADirectoryError:
        raise _refuse(path, "this is a folder", "name a file in it") from None
    except PermissionError:
        raise _refuse(path, "it cannot be read by this user", f"chmod u+r {path}, or start as its owner") from None
    except OSError as error:
        raise _refuse(path, f"it cannot be read: {error.strerror}", "name a readable file") from None
    if len(content) > FILE_BYTES_MAX:
        raise _refuse(path, "it is larger than 1 MiB", "name a configuration file, which has a few KiB")
    if content.startswith(b"\xef\xbb\xbf"):
        raise _refuse(path, "it begins with a byte order mark", "save it as UTF-8 without BOM")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refuse(path, f"line {line} is not UTF-8", "save it as UTF-8") from None


def document(text: str, path: str) -> dict[str, Any]:
    """The tables in the text of that file; ConfigError names the line that is no TOML."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOTS_MAX:
            raise _refuse(
                path, f"line {number} has more than {DOTS_MAX} dots", "write it as tables, or as several lines"
            )
    try:
        tables = tomllib.loads(text)
        _whole(tables)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise _refuse(
            path, message[0].lower() + message[1:], "repair this line; https://toml.io shows the syntax"
        ) from None
    except RecursionError:
        raise _refuse(path, "it is nested too deeply", "tables are at most three deep here") from None
    except ValueError:
        raise _refuse(path, "it holds a number that is too long", "write numbers of a few digits") from None
    return tables


def _whole(value: object, depth: int = 0) -> None:
    """Raise ValueError for a number too long to be one, as tomllib does where it is not hexadecimal, and RecursionError
    for what is nested deeper than whoever reads it can follow."""
    if depth > _DEPTH_MAX:
        raise RecursionError
    if isinstance(value, int) and value.bit_length() > _WHOLE_BITS_MAX:
        raise ValueError
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _whole(inner, depth + 1)


def _refuse(path: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file=path, path="", message=message, remedy=remedy)])


def _sections(file: Path, tables: dict[str, Any], problems: Problems) -> Draft:
    """Turn each table into its type on its own, so that one broken table does not hide the next."""
    return Draft(
        file=file,
        gateway=convert(tables.get("gateway", {}), "gateway", GatewayTable, problems),
        policy=convert(tables.get("policy", {}), "policy", PolicyTable, problems),
        budget=convert(tables.get("budget", {}), "budget", BudgetTable, problems),
        switchback=convert(tables.get("switchback", {}), "switchback", SwitchbackTable, problems),
        trace=convert(tables.get("trace", {}), "trace", TraceTable, problems),
        classes=classes.read(tables, problems),
        rules=tuple(table for _, table in listed(tables, "rule", RuleTable, RULES_MAX, problems)),
        sites=named(tables, "site", SiteTable, problems),
        models=named(tables, "model", ModelTable, problems),
        endpoints=named(tables, "endpoint", EndpointTable, problems),
        written={key: names(tables, key) for key in _NAMED},
    )
