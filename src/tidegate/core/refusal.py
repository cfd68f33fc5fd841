"""Saying no: with the reason that came closest to a yes, and with the time at which to ask again."""

from collections.abc import Mapping

from tidegate.core import rules
from tidegate.core.endpoint import EndpointModel
from tidegate.core.headroom import tokens_counted
from tidegate.core.model import Decision, Request
from tidegate.core.why import Why

# Never sooner than this: clients retry in step.
RETRY_AFTER_S_MIN = 1.0
# Nothing is predicted for longer than this.
RETRY_AFTER_S_MAX = 3600.0
# An endpoint that is down comes back with a probe, and probes are this far apart.
DOWN_S = 5.0


def refuse(
    request: Request,
    reasons: Mapping[str, Why],
    models: Mapping[str, EndpointModel],
    now_s: float,
    slot_s: float | None = None,
) -> Decision:
    """The refusal of a request that every endpoint is excluded for, by name of endpoint.

    `slot_s`: when a slot would be its own, where others are held before it.
    """
    why = rules.why_refused(reasons.values())
    back_s = [at_s for n, r in reasons.items() if (at_s := _back_s(request, models[n], r, now_s)) is not None]
    if slot_s is not None:
        back_s.append(slot_s)
    retry_after_s = min(max(RETRY_AFTER_S_MIN, min(back_s) - now_s), RETRY_AFTER_S_MAX) if back_s else None
    return Decision(request_id=request.id, plan=(), why=why, retry_after_s=retry_after_s)


def _back_s(request: Request, model: EndpointModel, why: Why, now_s: float) -> float | None:
    """When this endpoint may take the request after all, None if never."""
    match why:
        case Why.BUSY:
            return model.slots_free_s(now_s)[0]
        case Why.MEMORY_TAKEN:
            # How much is needed is a guess, so that the first that ends may be enough; others' ends are not known.
            spare = model.memory.spare(now_s)
            return now_s + DOWN_S if spare is None or not spare.ends else max(now_s, spare.ends[0][0])
        case Why.BREAKER_OPEN:
            return model.state.breaker.open_until_s
        case Why.TOLD_TO_WAIT:
            return max(model.state.not_before_s, model.state.allowances.ready_s(tokens_counted(request), now_s))
        case Why.DOWN:
            return now_s + DOWN_S
        case _:
            return None
