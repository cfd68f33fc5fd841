"""Tokens, estimated from bytes. Never a tokenizer: on a long prompt that would hold up everybody else."""

from typing import Final

import msgspec

from tidegate.core.calibration import left_after

# English prose and code have about four bytes a token in today's vocabularies, other languages two to five.
PRIOR_BYTES_PER_TOKEN = 4.0
BYTES_PER_TOKEN_MIN = 1.0
BYTES_PER_TOKEN_MAX = 16.0
# The prior weighs as much as one page of text.
_PRIOR_TOKENS = 500.0
# A sample counts half after 70 others: long enough for a mean, short enough to follow a new kind of traffic.
_DECAY = 0.99

# `{"role":"user","content":""},` around a message, and what a chat template puts in its place.
MESSAGE_BYTES: Final = 30
MESSAGE_TOKENS: Final = 4.0

# Of the beginning, where instructions stand, and of the end, where the user speaks.
_SAMPLE_BYTES: Final = 256
# One byte in so many: only languages that are written in escapes have more.
_DENSE: Final = 12
# As a number: whether bytes are in bytes is first asked of a number, whose exception is made and thrown away.
_BACKSLASH: Final = ord("\\")


def text_bytes(json: bytes | memoryview) -> int:
    r"""About how many bytes of text stand in JSON, so that the same text escaped otherwise counts the same.

    `\n` is one byte in two, `\u0436` two in six and `\u4e2d` three. Escapes are counted in a sample: those that matter,
    of a language written in them, are everywhere.
    """
    size = len(json)
    ends = [json] if size <= 2 * _SAMPLE_BYTES else [json[:_SAMPLE_BYTES], json[-_SAMPLE_BYTES:]]
    sample = b"".join(ends)
    if _BACKSLASH not in sample:  # told in a tenth of the time that it takes to count none
        return size
    surplus = sample.count(b"\\")
    if surplus * _DENSE > len(sample):
        # Three bytes of UTF-8 for most escapes, two below U+0800, four for the two halves of a pair.
        surplus += 2 * sample.count(b"\\u") + sample.count(b"\\u0") + sample.count(b"\\ud")
    return max(1, size - surplus * size // len(sample))


class TokenRatio(msgspec.Struct):
    """Bytes per token of one model's traffic, learned from the usage that engines report.

    A ratio of sums, both decayed alike: the estimates of many prompts add up to what they took, which a mean of
    ratios would miss by favouring short ones.
    """

    bytes_sum: float = PRIOR_BYTES_PER_TOKEN * _PRIOR_TOKENS
    tokens_sum: float = _PRIOR_TOKENS

    def tokens(self, prompt_bytes: int, messages: int) -> int:
        """Estimated tokens of a prompt of so many bytes of text in so many messages; at least one."""
        text = prompt_bytes - MESSAGE_BYTES * messages
        tokens = MESSAGE_TOKENS * messages
        if text > 0:
            tokens += text / (self.bytes_sum / self.tokens_sum)  # within its bounds, since every sample is
        return int(tokens + 0.5) or 1

    def learn(self, prompt_bytes: int, messages: int, prompt_tokens: int) -> None:
        """Learn from a prompt's reported tokens, cached ones included. A count of zero is no count.

        Not for prompts with images or sound: their tokens are not made of text.
        """
        text = float(prompt_bytes - MESSAGE_BYTES * messages)
        if prompt_tokens <= 0 or text <= 0.0:
            return
        # A template's own words on a short prompt, or a slip of the engine, may pull only so far.
        tokens = prompt_tokens - MESSAGE_TOKENS * messages
        tokens = min(max(tokens, text / BYTES_PER_TOKEN_MAX), text / BYTES_PER_TOKEN_MIN)
        self.bytes_sum = self.bytes_sum * _DECAY + text
        self.tokens_sum = self.tokens_sum * _DECAY + tokens

    def aged(self, age_s: float) -> "TokenRatio":
        """The same ratio after `age_s` without a sample: it weighs less, down to a prior, so that the next move it."""
        share = max(left_after(age_s), min(1.0, _PRIOR_TOKENS / self.tokens_sum))
        return TokenRatio(self.bytes_sum * share, self.tokens_sum * share)
