"""The reference page of scenarios, made from their schema: it cannot tell anything else than the program does."""

from collections.abc import Iterable, Sequence

from tidegate.config import expected
from tidegate.config.reference import section
from tidegate.config.table import Table
from tidegate.core import facts
from tidegate.core.baseline import BASELINES
from tidegate.sim import api, engines, fitted, network
from tidegate.sim.checks import AGENTS
from tidegate.sim.endpoint import (
    ApiTable,
    CacheTable,
    CarrierTable,
    EngineTable,
    HardwareTable,
    LinearTable,
    LinkTable,
    PlaceTable,
    SpreadTable,
    StepTable,
)
from tidegate.sim.schema import FAULT_TEXT, BoundsTable, FaultTable, SizeTable, TrafficTable, WorldTable

TABLES: tuple[tuple[str, type[Table]], ...] = (
    ("[world]", WorldTable),
    ("[world.endpoint.NAME]", PlaceTable),
    ("engine = { ... } in [world.endpoint.NAME]", EngineTable),
    ("step = { ... } in engine", StepTable),
    ("linear = { ... } in step", LinearTable),
    ("hardware = { ... } in [world.endpoint.NAME]", HardwareTable),
    ("api = { ... } in [world.endpoint.NAME]", ApiTable),
    ("ttft_spread = { ... } and tpot_spread = { ... } in api", SpreadTable),
    ("cache = { ... } in api", CacheTable),
    ("link = { ... } in [world.endpoint.NAME]", LinkTable),
    ("[[world.endpoint.NAME.handover]]", CarrierTable),
    ("[[traffic]]", TrafficTable),
    ("prompt_tokens = { ... } and other sizes in [[traffic]]", SizeTable),
    ("[[fault]]", FaultTable),
    ("[bounds] and [bounds.class.NAME]", BoundsTable),
)

EXAMPLE = """\
[world]
duration_s = 300

[world.endpoint.mine]                # what really stands there
engine = "laptop-8b"

[world.endpoint.theirs]
api = "llmperf-2023-together"
link = "home-broadband"

[site.home]
local = true

[site.cloud]
local = false

[endpoint.mine]                      # and what the router is told of it
site = "home"
engine = "llamacpp"
serves = ["assistant"]
context_tokens = 16384
concurrency = 2

[endpoint.theirs]
site = "cloud"
engine = "openai"
serves = ["assistant"]
context_tokens = 32768
price = { usd_per_1m_input_tokens = 0.9, usd_per_1m_output_tokens = 0.9 }

[[traffic]]
model = "assistant"
rate_per_s = 0.2
prompt_tokens = { median = 350, sigma = 0.8, most = 6000 }
output_tokens = 150

[[fault]]
kind = "crash"
endpoint = "mine"
at_s = 120
for_s = 60

[bounds]
attainment_min = 0.9
"""

_OPTIONS = """\
- `--trace FILE --trace-format FORMAT`: a public trace, as it is, in place of the traffic: Azure's LLM inference traces
  (`azure`), Mooncake's (`mooncake`) or kv-cache-tester's (`kvct`). Its requests ask for the model of the first
  `[[traffic]]`, and are of the classes of all.
- `--policy FILE`: a file with `[policy]`, `[class]` and `[[rule]]`, in place of those of the scenario.
- `--policy BASELINE`: a simple rule in place of the router's decisions, as below.
- `--seed N`: another seed of the world.
- `--json [FILE]`: every figure, as JSON: into the file, or printed.
- `--html FILE`: the same as one page with plots, which loads nothing.
- `--journal FOLDER`: the journal, for `tidegate explain` and `tidegate replay`, into a folder that has none. It has its
  name once it is whole: what a run that is killed leaves, `journal.part`, is overwritten by the next.
"""

_INTRODUCTION = f"""\
<!-- Made by `make docs` from the schema; a test compares it. Edit the schema. -->
# Scenarios

`tidegate simulate FILE` plays a scenario: the real decisions and flights, before simulated engines, APIs, networks and
clients, in simulated time. A scenario is one TOML file. The tables `[site]`, `[endpoint]`, `[model]`, `[class]`,
`[[rule]]`, `[policy]` and `[budget]` are those of a [configuration](configuration.md), but that nobody is reached:
`url` and keys may be left out, and no key is looked up. What they say is what the router believes; what is true stands
in the tables below, and the two may differ. `[gateway]` has no place here.

```toml
{EXAMPLE}```

An unknown setting is an error, and so is every contradiction; all are reported at once, each with what to do about it.
[scenarios/](../../scenarios) holds some.

{_OPTIONS}
The same file and seed give the same journal to the byte. The exit status is 0 where all bounds hold, 1 where one is
broken, and 2 where something is wrong with what was asked.
"""

_FIGURES = """\
## Figures

`kept` are requests whose whole promise was kept: answered, and each axis of the promise in time. Attainment is their
share of all that were asked, refusals and failures included; goodput is how many of them there are each second, and
their output tokens. A percentile is the least value that so many per cent do not exceed; times are those of requests
that were served, from their arrival. Dollars are what is paid to others, of every attempt, and what running one's own
engines costs while they are in use; those of loads for nobody in particular are in the figures of all, and of no class.
In the table of endpoints, `flying` is the mean number of attempts under way, `slots` its share of the `concurrency`,
`busy` the share of the time for which the engine computed, `prefix` the share of prompt tokens that came from its
cache, and `off` the factor by which predicted and actual time to first content differ. Rates are over the scenario's
duration, or until the last request is over where that is later.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [_INTRODUCTION, *(section(title, table, _otherwise(table)) for title, table in TABLES)]
    return "\n".join([*parts, _faults(), _presets(), _baselines(), _FIGURES])


def _otherwise(table: type[Table]) -> dict[str, str]:
    """Where there is a preset, what is left out is as in it."""
    names = [field.encode_name for field in expected.fields(table)]
    return dict.fromkeys(names, "the preset's") | {"preset": "none"} if names[0] == "preset" else {}


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([f"## {title}", "", *head, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _faults() -> str:
    return _table("Kinds of faults", ("kind", "meaning"), ((f"`{k.value}`", text) for k, text in FAULT_TEXT.items()))


def _presets() -> str:
    rows: list[tuple[str, list[str]]] = [
        ("`engine`", list(engines.PRESETS)),
        ("`api`", list(api.PRESETS)),
        ("`link`", list(network.PRESETS)),
        ("`model` of `hardware`", list(facts.MODELS)),
        ("`accelerator` of `hardware`", list(facts.ACCELERATORS)),
        ("`preset` of `[[traffic]]`", [*fitted.PRESETS, AGENTS]),
    ]
    said = ((where, ", ".join(f"`{name}`" for name in sorted(names))) for where, names in rows)
    return _table("What has a name", ("of", "names"), said)


def _baselines() -> str:
    rows = []
    for name, rule in BASELINES.items():
        text = (rule.__doc__ or "").strip().rstrip(".")
        rows.append((f"`{name}`", text[0].lower() + text[1:]))
    title = _table("Baselines", ("rule", "where a request goes"), rows)
    return title + "\nHard rules hold for them too. What a rule has no room for waits, the first come first.\n"
