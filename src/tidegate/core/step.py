"""What one iteration of an engine takes: the layers of weights, bound by memory for few tokens, and all the rest."""

import msgspec

# Between reading and computing alone, what an iteration takes is less than both together and more than the longer:
# some kernels are bound by one, some by the other. See bench/fit_engines.py.
OVERLAP = 1.44
# A token's attention to one before it takes 4 operations for each value of a layer's width, its way through the layer
# 24 for each of the width's square: a 3,456th for the smallest models that chat, and a few times that where it is
# computed less well. What is beyond is no attention: without the bound, disturbed prompts are all pairs and no tokens.
PAIR_SHARE = 1 / 500


class Linear(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds to read weights once for all tokens of an iteration, and to compute for each of them.

    `weights_s` reads what every token needs, and `per_token_s` computes it. Of the experts, which take `experts_s` to
    read all, each token needs `expert_share`, whichever, so few tokens read few of them; `per_expert_token_s` computes
    those. `overlap` is the exponent with which reading and computing add up: 1 is one after the other, infinity both
    at once.
    """

    weights_s: float
    per_token_s: float
    experts_s: float = 0.0
    expert_share: float = 0.0
    per_expert_token_s: float = 0.0
    overlap: float = OVERLAP

    def takes_s(self, tokens: float, expert_tokens: int) -> float:
        """Seconds for so many tokens, and so many that come to the experts, from here or from elsewhere."""
        read_s, compute_s, power = self.weights_s, self.per_token_s * tokens, self.overlap
        if self.experts_s:
            read_s += self.experts_s * (1.0 - (1.0 - self.expert_share) ** expert_tokens)
            compute_s += self.per_expert_token_s * expert_tokens
        return float((read_s**power + compute_s**power) ** (1.0 / power))


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that one iteration takes.

    `base_s`, and for each token in it `per_token_s`, for each sequence that decodes `per_sequence_s`, for each token of
    their contexts `per_context_token_s`, and for each pair of a prompt's token and one before it `per_pair_s`. Where
    the hardware is known, `linear` tells what layers of weights take besides. With `ranks` that go in step and share
    experts, all of these are those of one rank: sequences are spread over them, and a prompt is with one of them, for
    which the others wait.
    """

    base_s: float
    per_token_s: float
    per_sequence_s: float = 0.0
    per_context_token_s: float = 0.0
    per_pair_s: float = 0.0
    linear: Linear | None = None
    ranks: int = 1

    def takes_s(self, prompt_tokens: int, pairs: float, decoding: int, context: int) -> float:
        """Seconds for so many tokens of prompts, with their pairs, and so many sequences, with all their context."""
        sequences = decoding / self.ranks
        tokens = sequences + prompt_tokens
        return (
            self.base_s
            + self.per_token_s * tokens
            + self.per_sequence_s * sequences
            + self.per_context_token_s * context / self.ranks
            + self.per_pair_s * pairs
            + (0.0 if self.linear is None else self.linear.takes_s(tokens, decoding + prompt_tokens))
        )
