"""Laws of fingerprints: what is unknown agrees with everything, and what is known is never forgotten for nothing."""

from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.fingerprint import (
    FIELDS,
    NAMESPACES,
    OF_THE_MODEL,
    OF_THE_SPEED,
    TEXT_CHARS_MAX,
    differs,
    digest,
    filled,
    later,
    text,
)
from tidegate.core.likeness import Against
from tidegate.core.model import Fingerprint, Likeness, Probed, replace
from tidegate.core.router import Router

UNKNOWN = Fingerprint()
words = st.sampled_from(["", "a", "b", "hf:o/a", "hf:o/b", "gguf:a:1:2", "ollama:a", "blake2b:a", "gemma3:4b"])
fingerprints = st.builds(
    Fingerprint,
    weights=words,
    quantisation=words,
    tokenizer=words,
    chat_template=words,
    context_tokens=st.sampled_from([None, 4096, 8192]),
    engine=words,
)


@given(fingerprints, fingerprints)
def test_to_differ_is_mutual(a: Fingerprint, b: Fingerprint) -> None:
    assert differs(a, b) == differs(b, a)


@given(fingerprints, fingerprints)
def test_nothing_differs_from_itself_or_from_the_unknown(a: Fingerprint, b: Fingerprint) -> None:
    assert differs(a, a) == differs(a, UNKNOWN) == ()
    assert all(getattr(a, name) and getattr(b, name) for name in differs(a, b))


@given(
    st.sampled_from(OF_THE_MODEL), st.lists(st.sampled_from(sorted(NAMESPACES)), min_size=2, max_size=2, unique=True)
)
def test_words_of_two_namespaces_never_differ_and_words_of_one_do(name: str, spaces: list[str]) -> None:
    def said(word: str) -> Fingerprint:
        return replace(UNKNOWN, **{name: word})

    one, two = spaces
    assert differs(said(f"{one}:x"), said(f"{two}:x")) == ()
    assert differs(said(f"{one}:x"), said("x")) == ()
    assert differs(said(f"{one}:x"), said(f"{one}:y")) == (name,)
    assert differs(said("gemma3:4b"), said("llama3:8b")) == (name,)


@given(fingerprints, fingerprints)
def test_what_is_filled_up_keeps_what_it_knew_and_agrees_with_it(a: Fingerprint, b: Fingerprint) -> None:
    made = filled(a, b)
    assert all(getattr(made, name) == (getattr(a, name) or getattr(b, name)) for name in FIELDS)
    assert differs(a, made) == ()
    assert filled(a, UNKNOWN) == filled(UNKNOWN, a) == filled(a, a) == a


@given(fingerprints, fingerprints)
def test_a_lost_answer_is_no_news_and_another_model_takes_nothing_from_the_one_before(
    before: Fingerprint, told: Fingerprint
) -> None:
    assert later(before, UNKNOWN) == before
    assert later(None, told) == told
    if differs(before, told, OF_THE_MODEL):
        assert later(before, told) == told
    assert differs(later(before, told), told) == ()


@given(st.text(max_size=2000))
def test_a_text_of_a_fingerprint_is_printable_and_bounded(said: str) -> None:
    for made in (text(said), digest(said)):
        assert len(made) <= TEXT_CHARS_MAX
        assert made.isprintable()
    assert bool(digest(said)) == bool(said)


@given(st.lists(fingerprints, max_size=6), fingerprints, fingerprints)
def test_an_endpoint_is_identical_exactly_while_nothing_contradicts_it(
    told: list[Fingerprint], declared: Fingerprint, demanded: Fingerprint
) -> None:
    endpoint = make.endpoint("e", models=("m", "n"), fingerprint=declared, demands={"m": demanded})
    router = Router((endpoint,), make.policy())
    model = router.endpoint("e")
    for seen in told:
        router.observe(Probed(endpoint="e", up=True, fingerprint=seen), 0.0)
        trusted = model.state.trusted
        assert trusted is not None
        against = {
            "m": {Against.DEMANDED: demanded, Against.DECLARED: declared, Against.TRUSTED: trusted},
            "n": {Against.DECLARED: declared, Against.TRUSTED: trusted},
        }
        for name, expected in against.items():
            found = {a: differs(model.identity.fingerprint, f, OF_THE_MODEL) for a, f in expected.items()}
            found = {a: fields for a, fields in found.items() if fields}
            assert model.identity.doubts.get(name, {}) == found
            likeness = model.identity.likeness.get(name, Likeness.IDENTICAL)
            assert likeness is (Likeness.SAME_FAMILY if found else Likeness.IDENTICAL)


@given(st.lists(fingerprints, min_size=1, max_size=6))
def test_what_it_was_at_first_is_what_is_trusted_and_being_so_again_restores_it(told: list[Fingerprint]) -> None:
    router = Router((make.endpoint("e"),), make.policy())
    model = router.endpoint("e")
    for seen in [*told, told[0]]:
        router.observe(Probed(endpoint="e", up=True, fingerprint=seen), 0.0)
        assert model.state.trusted is not None
        assert differs(model.state.trusted, told[0]) == ()


@given(fingerprints, fingerprints)
def test_learned_times_start_anew_exactly_where_other_weights_are_loaded(a: Fingerprint, b: Fingerprint) -> None:
    router = Router((make.endpoint("e"),), make.policy())
    model = router.endpoint("e")
    router.observe(Probed(endpoint="e", up=True, fingerprint=a), 0.0)
    request = make.request("slow")
    router.observe(make.started(request, "e"), 0.0)
    router.observe(make.ended("slow", "e", ttft_s=0.5, e2e_s=60.0, output_tokens=100), 0.0)
    router.observe(Probed(endpoint="e", up=True, fingerprint=b), 1.0)
    kept = not differs(a, b, OF_THE_SPEED)
    for latency, learned in ((model.timing.ttft, model.state.ttft), (model.timing.tpot, model.state.tpot)):
        assert learned is latency.learned
        assert (latency.learned.cells[0].weight > 0.0) is kept
        assert (latency.learned.promises[0].judged > 0.0) is kept
