"""Who decides where prompts are prefilled: the simple rules, and ours. The simple ones know the link as it is first."""

from collections.abc import Sequence
from random import Random

from tidegate.core.offload import Backlog, Path, Work, fresh
from tidegate.core.throughput import Model, Pools


def work(model: Model, tokens: float) -> Work:
    """What a prompt takes."""
    return Work(model.local_s.at(tokens), model.remote_s.at(tokens), model.kv_bytes.at(tokens))


class Fixed:
    """A rule that learns nothing."""

    def crossed(self, kv_bytes: float, seconds: float, now_s: float) -> None:
        """See `Rule`."""


class Everything(Fixed):
    """All is sent away: heterogeneous prefill without a choice (naive, in the paper)."""

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:  # noqa: ARG002 # whatever it is
        """See `Rule`."""
        return True


class Chosen(Fixed):
    """Chance sends away this share."""

    def __init__(self, share: float, random: Random) -> None:
        self._share, self._random = share, random

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:  # noqa: ARG002 # whatever it is
        """See `Rule`."""
        return self._random.random() < self._share


class Longer(Fixed):
    """What is longer is sent away: the paper's rule."""

    def __init__(self, tokens: float) -> None:
        self._tokens = tokens

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:  # noqa: ARG002 # whatever waits
        """See `Rule`."""
        return tokens > self._tokens


class Gated(Fixed):
    """What is longer is sent away as long as no more waits there than this, for an instance and the link: Dynamo's."""

    def __init__(self, tokens: float, wait_s: float, link_bytes_per_s: float) -> None:
        self._tokens, self._wait_s, self._rate = tokens, wait_s, link_bytes_per_s

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:  # noqa: ARG002 # at any time
        """See `Rule`."""
        return tokens > self._tokens and backlog.remote_s + backlog.link_bytes / self._rate < self._wait_s


class Drifting(Fixed):
    """Queues as prices of what they wait for, beside `weight` times what a prompt gains where nothing waits (drift plus
    penalty, Neely 2010)."""

    def __init__(self, model: Model, pools: Pools, weight: float) -> None:
        self._model, self._pools, self._weight = model, pools, weight

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:  # noqa: ARG002 # at any time
        """See `Rule`."""
        one, pools = work(self._model, tokens), self._pools
        cross_s = one.kv_bytes / pools.link_bytes_per_s
        sooner_s = one.local_s - max(one.remote_s, cross_s)
        there = backlog.remote_s * one.remote_s / pools.remote
        across = backlog.link_bytes / pools.link_bytes_per_s * cross_s
        return self._weight * sooner_s + backlog.local_s * one.local_s / pools.prefill > there + across


class Ours:
    """The path's prices; or, without them, wherever the cache is here first (Mooncake, GORGO)."""

    def __init__(self, model: Model, pools: Pools, *, priced: bool = True) -> None:
        self.path: Path = fresh(pools, 0.0)
        self._model, self._priced = model, priced

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:
        """See `Rule`."""
        one = work(self._model, tokens)
        self.path.arrived(tokens, one, now_s)
        gain_s = self.path.gain_s if self._priced else self.path.sooner_s
        return gain_s(one, backlog, now_s) > 0.0

    def crossed(self, kv_bytes: float, seconds: float, now_s: float) -> None:
        """See `Rule`."""
        self.path.crossed(kv_bytes, seconds, now_s)


class Watched:
    """Another rule's decisions, with the length that its prices alone would send away, once a second."""

    def __init__(self, rule: Ours, model: Model, lengths: Sequence[float]) -> None:
        self._rule = rule
        self._works = [(tokens, work(model, tokens)) for tokens in lengths]
        self.thresholds: list[tuple[float, float]] = []

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:
        """See `Rule`."""
        chosen = self._rule.away(tokens, backlog, now_s)
        if not self.thresholds or now_s >= self.thresholds[-1][0] + 1.0:
            path = self._rule.path
            sent = [length for length, one in self._works if path.spares_s(one) > 0.0]
            self.thresholds.append((now_s, min(sent, default=self._works[-1][0])))
        return chosen

    def crossed(self, kv_bytes: float, seconds: float, now_s: float) -> None:
        """See `Rule`."""
        self._rule.crossed(kv_bytes, seconds, now_s)


def reversals(series: Sequence[float], beyond: float) -> int:
    """How often it has turned round: come back by more than this share from the farthest that it was."""
    found, direction, farthest = 0, 0, series[0]
    for one in series:
        if direction * (one - farthest) > 0.0:
            farthest = one
        elif one > farthest * (1.0 + beyond) or one < farthest / (1.0 + beyond):
            found += direction != 0
            direction, farthest = (1 if one > farthest else -1), one
    return found
