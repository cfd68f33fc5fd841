"""What an engine's iterations take, from the attempts in a journal.

While an answer streams, each of its tokens is one iteration; so the time that all of them took is a sum over what was
in those iterations: a base, the sequences that were decoding, their contexts, and the prompts that were computed
meanwhile. The time to first content is a sum of the same. Both are known from when attempts were sent, showed content
and ended.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, inf
from statistics import median

import msgspec

from tidegate.core.leastsquares import non_negative
from tidegate.core.model import Ending
from tidegate.core.step import PAIR_SHARE, StepTime
from tidegate.core.timing import TPOT_TOKENS_MIN
from tidegate.sim.observed import Attempted

# Fewer say less than what the router has learned.
ROWS_MIN = 60
# More say the same again.
ROWS_MAX = 6_000
# What is so many times as far off as most was something else: a load, a crash, a freeze.
FAR, FAR_LEAST = 4.0, 0.15
PASSES = 3
# Who is sent so soon after an answer's end was sent because of it.
JUST_S = 0.005


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    """What iterations take, what passes with each request besides, and how far half of the times are from that."""

    step: StepTime
    request_s: float
    error: float


class _Seen(msgspec.Struct, frozen=True):
    """One attempt: when the last of it was sent, when it showed content and ended; tokens that were computed, in its
    context, and made."""

    sent_s: float
    first_s: float
    end_s: float
    computed: int
    pairs: float
    context: float
    made: int
    whole: bool


def inferred(
    attempts: Sequence[Attempted], batch_tokens: int, rtt_s: float, upload_bytes_per_s: float = inf
) -> Inferred | None:
    """What explains their times best, None where there are too few of them. The way there takes `rtt_s` to and fro, and
    prompts as long as their bytes do."""
    seen = [one for attempt in attempts if (one := _seen(attempt, upload_bytes_per_s)) is not None]
    if len(seen) < ROWS_MIN // 2:
        return None
    rows = _rows(seen, batch_tokens, rtt_s)
    if len(rows) < ROWS_MIN:
        return None
    found = [0.0] * 6
    kept = _some(rows)
    for _ in range(PASSES):
        found = non_negative([_rays(counts, seconds) for seconds, counts in kept], [1.0] * len(kept))
        off = [_off(found, seconds, counts) for seconds, counts in kept]
        bound = max(FAR * median(off), FAR_LEAST)
        kept = [row for row, far in zip(kept, off, strict=True) if far <= bound]
    base_s, alone_s, paired_s, sequence_s, context_s, request_s = found
    step = StepTime(
        base_s=max(base_s, 1e-6),
        per_token_s=alone_s + paired_s,
        per_sequence_s=sequence_s,
        per_context_token_s=context_s,
        per_pair_s=PAIR_SHARE * paired_s,
    )
    return Inferred(step=step, request_s=request_s, error=median(_off(found, s, c) for s, c in kept))


def _some(rows: Sequence[tuple[float, tuple[float, ...]]]) -> list[tuple[float, tuple[float, ...]]]:
    """As many as there is time for, of both kinds, evenly over all of the time."""
    kinds: list[list[tuple[float, tuple[float, ...]]]] = [[], []]
    for row in rows:
        # A request takes something once, with its first content.
        kinds[row[1][-1] > 0.0].append(row)
    return [row for kind in kinds for row in kind[:: max(1, -(-2 * len(kind) // ROWS_MAX))]]


def _rays(counts: tuple[float, ...], seconds: float) -> list[float]:
    """Base, tokens, tokens with as much attention as they may have, sequences, contexts, and what a request takes."""
    base, tokens, pairs, sequences, contexts, request = counts
    return [x / seconds for x in (base, tokens, tokens + PAIR_SHARE * pairs, sequences, contexts, request)]


def _off(found: Sequence[float], seconds: float, counts: tuple[float, ...]) -> float:
    return abs(sum(x * constant for x, constant in zip(_rays(counts, seconds), found, strict=True)) - 1.0)


def _seen(attempt: Attempted, upload_bytes_per_s: float) -> _Seen | None:
    started, ended = attempt.started, attempt.ended
    if ended is None or attempt.ttft_s is None or started.completions != 1:
        return None
    tokens = ended.prompt_tokens or started.prompt_tokens
    cached, made = min(ended.cached_tokens or 0, tokens), ended.output_tokens or 0
    computed = tokens - cached
    return _Seen(
        attempt.sent_s + started.prompt_bytes / upload_bytes_per_s,
        attempt.sent_s + attempt.ttft_s,
        attempt.sent_s + max(ended.e2e_s, attempt.ttft_s),
        computed,
        computed * (cached + computed / 2.0),
        tokens + made / 2.0,
        made,
        ended.ending is Ending.OK,
    )


class _Level:
    """How much of something there was, and its integral over time."""

    def __init__(self, changes: Sequence[tuple[float, float]]) -> None:
        ordered = sorted(changes)
        self._times = [at_s for at_s, _ in ordered]
        self._levels = list(accumulate(by for _, by in ordered))
        gaps = [later - at_s for at_s, later in zip(self._times, self._times[1:], strict=False)]
        self._areas = [0.0, *accumulate(level * gap for level, gap in zip(self._levels, gaps, strict=False))]

    def until(self, at_s: float) -> float:
        """The integral."""
        index = bisect_right(self._times, at_s) - 1
        return self._areas[index] + self._levels[index] * (at_s - self._times[index]) if index >= 0 else 0.0

    def mean(self, from_s: float, to_s: float) -> float:
        """Between two times."""
        return (self.until(to_s) - self.until(from_s)) / (to_s - from_s)

    def at(self, at_s: float) -> float:
        """How much there is at a time, what changes then included."""
        index = bisect_right(self._times, at_s) - 1
        return self._levels[index] if index >= 0 else 0.0


def _spread(spans: Sequence[tuple[float, float, float]]) -> _Level:
    """So much between two times, evenly."""
    rates = [(begin_s, end_s, much / (end_s - begin_s)) for begin_s, end_s, much in spans]
    return _Level([change for begin_s, end_s, rate in rates for change in ((begin_s, rate), (end_s, -rate))])


def _rows(seen: Sequence[_Seen], batch_tokens: int, rtt_s: float) -> list[tuple[float, tuple[float, ...]]]:
    """Seconds, and how much of each thing that takes time was in them."""
    decoding = _Level([change for one in seen for change in ((one.first_s, 1.0), (one.end_s, -1.0))])
    contexts = _Level([change for one in seen for change in ((one.first_s, one.context), (one.end_s, -one.context))])
    # One prompt after the other: from when it came, or from when the one before it was done.
    begun: list[tuple[_Seen, float]] = []
    before_s = 0.0
    for one in sorted(seen, key=lambda one: one.first_s):
        begun.append((one, min(max(one.sent_s + rtt_s / 2.0, before_s), one.first_s - 1e-6)))
        before_s = one.first_s
    prompts = _spread([(begin_s, one.first_s, float(one.computed)) for one, begin_s in begun])
    pairs = _spread([(begin_s, one.first_s, one.pairs) for one, begin_s in begun])
    ends = sorted(one.end_s for one in seen)
    rows: list[tuple[float, tuple[float, ...]]] = []
    for one in seen:
        took_s = one.first_s - one.sent_s - rtt_s
        if took_s > 1e-4:
            tokens = prompts.until(one.first_s) - prompts.until(one.sent_s)
            beside = decoding.mean(one.sent_s, one.first_s)
            # One under way when it came is waited for: half of it on average, and all of it where an answer had just
            # ended, after which it has begun.
            ended = bisect_right(ends, one.sent_s) - bisect_right(ends, one.sent_s - JUST_S)
            waits = (1.0 if ended else 0.5) * min(1.0, decoding.at(one.sent_s))
            steps = max(1, ceil(tokens / batch_tokens)) + waits
            attended = pairs.until(one.first_s) - pairs.until(one.sent_s)
            context = contexts.mean(one.sent_s, one.first_s)
            rows.append((took_s, (steps, tokens + steps * beside, attended, steps * beside, steps * context, 1.0)))
        took_s, steps = one.end_s - one.first_s, one.made - 1.0
        if one.whole and one.made >= TPOT_TOKENS_MIN and took_s > 1e-4:
            tokens = (prompts.until(one.end_s) - prompts.until(one.first_s)) / steps
            attended = (pairs.until(one.end_s) - pairs.until(one.first_s)) / steps
            beside, context = decoding.mean(one.first_s, one.end_s), contexts.mean(one.first_s, one.end_s)
            rows.append((took_s / steps, (1.0, tokens + beside, attended, beside, context, 0.0)))
    return rows
