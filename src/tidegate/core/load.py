"""What is learned of others who use an engine: what was reported, and what came of it, as sums that fade.

Sums have no order, so facts of one time may come in any; and what two routers learned apart adds up.
"""

from math import expm1, log, log1p
from typing import Final

import msgspec
from msgspec.structs import replace

from tidegate.core.calibration import left_after

# Others of ours in flight: none, one, two or three, more. What they do to each other's tokens is learned per bucket; of
# what they do to a prompt, its parts tell more than buckets (bench/predict.py), and more of it never makes one faster.
LOAD_EDGES: Final[tuple[int, ...]] = (0, 1, 3)
# Counts are followed on a logarithmic scale, on which nothing and one are as far apart as one and ten.
FINENESS = 10.0
# Of what ended last, so much is remembered for a report that was measured before. Beyond, it is a little too low.
GONE_MAX = 16
# What others add may be so many times what was predicted. A queue for a place in a batch costs a part of an answer for
# each before, and not only a prompt; a report that has nothing to do with what happens adds next to nothing.
GAINS = (0.0, *(2.0**power for power in range(-6, 6)))
_ONE = GAINS.index(1.0)
# No logarithm counts for more.
OFF_MAX = 5.0
# For each factor of two a gain has to be nearer by so much, as a logarithm and in sum, than the belief that it is one.
GAIN_STRENGTH = 1.0
# So many samples of what others usually do weigh as much as that they do nothing.
USUAL_STRENGTH = 10.0


class Gain(msgspec.Struct, gc=False):
    """By how much what others add has to be multiplied: for each of `GAINS`, how far off it would have been.

    `off` are decayed sums, at `at_s`, of |log(measured / predicted)|: the least is a median, which no single time moves
    far. Empty before any sample.
    """

    at_s: float = 0.0
    off: list[float] = []

    def learn(self, alone_s: float, added_s: float, measured_s: float, now_s: float) -> None:
        """It took `measured_s`, where `alone_s` was predicted without others, and `added_s` more with a gain of one."""
        off = self.off or [0.0] * len(GAINS)
        if now_s > self.at_s:
            left, self.at_s = left_after(now_s - self.at_s), now_s
            off = [left * one for one in off]
        late = left_after(self.at_s - now_s)
        for index, gain in enumerate(GAINS):
            off[index] += late * min(abs(log(measured_s / (alone_s + gain * added_s))), OFF_MAX)
        self.off = off

    def factor(self) -> float:
        """One before any sample; between the best two where they are nearly as good, and next to nothing at least."""
        if not self.off:
            return 1.0
        off = [one + GAIN_STRENGTH * abs(index - _ONE) for index, one in enumerate(self.off)]
        best = off.index(min(off))
        if not 1 < best < len(GAINS) - 1:
            # Never nothing: what is predicted to add nothing is compared with nothing, and would do so for ever.
            return GAINS[max(best, 1)]
        before, after = off[best - 1] - off[best], off[best + 1] - off[best]
        # Where two lines of the same slope would meet, as they do where all samples agree.
        steepest = max(before, after)
        aside = 0.5 * (before - after) / steepest if steepest > 0.0 else 0.0
        return float(GAINS[best] * 2.0**aside)

    def combined(self, other: "Gain") -> "Gain":
        """What two have learned apart; neither is changed."""
        if not (self.off and other.off):
            known = self if self.off else other
            return Gain(at_s=known.at_s, off=list(known.off))
        at_s = max(self.at_s, other.at_s)
        mine, its = left_after(at_s - self.at_s), left_after(at_s - other.at_s)
        return Gain(at_s=at_s, off=[mine * a + its * b for a, b in zip(self.off, other.off, strict=True)])


