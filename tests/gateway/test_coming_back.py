"""When to come back, as SDKs understand it."""

import pytest

from tests import make
from tidegate.core.model import Decision
from tidegate.core.why import Why
from tidegate.gateway.reply import SDK_RETRY_AFTER_S_MAX, refusal


@pytest.mark.parametrize(
    ("after_s", "told"),
    [(2.0, None), (SDK_RETRY_AFTER_S_MAX, None), (SDK_RETRY_AFTER_S_MAX + 1.0, b"false"), (None, None)],
)
def test_an_sdk_that_would_not_wait_for_so_long_is_told_not_to_try_again(
    after_s: float | None, told: bytes | None
) -> None:
    decision = Decision(request_id="r", plan=(), why=Why.TOO_LATE, retry_after_s=after_s)
    headers = dict(refusal(make.request(), decision, (8192,)).headers())
    assert headers.get(b"x-should-retry") == told
    assert headers.get(b"retry-after") == (None if after_s is None else b"%d" % after_s)
