"""Why a request came to nothing without any endpoint having said so, and what its client is told in the end."""

from tidegate.core import health
from tidegate.core.actions import Silence
from tidegate.core.health import OF_THE_REQUEST
from tidegate.core.model import Ending
from tidegate.core.why import WHY_TEXT, Why
from tidegate.engines.base import UNCARRIED, Failure
from tidegate.gateway.reply import ErrorReply
from tidegate.gateway.spending import COST_TOO_HIGH, UNPRICED, UNRECORDED
from tidegate.http.errors import Cause

SILENCES = {
    silence: Failure(
        ending=Ending.TIMED_OUT,
        cause=silence.value,
        status=504,
        message=f"the endpoint {what}",
        code="upstream_timeout",
    )
    for silence, what in (
        (Silence.NO_CONTENT, "showed no content in time"),
        (Silence.STALLED, "stopped in the middle of its answer"),
        (Silence.TOO_SLOW, "became too slow to be waited for in the middle of its answer"),
    )
}
EXPIRED = Failure(
    # No fault of any endpoint's: who is silent for too long, or too slow, is given up before.
    ending=Ending.CANCELLED,
    cause="request_timeout",
    status=504,
    message="The request took longer than the gateway allows (gateway.request_timeout_s).",
    code="request_timeout",
)
STOPPING = Failure(
    ending=Ending.CANCELLED,  # no fault of any endpoint's
    cause="gateway_stopping",
    status=503,
    message="The gateway is going down, and this took longer than it waits for then (gateway.drain_s).",
    code="gateway_stopping",
    # One that is started again is there within seconds.
    retry_after_s=5.0,
)
BROKEN = Failure(
    ending=Ending.CANCELLED,  # no fault of any endpoint's
    cause="internal",
    status=500,
    message="Something went wrong in the gateway; its log says where.",
    code="internal_error",
)
NO_DESCRIPTOR = Failure(
    ending=Ending.CANCELLED,  # no fault of any endpoint's
    cause=Cause.NO_DESCRIPTOR.value,
    status=503,
    message=(
        "The gateway may open no more files: its limit of descriptors (`ulimit -n`), or the system's (`fs.file-max`), "
        "leaves it no connection."
    ),
    code="no_descriptor",
)
OVERRAN = Failure(
    ending=Ending.CANCELLED,  # what one client asks for brings it about, and others are served
    cause="output_too_long",
    status=502,
    message="the endpoint went on beyond the output that it was asked for at most",
    code="output_too_long",
)
NOT_SHIPPED = Failure(
    ending=Ending.FAILED,
    cause="not_shipped",
    status=502,
    message="its prompt was computed elsewhere, and did not come",
    code="upstream_error",
)
GONE = Failure(
    ending=Ending.CANCELLED,  # no fault of the endpoint's, which was not asked
    cause=health.GONE,
    status=502,
    message="its prompt was computed elsewhere, and had come, and was not kept for so long",
    code="upstream_error",
)
OVER_MAX_COST = Failure(
    ending=Ending.REFUSED,
    cause="max_cost",
    status=400,
    message="With what was spent on other attempts, it could cost more there than x-tidegate-max-cost-usd allows.",
    kind="invalid_request_error",
    code="max_cost_exceeded",
)
# Whoever was tried has nothing to do with it.
_OURS = (EXPIRED, STOPPING, BROKEN, NO_DESCRIPTOR, UNRECORDED)
# One endpoint will never serve it; that is no last word where another one only failed, and may yet.
NEVER_HERE = frozenset({*OF_THE_REQUEST, UNCARRIED, OVER_MAX_COST.cause, UNPRICED, COST_TOO_HIGH})


def forbidden(why: Why) -> Failure:
    """An endpoint of a plan may not be used any more."""
    return Failure(
        ending=Ending.REFUSED,
        cause="reconfigured",
        status=503,
        message=f"an endpoint of the plan was taken out of it meanwhile: {WHY_TEXT[why]}",
        code="no_endpoint_available",
    )


def last_word(failure: Failure, tried: int) -> ErrorReply:
    """What the client is told of the failure that was the last, after so many attempts."""
    message = failure.message
    if not (failure.final or failure in _OURS or failure.cause in NEVER_HERE):
        message = f"No endpoint could complete this ({tried} tried); the last to fail: {message.rstrip('.')}."
    return ErrorReply(
        status=failure.status,
        message=message,
        kind=failure.kind,
        param=failure.param,
        code=failure.code,
        retry_after_s=failure.retry_after_s,
        # Every endpoint that may serve this was tried already; an SDK that tries again at once multiplies load.
        should_retry=False if failure.status in (502, 504) else None,
    )
