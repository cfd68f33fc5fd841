"""An installation as a simulated world: its endpoints as a journal shows them, asked what it was asked.

What the iterations of our engines take is inferred from their attempts, or, of few, is what the router has learned;
what stands behind an API takes as long as one of the answers that came from there, drawn anew. Requests come when they
came, with the tokens that they had. What went away goes away at the same times.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from random import Random
from statistics import median
from typing import TypeVar

import msgspec

from tidegate.core.cached import Prompt
from tidegate.core.endpoint import EndpointModel
from tidegate.core.health import QUOTA
from tidegate.core.leastsquares import non_negative
from tidegate.core.model import Ending, Endpoint, Line, Overrides, Policy, Request, replace
from tidegate.core.network import NetworkModel
from tidegate.core.price import Rates
from tidegate.core.prior import crowd
from tidegate.core.promise import is_left
from tidegate.core.prompts import DIGESTS_MAX
from tidegate.core.revive import revived
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, State
from tidegate.core.step import StepTime
from tidegate.core.timing import TPOT_TOKENS_MIN
from tidegate.sim.api import FAULTY, UNAVAILABLE, Api, ApiProfile, CacheProfile, Spread
from tidegate.sim.carrier import Carrier, CarrierProfile, as_measured
from tidegate.sim.chance import Chance
from tidegate.sim.decider import Decider
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.inferred import inferred
from tidegate.sim.job import Job
from tidegate.sim.kv import BLOCK_TOKENS
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.observed import LEFT, Attempted, Down, Observed, ObservedError
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.prefixes import Prefixes
from tidegate.sim.purse import Purse
from tidegate.sim.schema import FaultKind, FaultTable
from tidegate.sim.trouble import Trouble
from tidegate.sim.world import World

# Fewer answers say less of an API than what is believed of it.
ANSWERS_MIN = 20
# How one refuses that could serve nobody, which is an error.
_OVERLOADED = frozenset({"status_503", "status_529"})
PROBE_S, PROBES_MAX = 5.0, 20_000
MINUTE_S = 60.0
# An answer takes this share of its time at least, however slow the way to it is believed to be.
SHARE_LEAST = 0.05
# For how long an API is taken to remember a prompt after its last use; how many of them it meets again is measured.
CACHED_FOR_S = 300.0
# How long a request may take in all, where none took longer: as long as a gateway lets it by default.
TIMEOUT_S = 600.0
# Nobody measures how fast answers come back; they are small.
DOWNLOAD_BYTES_PER_S = 1e8
# Digests have 32 bits.
_DIGESTS = 2**32

_R = TypeVar("_R", bound=Rates)


class Redrawn(Spread, frozen=True, kw_only=True):
    """A spread that is what was seen: one of these `factors`, each as likely. What never comes has an infinite one."""

    factors: tuple[float, ...]

    def drawn(self, draw: Random) -> float:
        """One of them."""
        return draw.choice(self.factors)


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind one endpoint, and the way there: an engine, or an API. `reads_by_slot`: see `Engine`.

    Of the tokens of prompts that are not read from a cache the share `written` is kept there, and of those that are
    made the share `reasoned` is reasoning: both may have prices of their own.
    """

    link: LinkProfile
    engine: EngineProfile | None = None
    reads_by_slot: bool = False
    api: ApiProfile | None = None
    written: float = 0.0
    reasoned: float = 0.0


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """The world of a journal. `faults` count from `start_s`, `left` are requests whose clients went away. `carriers`
    take KV caches, by handover. A request may take `timeout_s` in all.
    """

    endpoints: tuple[Endpoint, ...]
    stands: dict[str, Stand]
    jobs: tuple[Job, ...]
    faults: tuple[FaultTable, ...]
    state: State
    start_s: float
    end_s: float
    left: frozenset[str]
    carriers: dict[str, CarrierProfile] = {}
    timeout_s: float = TIMEOUT_S


