"""An endpoint that is found to serve another model is not taken for the one that its name promises."""

from typing import Any

import msgspec
import pytest

from tests import make
from tidegate.core.likeness import Against
from tidegate.core.model import Ended, Ending, Endpoint, Fingerprint, Likeness, Probed, Segment
from tidegate.core.revive import reconfigured, revived
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why

A = Fingerprint(weights="gguf:a:1:2", quantisation="Q4_K_M")
B = Fingerprint(weights="gguf:b:1:2", quantisation="Q4_K_M")
STRICT = make.request("strict", likeness=Likeness.IDENTICAL)


def probe(router: Router, told: Fingerprint | None) -> None:
    router.observe(Probed(endpoint="laptop", up=True, fingerprint=told), 0.0)


def served(router: Router) -> bool:
    return bool(router.decide(STRICT, 0.0).plan)


def test_who_changes_its_weights_serves_no_request_for_the_identical_model_until_it_has_them_again() -> None:
    router = make.router(make.endpoint("laptop"))
    probe(router, A)
    assert served(router)
    probe(router, B)
    assert router.decide(STRICT, 0.0).why is Why.NOT_ALIKE
    assert router.decide(make.request(likeness=Likeness.SAME_FAMILY), 0.0).plan
    probe(router, None)  # a probe that tells nothing does not absolve
    assert not served(router)
    probe(router, A)
    assert served(router)


def test_another_engine_build_or_window_is_no_other_model() -> None:
    router = make.router(make.endpoint("laptop"))
    probe(router, Fingerprint(weights="a", engine="llama.cpp b1", context_tokens=4096))
    probe(router, Fingerprint(weights="a", engine="llama.cpp b2", context_tokens=8192))
    assert served(router)


def test_what_a_name_demands_is_demanded_of_the_endpoints_of_that_name_alone() -> None:
    router = make.router(make.endpoint("laptop", models=("m", "n"), demands={"n": B}))
    probe(router, A)
    assert served(router)
    model = router.endpoint("laptop")
    assert model.identity.doubts == {"n": {Against.DEMANDED: ("weights",)}}
    assert model.identity.likeness == {"n": Likeness.SAME_FAMILY}


def test_what_is_declared_holds_until_the_engine_itself_says_otherwise() -> None:
    endpoint = make.endpoint("laptop", fingerprint=A, demands={"m": A})
    router = make.router(endpoint)
    assert served(router)
    assert router.endpoint("laptop").identity.fingerprint == A
    probe(router, Fingerprint(weights="gguf:b:1:2"))
    assert router.endpoint("laptop").identity.doubts["m"] == {
        Against.DEMANDED: ("weights",),
        Against.DECLARED: ("weights",),
    }
    assert not served(router)


def test_a_likeness_that_is_configured_stays_as_it_is() -> None:
    router = make.router(make.endpoint("laptop", likeness={"m": Likeness.SUBSTITUTE}))
    probe(router, A)
    probe(router, B)
    assert router.endpoint("laptop").identity.likeness == {"m": Likeness.SUBSTITUTE}
    assert router.endpoint("laptop").identity.doubts == {}


def test_what_is_in_flight_stays_reserved_though_the_weights_change() -> None:
    router = make.router(make.endpoint("laptop"))
    probe(router, A)
    router.observe(make.started(STRICT, "laptop"), 0.0)
    probe(router, B)
    assert set(router.endpoint("laptop").state.reservations) == {"strict"}
    router.observe(Ended(request_id="strict", endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=0.5), 1.0)
    assert router.endpoint("laptop").state.reservations == {}


def test_a_snapshot_keeps_the_doubt_and_a_restart_trusts_anew() -> None:
    endpoints = (make.endpoint("laptop"),)
    router = make.router(*endpoints)
    probe(router, A)
    probe(router, B)
    state = msgspec.json.decode(router.snapshot(), type=State)
    assert not served(Router(endpoints, make.policy(), state))
    after = Router(endpoints, make.policy(), revived(state, {"laptop"}, 0.0))
    assert after.endpoint("laptop").identity.fingerprint == B
    assert served(after)


