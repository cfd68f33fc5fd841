"""What a dollar of a budget is worth beyond itself, so that a budget lasts until it is renewed.

A budget is a constraint over its window, and its price the dual variable: a dollar that is spent now is missing later,
and whoever buys must gain `1 + price` dollars with it. The best price is the same all the time, that at which what is
left is spent when the window ends. Where a dollar has to gain twice as much, about half as many are spent: dollars
times what each of them was worth stay about the same. So that is what is learned, by the hour of day, and the price is
what is still to come of it over what is left. Where more is spent for a price than that, or less, what is left tells.
"""

from math import inf
from typing import Final

import msgspec

from tidegate.core.model import Drawn, Request, replace

HOURS: Final = 24
HOUR_S: Final = 3600.0
DAY_S: Final = HOURS * HOUR_S
# What was learned of an hour counts half after so many more days: habits last for weeks, and weeks have weekends.
HALF_LIFE_DAYS: Final = 3.0
# Of an hour so much has to be seen until it counts more than what the last hours were like.
SEEN_S: Final = 1800.0
# Shares of a window: so much weighs the last part half as much as now where it says how today differs from other days,
# for so long before anything was seen all is believed to be spent evenly, and so often the price moves.
RECENT: Final = 1.0 / 12.0
EVEN: Final = 1.0 / 96.0
SLICE: Final = 1.0 / 1000.0
# It moves sooner where this much of the whole was spent since, or somebody could spend all before it has moved at all.
MOVED: Final = 0.01
# What is usual counts as much as in this part of a window, where the last of it says how this one differs.
USUAL: Final = 0.05
# As if so much of what is expected did not come: what is not spent by the end is lost, and what is missing then is made
# up for at a slightly higher price. Chosen of 0, 0.1 and 0.2 in a reckoning without queues, where days differed.
MARGIN: Final = 0.1
# Who is served by a vendor alone pays any price, which says nothing of worth: no dollar counts for more than so many
# usual ones, or one day whose budget ends early is remembered for as much as a month of others.
UNUSUAL: Final = 3.0
# With less than this left nobody can tell what would be bought: what is held back may not fit.
LAST: Final = 0.02
# Nobody gains a thousand dollars with one; it keeps numbers finite.
PRICE_MAX: Final = 1000.0
# Budgets of keys are as many as keys. What is learned of one takes a kilobyte; of more than these, those that were not
# drawn on for longest begin anew, at no price.
BUDGETS_MAX: Final = 256


