"""What a vendor says is left of its limits, before it refuses.

Vendors tell with each answer how many requests and tokens are left, and when all of it is there again. What is left
fills up evenly until then, and each request of ours takes its part when it is sent. What does not fit is not sent: a
refusal would cost a round trip, and with some vendors counts against the limit itself.
"""

from typing import Final

import msgspec

from tidegate.core.model import Headroom, Request, Started

# While more than this is left there is nothing to keep: what is told of it is no news.
LOW_SHARE: Final = 0.25
# A vendor that says that it needs longer is asked again all the same, and so is one that does not say how long.
FULL_S_MAX: Final = 3600.0


class Allowance(msgspec.Struct):
    """Of `most`, so much was `left` at `at_s`; `per_s` comes back. `taken` was taken at `at_s` itself."""

    left: float
    most: float
    per_s: float
    at_s: float
    taken: float = 0.0

    def at(self, now_s: float) -> float:
        """What is left now."""
        return min(self.most, self.left + max(0.0, now_s - self.at_s) * self.per_s)

    def ready_s(self, amount: float, now_s: float) -> float:
        """When so much is there, or all of it where that is less; `now_s` where it is."""
        missing = min(amount, self.most) - self.at(now_s)
        if missing <= 0.0:
            return now_s
        return now_s + (missing / self.per_s if self.per_s > 0.0 else FULL_S_MAX)

    def take(self, amount: float, now_s: float) -> None:
        """A request of ours takes so much."""
        left, same = self.at(now_s), now_s <= self.at_s
        self.left, self.taken, self.at_s = left - amount, amount + (self.taken if same else 0.0), max(now_s, self.at_s)


class Allowances(msgspec.Struct):
    """What is left of requests and of tokens; None while there is enough, or nothing was told."""

    requests: Allowance | None = None
    tokens: Allowance | None = None

    def ready_s(self, tokens: int, now_s: float) -> float:
        """When a request of so many tokens fits."""
        ready_s = now_s
        if self.requests is not None:
            ready_s = self.requests.ready_s(1.0, now_s)
        if self.tokens is not None:
            ready_s = max(ready_s, self.tokens.ready_s(tokens, now_s))
        return ready_s

    def take(self, tokens: int, now_s: float) -> None:
        """A request of so many tokens is sent."""
        if self.requests is not None:
            self.requests.take(1.0, now_s)
        if self.tokens is not None:
            self.tokens.take(tokens, now_s)

    def is_news(self, fact: Headroom) -> bool:
        """Whether to tell what an answer said."""
        return (
            bool(self.requests or self.tokens)
            or is_low(fact.requests_left, fact.requests_max)
            or is_low(fact.tokens_left, fact.tokens_max)
        )

    def learn(self, fact: Headroom, now_s: float) -> None:
        """Take in what a vendor said; of what is said in one moment the least counts."""
        self.requests = _told(self.requests, fact.requests_left, fact.requests_max, fact.requests_full_s, now_s)
        self.tokens = _told(self.tokens, fact.tokens_left, fact.tokens_max, fact.tokens_full_s, now_s)


def tokens_counted(request: Request | Started) -> int:
    """What vendors count of a request when it comes: its prompt, and all the output that it may have."""
    return request.prompt_tokens + (request.output_tokens_max or 0)


def is_low(left: int | None, most: int | None) -> bool:
    """Whether so little is left that it may run out."""
    return left is not None and most is not None and left < LOW_SHARE * most


def _told(
    known: Allowance | None, left: int | None, most: int | None, full_s: float | None, now_s: float
) -> Allowance | None:
    if left is None or most is None:
        return known
    if known is not None and now_s <= known.at_s:
        # Whatever was sent in this moment is sent after it.
        known.left = min(known.left, left - known.taken)
        return known
    if not is_low(left, most):
        return None
    per_s = (most - left) / (FULL_S_MAX if full_s is None else min(max(full_s, 0.001), FULL_S_MAX))
    return Allowance(float(left), float(most), per_s, now_s)


def revived(state: Allowances, now_s: float) -> Allowances:
    """A copy after a restart. Nothing is used up for ever, whatever the state says."""
    both = [
        None
        if one is None
        else msgspec.structs.replace(one, at_s=min(one.at_s, now_s), per_s=one.per_s or one.most / FULL_S_MAX)
        for one in (state.requests, state.tokens)
    ]
    return Allowances(*both)


def fault(state: Allowances) -> str:
    """What is wrong with it, empty where nothing is."""
    for one in (state.requests, state.tokens):
        if one is not None and not (abs(one.left) < 1e15 and 0.0 <= one.most < 1e15 and 0.0 <= one.per_s < 1e15):
            return "`allowances` has numbers that none can be"
    return ""
