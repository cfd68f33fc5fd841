"""Fits the traffic presets of `tidegate.sim.fitted` to public traces, and prints the constants for that file.

    TIDEGATE_DATA=FOLDER python -m bench.fit_traffic

Reads `requests/` in the folder. Tables are the empirical quantiles at `SHARES`, to four digits; correlations are
Spearman's, as normal scores. A test compares the file's constants with what this gives.
"""

import csv
import gzip
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from math import pi, sin
from pathlib import Path
from statistics import correlation, mean, pstdev
from textwrap import fill

from tidegate.sim.lengths import SHARES

Table = tuple[float, ...]
Constants = dict[str, Table | float]
# Clients of ServeGen's largest model that keep habits of their own; the rest, a third of the requests, is one crowd.
CLIENTS = 12
# Of shorter prompts of Mooncake's few take up an earlier one; of these it is 37 to 50 %, whatever their length.
RESUMED_TOKENS_MIN = 2048
# The usual window of the models in kv-cache-tester; a session with a prompt beyond it has a larger one.
WINDOW_TOKENS = 200_000
# The turns in which agents take in more than later: 10,000 tokens in the first, and less from turn to turn.
EARLY_TURNS = 5
# A prompt that is within this of the last one's size is as long as before.
SAME_SIZE = 0.1
# So many first requests tell sessions of agents apart.
SAME_TURNS = 3
# Of how many points each of ServeGen's tables is made, in the mixture of them all.
POINTS = 200


def constants(data: Path) -> Constants:
    """Every constant by the name it has in `fitted`."""
    requests = data / "requests"
    return azure(requests) | mooncake(requests) | coding_agents(requests) | servegen(requests) | burstgpt(requests)


def azure(requests: Path) -> Constants:
    """Lengths and gaps of the two Azure traces."""
    found: Constants = {}
    for name in ("code", "conv"):
        rows = list(_csv(requests / f"AzureLLMInferenceTrace_{name}.csv.gz"))
        # Hundreds of nanoseconds are more digits than Python's dates have.
        at_s = [
            datetime.fromisoformat(row["TIMESTAMP"][:19] + "+00:00").timestamp() + float("0" + row["TIMESTAMP"][19:])
            for row in rows
        ]
        gaps_s = [late - early for early, late in pairwise(at_s)]
        prompts, outputs = ([float(row[c]) for row in rows] for c in ("ContextTokens", "GeneratedTokens"))
        found |= {
            f"AZURE_{name.upper()}_RATE_PER_S": _digits(1.0 / mean(gaps_s)),
            f"AZURE_{name.upper()}_GAP_CV": _digits(pstdev(gaps_s) / mean(gaps_s)),
            f"AZURE_{name.upper()}_PROMPT_TOKENS": table(prompts),
            f"AZURE_{name.upper()}_OUTPUT_TOKENS": table(outputs),
        }
        if name == "code":
            found["AZURE_CODE_GAPS_S"] = table(gaps_s)
    return found


