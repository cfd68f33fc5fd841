"""What is told of an attempt that begins, from the request that it is for."""

from tidegate.core.base import has_come
from tidegate.core.cached import shortened
from tidegate.core.model import Request, Started, replace
from tidegate.core.promise import is_urgent


def prefill_of(request: Request) -> Request:
    """What is asked of who computes the prompt alone: its first token, which nobody gets, and no place to stay. Its end
    shows when the prompt is computed."""
    return replace(request, output_tokens_max=1, completions=1, session="", stream=True)


def started(
    request: Request, endpoint: str, *, hedge: bool = False, target: str = "", streamed: bool = False
) -> Started:
    """It goes there. `hedge`: another attempt is still under way; for a `target` its prompt is computed alone. We may
    have it `streamed` although its client gets it whole."""
    if target:
        request = prefill_of(request)
    return Started(
        request_id=request.id,
        endpoint=endpoint,
        klass=request.klass,
        prompt_tokens=request.prompt_tokens,
        prompt_bytes=request.prompt_bytes,
        output_tokens_max=request.output_tokens_max,
        completions=request.completions,
        model=request.model,
        key=request.key,
        session=request.session,
        hedge=hedge,
        prefix=shortened(request.prefix, request.prompt_bytes - request.preamble_bytes),
        preamble_bytes=request.preamble_bytes,
        promised_tpot_s=request.slo.tpot_s,
        urgent=is_urgent(request),
        said_tokens=request.said_tokens,
        target=target,
        shipped=request.shipped if has_come(request.shipped, endpoint) else "",
        stream=request.stream or streamed,
    )
