"""The load that others put on an engine: what it reports, less what is ours; aged, and trusted as far as it agrees.

What we sent is known; what an engine reports to run and to wait beyond that is somebody else's. It delays what we send
by so much for each request that waits, and slows what we read by so much for each that runs: how much is learned as
that of every other part of a time. An engine that never reports is a black box: what others do to it is in the
corrections of its latency, and in their spread. One that reports no more, or what contradicts what we know, is believed
to be as usual: an engine cannot have less than we have put there, and does not say the same for ever.
"""

from collections.abc import Iterable
from math import exp, log, pow
from typing import Final

from tidegate.core.load import GONE_MAX, Gone, History, Load, Said, Tick, by_end, count, once
from tidegate.core.record import Fixed
from tidegate.core.reserve import Reservation

# A count beyond this is no count; no engine runs or queues so many.
COUNT_MAX: Final = 1_000_000
# Before several reports have shown it: how long an engine stays as busy as it is. Some answers take about as long.
LASTS_S: Final = 30.0
# What so many pairs of reports show of that counts as much.
LASTS_STRENGTH: Final = 10.0
LASTS_S_MAX: Final = 3600.0
# And how far reports are apart: as probes are by default.
USUAL_S: Final = 5.0
# Of a level: how far from what is usual an engine may be of which one report alone is known.
UNKNOWN_VARIANCE: Final = 1.0
# Beyond the usual time between two reports, an engine counts half as one that tells nothing after so many seconds more:
# a few that are lost at the usual pace.
SILENT_S: Final = 30.0
# And after so many seconds, half of what others do to it has been learned as a property of its own.
HANDED_OVER_S: Final = 300.0
# An engine that leaves out this share of what it should report at least, in squares, has a word that is worth 1/e.
MISSING_SHARE: Final = 0.1
# So many requests of others that are expected to run are one rather than none: what was reported once is in what is
# usual for days, as next to nothing.
SOMEBODY: Final = 0.5
# Reports that say the same again are as old as the first of them, where so many are less likely than this.
REPEATED_CHANCE: Final = 0.01


class Foreign(Fixed, frozen=True):
    """What others are believed to have on an engine: requests that run, and that wait, as far as reports are `known`.

    As far as they are not, `usual` is the share of what others usually do there that is to be expected instead: all of
    it at first, and less the longer it has been learned without reports what an engine does. `variance` is that of the
    level of what waits, as far as it is more than after a report of the usual age: that much is in the spread of
    latencies.
    """

    running: float
    queued: float
    variance: float
    known: float
    usual: float


NOBODY: Final = Foreign(0.0, 0.0, 0.0, 1.0, 0.0)


