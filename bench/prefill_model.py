"""Throughputs of Prefill-as-a-Service (arXiv 2604.15039) by `core/throughput`, other links, and larger KV caches."""

from collections.abc import Callable, Sequence
from functools import cache

import msgspec

from bench import prefill_settings as settings
from bench.prefill_settings import Paper
from tidegate.core import throughput
from tidegate.core.throughput import Bin, Curve, Model, Pools, fluid, kv_bytes, offloaded, split, tokens_sent


class Row(msgspec.Struct, frozen=True):
    """A figure of the paper, and ours."""

    what: str
    published: float
    computed: float

    @property
    def off(self) -> float:
        """As a share of what was published."""
        return self.computed / self.published - 1.0


@cache
def paper() -> Paper:
    """What was published."""
    return settings.paper()


@cache
def model() -> Model:
    """With the slowdown that is inferred."""
    return settings.model(paper())


@cache
def bins() -> tuple[Bin, ...]:
    """The paper's lengths."""
    return settings.lengths()


def pools(link_gbps: float, prefill: int) -> Pools:
    """The paper's, with another link or split."""
    return settings.pools(paper(), link_gbps, prefill)


def table6() -> list[Row]:
    """The best threshold and split of our own, all remote, and twelve local nodes; beside what was published."""
    chosen = split(settings.NODES, pools(100.0, 3), lambda one: throughput.threshold(model(), bins(), one).per_s)
    ours = throughput.threshold(model(), bins(), chosen)
    at_theirs = throughput.beyond(model(), bins(), pools(100.0, 3), settings.THRESHOLD)
    all_away = throughput.everything(model(), bins(), pools(100.0, 0))
    nodes = 12
    homogeneous = split(nodes, pools(100.0, 3), lambda one: throughput.nothing(model(), bins(), one).per_s)
    alone = throughput.nothing(model(), bins(), homogeneous)
    share = offloaded(bins(), ours.shares)
    published = paper().table6
    best, naive, same = published["prfaas_pd"], published["naive_heterogeneous"], published["homogeneous"]
    rows = [
        Row("requests/s, best threshold", best["req_per_s"], ours.per_s),
        Row("requests/s, the paper's threshold", best["req_per_s"], at_theirs.per_s),
        Row("requests/s, all remote", naive["req_per_s"], all_away.per_s),
        Row("requests/s, twelve local nodes", same["req_per_s"], alone.per_s),
        Row("over all remote", best["req_per_s"] / naive["req_per_s"], ours.per_s / all_away.per_s),
        Row("over twelve local nodes", best["req_per_s"] / same["req_per_s"], ours.per_s / alone.per_s),
        Row("threshold, tokens", settings.THRESHOLD, shortest(ours.shares)),
        Row("local nodes that prefill", 3.0, chosen.prefill),
        Row("the same of twelve", 9.0, homogeneous.prefill),
        Row("remote prefill, requests/s", best["th_prfaas"], ours.remote_per_s * share),
        Row("local prefill, requests/s", best["th_pdp"], ours.prefill_per_s * (1.0 - share)),
        Row("decode, requests/s", best["th_pdd"], ours.decode_per_s),
        Row("share sent away", paper().share, share),
        Row("mean tokens of these", paper().tokens_sent, tokens_sent(bins(), ours.shares)),
        Row("egress, Gbit/s", paper().egress_gbps, 8e-9 * ours.per_s * kv_bytes(model(), bins(), ours.shares)),
    ]
    for name, known, flow in (
        ("best threshold", best, ours),
        ("all remote", naive, all_away),
        ("twelve local nodes", same, alone),
    ):
        mean_s, p90_s = throughput.ttft_s(model(), bins(), flow.shares)
        rows.append(Row(f"TTFT, mean s, {name}", known["ttft_mean_s"], mean_s))
        rows.append(Row(f"TTFT, p90 s, {name}", known["ttft_p90_s"], p90_s))
    return rows


def shortest(shares: Sequence[float]) -> float:
    """Of what is sent away."""
    return min(one.tokens for one, share in zip(bins(), shares, strict=True) if share > 0.0)


def links() -> dict[str, list[Row]]:
    """What the project's notes say of other links, and what the model does: best splits of local nodes for each."""
    found = {}
    for gbps, *known in paper().recomputed:
        start = pools(gbps, 3)
        ways: tuple[tuple[str, Callable[[Pools], float]], ...] = (
            ("naive", lambda one: throughput.everything(model(), bins(), one).per_s),
            ("best random split", lambda one: throughput.random_split(model(), bins(), one).per_s),
            ("best threshold", lambda one: throughput.threshold(model(), bins(), one).per_s),
            ("bound", lambda one: fluid(model(), bins(), one)[0]),
        )
        found[f"{gbps:g}"] = [
            Row(name, before, per_s(split(settings.NODES, start, per_s)))
            for (name, per_s), before in zip(ways, known, strict=True)
        ]
    return found


def dense() -> dict[str, list[float]]:
    """How much more eight local nodes serve with four remote instances, by link, where a model's KV cache is that of
    another one: bytes in proportion to tokens, and as many for a second of prefill at 32k tokens as were published."""
    length, found = 32_768.0, {}
    for name, gbps in sorted(paper().kv_gbps.items(), key=lambda one: one[1]):
        per_token = gbps * 1e9 / 8.0 * model().remote_s.at(length) / length
        other = msgspec.structs.replace(model(), kv_bytes=Curve(((0.0, 0.0), (length, per_token * length))))
        gains = []
        for link in settings.LINKS_GBPS:
            alone, both = (
                split(settings.NODES, start, rate)
                for start, rate in (
                    (pools(0.0, 3), _bound_of(other)),
                    (pools(link, 3), _bound_of(other)),
                )
            )
            gains.append(_bound_of(other)(both) / _bound_of(other)(alone) - 1.0)
        found[f"{name}, {gbps:g} Gbit/s"] = gains
    return found


def _bound_of(one: Model) -> Callable[[Pools], float]:
    return lambda tried: fluid(one, bins(), tried)[0]
