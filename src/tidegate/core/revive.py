"""A state after a restart, or under another configuration.

With a process ends what was under way; what was learned is kept, and what does not age by itself has.

Cells of corrections, strikes of breakers and counts of lengths fade with the time since they last learned, in epoch
seconds, whether the process lived on or not. What has no such time widens here, by the time that nobody looked.
"""

from collections.abc import Container, Iterable, Iterator

from tidegate.core import (
    batch,
    bins,
    breaker,
    budget,
    dual,
    failures,
    handover,
    hazard,
    headroom,
    hedge,
    keeping,
    limit,
    load,
    memory,
    network,
    shares,
)
from tidegate.core.calibration import left_after, unjudged
from tidegate.core.counts import Counts, Lengths, Tracked
from tidegate.core.hazard import Outcomes
from tidegate.core.health import RETRY_AFTER_S_MAX
from tidegate.core.latency import PARTS, SILENCES_MAX
from tidegate.core.learned import Learned
from tidegate.core.length import COUNTS_BYTES_MAX, TURNS_MAX, bytes_of
from tidegate.core.likeness import in_force
from tidegate.core.limit import Limit
from tidegate.core.model import Endpoint, Policy, replace
from tidegate.core.output import OUTPUT_ROWS
from tidegate.core.prefills import Prefills
from tidegate.core.prompts import Prompts
from tidegate.core.reserve import Reservation
from tidegate.core.session import rehomed
from tidegate.core.state import ColdState, EndpointState, State, WarmUp
from tidegate.core.timing import COLUMNS, ROWS

# Sums of the same numbers in another order.
_ROUNDING = 1e-6
_KINDS = {"ttft": (ROWS, 1), "tpot": (1, COLUMNS)}


def fault(state: State) -> str:
    """What is wrong with a state that no router of this software made; empty where nothing is."""
    if wrong := next(_faults_of_lengths(state.lengths), ""):
        return f"`lengths` {wrong}"
    if wrong := dual.fault(state.duals):
        return f"`duals` {wrong}"
    for what, served in (("tenants", state.tenants), ("flows", state.flows)):
        if wrong := shares.fault(served):
            return f"`{what}` {wrong}"
    if wrong := budget.fault(state.budgets):
        return f"`budgets` {wrong}"
    if wrong := hedge.fault(state.hedging):
        return f"`hedging` {wrong}"
    return next((f"endpoint `{name}`: {why}" for name, e in state.endpoints.items() for why in _faults(e)), "")


def unfit(state: State) -> str:
    """Why no router can begin with a state, which another software may have made or a broken one; empty where one
    can."""
    for name, e in state.endpoints.items():
        for what, learned in (("ttft", e.ttft), ("tpot", e.tpot)):
            if learned is not None and (why := _misshapen(learned, *_KINDS[what])):
                return f"endpoint `{name}`: `{what}` {why}"
    return ""


def revived(state: State, keep: Container[str], now_s: float) -> State:
    """A copy with all that was learned, of the endpoints in `keep`, and nothing that the old process had under way.

    Its attempts ended with it and teach nothing, what it held is gone, and so is the trial of a breaker; one that is
    open stays so for the rest of its time. Probes find out again what is up. Times beyond `now_s`, from a clock that
    was set back since, become `now_s`: an age is never negative. Once is enough: revived twice is revived once.
    """
    return State(
        endpoints={name: _revived(e, now_s) for name, e in state.endpoints.items() if name in keep},
        lengths=_revived_lengths(state.lengths, int(now_s)),
        overrides=state.overrides,
        duals={name: replace(one, at_s=min(one.at_s, now_s)) for name, one in state.duals.items()},
        urgent={name: min(at_s, now_s) for name, at_s in state.urgent.items()},
        tenants=shares.revived(state.tenants, now_s),
        flows=shares.revived(state.flows, now_s),
        budgets={name: budget.revived(one, now_s) for name, one in state.budgets.items()},
        hedging=hedge.revived(state.hedging, now_s),
    )


