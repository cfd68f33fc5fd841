"""What is predicted of one request at one endpoint, before waiting and promises come in."""

from math import exp

import msgspec


class Beside(msgspec.Struct, frozen=True, gc=False):
    """What others in the same engine were predicted to add, so that what they do add can be learned.

    To the time to first content `first_s`, each that waits `unit_s` of it, and `token_s` to the time per token: that is
    before any gain. All that was `added` for them comes on top of what both would be `alone`, of which `factor` is the
    correction of the first.
    """

    unit_s: float
    factor: float
    first_s: float
    first_added_s: float
    first_alone_s: float
    token_s: float
    token_added_s: float
    token_alone_s: float


class Base(msgspec.Struct, gc=False):
    """What a request would take at an endpoint once it is sent; waiting for that is not in it.

    `first_s` and `tpot_s` are medians with the spread of their logarithms: promises are judged at quantiles. What
    ends in `mean` is for schedules, which add up. `raw_s` and `tpot_raw_s` are what the learned corrections multiply.
    `beside`: others use the engine, too.
    """

    network_s: float
    queue_s: float
    prefill_s: float
    prefill_s_mean: float
    raw_s: float
    first_s: float
    sigma: float
    deviations: float
    tpot_s: float
    tpot_raw_s: float
    tpot_sigma: float
    decode_s: float
    decode_s_mean: float
    output_tokens: float
    cost_usd: float
    beside: Beside | None = None

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
