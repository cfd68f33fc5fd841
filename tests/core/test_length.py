"""What is believed of an output's length, and of what."""

import msgspec
import pytest

from tests import make
from tidegate.core import bins
from tidegate.core.counts import Lengths
from tidegate.core.length import COUNTS_BYTES_MAX, TURNS_MAX, LengthModel, beginnings_of
from tidegate.core.model import Ended, Ending
from tidegate.core.prompts import GRID
from tidegate.core.router import Router

DAY_S = 86_400.0


def learned(*samples: tuple[str, float], **asked: str | int) -> LengthModel:
    """Of each class and length thirty outputs."""
    model = LengthModel()
    for klass, tokens in samples:
        for _ in range(30):
            model.learn(klass, tokens, 0.0, **asked)  # type: ignore[arg-type]
    return model


def test_before_anything_was_seen_the_prior_speaks() -> None:
    length = LengthModel().at("chat/short", None)
    assert length.median_tokens == pytest.approx(100.0, rel=0.02)
    assert length.sigma == pytest.approx(1.0, rel=0.02)
    assert length.expected_tokens == pytest.approx(165.0, rel=0.02)
    assert length.high_tokens == pytest.approx(518.0, rel=0.02)


def test_a_class_without_samples_says_what_its_parent_says() -> None:
    model = learned(("chat/short", 900.0))
    assert model.at("chat/long", None).median_tokens == model.at("chat", None).median_tokens
    assert model.at("chat/long", None).median_tokens == pytest.approx(900.0, rel=0.15)
    assert model.at("batch/long", None).median_tokens == pytest.approx(100.0, rel=0.02)


def test_classes_differ() -> None:
    model = learned(("chat/short", 20.0), ("chat/long", 900.0))
    assert model.at("chat/short", None).median_tokens == pytest.approx(20.0, rel=0.15)
    assert model.at("chat/long", None).median_tokens == pytest.approx(900.0, rel=0.15)


@pytest.mark.parametrize("by", ["model", "key"])
def test_a_class_is_told_apart_by_model_and_by_key(by: str) -> None:
    model = LengthModel()
    for _ in range(30):
        for name, tokens in (("a", 20.0), ("b", 900.0)):
            model.learn("chat/short", tokens, 0.0, prompt_tokens=100, **{by: name})  # type: ignore[arg-type]
    for name, tokens in (("a", 20.0), ("b", 900.0)):
        length = model.at("chat/short", None, prompt_tokens=100, **{by: name})  # type: ignore[arg-type]
        assert length.median_tokens == pytest.approx(tokens, rel=0.25)
        assert length.high_tokens < 2_000.0


def test_prompts_about_as_long_are_alike() -> None:
    model = LengthModel()
    for _ in range(30):
        model.learn("chat/medium", 20.0, 0.0, prompt_tokens=1_000)
        model.learn("chat/medium", 400.0, 0.0, prompt_tokens=3_000)
    assert model.at("chat/medium", None, prompt_tokens=990).median_tokens == pytest.approx(20.0, rel=0.25)
    assert model.at("chat/medium", None, prompt_tokens=3_100).median_tokens == pytest.approx(400.0, rel=0.25)


def test_what_a_client_does_lately_counts_beside_what_it_does_all_day() -> None:
    model = LengthModel()
    for second in range(4 * 3600):
        model.learn("chat/short", 20.0, float(second), key="k")
    for second in range(30):
        model.learn("chat/short", 900.0, 5.0 * 3600 + second, key="k")
    assert model.at("chat/short", None, key="k").high_tokens > 600.0
    assert model.at("chat/short", None, key="other").high_tokens < 100.0


def test_a_conversation_is_known_by_how_long_its_answers_were() -> None:
    model = LengthModel()
    for number in range(40):
        session, tokens = f"s{number}", 20.0 if number % 2 else 900.0
        for turn in range(4):
            prompt_tokens = 1_000 + 100 * turn
            turns = model.turns(session)
            model.learn("chat/medium", tokens, float(turn), prompt_tokens=prompt_tokens, session=session, turns=turns)
    for session, tokens in (("s0", 900.0), ("s1", 20.0)):
        length = model.at("chat/medium", None, prompt_tokens=1_400, turns=model.turns(session))
        assert length.median_tokens == pytest.approx(tokens, rel=0.25)
    assert model.turns("s99") is None


def test_a_conversation_without_a_session_is_known_by_what_its_prompt_begins_with() -> None:
    model = LengthModel()
    first, second = tuple(range(100, 109)), (*range(100, 109), 7, 8, 9)
    before = beginnings_of(make.request(prefix=first))
    model.learn("chat/short", 900.0, 0.0, beginning=before[-1])
    turns = model.turns("", beginnings_of(make.request(prefix=second)))
    assert turns is not None
    assert turns.total == turns.weight * bins.bin_of(900.0)
    assert model.turns("", beginnings_of(make.request(prefix=tuple(range(200, 209))))) is None


