"""What a preview says is what its two plays came to, and its intervals are as wide as a hand finds them."""

from math import sqrt

import pytest

from tests import make as core
from tests.sim.test_observed import header
from tidegate.core.model import Slo, replace
from tidegate.core.why import Why
from tidegate.sim.observed import LEFT, Asked, Observed, observe
from tidegate.sim.outcome import Outcome
from tidegate.sim.preview import Interval, Preview, interval, preview
from tidegate.sim.preview_page import affected, changes, figures, headline, notes, page, robust_text
from tidegate.sim.robust import Robust

COUNT = 200


def outcome(
    number: int, *, usd: float = 0.001, endpoint: str = "cloud", ttft_s: float | None = 0.5, how: str = "ok"
) -> Outcome:
    request = core.request(
        f"r{number}", arrived_s=float(number), klass="chat/short", slo=Slo(ttft_s=1.0), key=f"k{number % 2}"
    )
    return Outcome(
        request=request,
        outcome="ok",
        endpoint=endpoint,
        why=Why.CHEAPEST_ON_TIME,
        attempts=1,
        held_s=0.0,
        ttft_s=ttft_s,
        e2e_s=2.0,
        predicted_s=None,
        measured_s=ttft_s,
        prompt_tokens=10,
        cached_tokens=0,
        output_tokens=5,
        usd=usd,
    )


def observed(outcomes: list[Outcome]) -> Observed:
    found = observe([header()])
    found.endpoints = (core.endpoint("own"), core.endpoint("cloud", local=False))
    found.asked = [Asked(request=one.request, outcome=one, prompt_tokens=10, seen=5, whole=True) for one in outcomes]
    found.end_s = float(len(outcomes))
    return found


def of(real: list[Outcome], before: list[Outcome], after: list[Outcome]) -> Preview:
    return preview(observed(real), before, after)


ALL = [outcome(number) for number in range(COUNT)]


def _kept_more(found: Preview) -> float:
    assert found.kept_more is not None
    return found.kept_more.figure


def test_the_same_twice_is_no_change_and_a_perfect_twin_is_off_by_nothing() -> None:
    found = of(ALL, ALL, ALL)
    assert (found.backtest.usd, found.backtest.kept, found.backtest.away, found.backtest.ttft) == (0.0, 0.0, 0.0, 0.0)
    assert found.kept_more is not None
    assert (found.saved_usd_per_1k.figure, found.kept_more.figure) == (0.0, 0.0)
    # One promise more or less may always be, and what one request costs.
    assert found.kept_more.low < 0.0 < found.kept_more.high
    assert found.saved_usd_per_1k.high == pytest.approx(1.94 * 1.0 * sqrt(2.0) / COUNT, rel=0.01)
    assert all(one.moved == 0.0 for one in found.affected)