def test_weights_that_changed_over_a_restart_teach_nothing_to_the_new_ones() -> None:
    router = make.router(make.endpoint("laptop"))
    probe(router, A)
    served_slowly(router)
    state = msgspec.json.decode(router.snapshot(), type=State)
    after = Router((make.endpoint("laptop"),), make.policy(), revived(state, {"laptop"}, 0.0))
    assert first_s(after) > 2.0 * first_s(make.router(make.endpoint("laptop")))
    probe(after, B)
    assert first_s(after) == first_s(make.router(make.endpoint("laptop")))


def vouched(router: Router, *endpoints: Endpoint, moved: bool = False) -> Router:
    """It goes on after a reload by hand; the engines are the same, with the same settings or with others."""
    policy, names = make.policy(), {endpoint.name for endpoint in endpoints}
    same, other = (set[str](), names) if moved else (names, set[str]())
    return Router(endpoints, policy, reconfigured(router.state, endpoints, policy, policy, same, other, names))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("demanded", [False, True])
def test_who_vouches_for_a_model_does_not_take_back_what_its_name_demands_or_its_endpoint_declares(
    moved: bool, demanded: bool
) -> None:
    endpoint = make.endpoint("laptop", demands={"m": A}) if demanded else make.endpoint("laptop", fingerprint=A)
    router = make.router(endpoint)
    probe(router, B)
    after = vouched(router, endpoint, moved=moved)
    against = Against.DEMANDED if demanded else Against.DECLARED
    for told in (None, Fingerprint(quantisation="Q4_K_M"), B):
        assert not served(after)
        probe(after, told)  # nothing, a part, the whole
        assert after.endpoint("laptop").identity.doubts == {"m": {against: ("weights",)}}
    probe(after, A)
    assert after.endpoint("laptop").identity.doubts["m"].keys() == {Against.TRUSTED}


def test_what_is_down_after_a_reload_may_be_loading_what_it_should_be() -> None:
    endpoint = make.endpoint("laptop", demands={"m": A})
    router = make.router(endpoint)
    probe(router, B)
    after = vouched(router, endpoint)
    after.observe(Probed(endpoint="laptop", up=False), 0.0)
    assert after.decide(STRICT, 0.0).why is Why.DOWN
    probe(after, None)
    assert after.decide(STRICT, 0.0).why is Why.NOT_ALIKE
    probe(after, A)
    assert served(after)


@pytest.mark.parametrize("moved", [False, True])
def test_a_first_probe_that_tells_a_part_trusts_nothing_from_before_it_was_vouched_for(moved: bool) -> None:
    endpoint, part = make.endpoint("laptop"), Fingerprint(quantisation="Q4_K_M")
    router = make.router(endpoint)
    probe(router, A)
    after = vouched(router, endpoint, moved=moved)
    probe(after, part)
    probe(after, part)
    probe(after, B)
    assert served(after)
    probe(after, A)
    assert not served(after)


def served_slowly(router: Router) -> None:
    request = make.request("slow")
    router.observe(make.started(request, "laptop"), 0.0)
    router.observe(make.ended("slow", "laptop", ttft_s=5.0, e2e_s=60.0, output_tokens=100), 0.0)


def first_s(router: Router) -> float:
    (candidate,) = router.candidates(make.request("r"), 0.0)
    assert candidate.estimate is not None
    return candidate.estimate.ttft_s


def test_a_journal_from_before_fingerprints_is_still_read() -> None:
    policy, endpoint = make.policy(), make.endpoint("laptop")
    state = make.router(endpoint).snapshot()
    header = Segment(version=1, software="", policy=policy, endpoints=(endpoint,), state=state)
    old = msgspec.json.decode(msgspec.json.encode(header))
    for names, record in (("fingerprint demands", old["endpoints"][0]), ("fingerprint trusted", _laptop(old["state"]))):
        for name in names.split():
            del record[name]
    read = msgspec.json.decode(msgspec.json.encode(old), type=Segment)
    assert read.endpoints == (endpoint,)
    assert (
        Router(read.endpoints, policy, msgspec.json.decode(read.state, type=State)).endpoint("laptop").identity.doubts
        == {}
    )
    assert msgspec.json.decode(msgspec.json.encode(endpoint), type=Endpoint) == endpoint


def _laptop(state: Any) -> Any:
    return state["endpoints"]["laptop"]
