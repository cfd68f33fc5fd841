"""From what was timed to the constants of an engine with continuous batching, iteration by iteration.

An iteration takes a base, and so much for each token in it, for each sequence that decodes, for each token of their
contexts, and for each pair of a prompt's token and one before it. A request takes so much besides.
"""

from collections.abc import Sequence
from math import ceil

import msgspec

from tidegate.core.step import PAIR_SHARE
from tidegate.lab.calibrate import PAD_BYTES, TOO_SHORT, Beside, CalibrateError, Seen
from tidegate.lab.fit import Fit, Point, Timing, error, fit

COLUMNS = (
    "step.base_s",
    "step.per_token_s",
    "step.per_sequence_s",
    "step.per_context_token_s",
    "step.per_pair_s",
    "request_s",
)
RAYS = (
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0, PAIR_SHARE, 0.0),
    (0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
)
"""By `COLUMNS`: each constant alone, but for pairs, which come with tokens."""
BATCH_TOKENS = 2048  # the default of llama.cpp, and of vLLM where it is not larger: where a prompt was not split
UPLOAD_BYTES_PER_S_MAX = 1e9  # beyond, an upload is lost in what else differs between two requests
ERROR_MAX = 0.15  # beyond, the constants do not say what was seen
SPREAD_MAX = 0.2  # of repeats: an idle engine on an idle machine has a tenth of it
REPEATS_MIN = 3  # fewer have no spread to speak of


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """A whole number and where it lies; `high` is None where nothing bounds it."""

    value: int
    low: int
    high: int | None


class Constants(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is like. `fits` is by the names of `COLUMNS`, `error` how far measurements are from them."""

    fits: dict[str, Fit]
    batch_tokens: Bounds
    slots: Bounds
    keeps_prefixes: bool
    rtt_s: Fit
    upload_bytes_per_s: float
    error: float
    remarks: tuple[str, ...]


def constants(seen: Seen, slots: int | None) -> Constants:
    """What explains best what was seen; `slots` is what the engine told. Raises `CalibrateError`."""
    if not seen.decoding:
        raise CalibrateError(*TOO_SHORT)
    if not seen.rtt_s:
        raise CalibrateError("no round trip could be timed", "try again, or look at the engine's own log")
    batch = batch_tokens(seen.beside, max(one.prompt_tokens for many in seen.prompts.values() for one in many))
    points = _points(seen, batch.value)
    fits = fit(points, RAYS)
    off = error(points, [one.value for one in fits])
    rtt_s = sorted(seen.rtt_s)
    least_s = Fit(value=rtt_s[0], low=rtt_s[0], high=rtt_s[int(0.95 * (len(rtt_s) - 1))])
    named = dict(zip(COLUMNS, fits, strict=True))
    # What passes with each request holds its round trip.
    whole = named["request_s"]
    named["request_s"] = Fit(**{key: max(0.0, getattr(whole, key) - rtt_s[0]) for key in ("value", "low", "high")})
    return Constants(
        fits=named,
        batch_tokens=batch,
        slots=_slots(seen, slots),
        keeps_prefixes=any(seen.kept),
        rtt_s=least_s,
        upload_bytes_per_s=_upload_bytes_per_s(seen),
        error=off,
        remarks=(*seen.remarks, *_doubts(points, off)),
    )


def batch_tokens(seen: Sequence[Beside], longest: int) -> Bounds:
    """How many tokens an iteration takes at most: of a prompt's, there is one for the answer beside it.

    A power of two, where one explains what was seen: engines are rarely set to anything else. Where the longest prompt
    was not split, no more is known than that.
    """
    low, high = longest + 1, None
    if seen:
        usual = sorted(seen, key=lambda one: one.iterations / one.prompt_tokens)[len(seen) // 2]
        low = ceil(usual.prompt_tokens / usual.iterations) + 1
        if usual.iterations > 1:
            high = ceil(usual.prompt_tokens / (usual.iterations - 1))
    power = 1 << (low - 1).bit_length()
    if high is None:
        return Bounds(value=max(BATCH_TOKENS, power), low=low if seen else 1, high=None)
    return Bounds(value=power if power <= high else low, low=low, high=high)


def _points(seen: Seen, batch: int) -> list[Point]:
    points = []
    for name, prompts in seen.prompts.items():
        timings = []
        for one in prompts:
            new = one.prompt_tokens - one.cached_tokens
            pairs = (one.prompt_tokens**2 - one.cached_tokens**2) / 2
            counts = (float(ceil(new / batch)), float(new), 0.0, 0.0, pairs, 1.0)
            timings.append(Timing(seconds=one.ttft_s, counts=counts))
        points.append(Point(name=name, timings=tuple(timings)))
    for name, steps in seen.decoding.items():
        points.append(
            Point(
                name=name,
                timings=tuple(
                    Timing(seconds=seconds, counts=(1.0, float(sequences), float(sequences), context, 0.0, 0.0))
                    for seconds, sequences, context in steps
                ),
            )
        )
    if seen.beside:
        points.append(Point(name="prompt beside an answer", timings=tuple(_mixed(one) for one in seen.beside)))
    return points


def _mixed(one: Beside) -> Timing:
    """Iterations with a prompt's tokens and one token of an answer in each."""
    steps, tokens = float(one.iterations), float(one.prompt_tokens)
    counts = (steps, tokens + steps, steps, steps * one.context_tokens, tokens**2 / 2, 0.0)
    return Timing(seconds=one.seconds, counts=counts)


def _slots(seen: Seen, told: int | None) -> Bounds:
    if told is not None:
        return Bounds(value=told, low=told, high=told)
    return Bounds(value=seen.at_once, low=seen.at_once, high=seen.at_once if seen.queued else None)


def _upload_bytes_per_s(seen: Seen) -> float:
    """By what the same short prompt takes longer with many bytes around it, undisturbed: the rate is that, at least."""
    plain = next(iter(seen.prompts.values()))
    longer_s = min(seen.padded_s) - min(one.ttft_s for one in plain)
    return min(UPLOAD_BYTES_PER_S_MAX, PAD_BYTES / longer_s) if longer_s > 0.0 else UPLOAD_BYTES_PER_S_MAX


def _doubts(points: Sequence[Point], off: float) -> list[str]:
    """What makes the constants less sure than their intervals say."""
    doubts = []
    spread = [point for point in points if len(point.timings) >= REPEATS_MIN and point.spread > SPREAD_MAX]
    if spread:
        worst = max(spread, key=lambda point: point.spread)
        doubts.append(
            f"repeats differ ({worst.name}: by {worst.spread:.0%}): others use the engine, or its machine is busy"
        )
    if off > ERROR_MAX:
        doubts.append(f"the constants are {off:.0%} from what was measured: it behaves otherwise than they can say")
    return doubts
