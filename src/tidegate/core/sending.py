"""What is told of an attempt that begins, from the request that it is for."""

from tidegate.core.model import Request, Started
from tidegate.core.promise import is_urgent
from tidegate.core.prompts import shortened


def started(request: Request, endpoint: str, *, hedge: bool = False) -> Started:
    """It goes there. `hedge`: another attempt is still under way."""
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
    )
