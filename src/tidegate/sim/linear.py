"""The layers of a model that multiply by weights: bound by memory for few tokens, and by compute for many."""

from tidegate.core.model import Record

# Between reading and computing alone, what an iteration takes is less than both together and more than the longer:
# some kernels are bound by one, some by the other. See bench/fit_engines.py.
OVERLAP = 1.5


class Linear(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Seconds to read weights once for all tokens of an iteration, and to compute for each of them.

    `weights_s` reads what every token needs. Of the experts, which take `experts_s` to read all, each token needs
    `expert_share`, whichever; so few tokens read few of them. `per_token_s` computes. `overlap` is the exponent with
    which reading and computing add up: 1 is one after the other, infinity both at once.
    """

    weights_s: float
    per_token_s: float
    experts_s: float = 0.0
    expert_share: float = 0.0
    overlap: float = OVERLAP

    def takes_s(self, tokens: int) -> float:
        """Seconds for so many tokens."""
        read_s, power = self.weights_s, self.overlap
        if self.experts_s:
            read_s += self.experts_s * (1.0 - (1.0 - self.expert_share) ** tokens)
        return float((read_s**power + (self.per_token_s * tokens) ** power) ** (1.0 / power))
