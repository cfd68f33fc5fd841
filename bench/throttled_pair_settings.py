"""What `bench.throttled_pair` asks. Written down, with its seed, before anything was tuned on it."""

import random
from enum import StrEnum

import msgspec

SEED = 20261127
TOKENS = {
    20: (500, 700, 1_000, 1_500, 2_000),
    50: (600, 900, 1_300, 1_800, 7_000),
    200: (500, 800, 1_200, 1_500, 2_000),
    1_000: (600, 1_000, 1_300, 1_600, 3_000),
}
"""About so long are the prompts, by the Mbit/s of the link, each way. In this order, and within each by chance."""
OUTPUTS = (8, 16, 32, 48)
"""Tokens of an answer, which goes on to the last of them."""
FACTORS = (1.2, 8.0)
"""A promise is so many times what the remote engine takes alone, as measured while warming up: from next to no slack
to what the throttled one keeps. Even in the logarithm, so that some fall where any two choices part."""
TPOT_FACTOR = 2.0
"""Of a promise of the time per token, beside that of the first: less than the throttled engine keeps."""
WARM_LOCAL, WARM_REMOTE = (200, 800, 1_500), (200, 800, 3_000)
"""Prompts that are not judged: each side computes its own, whole, before the first of the others is asked. No KV cache
is sent meanwhile: of the link, what is declared is known."""
WARM_OUTPUT = 16
WARMED = 24
"""With `--warmed` each side has answered so many more, as a pair that has been in use for an hour: what choices are
worth once both engines are known. Without, what they are worth after three answers."""
WARMED_LINK = (500, 800, 600, 700)
"""With `--warmed`, prompts of which each link has seen so many as well, with promises that leave room for a handover:
until KV caches have been sent over a link, what is known of it is what is declared."""
WARMED_LINK_OUTPUT, WARMED_LINK_FACTOR = 48, 3.5
"""Of their answers, whose price a handover saves, the tokens, and their promises' factor."""
WARMED_TOKENS = {"local": (200, 2_000), "away": (200, 3_000)}
"""Even in the logarithm between these, with outputs by chance."""


class Axis(StrEnum):
    """What is promised: the first content, that and each token, or the whole."""

    TTFT = "ttft"
    TPOT = "tpot"
    E2E = "e2e"


AXES = (Axis.TTFT,) * 6 + (Axis.E2E,) * 3 + (Axis.TPOT,)
"""Of ten, so many."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    mbit_per_s: int
    tokens: int
    output_tokens: int
    axis: Axis
    factor: float


def warming(site: str) -> list[tuple[int, int]]:
    """Tokens of prompt and answer of those that `--warmed` adds at a site."""
    chance = random.Random(f"{SEED} {site}")
    least, most = WARMED_TOKENS[site]
    return [(round(least * (most / least) ** chance.random()), chance.choice(OUTPUTS)) for _ in range(WARMED)]


def asked() -> list[Asked]:
    """All of them, in their order."""
    chance = random.Random(SEED)
    found = []
    for mbit_per_s, lengths in TOKENS.items():
        for tokens in chance.sample(lengths, len(lengths)):
            least, most = FACTORS
            found.append(
                Asked(
                    mbit_per_s=mbit_per_s,
                    tokens=tokens,
                    output_tokens=chance.choice(OUTPUTS),
                    axis=chance.choice(AXES),
                    factor=round(least * (most / least) ** chance.random(), 2),
                )
            )
    return found
