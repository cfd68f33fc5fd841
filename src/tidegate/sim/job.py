"""The work of a simulated world, and who brings it."""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from tidegate.core.model import Request


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the world has it: what the core may know of it, and what only the world knows.

    `prompt_tokens` is what an engine counts, where `request.prompt_tokens` is the gateway's estimate. The model
    generates `output_tokens`, unless the request's own bound cuts it. `blocks` are the identities of the prompt's
    whole blocks of `block_tokens` each: prompts have as much in common as their leading blocks. Where its KV cache has
    come from elsewhere, `computed_tokens` of the prompt are.
    """

    request: Request
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = 512
    session: str = ""
    turn: int = 0
    computed_tokens: int = 0

    @property
    def target(self) -> int:
        """Tokens that are generated, if nobody leaves."""
        bound = self.request.output_tokens_max
        return max(1, self.output_tokens if bound is None else min(self.output_tokens, bound))


class Traffic(Protocol):
    """Who sends requests."""

    def arrivals(self) -> Iterator[Job]:
        """In the order of their arrival: those of an open loop, and the first turn of each session."""

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """What the same client asks next, now that this is answered or lost; None where it is done."""
