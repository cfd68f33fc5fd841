"""What one request came to, as the log tells it."""

from tidegate.core.model import Record


class WideEvent(Record, frozen=True, tag="request"):
    """All there is to say about one request. A closed list: nothing else about a request is ever logged."""

    at_s: float
    request_id: str
    decision_id: str
    key: str | None
    klass: str
    model: str
    endpoint: str | None
    why: str | None
    attempts: int
    hedged: bool
    resumed: bool
    stream: bool
    status: int
    outcome: str
    code: str | None
    cause: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    ttft_s: float | None
    predicted_ttft_s: float | None
    e2e_s: float
    held_s: float
    cost_usd: float
