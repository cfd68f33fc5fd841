"""A conversation goes on where it began, or says that it may not."""

from typing import Any

import msgspec
import pytest

from tests import make
from tests.core.world import World
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    Endpoint,
    Fingerprint,
    FirstToken,
    Likeness,
    Probed,
    Request,
    Run,
    replace,
)
from tidegate.core.revive import reconfigured
from tidegate.core.router import Router
from tidegate.core.session import PIN_S, PINS_MAX
from tidegate.core.state import State
from tidegate.core.why import Why

A, B = Fingerprint(weights="hf:o/a"), Fingerprint(weights="hf:o/b")


def talk(session: str = "s", **changes: Any) -> Request:
    return make.request(session=session, **changes)


def probe(router: Router, endpoint: str, told: Fingerprint | None = None, *, up: bool = True) -> None:
    router.observe(Probed(endpoint=endpoint, up=up, fingerprint=told), 0.0)


def serve(router: Router, endpoint: str, request: Request | None = None, now_s: float = 0.0) -> None:
    """First content comes from there, and then the end."""
    sent = request or talk()
    router.observe(make.started(sent, endpoint), now_s)
    router.observe(FirstToken(request_id=sent.id, endpoint=endpoint, ttft_s=0.0), now_s)
    end(router, endpoint, sent, Ending.OK, now_s)


def end(router: Router, endpoint: str, sent: Request, ending: Ending, now_s: float = 0.0, cause: str = "") -> None:
    router.observe(Ended(request_id=sent.id, endpoint=endpoint, ending=ending, e2e_s=0.0, cause=cause), now_s)


def steps(decision: Decision) -> set[str]:
    return {step.endpoint for step in decision.plan if isinstance(step, Run)}


def test_a_conversation_goes_on_where_it_was_answered_and_others_are_free() -> None:
    router = make.router()
    serve(router, "cloud")
    decision = router.decide(talk(), 1.0)
    assert (steps(decision), decision.why) == ({"cloud"}, Why.ONLY_CONTINUING)
    assert steps(router.decide(talk("other"), 1.0)) == steps(router.decide(make.request(), 1.0)) == {"laptop", "cloud"}


def test_an_attempt_that_brought_nothing_begins_no_conversation() -> None:
    router = make.router()
    for ending, cause in (
        (Ending.FAILED, ""),
        (Ending.CANCELLED, ""),
        (Ending.REFUSED, ""),
        (Ending.OK, "client_error"),
    ):
        sent = talk()
        router.observe(make.started(sent, "cloud"), 0.0)
        end(router, "cloud", sent, ending, cause=cause)
    assert router.sessions == 0


def test_an_answer_that_came_whole_begins_one_too() -> None:
    router, sent = make.router(), talk()
    router.observe(make.started(sent, "cloud"), 0.0)
    end(router, "cloud", sent, Ending.OK)
    assert steps(router.decide(talk(), 1.0)) == {"cloud"}


def test_endpoints_known_to_have_one_model_are_one_place() -> None:
    router = make.router(*(make.endpoint(name) for name in "abc"))
    probe(router, "a", A)
    probe(router, "b", replace(A, engine="another build", context_tokens=4096))
    probe(router, "c", B)
    serve(router, "a")
    assert steps(router.decide(talk(), 1.0)) == {"a", "b"}


def test_what_is_not_known_to_be_the_same_is_another_place() -> None:
    router = make.router(*(make.endpoint(name) for name in "abc"))
    probe(router, "a", A)
    probe(router, "b", replace(A, quantisation="q"))
    probe(router, "c")
    serve(router, "a")
    assert steps(router.decide(talk(), 1.0)) == {"a", "b"}
    serve(router, "c", talk("t"))
    assert steps(router.decide(talk("t"), 1.0)) == {"c"}


def test_while_its_place_is_down_it_is_refused_and_told_when_to_come_back() -> None:
    router = make.router()
    serve(router, "cloud")
    probe(router, "cloud", up=False)
    decision = router.decide(talk(), 1.0)
    assert (decision.plan, decision.why) == ((), Why.SESSION_ELSEWHERE)
    assert decision.retry_after_s is not None
    reasons = {c.endpoint: c.excluded for c in router.candidates(talk(), 1.0)}
    assert reasons == {"cloud": Why.DOWN, "laptop": Why.SESSION_ELSEWHERE}


