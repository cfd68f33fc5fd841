"""The files that a configuration names: what one part of the gateway writes is nobody else's."""

import os
from collections.abc import Iterator
from pathlib import Path

from tidegate.config.draft import Draft
from tidegate.config.problem import Problems, join
from tidegate.config.schema import GatewayTable

STATE_FILE = "learned.sqlite"
_STDERR = "-"


def log(gateway: GatewayTable, folder: Path) -> Path | None:
    """Where log lines go, None for stderr; `folder` is the configuration's."""
    return None if gateway.log == _STDERR else folder / gateway.log


def state(gateway: GatewayTable, folder: Path) -> Path | None:
    """The file of what was learned, None where there is none; `folder` is the configuration's."""
    if gateway.state is not None:
        return folder / gateway.state if gateway.state else None
    return (folder / gateway.journal).parent / STATE_FILE if gateway.journal else None


def check(draft: Draft, problems: Problems) -> None:
    """Note what is written where something else is, or is read: one would destroy the other."""
    taken = {os.path.realpath(draft.file): "this is the configuration"}
    for setting, file in _read(draft):
        # What is only read may be named twice: a certificate and its key often stand in one file.
        taken.setdefault(os.path.realpath(file), f"`{setting}` names it, too")
    for setting, file, remedy in _written(draft):
        real = os.path.realpath(file)
        if real in taken:
            problems.add(setting, taken[real], remedy)
        taken.setdefault(real, f"`{setting}` names it, too")


def _written(draft: Draft) -> Iterator[tuple[str, Path, str]]:
    """The setting of each file, or folder, that is written, where it is, and what else to write there."""
    gateway, folder = draft.gateway, draft.folder
    found: list[tuple[str, Path | None, str]] = []
    if gateway is not None:
        found += [
            ("gateway.journal", folder / gateway.journal if gateway.journal else None, "journal"),
            ("gateway.keys", folder / gateway.keys if gateway.keys else None, "keys.db"),
            ("gateway.state", state(gateway, folder), STATE_FILE),
        ]
    if draft.budget is not None:
        found.append(("budget.ledger", folder / draft.budget.ledger, "ledger.db"))
    if draft.switchback is not None:
        found.append(("switchback.file", folder / draft.switchback.file, "switchback.json"))
    if gateway is not None:
        found.append(("gateway.log", log(gateway, folder), "gateway.log"))
    for setting, file, usual in found:
        if file is not None and _is_name(str(file)):
            yield setting, file, f"name one that is nothing else, as in {usual}"


def _read(draft: Draft) -> Iterator[tuple[str, Path]]:
    """The setting of each file that is only read, and where it is."""
    found: list[tuple[str, str]] = []
    if (gateway := draft.gateway) is not None:
        if gateway.admin_key is not None:
            found.append(("gateway.admin_key.file", gateway.admin_key.file))
        if gateway.tls is not None:
            found += [("gateway.tls.cert", gateway.tls.cert), ("gateway.tls.key", gateway.tls.key)]
        if (couriers := gateway.couriers) is not None:
            found.append(("gateway.couriers.secret.file", couriers.secret.file))
            found += [(f"gateway.couriers.tls.{key}", getattr(couriers.tls, key)) for key in ("cert", "key", "ca")]
    if draft.switchback is not None:
        found.append(("switchback.policy", draft.switchback.policy))
    if draft.trace is not None and draft.trace.authorization is not None:
        found.append(("trace.authorization.file", draft.trace.authorization.file))
    for name, endpoint in draft.endpoints.items():
        path = join("endpoint", name)
        found += [(f"{path}.{key}", getattr(endpoint, key)) for key in ("api_key_file", "tls_ca_file")]
    for setting, file in found:
        if file and _is_name(file):
            yield setting, draft.folder / file


def _is_name(file: str) -> bool:
    """Whether it can be a file's name; what cannot is noted where it stands."""
    return "\0" not in file