class Usual(msgspec.Struct, gc=False):
    """By what others stretch a time to first content, whatever is reported.

    Decayed sums, at `at_s`, of log(measured / predicted without them).
    """

    at_s: float = 0.0
    weight: float = 0.0
    total: float = 0.0
    square: float = 0.0

    def learn(self, log_ratio: float, weight: float, now_s: float) -> None:
        """Take one in, for as much as `weight`."""
        x = min(max(log_ratio, -OFF_MAX), OFF_MAX)
        if now_s > self.at_s:
            left, self.at_s = left_after(now_s - self.at_s), now_s
            self.weight *= left
            self.total *= left
            self.square *= left
        weight *= left_after(self.at_s - now_s)
        self.weight += weight
        self.total += weight * x
        self.square += weight * x * x

    def moments(self, now_s: float) -> tuple[float, float]:
        """Mean and variance of the logarithm, nothing where little is known. Nobody is quicker for others' sake."""
        weight = self.weight * left_after(now_s - self.at_s)
        if not weight:
            return 0.0, 0.0
        mean, share = self.total / self.weight, weight / (weight + USUAL_STRENGTH)
        return max(0.0, share * mean), share * max(0.0, self.square / self.weight - mean * mean)

    def combined(self, other: "Usual") -> "Usual":
        """What two have learned apart; neither is changed."""
        at_s = max(self.at_s, other.at_s)
        mine, its = left_after(at_s - self.at_s), left_after(at_s - other.at_s)
        return Usual(
            at_s=at_s,
            weight=self.weight * mine + other.weight * its,
            total=self.total * mine + other.total * its,
            square=self.square * mine + other.square * its,
        )


class Tick(msgspec.Struct, gc=False):
    """The newest report: sums over the `count` that were told at one time.

    Of what was others', levels and their squares: what ran, what waited, and both together. `said` is what was reported
    of both, ours included. `seen` are squares of what should have been reported at least, and `missing` those of what
    was reported less than that.
    """

    told_s: float = 0.0
    count: int = 0
    measured_s: float = 0.0
    running: float = 0.0
    queued: float = 0.0
    queued_square: float = 0.0
    total: float = 0.0
    total_square: float = 0.0
    said_running: float = 0.0
    said_queued: float = 0.0
    seen: float = 0.0
    missing: float = 0.0

    def add(self, running: float, queued: float) -> None:
        """One more: so much was others'."""
        one, both = level(queued), level(running + queued)
        self.count += 1
        self.running += level(running)
        self.queued += one
        self.queued_square += one * one
        self.total += both
        self.total_square += both * both

    def together(self, other: "Tick") -> "Tick":
        """All that was told at the same time."""
        return Tick(
            told_s=self.told_s,
            count=self.count + other.count,
            measured_s=self.measured_s + other.measured_s,
            running=self.running + other.running,
            queued=self.queued + other.queued,
            queued_square=self.queued_square + other.queued_square,
            total=self.total + other.total,
            total_square=self.total_square + other.total_square,
            said_running=self.said_running + other.said_running,
            said_queued=self.said_queued + other.said_queued,
            seen=self.seen + other.seen,
            missing=self.missing + other.missing,
        )


class History(msgspec.Struct, gc=False):
    """All reports before the newest, as decayed sums at `at_s` of levels: of what ran and waited of others.

    `pairs` of reports that came one after the other had so much in common (`product`), `gap_s` seconds apart in sum.
    Of `chances` to say something else than before, `repeats` were not taken. `seen` and `missing` are as in `Tick`.
    """

    at_s: float = 0.0
    weight: float = 0.0
    running: float = 0.0
    queued: float = 0.0
    queued_square: float = 0.0
    total: float = 0.0
    total_square: float = 0.0
    pairs: float = 0.0
    product: float = 0.0
    gap_s: float = 0.0
    chances: float = 0.0
    repeats: float = 0.0
    seen: float = 0.0
    missing: float = 0.0

    def reached(self, at_s: float) -> "History":
        """A copy that has aged until then."""
        left = left_after(at_s - self.at_s)
        return History(
            at_s=at_s,
            weight=self.weight * left,
            running=self.running * left,
            queued=self.queued * left,
            queued_square=self.queued_square * left,
            total=self.total * left,
            total_square=self.total_square * left,
            pairs=self.pairs * left,
            product=self.product * left,
            gap_s=self.gap_s * left,
            chances=self.chances * left,
            repeats=self.repeats * left,
            seen=self.seen * left,
            missing=self.missing * left,
        )

    def joined(self, other: "History") -> "History":
        """Both, as they are at the later of their times."""
        at_s = max(self.at_s, other.at_s)
        mine, its = self.reached(at_s), other.reached(at_s)
        return History(
            at_s=at_s,
            weight=mine.weight + its.weight,
            running=mine.running + its.running,
            queued=mine.queued + its.queued,
            queued_square=mine.queued_square + its.queued_square,
            total=mine.total + its.total,
            total_square=mine.total_square + its.total_square,
            pairs=mine.pairs + its.pairs,
            product=mine.product + its.product,
            gap_s=mine.gap_s + its.gap_s,
            chances=mine.chances + its.chances,
            repeats=mine.repeats + its.repeats,
            seen=mine.seen + its.seen,
            missing=mine.missing + its.missing,
        )


