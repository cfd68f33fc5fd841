"""Which side a request would go to, by how long its prompt is and how busy an engine is: the real router, asked again.

Each answer is one of the router's, on a copy of all that it knows, in which others like the request are under way at
one endpoint. Who explores does so by chance, which is left out; who is held just now is let go.
"""

from collections.abc import Sequence
from typing import Final

from tidegate.core.classify import base_of, classify
from tidegate.core.flips import Copy, first, longer, vanish
from tidegate.core.model import Candidate, Record, Released, Request, replace
from tidegate.core.router import Router
from tidegate.core.sending import started
from tidegate.core.why import Why

# Prompts from a line of chat to what no window holds, each a third longer than the one before.
PROMPT_TOKENS_MIN: Final = 64
STEP: Final = 4.0 / 3.0
LENGTHS_MAX: Final = 40
COUNTS_MAX: Final = 16


class Side(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The best that there is at our own sites, or at the others: what it is worth, and how likely it is in time."""

    endpoint: str
    value_usd: float
    attainment: float


class Cell(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One answer. It goes to an endpoint or a handover first, or `waits` for one; it is refused where that is empty."""

    goes_to: str
    waits: bool
    local: bool | None
    why: Why
    ours: Side | None
    theirs: Side | None


def lengths(router: Router, model: str) -> list[int]:
    """Prompt lengths worth asking about, up to the largest window and a step beyond."""
    most = max((one.context_tokens for one in router.serving(model)), default=PROMPT_TOKENS_MIN)
    found = [PROMPT_TOKENS_MIN]
    while found[-1] <= most and len(found) < LENGTHS_MAX:
        found.append(round(PROMPT_TOKENS_MIN * STEP ** len(found)))
    return found


def counts(concurrency: int) -> list[int]:
    """Numbers of requests in flight worth asking about, from none to as many as there may be."""
    if concurrency < COUNTS_MAX:
        return list(range(concurrency + 1))
    return sorted({round(concurrency * step / (COUNTS_MAX - 1)) for step in range(COUNTS_MAX)})


def surface(
    router: Router, request: Request, endpoint: str, prompts: Sequence[int], crowds: Sequence[int], now_s: float
) -> list[list[Cell]]:
    """By number in flight at `endpoint`, and in that by length of prompt: where requests like this one would go.

    Both are in ascending order. The class follows the length, as it does when requests come.
    """
    copy = Copy(router)
    asked = _anybody(copy.router, request, now_s)
    # Of no conversation, and nothing of its prompt is known: it is one of many.
    one = replace(request, id="surface", arrived_s=now_s, session="", prefix=(), retry=0, said_tokens=0, shipped="")
    one = replace(one, klass=classify(base_of(one.klass), one.prompt_tokens))
    streamed = router.endpoint(endpoint).endpoint.streams_to(one)
    found, there = [], 0
    for count in crowds:
        for number in range(there, count):
            asked.observe(started(replace(one, id=f"surface {number}"), endpoint, streamed=streamed), now_s)
        there = max(there, count)
        found.append([_cell(copy, asked, longer(one, tokens), now_s) for tokens in prompts])
    return found


def _anybody(router: Router, request: Request, now_s: float) -> Router:
    """With nothing under way at our own engines, and nobody who waits."""
    for held in list(router.state.held):
        router.observe(Released(request_id=held), now_s)
    for model in router.serving(request.model):
        if not model.owned:
            continue
        for name in sorted(model.state.reservations):
            vanish(router, model.name, name, now_s)
    return router


def _cell(copy: Copy, router: Router, request: Request, now_s: float) -> Cell:
    decision = router.decide(request, now_s)
    candidates = router.candidates(request, now_s)
    goes_to = first(decision)
    endpoint = copy.endpoints.get(decision.plan[0].endpoint) if decision.plan else None
    return Cell(
        goes_to=goes_to.endpoint,
        waits=goes_to.waits,
        local=None if endpoint is None else endpoint.local,
        why=decision.why,
        ours=_best([one for one in candidates if copy.endpoints[one.endpoint].local]),
        theirs=_best([one for one in candidates if not copy.endpoints[one.endpoint].local]),
    )


def _best(candidates: Sequence[Candidate]) -> Side | None:
    """Of those that may serve it; one that is merely full may, later."""
    found = [
        (one.value_usd, one.endpoint, one.estimate.attainment)
        for one in candidates
        if one.value_usd is not None and one.estimate is not None and one.excluded in (None, Why.BUSY, Why.MEMORY_TAKEN)
    ]
    if not found:
        return None
    value_usd, name, attainment = max(found, key=lambda one: (one[0], one[1]))
    return Side(endpoint=name, value_usd=value_usd, attainment=attainment)
