"""The way to an endpoint: round trips from probes, upload rate from transfers, and how sure both are.

A link is steady for a while and then, at once, another one: a route changes, a modem goes down to another rate. So what
holds is not an average of all that was seen but the median of what was seen since the last change. One value that is
far off is an outlier; two in a row, on the same side, are a change.

Each endpoint has a network of its own, though those of one site may share a path: they may also stand behind different
addresses, and what one of them is slowed by (its own balancer, its proxy) must not be taken for the other's.
"""

from bisect import bisect_left, insort
from math import inf, log, sqrt
from typing import Final

from tidegate.core.calibration import drifted
from tidegate.core.record import Fixed
from tidegate.core.state import Network, Sample

# Of each kind: probes every five seconds fill it in little more than a minute, which is long enough for a median.
SAMPLES_MAX: Final = 16
# What is so much older than the newest counts no more: a single new value is better than many of another day.
KEPT_S: Final = 3600.0
# Less than this apart is no change: TTFT is not known better either.
LOG_CHANGE_MIN: Final = log(1.5)
# Nor is what the usual spread explains: two in a row beyond this many deviations are not by chance.
CHANGE_DEVIATIONS: Final = 4.0
# As much as the spread of this many samples weighs what is believed of links before anything is measured.
SPREAD_STRENGTH: Final = 2.0
# That one deviating value was the first of a change: about every fourth time.
CHANGE_SHARE: Final = 0.25
# Spread of log(true / declared), and of what was measured long ago.
RTT_SIGMA, UPLOAD_SIGMA = 0.5, 0.7
RTT_VARIANCE: Final = RTT_SIGMA**2
UPLOAD_VARIANCE: Final = UPLOAD_SIGMA**2
# Spread of a link that is what it was, from one measurement to the next.
STEADY_SIGMA: Final = 0.15
# A clock on a busy event loop is no better: round trips that differ by less are the same.
RTT_NOISE_S: Final = 0.001
# Between two looks at a network that is in doubt: a change is known within seconds, and nobody minds being asked.
LOOK_S: Final = 1.0
# A transfer that is expected to take less says nothing of the rate, unless it is a large one, whose rate would show.
UPLOAD_S_MIN: Final = 0.002
# What took less than `UPLOAD_S_SURE` cannot be timed, and nothing is known to have taken less than `UPLOAD_S_LEAST`:
# http/upload.py looks once a millisecond.
UPLOAD_S_SURE, UPLOAD_S_LEAST = 0.01, 0.001
UPLOAD_BYTES_MIN, UPLOAD_BYTES_ALWAYS = 2 * 1024, 64 * 1024
# Where a link has been twice as quick, its rate is looked for, with so many bytes that serve nothing: a link that was
# found slow is given nothing large, so that nobody would ever find it quick again. They fit one flight of TCP, and the
# heads that servers take. That is done after an eighth of the time that it has been slow, within these bounds: a
# minute of it is over within seconds, and a day of it costs two megabytes.
RATE_LOOK_BYTES: Final = 6 * 1024
RATE_LOOK_SHARE, RATE_LOOK_S_MIN, RATE_LOOK_S_MAX = 1.0 / 8.0, 5.0, 300.0
RATE_DOUBT: Final = 2.0


def combined(one: Network, other: Network) -> Network:
    """What two have measured, as if one had seen it all: in either order, and of three in any grouping."""
    return Network(
        rtts=sorted(one.rtts + other.rtts)[-SAMPLES_MAX:], uploads=sorted(one.uploads + other.uploads)[-SAMPLES_MAX:]
    )


def revived(known: Network, now_s: float) -> Network:
    """What is left after a restart: nothing was measured after now; see `core.revive`."""
    return Network(rtts=_none_after(known.rtts, now_s), uploads=_none_after(known.uploads, now_s))


def fault(known: Network) -> str:
    """What is wrong with it that no router of this software made; empty where nothing is."""
    for name, samples in (("rtts", known.rtts), ("uploads", known.uploads)):
        if len(samples) > SAMPLES_MAX or samples != sorted(samples):
            return f"`network.{name}` has more than {SAMPLES_MAX} samples, or has them out of order"
        if not all(0.0 <= sample.value < inf for sample in samples):
            return f"`network.{name}` has a sample that cannot be"
    if not all(sample.value > 0.0 for sample in known.uploads):
        return "`network.uploads` has a sample of no rate"
    return ""


class Level(Fixed, frozen=True):
    """What holds since the last change in a series of samples, or as declared where there are none.

    `value` is its median, of two the smaller, and `variance` that of its logarithm. It was measured last at `at_s`;
    infinity is never. It has held since `since_s`, or longer. It is `unsettled` while the last value does not fit: an
    outlier, or the first of a change.
    """

    value: float
    variance: float
    at_s: float = inf
    unsettled: bool = False
    since_s: float = inf


