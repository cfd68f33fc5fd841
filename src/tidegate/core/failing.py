"""The records of attempts that fail between others that serve."""

from typing import Final

import msgspec


class Failing(msgspec.Struct, frozen=True, gc=False):
    """The chance to have `failed` before any content, `after_s` in the mean, and the chance to be `broken` off."""

    failed: float
    after_s: float
    broken: float


NEVER: Final = Failing(0.0, 0.0, 0.0)


class Failures(msgspec.Struct):
    """Decayed sums at `at_s`: of `ended` attempts so many `failed` before any content, after `failed_s` in all, and so
    many `broke` off. Those in a row that is not over, without a success after them, are in `row_failed`, `row_failed_s`
    and `row_broke` as well."""

    at_s: float = 0.0
    ended: float = 0.0
    failed: float = 0.0
    failed_s: float = 0.0
    broke: float = 0.0
    row_failed: float = 0.0
    row_failed_s: float = 0.0
    row_broke: float = 0.0
