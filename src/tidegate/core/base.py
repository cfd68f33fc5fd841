"""What is predicted of one request at one endpoint, before waiting and promises come in."""

from collections.abc import Sequence
from math import exp, inf, log, sqrt
from typing import Final

from tidegate.core.cached import NOTHING, Cached, Prompt, spread
from tidegate.core.failing import NEVER, Failing
from tidegate.core.latency import Sent
from tidegate.core.mixture import CLOSE, Mixture, quantile_s
from tidegate.core.model import Prefix, Request, Started
from tidegate.core.output import Length

# Between the names of two endpoints it makes that of a handover; neither has it.
TO: Final = ">"


class Base:
    """What a request would take at an endpoint once it is sent; waiting for that is not in it.

    `first_s`, `tpot_s` and `decode_s` are medians with the spread of their logarithms: promises are judged at
    quantiles, at `deviations`. What ends in `mean` is for schedules, which add up. `ttft` and `tpot` are what its end
    will teach by, `length` is what is believed of its output. `cached` is what need not be computed of the prompt.
    `first_s` is with what is cached more likely than not, `sure_s` with what is nearly for sure; `sigma` is the spread
    of the longer of the two. `outcomes` are the times with as much as may be, each with its probability and its spread.
    Reports of others in the same engine have some `trust`, and what waits there counts `gain` times; as far as they say
    nothing, these `stretch` the first.

    With the chance `cold_share` the model has to be loaded first, which takes `load_s` in the median; then nothing is
    cached. That is in `first_s` where it is likelier than not, and `warm_s` is without; `sure_s`, `outcomes`, `sigma`
    and `deviations` are those of a model that is there. `e2e_stretch` is by how much more than its parts say the whole
    scatters, as far as answers have shown it. Its prompt keeps the engine busy for `prompt_s`, and others wait for it.
    Operators' rules make it worth `rule_usd` less here, which nobody pays. Of its `cost_usd`, `paid_usd` are paid to
    others, and so drawn on budgets. Of attempts there so many are `failing`, whatever they take.

    No record but a class, which nobody encodes: where this is compiled, its numbers are read as they are.
    """

    __slots__ = (
        "cached",
        "cold_share",
        "cost_usd",
        "decode_s",
        "decode_s_mean",
        "deviations",
        "e2e_stretch",
        "failing",
        "first_s",
        "gain",
        "length",
        "load_s",
        "load_sigma",
        "network_s",
        "outcomes",
        "paid_usd",
        "prefill_s",
        "prefill_s_mean",
        "prompt_s",
        "queue_s",
        "rule_usd",
        "sigma",
        "stretch",
        "sure_s",
        "tpot",
        "tpot_s",
        "tpot_sigma",
        "trust",
        "ttft",
        "warm_s",
    )

    def __init__(
        self,
        network_s: float,
        queue_s: float,
        prefill_s: float,
        prefill_s_mean: float,
        first_s: float,
        sigma: float,
        deviations: float,
        tpot_s: float,
        tpot_sigma: float,
        decode_s: float,
        decode_s_mean: float,
        length: Length,
        cost_usd: float,
        ttft: Sent,
        tpot: Sent,
        trust: float = 1.0,
        gain: float = 1.0,
        stretch: float = 1.0,
        cached: Cached = NOTHING,
        sure_s: float = 0.0,
        outcomes: tuple[tuple[float, float, float], ...] = (),
        warm_s: float = 0.0,
        cold_share: float = 0.0,
        load_s: float = 0.0,
        load_sigma: float = 0.0,
        e2e_stretch: float = 1.0,
        prompt_s: float = 0.0,
        rule_usd: float = 0.0,
        paid_usd: float = 0.0,
        failing: Failing = NEVER,
    ) -> None:
        self.network_s = network_s
        self.queue_s = queue_s
        self.prefill_s = prefill_s
        self.prefill_s_mean = prefill_s_mean
        self.first_s = first_s
        self.sigma = sigma
        self.deviations = deviations
        self.tpot_s = tpot_s
        self.tpot_sigma = tpot_sigma
        self.decode_s = decode_s
        self.decode_s_mean = decode_s_mean
        self.length = length
        self.cost_usd = cost_usd
        self.ttft = ttft
        self.tpot = tpot
        self.trust = trust
        self.gain = gain
        self.stretch = stretch
        self.cached = cached
        self.sure_s = sure_s
        self.outcomes = outcomes
        self.warm_s = warm_s
        self.cold_share = cold_share
        self.load_s = load_s
        self.load_sigma = load_sigma
        self.e2e_stretch = e2e_stretch
        self.prompt_s = prompt_s
        self.rule_usd = rule_usd
        self.paid_usd = paid_usd
        self.failing = failing

    def copied(self) -> "Base":
        """One that can be changed."""
        return Base(
            self.network_s,
            self.queue_s,
            self.prefill_s,
            self.prefill_s_mean,
            self.first_s,
            self.sigma,
            self.deviations,
            self.tpot_s,
            self.tpot_sigma,
            self.decode_s,
            self.decode_s_mean,
            self.length,
            self.cost_usd,
            self.ttft,
            self.tpot,
            self.trust,
            self.gain,
            self.stretch,
            self.cached,
            self.sure_s,
            self.outcomes,
            self.warm_s,
            self.cold_share,
            self.load_s,
            self.load_sigma,
            self.e2e_stretch,
            self.prompt_s,
            self.rule_usd,
            self.paid_usd,
            self.failing,
        )

    @property
    def output_tokens(self) -> float:
        """The expected length of its output."""
        return self.length.expected_tokens

    @property
    def first_s_high(self) -> float:
        """The calibrated upper quantile of the time to first content."""
        if self.cold_share:
            warm_share = 1.0 - self.cold_share
            causes = [(after_s, warm_share * p, sigma) for after_s, p, sigma in self._warm()]
            mixture = self.mixture
            causes.append((mixture.cold_s, self.cold_share, mixture.cold_sigma))
            return quantile_s(causes, self.deviations)
        return self.warm_s_high if self.outcomes else self.first_s_safe

    @property
    def first_s_safe(self) -> float:
        """The same where no more is cached than is for sure: whoever waits is late more seldom so than at the quantile,
        and a promise is worth more than what waiting saves."""
        if self.cold_share:
            return self.mixture.quantile_s(self.deviations)
        first_s, sure_s = self.first_s, self.sure_s
        return (first_s if first_s > sure_s else sure_s) * exp(self.deviations * self.sigma)

    @property
    def warm_s_high(self) -> float:
        """The quantile for a model that is there."""
        if self.outcomes:
            return quantile_s(self._warm(), self.deviations)
        return max(self.warm_s, self.sure_s) * exp(self.deviations * self.sigma)

    @property
    def e2e_s_high(self) -> float:
        """The calibrated upper quantile of the time end to end, of a model that is there."""
        if self.outcomes:
            return quantile_s(self._whole(), self.deviations)
        first_s = max(self.warm_s, self.sure_s)
        return (first_s + self.decode_s) * exp(self.deviations * self.e2e_sigma(first_s, self.sigma))

    def _warm(self) -> Sequence[tuple[float, float, float]]:
        """What first content of a model that is there may take, the quickest first, each with its probability and
        spread."""
        if self.outcomes:
            return self.outcomes[::-1]
        return [(max(self.warm_s, self.sure_s), 1.0, self.sigma)]

    def _whole(self) -> Sequence[tuple[float, float, float]]:
        """The same of all of an answer."""
        decode_s = self.decode_s
        return [(first_s + decode_s, p, self.e2e_sigma(first_s, sigma)) for first_s, p, sigma in self._warm()]

    @property
    def rest_s_bounds(self) -> tuple[float, float]:
        """Between which lies what `e2e_s_high` is beyond `warm_s_high`, of several outcomes, where neither has to be
        found for that: each lies between the quantile of the quickest outcome and the largest of any."""
        deviations, decode_s = self.deviations, self.decode_s
        first = whole = 0.0
        first_most = whole_most = -inf
        # The last one is the quickest. What is found at a bound may be off by a rounding.
        for first_s, _, sigma in self.outcomes:
            first = log(first_s) + deviations * sigma
            whole = log(first_s + decode_s) + deviations * self.e2e_sigma(first_s, sigma)
            first_most, whole_most = max(first_most, first), max(whole_most, whole)
        return exp(whole - CLOSE) - exp(first_most + CLOSE), exp(whole_most + CLOSE) - exp(first - CLOSE)

    def e2e_sigma(self, first_s: float, sigma: float) -> float:
        """The spread of the logarithm of the time end to end, where the first content comes after `first_s`, give or
        take `sigma`."""
        first = first_s * sigma
        tpot, length = self.tpot_sigma, self.length.sigma
        rest_squared = self.decode_s * self.decode_s * (tpot * tpot + length * length)
        return self.e2e_stretch * sqrt(first * first + rest_squared) / (first_s + self.decode_s)

    @property
    def cold_s(self) -> float:
        """The median with a load in it, where there may be one; else without."""
        return max(self.warm_s, self.sure_s) + self.load_s if self.cold_share else self.first_s

    @property
    def first_s_mean(self) -> float:
        """The expected time to first content."""
        return self.network_s + self.queue_s + self.prefill_s_mean + self.load_s_mean

    @property
    def load_s_mean(self) -> float:
        """What loads add to it on average."""
        if not self.cold_share:
            return 0.0
        return self.cold_share * self.load_s * exp(self.load_sigma * self.load_sigma / 2.0)

    @property
    def mixture(self) -> Mixture:
        """What is promised of the time to first content, with and without a load."""
        return Mixture(max(self.warm_s, self.sure_s), self.sigma, self.cold_share, self.load_s, self.load_sigma)

    @property
    def occupies_s(self) -> float:
        """The expected time in a slot."""
        occupies_s = self.network_s + self.queue_s + self.prefill_s_mean + self.decode_s_mean
        return occupies_s + self.load_s_mean if self.cold_share else occupies_s


def has_come(shipped: str, endpoint: str) -> bool:
    """Whether the KV cache of a prompt that came by this handover, "" for none, is at this endpoint."""
    return shipped != "" and shipped.partition(TO)[2] == endpoint


def asked(request: Request | Started) -> Prompt:
    """Its prompt, as the beginnings of others know it."""
    prefix = request.prefix
    digests = spread(prefix) if isinstance(prefix, Prefix) else prefix or ()
    return Prompt(digests, request.prompt_tokens, request.prompt_bytes, request.preamble_bytes)
