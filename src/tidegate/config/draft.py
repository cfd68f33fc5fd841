"""A configuration file whose tables are well-formed, before anybody has asked what they have to do with each other."""

from pathlib import Path

import msgspec

from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.rule import RuleTable
from tidegate.config.schema import BudgetTable, ClassTable, GatewayTable, PolicyTable, SiteTable, SwitchbackTable
from tidegate.config.trace import TraceTable


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """The well-formed tables of a file. `written` has all names that stand there, of broken tables too."""

    file: Path
    gateway: GatewayTable | None
    policy: PolicyTable | None
    budget: BudgetTable | None
    switchback: SwitchbackTable | None
    trace: TraceTable | None
    classes: dict[str, ClassTable]
    rules: tuple[RuleTable, ...]
    sites: dict[str, SiteTable]
    models: dict[str, ModelTable]
    endpoints: dict[str, EndpointTable]
    written: dict[str, set[str]]

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.file.parent