def reconfigured(
    state: State,
    endpoints: Iterable[Endpoint],
    policy: Policy,
    before: Policy,
    same: Container[str],
    moved: Container[str],
    vouched: Container[str] = (),
    rekeyed: Container[str] = (),
    were: Iterable[Endpoint] = (),
    now_s: float = 0.0,
) -> State:
    """The state of a process that goes on with other settings from `now_s` on; `state` itself is used up.

    Endpoints in `same` are what they were, and so is all that is known of them. Those in `moved` are the same engines
    with another size or prior: the way there is what it was, and what is in flight there still takes its place, and
    teaches nothing of the engine, being predicted from where they began before. The others are new, and down until a
    probe has reached them. Operators have `vouched` that some are what they should be: as at the start, what they tell
    next is believed.
    What those in `rekeyed` have refused was refused to another account. Of the endpoints that `were` there, those that
    are not the same engines any more leave their conversations to who has their model.
    """
    found: dict[str, EndpointState] = {}
    for endpoint in endpoints:
        name, known = endpoint.name, state.endpoints.get(endpoint.name)
        if known is not None and name in same:
            found[name] = known
            if policy.quantile != before.quantile:
                # Where promises are held to another quantile, what was found for the old one says nothing, and what is
                # under way was promised under that.
                found[name] = replace(
                    known,
                    ttft=_unpromised(known.ttft),
                    tpot=_unpromised(known.tpot),
                    e2e=unjudged(OUTPUT_ROWS),
                    reservations=_unteaching(known.reservations),
                    late=[],
                )
            if name in vouched:
                found[name] = replace(found[name], trusted=None, drifted=False)
        elif known is not None and name in moved:
            found[name] = replace(
                EndpointState(),
                network=known.network,
                line=known.line,
                breaker=known.breaker,
                limit=known.limit,
                allowances=known.allowances,
                failures=known.failures,
                prefills=known.prefills,
                reservations=_unteaching(known.reservations),
                # Seconds and chances: no prior is in them. A load that is under way goes on, too.
                cold=replace(known.cold, warm_up=_moved(known.cold.warm_up)),
                memory=known.memory,
                up=known.up,
                # Of the same model of the same engine, until a probe tells another.
                fingerprint=known.fingerprint,
                not_before_s=known.not_before_s,
                heard_s=known.heard_s,
                handovers=known.handovers,
                given=known.given,
                given_rest=known.given_rest,
            )
        else:
            found[name] = replace(EndpointState(), up=False)
        if name in rekeyed:
            new = EndpointState()
            found[name] = replace(
                found[name],
                not_before_s=new.not_before_s,
                allowances=new.allowances,
                # What was sent before this is answered to the other account, and says nothing of this one.
                limit=Limit(back_s=now_s),
                breaker=new.breaker,
            )
    known_as = {e.name: in_force(e, state.endpoints[e.name].fingerprint) for e in were}
    stay = [name for name in known_as if name in same or name in moved]
    return replace(state, endpoints=found, sessions=rehomed(state.sessions, known_as, stay))


def aged(state: State, age_s: float) -> State:
    """A copy after `age_s` without a look at the world. No promise becomes tighter by it, and no median moves.

    Promises that were found to be tighter than a normal value's go back to that, by halves. What was measured of
    networks has its times, and fades by itself, and so do counts of lengths: they say what they said, and weigh less
    beside what is counted next.
    """
    assert age_s >= 0.0, "time runs forwards"
    left = left_after(age_s)
    return replace(
        state,
        endpoints={
            name: replace(
                e,
                ttft=_loosened(e.ttft, left),
                tpot=_loosened(e.tpot, left),
                e2e=_loose(e.e2e, left),
            )
            for name, e in state.endpoints.items()
        },
    )


def _unteaching(reservations: dict[str, Reservation]) -> dict[str, Reservation]:
    return {name: replace(one, teaches=False) for name, one in reservations.items()}


def _moved(warm_up: WarmUp) -> WarmUp:
    """A load goes on and teaches nothing, and who asked for the model, asked for it."""
    return WarmUp(
        loading=warm_up.loading,
        sent=None if warm_up.sent is None else replace(warm_up.sent, idle_s=None),
        toll_usd=warm_up.toll_usd,
        asked_s=warm_up.asked_s,
    )


def _unpromised(learned: Learned | None) -> Learned | None:
    return None if learned is None else replace(learned, promises=unjudged(len(learned.promises) - 1))


