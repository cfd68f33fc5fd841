"""Laws of a restart: nothing that was under way survives it, all that was learned does, and age only widens."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.storm import Storm
from tidegate.core.breaker import OPEN_S_MAX
from tidegate.core.correction import Residual
from tidegate.core.counts import Counts, Lengths, Turns
from tidegate.core.health import RETRY_AFTER_S_MAX
from tidegate.core.latency import PARTS, SILENCES_MAX
from tidegate.core.learned import Learned, Silence
from tidegate.core.length import COUNTS_BYTES_MAX, TURNS_MAX, LengthModel
from tidegate.core.load import Usual
from tidegate.core.model import Ended, Ending, Probed, Released, replace
from tidegate.core.network import SAMPLES_MAX, NetworkModel
from tidegate.core.output import Length
from tidegate.core.prefills import Prefills
from tidegate.core.prompts import AGES, DISTANCES, SIZES, Odds
from tidegate.core.revive import aged, fault, revived
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, GoneTokens, InUse, MemoryState, Network, Sample, State, ToldCount
from tidegate.core.timing import ROWS

seeds = st.integers(0, 10_000)
ages_s = st.floats(0.0, 200 * 3600.0)
HOUR_S = 3600.0


def state_of(storm: Storm) -> State:
    return msgspec.json.decode(storm.router.snapshot(), type=State)


def names(storm: Storm) -> set[str]:
    return {e.name for e in storm.endpoints}


def idle(seed: int, *, reports: bool = True) -> Storm:
    """A router that has seen much, and has nothing under way; all endpoints are up. No prompt is like another: which of
    them were, a restart forgets. Nobody has a key: of what is known here, nothing depends on that."""
    storm = Storm(seed, alike=False, reports=reports, tenants=False).run(200)
    for request_id, endpoint in storm.sent:
        storm.tell(Ended(request_id=request_id, endpoint=endpoint, ending=Ending.CANCELLED, e2e_s=0.001))
    for name in storm.held:
        storm.tell(Released(request_id=name))
    # Of two reports of one time the fuller would hold.
    storm.now_s += 0.001
    for name in names(storm):
        storm.tell(Probed(endpoint=name, up=True, kv_share=0.0))
        # Probes tell again; until then, what they told before is not known.
        storm.router.endpoint(name).cold.state.told = None
    storm.now_s += storm.policy.static_s
    return storm


def learned(e: EndpointState) -> bytes:
    breaker, load = msgspec.structs.replace(e.breaker, trial="", answered=0), msgspec.structs.replace(e.load, gone=[])
    kept = e.prompts.kept
    cold = (e.cold.idle, e.cold.levels, e.cold.resident, e.cold.away, e.cold.loads, e.cold.used_s, e.cold.waited_s)
    memory = (e.memory.tokens, e.memory.slots, e.memory.full)
    return msgspec.json.encode(
        (e.network, breaker, e.ttft, e.tpot, e.context_tokens, e.not_before_s, e.fingerprint, kept, load, cold)
        + (memory, e.e2e, e.batch)
    )


@pytest.mark.lengthy
@given(seeds)
def test_nothing_that_was_under_way_survives(seed: int) -> None:
    storm = Storm(seed).run(150)
    after = revived(state_of(storm), names(storm), storm.now_s)
    assert after.held == {}
    assert after.sessions == {}
    assert after.lengths.sessions == {}
    assert after.lengths.beginnings == {}
    assert after.static_until_s == 0.0
    for e in after.endpoints.values():
        assert e.reservations == {}
        assert e.prompts.uses == {}
        assert e.prefills == Prefills()
        assert e.breaker.trial == ""
        assert e.up
        assert e.trusted is None
        assert e.load.gone == []
        assert e.memory == MemoryState(tokens=e.memory.tokens, slots=e.memory.slots, full=e.memory.full)
        assert (e.cold.loading, e.cold.began_s, e.cold.told, e.cold.told_loading_s) == (None, None, None, None)


@pytest.mark.lengthy
def test_the_storms_have_what_must_not_survive() -> None:
    states = [state_of(Storm(seed).run(150)) for seed in range(60)]
    endpoints = [e for state in states for e in state.endpoints.values()]
    assert any(state.held for state in states)
    assert any(state.sessions for state in states)
    assert any(state.static_until_s for state in states)
    assert any(e.reservations for e in endpoints)
    assert any(e.prompts.uses for e in endpoints)
    assert any(e.prefills.count for e in endpoints)
    assert any(e.breaker.trial for e in endpoints)
    assert any(not e.up for e in endpoints)
    assert any(e.load.gone for e in endpoints)
    assert any(e.memory.gone for e in endpoints)
    assert any(e.memory.use for e in endpoints)
    assert any(e.memory.preemptions for e in endpoints)
    assert all(any(getattr(e.memory, kept) for e in endpoints) for kept in ("tokens", "slots", "full"))
    assert any(e.cold.loading for e in endpoints)
    assert any(e.cold.told is not None for e in endpoints)
    assert any(e.cold.loads.count for e in endpoints)


@pytest.mark.lengthy
@given(seeds)
def test_all_that_was_learned_survives_bit_for_bit(seed: int) -> None:
    storm = Storm(seed).run(150)
    before = state_of(storm)
    after = revived(before, names(storm), storm.now_s)
    assert after.lengths.counts == before.lengths.counts
    assert {n: learned(e) for n, e in after.endpoints.items()} == {n: learned(e) for n, e in before.endpoints.items()}


@pytest.mark.lengthy
@given(seeds, st.floats(-1e6, 1e6))
def test_revived_twice_is_revived_once_and_the_state_itself_stays_as_it_was(seed: int, later_s: float) -> None:
    storm = Storm(seed).run(150)
    before, now_s = state_of(storm), storm.now_s + later_s
    encoded = msgspec.json.encode(before)
    once = revived(before, names(storm), now_s)
    assert revived(once, names(storm), now_s) == once
    aged(once, 60.0)
    assert msgspec.json.encode(before) == encoded


@pytest.mark.lengthy
@given(seeds, st.sets(st.sampled_from(["cheap", "cloud", "desk", "lap", "paris"])))
def test_of_an_endpoint_that_is_not_kept_nothing_survives(seed: int, keep: set[str]) -> None:
    storm = Storm(seed).run(100)
    before = state_of(storm)
    after = revived(before, keep, storm.now_s)
    assert after.endpoints.keys() == keep
    assert after.lengths.counts == before.lengths.counts


@pytest.mark.lengthy
@given(seeds)
def test_without_an_age_nothing_widens_bit_for_bit(seed: int) -> None:
    state = state_of(Storm(seed).run(150))
    assert aged(state, 0.0) == state


@pytest.mark.lengthy
@given(seeds)
def test_an_idle_router_decides_after_a_restart_as_before_it(seed: int) -> None:
    storm = idle(seed)
    state = aged(revived(state_of(storm), names(storm), storm.now_s), 0.0)
    restored = Router(storm.endpoints, storm.policy, state)
    assert storm.requests
    for asked in storm.requests.values():
        request = replace(asked, session="")  # which conversation was where ends with the process
        assert restored.candidates(request, storm.now_s) == storm.router.candidates(request, storm.now_s)
        assert restored.decide(request, storm.now_s) == storm.router.decide(request, storm.now_s)


@pytest.mark.lengthy
@given(seeds)
def test_a_half_open_breaker_tries_again_and_an_open_one_waits_for_the_rest_of_its_time(seed: int) -> None:
    storm = Storm(seed).run(150)
    before = state_of(storm).endpoints
    after = revived(state_of(storm), names(storm), storm.now_s).endpoints
    for name, e in after.items():
        assert e.breaker.open_until_s == before[name].breaker.open_until_s
        assert e.breaker.blocks(storm.now_s) == (e.breaker.openings > 0 and storm.now_s < e.breaker.open_until_s)


@pytest.mark.lengthy
@given(seeds, st.floats(0.0, 1e9))
def test_with_a_clock_that_went_back_no_age_is_negative_and_nothing_is_shut_for_longer_than_ever(
    seed: int, back_s: float
) -> None:
    storm = Storm(seed).run(150)
    now_s = storm.now_s - back_s
    after = revived(state_of(storm), names(storm), now_s)
    for e in after.endpoints.values():
        assert e.breaker.at_s <= now_s
        assert e.breaker.open_until_s <= now_s + OPEN_S_MAX
        assert e.not_before_s <= now_s + RETRY_AFTER_S_MAX
        assert all(one.at_s <= now_s for one in (*e.cold.idle, e.cold.resident, e.cold.away))
        assert all(one.at_s <= now_s for one in e.cold.levels)
        assert max(e.cold.loads.at_s, e.cold.loads.waited_at_s) <= now_s
        assert max(e.cold.used_s or now_s, e.cold.waited_s or now_s) <= now_s
        for learned in (e.ttft, e.tpot):
            assert learned is not None
            assert all(cell.at_s <= now_s for cell in learned.cells)
            assert max(learned.sums.at_s, learned.shift.at_s, learned.mean.at_s) <= now_s
        assert e.prompts.kept.at_s <= now_s
        told = [one for one in (e.memory.tokens, e.memory.slots, e.memory.full) if one is not None]
        assert all(one.at_s <= now_s for one in told)
        times_s = [e.load.newest.told_s, e.load.before.told_s, e.load.before.since_s, e.load.history.at_s]
        assert max(*times_s, e.load.waiting.at_s, *(one.at_s for one in e.load.usual)) <= now_s
    assert all(one.seen_s <= now_s for one in after.lengths.counts.values())


# What is of the time ahead: until when a breaker is open and a vendor wants peace, and windows of budgets. Of reports
# in one moment the times add up.
AHEAD = {"open_until_s", "not_before_s", "ends_s", "told_begins_s", "told_ends_s", "measured_s"}
# No duration is as long.
YEARS_S = 1e8


def times(found: object, name: str = "") -> Iterator[tuple[str, float]]:
    """All points in time in a state, with their names."""
    if isinstance(found, msgspec.Struct):
        for field in found.__struct_fields__:
            yield from times(getattr(found, field), field)
    elif isinstance(found, Sample):
        yield "at_s", found.at_s
    elif isinstance(found, dict):
        for value in found.values():
            yield from times(value, name)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from times(value, name)
    elif name.endswith("_s") and isinstance(found, int | float) and found > YEARS_S:
        yield name, found


@pytest.mark.lengthy
@given(seeds, st.floats(0.0, 1e9))
def test_with_a_clock_that_went_back_nothing_was_learned_later_than_now(seed: int, back_s: float) -> None:
    storm = Storm(seed).run(150)
    before, now_s = state_of(storm), storm.now_s - back_s
    for e in before.endpoints.values():
        for learned in (e.ttft, e.tpot):
            assert learned is not None
            # That all has changed is rare: take it that it just has.
            learned.shift.moved_s = storm.now_s
    found = [(name, at_s) for name, at_s in times(revived(before, names(storm), now_s)) if name not in AHEAD]
    assert "moved_s" in dict(found)
    assert [(name, at_s) for name, at_s in found if at_s > now_s] == []


# --- age ------------------------------------------------------------------------------------------------------------


def restored_after(storm: Storm, age_s: float) -> Router:
    now_s = storm.now_s + age_s
    state = aged(revived(state_of(storm), names(storm), now_s), age_s)
    return Router(storm.endpoints, storm.policy, state)


@pytest.mark.lengthy
@given(seeds, ages_s)
def test_age_moves_no_median_and_makes_no_promise_tighter(seed: int, age_s: float) -> None:
    # What was reported of others' load holds for seconds only, and the median goes with it.
    storm = idle(seed, reports=False)
    restored, now_s = restored_after(storm, age_s), storm.now_s + age_s
    # How long outputs are is another question, and what the endpoint was busy with of late has passed in both.
    length = Length(expected_tokens=100.0, high_tokens=200.0, median_tokens=100.0, sigma=0.5)
    for request in list(storm.requests.values())[-10:]:
        for name in names(storm):
            if storm.router.endpoint(name).state.cold.told_loading_s is not None:
                continue  # of a load that is under way, probes tell again within seconds
            one, other = (r.endpoint(name).base(request, length, now_s) for r in (storm.router, restored))
            assert other.first_s == one.first_s
            assert other.tpot_s == one.tpot_s
            assert other.sigma >= one.sigma
            # Quantiles of a mixture are found by rounds, to so much of a probability: between two causes that are far
            # apart, that is a hundred-thousandth of a time.
            assert other.first_s_high >= one.first_s_high * (1.0 - 1e-4)
            assert other.e2e_s_high >= one.e2e_s_high * (1.0 - 1e-4)


@pytest.mark.lengthy
@given(seeds, ages_s)
def test_the_spread_of_a_correction_never_narrows_and_ends_at_the_priors_beside_its_own(
    seed: int, age_s: float
) -> None:
    storm = idle(seed)
    restored, never = restored_after(storm, age_s), restored_after(storm, 1e9)
    for endpoint in storm.endpoints:
        was, now, end = (r.endpoint(endpoint.name).timing.ttft for r in (storm.router, restored, never))
        for row in range(ROWS):
            parts = [0.1] * PARTS
            sent, later, last = (
                ttft.predict(parts, row, 0, at_s)
                for ttft, at_s in ((was, storm.now_s), (now, storm.now_s + age_s), (end, storm.now_s + 1e9))
            )
            assert sent.sigma <= later.sigma <= last.sigma * (1.0 + 1e-9)
            if was.learned.cells[0].weight:
                assert last.sigma >= endpoint.prior.sigma


@pytest.mark.lengthy
@given(seeds, ages_s)
def test_age_moves_nothing_that_is_believed_of_lengths(seed: int, age_s: float) -> None:
    storm = idle(seed)
    before, after = LengthModel(state_of(storm).lengths), LengthModel(aged(state_of(storm), age_s).lengths)
    for request in list(storm.requests.values())[-10:]:
        asked = (request.klass, request.output_tokens_max, request.model, request.key, request.prompt_tokens)
        assert after.at(*asked).shares == before.at(*asked).shares


excesses = st.floats(-30.0, 30.0)


@given(excesses, ages_s)
def test_a_calibrated_bound_goes_back_to_where_it_began_and_stays_where_it_is_wider(
    excess: float, age_s: float
) -> None:
    state = _one(excess)
    later, end = _excess(aged(state, age_s)), _excess(aged(state, 1e9))
    assert excess <= later <= end
    assert end == pytest.approx(max(excess, 0.0))


@given(excesses, ages_s, ages_s)
def test_two_restarts_age_what_was_learned_as_one_after_both_times(excess: float, one_s: float, other_s: float) -> None:
    state = _one(excess)
    twice = aged(aged(state, one_s), other_s)
    once = aged(state, one_s + other_s)
    assert _excess(twice) == pytest.approx(_excess(once))


@pytest.mark.parametrize(("age_s", "after_s"), [(60.0, 0.1), (2.0 * HOUR_S, 0.12)])
def test_round_trips_that_are_old_give_way_to_the_next_one_measured(age_s: float, after_s: float) -> None:
    network = aged(_one(), age_s).endpoints["e"].network
    way = NetworkModel(0.0, 1e6, network)
    assert way.rtt_s == 0.1
    way.learn_rtt(0.12, age_s)
    assert way.rtt_s == after_s


def test_what_a_network_was_like_after_now_becomes_now_and_stays_in_order() -> None:
    state = _one()
    state.endpoints["e"].network.rtts = [Sample(1.0, 0.4), Sample(2.0, 0.3), Sample(3.0, 0.2)]
    after = revived(state, {"e"}, 2.0)
    assert after.endpoints["e"].network.rtts == [Sample(1.0, 0.4), Sample(2.0, 0.2), Sample(2.0, 0.3)]
    assert fault(after) == ""


def _one(excess: float = 0.0) -> State:
    made = state_of(Storm(0)).endpoints["lap"]
    assert made.ttft is not None
    made.ttft.promises[0].excess = excess
    made.network = Network(rtts=[Sample(0.0, 0.1), Sample(0.0, 0.1)])
    return State(endpoints={"e": made})


def _excess(state: State) -> float:
    learned = state.endpoints["e"].ttft
    assert learned is not None
    return learned.promises[0].excess


# --- what is wrong with a state -------------------------------------------------------------------------------------


@pytest.mark.lengthy
@given(seeds)
def test_nothing_is_wrong_with_what_a_router_made(seed: int) -> None:
    assert fault(state_of(Storm(seed).run(150))) == ""


def _ttft(e: EndpointState) -> Learned:
    assert e.ttft is not None
    return e.ttft


def _cut(e: EndpointState) -> None:
    _ttft(e).cells.pop()


def _grow(e: EndpointState) -> None:
    assert e.tpot is not None
    e.tpot.cells.append(Residual())


def _lighten(e: EndpointState) -> None:
    _ttft(e).cells[0].weight = -1.0


def _narrow(e: EndpointState) -> None:
    _ttft(e).cells[3].spread = -0.1


def _promise(e: EndpointState) -> None:
    _ttft(e).promises.pop()


def _shorten(e: EndpointState) -> None:
    _ttft(e).sums.factors.pop()


def _reverse(e: EndpointState) -> None:
    _ttft(e).sums.factors[1] = -1.0


def _part(e: EndpointState) -> None:
    _ttft(e).cells[0] = Residual(weight=1.0, x=[1.0])


def _hush(e: EndpointState) -> None:
    _ttft(e).silences = [Silence(0, 0, 1.0, (0.1,) * PARTS)] * (SILENCES_MAX + 1)


def _forget(e: EndpointState) -> None:
    e.prompts.kept.hits_by_age.pop()


def _undo(e: EndpointState) -> None:
    e.prompts.kept.misses_by_size[0] = -1.0


def _overdo(e: EndpointState) -> None:
    e.prompts.kept.odds = Odds([1.5] * DISTANCES, [1.0] * AGES, [1.0] * SIZES)


def _hurry(e: EndpointState) -> None:
    e.network.rtts = [Sample(1.0, -0.1)]


def _stop(e: EndpointState) -> None:
    e.network.uploads = [Sample(1.0, 0.0)]


def _confuse(e: EndpointState) -> None:
    e.network.rtts = [Sample(2.0, 0.1), Sample(1.0, 0.1)]


def _miscount(e: EndpointState) -> None:
    e.cold.idle.pop()


def _freeze(e: EndpointState) -> None:
    e.cold.idle[2].recent_cold = e.cold.idle[2].recent + 1.0


def _unload(e: EndpointState) -> None:
    e.cold.loads.count = -1.0


def _hoard(e: EndpointState) -> None:
    e.network.uploads = [Sample(float(n), 1e6) for n in range(SAMPLES_MAX + 1)]


def _omit(e: EndpointState) -> None:
    e.load.usual.pop()


def _gain(e: EndpointState) -> None:
    e.load.waiting.off = [1.0]


def _drop(e: EndpointState) -> None:
    e.e2e.pop()


def _unsay(e: EndpointState) -> None:
    e.load.usual[2] = Usual(weight=-1.0)


def _shrink(e: EndpointState) -> None:
    e.memory.tokens = ToldCount(1.0, 0)


def _swell(e: EndpointState) -> None:
    e.memory.full = ToldCount(1.0, 10**14)


def _unstart(e: EndpointState) -> None:
    e.memory.preemptions = ToldCount(1.0, -1)


def _overfill(e: EndpointState) -> None:
    e.memory.use = InUse(1.0, 1.5, 0, 0)


def _exceed(e: EndpointState) -> None:
    e.memory.use = InUse(1.0, 0.5, 7, 3)


def _linger(e: EndpointState) -> None:
    e.memory.gone = [GoneTokens(float(n), 0.0, 0.0, 1, 1) for n in range(17)]


def _shuffle(e: EndpointState) -> None:
    e.memory.gone = [GoneTokens(2.0, 0.0, 0.0, 1, 1), GoneTokens(1.0, 0.0, 0.0, 1, 1)]


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_cut, "`ttft` has 14 cells, not 15"),
        (_grow, "`tpot` has 7 cells, not 6"),
        (_lighten, "`ttft` has a cell of negative"),
        (_narrow, "`ttft` has a cell of negative"),
        (_promise, "`ttft` has 7 kinds of promises, not 8"),
        (_shorten, "`ttft` has sums that are not those of 7 parts"),
        (_reverse, "`ttft` has a negative factor"),
        (_part, "`ttft` has a cell whose parts are not 7"),
        (_hush, "`ttft` has 17 silences"),
        (_miscount, "`cold` has 7 and 8 bins, not 8"),
        (_freeze, "`cold` has more cold starts than attempts"),
        (_unload, "`cold` has a negative number of loads"),
        (_hurry, "`network.rtts` has a sample that cannot be"),
        (_stop, "`network.uploads` has a sample of no rate"),
        (_confuse, "`network.rtts` has more than 16 samples, or has them out of order"),
        (_hoard, "`network.uploads` has more than 16 samples"),
        (_forget, "`prompts` has other cells"),
        (_undo, "`prompts` has a negative sum"),
        (_overdo, "`prompts` has a probability that is none"),
        (_omit, "`load.usual` has 3 sums, not 4"),
        (_gain, "`load.waiting` has 1 sums, not 13"),
        (_drop, "`e2e` has 5 kinds of promises, not 6"),
        (_unsay, "`load` has a sum of negative"),
        (_shrink, "`memory` has a count that cannot be"),
        (_swell, "`memory` has a count that cannot be"),
        (_unstart, "`memory.preemptions` is no count"),
        (_overfill, "`memory.use` has a share that cannot be"),
        (_exceed, "`memory.use` has a share that cannot be, or more of ours"),
        (_linger, "`memory.gone` has more than 16"),
        (_shuffle, "`memory.gone` has more than 16, or has them out of order"),
    ],
)
def test_an_endpoint_that_no_router_made_is_named_with_what_is_wrong(
    spoil: Callable[[EndpointState], None], named: str
) -> None:
    state = state_of(Storm(1).run(50))
    spoil(state.endpoints["cloud"])
    assert fault(state).startswith(f"endpoint `cloud`: {named}")


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        (
            Lengths(counts={f"group {n}": Counts(0, {3: 16}, {}) for n in range(COUNTS_BYTES_MAX // 40)}),
            "bytes of groups",
        ),
        (Lengths(sessions={str(n): Turns(0, 1, 16, 16) for n in range(TURNS_MAX + 1)}), "501 conversations"),
        (Lengths(counts={"chat": Counts(0, {3: -1}, {})}), "-1 in bin 3 of group `chat`"),
        (Lengths(counts={"chat": Counts(0, {}, {48: 16})}), "16 in bin 48 of group `chat`"),
        (Lengths(sessions={"a": Turns(0, 1, 0, 0)}), "without answers"),
        (Lengths(beginnings={7: Turns(0, 1, 16, 16 * 48)}), "of no length"),
    ],
)
def test_lengths_that_are_never_learned_are_wrong(lengths: Lengths, named: str) -> None:
    assert fault(State(lengths=lengths)).startswith("`lengths`")
    assert named in fault(State(lengths=lengths))
