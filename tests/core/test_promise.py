"""Whether a promise was kept: by an answer, by one of which little is known, and by none."""

import pytest

from tests import make
from tidegate.core.model import Decision, Ending, Slo, replace
from tidegate.core.promise import ends_s, judged, kept, was_kept
from tidegate.core.why import Why

ALL = Slo(ttft_s=2.0, tpot_s=0.1, e2e_s=10.0)
KEPT = [
    # what is promised, first content, end, output tokens, and whether it was kept
    (ALL, 1.0, 5.0, 101, True),
    (ALL, 2.1, 5.0, 101, False),
    (ALL, 1.0, 12.0, 901, False),
    (ALL, 1.0, 9.0, 41, False),
    (ALL, 1.0, 9.0, 1, True),
    (ALL, 1.0, 9.0, None, None),
    (Slo(ttft_s=2.0), 1.0, 9.0, None, True),
    # Given whole, it shows no first content before its end.
    (Slo(e2e_s=10.0), None, 9.0, 50, True),
    (Slo(ttft_s=2.0), None, 1.5, 50, True),
    (Slo(ttft_s=2.0), None, 9.0, 50, None),
    (Slo(ttft_s=2.0, e2e_s=8.0), None, 9.0, 50, False),
    (Slo(tpot_s=0.1), None, 1.0, 50, None),
]


@pytest.mark.parametrize(("slo", "ttft_s", "e2e_s", "tokens", "expected"), KEPT)
def test_every_axis_counts(
    slo: Slo, ttft_s: float | None, e2e_s: float, tokens: int | None, expected: bool | None
) -> None:
    assert kept(make.request(slo=slo), ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=tokens) is expected


@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("completions", [1, 4])
def test_an_answer_without_a_second_token_is_predicted_to_keep_any_time_between_them(
    most: int, completions: int
) -> None:
    slow = make.endpoint(prior=replace(make.LOCAL_PRIOR, decode_s_per_token=0.25))
    router = make.router(slow)

    def likely(tokens: int, slo: Slo) -> float:
        asked = make.request(slo=slo, output_tokens_max=tokens, completions=completions)
        estimate = router.candidates(asked, 0.0)[0].estimate
        assert estimate is not None
        return estimate.attainment

    assert likely(most, Slo(ttft_s=2.0, tpot_s=0.1)) == likely(most, Slo(ttft_s=2.0)) > 0.9
    assert likely(2, Slo(ttft_s=2.0, tpot_s=0.1)) < 0.1
    assert kept(make.request(slo=ALL, completions=completions), ttft_s=1.0, e2e_s=5.0, output_tokens=most * completions)


def test_embeddings_have_no_time_between_tokens() -> None:
    request = make.request(slo=ALL, output_tokens_max=0, stream=False)
    assert kept(request, ttft_s=1.0, e2e_s=1.0, output_tokens=None) is True
    assert kept(request, ttft_s=3.0, e2e_s=3.0, output_tokens=None) is False


def test_who_leaves_before_an_answer_in_one_piece_tells_of_its_end_alone() -> None:
    request = make.request(slo=ALL, stream=False)
    assert kept(request, ttft_s=None, e2e_s=5.0, output_tokens=None, whole=False) is None
    assert kept(request, ttft_s=None, e2e_s=12.0, output_tokens=None, whole=False) is False
    streamed = make.request(slo=ALL)
    assert kept(streamed, ttft_s=None, e2e_s=5.0, output_tokens=None, whole=False) is False


def test_the_tokens_of_several_answers_come_side_by_side() -> None:
    request = make.request(slo=Slo(tpot_s=0.1), completions=4)
    assert kept(request, ttft_s=1.0, e2e_s=2.0, output_tokens=80) is True
    assert kept(request, ttft_s=1.0, e2e_s=4.0, output_tokens=80) is False


def fate(
    ending: Ending, *, ttft_s: float | None = None, e2e_s: float = 1.0, retry_after_s: float | None = None
) -> bool | None:
    request = make.request(slo=Slo(ttft_s=2.0), attainment=0.9)
    decision = Decision(request_id=request.id, plan=(), why=Why.BUSY, retry_after_s=retry_after_s)
    held = was_kept(request, decision, ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=5)
    told = judged(request, ending, held)
    assert told is not None
    assert (told.request_id, told.klass, told.attainment) == (request.id, request.klass, 0.9)
    return told.kept


def test_who_is_refused_for_now_fails_or_is_given_up_was_promised_too_much() -> None:
    assert fate(Ending.REFUSED, retry_after_s=3.0) is False
    assert fate(Ending.FAILED) is False
    assert fate(Ending.TIMED_OUT) is False
    assert fate(Ending.OK, ttft_s=1.0) is True
    assert fate(Ending.OK, ttft_s=3.0, e2e_s=4.0) is False


def test_what_misses_nothing_that_anybody_can_see_counts_as_kept_for_worth() -> None:
    assert fate(Ending.OK, ttft_s=None, e2e_s=9.0) is True


def test_who_could_not_be_served_at_any_price_says_nothing() -> None:
    assert fate(Ending.REFUSED) is None


def test_who_leaves_in_time_says_nothing_and_who_leaves_late_was_promised_too_much() -> None:
    assert fate(Ending.CANCELLED) is None
    assert fate(Ending.CANCELLED, ttft_s=1.0, e2e_s=60.0) is None
    assert fate(Ending.CANCELLED, e2e_s=2.5) is False
    assert fate(Ending.CANCELLED, ttft_s=2.5, e2e_s=3.0) is False


def test_nothing_is_told_of_a_class_without_a_target() -> None:
    assert judged(make.request(), Ending.FAILED, kept=False) is None


def test_a_promise_ends_with_its_first_limit() -> None:
    assert ends_s(make.request(arrived_s=5.0, slo=ALL)) == 7.0
    assert ends_s(make.request(arrived_s=5.0, slo=Slo(e2e_s=10.0))) == 15.0
    assert ends_s(make.request(slo=Slo(tpot_s=0.1))) == float("inf")
