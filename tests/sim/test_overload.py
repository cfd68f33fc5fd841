"""An overload is over where something comes and all of it is served in time."""

import pytest
from bench.overload import WINDOW_S, recovered_s

from tests import make as core
from tidegate.core.model import Slo
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome

ENDS_S = 100.0


def outcome(at_s: float, *, in_time: bool) -> Outcome:
    return Outcome(
        request=core.request(f"r{at_s}", arrived_s=at_s, slo=Slo(ttft_s=1.0)),
        outcome="ok",
        endpoint="own",
        why=Why.CHEAPEST_ON_TIME,
        attempts=1,
        held_s=0.0,
        ttft_s=0.5 if in_time else 2.0,
        e2e_s=3.0,
        predicted_s=None,
        measured_s=None,
        prompt_tokens=10,
        cached_tokens=0,
        output_tokens=5,
        usd=0.0,
    )


def test_it_is_over_where_the_first_window_begins_in_which_all_that_comes_is_in_time() -> None:
    late = [outcome(ENDS_S + at_s, in_time=False) for at_s in (-1.0, 0.5, 3.5)]
    timely = [outcome(ENDS_S + at_s, in_time=True) for at_s in (2.0, 5.0, 8.0)]
    assert recovered_s(late + timely, ENDS_S) == 4.0
    assert recovered_s(timely, ENDS_S) == 0.0


@pytest.mark.parametrize("came_s", [(), (-1.0,), (0.5, 3.0), (0.0, 5.0, 3.0 * WINDOW_S)])
def test_a_window_in_which_nothing_comes_tells_of_no_end(came_s: tuple[float, ...]) -> None:
    assert recovered_s([outcome(ENDS_S + at_s, in_time=False) for at_s in came_s], ENDS_S) is None
