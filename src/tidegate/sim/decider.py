"""What a simulated world needs of whoever decides in it."""

from typing import Protocol

import msgspec

from tidegate.core.estimator import EndpointModel
from tidegate.core.model import Decision, Observation, Request


class Decider(Protocol):
    """Who decides: the part of `Router` that a world needs."""

    @property
    def held(self) -> int:
        """How many requests are held."""

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where a request goes."""

    def due(self, now_s: float) -> list[Request]:
        """Held requests whose turn has come."""

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""

    def predicted_ttft_s(self, endpoint: str, request_id: str) -> float | None:
        """What was predicted when this attempt was sent."""

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""

    def snapshot(self) -> msgspec.Raw:
        """The whole state as JSON."""
