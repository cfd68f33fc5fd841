"""A target for attainment in the file: instead of a worth, and never beside it."""

from pathlib import Path

import pytest

from tests.config.test_malformed import problems_of
from tests.config.test_rules import BASE, built
from tidegate.core.model import RequestClass


def said(klass: RequestClass) -> tuple[float | None, float, float]:
    return klass.attainment, klass.worth_usd, klass.worth_usd_per_1k_tokens


def test_with_a_target_worth_is_ten_times_the_usual_at_most_or_what_is_said() -> None:
    classes = built(
        "[class.interactive]\nattainment = 0.95\n",
        "[class.dear]\nattainment = 0.99\nworth_factor_max = 50\nlate_usd_per_s = 0.001\n",
    ).classes
    assert said(classes["interactive"]) == (0.95, 0.02, 0.04)
    assert classes["interactive"].late_usd_per_s == 0.005
    assert said(classes["dear"]) == (0.99, 0.1, 0.2)
    assert classes["dear"].late_usd_per_s == 0.05


def test_without_a_target_classes_are_what_they_were() -> None:
    assert said(built().classes["interactive"]) == (None, 0.002, 0.004)


def test_what_a_class_writes_itself_goes_before_what_it_takes_over() -> None:
    classes = built(
        "[class.interactive]\nattainment = 0.95\nworth_factor_max = 20\n",
        "[class.mine]\nslo = { ttft_ms = 700 }\n",
        "[class.told]\nworth_usd = 0.5\n",
        "[class.late]\nlike = 'told'\nattainment = 0.8\n",
        "[class.later]\nlike = 'late'\nworth_factor_max = 2\n",
        "[class.cheap]\nlike = 'batch'\nattainment = 0.7\n",
    ).classes
    assert {name: said(one) for name, one in classes.items()} == {
        "interactive": (0.95, 0.04, 0.08),
        "mine": (0.95, 0.04, 0.08),
        "told": (None, 0.5, 0.004),
        "late": (0.8, 0.02, 0.04),
        "later": (0.8, 0.004, 0.008),
        "cheap": (0.7, 0.02, 0.04),
        # What has a worth of its own keeps it.
        "batch": (None, 0.0005, 0.001),
    }


WRONG = [
    (
        "attainment = 0.9\nworth_usd = 0.1\n",
        "class.a.attainment",
        "there is `worth_usd` too",
        "remove `attainment`, or",
    ),
    (
        "attainment = 0.9\nworth_usd = 0.1\nworth_usd_per_1k_tokens = 0\n",
        "class.a.attainment",
        "with a target worth is learned",
        "`worth_usd` and `worth_usd_per_1k_tokens`",
    ),
    ("attainment = 0.4\n", "class.a.attainment", "0.4 is not a number from 0.5 to 0.999", "share of promises"),
    ("attainment = 1\n", "class.a.attainment", "1 is not a number", "share of promises"),
    ("worth_factor_max = 5\n", "class.a.worth_factor_max", "there is none", "set attainment"),
    ("attainment = 0.9\nworth_factor_max = 0.5\n", "class.a.worth_factor_max", "0.5 is not a number from 1", "most"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), WRONG)
def test_what_contradicts_itself_is_refused_with_its_place_and_a_remedy(
    tmp_path: Path, text: str, path: str, message: str, remedy: str
) -> None:
    (problem,) = problems_of(tmp_path, BASE + "[class.a]\n" + text)
    assert problem.path == path
    assert message in problem.message
    assert remedy in problem.remedy


def test_both_in_one_class_are_said_once_and_not_of_those_that_are_like_it(tmp_path: Path) -> None:
    text = "[class.a]\nattainment = 0.9\nworth_usd = 1\n[class.b]\nlike = 'a'\n"
    assert [p.path for p in problems_of(tmp_path, BASE + text)] == ["class.a.attainment"]
