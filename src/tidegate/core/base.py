"""What is predicted of one request at one endpoint, before waiting and promises come in."""

from math import exp

import msgspec

from tidegate.core.latency import Sent


class Base(msgspec.Struct, gc=False):
    """What a request would take at an endpoint once it is sent; waiting for that is not in it.

    `first_s` and `tpot_s` are medians with the spread of their logarithms: promises are judged at quantiles, at
    `deviations`. What ends in `mean` is for schedules, which add up. `ttft` and `tpot` are what its end will teach by.
    Reports of others in the same engine have some `trust`; as far as they say nothing, these `stretch` the first.
    """

    network_s: float
    queue_s: float
    prefill_s: float
    prefill_s_mean: float
    first_s: float
    sigma: float
    deviations: float
    tpot_s: float
    tpot_sigma: float
    decode_s: float
    decode_s_mean: float
    output_tokens: float
    cost_usd: float
    ttft: Sent
    tpot: Sent
    trust: float = 1.0
    gain: float = 1.0
    stretch: float = 1.0

    @property
    def first_s_high(self) -> float:
        """The calibrated upper quantile of the time to first content."""
        return self.first_s * exp(self.deviations * self.sigma)

    @property
    def first_s_mean(self) -> float:
        """The expected time to first content."""
        return self.network_s + self.queue_s + self.prefill_s_mean

    @property
    def occupies_s(self) -> float:
        """The expected time in a slot."""
        return self.network_s + self.queue_s + self.prefill_s_mean + self.decode_s_mean
