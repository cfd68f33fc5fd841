"""Counts what a world does while it does it, from the lines of its journal."""

from tidegate.core.model import Ended, Ending, Held, Line, Released, Request, Started

BIN_S = 60.0
BINS_MAX = 1440  # a day of minutes; longer runs have longer bins


class Level:
    """A number that changes, and what it was in the mean of each bin. Times must not fall."""

    def __init__(self, start_s: float, bin_s: float) -> None:
        self.now = 0
        self.most = 0
        self._start_s = start_s
        self._bin_s = bin_s
        self._at_s = start_s
        self._areas: list[float] = []

    def change(self, by: int, now_s: float) -> None:
        """It rises or falls."""
        self._until(now_s)
        self.now += by
        self.most = max(self.most, self.now)

    def means(self, until_s: float) -> list[float]:
        """Bin by bin; the last one, which may be cut, in the mean of what there is of it."""
        self._until(until_s)
        whole, bin_s = len(self._areas) - 1, self._bin_s
        rest_s = until_s - self._start_s - whole * bin_s
        return [area / (bin_s if i < whole or rest_s <= 0.0 else rest_s) for i, area in enumerate(self._areas)]

    def total_s(self, until_s: float) -> float:
        """Its integral over all the time."""
        self._until(until_s)
        return sum(self._areas)

    def _until(self, now_s: float) -> None:
        while self._at_s < now_s:
            index = len(self._areas) - 1
            ends_s = self._start_s + (index + 1) * self._bin_s
            if self._at_s >= ends_s or index < 0:
                self._areas.append(0.0)
                continue
            step_s = min(now_s, ends_s)
            self._areas[index] += self.now * (step_s - self._at_s)
            self._at_s = step_s


class EndpointTally:
    """What went to one endpoint. Tokens are those that it reported."""

    def __init__(self, start_s: float, bin_s: float) -> None:
        self.attempts = 0
        self.hedges = 0
        self.endings = dict.fromkeys(Ending, 0)
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        self.in_flight = Level(start_s, bin_s)


class Tally:
    """All of it. Give it every line."""

    def __init__(self, endpoints: tuple[str, ...], start_s: float, bin_s: float) -> None:
        self.bin_s = bin_s
        self.start_s = start_s
        self.endpoints = {name: EndpointTally(start_s, bin_s) for name in endpoints}
        self.held = Level(start_s, bin_s)
        self.arrivals: list[int] = []
        self._came: set[str] = set()
        self._held: set[str] = set()

    def line(self, line: Line) -> None:
        """One line of the journal."""
        fact, now_s = line.fact, line.at_s
        match fact:
            case Request() if fact.id not in self._came:
                # What is asked anew, with another budget or for the rest of an answer, has arrived already.
                self._came.add(fact.id)
                index = int((now_s - self.start_s) // self.bin_s)
                self.arrivals += [0] * (index + 1 - len(self.arrivals))
                self.arrivals[index] += 1
            case Started():
                self._unhold(fact.request_id, now_s)
                tally = self.endpoints[fact.endpoint]
                tally.attempts += 1
                tally.hedges += fact.hedge
                tally.in_flight.change(1, now_s)
            case Ended():
                self._ended(fact, now_s)
            case Held():
                self._held.add(fact.request.id)
                self.held.change(1, now_s)
            case Released():
                self._unhold(fact.request_id, now_s)

    def _ended(self, fact: Ended, now_s: float) -> None:
        tally = self.endpoints[fact.endpoint]
        tally.endings[fact.ending] += 1
        tally.prompt_tokens += fact.prompt_tokens or 0
        tally.cached_tokens += fact.cached_tokens or 0
        tally.output_tokens += fact.output_tokens or 0
        tally.in_flight.change(-1, now_s)

    def _unhold(self, request_id: str, now_s: float) -> None:
        if request_id in self._held:
            self._held.remove(request_id)
            self.held.change(-1, now_s)


def bin_s(duration_s: float) -> float:
    """How long a bin is: a minute, or as many as a month of them would be too many to see."""
    return BIN_S * max(1, -(-int(duration_s) // int(BIN_S * BINS_MAX)))