def test_what_is_saved_is_the_difference_and_scatters_as_its_stretches_do() -> None:
    # Every other one costs nothing in the first half, and none does in the second.
    after = [outcome(n, usd=0.0 if n >= COUNT // 2 or n % 2 else 0.001, endpoint="own") for n in range(COUNT)]
    found = of(ALL, ALL, after)
    saved = found.saved_usd_per_1k
    assert saved.figure == pytest.approx(0.75)
    # Four stretches and four, of 0.5 and 1.0: their mean scatters by sqrt(8/7) * 0.25 / sqrt(8), on two days.
    assert (saved.high - saved.low) / 2.0 == pytest.approx(1.94 * sqrt(2.0 * 8.0 / 7.0) * 0.25 / sqrt(8.0), rel=0.05)
    assert found.away_more.figure == -1.0
    klass = found.affected[0]
    assert (klass.kind, klass.name, klass.requests, klass.moved) == ("class", "chat", COUNT, 1.0)
    assert klass.usd_per_1k == pytest.approx(-0.75)
    assert {(one.kind, one.name) for one in found.affected[1:]} == {("key", "k0"), ("key", "k1")}


def test_a_twin_that_is_wrong_makes_the_interval_wider() -> None:
    after = [outcome(n, usd=0.0005) for n in range(COUNT)]
    right, wrong = of(ALL, ALL, after), of([replace(one, usd=0.002) for one in ALL], ALL, after)
    assert wrong.backtest.usd == pytest.approx(-0.5)
    assert right.saved_usd_per_1k.figure == wrong.saved_usd_per_1k.figure == pytest.approx(0.5)
    assert wrong.saved_usd_per_1k.low < right.saved_usd_per_1k.low


def test_a_promise_of_which_nobody_can_say_is_neither_won_nor_lost() -> None:
    unseen = [outcome(number, ttft_s=None) for number in range(COUNT)]
    assert unseen[0].judged is None
    for found in (of(ALL, ALL, unseen), of(ALL, unseen, ALL)):
        assert found.kept_more is None
        assert {one.kept for one in found.affected} == {None}
        assert changes(found).rows[1] == ("kept", "-", "-", "-")
        assert {row[3] for row in affected(found).rows} == {"-"}
        assert "of promises kept (- to -)" in page(found, None, "policy")
    late = [outcome(number, ttft_s=1.5) for number in range(COUNT)]
    assert _kept_more(of(ALL, ALL, late)) == -1.0


def test_who_was_refused_for_ever_is_in_no_share_of_promises_and_told() -> None:
    refused = [
        replace(outcome(n), outcome="refused", refused_for_ever=True) if n % 4 == 0 else ALL[n] for n in range(COUNT)
    ]
    found = of(refused, refused, refused)
    assert (found.real.kept, found.before.kept, found.after.kept) == (1.0, 1.0, 1.0)
    assert (found.real.judged, found.real.served, found.backtest.kept) == (150, 0.75, 0.0)
    (said,) = notes(found)
    assert f"known of 150 of {COUNT} requests as they came, and of 150 under both" in said


def test_a_policy_that_refuses_for_ever_whom_others_serve_breaks_their_promises() -> None:
    fewer = [replace(one, outcome="refused", refused_for_ever=True) for one in ALL[::2]] + ALL[1::2]
    found = of(ALL, ALL, fewer)
    assert (found.before.kept, found.after.kept) == (1.0, 0.5)
    assert _kept_more(found) == -0.5
    assert of(ALL, fewer, ALL).backtest.kept == -0.5


@pytest.mark.parametrize("count", [3, 9, 10])
def test_of_few_requests_no_share_changes_by_more_than_all_and_promises_are_not_told(count: int) -> None:
    found = of(ALL[:count], ALL[:count], [outcome(number, endpoint="own", ttft_s=1.5) for number in range(count)])
    assert (found.away_more.figure, found.away_more.low) == (-1.0, -1.0)
    assert found.away_more.high <= 1.0
    if count == 10:
        assert found.kept_more is not None
        assert (found.kept_more.figure, found.kept_more.low) == (-1.0, -1.0)
        assert notes(found) == []
    else:
        assert (found.kept_more, found.backtest.kept) == (None, None)
        assert changes(found).rows[1] == ("kept", "-", "-", "-")
        (said,) = notes(found)
        assert f"known of {count} requests under both policies: too few" in said


def test_promises_kept_are_compared_of_the_same_requests() -> None:
    # Under the first policy nobody can judge every other one, and the second keeps those alone.
    before = [outcome(number, ttft_s=None if number % 2 else 1.5) for number in range(COUNT)]
    after = [outcome(number, ttft_s=0.5 if number % 2 else 1.5) for number in range(COUNT)]
    found = of(ALL, before, after)
    assert (found.before.kept, found.after.kept, _kept_more(found)) == (0.0, 0.0, 0.0)
    after = [outcome(number, ttft_s=0.5 if number % 4 else 1.5) for number in range(COUNT)]
    found = of(ALL, before, after)
    assert (found.before.kept, found.after.kept, _kept_more(found)) == (0.0, 0.5, 0.5)
    assert found.affected[0].kept == 0.5


def test_how_one_stretch_alone_scatters_nobody_knows() -> None:
    alone, together = interval([3.0], [0]), interval([3.0] * 50, [7] * 50)
    assert alone == together
    assert alone.low < 0.0 < alone.figure == 3.0 < alone.high
    assert interval([0.5] * 50, [7] * 50, most=1.0) == Interval(figure=0.5, low=-1.0, high=1.0)
    assert interval([3.0] * 50, [7] * 25 + [8] * 25).low == pytest.approx(3.0)


def test_who_left_is_in_no_figure() -> None:
    left = [replace(one, outcome=LEFT) if one.request.id == "r0" else one for one in ALL]
    found = of(left, ALL, ALL)
    assert (found.left, found.real.requests, found.before.requests) == (1, COUNT - 1, COUNT - 1)
    assert "1 requests are in no figure" in notes(found)[0]


def test_times_are_those_of_the_same_requests_wherever_they_stand() -> None:
    # Nobody saw the first content of every other one, which is long in coming.
    def slow(number: int) -> bool:
        return number % 2 == 1

    real = [replace(one, ttft_s=None) if slow(number) else one for number, one in enumerate(ALL)]
    played = [outcome(number, ttft_s=5.0 if slow(number) else 0.5) for number in range(COUNT)]
    found = of(real, played, played)
    assert found.backtest.ttft == 0.0
    assert (found.real.ttft_s_p95, found.before.ttft_s_p95, found.after.ttft_s_p95) == (0.5, 0.5, 0.5)


def test_where_nobody_saw_any_first_content_it_is_told_when_it_is_played() -> None:
    found = of([replace(one, ttft_s=None) for one in ALL], ALL, ALL)
    assert found.backtest.ttft is None
    assert (found.real.ttft_s_p50, found.before.ttft_s_p50) == (None, 0.5)


def test_what_is_not_played_is_told() -> None:
    seen = observed([replace(one, request=replace(one.request, budget_usd=1.0)) for one in ALL])
    seen.client_errors, seen.unended = 3, 2
    said = notes(preview(seen, ALL, ALL))
    assert "3 requests are in no figure and not played, which failed by their own fault" in said[0]
    assert "2 requests are in no figure and not played, since a process or the journal ended before" in said[1]
    assert f"{COUNT} requests had a budget. No spending is played" in said[2]
    assert notes(of(ALL, ALL, ALL)) == []
    seen = observed(ALL)
    seen.overlapping = 2
    assert "2 runs overlap in this folder" in notes(preview(seen, ALL, ALL))[0]


def test_what_is_one_engine_and_played_as_several_is_told() -> None:
    seen = observed(ALL)
    small, large = core.endpoint("small", beside=("large",)), core.endpoint("large", beside=("small",))
    seen.endpoints = (small, large, *seen.endpoints)
    (said,) = notes(preview(seen, ALL, ALL))
    assert "small, large, several are one engine" in said


def test_what_cost_nothing_and_costs_something_in_the_twin_is_wholly_off() -> None:
    assert of([replace(one, usd=0.0) for one in ALL], ALL, ALL).backtest.usd == 1.0


def test_nothing_asked_is_nothing_found() -> None:
    found = of([], [], [])
    assert (found.real.requests, found.saved_usd_per_1k.figure, found.affected) == (0, 0.0, ())


def test_the_page_says_first_how_far_off_it_is_and_never_markup() -> None:
    found = of([replace(one, usd=0.002) for one in ALL], ALL, ALL)
    text = page(found, None, "<b>policy</b>")
    assert "-50.0% of dollars" in headline(found)
    assert text.index("-50.0%") < text.index("What came")
    assert "&lt;b&gt;policy" in text
    assert "<b>policy" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert [row[0] for row in figures(found).rows] == ["real", "simulated", "changed"]


FEW = Robust(requests=100, otherwise=40, untried=0, unseen=0, effective=3.0)
TRIED = Robust(requests=100, otherwise=40, untried=7, unseen=5, effective=60.0, more_usd_per_1k=1.5, low=1.0, high=2.0)


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (None, "Nothing was explored"),
        (FEW, "there is no estimate: of 100 requests 40"),
        (TRIED, "$+1.5 of a thousand requests more ($+1 to $+2)"),
        (TRIED, "7 are in no figure, with which it would do what was certain not to be tried"),
        (TRIED, "5 are in no figure, of which nobody sees whether their promises are kept"),
    ],
)
def test_what_was_tried_is_told_or_why_it_tells_nothing(estimate: Robust | None, said: str) -> None:
    assert said in robust_text(estimate)
