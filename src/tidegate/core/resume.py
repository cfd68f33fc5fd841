"""What is left of a request on its way: of an answer that broke off its rest, which goes to those with the same model,
and of one that could not be sent somewhere, those where it can. It is decided like any other."""

from tidegate.core.model import Request, replace
from tidegate.core.price import TEMPLATE_TOKENS_MAX
from tidegate.core.ruling import Ruling

# Where such a request may go, in the words of rules; no operators' rule has a name with a blank in it.
RULE = "the rest of its answer"
PASSED_OVER = "where it can be sent"


def rest_of(
    request: Request, *, said_tokens: int, said_bytes: int, spent_usd: float, to: tuple[str, ...], now_s: float
) -> Request:
    """The request for what its client does not have yet, of a `request` as it came: it goes `to` these endpoints alone.

    What was said stands at the end of the prompt. Its next content is promised as soon from now on as its first was,
    and the whole as it was.
    """
    slo, tokens_max, usd_max = request.slo, request.output_tokens_max, request.cost_usd_max
    most = request.prompt_tokens_most
    if slo.ttft_s is not None:
        slo = replace(slo, ttft_s=now_s - request.arrived_s + slo.ttft_s)
    return replace(
        request,
        prompt_tokens=request.prompt_tokens + said_tokens,
        prompt_bytes=request.prompt_bytes + said_bytes,
        prompt_tokens_most=most and most + said_bytes + TEMPLATE_TOKENS_MAX,
        output_tokens_max=None if tokens_max is None else max(tokens_max - said_tokens, 1),
        slo=slo,
        cost_usd_max=None if usd_max is None else max(usd_max - spent_usd, 0.0),
        rulings=(*request.rulings, Ruling(rule=RULE, to=to)),
        said_tokens=said_tokens,
    )


def narrowed(request: Request, to: tuple[str, ...] | None) -> Request:
    """The request where it goes `to` these endpoints alone, since to others it could not be sent; None where it can go
    to any. The same where that is what it says."""
    rulings = tuple([one for one in request.rulings if one.rule != PASSED_OVER])
    if to is not None:
        rulings = (*rulings, Ruling(rule=PASSED_OVER, to=to))
    return request if rulings == request.rulings else replace(request, rulings=rulings)
