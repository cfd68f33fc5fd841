"""What an operator's rule asks of a request: a small expression of what is observed of it, never of its prompt."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
Features = Mapping[str, Value | None]
"""What is observed of a request, by the name that rules have for it; None where it says nothing."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One feature beside a constant. Of what is not known none holds."""

    feature: str
    op: str
    value: Value


class Not(msgspec.Struct, frozen=True, kw_only=True):
    """It does not hold."""

    of: "Condition"


class All(msgspec.Struct, frozen=True, kw_only=True):
    """Each of them holds."""

    of: "tuple[Condition, ...]"


class Some(msgspec.Struct, frozen=True, kw_only=True):
    """One of them holds, or more."""

    of: "tuple[Condition, ...]"


Condition = Comparison | Not | All | Some

OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "has": operator.contains,
    "in": lambda one, many: one in many,
}
"""How a feature, on the left, may be compared with a constant."""


def holds(condition: Condition, features: Features) -> bool:
    """Whether it holds of a request with these features."""
    if isinstance(condition, Comparison):
        found = features.get(condition.feature)
        return found is not None and bool(OPERATORS[condition.op](found, condition.value))
    if isinstance(condition, Not):
        return not holds(condition.of, features)
    # Of these, one that tells is enough: for all, one that does not hold; for some, one that does.
    telling = isinstance(condition, Some)
    for one in condition.of:
        if holds(one, features) is telling:
            return telling
    return not telling
