"""How clients ask: from what the world knows of a request to what the gateway may know of it.

The gateway makes its `Request` from bytes and headers (`wire/intake`); here there are no bytes, so the same numbers are
made from the true tokens: bytes by a ratio that scatters, tokens estimated back from them, digests from blocks.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import exp
from random import Random
from typing import TypeVar

import msgspec

from tidegate.core.classify import classify
from tidegate.core.model import USUAL_WEIGHT, Capability, Likeness, Request, RequestClass, Ruling, Slo
from tidegate.core.ruled import class_ruling, features, rulings
from tidegate.core.ruling import Rule
from tidegate.sim.job import Job
from tidegate.sim.lengths import normal
from tidegate.wire.tokens import MESSAGE_BYTES, MESSAGE_TOKENS, PRIOR_BYTES_PER_TOKEN, TokenRatio

# Spread of the logarithm of bytes per token from one prompt to the next, within one model's traffic. An assumption:
# English prose has some 4.5 bytes a token, code 3.3, dense JSON 2.8, and most prompts mix them. The mean is the ratio
# that the gateway has learned, so estimates are right on average, and within 35 % of the truth in 19 of 20 cases.
BYTES_SIGMA = 0.15

# What a digest of the gateway's stands for, in tokens: 1 KiB at four bytes a token; and at most so many of them.
DIGEST_TOKENS = 256
DIGESTS_MAX = 256
_MASK = 2**64 - 1
# Odd, so that multiplying modulo 2^64 confuses no two blocks; the golden ratio's and another's well mixed bits.
_BLOCK, _PIECE = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93

# Identities of blocks, in 63 bits: whose traffic, which request or session of it, from which turn and place.
SPACES = 2**7
NUMBERS = 2**28
TURNS = 2**12
PLACES = 2**16
# The turn that no session reaches: blocks under it are common to several clients.
COMMON = TURNS - 1

# How clients bound the output where nothing is said: half of them not at all, half far beyond what they need.
BOUNDS = (None, 4096)

_TRUE_RATIO = TokenRatio()
_NO_SLO = Slo()
_T = TypeVar("_T")


class Manner(msgspec.Struct, frozen=True):
    """What stays the same from turn to turn of one client: class, promise, bound, and the bytes of its language.

    `own` are the axes of the promise that it sets itself.
    """

    klass: RequestClass
    slo: Slo
    own: Slo
    output_tokens_max: int | None
    bytes_per_token: float


class Ask:
    """Who asks for what: one model, a mix of classes, of promises and of bounds on the output.

    `classes` and `slos` come with their weights; the axes of a promise go before the class's, as a client's headers
    do. Clients set one of `output_tokens_max`, each as often; a bound cuts the output, None leaves it whole. `rules`
    are the operators'; where clients do not say their class (`says_class`), a rule may give one of all that are
    `served`. All requests have one `key`, with its `weight`.
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[tuple[RequestClass, float]],
        *,
        slos: Sequence[tuple[Slo, float]] = ((Slo(), 1.0),),
        output_tokens_max: Sequence[int | None] = BOUNDS,
        bytes_sigma: float = BYTES_SIGMA,
        likeness: Likeness = Likeness.IDENTICAL,
        rules: tuple[Rule, ...] = (),
        served: Mapping[str, RequestClass] | None = None,
        says_class: bool = True,
        key: str = "",
        weight: float = USUAL_WEIGHT,
    ) -> None:
        assert classes
        assert slos
        assert output_tokens_max
        self._model, self._likeness, self._sigma = model, likeness, bytes_sigma
        self._classes, self._class_ends = _mix(classes)
        self._slos, self._slo_ends = _mix(slos)
        self._bounds = tuple(output_tokens_max)
        self._key, self._weight = key, weight
        self._rules, self._given = rules, {} if says_class or served is None else served

    def manner(self, random: Random) -> Manner:
        """One client's. Always takes four numbers of chance, so that no mix changes what another one draws."""
        klass = self._classes[bisect_right(self._class_ends, random.random())]
        own = self._slos[bisect_right(self._slo_ends, random.random())]
        bound = self._bounds[int(random.random() * len(self._bounds))]
        sigma = self._sigma
        ratio = PRIOR_BYTES_PER_TOKEN * exp(sigma * normal(random.random()) - sigma * sigma / 2.0)
        return Manner(klass, _slo(klass.slo, own), own, bound, ratio)

    def job(
        self,
        manner: Manner,
        *,
        id: str,
        arrived_s: float,
        prompt_tokens: int,
        output_tokens: int,
        blocks: tuple[int, ...] = (),
        block_tokens: int = 512,
        session: str = "",
        turn: int = 0,
        after: Job | None = None,
    ) -> Job:
        """The request with what the gateway takes it for. A later turn has two more messages than the one before it.

        `after` is the turn before, whose digests are taken over where they are the same.
        """
        messages = 1 + 2 * turn
        text_bytes = max(prompt_tokens - MESSAGE_TOKENS * messages, 1.0) * manner.bytes_per_token
        prompt_bytes = int(text_bytes) + MESSAGE_BYTES * messages
        estimated = _TRUE_RATIO.tokens(prompt_bytes, messages)
        klass, slo = manner.klass, manner.slo
        said: tuple[Ruling, ...] = ()
        if self._rules:
            klass, slo, said = self._ruled(manner, estimated, session)
        request = Request(
            id=id,
            arrived_s=arrived_s,
            model=self._model,
            klass=classify(klass.name, estimated),
            prompt_tokens=estimated,
            prompt_bytes=prompt_bytes,
            output_tokens_max=manner.output_tokens_max,
            slo=slo,
            attainment=klass.attainment,
            worth_usd=klass.worth_usd,
            worth_usd_per_1k_tokens=klass.worth_usd_per_1k_tokens,
            late_usd_per_s=klass.late_usd_per_s,
            residency=klass.residency,
            likeness=klass.likeness or self._likeness,
            session=session,
            session_moves=klass.session_moves,
            prefix=_digests_after(after, blocks, block_tokens),
            key=self._key,
            weight=self._weight,
            rulings=said,
        )
        return Job(
            request=request,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            blocks=blocks,
            block_tokens=block_tokens,
            session=session,
            turn=turn,
        )

    def _ruled(self, manner: Manner, prompt_tokens: int, session: str) -> tuple[RequestClass, Slo, tuple[Ruling, ...]]:
        """Class and promise, and what the rules that hold say of a chat that is streamed."""
        observed = features(
            model=self._model,
            prompt_tokens=prompt_tokens,
            output_tokens_max=manner.output_tokens_max,
            completions=1,
            needs=(Capability.CHAT,),
            session=bool(session),
            stream=True,
            key=self._key,
        )
        klass, slo = manner.klass, manner.slo
        given = class_ruling(self._rules, observed, self._given)
        if given is not None:
            klass = self._given[given.klass]
            slo = _slo(klass.slo, manner.own)
        observed["class"] = klass.name
        said = rulings(self._rules, observed)
        return klass, slo, said if given is None else (given, *said)


