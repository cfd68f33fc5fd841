"""A fleet of engines behind an API, as its clients see it: latency that no queue of ours explains, limits, a cache.

What it costs stands at the endpoint (`core.price`), like every price.
"""

import math
from random import Random
from typing import Annotated

from msgspec import Meta

from tidegate.core.bucket import Bucket
from tidegate.core.model import Record
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.prefixes import Prefixes

OK = 200
TOO_MANY = 429
FAULTY = 500
UNAVAILABLE = 503

# Requests whose attempts are counted: those of minutes, where a request is tried again within seconds.
ATTEMPTS_KEPT = 65_536
# Less than that a bucket cannot lack: what is filled up in time is filled up but for rounding.
_ROUNDING_S = 1e-6

_Seconds = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class Spread(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """What a time is multiplied by, z being standard normal: exp(`sigma` z) for most requests.

    For the share `tail` of them it is exp(`tail_sigma` |z|), which is never less than one. So the median is a little
    above one, and what the factors belong to a little below the median that was seen.
    """

    sigma: Annotated[float, Meta(ge=0, le=3)] = 0.0
    tail: _Share = 0.0
    tail_sigma: Annotated[float, Meta(ge=0, le=3)] = 0.0

    def drawn(self, draw: Random) -> float:
        """One of these factors: two numbers of the stream, whatever they say."""
        share, z = draw.random(), draw.gauss(0.0, 1.0)
        return math.exp(self.tail_sigma * abs(z) if share < self.tail else self.sigma * z)


class CacheProfile(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """How prompts that begin alike are remembered: for `ttl_s` after the last of them, whole blocks of so many tokens.

    Less than `tokens_min` in common counts as nothing. The share `met` of requests reaches a part of the fleet that
    remembers, the rest begins anew.
    """

    ttl_s: Annotated[float, Meta(gt=0)] = 300.0
    block_tokens: Annotated[int, Meta(ge=1)] = 128
    tokens_min: Annotated[int, Meta(ge=0)] = 1024
    met: _Share = 1.0


class ApiProfile(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """What an API is like. A limit that is None is none.

    The time to first token is about `ttft_s`, and what each cached and each uncached token adds, times the factor of
    the hour of day (UTC) in `load`, 24 of them or none.

    Limits are token buckets, which hold a minute's worth: tokens are those of prompts as they come, and those of output
    once it has ended. `retry_after_s` is what a full house says, which cannot know; a bucket says how long it needs.
    A model that nobody used for `idle_s` takes `cold_start_s` to come back; without `idle_s` it is always there.
    The share `errors` of requests fails, with `error_status`, after one of `error_times_s` where there are any. Of
    the streams that begin the share `broken` breaks off, anywhere in the answer. Whoever else is not served is told
    after `refusal_s`.
    """

    ttft_s: _Seconds
    ttft_s_per_cached_token: _Seconds = 0.0
    ttft_s_per_uncached_token: _Seconds = 0.0
    ttft_spread: Spread = Spread()
    tpot_s: _Seconds
    tpot_spread: Spread = Spread()
    load: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    requests_per_minute: Annotated[float, Meta(ge=1)] | None = None
    tokens_per_minute: Annotated[float, Meta(ge=1)] | None = None
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    retry_after_s: Annotated[float, Meta(gt=0)] | None = None
    cache: CacheProfile | None = None
    idle_s: _Seconds | None = None
    cold_start_s: _Seconds = 0.0
    errors: _Share = 0.0
    error_status: Annotated[int, Meta(ge=500, le=599)] = FAULTY
    error_times_s: tuple[_Seconds, ...] = ()
    broken: _Share = 0.0
    refusal_s: _Seconds = 0.0

    def __post_init__(self) -> None:
        if len(self.load) not in (0, 24):
            raise ValueError("`load` must have a factor for each of the 24 hours, or none")

    def ttft_s_usual(self, cached_tokens: int, uncached_tokens: int) -> float:
        """Before load and spread."""
        return (
            self.ttft_s
            + cached_tokens * self.ttft_s_per_cached_token
            + uncached_tokens * self.ttft_s_per_uncached_token
        )


class Answer(Record, frozen=True, kw_only=True):
    """What a request meets. Times count from when it arrived there.

    With a `status` other than 200, `ttft_s` is when that is said, and `retry_after_s` when it may be worth coming back,
    None where nothing is said. A stream breaks off when the share `breaks_at` of it has come, None where it does not.
    """

    status: int
    ttft_s: float
    tpot_s: float = 0.0
    cached_tokens: int = 0
    retry_after_s: float | None = None
    breaks_at: float | None = None


class Api:
    """An API that remembers who is there. Times of calls must not fall."""

    def __init__(self, profile: ApiProfile, chance: Chance, name: str) -> None:
        self.profile = profile
        self.slowdown = 1.0
        self.down = False
        self._chance = chance
        self._name = name
        self._requests = Bucket(profile.requests_per_minute, 0.0) if profile.requests_per_minute else None
        self._tokens = Bucket(profile.tokens_per_minute, 0.0) if profile.tokens_per_minute else None
        self._prefixes = Prefixes(profile.cache.ttl_s) if profile.cache else None
        self._attempts: dict[str, int] = {}
        self._open: dict[str, tuple[float, float]] = {}  # when its first token comes, and seconds per token after it
        self._used_at_s = self._warm_at_s = -math.inf

    def answer(self, job: Job, now_s: float) -> Answer:
        """Take the request in or refuse it. Of one that is served, `ended` must be told."""
        profile = self.profile
        if self.down:
            return Answer(status=UNAVAILABLE, ttft_s=profile.refusal_s)
        refused = self._refused(job, now_s)
        if refused is not None:
            return refused
        attempt = self._attempts.pop(job.request.id, 0)
        if len(self._attempts) >= ATTEMPTS_KEPT:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[job.request.id] = attempt + 1
        # By request and attempt that was taken in: neither other requests nor the time at which it comes change what it
        # draws.
        draw = self._chance.at("api", self._name, job.request.id, attempt)
        if draw.random() < profile.errors:
            times_s = profile.error_times_s or (profile.refusal_s,)
            return Answer(status=profile.error_status, ttft_s=draw.choice(times_s))
        if self._tokens is not None:
            self._tokens.take(job.prompt_tokens, now_s)
        cached_tokens = self._cached_tokens(job, draw.random(), now_s)
        ttft_s = profile.ttft_s_usual(cached_tokens, job.prompt_tokens - cached_tokens)
        ttft_s *= profile.ttft_spread.drawn(draw) * self.slowdown
        if profile.load:
            ttft_s *= profile.load[int(now_s // 3600.0) % 24]
        ttft_s += self._cold_s(now_s)
        tpot_s = profile.tpot_s * profile.tpot_spread.drawn(draw) * self.slowdown
        breaks_at = draw.random() if profile.broken and draw.random() < profile.broken else None
        self._open[job.request.id] = (now_s + ttft_s, tpot_s)
        return Answer(status=OK, ttft_s=ttft_s, tpot_s=tpot_s, cached_tokens=cached_tokens, breaks_at=breaks_at)

    def limit(self, requests_per_minute: float | None, now_s: float) -> None:
        """From now on so many requests a minute are served, None is without a limit; the first minute's are there."""
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, now_s)

    def ended(self, job: Job, now_s: float) -> None:
        """It is over there: finished, failed or cancelled. Nothing where it was not served, or has ended before."""
        begun = self._open.pop(job.request.id, None)
        if begun is None:
            return
        self._used_at_s = now_s
        first_s, tpot_s = begun
        if self._tokens is not None and now_s >= first_s:
            bound = job.request.output_tokens_max
            output_tokens = job.output_tokens if bound is None else min(bound, job.output_tokens)
            if tpot_s > 0.0:
                output_tokens = min(output_tokens, 1 + int((now_s - first_s) / tpot_s + _ROUNDING_S))
            self._tokens.take(output_tokens, now_s)

    def _refused(self, job: Job, now_s: float) -> Answer | None:
        """The refusal, unless it may come in; then it counts as a request."""
        profile = self.profile
        if profile.concurrency is not None and len(self._open) >= profile.concurrency:
            return Answer(status=TOO_MANY, ttft_s=profile.refusal_s, retry_after_s=profile.retry_after_s)
        wait_s = 0.0
        if self._tokens is not None:
            if job.prompt_tokens > self._tokens.burst:  # more than there ever is: no use in coming back
                return Answer(status=TOO_MANY, ttft_s=profile.refusal_s)
            wait_s = self._tokens.wait_s(job.prompt_tokens, now_s)
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(1.0, now_s))
        if wait_s > _ROUNDING_S:
            # The header has whole seconds.
            return Answer(status=TOO_MANY, ttft_s=profile.refusal_s, retry_after_s=float(math.ceil(wait_s)))
        if self._requests is not None:
            self._requests.take(1.0, now_s)
        return None

    def _cached_tokens(self, job: Job, share: float, now_s: float) -> int:
        """Prompt tokens that are remembered; from now on all of its whole blocks are."""
        cache = self.profile.cache
        if cache is None or self._prefixes is None:
            return 0
        blocks = self._prefixes.seen(job.blocks, now_s)
        self._prefixes.keep(job.blocks, now_s)
        if share >= cache.met:
            return 0
        # The last token is always computed: out of it comes the first new one.
        tokens = min(blocks * job.block_tokens, job.prompt_tokens - 1)
        tokens -= tokens % cache.block_tokens
        return tokens if tokens >= cache.tokens_min else 0

    def _cold_s(self, now_s: float) -> float:
        """What is left of a start from cold: whoever comes while the model is loaded waits for the same load."""
        idle_s = self.profile.idle_s
        if idle_s is None:
            return 0.0
        if not self._open and now_s > self._warm_at_s and now_s - self._used_at_s > idle_s:
            self._warm_at_s = now_s + self.profile.cold_start_s
        self._used_at_s = now_s
        return max(0.0, self._warm_at_s - now_s)


# --- presets ----------------------------------------------------------------------------------------------------
# `python -m bench.fit_api` prints what the data says beside these constants. They are what clients saw, so the way to
# the API is in them. Limits are an account's, and so not in them, unless the measurement ran into one.

# How busy a fleet is by the hour of day, UTC: an assumption, that of offices on both sides of the Atlantic. A sixth
# more at five in the afternoon, a sixth less at five in the morning.
OFFICE_HOURS = tuple(round(1.0 + math.cos(math.pi * (hour - 17) / 12.0) / 6.0, 3) for hour in range(24))

# One size of prompt does not tell what a token costs: 10,000 of them a second is an assumption.
_LLMPERF_S_PER_TOKEN = 0.0001


def _llmperf(
    ttft_s: float,
    ttft_spread: tuple[float, float, float],
    tpot_s: float,
    tpot_spread: tuple[float, float, float],
    *,
    requests_per_minute: float | None = None,
    errors: float = 0.0,
) -> ApiProfile:
    """One provider of Llama 2 70B: 150 requests of 550 + 150 tokens, five at once, in December 2023.

    From the LLMPerf leaderboard of the Ray project (Apache-2.0). Spreads are `sigma`, `tail` and `tail_sigma`.
    """
    sigma, tail, tail_sigma = ttft_spread
    tpot_sigma, tpot_tail, tpot_tail_sigma = tpot_spread
    return ApiProfile(
        ttft_s=ttft_s,
        ttft_s_per_cached_token=_LLMPERF_S_PER_TOKEN,
        ttft_s_per_uncached_token=_LLMPERF_S_PER_TOKEN,
        ttft_spread=Spread(sigma=sigma, tail=tail, tail_sigma=tail_sigma),
        tpot_s=tpot_s,
        tpot_spread=Spread(sigma=tpot_sigma, tail=tpot_tail, tail_sigma=tpot_tail_sigma),
        requests_per_minute=requests_per_minute,
        errors=errors,
    )


PRESETS: dict[str, ApiProfile] = {
    # 3,722 streamed requests of coding agents in 2025 (kv-cache-tester, Apache-2.0), prompts of 10k tokens and more.
    # What a session said before counted as remembered, so that a cache that was missed is in the tail, not in `met`.
    "commercial-long-context": ApiProfile(
        ttft_s=1.189,
        ttft_s_per_cached_token=8.56e-06,
        ttft_s_per_uncached_token=2.3e-05,
        ttft_spread=Spread(sigma=0.207, tail=0.388, tail_sigma=0.518),
        tpot_s=0.0158,
        tpot_spread=Spread(sigma=0.26, tail=0.312, tail_sigma=0.261),
        load=OFFICE_HOURS,
        cache=CacheProfile(ttl_s=300.0, block_tokens=64, tokens_min=1024),
    ),
    "llmperf-2023-anyscale": _llmperf(0.144, (0.061, 0.499, 0.362), 0.0143, (0.127, 0.114, 0.507)),
    # 49 of its 150 failed, of no known cause.
    "llmperf-2023-bedrock": _llmperf(0.321, (0.086, 0.25, 0.3), 0.0459, (0.009, 0.409, 0.074), errors=0.327),
    "llmperf-2023-fireworks": _llmperf(0.432, (0.242, 0.22, 0.307), 0.0241, (0.064, 0.154, 0.099)),
    "llmperf-2023-groq": _llmperf(0.165, (0.174, 0.041, 0.305), 0.0053, (0.085, 0.01, 0.159)),
    # It served 20 and refused 130.
    "llmperf-2023-lepton": _llmperf(
        0.845, (0.084, 0.342, 0.084), 0.0297, (0.047, 0.499, 0.047), requests_per_minute=20.0
    ),
    "llmperf-2023-perplexity": _llmperf(0.291, (0.051, 0.498, 0.33), 0.033, (0.085, 0.01, 0.097)),
    # A third of its requests waited, up to a minute.
    "llmperf-2023-replicate": _llmperf(1.066, (0.09, 0.334, 1.995), 0.0961, (0.029, 0.192, 0.975)),
    "llmperf-2023-together": _llmperf(0.558, (0.143, 0.242, 0.143), 0.015, (0.073, 0.189, 0.221)),
}