class Others:
    """Reads and writes the `Load` of one endpoint: what is to learn is written, the rest is read."""

    __slots__ = (
        "_lasts_s",
        "_queued",
        "_queued_mean",
        "_running",
        "_running_mean",
        "_since_s",
        "_usual_left",
        "_usual_s",
        "_variance",
        "load",
        "told",
        "trust",
        "waiting",
    )

    def __init__(self, load: Load) -> None:
        self.load = load
        # Whether it has ever reported: most of what follows is not asked where it has not.
        self.told = load.newest.count > 0 or load.history.weight > 0.0
        # What waits is to be multiplied by this; and what reports are worth, from 0 to 1.
        self.waiting = load.waiting.factor()
        self.trust = 1.0
        self._digest()

    # --- to read ----------------------------------------------------------------------------------------------------

    def at(self, now_s: float) -> Foreign:
        """What others are believed to have there now.

        It is as reported at first. Then it goes back to what is usually reported there, as fast as it was seen to, and
        at last it counts no more.
        """
        age_s = now_s - self._since_s
        left = exp(-age_s / self._lasts_s) if age_s > 0.0 else 1.0
        running = self._running_mean + left * (self._running - self._running_mean)
        queued = self._queued_mean + left * (self._queued - self._queued_mean)
        known, variance, late = self.trust, 0.0, 1.0
        if age_s > self._usual_s:
            variance = known * self._variance * (self._usual_left - left * left)
            known *= pow(0.5, (age_s - self._usual_s) / SILENT_S)
            late = pow(0.5, (age_s - self._usual_s) / HANDED_OVER_S)
        elif not running and not queued and known == 1.0:
            return NOBODY
        return Foreign(known * count(running), known * count(queued), variance, known, late * (1.0 - known))

    def usual(self, column: int, now_s: float) -> tuple[float, float]:
        """By what others usually stretch a time to first content: the logarithm's mean and variance.

        Beside so much of ours as `column` says, as in `LOAD_EDGES`.
        """
        return self.load.usual[column].moments(now_s)

    @property
    def newest(self) -> tuple[float, float]:
        """Requests of others that ran and waited when it last reported."""
        return count(self._running), count(self._queued)

    # --- to learn ---------------------------------------------------------------------------------------------------

    def report(
        self,
        running: int | None,
        queued: int | None,
        ours: Iterable[Reservation],
        measured_s: float,
        now_s: float,
    ) -> None:
        """Take in what it says of its load, measured between `measured_s` and now. Half a word is none."""
        if running is None or queued is None or not (0 <= running <= COUNT_MAX and 0 <= queued <= COUNT_MAX):
            return
        load = self.load
        measured_s = min(measured_s, now_s)
        least, most = self._ours(ours, measured_s, now_s)
        if load.newest.count and now_s > load.newest.told_s:
            self._fold()
        newest = load.newest
        newest.told_s = max(newest.told_s, now_s)
        newest.measured_s += measured_s
        # Whose it is that waits is not told, and makes no difference to who comes next, while there are others at all.
        newest.add(max(0, running - most), min(queued, max(0, running + queued - most)))
        newest.said_running += running
        newest.said_queued += queued
        newest.seen += least**2
        newest.missing += max(0, least - running - queued) ** 2
        self.told = True
        self._digest()

    def ended(self, sent: Reservation, now_s: float) -> None:
        """One of ours is over."""
        if self.told:
            gone = self.load.gone
            gone.append(Gone(sent.started_s + sent.network_s, now_s, sent.completions))
            if len(gone) > GONE_MAX:
                gone.sort(key=by_end)
                del gone[0]

    def met(self, column: int, log_ratio: float, trust: float, now_s: float) -> None:
        """Learn from a time to first content, beside so much of ours: see `Usual`.

        As far as there was `trust` in its reports: an engine without a word is a black box, left to corrections.
        """
        self.load.usual[column].learn(log_ratio, trust, now_s)

    def waited(self, alone_s: float, added_s: float, measured_s: float, now_s: float) -> None:
        """Learn from a time to first content: see `Gain.learn`."""
        self.load.waiting.learn(alone_s, added_s, measured_s, now_s)
        self.waiting = self.load.waiting.factor()

    def _ours(self, ours: Iterable[Reservation], measured_s: float, now_s: float) -> tuple[int, int]:
        """Of ours, as many as must have been there, and as may have been.

        What was on its way is in doubt. What happens now may be told before or after: it counts alike.
        """
        least = most = 0
        for sent in ours:
            if sent.started_s < now_s:
                most += sent.completions
                least += sent.started_s + sent.network_s < measured_s
        for gone in self.load.gone:
            if gone.ended_s >= measured_s:
                most += gone.completions
                least += gone.ended_s >= now_s and gone.reached_s < measured_s
        return least, most

    def _fold(self) -> None:
        """The newest becomes history."""
        load, newest, before = self.load, self.load.newest, self.load.before
        fresh = _fresh(load.history, before)
        load.history = history = load.history.joined(once(newest, fresh))
        said = _said(newest, before)
        if before.told_s:
            history.pairs += fresh
            history.product += fresh * before.total * said.total
            # A night without a word, or a restart, says little of how often it is asked.
            gap_s = min(newest.told_s - before.told_s, self._usual_s + HANDED_OVER_S)
            history.gap_s += fresh * gap_s
            if said.total and before.total:
                history.chances += 1.0
                history.repeats += said.repeats > 0
        load.before, load.newest = said, Tick()

    def _digest(self) -> None:
        """What `at` needs: from what the reports before the newest say of how it changes, and from the newest.

        Only they judge it, so that no number in it can make itself count less.
        """
        load = self.load
        newest, history = load.newest, load.history
        told, weight = max(1, newest.count), history.weight
        # Should the reports before have been one only, told again and again, this one is none either.
        fresh = _fresh(history, load.before)
        self._since_s = fresh * newest.measured_s / told + (1.0 - fresh) * load.before.since_s
        self._running, self._queued = newest.running / told, newest.queued / told
        weighed = fresh * newest.count
        self._running_mean = self._queued_mean = 0.0
        if weight + weighed:
            self._running_mean = (history.running + weighed * self._running) / (weight + weighed)
            self._queued_mean = (history.queued + weighed * self._queued) / (weight + weighed)
        mean = history.queued / weight if weight else 0.0
        scatter = max(0.0, history.queued_square - weight * mean * mean)
        self._variance = (scatter + UNKNOWN_VARIANCE) / (weight + 1.0)
        self._lasts_s, self._usual_s = _lasting(history)
        self._usual_left = exp(-2.0 * self._usual_s / self._lasts_s)
        self.trust = exp(-history.missing / (MISSING_SHARE * (history.seen + 1.0)))


def _said(tick: Tick, before: Said) -> Said:
    running, queued = tick.said_running / tick.count, tick.said_queued / tick.count
    total = tick.total / tick.count
    again = total > 0.0 and before.total > 0.0 and running == before.running and queued == before.queued
    return Said(
        told_s=tick.told_s,
        running=running,
        queued=queued,
        total=total,
        repeats=before.repeats + 1 if again else 0,
        since_s=before.since_s if again else tick.measured_s / tick.count,
    )


def _fresh(history: History, before: Said) -> float:
    """What the next report is worth as one of its own, from 0 to 1: nothing, where those before are too much alike."""
    if not before.repeats:
        return 1.0
    usual = (history.repeats + 1.0) / (history.chances + 2.0)
    return float(min(1.0, usual**before.repeats / REPEATED_CHANCE))


def _lasting(history: History) -> tuple[float, float]:
    """How long an engine stays as busy as it is, and how far reports are apart."""
    weight, pairs = history.weight, history.pairs
    if not pairs or not weight:
        return LASTS_S, USUAL_S
    gap_s, mean = history.gap_s / pairs, history.total / weight
    variance = history.total_square / weight - mean * mean
    common = believed = exp(-gap_s / LASTS_S)
    if variance > 0.0:
        measured = min(max((history.product / pairs - mean * mean) / variance, 0.0), 1.0)
        common = (LASTS_STRENGTH * believed + pairs * measured) / (LASTS_STRENGTH + pairs)
    return min(-gap_s / log(min(max(common, 1e-9), 1.0 - 1e-9)), LASTS_S_MAX), gap_s
