"""What remote prefill is measured in. Written down before anything was tuned on it.

The cluster and the lengths are those of the case study in Prefill-as-a-Service (arXiv 2604.15039, section 4). Its local
instances have no published profile: how much slower they are is inferred from three of its own results (`SLOWDOWN`), so
that reproducing these with it is partly circular.
"""

import json
import os
from enum import StrEnum
from pathlib import Path

import msgspec

from tidegate.core.throughput import Bin, Curve, Model, Pools, log_normal

SEEDS, HOLDOUT_SEEDS = (1, 2, 3, 4, 5, 6), (1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007)
"""Nothing is looked at with the latter before all is done."""

MU, SIGMA, LEAST, MOST = 9.9, 1.0, 128.0, 131_072.0
"""Of the logarithm of prompt tokens, and where lengths are cut off."""
BINS = 400
REMOTE, NODES = 4, 8
"""Instances: remote ones prefill, local nodes prefill or decode."""
SLOTS, TOKENS_PER_S, OUTPUT_TOKENS = 20, 40.0, 1024
"""An instance decodes 0.782 requests a second in the paper, of so many tokens at that speed: that is twenty at once."""
THRESHOLD = 19_400.0
"""The paper's."""
SLOWDOWN = Curve(((10_200.0, 2.25), (27_500.0, 2.67), (62_000.0, 2.77)))
"""How much longer a local instance takes. Before the first and beyond the last it stays the same."""

LINKS_GBPS = (100.0, 25.0, 8.0, 4.0, 2.0, 1.0)
OVERLAP, LAYERS = 0.8, 60
"""A cache can cross during the last four fifths of being computed, and but for its last layer."""
REQUESTS, WARM = 5_000, 500
"""Of a run, and those of them that come first and are not looked at."""
BOUNDS_S = (10.0, 20.0, 40.0)
"""Of the 90th percentile of time to first token. No fraction of what a rule has to serve may be given up for it, so
the 99th has to be within `TAIL` times as long; both are told, with and without that."""
TAIL = 3.0
SHARES = (0.7, 0.8, 0.9, 1.0, 1.1)
"""Of the fluid model's random split and of its threshold: where the best ones in hindsight are sought."""
GATES_S = (5.0, 15.0, 45.0)
"""Of remote prefill and link: a threshold holds where what waits there is shorter (Dynamo)."""
DRIFTS = (0.3, 1.0, 3.0)
"""How much a prompt's own seconds weigh where queues are prices; added after the rest, with what it is held against."""

CHANGES_GBPS = (100.0, 4.0, 25.0, 2.0)
PHASE_S, SETTLE_S = 1_800.0, 60.0
"""How long each of them lasts, and from when on it is looked at."""
CHANGES_PREFILL = 3
"""Of the local nodes: the paper's split, with which no link leaves the rest to decoding."""
NEAR, AT_ONCE = 0.95, 64
"""Near saturation: a share of what the fluid model can serve in that phase. Saturating: as many always wait."""
STATIC = 9
"""Thresholds and random splits that are tried, from the best of the slowest link to that of the fastest."""
REVERSAL = 0.25
"""A threshold has turned round where it has come back by more than this from the farthest that it was since it turned
last. Looked at each second, of the threshold that prices alone make."""


class Load(StrEnum):
    """How many ask where the link changes."""

    NEAR = "near saturation"
    SATURATING = "saturating"


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """What was published."""

    remote_s: Curve
    kv_bytes: Curve
    decode_per_s: float
    table6: dict[str, dict[str, float]]
    share: float
    egress_gbps: float
    tokens_sent: float
    recomputed: tuple[tuple[float, ...], ...]
    kv_gbps: dict[str, float]


def paper() -> Paper:
    """From the folder that TIDEGATE_DATA names."""
    found = json.loads((Path(os.environ["TIDEGATE_DATA"]) / "perf" / "prfaas.json").read_text())
    rows, table6 = found["table5_8xH200"], found["table6"]
    names = ("prfaas_pd", "homogeneous", "naive_heterogeneous")
    return Paper(
        remote_s=Curve(tuple((float(row["tokens"]), row["prefill_s"]) for row in rows)),
        kv_bytes=Curve(tuple((float(row["tokens"]), row["kv_mib"] * 2**20) for row in rows)),
        decode_per_s=found["decode_req_per_s_per_instance"],
        table6={name: {key: x for key, x in table6[name].items() if isinstance(x, float)} for name in names},
        share=table6["offload_share"],
        egress_gbps=float(table6["egress_gbps"]),
        tokens_sent=float(table6["mean_tokens_offloaded"]),
        recomputed=tuple(tuple(map(float, row)) for row in found["recomputed_with_inferred_h20"]["rows"]),
        kv_gbps=found["kv_gbps_at_32k_8xH200"],
    )


def model(published: Paper) -> Model:
    """What prompts take: as published there, and with the inferred slowdown here."""
    ends = SLOWDOWN.points[0][0], SLOWDOWN.points[-1][0]
    knots = {tokens for tokens, _ in published.remote_s.points + SLOWDOWN.points}
    # Between knots the product of two lines is none, so there are more.
    knots |= {LEAST * (MOST / LEAST) ** (i / 64) for i in range(65)}
    local_s = [
        (tokens, published.remote_s.at(tokens) * SLOWDOWN.at(min(max(tokens, ends[0]), ends[1])))
        for tokens in sorted(knots)
    ]
    return Model(local_s=Curve(tuple(local_s)), remote_s=published.remote_s, kv_bytes=published.kv_bytes)


def lengths() -> tuple[Bin, ...]:
    """The paper's."""
    return log_normal(MU, SIGMA, LEAST, MOST, BINS)


def pools(published: Paper, link_gbps: float, prefill: int) -> Pools:
    """With so many local nodes for prefill."""
    return Pools(
        remote=float(REMOTE),
        prefill=float(prefill),
        decode=float(NODES - prefill),
        decode_per_s=published.decode_per_s,
        link_bytes_per_s=link_gbps * 1e9 / 8.0,
    )
