"""When the last token of a promise that is kept is there at the latest: an engine never rests while it has work.

Whoever has begun gets a token in each iteration. So between its first token and its last there are as many iterations
as it has tokens, each with no more sequences than there are slots, and the prompts of those who come meanwhile. What
else the engine does is for nothing that counts, and could as well have been time for this.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidegate.core.step import StepTime
from tidegate.sim.needs import Need, Piece, Pool, slots_of

Floats = NDArray[np.float64]

# Each pass makes all ends a bit earlier, since fewer are there at once; these get nearly all of it.
_PASSES = 4


def ends_s(pieces: Sequence[Piece], needs: Sequence[Need], pool: Pool, *, tight: bool) -> Floats:
    """For each piece with what it needs, when it is over at the latest if its promise is kept.

    Where memory is `tight`, somebody may be preempted, and then only the promise itself says.
    """
    step, slots = pool.profile.step, slots_of(pool)
    iteration_s, prompt_token_s, decoded_s = _most(step)
    arrived = np.array([one.arrived_s for one in pieces])
    first_by = np.array([one.first_by_s for one in pieces])
    decodes = np.array([one.decodes for one in needs], dtype=np.float64)
    begins = arrived + np.array([one.first_s for one in needs])
    tokens_s = np.array([d * one.token_by_s if d else 0.0 for d, one in zip(decodes, pieces, strict=True)])
    contexts = np.array([one.context_tokens + one.output_tokens for one in pieces], dtype=np.float64)
    each_s = decoded_s + step.per_context_token_s * contexts / step.ranks
    prompts_s = np.array([n.prompt_tokens * prompt_token_s + n.prefill_s + n.prefill_growth_s for n in needs])
    slower = max((1.0, *(factor for _, factor in pool.slowdown)))
    down_s = sum(to_s - from_s for from_s, to_s in pool.down)
    ends: Floats = arrived + first_by + tokens_s
    for _ in range(0 if tight else _PASSES):
        found = ends.copy()
        for at in range(len(pieces)):
            there = each_s[(begins < ends[at]) & (ends > begins[at])]
            most_s = there.sum() if len(there) <= slots else np.partition(there, -slots)[-slots:].sum()
            own_s = decodes[at] * (iteration_s + float(most_s))
            late_s = arrived[at] + first_by[at]
            comes = arrived + first_by > begins[at]
            lasts_s, before_s = own_s, -1.0
            while lasts_s > before_s and late_s + lasts_s * slower + down_s < ends[at]:
                before_s = lasts_s
                meanwhile = comes & (arrived < late_s + lasts_s * slower + down_s)
                lasts_s = own_s + float(prompts_s[meanwhile].sum())
            found[at] = min(ends[at], late_s + lasts_s * slower + down_s)
        ends = found
    return ends


def _most(step: StepTime) -> tuple[float, float, float]:
    """Seconds of an iteration, of a prompt's token and of a sequence in it: together no less than what it takes."""
    decoded_s = (step.per_token_s + step.per_sequence_s) / step.ranks
    linear = step.linear
    if linear is None:
        return step.base_s, step.per_token_s, decoded_s
    token_s = linear.per_token_s + linear.per_expert_token_s
    return step.base_s + linear.weights_s + linear.experts_s, step.per_token_s + token_s, decoded_s + token_s