class Asks:
    """Requests that come when they came."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def arrivals(self) -> Iterator[Job]:
        """See `Traffic`."""
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:  # noqa: ARG002 - all of them have come
        """See `Traffic`."""
        return None


def played(
    twin: Twin,
    policy: Policy,
    *,
    seed: int = 0,
    changed: Callable[[Request], Request] | None = None,
    jobs: Sequence[Job] | None = None,
    decider: Callable[[tuple[Endpoint, ...], Policy, State], Decider] | None = None,
    purse: Purse | None = None,
    probe_s: float | None = None,
    journal: Callable[[Line], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """What its requests come to under this policy; `changed` says what another one makes of each of them.

    The router decides, unless another `decider` is made; both know what was known. What is spent comes out of the
    `purse`; without one there are the budgets that requests came with. `progress` is given the share of the time that
    has passed.
    """
    asked = twin.jobs if jobs is None else jobs
    if probe_s is None:
        # Of months each hour costs as much as a request.
        probe_s = max(PROBE_S, (twin.end_s - twin.start_s) / PROBES_MAX)
    if changed is not None:
        asked = [msgspec.structs.replace(job, request=changed(job.request)) for job in asked]
    state = msgspec.json.decode(msgspec.json.encode(twin.state), type=State)
    router = (Router if decider is None else decider)(twin.endpoints, policy, state)
    # Who decides knows prices as they are declared; what is billed is known only then.
    billed = [_billed(endpoint, twin.stands[endpoint.name]) for endpoint in twin.endpoints]
    world = World(
        billed,
        policy,
        start_s=twin.start_s,
        request_timeout_s=twin.timeout_s,
        router=router,
        purse=purse,
        journal=journal,
    )
    places = placed(twin.stands, world, Chance(seed))
    trouble = Trouble(world, places)
    for fault in twin.faults:
        trouble.arrange(fault)
    end_s = asked[-1].request.arrived_s if asked else twin.start_s
    if progress is not None:
        span_s = max(end_s - twin.start_s, 1e-9)
        for part in range(1, 101):
            world.loop.at(twin.start_s + span_s * part / 100, progress, part / 100)
    carriers = {
        name: Carrier(profile, Link(profile.link, Chance(seed), name), world.loop)
        for name, profile in twin.carriers.items()
    }
    until_s = max(end_s, twin.end_s) + 2.0 * twin.timeout_s
    world.run(places, Asks(asked), probe_s=probe_s, until_s=until_s, carriers=carriers)
    return sorted(world.outcomes, key=lambda one: (one.request.arrived_s, one.request.id))


def placed(stands: Mapping[str, Stand], world: World, chance: Chance) -> dict[str, Local | Remote]:
    """What stands behind each endpoint of a world, from now on."""
    places: dict[str, Local | Remote] = {}
    for name, one in stands.items():
        link = Link(one.link, chance, name)
        if one.engine is not None:
            engine = Engine(one.engine, world.loop.now_s, reads_by_slot=one.reads_by_slot)
            places[name] = Local(name, engine, world.loop, world, link)
        else:
            assert one.api is not None
            places[name] = Remote(name, Api(one.api, chance, name), world.loop, world, link)
    return places


# --- from a journal -----------------------------------------------------------------------------------------------


def twin(observed: Observed, router: Router, *, seed: int = 0, later: Observed | None = None) -> Twin:
    """The world that a journal shows; `router` knows what was known at its end. It is asked what came in the journal,
    or what came `later`, and then who decides begins with what was known in between.

    Raises `ObservedError` where nobody asked for anything in it.
    """
    asked = observed if later is None else later
    if not asked.asked:
        raise ObservedError("nobody asked for anything in this journal")
    jobs = _jobs(observed, seed)
    prompts = {job.request.id: job for job in jobs}
    stands = {
        e.name: stand(
            router.endpoint(e.name),
            observed.attempts.get(e.name, ()),
            prompts,
            observed.end_s,
            [one for one in observed.down if one.endpoint == e.name],
        )
        for e in observed.endpoints
    }
    kept = {endpoint.name for endpoint in observed.endpoints}
    return Twin(
        endpoints=observed.endpoints,
        stands=stands,
        carriers={one.name: as_measured(one) for one in router.handovers},
        jobs=jobs if later is None else _jobs(later, seed),
        faults=_faults(asked, stands),
        state=_begins(observed.state if later is None else router.state, router, kept, asked.start_s),
        start_s=asked.start_s,
        end_s=asked.end_s,
        left=frozenset(one.request.id for one in asked.asked if one.outcome.outcome == LEFT),
        # A gateway that waits for longer than by default may have had one that took longer.
        timeout_s=max(TIMEOUT_S, max(one.outcome.e2e_s for one in asked.asked)),
    )


def _begins(state: State, router: Router, kept: set[str], now_s: float) -> State:
    """What was known when requests began to come, without what operators had set by hand.

    A process that was just started, or an endpoint with new settings, has asked no engine yet for its window and for
    what it can take, and probes of a twin tell neither: they are what `router` has heard since.
    """
    found = revived(state, kept, now_s)
    found.overrides = Overrides()
    for name in kept:
        heard = router.endpoint(name).state
        begins = found.endpoints.setdefault(name, EndpointState())
        if begins.context_tokens is None:
            begins.context_tokens = heard.context_tokens
        if begins.capabilities is None:
            begins.capabilities = heard.capabilities
    return found


def _jobs(observed: Observed, seed: int) -> tuple[Job, ...]:
    """Each request as it came, with the tokens that it had in truth, as far as anybody was told."""
    ratios = [one.prompt_tokens / one.request.prompt_tokens for one in observed.asked if one.prompt_tokens]
    ratio = median(ratios) if ratios else 1.0
    lengths: dict[str, list[int]] = {}
    for one in observed.asked:
        if one.whole:
            lengths.setdefault(one.request.klass, []).append(one.seen)
            lengths.setdefault("", []).append(one.seen)
    chance = Chance(seed)
    jobs = []
    for one in observed.asked:
        request = one.request
        tokens = one.prompt_tokens or max(1, round(request.prompt_tokens * ratio))
        output_tokens = one.seen
        if not one.whole and one.outcome.outcome != LEFT:
            known = lengths.get(request.klass) or lengths.get("", [])
            longer = [length for length in known if length >= one.seen]
            output_tokens = chance.at("length", request.id).choice(longer) if longer else max(one.seen, 1)
        blocks, block_tokens = prompt_blocks(request, tokens)
        jobs.append(
            Job(
                request=request,
                prompt_tokens=tokens,
                output_tokens=max(output_tokens, 1),
                blocks=blocks,
                block_tokens=block_tokens,
            )
        )
    return tuple(jobs)


def prompt_blocks(request: Request, tokens: int) -> tuple[tuple[int, ...], int]:
    """The blocks of a prompt of so many tokens, and the tokens of each.

    What stands before those that have digests is common to whoever has the first one, and what comes after them to
    whoever has all of them: its blocks are known by these.
    """
    digests = request.prefix
    prompt = Prompt(digests, tokens, request.prompt_bytes, request.preamble_bytes)
    block_tokens = BLOCK_TOKENS * max(1, round(prompt.per_block / BLOCK_TOKENS))
    before = round(prompt.before)
    after = int(prompt.whole) - len(digests) if len(digests) >= DIGESTS_MAX else 0
    if before or after:
        first, last = digests[0], digests[-1]
        digests = (
            *(first + _DIGESTS * place for place in range(1, before + 1)),
            *digests,
            *(last + _DIGESTS * place for place in range(1, after + 1)),
        )
    return digests, block_tokens


def _faults(observed: Observed, stands: dict[str, Stand]) -> tuple[FaultTable, ...]:
    return tuple(
        FaultTable(
            kind=FaultKind.CRASH if stands[one.endpoint].engine is not None else FaultKind.UNAVAILABLE,
            endpoint=one.endpoint,
            at_s=max(0.0, one.at_s - observed.start_s),
            for_s=one.for_s,
        )
        for one in observed.down
        if one.endpoint in stands
    )


def stand(
    model: EndpointModel,
    attempts: Sequence[Attempted],
    prompts: Mapping[str, Job],
    now_s: float,
    down: Sequence[Down] = (),
) -> Stand:
    """What stands behind an endpoint, by these attempts, with their prompts by request, and where they are few by what
    is learned of it, or was declared. `down` is when it was away, in order."""
    network = model.network
    link = LinkProfile(
        rtt_s=network.rtt_s,
        upload_bytes_per_s=network.upload_bytes_per_s,
        download_bytes_per_s=DOWNLOAD_BYTES_PER_S,
    )
    written, reasoned = _kinds(attempts)
    if not model.endpoint.shares_compute:
        return Stand(link=link, api=_api(model, attempts, prompts, down), written=written, reasoned=reasoned)
    engine, request_s = _engine(model, now_s)
    if engine.keeps_prefixes and _forgets(attempts, prompts):
        engine = replace(engine, keeps_prefixes=False)
    seen = inferred(attempts, engine.batch_tokens, network.rtt_s, network.upload_bytes_per_s)
    if seen is not None:
        engine, request_s = replace(engine, step=seen.step), seen.request_s
    by_slot = model.prior.batch_tokens is not None
    return Stand(
        link=replace(link, rtt_s=link.rtt_s + request_s),
        engine=engine,
        reads_by_slot=by_slot,
        written=written,
        reasoned=reasoned,
    )


def _kinds(attempts: Sequence[Attempted]) -> tuple[float, float]:
    """The share of the tokens not read from a cache that was kept there, and that of those made that was reasoning."""
    told = [one.ended for one in attempts if one.ended is not None and one.ended.prompt_tokens is not None]
    computed = sum((one.prompt_tokens or 0) - (one.cached_tokens or 0) for one in told)
    made = sum(one.output_tokens or 0 for one in told)
    written = sum(one.cache_write_tokens or 0 for one in told) / computed if computed > 0 else 0.0
    reasoned = sum(one.reasoning_tokens or 0 for one in told) / made if made else 0.0
    return min(written, 1.0), min(reasoned, 1.0)


def _billed(endpoint: Endpoint, stand: Stand) -> Endpoint:
    """The endpoint at what its tokens cost, where no simulated usage says of which kind they are."""
    if not (stand.written or stand.reasoned):
        return endpoint
    price = _mixed(endpoint.price, stand)
    return replace(endpoint, price=replace(price, tiers=tuple(_mixed(tier, stand) for tier in price.tiers)))


def _mixed(rates: _R, stand: Stand) -> _R:
    """With all kinds of a direction at one price, but what is read from the cache."""
    input_usd, output_usd = rates.usd_per_input_token, rates.usd_per_output_token
    return replace(
        rates,
        usd_per_input_token=_between(input_usd, rates.usd_per_cache_write_token, stand.written),
        usd_per_cached_token=input_usd if rates.usd_per_cached_token is None else rates.usd_per_cached_token,
        usd_per_cache_write_token=None,
        usd_per_output_token=_between(output_usd, rates.usd_per_reasoning_token, stand.reasoned),
        usd_per_reasoning_token=None,
    )


def _between(usd: float, own_usd: float | None, share: float) -> float:
    """What a token costs in the mean, where this share has a price of its own."""
    return usd if own_usd is None else usd + share * (own_usd - usd)


def _engine(model: EndpointModel, now_s: float) -> tuple[EngineProfile, float]:
    """As it is learned to be, and what passes with each request besides."""
    endpoint, parts, unload_after_s = model.endpoint, model.timing.parts, model.prior.unload_after_s
    first, token = model.timing.ttft.factors, model.timing.tpot.factors
    per_token_s = parts.token_s * first[1]
    decode_s = parts.decode_s * token[0]
    # What each further sequence adds, on average over as many as there may be.
    most = max(1, endpoint.concurrency - 1)
    beside_s = parts.crowd_s * (token[1] + token[4]) * crowd(parts.fading, most) / most
    per_sequence_s = max(0.0, beside_s - per_token_s)
    step = StepTime(
        base_s=max(decode_s - per_token_s - per_sequence_s, 0.1 * decode_s),
        per_token_s=per_token_s,
        per_sequence_s=per_sequence_s,
        per_context_token_s=parts.context_s * token[2],
        per_pair_s=2.0 * parts.attention_s * first[2],
    )
    profile = EngineProfile(
        step=step,
        slots=endpoint.concurrency,
        batch_tokens=max(parts.chunk_tokens, endpoint.concurrency + 1),
        kv_tokens=model.memory.tokens_max(now_s) or endpoint.concurrency * model.context_tokens,
        load_s=0.0 if unload_after_s is None else model.prior.load_s or 0.0,
        unload_after_s=unload_after_s,
    )
    return profile, max(0.0, parts.overhead_s * first[0] - step.base_s)


def _api(
    model: EndpointModel, attempts: Sequence[Attempted], prompts: Mapping[str, Job], down: Sequence[Down]
) -> ApiProfile:
    """Times of those that it answered, drawn anew, how many it did not, and how many waited for nothing."""
    network, prior = model.network, model.prior
    answered = [one for one in attempts if one.ttft_s is not None and one.ended is not None]
    # Who comes beyond a limit is turned away before anything can fail, and what is away is so in its twin, too.
    let_in = [one for one in attempts if not _is_limited(one) and not _met_nobody(one, down)]
    failed = [one for one in let_in if _failed(one)] if len(let_in) >= ANSWERS_MIN else []
    refused = sum(one.ended is not None and one.ended.ending is Ending.REFUSED for one in failed)
    silent = [one for one in let_in if _is_silent(one)]
    streamed = [one for one in let_in if one.ttft_s is not None and _is_over(one)]
    broken = sum(_broke_off(one) for one in streamed) if len(streamed) >= ANSWERS_MIN else 0
    troubled = ApiProfile(
        ttft_s=prior.overhead_s,
        ttft_s_per_uncached_token=prior.prefill_s_per_token,
        tpot_s=prior.decode_s_per_token,
        errors=len(failed) / len(let_in) if failed else 0.0,
        # A refusal teaches less than a failure: all are taken for what most of them are.
        error_status=UNAVAILABLE if 2 * refused > len(failed) else FAULTY,
        error_times_s=tuple(_there_s(_took_s(one), one, network) for one in failed),
        broken=broken / len(streamed) if broken else 0.0,
        requests_per_minute=_per_minute(attempts),
    )
    if len(answered) < ANSWERS_MIN:
        whole = [one for one in attempts if one.ttft_s is None and one.ended is not None and one.ended.output_tokens]
        return _unseen(troubled, whole, silent, network) if len(whole) >= ANSWERS_MIN else troubled
    firsts = [(_uncached(one), _there_s(one.ttft_s or 0.0, one, network)) for one in answered]
    slope = _slope(firsts)
    rest = [max(seconds - slope * tokens, 1e-3) for tokens, seconds in firsts]
    ttft_s = median(rest)
    factors = [s / (ttft_s + slope * tokens) for tokens, s in firsts]
    outlasted = [
        _there_s(_took_s(one), one, network) / (ttft_s + slope * _uncached(one)) for one in silent if one.started.stream
    ]
    per_token = [s for one in answered if (s := _per_token_s(one)) is not None] or [prior.decode_s_per_token]
    tpot_s = median(per_token)
    return replace(
        troubled,
        ttft_s=ttft_s,
        ttft_s_per_uncached_token=slope,
        ttft_spread=Redrawn(factors=_with_silent(factors, outlasted)),
        tpot_s=tpot_s,
        tpot_spread=Redrawn(factors=tuple(s / tpot_s for s in per_token)),
        cache=_cache(answered, prompts),
    )


def _unseen(
    troubled: ApiProfile, attempts: Sequence[Attempted], silent: Sequence[Attempted], network: NetworkModel
) -> ApiProfile:
    """Of answers whose first content nobody saw: a time, and what each token of prompt and answer adds to it."""
    seen = [
        (_uncached(one), ended.output_tokens or 1, _there_s(ended.e2e_s, one, network))
        for one in attempts
        if (ended := one.ended) is not None
    ]
    # Each answer counts alike: of a long one a second more says less.
    rows = [(1.0 / s, tokens / s, made / s) for tokens, made, s in seen]
    base_s, slope, tpot_s = non_negative(rows, [1.0] * len(rows))
    ttft_s = max(base_s, 1e-3)
    firsts = [ttft_s + slope * tokens for tokens, _, _ in seen]
    factors = [s / (f + tpot_s * made) for f, (_, made, s) in zip(firsts, seen, strict=True)]
    # How long an answer would have been that did not come, nobody knows.
    usual_s = tpot_s * median(made for _, made, _ in seen)
    outlasted = [_there_s(_took_s(one), one, network) / (ttft_s + slope * _uncached(one) + usual_s) for one in silent]
    tpot_s = max(tpot_s, 1e-6)
    # What both are drawn by scatters apart; so the rest of an answer has all that whole ones scatter by.
    rest = tuple(max(s - f, SHARE_LEAST * s) / (tpot_s * made) for f, (_, made, s) in zip(firsts, seen, strict=True))
    return replace(
        troubled,
        ttft_s=ttft_s,
        ttft_s_per_uncached_token=slope,
        ttft_spread=Redrawn(factors=_with_silent(factors, outlasted)),
        tpot_s=tpot_s,
        tpot_spread=Redrawn(factors=rest),
    )


def _with_silent(factors: Sequence[float], outlasted: Sequence[float]) -> tuple[float, ...]:
    """As many, each as likely, as came and as did not, of which is known what they `outlasted` in silence: those would
    have taken as long as one that took longer (Kaplan and Meier). What has outlasted all that came never comes."""
    if not outlasted:
        return tuple(factors)
    ordered = sorted([(factor, False) for factor in factors] + [(factor, True) for factor in outlasted])
    found, left = list[float](), 1.0
    for index, (factor, silent) in enumerate(ordered):
        if not silent:
            left *= 1.0 - 1.0 / (len(ordered) - index)
            found += [factor] * (round(len(ordered) * (1.0 - left)) - len(found))
    return (*found, *[inf] * (len(ordered) - len(found)))


def _there_s(seconds: float, one: Attempted, network: NetworkModel) -> float:
    """What is left of a time without the way there and back, which its twin has besides."""
    return max(seconds - network.seconds(one.started.prompt_bytes), SHARE_LEAST * seconds, 1e-3)


def _took_s(one: Attempted) -> float:
    return 0.0 if one.ended is None else one.ended.e2e_s


def _is_limited(one: Attempted) -> bool:
    """Whether it came beyond a limit."""
    return one.ended is not None and one.ended.ending is Ending.REFUSED and one.ended.cause in QUOTA


def _met_nobody(one: Attempted, down: Sequence[Down]) -> bool:
    """Whether it was sent, or ended, while the endpoint was away."""
    return _is_within(one.sent_s, down) or (one.ended is not None and _is_within(one.sent_s + one.ended.e2e_s, down))


def _is_within(at_s: float, down: Sequence[Down]) -> bool:
    before = bisect_right(down, at_s, key=lambda one: one.at_s)
    return before > 0 and at_s <= down[before - 1].at_s + down[before - 1].for_s


def _failed(one: Attempted) -> bool:
    """Whether it came to nothing by the endpoint's fault, before any content."""
    ended = one.ended
    if ended is None or one.ttft_s is not None:
        return False
    return ended.ending is Ending.FAILED or (ended.ending is Ending.REFUSED and ended.cause in _OVERLOADED)


