"""What is predicted of one request at one endpoint, before waiting and promises come in."""

from math import exp

import msgspec

from tidegate.core.length import Length


class Base(msgspec.Struct, gc=False):
    """What a request would take at an endpoint once it is sent; waiting for that is not in it.

    `first_s`, `tpot_s` and `decode_s` are medians: promises are judged at quantiles, by the spread of logarithms. What
    ends in `mean` is for schedules, which add up. `raw_s` and `tpot_raw_s` are what the learned corrections multiply.
    `length` is what is believed of the output.
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
    length: Length
    cost_usd: float

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
