"""What another policy makes of requests that have come: what they took from their class follows it, and no more."""

from pathlib import Path

import pytest

from tests import make as core
from tidegate.config.problem import ConfigError
from tidegate.core.model import Request, Slo
from tidegate.core.resume import PASSED_OVER, narrowed
from tidegate.sim.changed import Changed, changed

ENDPOINTS = (core.endpoint("desk"), core.endpoint("cloud", local=False))
USUAL = [
    core.request(f"r{number}", klass="interactive/short", slo=Slo(ttft_s=2.0), worth_usd=0.01) for number in range(5)
]


def of(tmp_path: Path, text: str, requests: list[Request] = USUAL) -> Changed:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return changed(file, core.policy(held_max=7), ENDPOINTS, requests)


def test_what_a_file_does_not_say_stays(tmp_path: Path) -> None:
    found = of(tmp_path, "")
    assert found.policy == core.policy(held_max=7)
    assert found(USUAL[0]) == USUAL[0]


def test_the_policys_settings_are_those_of_the_file(tmp_path: Path) -> None:
    found = of(tmp_path, "[policy]\nattempts_max = 1\n")
    assert found.policy.attempts_max == 1
    # A table is whole: what it leaves out is as by default.
    assert found.policy.held_max != 7


def test_who_says_nothing_follows_the_class_and_who_says_something_keeps_it(tmp_path: Path) -> None:
    own = core.request("own", klass="interactive/short", slo=Slo(ttft_s=0.5), worth_usd=0.01)
    found = of(tmp_path, "[class.interactive]\nslo = { ttft_ms = 900 }\nworth_usd = 0.5\n", [*USUAL, own])
    assert (found(USUAL[0]).slo, found(USUAL[0]).worth_usd) == (Slo(ttft_s=0.9), 0.5)
    assert (found(own).slo, found(own).worth_usd) == (Slo(ttft_s=0.5), 0.5)
    assert found(own).id == "own"


def test_a_class_that_is_not_in_the_file_stays_as_it_was(tmp_path: Path) -> None:
    found = of(tmp_path, "[class.batch]\nworth_usd = 0.5\n")
    assert found(USUAL[0]) == USUAL[0]


def test_where_data_may_go_stays(tmp_path: Path) -> None:
    local = [core.request(f"l{number}", klass="interactive/short", residency="local") for number in range(9)]
    found = of(tmp_path, "[class.interactive]\nworth_usd = 0.5\n", local)
    assert found(local[0]).residency == local[0].residency


def test_rules_are_asked_of_each_request_again(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "long"\nwhen = "prompt_tokens > 1000"\nto = ["cloud"]\n'
    found = of(tmp_path, rule)
    long = core.request("long", prompt_tokens=2_000)
    assert found(USUAL[0]).rulings == ()
    # What could not be sent to everybody still cannot be.
    assert [one.rule for one in found(narrowed(long, ("desk",))).rulings] == ["long", PASSED_OVER]
    (ruling,) = found(long).rulings
    assert (ruling.rule, ruling.to) == ("long", ("cloud",))


@pytest.mark.parametrize("name", ["interactive", "batch", "nightly"])
def test_a_rule_may_ask_for_any_class_that_there_is_also_where_the_file_has_none(tmp_path: Path, name: str) -> None:
    one = core.request("one", klass=f"{name}/short")
    night = core.request("night", klass="nightly/short")
    found = of(tmp_path, f'[[rule]]\nname = "away"\nwhen = \'class == "{name}"\'\nto = ["cloud"]\n', [night, *USUAL])
    assert [ruling.rule for ruling in found(one).rulings] == ["away"]


def test_a_rule_may_ask_who_had_his_answer_streamed(tmp_path: Path) -> None:
    found = of(tmp_path, '[[rule]]\nname = "whole"\nwhen = "not stream"\nto = ["cloud"]\n')
    whole = core.request("whole", stream=False)
    assert found(core.request("streamed")).rulings == ()
    assert [ruling.rule for ruling in found(whole).rulings] == ["whole"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policy]\nheld_maxx = 1\n", "held_max"),
        (
            '[[rule]]\nname = "a"\nwhen = "prompt_tokens > 1"\nclass = "batch"\n',
            "which requests named none",
        ),
        ('[[rule]]\nname = "a"\nwhen = "prompt_tokens > 1"\nto = ["nowhere"]\n', "no endpoint or site `nowhere`"),
        ("[endpoint.desk]\n", "endpoint"),
        ("[class.interactive]\nworth_usd = -1\n", "worth_usd"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        of(tmp_path, text)
    assert any(said in f"{one.path} {one.message} {one.remedy}" for one in raised.value.problems)
