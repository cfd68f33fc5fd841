"""What the bench of a throttled pair asks, and how it judges."""

from math import inf

from bench.throttled_pair import Pace, Promise, in_headers, promised, weighed, worth_usd
from bench.throttled_pair_settings import FACTORS, TOKENS, Asked, Axis, asked
from bench.throttled_rig import LATE_USD_PER_S, PRICE, Action, Said

ONE = Asked(mbit_per_s=20, tokens=1_000, output_tokens=10, axis=Axis.TTFT, factor=2.0)
PACE = Pace((1.0, 0.004, 0.0), 0.02)
SAID = Said(first_s=6.0, ended_s=6.9, prompt_tokens=1_000, output_tokens=10, served=True)


def test_the_same_is_asked_every_time_of_all_links_and_lengths() -> None:
    requests = asked()
    assert requests == asked()
    assert sorted((one.mbit_per_s, one.tokens) for one in requests) == sorted((m, t) for m in TOKENS for t in TOKENS[m])
    assert all(FACTORS[0] <= one.factor <= FACTORS[1] for one in requests)


def test_a_promise_is_so_many_times_what_the_remote_engine_takes() -> None:
    assert promised(ONE, PACE) == Promise(ttft_s=10.0)
    whole = Asked(mbit_per_s=20, tokens=1_000, output_tokens=10, axis=Axis.E2E, factor=2.0)
    assert promised(whole, PACE) == Promise(e2e_s=10.0 + 2.0 * 0.02 * 10)
    assert in_headers(Promise(ttft_s=10.0))["x-tidegate-slo-ttft-ms"] == "10000"


def test_dollars_are_those_of_what_the_remote_engine_computed() -> None:
    usd = {action: weighed(action, SAID, ONE, Promise(ttft_s=10.0)).usd for action in Action}
    assert usd[Action.HOME] == 0.0
    assert usd[Action.REMOTE] == PRICE.usd(1_000, 10, 0)
    assert usd[Action.HANDOVER] == PRICE.usd(1_000, 1, 0), "its prompt, and the token that comes with it"


def test_a_promise_counts_as_kept_by_what_was_measured_on_every_axis() -> None:
    assert weighed(Action.HOME, SAID, ONE, Promise(ttft_s=6.0)).kept
    assert not weighed(Action.HOME, SAID, ONE, Promise(ttft_s=5.9)).kept
    assert not weighed(Action.HOME, SAID, ONE, Promise(ttft_s=6.0, tpot_s=0.09)).kept
    late = weighed(Action.HOME, SAID, ONE, Promise(e2e_s=4.9))
    assert abs(late.value_usd + 2.0 * LATE_USD_PER_S) < 1e-12


def test_what_was_not_served_keeps_no_promise() -> None:
    took = weighed(Action.HOME, Said(ended_s=3.0), ONE, Promise(ttft_s=10.0))
    assert (took.kept, took.ttft_s, took.tpot_s) == (False, 3.0, None)
    assert took.ttft_s < inf
    assert worth_usd(ONE) > 0.0
