"""The configuration file as one type, for editors that complete and check it as it is written."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.rule import RULES_MAX, RuleTable
from tidegate.config.schema import BudgetTable, ClassTable, GatewayTable, PolicyTable, SiteTable, SwitchbackTable
from tidegate.config.table import NAME, Table
from tidegate.config.trace import TraceTable

_Name = Annotated[str, Meta(pattern=NAME)]


class Document(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration of Tidegate. What `tidegate check` finds besides is what settings have to do with each other."""

    gateway: GatewayTable = GatewayTable()
    policy: PolicyTable = PolicyTable()
    budget: BudgetTable = BudgetTable()
    switchback: SwitchbackTable = SwitchbackTable()
    trace: TraceTable = TraceTable()
    classes: Annotated[dict[_Name, ClassTable], Meta(description="Classes of requests.")] = field(
        name="class", default_factory=dict
    )
    rules: Annotated[
        tuple[RuleTable, ...],
        Meta(max_length=RULES_MAX, description="Operators' rules, in the order in which they count."),
    ] = field(name="rule", default=())
    sites: Annotated[dict[_Name, SiteTable], Meta(description="Where engines stand.")] = field(
        name="site", default_factory=dict
    )
    models: Annotated[dict[str, ModelTable], Meta(description="The names that clients ask for.")] = field(
        name="model", default_factory=dict
    )
    endpoints: Annotated[dict[_Name, EndpointTable], Meta(description="Engines and APIs that serve them.")] = field(
        name="endpoint", default_factory=dict
    )


def json_schema() -> dict[str, Any]:
    """Its JSON schema, draft 2020-12."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Document)}
