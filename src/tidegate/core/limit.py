"""How many an endpoint is given at once: fewer where it refuses or becomes slow under them, and where it has only just
come back.

What is configured is what it may be given, and of somebody else's often a guess. A refusal tells that it was one too
many, so less than that is tried; each answer lets a little more in, and so the limit is found again and again from
below. Who is overloaded by others refuses some whatever we send: a refusal that does not speak of our quota says how
many are too many only where such refusals come with many under way, and hardly with few.

Where answers take twice as long as they were predicted to, that is a limit as well. Who comes back after an outage has
an empty cache and maybe half its machines: it begins with one, and each answer lets one more in, so that it doubles by
the round.
"""

from math import inf, log, pow
from typing import Final

import msgspec

# A refusal takes a tenth of what was under way: the next one is some answers off, and little is left unused.
FALL: Final = 0.9
# Of so many answers and refusals of late it is asked how many were under way with the refused ones. Of fewer than three
# refusals that is chance; with as many under way three times the share has to be refused that is with fewer, or four in
# five.
RECENT: Final = 200
DENIED_LEAST: Final = 3
CONTRAST: Final = 3.0
DENIED_MOST: Final = 0.8
# Twice as long as predicted, in the mean of about so many answers, is no chance.
STRAIN_MAX: Final = log(2.0)
STRAIN_RECENT: Final = 10.0
STRAIN_LEAST: Final = 5
# No single answer counts for more: one that hangs is a fault of its own.
STRAIN_EACH_MAX: Final = log(8.0)
# What was found holds for so long without another refusal; quotas and fleets change by the hour.
HALF_LIFE_S: Final = 600.0


class Limit(msgspec.Struct):
    """It is given `most` at once, and `ramp` while it comes back, which it did at `back_s`; 0 is no limit but what is
    configured. It is `away` while a probe has lost it.

    `strain` is the mean logarithm of how much longer than predicted `seen` answers took of late. What is told in one
    moment, `at_s`, counts when that is over: the fewest that were `refused` among for a quota, so many `answers` while
    it was busy, and so many that `came` back.

    `served` and `denied` are how many were under way with each answer of that moment, and with each refusal that was
    not for a quota; `recent` the same of those before, with refusals below zero.
    """

    most: float = 0.0
    ramp: float = 0.0
    strain: float = 0.0
    seen: float = 0.0
    at_s: float = 0.0
    back_s: float = 0.0
    away: bool = False
    refused: int = 0
    answers: int = 0
    came: int = 0
    strain_sum: float = 0.0
    strain_count: int = 0
    in_flight: int = 0
    served: list[int] = []
    denied: list[int] = []
    recent: list[int] = []

    def of(self, places: int) -> int:
        """How many of so many places are used, as far as is known now; at least one."""
        most = float(places)
        if self.most:
            most = min(most, self.most)
        if self.ramp:
            most = min(most, self.ramp + self.came)
        if self.refused or self.denied:
            most = _fallen(self, most)
        return max(1, int(most + 0.5))

    def refuse(self, in_flight: int, now_s: float, *, quota: bool) -> None:
        """One too many, of so many under way; or only unlucky, where it is not our `quota` that is used up."""
        self.at_s = max(self.at_s, now_s)
        if quota:
            self.refused = min(self.refused, in_flight) if self.refused else in_flight
        else:
            self.denied.append(in_flight)

    def came_back(self, in_flight: int, now_s: float) -> None:
        """An outage is over: it begins with one, beside those that were sent before and may never end."""
        self.at_s = self.back_s = max(self.at_s, now_s)
        self.ramp, self.came, self.away = 1.0 + in_flight, 0, False
        self.strain = self.seen = 0.0


# Every answer tells these: a function takes half as long as a method of a record does where this is compiled.
def answer(limit: Limit, in_flight: int, now_s: float) -> None:
    """It has served one, of so many under way."""
    limit.at_s = max(limit.at_s, now_s)
    limit.came += 1
    limit.served.append(in_flight)
    if limit.most and 2.0 * in_flight >= limit.most:
        limit.answers += 1


