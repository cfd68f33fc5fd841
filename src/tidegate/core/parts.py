"""What a time is the sum of: seconds for each part of the work, as the prior has them, before anything is learned.

Where the prior says nothing of a part, it is measured against what it may be at most, and believed to take nothing.
"""

from math import ceil, log
from typing import Final

from tidegate.core.cached import Cached
from tidegate.core.latency import Sent
from tidegate.core.model import Ended, Endpoint
from tidegate.core.prior import Prior, crowd
from tidegate.core.reserve import Reservation

# No engine answers sooner; it also keeps logarithms finite where clocks and declared speeds do not.
ENGINE_S_MIN: Final = 1e-3
TPOT_S_MIN: Final = 1e-5
# At so many tokens, attention takes as long as all else: models are between 8k and 100k.
ATTENTION_TOKENS: Final = 32_768
# At so many tokens of context at least, reading them takes as long as reading the weights: a model of 135 million on a
# CPU. One of 8 billion of 16 bits on a GPU is there at 131,072, and a sixty-fourth of a part is learned as well.
CONTEXT_TOKENS: Final = 2_048
# One more sequence in a batch adds a hundredth where much is read for all, and much more where little is.
SLOWDOWN: Final = 0.05
# Tokens of prompts in one iteration, where the engine did not say.
CHUNK_TOKENS: Final = 2048
# Of a prompt so much is taken for cached as is more likely than not, and counted on as is so nearly always.
LIKELY: Final = 0.5
SURE: Final = 0.9
# Of requests that are not ours nothing is told but that they are there. Of the Azure traces, conversations have a mean
# of 1,155 tokens of prompt, and code has 2,048.
OTHERS_TOKENS: Final = 1_000


# Of the parts to first token: what is queued, and the iteration under way, are in seconds as learned.
FIRST_MEASURED: Final[tuple[int, ...]] = (3, 5, 6)


