"""Whether an endpoint's model still is what it was: readings of its log-probabilities, and how far two are apart.

An engine may repeat itself to the last bit. Yet a rounding anywhere, as another order of the same sums makes it, is
amplified by layers that round what passes between them. The limits lie between that and other weights:
`bench/results/canary.json` has both, of a real engine.
"""

from collections.abc import Mapping
from math import fsum

from tidegate.core.model import Record

# What an answer of a reading has at most: enough for sixty numbers, and a tenth of a second to make.
SPOTS_MAX = 8
# Candidates of one spot, as many as every server gives (vLLM and OpenAI 20, older ones 5).
TOP_MAX = 5
# Servers write numbers of their own for "next to nothing", down to -9999.
LOGPROB_MIN = -10.0
# What neither reading gives 0.7 % differs most by rounding: without it, other weights stand out half as far again.
LIKELY_NATS = -5.0
# Any two of 41 copies that differ by one rounding are 0.06 apart at the median and 0.10 at most, with flips to 1.1; the
# weights at another quantisation are 0.5 away and more. A false alarm takes an endpoint away: well above the first.
MEAN_NATS_MAX = 0.15
FLIP_NATS_MAX = 2.5


class Spot(Record, frozen=True, kw_only=True):
    """One token of a greedy answer: its text, and the log-probabilities of the likeliest ones there, its own too.

    In nats, none below `LOGPROB_MIN`; `TOP_MAX` and the token itself at most.
    """

    token: str
    top: dict[str, float]


# The answers to a fixed set of prompts, each up to `SPOTS_MAX` tokens.
Reading = tuple[tuple[Spot, ...], ...]


class Distance(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How far two readings are apart, in nats.

    `mean_nats` is the mean difference of the likely tokens' log-probabilities after the same text. `flip_nats` is by
    how much the odds between two tokens moved where the answers part, at most; 0 where none part. A near-tie takes
    little to flip.
    """

    mean_nats: float
    flip_nats: float


def distance(one: Reading, other: Reading) -> Distance | None:
    """How far apart they are, whichever comes first; None where they have nothing in common to compare."""
    differences: list[float] = []
    flip_nats = 0.0
    for mine, theirs in zip(one, other, strict=False):
        # After the first token that differs, the two go on from different texts.
        for a, b in zip(mine, theirs, strict=False):
            differences += _differences(a.top, b.top)
            if a.token != b.token:
                flip_nats = max(flip_nats, _moved(a, b))
                break
    if not differences:
        return None
    return Distance(mean_nats=fsum(differences) / len(differences), flip_nats=flip_nats)


def judge(found: Distance) -> bool:
    """Whether it is more than the same weights ever differ by."""
    return found.mean_nats > MEAN_NATS_MAX or found.flip_nats > FLIP_NATS_MAX


def _differences(mine: Mapping[str, float], theirs: Mapping[str, float]) -> list[float]:
    """Of each token that is likely in one of them. What is not listed is no likelier than the least that is."""
    found = []
    for token in mine.keys() | theirs.keys():
        a, b = mine.get(token), theirs.get(token)
        if a is None:
            a = min(theirs[token], min(mine.values()))
        if b is None:
            b = min(mine[token], min(theirs.values()))
        if max(a, b) > LIKELY_NATS:
            found.append(abs(a - b))
    return found


def _moved(a: Spot, b: Spot) -> float:
    """By how much the odds between the two tokens moved from one spot to the other, at least."""
    return max(0.0, _odds(a.top, a.token, b.token) + _odds(b.top, b.token, a.token))


def _odds(top: Mapping[str, float], chosen: str, other: str) -> float:
    return top[chosen] - top.get(other, min(top.values()))