def took(limit: Limit, actual_s: float, predicted_s: float, in_flight: int, now_s: float) -> None:
    """First content came after so long, of so many under way."""
    limit.at_s = max(limit.at_s, now_s)
    limit.strain_sum += min(max(log(actual_s / predicted_s), -STRAIN_EACH_MAX), STRAIN_EACH_MAX)
    limit.strain_count += 1
    limit.in_flight = max(limit.in_flight, in_flight)


def settle(limit: Limit, places: int, now_s: float) -> None:
    """With a new moment, the one before is over. `places` are configured."""
    if now_s <= limit.at_s:
        return
    if limit.strain_count:
        kept = pow(1.0 - 1.0 / STRAIN_RECENT, float(limit.strain_count))
        limit.seen = kept * limit.seen + limit.strain_count
        limit.strain += (limit.strain_sum - limit.strain_count * limit.strain) / limit.seen
    if limit.ramp:
        limit.ramp += limit.came
        if limit.ramp >= (limit.most or places):
            limit.ramp = 0.0
    before = limit.most or float(places)
    if (limit.refused or limit.denied) and (fallen := _fallen(limit, before)) < before:
        limit.most = max(1.0, fallen)
    elif limit.strain > STRAIN_MAX and limit.seen >= STRAIN_LEAST and limit.in_flight > 1:
        limit.most = max(1.0, FALL * min(limit.most or places, limit.in_flight))
        limit.strain = limit.seen = 0.0
    elif limit.most and limit.answers:
        limit.most += limit.answers / limit.most
    if limit.most:
        # What is left of it grows towards what is configured, whoever asks.
        limit.most += (places - limit.most) * (1.0 - pow(0.5, (now_s - limit.at_s) / HALF_LIFE_S))
        if limit.most >= places - 0.5:
            limit.most = 0.0
    limit.refused = limit.answers = limit.came = limit.strain_count = limit.in_flight = 0
    limit.strain_sum = 0.0
    if limit.served or limit.denied:
        alone = len(limit.served) == 1 and not limit.denied  # as nearly always
        limit.recent += limit.served if alone else sorted([*limit.served, *(-one for one in limit.denied)])
        while len(limit.recent) > RECENT:
            del limit.recent[0]
        limit.served.clear()
        limit.denied.clear()
    limit.at_s = now_s


def _fallen(limit: Limit, most: float) -> float:
    """What is left of a limit after the refusals of this moment."""
    refused = [limit.refused] if limit.refused else []
    refused += [one for one in limit.denied if _is_too_many(limit, one)]
    return min([most, *(FALL * min(most, one - 1.0) for one in refused)])


def _is_too_many(limit: Limit, in_flight: int) -> bool:
    """Whether refusals come with so many under way or more, and not whatever is sent."""
    told = [*limit.recent, *limit.served, *(-one for one in limit.denied)]
    denied = sum(-one >= in_flight for one in told)
    if denied < DENIED_LEAST:
        return False
    as_many = sum(abs(one) >= in_flight for one in told)
    # As if one more of two had been refused: where little is known of fewer, that is no contrast.
    fewer = (len(limit.denied) + sum(one < 0 for one in limit.recent) - denied + 1.0) / (len(told) - as_many + 2.0)
    return denied / as_many > min(DENIED_MOST, CONTRAST * fewer)


def revived(limit: Limit, now_s: float) -> Limit:
    """A copy after a restart."""
    return msgspec.structs.replace(
        limit,
        at_s=min(limit.at_s, now_s),
        back_s=min(limit.back_s, now_s),
        away=False,
        served=limit.served.copy(),
        denied=limit.denied.copy(),
        recent=limit.recent[-RECENT:],
    )


def combined(one: Limit, other: Limit) -> Limit:
    """What the more careful of both has found."""
    most = [limit.most for limit in (one, other) if limit.most]
    ramps = [limit.ramp for limit in (one, other) if limit.ramp]
    return Limit(
        most=min(most, default=0.0),
        ramp=min(ramps, default=0.0),
        at_s=max(one.at_s, other.at_s),
        back_s=max(one.back_s, other.back_s),
    )


def fault(limit: Limit) -> str:
    """What is wrong with it, empty where nothing is."""
    numbers = (limit.most, limit.ramp, limit.seen)
    return "" if all(0.0 <= number < inf for number in numbers) else "`limit` has numbers that none can be"
