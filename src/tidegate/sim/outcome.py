"""What became of a request in a simulated world."""

from collections.abc import Iterable

from tidegate.core.model import Record, Request, replace
from tidegate.core.promise import kept, per_token_s
from tidegate.core.why import Why


class Outcome(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What one request came to. Times count from its arrival, None where it did not come so far.

    `why` is the reason of its last decision, `outcome` one of `ok`, `refused`, `failed`, `failed_mid_stream`, and
    `timed_out`. Its data was `sent` to these endpoints, by whatever attempt. `usd` is what all its attempts cost, paid
    to others or in running our own. Of the attempt that served it, `predicted_s` is the time to first content that was
    predicted when it was sent, and `measured_s` what it was. One that was `refused_for_ever` could be served by nobody,
    at no time.
    """

    request: Request
    outcome: str
    endpoint: str
    why: Why
    attempts: int
    held_s: float
    ttft_s: float | None
    e2e_s: float
    predicted_s: float | None
    measured_s: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float
    sent: tuple[str, ...] = ()
    refused_for_ever: bool = False

    @property
    def ended_s(self) -> float:
        """When it was over."""
        return self.request.arrived_s + self.e2e_s

    @property
    def tpot_s(self) -> float | None:
        """The time per output token after the first."""
        return None if self.ttft_s is None else per_token_s(self.ttft_s, self.e2e_s, self.output_tokens)

    @property
    def kept(self) -> bool:
        """Whether every axis of its promise was kept, as far as anybody knows."""
        return self.judged is True

    @property
    def judged(self) -> bool | None:
        """The same; None where nobody can say: nobody saw its first content, or it was refused for ever, which says
        nothing of promises (as `core.promise.was_kept` has it)."""
        if self.refused_for_ever:
            return None
        if self.outcome != "ok":
            return False
        return kept(self.request, ttft_s=self.ttft_s, e2e_s=self.e2e_s, output_tokens=self.output_tokens)


def side_by_side(*policies: Iterable[Outcome]) -> list[list[Outcome]]:
    """What became of the same requests under several policies: who is not refused for ever by all of them could be
    served, and is let down where he is refused."""
    lists = [list(outcomes) for outcomes in policies]
    ids = [{one.request.id for one in outcomes if one.refused_for_ever} for outcomes in lists]
    by_all = set.intersection(*ids)
    return [
        [
            replace(one, refused_for_ever=False) if one.refused_for_ever and one.request.id not in by_all else one
            for one in outcomes
        ]
        for outcomes in lists
    ]