class Parts:
    """The parts of the time to first token, and of the time per token, of one endpoint.

    To first token: overhead, tokens, attention among them, what is queued before, reading the contexts of others with
    each chunk, the iteration that is under way and prompts that join it, and what waits in the engine that is not ours.
    Per token: weights, others at the time, contexts, prompts of others that come meanwhile, others in the mean of the
    last while, how much of that went into prompts, and what runs that is not ours.
    """

    __slots__ = (
        "attention_s",
        "chunk_s",
        "chunk_tokens",
        "context_s",
        "crowd_s",
        "decode_s",
        "fading",
        "first_believed",
        "foreign_context_s",
        "foreign_s",
        "overhead_s",
        "step_s",
        "token_believed",
        "token_s",
    )

    def __init__(self, endpoint: Endpoint, prior: Prior) -> None:
        # On declared hardware, prompts are computed chunk by chunk in iterations with the tokens of others.
        machine = endpoint.machine if endpoint.shares_compute else None
        chunked = machine is not None
        self.chunk_tokens = machine.setup.batch_tokens if machine is not None else prior.batch_tokens or CHUNK_TOKENS
        self.overhead_s = max(prior.overhead_s, ENGINE_S_MIN)
        self.token_s = prior.prefill_s_per_token
        self.chunk_s = max(self.chunk_tokens * self.token_s, ENGINE_S_MIN)
        self.attention_s = (prior.prefill_s_per_token2 or prior.prefill_s_per_token / ATTENTION_TOKENS) / 2.0
        self.decode_s = max(prior.decode_s_per_token, TPOT_S_MIN)
        self.crowd_s = self.decode_s * (prior.batch_slowdown or SLOWDOWN)
        self.fading = prior.batch_fading
        self.context_s = prior.decode_s_per_context_token or self.decode_s / CONTEXT_TOKENS
        # Where prompts are read by slot, and not as they came: what one step of one of them takes.
        self.step_s = None if prior.batch_tokens is None else prior.batch_tokens * prior.prefill_s_per_token
        attends, crowds = float(prior.prefill_s_per_token2 > 0.0), float(prior.batch_slowdown > 0.0)
        contexts, chunks = float(prior.decode_s_per_context_token > 0.0), float(chunked)
        self.first_believed = [1.0, 1.0, attends, 1.0, chunks, 0.5 * chunks, 1.0]
        self.token_believed = [1.0, crowds, contexts, chunks, 0.0, 0.0, crowds]
        # What somebody else's prompt takes, and what reading its context and those of its like adds to each token.
        self.foreign_s = self.overhead_s + OTHERS_TOKENS * (self.token_s + OTHERS_TOKENS * self.attention_s * attends)
        self.foreign_context_s = OTHERS_TOKENS * self.context_s * contexts

    def first(
        self,
        tokens: float,
        cached_tokens: float,
        queue_s: float,
        load: int,
        others_tokens: float,
        tpot_s: float,
        meanwhile_s: float,
        foreign: float,
    ) -> list[float]:
        """To first token: so many tokens, some cached, behind `queue_s` of other prompts, beside `load` others.

        While it is computed, prompts of `meanwhile_s` are expected to come. `foreign` requests that are not ours wait
        as well.
        """
        beside_s, under_way_s = 0.0, meanwhile_s
        computed = tokens - cached_tokens
        if load:
            beside_s = ceil(computed / self.chunk_tokens) * others_tokens * self.context_s
            under_way_s += tpot_s
        return [
            self.overhead_s,
            computed * self.token_s,
            # What is computed attends to what is cached, too.
            computed * (tokens + cached_tokens) * self.attention_s,
            queue_s,
            beside_s,
            under_way_s,
            foreign * self.foreign_s,
        ]

    def token(
        self,
        tokens: float,
        output_tokens: float,
        load: float,
        others_tokens: float,
        load_mean: float,
        busy: float,
        foreign: float,
    ) -> list[float]:
        """Per token beside `load` others with so many tokens, of late `load_mean`; prompts took `busy` of the time.

        `foreign` requests that are not ours run as well.
        """
        if output_tokens < 1.0:
            output_tokens = 1.0
        # Most engines slow down by as much for each.
        crowd_now, crowd_mean, foreign_s = load, load_mean, 0.0
        if self.fading < 1.0:
            crowd_now, crowd_mean = crowd(self.fading, load), crowd(self.fading, load_mean)
        if foreign:
            foreign_s = self.crowd_s * (crowd(self.fading, load + foreign) - crowd(self.fading, load))
            foreign_s += foreign * self.foreign_context_s
        return [
            self.decode_s,
            self.crowd_s * crowd_now,
            # On average, half of its output is context too.
            self.context_s * (tokens + output_tokens / 2.0 + others_tokens),
            # By Little's law, as many others come during an answer as are there at any time, with prompts like theirs.
            others_tokens * self.token_s / output_tokens,
            self.crowd_s * crowd_mean,
            self.decode_s * busy,
            foreign_s,
        ]

    def computed(self, sent: Sent, tokens: float, cached_tokens: float) -> list[float]:
        """The parts of what was sent, had it had so many tokens, and so many of them cached."""
        parts = list(sent.parts)
        parts[1] = (tokens - cached_tokens) * self.token_s
        parts[2] = (tokens - cached_tokens) * (tokens + cached_tokens) * self.attention_s
        return parts

    # --- what is cached -----------------------------------------------------------------------------------------

    def outcomes(
        self, cached: Cached, taken: float, first_s: float, factors: list[float], sent: Sent, stretch: float
    ) -> tuple[float, float, tuple[tuple[float, float], ...]]:
        """Time to first content with what is cached for sure, with what is cached on average, and with as much as may
        be, each with its probability; it is `first_s` where `taken` tokens are, as `sent` says, by so much of a
        `stretch` by others.
        """
        tokens, steps, factor = cached.prompt.tokens, cached.steps, stretch * sent.median_s / sent.raw_s
        rest_s = first_s - factor * self._left_s(factors, tokens, taken)
        sure_s = rest_s + factor * self._left_s(factors, tokens, cached.at_least(SURE))
        mean_s = rest_s + factor * self._left_s(factors, tokens, cached.tokens)
        after_s, likely = rest_s + factor * self._left_s(factors, tokens, 0.0), 1.0
        outcomes = []
        for end, p in steps:
            outcomes.append((max(after_s, ENGINE_S_MIN), likely - p))
            after_s, likely = rest_s + factor * self._left_s(factors, tokens, end), p
        if outcomes:
            outcomes.append((max(after_s, ENGINE_S_MIN), likely))
        return max(sure_s, ENGINE_S_MIN), max(mean_s, ENGINE_S_MIN), tuple(outcomes)

    def _left_s(self, factors: list[float], tokens: float, cached_tokens: float) -> float:
        """What is left of a prompt's tokens takes so long, where so many are cached."""
        token_s, attention_s = factors[1] * self.token_s, factors[2] * self.attention_s
        return (tokens - cached_tokens) * (token_s + attention_s * (tokens + cached_tokens))

    def told(self, sent: Reservation, fact: Ended, took_s: float, factors: list[float]) -> Sent:
        """What would have been predicted with what was cached; where that is not told, with what fits best."""
        given, tokens = sent.given, float(sent.prompt_tokens)
        spans = () if given is None else given.spans
        if fact.prompt_tokens and (fact.cached_tokens or (spans and fact.cached_tokens is not None)):
            share = min(1.0, fact.cached_tokens / fact.prompt_tokens)
            return sent.ttft.had(factors, self.computed(sent.ttft, tokens, share * tokens))
        if not spans:
            return sent.ttft
        found, end = sent.ttft.had(factors, self.computed(sent.ttft, tokens, 0.0)), 0.0
        off = abs(log(took_s / found.median_s))
        for span in spans:
            end += span.tokens
            one = sent.ttft.had(factors, self.computed(sent.ttft, tokens, min(end, tokens)))
            if (one_off := abs(log(took_s / one.median_s))) < off:
                found, off = one, one_off
        return found
