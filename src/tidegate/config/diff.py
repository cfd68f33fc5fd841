"""What differs between two configurations, and what of it a running gateway can take over."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from tidegate.config.address import is_loopback, parse_address
from tidegate.config.config import Config
from tidegate.config.handovers import FETCHES
from tidegate.config.problem import join
from tidegate.config.secret import Secret
from tidegate.config.trace import TraceTable
from tidegate.core.model import Record

SECTIONS = {
    "gateway": "gateway",
    "policy": "policy",
    "budget": "budget",
    "switchback": "switchback",
    "trace": "trace",
    "class": "classes",
    "rule": "rules",
    "site": "sites",
    "model": "models",
    "endpoint": "endpoints",
}
"""The tables of the file, and where `Config` has them."""

# Sockets, files and memory that a running gateway has laid out: it takes these over at a restart.
_AT_RESTART = {
    "gateway": (
        "listen",
        "admin",
        "keys",
        "journal",
        "journal_segment_mib",
        "journal_total_mib",
        "journal_compress",
        "state",
        "state_s",
        "backtest_s",
        "dashboard",
        "body_mib_max",
        "log",
        "connections_max",
        "couriers",
    ),
    "budget": ("ledger",),
    "trace": TraceTable.__struct_fields__,
}
_SECRETS_AT_RESTART = ("gateway.couriers.secret", "trace.authorization")
_HIDDEN = "(a secret)"


class Change(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One setting that differs, as the file would have it; None is not there. Secrets only show that they differ.

    `at_restart`: a running gateway goes on with the one before.
    """

    path: str
    before: Any
    after: Any
    at_restart: bool = False


def tables(config: Config) -> dict[str, Any]:
    """All settings by table, with the defaults of what was left out, and without secrets."""
    found = {key: msgspec.to_builtins(getattr(config, field)) for key, field in SECTIONS.items()}
    # By name, like all others, and in their order.
    return found | {"rule": {table.pop("name"): table for table in found["rule"]}}


def taken_over(config: Config) -> dict[str, Any]:
    """The same without what waits for a restart: of a running gateway it may be another than in its file."""
    found = tables(config)
    for table, names in _AT_RESTART.items():
        found[table] = {name: value for name, value in found[table].items() if name not in names}
    return found


def diff(before: Config, after: Config) -> tuple[Change, ...]:
    """Every setting that differs, in the order of their paths."""
    kept = {join(table, name) for table, names in _AT_RESTART.items() for name in names} | {"gateway.tls"}
    if _would_lie_open(before, after):
        kept.add("gateway.admin_key")
    waiting = {name: join("endpoint", name, "handover") for name in _without_couriers(before, after)}
    kept.update(waiting.values())
    found = [
        Change(path=path, before=old, after=new, at_restart=path in kept or _is_within(path, kept))
        for path, old, new in _differences((), tables(before), tables(after))
    ]
    found += [
        Change(path=path, before=old, after=new)
        for path, old, new in _differences(("switchback", "candidate"), _tried(before), _tried(after))
    ]
    # Of an endpoint that is new the table is one difference, of which this waits.
    found += [
        Change(path=path, before=None, after=msgspec.to_builtins(after.endpoints[name].handover), at_restart=True)
        for name, path in waiting.items()
        if name not in before.endpoints
    ]
    order = [[table.name for table in config.rules] for config in (before, after)]
    if _common(*order) != _common(*reversed(order)):
        found.append(Change(path="rule", before=order[0], after=order[1]))
    secrets = [_secrets(config) for config in (before, after)]
    found += [
        Change(path=path, before=_HIDDEN, after=_HIDDEN, at_restart=path in _SECRETS_AT_RESTART)
        for path in secrets[0].keys() & secrets[1].keys()
        if secrets[0][path] != secrets[1][path]
    ]
    found += [
        Change(path=join("endpoint", name, "tls_ca_file"), before=f"sha256 {old}", after=f"sha256 {new}")
        for name, old, new in _renewed(before, after)
    ]
    return tuple(sorted(found, key=lambda change: change.path))


def _common(names: list[str], others: list[str]) -> list[str]:
    """Those that stand among the others, too, in their own order."""
    return [name for name in names if name in others]


def _secrets(config: Config) -> dict[str, Secret]:
    """All secrets that are there, by what each is called where it differs."""
    found = {
        "gateway.admin_key": config.admin_key,
        "gateway.couriers.secret": config.ticket_secret,
        "trace.authorization": config.trace_secret,
    } | {join("endpoint", name, "api_key"): secret for name, secret in config.secrets.items()}
    return {path: secret for path, secret in found.items() if secret is not None}


def _renewed(before: Config, after: Config) -> Iterator[tuple[str, str, str]]:
    """The endpoints whose file of certificates has the same name and something else in it, with both digests."""
    for name, new in after.authorities.items():
        old = before.authorities.get(name, new)
        if old != new and before.endpoints[name].tls_ca_file == after.endpoints[name].tls_ca_file:
            yield name, old, new


def _is_within(path: str, kept: Collection[str]) -> bool:
    """Whether it is a setting of a table that waits as a whole; certificates of one that stays are read again."""
    return any(path.startswith(f"{table}.") for table in kept if table != "gateway.tls")


def _tried(config: Config) -> dict[str, Any]:
    """What a candidate has that the file has not."""
    if config.candidate is None:
        return {}
    own, other = tables(config), tables(config.candidate)
    return {key: other[key] for key in ("policy", "class", "rule") if other[key] != own[key]}


def without_restart(running: Config, wanted: Config) -> Config:
    """`wanted`, as far as a gateway that runs with `running` can take it over."""
    kept = {
        key: msgspec.structs.replace(
            getattr(wanted, key), **{name: getattr(getattr(running, key), name) for name in names}
        )
        for key, names in _AT_RESTART.items()
    }
    if (running.gateway.tls is None) != (wanted.gateway.tls is None):
        kept["gateway"] = msgspec.structs.replace(kept["gateway"], tls=running.gateway.tls)
    admin_key = wanted.admin_key
    if _would_lie_open(running, wanted):
        admin_key = running.admin_key
        kept["gateway"] = msgspec.structs.replace(kept["gateway"], admin_key=running.gateway.admin_key)
    endpoints = wanted.endpoints | {
        name: msgspec.structs.replace(wanted.endpoints[name], handover=())
        for name in _without_couriers(running, wanted)
    }
    candidate = None if wanted.candidate is None else without_restart(running, wanted.candidate)
    return msgspec.structs.replace(
        wanted,
        **kept,
        endpoints=endpoints,
        admin_key=admin_key,
        ticket_secret=running.ticket_secret,
        trace_secret=running.trace_secret,
        candidate=candidate,
    )


def _without_couriers(running: Config, wanted: Config) -> list[str]:
    """The endpoints whose KV caches couriers would carry, where there are none until a restart."""
    if running.gateway.couriers is not None:
        return []
    return [name for name, table in wanted.endpoints.items() if table.handover and table.engine is not FETCHES]


def _would_lie_open(running: Config, wanted: Config) -> bool:
    """Whether the admin's secret goes while its address, which waits for a restart, is one that others reach."""
    return wanted.admin_key is None and not is_loopback(parse_address(running.gateway.admin).host)


def _differences(path: tuple[str, ...], before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from _differences((*path, key), before.get(key), after.get(key))
    elif before != after:
        yield join(*path), before, after
