"""Tests here may be coroutines, as in the gateway's suite."""

from tests.gateway.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