def _is_over(one: Attempted) -> bool:
    """Whether it came to its end, and nobody gave it up before."""
    return one.ended is not None and one.ended.ending in (Ending.OK, Ending.FAILED)


def _broke_off(one: Attempted) -> bool:
    """Whether it came to nothing by the endpoint's fault, after first content."""
    return one.ttft_s is not None and one.ended is not None and one.ended.ending is Ending.FAILED


def _is_silent(one: Attempted) -> bool:
    """Whether it was given up before any content, by whoever waited for it or for another one that came first."""
    ended = one.ended
    return one.ttft_s is None and ended is not None and (ended.ending is Ending.TIMED_OUT or is_left(ended))


def _per_minute(attempts: Sequence[Attempted]) -> float | None:
    """How many a minute are let in while some are turned away, in the median of these; None where none is."""
    let_in = sorted(one.sent_s for one in attempts if one.ended is not None and one.ended.ending is not Ending.REFUSED)
    limited = [one.sent_s for one in attempts if _is_limited(one)]
    if not limited:
        return None
    # Of the minute before each: what passes between two rushes says nothing of the limit.
    counts = [bisect_right(let_in, at_s) - bisect_right(let_in, at_s - MINUTE_S) for at_s in limited]
    return max(1.0, float(median(counts)))


