"""The layers of a model that multiply by weights: bound by memory for few tokens, and by compute for many."""

from tidegate.core.model import Record

# Between reading and computing alone, what an iteration takes is less than both together and more than the longer:
# some kernels are bound by one, some by the other. See bench/fit_engines.py.
OVERLAP = 1.44


class Linear(Record, frozen=True, kw_only=True, omit_defaults=False):
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
