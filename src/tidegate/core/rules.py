"""Hard rules: cheap, checked before anything is predicted, and failing closed."""

from collections.abc import Collection
from typing import Final

from tidegate.core import memory
from tidegate.core.endpoint import EndpointModel
from tidegate.core.headroom import tokens_counted
from tidegate.core.model import ANYWHERE, LOCAL, Capability, Endpoint, Likeness, Policy, Request
from tidegate.core.output import Length
from tidegate.core.price import TEMPLATE_TOKENS_MAX
from tidegate.core.ruled import barred_by
from tidegate.core.why import Why

# Looking a member up in its class costs more than the comparison that follows.
_IDENTICAL: Final = Likeness.IDENTICAL
_SUBSTITUTE: Final = Likeness.SUBSTITUTE
_EMBEDDING: Final = Capability.EMBEDDING
# From what is the same to what only stands in for it.
_RANK_OF: Final = {likeness: rank for rank, likeness in enumerate(Likeness)}


def tokens_needed(request: Request, length: Length) -> int:
    """Context this request needs: its prompt and its output, up to the client's bound or else the 95th percentile."""
    output_tokens = request.output_tokens_max if request.output_tokens_max is not None else length.high_tokens
    return longest_tokens(request, request.prompt_tokens) + int(output_tokens)


def tokens_needed_least(request: Request) -> int:
    """What cannot be done without: our own guess of an output's length is no reason to refuse, only to prefer."""
    return longest_tokens(request, request.prompt_tokens) + (request.output_tokens_max or 1)


