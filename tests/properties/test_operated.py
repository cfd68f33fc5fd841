"""Laws that hold whatever operators do meanwhile: drain, pin, the kill switch, and other settings in mid-flight."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import RESIDENCIES, Storm
from tidegate.core import rules
from tidegate.core.model import Decision, Endpoint, Overrides, Policy, Request, Run, replace
from tidegate.core.replay import replay
from tidegate.core.revive import reconfigured
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)


class Operated(Storm):
    """A storm in which somebody also turns the handles. `sent_to` is each step as it was sent, by what was in force."""

    def __init__(self, seed: int) -> None:
        self.sent_to: list[tuple[Request, Endpoint, Why | None]] = []
        self.reloads = 0
        super().__init__(seed)

    def step(self) -> None:
        if self.draw.random() < 0.06:
            self.draw.choice((self.override, self.reload))()
        else:
            super().step()

    def override(self) -> None:
        """Operators drain, pin, or pull the switch, or take all of it back."""
        names = [e.name for e in self.endpoints] + ["gone"]
        self.tell(
            Overrides(
                drained=tuple(self.draw.sample(names, self.draw.choice((0, 0, 1, 2)))),
                pinned=tuple(self.draw.sample(names, self.draw.choice((0, 0, 1, 2)))),
                static=self.draw.random() < 0.2,
            )
        )

    def reload(self) -> None:
        """Another configuration: an endpoint is gone or new, elsewhere, of another size, or of another price."""
        draw, before = self.draw, {e.name: e for e in self.endpoints}
        name = draw.choice(sorted(before))
        one = before[name]
        changed = draw.choice(
            (
                None,
                replace(one, local=not one.local, site="moved"),
                replace(one, concurrency=draw.choice((1, 2, 5))),
                replace(one, shares_compute=not one.shares_compute),
                replace(one, prior=make.scaled(one.prior, draw.choice((0.1, 10.0)))),
                replace(one, price=make.REMOTE_PRICE, models=draw.choice((("m",), ("m", "n"), ("n",)))),
                replace(one, name="fresh"),
            )
        )
        after = {n: e for n, e in before.items() if n != name}
        if changed is not None:
            after[changed.name] = changed
        if not after:
            return
        endpoints = tuple(after[n] for n in sorted(after))
        same = {n for n, e in after.items() if before.get(n) == e or (n == name and e.price != one.price)}
        moved = {n for n, e in after.items() if n in before and e.site == before[n].site} - same
        policy = replace(self.policy, quantile=draw.choice((0.8, 0.9)), held_max=draw.choice((2, 6)))
        state = reconfigured(self.state(), endpoints, policy, self.policy, same, moved, were=self.endpoints)
        self.endpoints, self.policy, self.router = endpoints, policy, Router(endpoints, policy, state)
        self.reloads += 1
        self.cut()

    def state(self) -> State:
        return msgspec.json.decode(self.router.snapshot(), type=State)

    def follow(self, request: Request) -> None:
        """As a shell does: a step that is forbidden by now is passed over."""
        steps = self.rest[request.id]
        while steps and isinstance(steps[0], Run) and self.router.forbids(request, steps[0].endpoint, self.now_s):
            steps = steps[1:]
        self.rest[request.id] = steps
        if not steps:
            return
        if isinstance(steps[0], Run):
            model = self.router.endpoint(steps[0].endpoint)
            length = self.router._known.lengths.of(request)
            why = rules.excluded(request, model, rules.tokens_needed_least(request), length, self.now_s)
            self.sent_to.append((request, model.endpoint, why))
        super().follow(request)


@pytest.mark.lengthy
@given(seeds)
def test_nothing_is_sent_where_its_data_may_not_go(seed: int) -> None:
    for request, endpoint, _ in Operated(seed).run(250).sent_to:
        assert request.residency != ("local",) or endpoint.local
        assert request.residency != ("eu",) or endpoint.site == "eu"
        assert request.residency in RESIDENCIES


@pytest.mark.lengthy
@given(seeds)
def test_every_step_is_allowed_by_what_is_in_force_when_it_is_sent(seed: int) -> None:
    storm = Operated(seed)
    for _ in range(250):
        storm.step()
        for request, endpoint, why in storm.sent_to:
            assert why is None
            assert request.model in endpoint.models
            overrides = storm.router.overrides
            assert endpoint.name not in overrides.drained
            pinned = {n for n in overrides.pinned if n in storm.router._known.models}
            pinned = {n for n in pinned if request.model in storm.router.endpoint(n).endpoint.models}
            assert not pinned or endpoint.name in pinned
        storm.sent_to.clear()


@pytest.mark.lengthy
@given(seeds)
def test_whatever_operators_do_every_decision_comes_out_again_in_replay(seed: int) -> None:
    assert replay(Operated(seed).run(250).lines).difference is None


@pytest.mark.lengthy
@given(seeds)
def test_due_names_the_held_requests_that_may_wait_no_more_as_far_as_there_is_room(seed: int) -> None:
    storm = Operated(seed)
    for _ in range(150):
        storm.step()
        storm.check_due()


@pytest.mark.lengthy
@given(seeds)
def test_while_the_switch_is_pulled_the_static_rule_decides_all_that_does_not_wait(seed: int) -> None:
    storm = Operated(seed).run(150)
    storm.tell(Overrides(static=True))
    for request in storm.requests.values():
        decision = storm.router.decide(request, storm.now_s + 1000.0)
        assert not decision.plan or decision.why in (Why.STATIC_RULE, Why.WAITS_FOR_ANY)


@pytest.mark.lengthy
@given(seeds)
def test_taking_every_override_back_leaves_no_trace(seed: int) -> None:
    storm = Storm(seed).run(100)
    before = [storm.router.decide(r, storm.now_s) for r in storm.requests.values()]
    storm.tell(Overrides(drained=("desk",), pinned=("cloud", "paris"), static=True))
    storm.tell(Overrides())
    assert [storm.router.decide(r, storm.now_s) for r in storm.requests.values()] == before


@pytest.mark.lengthy
@given(seeds)
def test_the_same_settings_again_change_no_decision_and_nothing_that_is_known(seed: int) -> None:
    storm = Storm(seed).run(120)
    before = bytes(storm.router.snapshot())
    state = msgspec.json.decode(before, type=State)
    names = {e.name for e in storm.endpoints}
    after = reconfigured(state, storm.endpoints, storm.policy, storm.policy, names, set())
    assert bytes(Router(storm.endpoints, storm.policy, after).snapshot()) == before


@pytest.mark.lengthy
@given(seeds)
def test_what_is_in_flight_at_an_engine_of_another_size_keeps_its_place_and_teaches_nothing(seed: int) -> None:
    storm = Operated(seed).run(100)
    one = storm.draw.choice(storm.endpoints)
    larger = replace(one, concurrency=one.concurrency + 1, prior=make.scaled(one.prior, 100.0))
    endpoints = tuple(larger if e.name == one.name else e for e in storm.endpoints)
    same = {e.name for e in endpoints} - {one.name}
    router = Router(
        endpoints,
        storm.policy,
        reconfigured(storm.state(), endpoints, storm.policy, storm.policy, same, {one.name}),
    )
    before, after = storm.router.endpoint(one.name), router.endpoint(one.name)
    assert set(after.state.reservations) == set(before.state.reservations)
    # What is ours gets no more than the slots that it tells of, and nobody more than was found to be too many.
    slots = after.memory.slots if one.owned else None
    less = after.state.limit.of(10**6) < larger.concurrency
    assert less or after.room - before.room == (slots is None or slots > one.concurrency)
    cells = msgspec.json.encode((after.state.ttft, after.state.tpot))
    ended = [s for s in storm.sent if s[1] == one.name]
    for request_id, endpoint in ended:
        router.observe(
            make.ended(request_id, endpoint, ttft_s=5.0, e2e_s=9.0, prompt_tokens=300, output_tokens=80), storm.now_s
        )
    assert msgspec.json.encode((after.state.ttft, after.state.tpot)) == cells
    assert not set(after.state.reservations) & {request_id for request_id, _ in ended}


@pytest.mark.lengthy
@given(seeds)
def test_an_endpoint_that_is_new_gets_nothing_before_a_probe_has_reached_it(seed: int) -> None:
    storm = Storm(seed).run(80)
    new = make.endpoint("new")
    endpoints = (*storm.endpoints, new)
    state = msgspec.json.decode(storm.router.snapshot(), type=State)
    names = {e.name for e in storm.endpoints}
    router = Router(endpoints, Policy(), reconfigured(state, endpoints, Policy(), storm.policy, names, set()))
    for request in storm.requests.values():
        steps = router.decide(request, storm.now_s).plan
        assert all(step.endpoint != "new" for step in steps)


@pytest.mark.lengthy
def test_the_storms_of_operators_have_what_is_promised_of_them() -> None:
    storms = [Operated(seed) for seed in range(20)]
    for storm in storms:
        storm.run(250)
    facts = [line.fact for storm in storms for line in storm.lines]
    assert sum(storm.reloads for storm in storms) > 40
    whys = {fact.why for fact in facts if isinstance(fact, Decision)}
    assert {Why.DRAINED, Why.PINNED_ELSEWHERE, Why.ONLY_PINNED, Why.STATIC_RULE} <= whys
