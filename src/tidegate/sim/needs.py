"""The least that a request which keeps its promise takes of an engine of ours: for bounds, so never more than it takes.

What is told here holds for every iteration of `engine` alone, so it holds for any part of one too, and work may be
counted where it falls: of an iteration that lasts from one span of time into the next, each has its share.
"""

from math import ceil, inf

import msgspec

from tidegate.core.step import Linear, StepTime
from tidegate.sim.engine import EngineProfile
from tidegate.sim.kv import BLOCK_TOKENS, blocks_for

# Where reading and computing overlap, so many straight lines stand for the curve: within 3 % of it.
TANGENTS = 6


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One request as somebody knows it who knows everything.

    At least `prompt_tokens` of its prompt have to be computed: what no prompt before it could leave in a cache, in the
    order of arrival, of `context_tokens` in all. Those are of so many `prompts`, of which one at a time is in memory.
    Its promise is kept where its first content is there `first_by_s` after its arrival, and each further token of its
    output takes `token_by_s` on average at most; infinite is no promise. That is worth `worth_usd`. The remote costs
    `remote_usd`, the least that it may come to; there the promise can be kept, or not. Of our engines those in `pools`
    may serve it, by their number; None is all of them.
    """

    id: str
    arrived_s: float
    prompt_tokens: int
    context_tokens: int
    prompts: int = 1
    output_tokens: int
    first_by_s: float = inf
    token_by_s: float = inf
    worth_usd: float
    remote_usd: float
    remote_kept: bool = True
    pools: tuple[int, ...] | None = None

    def may_go_to(self, number: int) -> bool:
        """Whether the pool of this number may serve it."""
        return self.pools is None or number in self.pools

    @property
    def held_tokens(self) -> int:
        """What memory has to hold of it in the end: of several prompts, of one."""
        return -(-self.context_tokens // self.prompts) + self.output_tokens


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of ours, of which `slots` are used at most, by nobody but the work in question.

    It computes nothing while it is `down`, or stands still, from a time to a time. From each time in `slowdown` on,
    every iteration that begins takes so many times what the profile says. What is ours is sunk: its time costs nothing.
    """

    profile: EngineProfile
    slots: int
    down: tuple[tuple[float, float], ...] = ()
    slowdown: tuple[tuple[float, float], ...] = ()


