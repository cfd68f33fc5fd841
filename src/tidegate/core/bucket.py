"""A limit per minute."""


class Bucket:
    """Fills with time and is emptied by use: a minute's worth at most, at once or spread.

    In any span of t seconds no more than `burst + t * rate_per_s` is taken, net of what is given back. What turns out
    larger than was asked for leaves a debt, which is filled up first.
    """

    __slots__ = ("_at_s", "_level", "burst", "rate_per_s")

    def __init__(self, per_minute: float, now_s: float) -> None:
        self.burst = float(per_minute)
        self.rate_per_s = per_minute / 60.0
        self._level = self.burst
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """What can be taken now; negative while there is a debt."""
        # A clock that runs backwards fills nothing, and what it comes back to is not filled twice.
        return min(self.burst, self._level + max(0.0, now_s - self._at_s) * self.rate_per_s)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until this much can be taken; 0 where it can be now. No more than `burst` ever can."""
        return max(0.0, amount - self.level(now_s)) / self.rate_per_s

    def take(self, amount: float, now_s: float) -> None:
        """Take this much, there or not; a negative amount is given back."""
        self._level = min(self.burst, self.level(now_s) - amount)
        self._at_s = max(self._at_s, now_s)
