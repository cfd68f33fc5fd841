"""Requests of public traces with the lengths of their outputs, as the core sees them, for bench/length.py.

Of each request what `core.Request` and `core.Started` have: class, key, model, prompt tokens, session, prefix. No
trace has `output_tokens_max`. Sources (see SOURCES.md in the folder of data):

- Azure's code and conversation traces of 2023 (CC BY 4.0; Patel et al., Splitwise, ISCA 2024): no key, model, session.
- Mooncake's conversation trace (kvcache-ai/Mooncake, Apache-2.0): prefixes, in blocks of 512 tokens; no key or session.
- Sessions of coding agents (callanjfox/kv-cache-tester, Apache-2.0): sessions and models; no key. A session tells times
  from its beginning only: beginnings are spread evenly by chance over `AGENTS_SPAN_S`. Sessions that were recorded more
  than once count once.
- ServeGen (alibaba/ServeGen, Apache-2.0): clients are keys. It publishes no rows, but each client's rates in windows of
  ten minutes and quantiles of its lengths in windows of six hours: rows are drawn from these, prompt and output each
  for itself. So what a client's prompt tells of its output is lost here. Three models are one trace, a third of the
  rows each; the reasoning model, of one day, is a trace of its own. Clients without published lengths are left out.
"""

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple

from bench.fit_network import rows
from bench.fit_traffic import distinct_agents
from tidegate.core.classify import classify
from tidegate.core.model import Request
from tidegate.sim import traces

SEED = 1
AGENTS_SPAN_S = 3 * 86_400.0
SERVEGEN_ROWS = 10_000
SERVEGEN_MODELS = ("m-large", "m-mid", "m-small")
SERVEGEN_REASONING = ("deepseek-r1",)
WINDOW_S = 600.0
# When an output is known, where the trace does not tell: such outputs take half a second and 20 ms a token.
FIRST_S, TOKEN_S = 0.5, 0.02


class Row(NamedTuple):
    """One request, how long its output was, and when that was known."""

    request: Request
    output_tokens: int
    known_s: float


def all_traces() -> dict[str, list[Row]]:
    """Rows in the order of their arrival, by trace. Requests without output are left out: they failed."""
    made = {
        "azure code": _seen("azure-code", traces.azure(_path("AzureLLMInferenceTrace_code.csv.gz"))),
        "azure conv": _seen("azure-conv", traces.azure(_path("AzureLLMInferenceTrace_conv.csv.gz"))),
        "mooncake": _seen(
            "mooncake", traces.mooncake(_path("mooncake_conversation_trace.jsonl.gz"), Random(f"{SEED}|mooncake"), 0)
        ),
        "coding agents": _agents(),
        "servegen": _servegen(SERVEGEN_MODELS),
        "servegen reasoning": _servegen(SERVEGEN_REASONING),
    }
    return {name: sorted(found, key=lambda row: row.request.arrived_s) for name, found in made.items()}


def _path(name: str) -> Path:
    return Path(os.environ["TIDEGATE_DATA"]) / "requests" / name


def _row(
    number: int,
    at_s: float,
    model: str,
    prompt_tokens: int,
    output_tokens: int,
    *,
    key: str = "",
    session: str = "",
    prefix: tuple[int, ...] = (),
    known_s: float | None = None,
) -> Row:
    request = Request(
        id=str(number),
        arrived_s=at_s,
        model=model,
        klass=classify("interactive", prompt_tokens),
        prompt_tokens=prompt_tokens,
        prompt_bytes=4 * prompt_tokens,
        key=key,
        session=session,
        prefix=prefix,
    )
    taken_s = FIRST_S + TOKEN_S * output_tokens
    return Row(request, output_tokens, at_s + taken_s if known_s is None else known_s)


def _seen(model: str, seen: Iterator[traces.Seen]) -> list[Row]:
    return [
        # Of the last block of a prompt, which is not whole, the core has no digest.
        _row(number, one.at_s, model, one.prompt_tokens, one.output_tokens, prefix=_whole(one))
        for number, one in enumerate(seen)
        if one.output_tokens >= 1
    ]


def _whole(one: traces.Seen) -> tuple[int, ...]:
    return (one.blocks or ())[: one.prompt_tokens // traces.MOONCAKE_BLOCK_TOKENS]


def _agents() -> list[Row]:
    found: list[Row] = []
    begins = Random(f"{SEED}|agents")
    for agent in distinct_agents(_path("")):
        begun_s = AGENTS_SPAN_S * begins.random() - float(agent[0]["t"])
        session = f"{agent[0]['trace_id']} {agent[0]['agent']}"
        for turn in agent:
            if int(turn["out_tokens"]) >= 1:
                at_s, prompt_tokens = begun_s + float(turn["t"]), int(turn["in_tokens"])
                output_tokens, model = int(turn["out_tokens"]), turn["model"]
                known_s = at_s + float(turn["api_time"]) if turn["api_time"] else None
                found.append(
                    _row(len(found), at_s, model, prompt_tokens, output_tokens, session=session, known_s=known_s)
                )
    return found


def _servegen(models: tuple[str, ...]) -> list[Row]:
    lengths = _servegen_lengths()
    windows: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for row in rows("requests/servegen_clients_trace.csv.gz"):
        if (row["model"], row["client"], "output_tokens") in lengths:
            windows[row["model"]].append((row["client"], float(row["t"]), float(row["rate"])))
    found: list[Row] = []
    for model in models:
        draw = Random(f"{SEED}|servegen|{model}")
        upto = list(accumulate(rate for _, _, rate in windows[model]))
        for _ in range(SERVEGEN_ROWS):
            client, t, _ = windows[model][bisect_right(upto, draw.random() * upto[-1])]
            at_s = t + WINDOW_S * draw.random()
            prompt, output = (
                round(_drawn(lengths[model, client, field], at_s, draw.random()))
                for field in ("input_tokens", "output_tokens")
            )
            if output >= 1:
                found.append(_row(len(found), at_s, model, max(prompt, 1), output, key=f"{model} {client}"))
    return found


Knots = list[tuple[float, float]]
"""Shares and the lengths that so many are below."""


def _servegen_lengths() -> dict[tuple[str, str, str], list[tuple[float, Knots]]]:
    """By model, client and field: from when on, and the quantiles."""
    found: dict[tuple[str, str, str], list[tuple[float, Knots]]] = defaultdict(list)
    for row in rows("requests/servegen_clients_lenq.csv.gz"):
        if row["field"] in ("input_tokens", "output_tokens"):
            knots = sorted((float(name[1:]) / 100.0, float(row[name])) for name in row if name[0] == "q" and row[name])
            found[row["model"], row["client"], row["field"]].append((float(row["t0"]), knots))
    for tables in found.values():
        tables.sort()
    return found


def _drawn(tables: list[tuple[float, Knots]], at_s: float, share: float) -> float:
    """The length at that share, of the table in force."""
    _, knots = tables[max(0, bisect_right(tables, at_s, key=lambda table: table[0]) - 1)]
    place = min(max(1, bisect_right(knots, share, key=lambda knot: knot[0])), len(knots) - 1)
    (begun, low), (end, high) = knots[place - 1], knots[place]
    return low + (high - low) * (share - begun) / (end - begun)
