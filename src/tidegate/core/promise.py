"""Until when a promise can be kept, and whether it was: the one definition of attainment."""

from math import inf
from typing import Final

from tidegate.core.model import Decision, Ended, Ending, Judged, Request

# Who was promised an answer to begin within this cannot wait for a slot of ours: most answers have one for longer.
URGENT_S: Final = 10.0

# A client's own error is like its leaving: nobody broke a promise.
_ENDINGS: Final = {
    "ok": Ending.OK,
    "refused": Ending.REFUSED,
    "timed_out": Ending.TIMED_OUT,
    "client_left": Ending.CANCELLED,
    "client_error": Ending.CANCELLED,
}


def ends_s(request: Request) -> float:
    """When the promise is missed of which nothing has come yet."""
    slo, found_s = request.slo, inf
    if slo.ttft_s is not None:
        found_s = request.arrived_s + slo.ttft_s
    if slo.e2e_s is not None:
        found_s = min(found_s, request.arrived_s + slo.e2e_s)
    return found_s


def is_urgent(request: Request) -> bool:
    """Whether its promise is too short to wait for a slot of ours."""
    return ends_s(request) - request.arrived_s <= URGENT_S


def kept(
    request: Request, *, ttft_s: float | None, e2e_s: float, output_tokens: int | None, whole: bool = True
) -> bool | None:
    """Whether every axis of its promise was kept by an answer that took so long; None where that cannot be told.

    Times count from the arrival. `ttft_s` is None where no content came, or none could be seen before the end, and
    `output_tokens` where they are not known. Not `whole`: its client left before the end.
    """
    slo = request.slo
    # Who has left a stream has seen nothing for as long, at least; of an answer in one piece nobody can see anything.
    seen_s = e2e_s if ttft_s is None and not whole and request.stream else ttft_s
    # An answer of one token, or of none, has no time between tokens.
    tpot_s = None if request.output_tokens_max is not None and request.output_tokens_max <= 1 else slo.tpot_s
    if slo.ttft_s is not None and seen_s is not None and seen_s > slo.ttft_s:
        return False
    if slo.e2e_s is not None and e2e_s > slo.e2e_s:
        return False
    if not whole:
        return None
    if ttft_s is None:
        # Its first content came at some time before the end.
        return True if tpot_s is None and (slo.ttft_s is None or e2e_s <= slo.ttft_s) else None
    if tpot_s is None:
        return True
    if output_tokens is None:
        return None
    took_s = per_token_s(ttft_s, e2e_s, output_tokens / request.completions)
    return took_s is None or took_s <= tpot_s


def per_token_s(ttft_s: float, e2e_s: float, output_tokens: float) -> float | None:
    """TPOT: seconds per token after the first, of an answer that took so long; None where it has too few to tell."""
    after_first = output_tokens - 1.0
    return (e2e_s - ttft_s) / after_first if after_first >= 1.0 else None


def ending_of(outcome: str) -> Ending:
    """How a request ended of which that came, in the words of the gateway's log."""
    return _ENDINGS.get(outcome, Ending.FAILED)


def is_left(ended: Ended) -> bool:
    """Whether nobody waited for an attempt any more. With a cause it is the gateway that came to nothing."""
    return ended.ending is Ending.CANCELLED and not ended.cause


def was_kept(
    request: Request,
    decision: Decision,
    ending: Ending,
    *,
    ttft_s: float | None,
    e2e_s: float,
    output_tokens: int | None,
) -> bool | None:
    """Whether the promise of a request that is over was kept, after its last `decision`; None where nobody can say.

    Who was refused for ever could not have been served at any price, and says nothing of worth.
    """
    if ending is Ending.OK or ending is Ending.CANCELLED:
        whole = ending is Ending.OK
        return kept(request, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens, whole=whole)
    return None if ending is Ending.REFUSED and decision.retry_after_s is None else False


def judged(request: Request, ending: Ending, kept: bool | None) -> Judged | None:
    """What is told for the worth of its class, of a request whose promise was `kept`, or not, or nobody can say; None
    where its class has no target.

    An answer of which nobody can say, and that missed nothing anybody could see, counts as kept there: were it passed
    over, answers in one piece would tell of misses alone, and worth would rise whatever became of them.
    """
    if request.attainment is None:
        return None
    if kept is None and ending is Ending.OK:
        kept = True
    return Judged(request_id=request.id, klass=request.klass, attainment=request.attainment, kept=kept)
