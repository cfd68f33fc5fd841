"""Laws are checked on the same examples every time, as in the suite of properties."""

from tests.properties import conftest as laws

__all__ = ["laws"]