class Said(msgspec.Struct, frozen=True, gc=False):
    """A report as it was, and `total`, the level of what was others'.

    The `repeats` before it said the same, since `since_s`.
    """

    told_s: float = 0.0
    running: float = 0.0
    queued: float = 0.0
    total: float = 0.0
    repeats: int = 0
    since_s: float = 0.0


class Gone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that is over, for reports that were measured when it was not."""

    reached_s: float
    ended_s: float
    completions: int


def _nothing_usual() -> list[Usual]:
    return [Usual() for _ in range(len(LOAD_EDGES) + 1)]


class Load(msgspec.Struct, kw_only=True):
    """What is learned of others at one endpoint.

    `before` is the report before the newest; `waiting` is the gain of what waits, and `usual` is by our own load.
    """

    newest: Tick = msgspec.field(default_factory=Tick)
    before: Said = Said()
    history: History = msgspec.field(default_factory=History)
    waiting: Gain = msgspec.field(default_factory=Gain)
    usual: list[Usual] = msgspec.field(default_factory=_nothing_usual)
    gone: list[Gone] = []


def level(count: float) -> float:
    """A count on the scale on which it is followed."""
    return log1p(FINENESS * count)


def count(level: float) -> float:
    """And back."""
    return expm1(level) / FINENESS


def once(tick: Tick, fresh: float) -> History:
    """A history of this tick, whose reports are `fresh` from 0 to 1."""
    return History(
        at_s=tick.told_s,
        weight=fresh * tick.count,
        running=fresh * tick.running,
        queued=fresh * tick.queued,
        queued_square=fresh * tick.queued_square,
        total=fresh * tick.total,
        total_square=fresh * tick.total_square,
        seen=tick.seen,
        missing=tick.missing,
    )


def kept(load: Load, now_s: float) -> Load:
    """A copy for a process that knows of no attempt any more; no time in it is beyond `now_s`."""
    newest, before = load.newest, load.before
    return Load(
        newest=replace(
            newest,
            told_s=min(newest.told_s, now_s),
            measured_s=min(newest.measured_s, now_s * newest.count),
        ),
        before=replace(before, told_s=min(before.told_s, now_s), since_s=min(before.since_s, now_s)),
        history=replace(load.history, at_s=min(load.history.at_s, now_s)),
        waiting=replace(load.waiting, at_s=min(load.waiting.at_s, now_s)),
        usual=[replace(one, at_s=min(one.at_s, now_s)) for one in load.usual],
    )


def fault(load: Load) -> str:
    """What is wrong with what no router of this software learned; empty where nothing is."""
    if len(load.usual) != len(LOAD_EDGES) + 1:
        return f"`load.usual` has {len(load.usual)} sums, not {len(LOAD_EDGES) + 1}"
    if len(load.waiting.off) not in (0, len(GAINS)):
        return f"`load.waiting` has {len(load.waiting.off)} sums, not {len(GAINS)}"
    sums = [load.history.weight, load.history.pairs, load.history.seen, load.history.missing, float(load.newest.count)]
    sums += [one.weight for one in load.usual]
    return "`load` has a sum of negative weight" if min(sums) < 0.0 else ""


def combined(one: Load, other: Load) -> Load:
    """What two routers have learned apart of one engine; neither is changed. Of the newest reports the later holds."""
    history = one.history.joined(other.history)
    if one.newest.told_s == other.newest.told_s:
        newest = one.newest.together(other.newest)
    else:
        old, newest = sorted((one.newest, other.newest), key=_by_told)
        history = history.joined(once(old, 1.0))
    return Load(
        newest=newest,
        before=max(one.before, other.before, key=msgspec.structs.astuple),
        history=history,
        waiting=one.waiting.combined(other.waiting),
        usual=[a.combined(b) for a, b in zip(one.usual, other.usual, strict=True)],
        gone=sorted([*one.gone, *other.gone], key=by_end)[-GONE_MAX:],
    )


def by_end(gone: Gone) -> tuple[float, float, int]:
    """The order in which they are forgotten."""
    return gone.ended_s, gone.reached_s, gone.completions


def _by_told(tick: Tick) -> float:
    return tick.told_s