def test_its_owner_may_let_it_move_and_then_it_stays_there() -> None:
    router = make.router()
    serve(router, "cloud")
    probe(router, "cloud", up=False)
    moving = talk(session_moves=True)
    assert steps(router.decide(moving, 1.0)) == {"laptop"}
    serve(router, "laptop", moving)
    probe(router, "cloud", up=True)
    assert steps(router.decide(talk(), 1.0)) == {"laptop"}


def test_a_place_that_is_merely_full_is_waited_for_and_no_other_is_taken() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False, concurrency=1))
    for name in ("laptop", "cloud"):
        serve(router, name, talk(name))
        router.observe(make.started(make.request(), name), 0.0)
    for name in ("laptop", "cloud"):
        decision = router.decide(talk(name), 0.0)
        assert {step.endpoint for step in decision.plan} == {name}
        assert decision.why is Why.WAITS_FOR_ANY


def test_residency_holds_before_it() -> None:
    router = make.router()
    serve(router, "cloud")
    decision = router.decide(talk(residency="local"), 1.0)
    assert (decision.plan, decision.why, decision.retry_after_s) == ((), Why.SESSION_ELSEWHERE, None)
    reasons = {c.endpoint: c.excluded for c in router.candidates(talk(residency="local"), 1.0)}
    assert reasons == {"cloud": Why.MUST_STAY_LOCAL, "laptop": Why.SESSION_ELSEWHERE}


def test_when_its_endpoint_loads_another_model_it_goes_on_with_who_has_the_one_before() -> None:
    router = make.router(*(make.endpoint(name) for name in "abc"))
    for name, told in (("a", A), ("b", A), ("c", B)):
        probe(router, name, told)
    serve(router, "a")
    probe(router, "a", B)
    assert steps(router.decide(talk(), 1.0)) == {"b"}
    strict = talk(likeness=Likeness.IDENTICAL)
    assert steps(router.decide(strict, 1.0)) == {"b"}


def test_when_nobody_has_its_model_any_more_it_begins_anew() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"))
    probe(router, "a", A)
    probe(router, "b", B)
    serve(router, "a")
    probe(router, "a", Fingerprint(weights="hf:o/c"))
    assert router.sessions == 0
    assert steps(router.decide(talk(), 1.0)) == {"a", "b"}


def reloaded(router: Router, *after: Endpoint, stay: set[str]) -> Router:
    """Goes on with these endpoints, of which those in `stay` are the engines that they were."""
    state = msgspec.json.decode(router.snapshot(), type=State)
    were = tuple(make.endpoint(name) for name in state.endpoints)
    policy = make.policy()
    return Router(after, policy, reconfigured(state, after, policy, policy, stay, (), were=were))


def test_when_a_reload_leads_its_endpoint_elsewhere_it_goes_on_with_who_has_its_model() -> None:
    router = make.router(*(make.endpoint(name) for name in "abc"))
    for name, told in (("a", A), ("b", A), ("c", B)):
        probe(router, name, told)
    serve(router, "a")
    after = reloaded(router, *(make.endpoint(name) for name in "abc"), stay={"b", "c"})
    probe(after, "a", B)
    assert steps(after.decide(talk(), 1.0)) == {"b"}
    probe(after, "a", A)
    assert steps(after.decide(talk(), 1.0)) == {"a", "b"}


def test_when_a_reload_takes_its_endpoint_out_it_goes_on_with_who_has_its_model() -> None:
    router = make.router(*(make.endpoint(name) for name in "abc"))
    for name, told in (("a", A), ("b", A), ("c", B)):
        probe(router, name, told)
    serve(router, "a")
    serve(router, "c", talk("other"))
    after = reloaded(router, make.endpoint("b"), make.endpoint("c"), stay={"b", "c"})
    assert steps(after.decide(talk(), 1.0)) == {"b"}
    assert steps(after.decide(talk("other"), 1.0)) == {"c"}