def _cache(answered: Sequence[Attempted], prompts: Mapping[str, Job]) -> CacheProfile | None:
    """What is remembered of prompts that begin alike: as much of what could be as was told, None where nothing was."""
    told = [
        (one.sent_s, job, one.ended.cached_tokens)
        for one in answered
        if one.ended is not None and (job := prompts.get(one.started.request_id)) is not None
    ]
    seen, could, cached = Prefixes(CACHED_FOR_S), 0, 0
    for sent_s, job, tokens in sorted(told, key=lambda one: one[0]):
        if tokens is not None:
            could += min(job.block_tokens * seen.seen(job.blocks, sent_s), job.prompt_tokens - 1)
            cached += tokens
        seen.keep(job.blocks, sent_s)
    if not cached:
        return None
    met = min(1.0, cached / max(could, cached))
    return CacheProfile(ttl_s=CACHED_FOR_S, block_tokens=BLOCK_TOKENS, tokens_min=0, met=met)


def _forgets(attempts: Sequence[Attempted], prompts: Mapping[str, Job]) -> bool:
    """Whether it told that nothing was cached of prompts that begin like earlier ones."""
    told = [one for one in attempts if one.ended is not None and one.ended.cached_tokens is not None]
    begun, again = set[int](), 0
    for one in told:
        job = prompts.get(one.started.request_id)
        first = () if job is None else job.blocks[:1]
        again += bool(begun.intersection(first))
        begun.update(first)
    return again >= ANSWERS_MIN and not any(one.ended is not None and one.ended.cached_tokens for one in told)


def _uncached(one: Attempted) -> int:
    ended = one.ended
    tokens = one.started.prompt_tokens if ended is None else ended.prompt_tokens or one.started.prompt_tokens
    return max(0, tokens - (0 if ended is None else ended.cached_tokens or 0))


def _per_token_s(one: Attempted) -> float | None:
    ended = one.ended
    if ended is None or ended.ending is not Ending.OK or ended.ttft_s is None:
        return None
    tokens = (ended.output_tokens or 0) / one.started.completions
    return (ended.e2e_s - ended.ttft_s) / (tokens - 1.0) if tokens >= TPOT_TOKENS_MIN else None


def _slope(rows: Sequence[tuple[int, float]]) -> float:
    """Seconds for each further token: between the medians of the shorter and of the longer third."""
    ordered = sorted(rows)
    third = len(ordered) // 3
    low, high = ordered[:third], ordered[-third:]
    tokens = median(t for t, _ in high) - median(t for t, _ in low)
    return max(0.0, (median(s for _, s in high) - median(s for _, s in low)) / tokens) if tokens > 0 else 0.0
