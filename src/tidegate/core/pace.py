"""What an endpoint was busy with in the last while: how many requests, and how much of it with their prompts."""

from math import exp
from typing import Final

import msgspec

# Answers take seconds: those that come while one is written are as many as came in the last ten.
MEMORY_S: Final = 10.0


class Pace(msgspec.Struct):
    """Means over the last `MEMORY_S`, the newest counting most: requests in flight, and seconds of prompts a second."""

    load: float = 0.0
    prompts: float = 0.0
    at_s: float = 0.0


# Every event tells and every prediction asks: a function takes half as long as a method of a record does where this is
# compiled.
def pass_until(pace: Pace, load: int, now_s: float) -> None:
    """So many were in flight until now."""
    age_s = now_s - pace.at_s
    if age_s > 0.0:
        left = exp(-age_s / MEMORY_S)
        pace.load = load + (pace.load - load) * left
        pace.prompts *= left
        pace.at_s = now_s


def came(pace: Pace, prompt_s: float) -> None:
    """A prompt has come that takes so long."""
    pace.prompts += prompt_s / MEMORY_S


def means(pace: Pace, load: int, now_s: float) -> tuple[float, float]:
    """Both means now, where `load` have been in flight since the last event, and nothing has come."""
    age_s = now_s - pace.at_s
    load_mean: float = pace.load
    prompts: float = pace.prompts
    if age_s <= 0.0:
        return load_mean, prompts
    left = MEMORY_S / (age_s + MEMORY_S)
    return load + (load_mean - load) * left, prompts * left
