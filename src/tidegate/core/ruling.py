"""Operators' rules: of which requests each holds, and what it then says of them."""

import msgspec

from tidegate.core.condition import Condition


class Ruling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the rule of this name says of a request that it holds of: its class, or where it goes.

    It goes `to` these endpoints: nowhere else, or with `break_usd` elsewhere as if that cost so many dollars more.
    """

    rule: str
    klass: str = ""
    to: tuple[str, ...] = ()
    break_usd: float | None = None

    @property
    def hard(self) -> bool:
        """Whether it forbids something."""
        return bool(self.to) and self.break_usd is None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: what it says of the requests of which `when` holds."""

    when: Condition
    says: Ruling
