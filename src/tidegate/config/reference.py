"""The reference page of the configuration, made from the schema: it cannot tell anything else than the program does."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from tidegate.config import expected
from tidegate.config.condition import DEPTH_MAX, FEATURES
from tidegate.config.defaults import Defaults, defaults
from tidegate.config.endpoint import EndpointTable, EngineKind, PriorTable
from tidegate.config.fingerprint import FingerprintTable
from tidegate.config.handover import CourierPlaceTable, HandoverTable
from tidegate.config.hardware import HardwareTable, ModelFactsTable
from tidegate.config.model import ModelTable
from tidegate.config.moment import Moment
from tidegate.config.price import PriceTable, RunningCostTable, TierTable
from tidegate.config.rule import RULES_MAX, RuleTable
from tidegate.config.schema import (
    CLASSES,
    WORTH_FACTOR_MAX,
    BudgetTable,
    ClassTable,
    CouriersTable,
    GatewayTable,
    PolicyTable,
    SiteTable,
    SloTable,
    SwitchbackTable,
)
from tidegate.config.table import MutualTlsTable, SecretTable, Table, TlsTable
from tidegate.config.trace import TraceTable

TABLES: tuple[tuple[str, type[Table]], ...] = (
    ("[gateway]", GatewayTable),
    ("admin_key = { ... } in [gateway], authorization = { ... } in [trace], secret = { ... } in couriers", SecretTable),
    ("tls = { ... } in [gateway]", TlsTable),
    ("couriers = { ... } in [gateway]", CouriersTable),
    ("tls = { ... } in couriers", MutualTlsTable),
    ("[policy]", PolicyTable),
    ("[budget]", BudgetTable),
    ("[switchback]", SwitchbackTable),
    ("[trace]", TraceTable),
    ("[class.NAME]", ClassTable),
    ("slo = { ... } in [class.NAME]", SloTable),
    ("[[rule]]", RuleTable),
    ("[site.NAME]", SiteTable),
    ("[model.NAME]", ModelTable),
    ("[endpoint.NAME]", EndpointTable),
    ("price = { ... } in [endpoint.NAME]", PriceTable),
    ("tiers = [{ ... }] in price", TierTable),
    ("running_cost = { ... } in [endpoint.NAME]", RunningCostTable),
    ("hardware = { ... } in [endpoint.NAME]", HardwareTable),
    ("model_facts = { ... } in [endpoint.NAME]", ModelFactsTable),
    ("prior = { ... } in [endpoint.NAME]", PriorTable),
    ("[[endpoint.NAME.handover]]", HandoverTable),
    ("courier = { ... } in [endpoint.NAME]", CourierPlaceTable),
    ("fingerprint = { ... } in [endpoint.NAME] and [model.NAME]", FingerprintTable),
)

ELSEWHERE = {
    "context_tokens": "by engine",
    "concurrency": "by engine",
    "shares_compute": "by engine",
    "capabilities": "by engine",
    "prior": "by engine",
    "owned": "by site",
    "price": "by site",
    "serves": "`model`",
    "output_tokens_max": "the window",
    "worth_factor_max": f"`{WORTH_FACTOR_MAX:g}` with `attainment`",
}
"""Settings whose default depends on others, and on which."""

_OTHERWISE = dict.fromkeys((field.name for field in expected.fields(PriorTable)), "by engine") | ELSEWHERE

INTRODUCTION = """\
<!-- Made by `make docs`; a test compares it with the schema. Edit the schema. -->
# Configuration

One TOML file. An unknown setting is an error, and so is every contradiction; all are reported at once, each with
what to do about it. Relative paths start at the folder of the file. Names of classes, sites and endpoints consist of
lower-case letters, digits, `.`, `_` and `-`, at most 64 characters; no site is called `local` or `anywhere`.

`[gateway]`, `[policy]`, `[budget]`, `[switchback]` and `[trace]` may be left out. At least one site and one
endpoint are needed:

```toml
[site.home]
local = true

[endpoint.mine]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:8080"
serves = ["smollm2"]
```
"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    parts += [section(title, table, _OTHERWISE) for title, table in TABLES]
    parts += [_classes(), _conditions(), _engines()]
    return "\n".join(parts)


