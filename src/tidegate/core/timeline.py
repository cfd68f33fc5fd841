"""What became of one request, stage by stage, as the facts of a journal tell it."""

from collections.abc import Iterable
from enum import StrEnum

from tidegate.core.model import (
    Candidate,
    Ended,
    Ending,
    FirstToken,
    Held,
    Line,
    Record,
    Released,
    Request,
    Shipped,
    Started,
    replace,
)
from tidegate.core.promise import is_left


class What(StrEnum):
    """What a stage is spent with."""

    HOLD = "hold"
    PREFILL = "prefill"
    TRANSFER = "transfer"
    RESTORE = "restore"
    DECODE = "decode"
    ANSWER = "answer"


class Stage(Record, frozen=True, kw_only=True):
    """From `began_s` on, since the request was read, something took `took_s`, at an endpoint or between two.

    A prefill is an attempt until its first content, the network and waiting in the engine included, and so is a
    restore, where the KV cache of the prompt had come. Of an answer in one piece nobody sees where the one ends and
    decoding begins: it is all of both. `kv_bytes` were transferred. It `failed` where it came to
    nothing, for this `cause` where one was told, and was `cancelled` where nobody wanted any more of it: its client had
    left, or another was quicker. `predicted_s` is what a handover was expected to take with it.
    """

    what: What
    endpoint: str = ""
    target: str = ""
    began_s: float
    took_s: float
    kv_bytes: int = 0
    failed: bool = False
    cause: str = ""
    cancelled: bool = False
    predicted_s: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end."""
        return not (self.failed or self.cancelled)


class Timeline:
    """The stages of one request, in the order of their ends, and the endings of its attempts. Give it every line, from
    where the request was asked for or, where that is not there any more, from later on: then it has to be told when it
    arrived."""

    def __init__(self, request_id: str) -> None:
        self.stages: list[Stage] = []
        self.endings: list[Ended] = []
        self._request_id = request_id
        self._zero_s: float | None = None
        self._held_s: float | None = None
        # Since when, by endpoint, and what it begins with: an attempt; what follows it.
        self._sent: dict[str, tuple[float, Started]] = {}
        self._first_s: dict[str, float] = {}
        self._computed_s: dict[str, float] = {}

    @property
    def goes_on(self) -> bool:
        """Whether something is under way for it."""
        return bool(self._sent or self._computed_s) or self._held_s is not None

    def arrived(self, arrived_s: float) -> None:
        """Stages count from there."""
        self._zero_s = arrived_s

    def feed(self, line: Line) -> None:
        """Take in one line, whoever it is about."""
        at_s, fact = line.at_s, line.fact
        match fact:
            case Request(id=self._request_id):
                self.arrived(fact.arrived_s)
            case Held() if fact.request.id == self._request_id:
                self._held_s = at_s
            case Started(request_id=self._request_id):
                self._unheld(at_s)
                self._sent[fact.endpoint] = at_s, fact
            case Released(request_id=self._request_id):
                self._unheld(at_s)
            case FirstToken(request_id=self._request_id) if fact.endpoint in self._sent:
                began_s, sent = self._sent[fact.endpoint]
                # A prompt for another is computed when its one token is complete, and else it has failed.
                if not sent.target:
                    self._first_s[fact.endpoint] = at_s
                    self._add(_first_of(sent), (sent.endpoint, ""), began_s, at_s)
            case Ended(request_id=self._request_id):
                self.endings.append(fact)
                if fact.endpoint in self._sent:
                    self._ended(fact, at_s)
            case Shipped(request_id=self._request_id) if fact.endpoint in self._computed_s:
                began_s = self._computed_s.pop(fact.endpoint)
                ends = fact.endpoint, fact.target
                cancelled = fact.given_up and not fact.cause
                self._add(
                    What.TRANSFER,
                    ends,
                    began_s,
                    at_s,
                    kv_bytes=fact.kv_bytes,
                    failed=not fact.ok and not cancelled,
                    cause=fact.cause,
                    cancelled=cancelled,
                )
            case _:
                pass

    def _ended(self, fact: Ended, at_s: float) -> None:
        began_s, sent = self._sent.pop(fact.endpoint)
        target = sent.target
        first_s = self._first_s.pop(fact.endpoint, None)
        served = fact.ending is Ending.OK
        cancelled = is_left(fact)
        failed = not served and not cancelled
        if first_s is None:
            ends = fact.endpoint, target
            # All that there is of an embedding is its first content.
            seen = sent.stream or fact.ttft_s is not None
            what = _first_of(sent) if seen else What.ANSWER
            self._add(what, ends, began_s, at_s, failed=failed, cause=fact.cause, cancelled=cancelled)
        else:
            ends = fact.endpoint, ""
            self._add(What.DECODE, ends, first_s, at_s, failed=failed, cause=fact.cause, cancelled=cancelled)
        if target and served:
            self._computed_s[fact.endpoint] = at_s

    def _unheld(self, at_s: float) -> None:
        if self._held_s is not None:
            self._add(What.HOLD, ("", ""), self._held_s, at_s)
            self._held_s = None

    def _add(
        self,
        what: What,
        ends: tuple[str, str],
        began_s: float,
        at_s: float,
        *,
        kv_bytes: int = 0,
        failed: bool = False,
        cause: str = "",
        cancelled: bool = False,
    ) -> None:
        zero_s = began_s if self._zero_s is None else self._zero_s
        endpoint, target = ends
        self.stages.append(
            Stage(
                what=what,
                endpoint=endpoint,
                target=target,
                began_s=began_s - zero_s,
                took_s=at_s - began_s,
                kv_bytes=kv_bytes,
                failed=failed,
                cause=cause,
                cancelled=cancelled,
            )
        )


def beside(stages: Iterable[Stage], candidate: Candidate) -> tuple[Stage, ...]:
    """The same, each with what this handover, when it was decided, was expected to take with it; up to what did not
    come to its end."""
    estimate, computed_s, ship_s, slot_s = candidate.estimate, candidate.computed_s, candidate.ship_s, candidate.slot_s
    if estimate is None or computed_s is None or ship_s is None or slot_s is None:
        return tuple(stages)
    expected_s: dict[What, float | None] = {
        What.PREFILL: computed_s,
        What.TRANSFER: ship_s,
        What.HOLD: slot_s,
        What.RESTORE: estimate.ttft_s - computed_s - ship_s - slot_s,
        What.DECODE: estimate.e2e_s - estimate.ttft_s,
        What.ANSWER: None,
    }
    found: list[Stage] = []
    handed = False
    for stage in stages:
        handed = handed or stage.target == candidate.target
        found.append(replace(stage, predicted_s=expected_s[stage.what]) if handed else stage)
        if not stage.is_whole:
            expected_s = dict.fromkeys(What)
    return tuple(found)


def _first_of(sent: Started) -> What:
    return What.RESTORE if sent.shipped else What.PREFILL