def test_beginnings_are_the_same_of_a_request_and_of_its_sending_and_none_where_the_client_names_its_conversation() -> (
    None
):
    prefix = tuple(range(300, 556))
    for count in (1, 9, 256):
        request = make.request(prefix=prefix[:count], prompt_bytes=1024 * count)
        known = beginnings_of(request)
        assert known == beginnings_of(make.started(request, "laptop"))
        assert known == tuple(prefix[place - 1] for place in GRID if place <= count)
    assert beginnings_of(make.request(prefix=prefix, session="named")) == ()
    assert beginnings_of(make.request()) == beginnings_of(make.started(make.request(), "laptop")) == ()


def test_the_clients_bound_is_the_most() -> None:
    length = learned(("chat", 900.0)).at("chat", 100)
    assert (length.high_tokens, length.median_tokens) == (100.0, 100.0)
    assert length.expected_tokens == pytest.approx(100.0, rel=0.05)
    assert length.sigma < LengthModel().at("chat", None).sigma


def test_outputs_that_the_bound_cut_are_not_taken_for_short_ones() -> None:
    model = LengthModel()
    for _ in range(60):
        model.learn("chat", 100.0, 0.0, at_least=True)
        model.learn("chat", 30.0, 0.0)
    # Half of them end at 30; of the others no more is known than that they are longer than 100.
    assert model.at("chat", 100).expected_tokens == pytest.approx(65.0, rel=0.1)
    assert model.at("chat", None).high_tokens > 300.0


def test_what_has_streamed_rules_out_the_short_ones() -> None:
    model = learned(("chat", 20.0), ("chat", 900.0))
    length = model.at("chat", None)
    assert length.expected_tokens == pytest.approx(460.0, rel=0.15)
    assert length.given(50.0).expected_tokens == pytest.approx(900.0, rel=0.15)
    assert length.given(50.0).median_tokens > length.median_tokens


def test_what_nobody_has_ever_seen_is_still_expected_to_end() -> None:
    length = learned(("chat", 20.0)).at("chat", None).given(1e6)
    assert length.expected_tokens >= bins.EDGES[-2]


def test_an_output_without_tokens_teaches_nothing() -> None:
    model = LengthModel()
    model.learn("chat", 0.0, 0.0)
    model.learn("chat", 1.0, 0.0, at_least=True)
    assert model.state == Lengths()


def test_who_was_not_seen_for_longest_is_forgotten_first_and_what_all_share_is_kept() -> None:
    model = LengthModel()
    for index in range(3_000):
        model.learn("chat/short", 50.0, float(index), key=f"key{index}", session=f"s{index}")
    assert "chat/short" in model.state.counts
    assert "k chat  key2999" in model.state.counts
    assert "k chat  key0" not in model.state.counts
    assert len(model.state.sessions) == TURNS_MAX
    assert model.turns("s2999") is not None
    assert len(msgspec.json.encode(model.state.counts)) <= COUNTS_BYTES_MAX


def test_a_router_learns_of_model_key_and_conversation() -> None:
    router = make.router(make.endpoint("laptop", concurrency=4))
    for index in range(60):
        key, tokens = ("a", 20) if index % 2 else ("b", 900)
        sent = make.request(f"r{index}", key=key, output_tokens_max=None)
        router.observe(make.started(sent, "laptop"), float(index))
        ended = Ended(
            request_id=sent.id, endpoint="laptop", ending=Ending.OK, e2e_s=0.9, ttft_s=0.25, output_tokens=tokens
        )
        router.observe(ended, index + 0.9)
    expected = [_expected(router, key) for key in ("a", "b")]
    assert expected == [pytest.approx(20.0, rel=0.4), pytest.approx(900.0, rel=0.25)]
    kept = msgspec.json.decode(router.snapshot(held=False), type=type(router.state))
    assert kept.lengths.counts == router.state.lengths.counts


def test_what_is_known_of_conversations_ends_with_the_process() -> None:
    router = make.router(make.endpoint("laptop"))
    sent = make.request("r", session="s")
    router.observe(make.started(sent, "laptop"), 0.0)
    router.observe(make.ended("r", "laptop", ttft_s=0.2, output_tokens=50), 1.0)
    assert router.state.lengths.sessions
    assert not msgspec.json.decode(router.snapshot(held=False), type=type(router.state)).lengths.sessions
    assert msgspec.json.decode(router.snapshot(), type=type(router.state)).lengths == router.state.lengths


def _expected(router: Router, key: str) -> float:
    (candidate,) = router.candidates(make.request("x", key=key, output_tokens_max=None), 61.0)
    assert candidate.estimate is not None
    return candidate.estimate.output_tokens
