"""Paths that have learned: prompts of the lengths and times of a published case study, told once a second or so."""

from math import exp

from tidegate.core.offload import Path, Work, fresh
from tidegate.core.throughput import Curve, Pools
from tidegate.sim.chance import Chance

REMOTE_S = Curve(((1_024.0, 0.44), (8_192.0, 0.72), (32_768.0, 1.84), (131_072.0, 7.4)))
LOCAL_S = Curve(((1_024.0, 1.0), (8_192.0, 1.6), (32_768.0, 4.9), (131_072.0, 20.5)))
KV_BYTES = Curve(((1_024.0, 0.2e9), (131_072.0, 2.4e9)))
POOLS = Pools(remote=4.0, prefill=3.0, decode=5.0, decode_per_s=0.782, link_bytes_per_s=1e9)


def work(tokens: float) -> Work:
    """What a prompt takes."""
    return Work(LOCAL_S.at(tokens), REMOTE_S.at(tokens), KV_BYTES.at(tokens))


def learned(*, per_s: float, link_bytes_per_s: float, seed: int = 1, requests: int = 2_000) -> Path:
    """A path to which so many prompts came at this rate, over a link that does what was declared."""
    pools = Pools(remote=4.0, prefill=3.0, decode=5.0, decode_per_s=0.782, link_bytes_per_s=link_bytes_per_s)
    path, random = fresh(pools, 0.0), Chance(seed).at("path")
    for i in range(requests):
        tokens = min(max(exp(random.gauss(9.9, 1.0)), 128.0), 131_072.0)
        path.arrived(tokens, work(tokens), i / per_s)
        if i % 4 == 0:
            path.crossed(link_bytes_per_s, 1.0, i / per_s)
    path.settle(requests / per_s)
    return path


def shortest_sent(path: Path) -> float:
    """The length from which on prompts are sent where nothing waits anywhere, by prices alone."""
    lengths = [128.0 * 1.02**i for i in range(351)]
    return min(tokens for tokens in lengths if path.spares_s(work(tokens)) > 0.0)