class Line(msgspec.Struct, frozen=True):
    """An iteration takes so many seconds at least, and more for each token in it: of prompts, or of who decodes.

    What pairs, sequences and contexts take comes on top.
    """

    iteration_s: float
    prompt_token_s: float
    decoded_token_s: float


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one request takes of an engine at its usual speed.

    A prompt of `prompt_tokens` is in `prompt_iterations`, and takes `prefill_s` besides what tokens do (`Line`); then
    in each of `decodes` iterations one token is made, which take `decode_s` besides. So much is alike from token to
    token. What grows from one to the next is apart, being little at first: `prefill_growth_s`, `decode_growth_s`.
    Memory holds `kv_tokens` in each iteration, and in all of them together `kv_growth` more.

    Alone in the engine it has its first token after `first_s`, and the others after `rest_s` more.
    """

    prompt_tokens: int
    prompt_iterations: float
    prefill_s: float
    prefill_growth_s: float
    decodes: int
    decode_s: float
    decode_growth_s: float
    kv_tokens: int
    kv_growth: float
    first_s: float
    rest_s: float


def lines(profile: EngineProfile) -> list[Line]:
    """What an iteration takes at least, each of them by itself."""
    step = profile.step
    token_s, decoded_s = step.per_token_s, step.per_token_s / step.ranks
    if step.linear is None:
        return [Line(step.base_s, token_s, decoded_s)]
    return [
        Line(step.base_s + read_s, token_s + prompt_s, decoded_s + decode_s)
        for read_s, prompt_s, decode_s in _tangents(step.linear, step.ranks, profile.batch_tokens)
    ]


def is_tight(pool: Pool, pieces: list[Piece]) -> bool:
    """Whether memory can run short, as far as these pieces go, so that somebody is preempted."""
    longest = max((blocks_for(piece.held_tokens) for piece in pieces), default=0)
    return slots_of(pool) * longest > pool.profile.kv_tokens // BLOCK_TOKENS


def slots_of(pool: Pool) -> int:
    """How many run at once."""
    return min(pool.slots, pool.profile.slots_at_once)


def need(piece: Piece, profile: EngineProfile, iteration: list[Line], *, tight: bool) -> Need | None:
    """The least that it takes; None where it never fits. `iteration` are the profile's `lines`."""
    if blocks_for(piece.held_tokens) > profile.kv_tokens // BLOCK_TOKENS:
        return None
    step, batch = profile.step, profile.batch_tokens
    # The last token is computed in any case: the answer begins from it.
    prompt = max(1, piece.prompt_tokens)
    context = max(prompt, piece.context_tokens)
    decodes = max(0, piece.output_tokens - 1)
    # What has to be computed is the end of the prompt: each of its tokens has all before it to look at.
    prefill_s = step.per_pair_s * prompt * (context - prompt)
    prefill_growth_s = step.per_pair_s * prompt * prompt / 2.0
    decode_s = decodes * (step.per_sequence_s + step.per_context_token_s * context) / step.ranks
    growth = decodes * (decodes - 1) / 2.0
    decode_growth_s = growth * step.per_context_token_s / step.ranks
    if tight:
        decode_s, decode_growth_s = 0.0, _preempted_s(step, context, decodes)
    alone_s = [
        (
            ceil(prompt / batch) * line.iteration_s + prompt * line.prompt_token_s + prefill_s + prefill_growth_s,
            decodes * (line.iteration_s + line.decoded_token_s) + decode_s + decode_growth_s,
        )
        for line in iteration
    ]
    return Need(
        prompt_tokens=prompt,
        # An iteration takes no more than `batch` tokens, and the share that it takes of a shorter prompt is at most 1.
        prompt_iterations=max(1.0, prompt / batch),
        prefill_s=prefill_s,
        prefill_growth_s=prefill_growth_s,
        decodes=decodes,
        decode_s=decode_s,
        decode_growth_s=decode_growth_s,
        # Of memory that is shared, each request has what it computes itself.
        kv_tokens=-(-prompt // piece.prompts),
        kv_growth=growth,
        first_s=max(first for first, _ in alone_s),
        rest_s=max(rest for _, rest in alone_s),
    )


def _preempted_s(step: StepTime, context: int, decodes: int) -> float:
    """Seconds besides those of iterations and tokens for so many tokens, each made in the cheaper of two ways.

    A sequence that is preempted computes the tokens again that it has generated, and maybe nothing else, whose prompt
    may be cached: then the next token comes without a step of decoding.
    """
    saved_s = step.per_token_s / step.ranks
    return sum(
        min(
            (step.per_sequence_s + step.per_context_token_s * (context + made - 1)) / step.ranks,
            step.per_token_s * made - saved_s + step.per_pair_s * made * (context + made / 2.0),
        )
        for made in range(1, decodes + 1)
    )


def _tangents(linear: Linear, ranks: int, batch: int) -> list[tuple[float, float, float]]:
    """Seconds per iteration, prompt token and decoding sequence, each of which is never above the curve.

    By Hölder: (read^n + compute^n)^(1/n) >= a read + b compute, where a and b belong to any point of the curve. Of the
    experts, one token's are read at least.
    """
    read_s = linear.weights_s + linear.experts_s * linear.expert_share
    prompt_s = linear.per_token_s + (linear.per_expert_token_s if linear.experts_s else 0.0)
    decode_s = linear.per_token_s / ranks + (linear.per_expert_token_s if linear.experts_s else 0.0)
    power, found = linear.overlap, []
    for number in range(TANGENTS):
        tokens = batch ** (number / (TANGENTS - 1))
        compute_s = prompt_s * tokens
        whole_s = (read_s**power + compute_s**power) ** (1.0 / power)
        if whole_s == 0.0:
            return [(0.0, 0.0, 0.0)]
        a, b = (read_s / whole_s) ** (power - 1.0), (compute_s / whole_s) ** (power - 1.0)
        found.append((a * read_s, b * prompt_s, b * decode_s))
    return found
