"""What a flight says is to be done for its request: whoever drives it does that, and tells what came of it."""

from enum import StrEnum

from tidegate.core.model import Record


class Call(Record, frozen=True, kw_only=True):
    """Send the request to this endpoint. `hedge`: another attempt is still under way."""

    endpoint: str
    hedge: bool = False


class Compute(Record, frozen=True, kw_only=True):
    """Have this endpoint compute the prompt, and send its KV cache to `target`. `hedge`: see `Call`."""

    endpoint: str
    target: str
    hedge: bool = False


class Silence(StrEnum):
    """How an attempt that is given up has kept its client waiting."""

    NO_CONTENT = "no_content"
    STALLED = "stalled"
    TOO_SLOW = "too_slow"


class Cancel(Record, frozen=True, kw_only=True):
    """Stop this attempt; its engine must learn that nobody waits. `gave_up` says why, if that is its own fault."""

    endpoint: str
    gave_up: Silence | None = None


class Relay(Record, frozen=True, kw_only=True):
    """The commit point: this attempt's content goes to the client from now on."""

    endpoint: str


class Hold(Record, frozen=True, kw_only=True):
    """Keep the request until it is decided again; for `until_s` see `core.model.Wait`."""

    until_s: float


class Timer(Record, frozen=True, kw_only=True):
    """Call `timer` at this time. A later Timer replaces an earlier one."""

    at_s: float


class GiveUp(Record, frozen=True, kw_only=True):
    """Tell the client that it failed: `committed` says whether it has seen content, so that the error is in-band."""

    committed: bool


class Resume(Record, frozen=True, kw_only=True):
    """The answer that the client has begun to see broke off there: ask for its rest, under a new plan."""

    endpoint: str


class Decide(Record, frozen=True, kw_only=True):
    """The prompt's KV cache, computed by `endpoint`, is at `target`: decide again, knowing that. Without a `target`
    it could not be had there, and is nowhere."""

    endpoint: str
    target: str = ""


class Again(Record, frozen=True, kw_only=True):
    """To none of the plan's steps could it be sent, those that were asked found fault with it, or the settings are
    others by now: decide again, knowing that."""


class Finish(Record, frozen=True, kw_only=True):
    """The answer is complete."""

    endpoint: str


Action = Call | Compute | Cancel | Relay | Hold | Timer | Resume | Decide | Again | GiveUp | Finish