def _loosened(learned: Learned | None, left: float) -> Learned | None:
    return None if learned is None else replace(learned, promises=_loose(learned.promises, left))


def _loose(promises: list[Tracked], left: float) -> list[Tracked]:
    """Those that were found to be tighter than a normal value's go back to that."""
    return [replace(t, excess=t.excess * left) if t.excess < 0.0 else replace(t) for t in promises]


def _revived(e: EndpointState, now_s: float) -> EndpointState:
    return EndpointState(
        network=network.revived(e.network, now_s),
        breaker=breaker.revived(e.breaker, now_s),
        prefills=Prefills(),
        pace=replace(e.pace, at_s=min(e.pace.at_s, now_s)),
        ttft=_learned_by(e.ttft, now_s),
        tpot=_learned_by(e.tpot, now_s),
        e2e=list(e.e2e),
        context_tokens=e.context_tokens,
        capabilities=e.capabilities,
        not_before_s=min(e.not_before_s, now_s + RETRY_AFTER_S_MAX),
        # Digests have the old process's salt: which prompts they were, nobody finds out. How long it keeps them, does.
        prompts=Prompts(kept=keeping.copied(e.prompts.kept, now_s)),
        # What it was when this was learned. Whether to trust what it is now begins anew with the process.
        fingerprint=e.fingerprint,
        load=load.kept(e.load, now_s),
        cold=_revived_cold(e.cold, now_s),
        memory=memory.kept(e.memory, now_s),
        batch=replace(e.batch, at_s=min(e.batch.at_s, now_s)),
        limit=limit.revived(e.limit, now_s),
        heard_s=min(e.heard_s, now_s),
        handovers={target: handover.revived(one, now_s) for target, one in e.handovers.items()},
        failures=failures.revived(e.failures, now_s),
        allowances=headroom.revived(e.allowances, now_s),
        given=replace(e.given, at_s=min(e.given.at_s, now_s)),
        given_rest=replace(e.given_rest, at_s=min(e.given_rest.at_s, now_s)),
    )


def _revived_cold(cold: ColdState, now_s: float) -> ColdState:
    """Loads that were under way, and what a probe saw, are of the old process; when the model was used last is not."""

    def not_after(outcomes: Outcomes) -> Outcomes:
        return replace(outcomes, at_s=min(outcomes.at_s, now_s))

    warm_up = cold.warm_up

    return ColdState(
        idle=[not_after(outcomes) for outcomes in cold.idle],
        levels=[replace(level, at_s=min(level.at_s, now_s)) for level in cold.levels],
        resident=not_after(cold.resident),
        away=not_after(cold.away),
        loads=replace(cold.loads, at_s=min(cold.loads.at_s, now_s), waited_at_s=min(cold.loads.waited_at_s, now_s)),
        used_s=None if cold.used_s is None else min(cold.used_s, now_s),
        waited_s=None if cold.waited_s is None else min(cold.waited_s, now_s),
        warm_up=WarmUp(
            toll_usd=warm_up.toll_usd, asked_s=None if warm_up.asked_s is None else min(warm_up.asked_s, now_s)
        ),
    )


def _revived_lengths(lengths: Lengths, now_s: int) -> Lengths:
    """Which conversation is which ends with the process."""
    return Lengths(
        counts={
            group: Counts(min(one.seen_s, now_s), one.ended.copy(), one.cut.copy())
            for group, one in lengths.counts.items()
        }
    )


def _learned_by(learned: Learned | None, now_s: float) -> Learned | None:
    if learned is None:
        return None
    return Learned(
        sums=replace(learned.sums, at_s=min(learned.sums.at_s, now_s)),
        cells=[replace(cell, at_s=min(cell.at_s, now_s)) for cell in learned.cells],
        shift=replace(learned.shift, at_s=min(learned.shift.at_s, now_s), moved_s=min(learned.shift.moved_s, now_s)),
        promises=list(learned.promises),
        mean=replace(learned.mean, at_s=min(learned.mean.at_s, now_s)),
        silences=list(learned.silences),
    )


