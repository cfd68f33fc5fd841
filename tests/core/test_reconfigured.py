"""What is known of an endpoint after a reload that leaves its engine where it is."""

import pytest

from tests import make
from tidegate.core.model import Ending, Endpoint, FirstToken, Prior, Probed, Warmed, Warming, replace
from tidegate.core.revive import reconfigured, revived
from tidegate.core.router import Router

SWAPS = replace(make.LOCAL_PRIOR, load_s=30.0, unload_after_s=60.0)


def swaps(name: str, **changes: object) -> Endpoint:
    return replace(make.endpoint(name, prior=SWAPS, warms_up=True, kept_usd_per_s=0.0), **changes)


def moved(router: Router, *endpoints: Endpoint, same: tuple[Endpoint, ...] = ()) -> Router:
    """The same engines with other sizes, and those that are the `same` in all."""
    policy, names = make.policy(), [one.name for one in endpoints]
    stay, after = [one.name for one in same], (*endpoints, *same)
    return Router(after, policy, reconfigured(router.state, after, policy, policy, stay, names))


def asked(router: Router, name: str, at_s: float, *, took_s: float = 0.5, ending: Ending = Ending.OK) -> None:
    request = make.request(arrived_s=at_s)
    router.observe(make.started(request, name), at_s)
    ended = make.ended(request.id, name, ending=ending, e2e_s=took_s)
    router.observe(ended if ending is not Ending.OK else replace(ended, ttft_s=0.2, output_tokens=10), at_s + took_s)


def test_a_load_that_is_under_way_lets_no_other_begin_in_its_engine() -> None:
    one, other = swaps("one", beside=("other",)), swaps("other", beside=("one",))
    router = Router((one, other), make.policy())
    for name in ("one", "other"):
        router.observe(Probed(endpoint=name, up=True, resident=False), 0.0)
    router.observe(Warming(endpoint="one"), 1.0)
    router.state.endpoints["other"].cold.warm_up.missed_usd = 1.0
    after = moved(router, replace(one, concurrency=3), same=(other,))
    assert after.warm_ups(5.0) == []
    levels = after.state.endpoints["one"].cold.loads
    after.observe(Warmed(endpoint="one", took_s=30.0, served=True), 31.0)
    assert after.state.endpoints["one"].cold.loads == levels, "what was predicted by other settings teaches nothing"
    assert after.state.endpoints["one"].cold.warm_up.sent is None


@pytest.mark.parametrize("how", ["reload", "restart"])
def test_a_model_that_somebody_uses_is_kept_loaded_over_it(how: str) -> None:
    one = swaps("one")
    router = Router((one,), make.policy())
    asked(router, "one", 0.0)
    assert router.warm_ups(50.0) == ["one"]
    if how == "reload":
        after = moved(router, replace(one, concurrency=3))
    else:
        after = Router((one,), make.policy(), revived(router.state, {"one"}, 10.0))
        after.observe(Probed(endpoint="one", up=True), 10.0)
    assert after.warm_ups(50.0) == ["one"]


def test_who_is_slow_beside_others_that_answer_is_not_taken_to_be_away_after_it() -> None:
    quick = Prior(overhead_s=0.2, decode_s_per_token=0.01, sigma=0.2)
    home = make.endpoint("home", prior=quick, concurrency=8)
    router = Router((home,), make.policy())
    asked(router, "home", 0.0)
    slow = [make.request(f"slow{n}", arrived_s=1.0) for n in range(3)]
    for request in slow:
        router.observe(make.started(request, "home"), 1.0)
    heard = make.request("heard", arrived_s=1.0)
    router.observe(make.started(heard, "home"), 1.0)
    router.observe(FirstToken(request_id="heard", endpoint="home", ttft_s=1.0), 2.0)
    after = moved(router, replace(home, concurrency=16))
    for request in slow:
        after.observe(make.ended(request.id, "home", ending=Ending.CANCELLED, e2e_s=60.0), 61.0)
    assert after.endpoint("home").state.breaker.strikes == 0.0


@pytest.mark.parametrize(("before", "after"), [(0.99, 0.9), (0.9, 0.99)])
def test_what_was_promised_by_another_quantile_teaches_nothing_of_the_one_that_holds(
    before: float, after: float
) -> None:
    home, policies = make.endpoint("home", concurrency=64), [make.policy(quantile=q) for q in (before, after)]
    router = Router((home,), policies[0])
    requests = [make.request(f"r{n}") for n in range(40)]
    for request in requests:
        router.observe(make.started(request, "home"), 0.0)
    state = reconfigured(router.state, (home,), policies[1], policies[0], {"home"}, ())
    again = Router((home,), policies[1], state)
    fresh = Router((home,), policies[1])
    for request in requests:
        ended = make.ended(request.id, "home", ttft_s=0.3, e2e_s=2.0, output_tokens=80, prompt_tokens=200)
        again.observe(ended, 2.0)
    assert again.endpoint("home").state.e2e == fresh.endpoint("home").state.e2e
    assert again.endpoint("home").state.reservations == {}
