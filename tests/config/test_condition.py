"""What a rule may say, and what it may not: nothing that is written there is ever run."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.condition import DEPTH_MAX, FEATURES, TEXT_MAX, ConditionError, condition, one_of
from tidegate.core.condition import All, Comparison, Condition, Features, Not, Some, holds
from tidegate.core.model import Capability

KNOWN = {
    "class": one_of({"interactive", "batch"}),
    "model": one_of({"small", "large"}),
    "needs": one_of([one.value for one in Capability]),
}
LONG: dict[str, Any] = {
    "prompt_tokens": 40_000,
    "output_tokens_max": None,
    "completions": 1,
    "class": "batch",
    "model": "small",
    "key": "",
    "session": False,
    "stream": True,
    "needs": (Capability.CHAT, Capability.VISION),
}
SHORT: dict[str, Any] = LONG | {"prompt_tokens": 10, "output_tokens_max": 100, "class": "interactive", "stream": False}


def read(text: str) -> Condition:
    return condition(text, KNOWN)


def refused(text: str) -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        read(text)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("text", "of_long", "of_short"),
    [
        ("prompt_tokens > 32768", True, False),
        ("32768 < prompt_tokens", True, False),
        ("prompt_tokens >= 40000 ", True, False),
        ("prompt_tokens <= 10.5", False, True),
        ("100 < prompt_tokens < 50_000", True, False),
        ("prompt_tokens == 10", False, True),
        ("prompt_tokens in [10, 11]", False, True),
        ('class == "batch"', True, False),
        ("class == 'batch'", True, False),
        ('"batch" == class', True, False),
        ('class != "batch"', False, True),
        ('class in ["batch", "interactive"]', True, True),
        ('class not in ("batch",)', False, True),
        ('model == "small"', True, True),
        ('"vision" in needs', True, True),
        ('"audio" in needs', False, False),
        ('"audio" not in needs', True, True),
        ("stream", True, False),
        ("not stream", False, True),
        ("stream == false", False, True),
        ("stream == true", True, False),
        ("true == stream", True, False),
        ("stream != True", False, True),
        ("session or prompt_tokens < 11", False, True),
        ('key == ""', True, True),
        ("output_tokens_max == 100", False, True),
        # What a request says nothing of is neither like nor unlike anything.
        ("output_tokens_max != 7", False, True),
        ("output_tokens_max not in [7, 8]", False, True),
        ("not output_tokens_max == 100", True, False),
        ('prompt_tokens > 5 and class == "batch" or stream == false', True, True),
        ('prompt_tokens > 5 and (class == "batch" or stream == false)', True, True),
        ('\n  prompt_tokens > 5\n  and class == "batch"\n', True, False),
    ],
)
def test_what_is_written_means_what_it_says(text: str, of_long: bool, of_short: bool) -> None:
    made = read(text)
    assert (holds(made, LONG), holds(made, SHORT)) == (of_long, of_short)


def test_a_word_in_quotes_is_only_text() -> None:
    made = condition('model == "first class #1 klass"', {})
    assert made == Comparison(feature="model", op="==", value="first class #1 klass")


# What is written, what is said about it, and what of the remedy.
MEANINGLESS = [
    ("prompt_token > 5", "character 1: nothing of a request is called `prompt_token`", "did you mean `prompt_tokens`?"),
    ("  stream and promt > 5", "character 14: nothing of a request is called `promt`", ""),
    ("klass == 'batch'", "character 1: nothing of a request is called `klass`", "`class`"),
    ('prompt_tokens == "x"', "character 18: `prompt_tokens` is never this: it is a number", "a number"),
    ("prompt_tokens > true", "is never this", "a number"),
    ("prompt_tokens > None", "is never this", "a number"),
    ("prompt_tokens in [1, 'x']", "is never this", "a number"),
    ("prompt_tokens > 1j", "is never this", "a number"),
    ("class == 5", "it is text in quotes", "text in quotes"),
    ('class == b"batch"', "it is text in quotes", ""),
    ("class == batch", "character 10: `batch` is no value", "quotes"),
    ('class == "bach"', "character 10: `class` is never `bach`", "did you mean `batch`?"),
    ('class == "none"', "`class` is never `none`", "known are: `batch`, `interactive`"),
    ('class in ["batch", "bach"]', "character 20: `class` is never `bach`", "`batch`"),
    ('model == "smal"', "`model` is never `smal`", "`small`"),
    ('"visoin" in needs', "`needs` is never `visoin`", "`vision`"),
    ('class > "batch"', "`class` has no more and no less", "=="),
    ("stream > false", "`stream` has no more and no less", "=="),
    ("stream == 1", "it is true or false", "true or false"),
    ('needs == "vision"', "`needs` is a list", '"vision" in needs'),
    ('needs in ["vision"]', "`needs` is a list", '"vision" in needs'),
    ('"batch" in class', "`class` is no list", "class =="),
    ("class in []", "no list of values", "list"),
    ('class in "batch"', "no list of values", "list"),
    ("prompt_tokens", "`prompt_tokens` alone is neither true nor false", "compare"),
    ("prompt_tokens > output_tokens_max", "`output_tokens_max` is no value", "value"),
    ("1 < 2", "two values are compared", "prompt_tokens"),
    ('"a" == "a"', "two values are compared", "prompt_tokens"),
    ("stream is true", "`is`", "=="),
    ("true", "nothing", ""),
    ("", "not a condition", "prompt_tokens"),
    ("prompt_tokens >", "not a condition", "prompt_tokens"),
    ("prompt_tokens > 5 &&  stream", "character 20: this is not a condition", ""),
    ("prompt_tokens = 5", "not a condition", ""),
    ("stream # and more", "character 8: it holds a comment", ""),
    ("prompt_tokens > 5; stream", "not a condition", ""),
    ("prompt_tokens > -5", "nothing that a rule may say", ""),
    ("prompt_tokens + 1 > 5", "nothing that a rule may say", ""),
    ("prompt_tokens > 5 if stream else false", "nothing that a rule may say", ""),
]


@pytest.mark.parametrize(("text", "message", "remedy"), MEANINGLESS)
def test_what_means_nothing_is_refused_with_its_place_and_a_remedy(text: str, message: str, remedy: str) -> None:
    error = refused(text)
    assert message in error.message
    assert remedy in error.remedy


HOSTILE = [
    "__import__('os').system('true')",
    "prompt_tokens.__class__ == 5",
    "__class__ == 'x'",
    "prompt_tokens.real > 5",
    "open('x')",
    "needs[0] == 'x'",
    "(lambda: true)()",
    "[x for x in needs]",
    "'batch' in [class for class in needs]",
    "(stream := true)",
    "f'{prompt_tokens}' == 'x'",
    'class == f"batch"',
    "await stream",
    "yield",
    "*needs",
    "{**needs}",
    "class in {'batch'}",
    "stream or ...",
    "import os",
    "stream\x00",
    "stream\ttrue",
    "\\u0073tream",
    'class == "\\x62atch"',
    "\u017ftream",
    "\uff53tream",
    "class == 'b\u0430tch'",
    "stream == 1is 1",
    "0x1for x in y",
    "9" * 900 + " > prompt_tokens > " + "x" * 50,
    "(" * 400 + "stream" + ")" * 400,
    "not " * 240 + "stream",
    "-" * 900 + "1 > prompt_tokens",
    "[" * 400 + "]" * 400 + " == prompt_tokens",
    "stream and " * 200 + "stream",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_hostile_is_refused_like_what_is_wrong(text: str) -> None:
    refused(text)


def test_it_is_nested_as_deep_as_somebody_can_tell_what_it_says() -> None:
    deep = "not " * (DEPTH_MAX - 1) + "stream"
    assert holds(read(deep), LONG) is (DEPTH_MAX % 2 == 1)
    assert f"more than {DEPTH_MAX} deep" in refused("not " + deep).message


def test_it_is_as_long_as_a_few_lines() -> None:
    assert holds(read("stream" + " " * (TEXT_MAX - 6)), LONG)
    assert "longer" in refused("stream" + " " * (TEXT_MAX - 5)).message


def test_a_rule_that_gives_the_class_cannot_ask_for_it() -> None:
    with pytest.raises(ConditionError, match="`class` is what this rule decides"):
        condition('class == "batch"', {}, [name for name in FEATURES if name != "class"])


@pytest.mark.lengthy
@given(st.text(max_size=60) | st.text(st.sampled_from("stream class()[]<>=!'\" andornti.,:_0123456789"), max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConditionError):
        holds(condition(text, KNOWN), LONG)


LEAVES = st.sampled_from(
    ["stream", "session", "prompt_tokens > 100", "prompt_tokens <= 10", 'class == "batch"', 'model in ["small"]',
     '"audio" in needs', "output_tokens_max < 200", "10 <= prompt_tokens < 50000"]
)  # fmt: skip
TEXTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
    ),
    max_leaves=8,
)


def worded(one: Condition) -> str:
    """The condition written out again."""
    match one:
        case Comparison(feature=feature, op="has", value=value):
            return f'"{value}" in {feature}'
        case Comparison(feature=feature, op=op, value=value):
            shown = f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else repr(value)
            return f"{feature} {op} {shown}"
        case Not(of=of):
            return f"not ({worded(of)})"
        case All(of=parts):
            return " and ".join(f"({worded(part)})" for part in parts)
        case Some(of=parts):
            return " or ".join(f"({worded(part)})" for part in parts)


@given(TEXTS, st.sampled_from([LONG, SHORT]))
def test_a_condition_written_out_again_is_the_same(text: str, observed: Features) -> None:
    made = read(text)
    assert read(worded(made)) == made
    assert holds(read(f"not ({text})"), observed) is not holds(made, observed)
