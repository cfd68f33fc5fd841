"""What the ledger says of what may be spent."""

import msgspec

from tidegate.config.cap import Cap, Period

__all__ = ["Cap", "CapStatus", "Period", "Refused", "Status"]


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation that does not fit. Of the caps it breaks, the one for which it takes longest to be renewed."""

    cap: Cap
    left_usd: float
    resets_at_s: float


class CapStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One cap in its present window. `left_usd` is negative where a bill exceeded its bound, or the cap was lowered."""

    cap: Cap
    spent_usd: float
    unconfirmed_usd: float
    reserved_usd: float
    left_usd: float
    resets_at_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What operators look at: caps, and how many there are beside these. `overruns` counts bills above their bound, in
    the days that are kept."""

    caps: tuple[CapStatus, ...]
    more: int = 0
    overruns: int