def _faults(e: EndpointState) -> Iterator[str]:
    for name, learned in (("ttft", e.ttft), ("tpot", e.tpot)):
        if learned is not None and (why := _unlearnable(learned, *_KINDS[name])):
            yield f"`{name}` {why}"
    if why := network.fault(e.network):
        yield why
    if not 0 <= e.line.carried_bytes <= e.line.sent_bytes:
        yield "`line` has carried more than was sent"
    if why := keeping.fault(e.prompts.kept):
        yield f"`prompts` {why}"
    if len(e.e2e) != 1 + OUTPUT_ROWS:
        yield f"`e2e` has {len(e.e2e)} kinds of promises, not {1 + OUTPUT_ROWS}"
    if why := load.fault(e.load):
        yield why
    if why := memory.fault(e.memory):
        yield why
    if why := headroom.fault(e.allowances):
        yield why
    if why := limit.fault(e.limit):
        yield why
    if why := failures.fault(e.failures):
        yield why
    if why := handover.fault(e.handovers):
        yield why
    if why := batch.fault(e.batch):
        yield why
    if why := shares.fault({"given": e.given, "given_rest": e.given_rest}):
        yield why
    if (len(e.cold.idle), len(e.cold.levels)) != (hazard.BINS, hazard.BINS):
        yield f"`cold` has {len(e.cold.idle)} and {len(e.cold.levels)} bins, not {hazard.BINS}"
    elif not all(_sound_outcomes(one) for one in (*e.cold.idle, e.cold.resident, e.cold.away)):
        yield "`cold` has more cold starts than attempts, or fewer than none"
    elif e.cold.loads.count < 0.0 or e.cold.loads.squares < 0.0:
        yield "`cold` has a negative number of loads"


def _misshapen(learned: Learned, rows: int, columns: int) -> str:
    """Of how many kinds of requests it has learned, where those are not ours; empty where they are."""
    count = 1 + rows + rows * columns
    if len(learned.cells) != count:
        return f"has {len(learned.cells)} cells, not {count}"
    if len(learned.promises) != 1 + rows * columns:
        return f"has {len(learned.promises)} kinds of promises, not {1 + rows * columns}"
    return ""


def _unlearnable(learned: Learned, rows: int, columns: int) -> str:
    """What is wrong with it, empty where nothing is."""
    if why := _misshapen(learned, rows, columns):
        return why
    sums = learned.sums
    if (len(sums.factors), len(sums.xy), len(sums.xx)) != (PARTS, PARTS, PARTS * (PARTS + 1) // 2):
        return f"has sums that are not those of {PARTS} parts"
    if min(sums.factors) < 0.0 or sums.weight < 0.0 or not 0.0 < sums.unit <= 1.0:
        return "has a negative factor or weight, or a unit that cannot be"
    if not all(c.weight >= 0.0 and c.spread >= 0.0 and c.errors >= 0.0 for c in learned.cells):
        return "has a cell of negative weight or spread"
    if not all(len(c.x) == PARTS for c in learned.cells if c.weight):
        return f"has a cell whose parts are not {PARTS}"
    if len(learned.silences) > SILENCES_MAX:
        return f"has {len(learned.silences)} silences, and {SILENCES_MAX} at most are kept"
    return ""


def _faults_of_lengths(lengths: Lengths) -> Iterator[str]:
    counts = lengths.counts
    if (size := sum(bytes_of(group, one) for group, one in counts.items())) > COUNTS_BYTES_MAX:
        yield f"takes {size} bytes of groups, and {COUNTS_BYTES_MAX} at most are kept"
    if (count := len(lengths.sessions) + len(lengths.beginnings)) > TURNS_MAX:
        yield f"has {count} conversations, and {TURNS_MAX} at most are kept"
    for group, one in counts.items():
        for place, counted in (*one.ended.items(), *one.cut.items()):
            if not 0 <= place < bins.BINS or counted < 1:
                yield f"has {counted} in bin {place} of group `{group}`"
    for turns in (*lengths.sessions.values(), *lengths.beginnings.values()):
        if turns.weight < 1 or not 0 <= turns.total <= turns.weight * (bins.BINS - 1):
            yield "has a conversation without answers, or with answers of no length"


def _sound_outcomes(one: Outcomes) -> bool:
    return 0.0 <= one.recent_cold <= one.recent + _ROUNDING and 0.0 <= one.long_cold <= one.long + _ROUNDING