def longest_tokens(request: Request, prompt_tokens: int) -> int:
    """Of so many tokens of its prompts together, those that the longest has at least. Each has a window of its own:
    whether the longest fits is for the engine to say, which alone knows it."""
    prompts = request.prompts
    return prompt_tokens if prompts <= 1 else -(-prompt_tokens // prompts)


def attempts_max(request: Request, policy: Policy) -> int:
    """Who tries again is tried for less often each time: else client and gateway multiply what is failing anyway."""
    return max(1, policy.attempts_max - request.retry) if request.failover else 1


def may_go_to(request: Request, endpoint: Endpoint) -> bool:
    """Whether the request's data may leave for this endpoint's site."""
    residency = request.residency
    if ANYWHERE in residency:
        return True
    # `local` is no name of a site: a remote site that is called so is still remote.
    if endpoint.local and LOCAL in residency:
        return True
    return endpoint.site in residency and endpoint.site != LOCAL


def cost_usd_most(request: Request, endpoint: Endpoint, length: Length) -> float:
    """The most its tokens can cost there, where its output is no longer than nearly all are: all that is allowed of it,
    and each token of the dearest kind."""
    output_tokens = length.high_tokens if request.output_tokens_max is None else request.output_tokens_max
    return endpoint.price.upper_usd(request.prompt_tokens, _generated(output_tokens, endpoint) * request.completions)


def cost_usd_bound(request: Request, model: EndpointModel) -> float:
    """The most its tokens can cost there, in dollars: the same with all the output that there is room for, where none
    is asked to be the most. Of several prompts what one leaves less of its window another leaves more."""
    endpoint, output_tokens = model.endpoint, request.output_tokens_max
    if output_tokens is None:
        output_tokens = max(0, model.context_tokens - request.prompt_tokens // max(1, request.prompts))
    return endpoint.price.upper_usd(request.prompt_tokens, _generated(output_tokens, endpoint) * request.completions)


def budget_usd_bound(request: Request, endpoint: Endpoint, window: int) -> float:
    """The most that any tokenizer can make it cost there, in dollars, which is what budgets hold back: see
    `budget_usd_of`. Whose prompt was not counted has one message. `window` is believed to be there."""
    window = max(window, endpoint.context_tokens)
    prompt_tokens = request.prompt_tokens_most or request.prompt_bytes + 2 * TEMPLATE_TOKENS_MAX
    output_tokens_max = 0 if _EMBEDDING in request.needs else request.output_tokens_max
    prompt_tokens = min(prompt_tokens, window * request.prompts)
    return budget_usd_of(endpoint, window, prompt_tokens, output_tokens_max, request.completions)


def budget_usd_of(
    endpoint: Endpoint, window: int, prompt_tokens: int, output_tokens_max: int | None, answers: int
) -> float:
    """The most that so many tokens and what is answered to them can cost there: nothing is generated beyond the window,
    the endpoint's own bound and the client's."""
    output_tokens = window if endpoint.output_tokens_max is None else endpoint.output_tokens_max
    if output_tokens_max is not None and output_tokens_max < output_tokens:
        output_tokens = output_tokens_max
    return endpoint.price.upper_usd(prompt_tokens, output_tokens * answers)


def _generated(output_tokens: float, endpoint: Endpoint) -> float:
    """Of so many, as many as it generates at most: who asks for more is given no more."""
    most = endpoint.output_tokens_max
    return output_tokens if most is None or output_tokens < most else most


def excluded_ever(request: Request, model: EndpointModel, needed: int) -> Why | None:
    """The first rule that forbids this endpoint for a request of so many tokens, whenever it comes and whatever it may
    cost; None where none does."""
    endpoint = model.endpoint
    if not may_go_to(request, endpoint):
        return Why.MUST_STAY_LOCAL if request.residency == (LOCAL,) else Why.SITE_NOT_ALLOWED
    least, likeness = request.likeness, model.identity.likeness
    if likeness and least is not _SUBSTITUTE and _RANK_OF[likeness.get(request.model, _IDENTICAL)] > _RANK_OF[least]:
        return Why.NOT_ALIKE
    for need in request.needs:
        if need not in model.capabilities:
            return Why.LACKS_CAPABILITY
    if request.rulings and barred_by(request.rulings, endpoint.name):
        return Why.RULED_OUT
    if needed > model.context_tokens:
        return Why.CONTEXT_TOO_LONG
    if model.memory.known and memory.kv_tokens_needed_least(request) > model.memory.tokens_sure:
        return Why.MEMORY_TOO_SMALL
    return None


def excluded(
    request: Request,
    model: EndpointModel,
    needed: int,
    length: Length,
    now_s: float,
    home: EndpointModel | None = None,
) -> Why | None:
    """The first rule that forbids this endpoint for this request now, None if it may be used.

    Rules on what may be come before rules on what is: a refusal then names the reason that lasts. `home` is the
    endpoint that the conversation stays with, None where it may go anywhere.
    """
    endpoint, state = model.endpoint, model.state
    never = excluded_ever(request, model, needed)
    if never is not None:
        return never
    if request.cost_usd_max is not None and cost_usd_bound(request, model) > request.cost_usd_max:
        return Why.OVER_MAX_COST
    if request.budget_usd is not None and (
        budget_usd_bound(request, endpoint, model.context_tokens) > request.budget_usd
    ):
        return Why.OVER_BUDGET
    if home is not None and not model.is_one_with(home):
        return Why.SESSION_ELSEWHERE
    if model.drained:
        return Why.DRAINED
    if not state.up:
        return Why.DOWN
    if state.breaker.openings and state.breaker.blocks(now_s):
        return Why.BREAKER_OPEN
    if now_s < state.not_before_s:
        return Why.TOLD_TO_WAIT
    allowances = state.allowances
    if (allowances.requests or allowances.tokens) and allowances.ready_s(tokens_counted(request), now_s) > now_s:
        return Why.TOLD_TO_WAIT
    # What is ours is waited for; elsewhere nobody may wait.
    if not endpoint.owned:
        if model.room <= 0:
            return Why.BUSY
        if model.memory.known and not model.memory.fits(memory.kv_tokens_to_begin(request, length, owned=False), now_s):
            return Why.MEMORY_TAKEN
    return None


# From the reason that lasts to the one that passes; a refusal gives the last one that any endpoint reached,
# since that endpoint came closest to serving.
_CLOSENESS: Final[tuple[Why, ...]] = (
    Why.UNKNOWN_MODEL,
    Why.MUST_STAY_LOCAL,
    Why.SITE_NOT_ALLOWED,
    Why.NOT_ALIKE,
    Why.LACKS_CAPABILITY,
    Why.RULED_OUT,
    Why.CONTEXT_TOO_LONG,
    Why.MEMORY_TOO_SMALL,
    Why.OVER_MAX_COST,
    Why.OVER_BUDGET,
    Why.PINNED_ELSEWHERE,
    Why.DRAINED,
    Why.DOWN,
    Why.BREAKER_OPEN,
    Why.TOLD_TO_WAIT,
    Why.BUSY,
    Why.MEMORY_TAKEN,
    Why.HOLD_FULL,
    Why.SHARE_FULL,
    Why.TOO_LATE,
    # Last: it would be served, were the conversation allowed to move.
    Why.SESSION_ELSEWHERE,
)
LASTING: Final = frozenset(
    (*_CLOSENESS[: _CLOSENESS.index(Why.OVER_BUDGET)], Why.PINNED_ELSEWHERE, Why.SESSION_ELSEWHERE)
)
"""Reasons for which nobody else will ever serve a request as it stands, whoever waits."""
PASSING: Final = frozenset((Why.DRAINED, Why.DOWN, Why.BREAKER_OPEN, Why.TOLD_TO_WAIT, Why.BUSY, Why.MEMORY_TAKEN))
"""What is, and not what may be: reasons that pass by themselves, or that operators take back."""

_RANK: Final = {why: rank for rank, why in enumerate(_CLOSENESS)}
_ONLY: Final = {
    Why.MUST_STAY_LOCAL: Why.ONLY_ALLOWED,
    Why.SITE_NOT_ALLOWED: Why.ONLY_ALLOWED,
    Why.NOT_ALIKE: Why.ONLY_ALIKE,
    Why.SESSION_ELSEWHERE: Why.ONLY_CONTINUING,
    Why.LACKS_CAPABILITY: Why.ONLY_CAPABLE,
    Why.RULED_OUT: Why.ONLY_RULED,
    Why.CONTEXT_TOO_LONG: Why.ONLY_LONG_ENOUGH,
    Why.MEMORY_TOO_SMALL: Why.ONLY_LONG_ENOUGH,
    Why.OVER_MAX_COST: Why.ONLY_AFFORDABLE,
    Why.OVER_BUDGET: Why.ONLY_WITHIN_BUDGET,
    Why.PINNED_ELSEWHERE: Why.ONLY_PINNED,
}


def why_refused(reasons: Collection[Why]) -> Why:
    """The reason to give where every endpoint was excluded: that of the endpoint which came closest."""
    return max(reasons, key=_RANK.__getitem__, default=Why.UNKNOWN_MODEL)


def why_only(reasons: Collection[Why]) -> Why:
    """The reason to give for the one endpoint that was left: what excluded the one that came closest."""
    if not reasons:
        return Why.ONLY_ENDPOINT
    return _ONLY.get(why_refused(reasons), Why.ONLY_AVAILABLE)