def test_a_model_that_is_declared_alone_is_found_again_after_a_reload() -> None:
    a, b, c = (make.endpoint(name, fingerprint=told) for name, told in (("a", A), ("b", A), ("c", B)))
    router = make.router(a, b, c)
    serve(router, "a")
    state = msgspec.json.decode(router.snapshot(), type=State)
    policy = make.policy()
    after = Router((b, c), policy, reconfigured(state, (b, c), policy, policy, {"b", "c"}, (), were=(a, b, c)))
    assert steps(after.decide(talk(), 1.0)) == {"b"}


def test_when_a_reload_leads_its_endpoint_elsewhere_and_nobody_has_its_model_it_begins_anew() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"))
    probe(router, "a", A)
    probe(router, "b", B)
    serve(router, "a")
    after = reloaded(router, make.endpoint("a"), make.endpoint("b"), stay={"b"})
    probe(after, "a", B)
    assert after.sessions == 0
    assert steps(after.decide(talk(), 1.0)) == {"a", "b"}


def test_an_endpoint_that_is_gone_or_serves_the_name_no_more_binds_nobody() -> None:
    router = make.router()
    serve(router, "cloud")
    state = msgspec.json.decode(router.snapshot(), type=State)
    gone = Router((make.endpoint("laptop"),), make.policy(), state)
    assert steps(gone.decide(talk(), 1.0)) == {"laptop"}
    state = msgspec.json.decode(router.snapshot(), type=State)
    renamed = make.endpoint("cloud", local=False, models=("other",))
    assert steps(Router((make.endpoint("laptop"), renamed), make.policy(), state).decide(talk(), 1.0)) == {"laptop"}


def test_it_is_forgotten_an_hour_after_it_was_last_served() -> None:
    router = make.router()
    serve(router, "cloud")
    serve(router, "cloud", now_s=1000.0)
    assert steps(router.decide(talk(), 1000.0 + PIN_S - 1.0)) == {"cloud"}
    assert steps(router.decide(talk(arrived_s=1000.0 + PIN_S), 1000.0 + PIN_S)) == {"laptop", "cloud"}
    serve(router, "laptop", talk("new"), now_s=1000.0 + PIN_S)
    assert router.sessions == 1


def test_of_too_many_the_one_that_was_served_longest_ago_is_forgotten() -> None:
    state = State()
    router = Router((make.endpoint("laptop"), make.endpoint("cloud", local=False)), make.policy(), state)
    for n in range(PINS_MAX):
        router._known.sessions.served(f"s{n}", "cloud", 0.0)
    serve(router, "cloud", talk("s0"), now_s=1.0)
    serve(router, "cloud", talk("new"), now_s=2.0)
    assert router.sessions == PINS_MAX
    assert "s1" not in state.sessions
    assert "s0" in state.sessions


def test_a_snapshot_has_every_place_and_a_checkpoint_none() -> None:
    router = make.router()
    serve(router, "cloud")
    assert msgspec.json.decode(router.snapshot(), type=State).sessions.keys() == {"s"}
    assert msgspec.json.decode(router.snapshot(held=False), type=State).sessions == {}
    router.state.sessions |= {f"{n:016x}": router.state.sessions["s"] for n in range(PINS_MAX)}
    assert len(router.snapshot()) < 1024 * 1024


@pytest.mark.parametrize("dead", [set(), {"laptop"}])
def test_a_conversation_in_a_busy_world_is_served_by_one_endpoint(dead: set[str]) -> None:
    world = World(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False), seed=3)
    world.dead = dead
    for n in range(40):
        world.arrive(talk(f"s{n % 4}", id=f"r{n}", arrived_s=0.7 * n, ttft_s=3.0))
    world.run()
    places: dict[str, list[str]] = {}
    for n in range(40):
        if f"r{n}" in world.served:
            places.setdefault(f"s{n % 4}", []).append(world.served[f"r{n}"][0])
    assert places.keys() == {"s0", "s1", "s2", "s3"}
    assert all(len(set(names)) == 1 for names in places.values())