class Spending(msgspec.Struct, kw_only=True):
    """What is learned of one budget: its `price`, and what the price follows from.

    By hour of day, `hours_usd` was spent in `hours_s` that were watched, both fading; each dollar counts with what it
    was worth. Of late it was `recent_usd` in `recent_s`; as far as it is known what is usual in those hours, that was
    `actual_usd` where other days had `usual_usd`. Of the window of `window_s` that ends at `ends_s` all is learned
    until `at_s`, when `spent_usd` were gone. What was told last, at `told_s`, counts when that moment is over; until
    then it is `open`.
    """

    price: float
    hours_usd: list[float]
    hours_s: list[float]
    recent_usd: float
    recent_s: float
    actual_usd: float
    usual_usd: float
    window_s: float
    ends_s: float
    at_s: float
    spent_usd: float
    told_s: float
    told_usd: float
    told_spent_usd: float
    told_begins_s: float
    told_ends_s: float
    open: bool = False

    def tell(self, fact: Drawn, now_s: float) -> None:
        """So much of it is spent. Of what is told in one moment the most counts."""
        self.settle(now_s)
        before = self.told_ends_s, self.told_spent_usd, self.told_usd
        if not self.open or before < (fact.ends_s, fact.spent_usd, fact.usd):
            self.told_usd, self.told_spent_usd = fact.usd, fact.spent_usd
            self.told_begins_s, self.told_ends_s = fact.begins_s, fact.ends_s
            self.told_s, self.open = now_s, True

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over."""
        if self.open and now_s > self.told_s:
            self._learn(self.told_s)
            self.open = False

    def _learn(self, at_s: float) -> None:
        if self.told_ends_s != self.ends_s:
            self.window_s, self.ends_s = self.told_ends_s - self.told_begins_s, self.told_ends_s
            self.spent_usd = 0.0
        spent_usd, left_usd = max(0.0, self.told_spent_usd - self.spent_usd), self.told_usd - self.told_spent_usd
        if at_s > self.at_s and (spent_usd > 0.0 or left_usd > LAST * self.told_usd):
            self._watch(self._worth() * spent_usd, self.at_s, at_s)
        self.at_s, self.spent_usd = max(self.at_s, at_s), self.told_spent_usd
        self.price = _price((1.0 - MARGIN) * self.expected_usd(at_s), left_usd)

    def _worth(self) -> float:
        """What a dollar that was spent was worth, as far as its price tells."""
        return min(1.0 + self.price, UNUSUAL * (1.0 + _price(self._usual_usd(), self.told_usd)))

    def _usual_usd(self) -> float:
        """What usual hours spend in a whole window, in dollars at what they are worth; none where none was watched."""
        seen_s = sum(self.hours_s)
        return self.window_s * sum(self.hours_usd) / seen_s if seen_s > 0.0 else 0.0

    def _watch(self, usd: float, since_s: float, until_s: float) -> None:
        """Between the two `usd` were spent, at what they were worth."""
        since_s = max(since_s, until_s - DAY_S)
        seconds = until_s - since_s
        faded = float(0.5 ** (seconds / (RECENT * self.window_s)))
        self.recent_usd = self.recent_usd * faded + usd
        self.recent_s = self.recent_s * faded + seconds
        self.actual_usd *= faded
        self.usual_usd *= faded
        for hour in range(HOURS):
            within_s = overlap_s(hour, since_s, until_s)
            if within_s > 0.0:
                hour_usd, seen_s, part_usd = self.hours_usd[hour], self.hours_s[hour], usd * within_s / seconds
                if seen_s > 0.0:
                    # As far as it is known what is usual.
                    known = seen_s / (seen_s + SEEN_S)
                    self.actual_usd += known * part_usd
                    self.usual_usd += known * hour_usd / seen_s * within_s
                kept = float(0.5 ** (within_s / (HALF_LIFE_DAYS * HOUR_S)))
                self.hours_usd[hour] = hour_usd * kept + part_usd
                self.hours_s[hour] = seen_s * kept + within_s

    def expected_usd(self, now_s: float) -> float:
        """What is still to be spent until the end, in dollars at what they are worth."""
        doubt_usd = USUAL * self._usual_usd()
        usual_usd = self.usual_usd + doubt_usd
        today = (self.actual_usd + doubt_usd) / usual_usd if usual_usd > 0.0 else 1.0
        lately_usd = SEEN_S * self.recent_usd / self.recent_s
        expected_usd = 0.0
        for hour in range(HOURS):
            left_s = overlap_s(hour, now_s, self.ends_s)
            if left_s > 0.0:
                usd_per_s = (today * self.hours_usd[hour] + lately_usd) / (self.hours_s[hour] + SEEN_S)
                expected_usd += left_s * usd_per_s
        return expected_usd


class Budgets:
    """What dollars of budgets are worth beyond themselves. `drawn` and `settle` write, the rest reads."""

    __slots__ = ("_by_name", "_open")

    def __init__(self, by_name: dict[str, Spending]) -> None:
        self._by_name = by_name
        # Of which something was told in a moment that is not known to be over.
        self._open = [one for one in by_name.values() if one.open]

    def price(self, budget: str) -> float:
        """What a dollar of it is worth beyond itself: 0 where it lasts anyway, or nothing is known of it."""
        known = self._by_name.get(budget)
        return 0.0 if known is None else known.price

    def priced(self, request: Request) -> Request:
        """The request with what a dollar of its budgets is worth. Each of them is a constraint of its own that the same
        dollar uses up, so their prices add up."""
        if not request.budgets:
            return request
        price = sum([self.price(budget) for budget in request.budgets])
        return replace(request, budget_price=price) if price else request

    def is_news(self, fact: Drawn, now_s: float) -> bool:
        """Whether this should be told: a budget nobody knew, another window, more or fewer dollars, or enough time or
        money has passed."""
        known = self._by_name.get(fact.budget)
        if known is None:
            return True
        return (
            (fact.ends_s, fact.usd) != (known.told_ends_s, known.told_usd)
            or now_s - known.told_s >= SLICE * (fact.ends_s - fact.begins_s)
            or fact.spent_usd - known.told_spent_usd >= MOVED * fact.usd
        )

    def drawn(self, fact: Drawn, now_s: float) -> None:
        """So much of it is spent."""
        known = self._by_name.get(fact.budget)
        if known is None:
            if len(self._by_name) >= BUDGETS_MAX:
                by_name = self._by_name
                gone = by_name.pop(min(by_name, key=lambda one: (by_name[one].told_s, one)))
                self._open = [one for one in self._open if one is not gone]
            known = self._by_name[fact.budget] = fresh(fact, now_s)
        known.tell(fact, now_s)
        if all(one is not known for one in self._open):
            self._open.append(known)

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over."""
        if self._open and now_s > self._open[0].told_s:
            for one in self._open:
                one.settle(now_s)
            self._open = [one for one in self._open if one.open]