def section(title: str, table: type[Table], otherwise: Mapping[str, str]) -> str:
    """A table of the file, with all its settings; `otherwise` are defaults that depend on others, by setting."""
    rows = [
        f"## `{title}`",
        "",
        *_paragraphs(table),
        "",
        "| setting | value | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for field in expected.fields(table):
        cells = (
            f"`{field.encode_name}`",
            expected.words(field.type),
            _default(field, otherwise),
            expected.description(field),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _paragraphs(table: type[Table]) -> list[str]:
    return [line.strip() for line in (table.__doc__ or "").strip().splitlines()]


def _default(field: inspect.Field, otherwise: Mapping[str, str]) -> str:
    value = expected.default(field)
    if value is msgspec.NODEFAULT:
        return "required"
    if field.name in otherwise:
        return otherwise[field.name]
    if value is None or value in ((), "", FingerprintTable()):
        return "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, Table):
        given = {key: v for key, v in msgspec.structs.asdict(value).items() if v is not None}
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in given.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, Moment):
        return f"{value.isoformat()}Z"
    if isinstance(value, float):
        return expected.number(value) if value >= 0.0001 or value == 0 else f"{value:.8f}".rstrip("0")
    return json.dumps(value)


def _classes() -> str:
    names = sorted(CLASSES, reverse=True)  # interactive first: it has the defaults of the table
    made = {name: msgspec.convert(CLASSES[name], ClassTable) for name in names}
    rows = [
        "## Classes that exist",
        "",
        "| | " + " | ".join(f"`{n}`" for n in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for field in expected.fields(ClassTable):
        values = [getattr(made[name], field.name) for name in names]
        cells = ["none" if value is None else f"`{_toml(value)}`" for value in values]
        rows.append(f"| `{field.name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


_CONDITIONS = f"""\
## What rules may ask for

At most {RULES_MAX} rules, each with a condition over what is observed of a request; nothing of its prompt's text is:

| feature | is | meaning |
| --- | --- | --- |
{{features}}

Features are compared with constants: numbers by `>`, `>=`, `<`, `<=`, `==`, `!=`, others by `==` and `!=`, each also
by `in` and `not in` with a list, as in `model in ["small", "large"]`; `"vision" in needs` asks whether that is needed.
What is true or false may stand alone. `and`, `or`, `not` and parentheses join them, {DEPTH_MAX} deep at most. A text
that a feature never is, as far as this file tells, is an error, like a feature that there is not.
"""


def _conditions() -> str:
    rows = [f"| `{name}` | {kind.value} | {meaning} |" for name, (kind, meaning) in FEATURES.items()]
    return _CONDITIONS.format(features="\n".join(rows))


def _engines() -> str:
    kinds = [
        ("`llamacpp`, local", defaults(EngineKind.LLAMACPP, local=True)),
        ("`ollama`, local", defaults(EngineKind.OLLAMA, local=True)),
        ("`vllm` and `sglang`, local", defaults(EngineKind.VLLM, local=True)),
        ("`openai`, local", defaults(EngineKind.OPENAI, local=True)),
        ("`openai`, remote", defaults(EngineKind.OPENAI, local=False)),
        ("`openai-responses`, remote", defaults(EngineKind.RESPONSES, local=False)),
        ("`anthropic`, remote", defaults(EngineKind.ANTHROPIC, local=False)),
        ("`fake`, local", defaults(EngineKind.FAKE, local=True)),
    ]
    head = "| | " + " | ".join(name for name, _ in kinds) + " |"
    rows = ["## What is taken for granted of an engine", "", head, "| --- |" + " --- |" * len(kinds)]
    columns = [_usual(usual) for _, usual in kinds]
    rows += [f"| `{key}` | " + " | ".join(column[key] for column in columns) + " |" for key in columns[0]]
    rows += ["", "Another site: as here, with the network of `openai`, remote.", ""]
    rows += [f"- {name}: {usual.reasons}" for name, usual in kinds]
    return "\n".join(rows) + "\n"


def _usual(usual: Defaults) -> dict[str, str]:
    """One column, in the units of the file."""
    prior = usual.prior
    half = prior.prefill_s_per_token / prior.prefill_s_per_token2 if prior.prefill_s_per_token2 else None
    return {
        "context_tokens": "required" if usual.context_tokens is None else str(usual.context_tokens),
        "concurrency": str(usual.concurrency),
        "shares_compute": _toml(usual.shares_compute),
        "capabilities": ", ".join(c.value for c in usual.capabilities),
        "prior.prefill_tokens_per_s": _round(1 / prior.prefill_s_per_token),
        "prior.prefill_half_speed_tokens": "none" if half is None else _round(half),
        "prior.decode_tokens_per_s": _round(1 / prior.decode_s_per_token),
        "prior.batch_slowdown": _round(prior.batch_slowdown),
        "prior.batch_fading": _round(prior.batch_fading),
        "prior.decode_context_tokens_per_s": "none",
        "prior.batch_tokens": "none" if prior.batch_tokens is None else str(prior.batch_tokens),
        "prior.overhead_ms": _round(prior.overhead_s * 1000),
        "prior.rtt_ms": _round(prior.rtt_s * 1000),
        "prior.upload_mbit_per_s": _round(prior.upload_bytes_per_s * 8 / 1e6),
        "prior.sigma": _round(prior.sigma),
        "prior.load_s": "by size",
        "prior.unload_after_s": "never" if prior.unload_after_s is None else _round(prior.unload_after_s),
    }


def _round(value: float) -> str:
    return f"{value:.6g}"
