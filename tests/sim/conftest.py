"""Laws of simulated worlds are tried as those of the core are."""

from hypothesis import settings

from tests.properties import conftest as laws

__all__ = ["laws"]

settings.load_profile("laws")
