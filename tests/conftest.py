"""What holds for all tests."""

from hypothesis import settings

# Timing decides no test: a machine that does other things besides takes several times as long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
