"""What an engine is, as its model needs to know it, and what one of its iterations takes."""

from tidegate.core.model import Record
from tidegate.sim.linear import Linear


class StepTime(Record, frozen=True, kw_only=True, omit_defaults=False):
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


class EngineProfile(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What an engine is.

    It runs `slots` sequences at once, and `batch_tokens` in one iteration; all have memory for `kv_tokens` together.
    Beyond `queue_max` waiting requests it refuses, None is never. With `keeps_prefixes` prompts that begin like earlier
    ones are not computed again. Loading the model takes `load_s`; an engine that is idle for `unload_after_s` gives its
    memory back, None is never.
    """

    step: StepTime
    slots: int
    batch_tokens: int = 2048
    kv_tokens: int
    queue_max: int | None = None
    keeps_prefixes: bool = True
    load_s: float = 0.0
    unload_after_s: float | None = None
