"""The part of an error that nobody can help: before a simulated engine, requests as if nobody came after them."""

import copy
import json
from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from bench.record import RESULTS
from tidegate.core.model import Request
from tidegate.core.timing import TPOT_TOKENS_MIN
from tidegate.sim.engine import Engine, EngineProfile, Kind, Told
from tidegate.sim.job import Job


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request as an engine sees it: when it comes, the tokens that are computed, and those that are made."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes; `tpot_s` is None where the answer is too short to tell."""

    ttft_s: float
    tpot_s: float | None


def profile() -> EngineProfile:
    """llama.cpp on one core, as bench/llama_parity.py measured it."""
    calibration = json.loads((RESULTS / "llama_parity.json").read_text())["calibration"]
    return msgspec.convert(calibration["engine"], EngineProfile)


def foresight(sent: Sequence[Sent], engine_profile: EngineProfile, slowdown: float = 1.0) -> list[tuple[Times, Times]]:
    """Of each request, in the order of sending: as if it were the last one, and as it comes to be.

    All takes `slowdown` times as long as the profile says.
    """
    engine = Engine(engine_profile, sent[0].at_s, reads_by_slot=True)
    engine.slow(slowdown, sent[0].at_s)
    told: list[Told] = []
    lasts: list[Times] = []
    for number, one in enumerate(sent):
        told += engine.advance(one.at_s)
        request = Request(
            id=str(number),
            arrived_s=one.at_s,
            model="",
            klass="",
            prompt_tokens=one.prompt_tokens,
            prompt_bytes=4 * one.prompt_tokens,
        )
        engine.submit(Job(request=request, prompt_tokens=one.prompt_tokens, output_tokens=one.output_tokens), one.at_s)
        lasts.append(_times(_rest(copy.deepcopy(engine)), sent, [number])[0])
    told += _rest(engine)
    return list(zip(lasts, _times(told, sent, range(len(sent))), strict=True))


def _rest(engine: Engine) -> list[Told]:
    """All that it still has to do."""
    told: list[Told] = []
    while engine.next_s < inf:
        told += engine.advance(engine.next_s)
    return told


def _times(told: Iterable[Told], sent: Sequence[Sent], numbers: Iterable[int]) -> list[Times]:
    at_s = {(one.kind, one.sequence.job.request.id): one.at_s for one in told}
    found = []
    for number in numbers:
        first_s, done_s = at_s[Kind.FIRST, str(number)], at_s[Kind.DONE, str(number)]
        tokens = sent[number].output_tokens
        tpot_s = (done_s - first_s) / (tokens - 1) if tokens >= TPOT_TOKENS_MIN else None
        found.append(Times(ttft_s=first_s - sent[number].at_s, tpot_s=tpot_s))
    return found