def level(samples: list[Sample], declared: float, sigma: float, noise: float) -> Level:
    """What these samples, in their order, come to. Two values that differ by `noise` may be the same."""
    if not samples:
        return Level(declared, sigma * sigma)
    newest_s = samples[-1].at_s
    since = bisect_left(samples, newest_s - KEPT_S, key=_at_s)
    logs = [log(sample.value + noise) for sample in samples[since:]]
    first = _last_change(logs)
    holds = sorted([(logs[i], since + i) for i in range(first, len(logs))])
    middle, index = holds[(len(holds) - 1) // 2]
    bound = _bound([x for x, _ in holds], middle)
    scatter = sum([min((x - middle) ** 2, bound * bound) for x, _ in holds])
    variance = (scatter + SPREAD_STRENGTH * STEADY_SIGMA**2) / (len(holds) + SPREAD_STRENGTH)
    last = abs(logs[-1] - middle)
    if last > bound:
        variance += CHANGE_SHARE * last * last
    return Level(samples[index].value, variance, newest_s, last > bound, samples[since + first].at_s)


class NetworkModel:
    """Predicts how long a request and the first byte of its answer are under way; learns from what was measured.

    It is `unsettled` while the last round trip is far from those before it, or the last rate (`rate_unsettled`):
    another probe would tell what holds now.
    """

    __slots__ = (
        "_declared_bytes_per_s",
        "_declared_s",
        "_rate_best",
        "_rate_since_s",
        "_rtt_at_s",
        "_rtt_fading_s2",
        "_rtt_s2",
        "_upload_at_s",
        "_upload_sigma",
        "_upload_variance",
        "rate_unsettled",
        "rtt_s",
        "state",
        "telling_bytes",
        "unsettled",
        "upload_bytes_per_s",
    )

    def __init__(
        self, rtt_s: float, upload_bytes_per_s: float, state: Network, upload_sigma: float = UPLOAD_SIGMA
    ) -> None:
        """Both numbers are as declared, and hold until something is measured; of the rate, `upload_sigma` is how far
        off the logarithm may be by then."""
        self.state, self._upload_sigma = state, upload_sigma
        self._declared_s, self._declared_bytes_per_s = rtt_s, upload_bytes_per_s
        self._fit_rtt()
        self._fit_upload()

    def seconds(self, upload_bytes: int) -> float:
        """The median from the first byte sent to the first byte that could come back, were the engine immediate."""
        return self.rtt_s + upload_bytes / self.upload_bytes_per_s

    @property
    def measured_s(self) -> float:
        """When the round trip was measured last; infinity is never."""
        return self._rtt_at_s

    def moments(self, upload_bytes: float, now_s: float) -> tuple[float, float]:
        """The same, and its variance in square seconds: never zero, and the wider the longer ago it was measured."""
        upload_s = upload_bytes / self.upload_bytes_per_s
        # What is old is trusted less, as with corrections, and not shifted.
        variance_s2, age_s = self._rtt_s2, now_s - self._rtt_at_s
        if age_s > 0.0:
            variance_s2 += drifted(variance_s2, self._rtt_fading_s2, age_s)
        variance, age_s = self._upload_variance, now_s - self._upload_at_s
        if age_s > 0.0:
            variance += drifted(variance, UPLOAD_VARIANCE, age_s)
        return self.rtt_s + upload_s, variance_s2 + upload_s * upload_s * variance

    def timed_since(self, since_s: float) -> bool:
        """Whether a rate was measured later than that."""
        return since_s < self._upload_at_s < inf

    def doubts_rate(self, now_s: float) -> bool:
        """Whether to find out, by bytes that serve nothing, whether it is as quick again as it was or was declared."""
        best = max(self._rate_best, self._declared_bytes_per_s)
        if self._upload_at_s == inf or best < RATE_DOUBT * self.upload_bytes_per_s:
            return False
        if self.rate_unsettled:
            return now_s - self._upload_at_s >= LOOK_S
        slow_s = self._upload_at_s - self._rate_since_s
        after_s = min(max(RATE_LOOK_SHARE * slow_s, RATE_LOOK_S_MIN), RATE_LOOK_S_MAX)
        return now_s - self._upload_at_s >= after_s

    def learn_rtt(self, rtt_s: float, now_s: float) -> None:
        """Take in one measured round trip; the first one replaces what was declared."""
        _insert(self.state.rtts, Sample(now_s, rtt_s))
        self._fit_rtt()

    def is_news(self, upload_bytes: int, seconds: float, *, at_most: bool) -> bool:
        """Whether there is something to learn from it: not that a transfer was as quick as was believed."""
        return not at_most or upload_bytes > self.upload_bytes_per_s * seconds

    def learn_upload(self, upload_bytes: int, seconds: float, now_s: float, *, at_most: bool = False) -> None:
        """Take in that so many bytes took so long, not counting the round trip, or `at_most` so long.

        What took less than could be measured tells of a rate that is at least so high: it may raise what is believed,
        and never lowers it.
        """
        if upload_bytes <= 0 or not 0.0 < seconds < inf:
            return
        samples, sample = self.state.uploads, Sample(now_s, upload_bytes / seconds)
        if at_most and not self._raises(sample):
            return
        _insert(samples, sample)
        self._fit_upload()

    def _raises(self, sample: Sample) -> bool:
        """Whether the rate is higher with it than what was known before: facts of one instant have no order."""
        samples = self.state.uploads
        if samples and samples[-1].at_s >= sample.at_s:
            samples = [known for known in samples if known.at_s < sample.at_s]
            believed = self._level(samples).value
        else:
            believed = self.upload_bytes_per_s
        # The oldest sample gives way to it, and without that one the others may say less.
        return sample.value > believed and self._level([*samples, sample][-SAMPLES_MAX:]).value >= believed

    def _level(self, uploads: list[Sample]) -> Level:
        return level(uploads, self._declared_bytes_per_s, self._upload_sigma, 0.0)

    def _fit_rtt(self) -> None:
        found, declared_s = level(self.state.rtts, self._declared_s, RTT_SIGMA, RTT_NOISE_S), self._declared_s
        # Where a clock cannot tell the difference, chance must not choose between endpoints that were declared alike.
        self.rtt_s = declared_s if abs(found.value - declared_s) < RTT_NOISE_S else found.value
        self.unsettled = found.unsettled
        square_s2 = (self.rtt_s + RTT_NOISE_S) ** 2
        self._rtt_at_s, self._rtt_s2, self._rtt_fading_s2 = (
            found.at_s,
            square_s2 * found.variance,
            square_s2 * RTT_VARIANCE,
        )

    def _fit_upload(self) -> None:
        found = self._level(self.state.uploads)
        self.upload_bytes_per_s = found.value
        self._upload_at_s, self._upload_variance = found.at_s, found.variance
        self._rate_since_s, self.rate_unsettled = found.since_s, found.unsettled
        self._rate_best = max([sample.value for sample in self.state.uploads], default=0.0)
        # From how many bytes on a transfer is worth being measured.
        telling = int(min(self.upload_bytes_per_s * UPLOAD_S_MIN, UPLOAD_BYTES_ALWAYS))
        self.telling_bytes = max(telling, UPLOAD_BYTES_MIN)


def _none_after(samples: list[Sample], now_s: float) -> list[Sample]:
    return sorted([Sample(min(sample.at_s, now_s), sample.value) for sample in samples])


def _at_s(sample: Sample) -> float:
    return sample.at_s


def _insert(samples: list[Sample], sample: Sample) -> None:
    insort(samples, sample)
    if len(samples) > SAMPLES_MAX:
        del samples[0]


def _last_change(logs: list[float]) -> int:
    """Where the last change is: the index of the first value since."""
    first, known = 0, [logs[0]]
    waiting: float | None = None
    for index in range(1, len(logs)):
        x = logs[index]
        middle = known[(len(known) - 1) // 2]
        if abs(x - middle) > LOG_CHANGE_MIN and abs(x - middle) > _bound(known, middle):
            if waiting is not None and (waiting > middle) == (x > middle):
                # The second in a row: since the one before, something else holds.
                first, known, waiting = index - 1, sorted((waiting, x)), None
                continue
            if waiting is not None:
                insort(known, waiting)
            waiting = x
        else:
            if waiting is not None:
                insort(known, waiting)
                waiting = None
            insort(known, x)
    return first


def _bound(logs: list[float], middle: float) -> float:
    """How far from the middle of what is known a value is no surprise; `logs` are sorted."""
    # The median deviation, which one far value does not move; 1.4826 makes a standard deviation of it.
    deviation = 1.4826 * sorted([abs(x - middle) for x in logs])[(len(logs) - 1) // 2]
    count = len(logs)
    variance = (count * deviation * deviation + SPREAD_STRENGTH * STEADY_SIGMA**2) / (count + SPREAD_STRENGTH)
    return max(LOG_CHANGE_MIN, CHANGE_DEVIATIONS * sqrt(variance))