def mooncake(requests: Path) -> Constants:
    """Lengths, rate and reuse of Mooncake's conversations."""
    with gzip.open(requests / "mooncake_conversation_trace.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    prompts, outputs = [float(r["input_length"]) for r in rows], [float(r["output_length"]) for r in rows]
    seen: set[int] = set()
    resumed = []
    for row in rows:
        ids = row["hash_ids"]
        old = next((i for i, one in enumerate(ids) if one not in seen), len(ids))
        # All prompts but one have the first block in common; what shares more took up an earlier conversation.
        if old > 1 and row["input_length"] >= RESUMED_TOKENS_MIN:
            resumed.append(old / len(ids))
        seen.update(ids)
    return {
        "MOONCAKE_RATE_PER_S": _digits(len(rows) / (rows[-1]["timestamp"] / 1000 + 3)),
        "MOONCAKE_PROMPT_TOKENS": table(prompts),
        "MOONCAKE_OUTPUT_TOKENS": table(outputs),
        "MOONCAKE_CORRELATION": _copula(prompts, outputs),
        "MOONCAKE_RESUMED_SHARE": _digits(len(resumed) / sum(n >= RESUMED_TOKENS_MIN for n in prompts)),
        "MOONCAKE_RESUMED_PART": table(resumed),
    }


def coding_agents(requests: Path) -> Constants:
    """Sessions of kv-cache-tester: those that fit into the usual window, and the others."""
    agents = distinct_agents(requests)
    rows = [row for agent in agents for row in agent]
    usual: list[list[dict[str, str]]] = []
    large: list[list[dict[str, str]]] = []
    for agent in agents:
        (large if any(float(row["in_tokens"]) > WINDOW_TOKENS for row in agent) else usual).append(agent)
    return {
        "AGENTS_OUTPUT_TOKENS": table([float(row["out_tokens"]) for row in rows]),
        # The first turn of a session has nothing before it.
        "AGENTS_THINK_S": table([float(row["think_time"] or 0) for agent in agents for row in agent[1:]]),
        "AGENTS_USUAL_SHARE": _digits(len(usual) / len(agents)),
        **_sessions("AGENTS_USUAL", usual, compacts=True),
        **_sessions("AGENTS_LARGE", large, compacts=False),
    }


def distinct_agents(requests: Path) -> list[list[dict[str, str]]]:
    """The rows of each agent, once: some sessions were recorded several times, each time further.

    Sessions whose first requests agree in tokens of prompt and output are one, and the longest is all of it; without
    this one session of 234 turns is a tenth of the long prompts.
    """
    agents: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in _csv(requests / "kvct_agentic_requests.csv.gz"):
        agents[row["trace_id"], row["agent"]].append(row)
    longest: dict[tuple[tuple[str, str], ...], list[dict[str, str]]] = {}
    for rows in agents.values():
        begin = tuple((row["in_tokens"], row["out_tokens"]) for row in rows[:SAME_TURNS])
        if len(rows) > len(longest.get(begin, ())):
            longest[begin] = rows
    return list(longest.values())


def _sessions(name: str, agents: list[list[dict[str, str]]], *, compacts: bool) -> Constants:
    """First prompts, turns, growth, and how it ends: where the last prompt is not what the next one begins with."""
    new: list[float] = []
    early: list[float] = []
    resized: list[float] = []
    kept: list[float] = []
    compacted: list[float] = []
    steps = 0
    for rows in agents:
        for turn, (last, row) in enumerate(pairwise(rows), 1):
            steps += 1
            before, prompt = float(last["in_tokens"]), float(row["in_tokens"])
            # A tenth of the last prompt may go without a word: a reminder at its end that is not repeated.
            if float(row["prefix_prev_tokens"]) >= 0.9 * before:
                (early if turn <= EARLY_TURNS else new).append(max(prompt - before - float(last["out_tokens"]), 0.0))
            elif compacts and before > 0.6 * WINDOW_TOKENS and prompt < 0.6 * before:
                compacted.append(prompt)
            else:
                if abs(prompt / before - 1.0) > SAME_SIZE:
                    resized.append(prompt)
                kept.append(min(float(row["prefix_best6_tokens"]) / prompt, 1.0))
    first, turns = [float(rows[0]["in_tokens"]) for rows in agents], [float(len(rows)) for rows in agents]
    found: Constants = {f"{name}_COMPACTED_TOKENS": table(compacted)} if compacts else {}
    return found | {
        f"{name}_FIRST_TOKENS": table(first),
        f"{name}_TURNS": table(turns),
        f"{name}_CORRELATION": _copula(first, turns),
        f"{name}_NEW_TOKENS": table(new),
        f"{name}_EARLY_TOKENS": table(early),
        f"{name}_BREAK_SHARE": _digits(len(kept) / steps),
        f"{name}_BREAK_RESIZED_SHARE": _digits(len(resized) / len(kept)),
        f"{name}_BREAK_TOKENS": table(resized),
        f"{name}_BREAK_KEPT": table(kept),
    }


def servegen(requests: Path) -> Constants:
    """Clients of ServeGen's `m-large`: their shares and CVs, and the lengths of all requests together."""
    clients: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    end_s = 0.0
    for row in _csv(requests / "servegen_clients_trace.csv.gz"):
        if row["model"] == "m-large":
            clients[row["client"]].append((float(row["rate"]), float(row["cv"]), row["dist"]))
            end_s = max(end_s, float(row["t"]) + 600.0)
    rates = {client: sum(rate for rate, _, _ in windows) for client, windows in clients.items()}
    total = sum(rates.values())
    largest = sorted(rates, key=lambda client: -rates[client])[:CLIENTS]
    cvs = [sum(rate * cv for rate, cv, _ in clients[c]) / rates[c] for c in largest]
    found: Constants = {
        "SERVEGEN_RATE_PER_S": _digits(total * 600.0 / end_s),
        "SERVEGEN_SHARES": tuple(_digits(rates[c] / total) for c in largest),
        "SERVEGEN_CVS": tuple(_digits(cv) for cv in cvs),
        "SERVEGEN_WEIBULL": tuple(
            float(2 * sum(dist == "Weibull" for _, _, dist in clients[c]) > len(clients[c])) for c in largest
        ),
    }
    for field in ("input_tokens", "output_tokens"):
        points: list[tuple[float, float]] = []
        for row in _csv(requests / "servegen_clients_lenq.csv.gz"):
            if row["model"] == "m-large" and row["field"] == field:
                points += _points(row)
        found["SERVEGEN_PROMPT_TOKENS" if field == "input_tokens" else "SERVEGEN_OUTPUT_TOKENS"] = weighted(points)
    return found


def burstgpt(requests: Path) -> Constants:
    """Requests by the hour of the day, over BurstGPT's 61 days, relative to the mean."""
    hours = [0.0] * 24
    for row in _csv(requests / "burstgpt1_hourly_requests.csv.gz"):
        hours[int(float(row["t_hour_start_s"])) // 3600 % 24] += float(row["requests"])
    return {"BURSTGPT_HOURS": tuple(_digits(n / mean(hours)) for n in hours)}


def table(values: Sequence[float]) -> Table:
    """Empirical quantiles at `SHARES`, straight lines between the values."""
    ordered, last = sorted(values), len(values) - 1
    found = []
    for share in SHARES:
        i = min(int(share * last), last - 1)
        found.append(_digits(ordered[i] + (ordered[i + 1] - ordered[i]) * (share * last - i)))
    return tuple(found)


def weighted(points: list[tuple[float, float]]) -> Table:
    """Quantiles at `SHARES` of values with weights."""
    ordered = sorted(points)
    total = sum(weight for _, weight in ordered)
    found, passed, i = [], 0.0, 0
    for share in SHARES:
        while i < len(ordered) - 1 and passed + ordered[i][1] < share * total:
            passed += ordered[i][1]
            i += 1
        found.append(_digits(ordered[i][0]))
    return tuple(found)


def _points(row: dict[str, str]) -> Iterator[tuple[float, float]]:
    """Values of one of ServeGen's tables of quantiles, each with its part of the table's requests."""
    knots = sorted((float(name[1:]) / 100.0, float(row[name])) for name in row if name[0] == "q" and row[name])
    weight = float(row["req_weight"]) / POINTS
    k = 0
    for n in range(POINTS):
        share = (n + 0.5) / POINTS
        while knots[k + 1][0] < share:
            k += 1
        (begun, low), (end, high) = knots[k], knots[k + 1]
        yield low + (high - low) * (share - begun) / (end - begun), weight


def _copula(x: Sequence[float], y: Sequence[float]) -> float:
    """The correlation of normal scores that goes with the ranks'."""
    return round(2.0 * sin(pi / 6.0 * correlation(_ranks(x), _ranks(y))), 3)


def _ranks(values: Sequence[float]) -> list[float]:
    """Equal values have equal ranks, the middle of theirs."""
    places: dict[float, list[int]] = defaultdict(list)
    for place, value in enumerate(sorted(values)):
        places[value].append(place)
    return [mean((places[value][0], places[value][-1])) for value in values]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


def _literal(name: str, value: Table | float) -> str:
    if isinstance(value, float):
        return f"{name} = {value:g}"
    return fill(f"{name} = ({', '.join(f'{number:g}' for number in value)})", 120, subsequent_indent="    ")


def main() -> None:
    """Print them."""
    folder = os.environ.get("TIDEGATE_DATA")
    if not folder:
        sys.exit("TIDEGATE_DATA is not set; let it name the folder with the public traces in `requests/`.")
    for name, value in constants(Path(folder)).items():
        print(_literal(name, value))


if __name__ == "__main__":
    main()
