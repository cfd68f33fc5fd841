"""Laws are checked on the same examples every time: a failure is the code's, not the day's."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "worlds",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("worlds")