def block_ids(space: int, number: int, turn: int, places: range) -> tuple[int, ...]:
    """Identities of the blocks at these places of a prompt, that came with this turn of this session.

    No two of them are the same, and none has two predecessors, so what prompts share are their leading blocks. Of a
    prompt with more than `PLACES` blocks, the rest has none: no engine has room for it.
    """
    assert 0 <= space < SPACES
    assert 0 <= number < NUMBERS
    assert 0 <= turn < TURNS
    base = ((space * NUMBERS + number) * TURNS + turn) * PLACES
    return tuple(range(base + places.start, base + min(places.stop, PLACES)))


def digests(blocks: tuple[int, ...], block_tokens: int) -> tuple[int, ...]:
    """What the gateway would make of them: one digest for each whole KiB, as far as whole blocks go, at most 256.

    Prompts have as many digests in common as they have leading blocks, to the KiB.
    """
    if block_tokens <= DIGEST_TOKENS:
        each = DIGEST_TOKENS // block_tokens
        return tuple([(block * _BLOCK & _MASK) >> 32 for block in blocks[each - 1 : each * DIGESTS_MAX : each]])
    pieces = [piece * _PIECE for piece in range(block_tokens // DIGEST_TOKENS)]
    found = [
        (block * _BLOCK + piece & _MASK) >> 32 for block in blocks[: -(-DIGESTS_MAX // len(pieces))] for piece in pieces
    ]
    return tuple(found[:DIGESTS_MAX])


def _digests_after(after: Job | None, blocks: tuple[int, ...], block_tokens: int) -> tuple[int, ...]:
    """The digests of a turn; of long prompts none is new, and to make 256 takes half the time of all the rest."""
    if after is not None and after.block_tokens == block_tokens:
        covered = DIGESTS_MAX * DIGEST_TOKENS // block_tokens
        if len(blocks) >= covered and blocks[:covered] == after.blocks[:covered]:
            return after.request.prefix
    return digests(blocks, block_tokens)


def _mix(weighted: Sequence[tuple[_T, float]]) -> tuple[tuple[_T, ...], list[float]]:
    """What there is, and where each one's share of the line from 0 to 1 ends; the last one's is open."""
    assert all(weight >= 0.0 for _, weight in weighted)
    total = sum(weight for _, weight in weighted)
    assert total > 0.0
    return tuple(one for one, _ in weighted), [end / total for end in accumulate(w for _, w in weighted)][:-1]


def _slo(given: Slo, own: Slo) -> Slo:
    """The promise of the class, with the axes that the client sets itself."""
    if own == _NO_SLO:
        return given
    return Slo(
        ttft_s=given.ttft_s if own.ttft_s is None else own.ttft_s,
        tpot_s=given.tpot_s if own.tpot_s is None else own.tpot_s,
        e2e_s=given.e2e_s if own.e2e_s is None else own.e2e_s,
    )
