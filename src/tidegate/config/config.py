"""A configuration that was read and found consistent."""

from pathlib import Path

import msgspec

from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.rule import RuleTable
from tidegate.config.schema import BudgetTable, ClassTable, GatewayTable, PolicyTable, SiteTable, SwitchbackTable
from tidegate.config.secret import Secret
from tidegate.config.trace import TraceTable


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The file's tables, and the secrets: by endpoint, the admin's, that of tickets, and that of traces. Relative paths
    start at the file's folder. `authorities` are digests of what stands in `tls_ca_file`, by endpoint.

    `revision` is that of the text that was read: of the file, or what was generated where there is none.
    `candidate` is the same with the policy that is tried by turns with this one; None where none is.
    """

    file: Path
    revision: str = ""
    gateway: GatewayTable
    policy: PolicyTable
    budget: BudgetTable
    switchback: SwitchbackTable
    trace: TraceTable = TraceTable()
    classes: dict[str, ClassTable]
    rules: tuple[RuleTable, ...]
    sites: dict[str, SiteTable]
    models: dict[str, ModelTable]
    endpoints: dict[str, EndpointTable]
    secrets: dict[str, Secret]
    authorities: dict[str, str]
    admin_key: Secret | None
    ticket_secret: Secret | None = None
    trace_secret: Secret | None = None
    candidate: "Config | None" = None
