"""Fixtures of the lab's own suite."""

from tests.lab.engines import shared_engine

__all__ = ["shared_engine"]