def fresh(fact: Drawn, now_s: float) -> Spending:
    """Of a budget of which nothing is known it is believed that it is spent evenly. What was spent before teaches
    nothing."""
    window_s = fact.ends_s - fact.begins_s
    return Spending(
        price=0.0,
        hours_usd=[0.0] * HOURS,
        hours_s=[0.0] * HOURS,
        recent_usd=EVEN * fact.usd,
        recent_s=EVEN * window_s,
        actual_usd=0.0,
        usual_usd=0.0,
        window_s=window_s,
        ends_s=fact.ends_s,
        at_s=now_s,
        spent_usd=fact.spent_usd,
        told_s=now_s,
        told_usd=fact.usd,
        told_spent_usd=fact.spent_usd,
        told_begins_s=fact.begins_s,
        told_ends_s=fact.ends_s,
    )


def revived(one: Spending, now_s: float) -> Spending:
    """A copy after a restart. While nobody was there nothing could be bought, which says nothing of that hour."""
    made = replace(one, hours_usd=list(one.hours_usd), hours_s=list(one.hours_s))
    made.settle(inf)
    made.at_s = made.told_s = now_s
    return made


def fault(by_name: dict[str, Spending]) -> str:
    """What is wrong with them, empty where nothing is."""
    if len(by_name) > BUDGETS_MAX:
        return f"has {len(by_name)} budgets, and {BUDGETS_MAX} at most are kept"
    for name, one in by_name.items():
        if (len(one.hours_usd), len(one.hours_s)) != (HOURS, HOURS):
            return f"of `{name}` have {len(one.hours_usd)} and {len(one.hours_s)} hours, not {HOURS}"
        sums = (*one.hours_usd, *one.hours_s, one.recent_usd, one.actual_usd, one.usual_usd, one.spent_usd)
        if not (all(0.0 <= each < inf for each in sums) and 0.0 < min(one.recent_s, one.window_s) < inf):
            return f"of `{name}` have dollars or seconds that cannot be"
        if not 0.0 <= one.price <= PRICE_MAX:
            return f"of `{name}` have a price that is negative, or above {PRICE_MAX:g}"
    return ""


def _price(expected_usd: float, left_usd: float) -> float:
    """At which what is left buys what is expected."""
    if left_usd <= 0.0 or expected_usd >= (1.0 + PRICE_MAX) * left_usd:
        return PRICE_MAX
    return max(0.0, expected_usd / left_usd - 1.0)


def overlap_s(hour: int, since_s: float, until_s: float) -> float:
    """How much of the time between the two is in this hour of a day, UTC; of any day, where there are several."""
    begins_s = hour * HOUR_S
    return _before_s(until_s, begins_s) - _before_s(since_s, begins_s)


def _before_s(at_s: float, begins_s: float) -> float:
    """How much of the hours that begin then has passed by `at_s`, since the epoch."""
    days = at_s // DAY_S
    return days * HOUR_S + min(max(at_s - days * DAY_S - begins_s, 0.0), HOUR_S)
