"""Classes that are like others, and operators' rules, as they stand in the file."""

from pathlib import Path
from typing import Any

import pytest

from tests.config.test_malformed import GOOD, THEIRS, problems_of
from tidegate.config.build import Built, build
from tidegate.config.config import Config
from tidegate.config.diff import diff, without_restart
from tidegate.config.load import load_unreached, parse
from tidegate.core.condition import Comparison
from tidegate.core.model import Ruling, Slo
from tidegate.core.ruling import Rule
from tidegate.state.keys import KeyFile, new_id

BASE = GOOD + THEIRS + "price = 'free'\n"
LONG = "[[rule]]\nname = 'long'\nwhen = 'prompt_tokens > 32768'\nto = ['theirs']\n"
NIGHT = "[[rule]]\nname = 'night'\nwhen = 'stream == false'\nclass = 'batch'\n"


def config(*tables: str) -> Config:
    return parse(BASE + "".join(tables), "tidegate.toml", {})


def built(*tables: str) -> Built:
    return build(config(*tables), 0.0)


def rule(**settings: Any) -> str:
    """A rule that is good, but for these settings; None leaves one out."""
    lines = {"name": "'r'", "when": "'stream'", "to": "['theirs']"} | settings
    return "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)


# --- rules ------------------------------------------------------------------------------------------------------


def test_rules_are_built_in_their_order_with_sites_as_their_endpoints() -> None:
    here = rule(to="['home', 'theirs']", break_usd=0.01)
    long = Comparison(feature="prompt_tokens", op=">", value=32768)
    assert built(LONG, NIGHT, here).rules == (
        Rule(when=long, says=Ruling(rule="long", to=("theirs",))),
        Rule(when=Comparison(feature="stream", op="==", value=False), says=Ruling(rule="night", klass="batch")),
        Rule(
            when=Comparison(feature="stream", op="==", value=True),
            says=Ruling(rule="r", to=("mine", "theirs"), break_usd=0.01),
        ),
    )


def test_without_rules_there_are_none() -> None:
    assert built().rules == ()


WRONG = [
    ("[rule]\nname = 'r'\n", "rule", "no list of at most 64", "[[rule]]"),
    (rule() * 65, "rule", "no list of at most 64", "[[rule]]"),
    (rule(name=None), "rule[0]", "`name` is missing", "text"),
    (rule(when=None), "rule[0]", "`when` is missing", "text"),
    (rule(then="'x'"), "rule[0].then", "no such setting", "`when`"),
    (rule(name="'Not A Name'"), 'rule."Not A Name".name', "cannot be a metric label", "lower-case"),
    (rule(name=None) + rule() + rule(), "rule.r.name", "two rules are called `r`", "its own"),
    (rule(to=None), "rule.r", "it says nothing", "class ="),
    (rule(to="[]"), "rule.r", "it says nothing", "class ="),
    (rule(**{"class": "'batch'"}), "rule.r", "gives a class and says where to go", "two rules"),
    (rule(to=None, **{"class": "'bach'"}), "rule.r.class", "no class `bach`", "`batch`"),
    (rule(to=None, break_usd=1, **{"class": "'batch'"}), "rule.r.break_usd", "no `to`", "remove"),
    (rule(break_usd=0), "rule[0].break_usd", "0 is not a number from", "preference"),
    (rule(break_usd=1001), "rule[0].break_usd", "1001 is not a number from", "preference"),
    (rule(to="['thiers']"), "rule.r.to", "no endpoint or site `thiers`", "`theirs`"),
    (rule(to="['empty']") + "[site.empty]\nlocal = false\n", "rule.r.to", "no endpoint stands at `empty`", "another"),
    (rule(when="'promt_tokens > 5'"), "rule.r.when", "character 1", "`prompt_tokens`"),
    (rule(when="'class == \"bach\"'"), "rule.r.when", "character 10: `class` is never `bach`", "`batch`"),
    (rule(when="'model == \"n\"'"), "rule.r.when", "character 10: `model` is never `n`", "`m`"),
    (rule(when="'key == \"alice-0123abcd\"'"), "rule.r.when", "character 8: `key` is never", "`gateway.keys`"),
    (
        rule(to=None, when="'class == \"batch\"'", **{"class": "'batch'"}),
        "rule.r.when",
        "what this rule decides",
        "else",
    ),
    (rule(when="'" + "x" * 1001 + "'"), "rule[0].when", "this text is not text", "Of which requests"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), WRONG)
def test_a_rule_that_means_nothing_is_refused_with_its_place_and_a_remedy(
    tmp_path: Path, text: str, path: str, message: str, remedy: str
) -> None:
    found = [p for p in problems_of(tmp_path, BASE + text) if p.path == path and message in p.message]
    assert found
    assert remedy in found[0].remedy


@pytest.mark.parametrize("when", ['key == "{}"', 'key != "{}"', '"{}" == key', 'key in ["alice-0123abcd", "{}"]'])
def test_a_key_is_named_by_its_id(tmp_path: Path, when: str) -> None:
    KeyFile(tmp_path / "keys.db", write=True).close()
    keyed = "[gateway]\nkeys = 'keys.db'\n" + BASE
    for other in ("alice", "alice-0123ABCD", "-0123abcd", "alice-0123abcd "):
        (problem,) = problems_of(tmp_path, keyed + rule(when=f"'{when.format(other)}'"))
        assert (problem.path, f"`key` is never `{other}`" in problem.message) == ("rule.r.when", True)
        assert "`tidegate keys list`" in problem.remedy
    for good in ("alice-0123abcd", "team-a-00000000", new_id("bob"), ""):
        parse(keyed + rule(when=f"'{when.format(good)}'"), str(tmp_path / "tidegate.toml"), {})


def test_what_others_call_their_keys_is_up_to_them(tmp_path: Path) -> None:
    """A simulated world and another gateway's log have keys of their own."""
    file = tmp_path / "tidegate.toml"
    file.write_text(BASE + rule(when="'key == \"alice\"'"))
    assert load_unreached(file).rules


def test_a_name_that_is_an_endpoint_and_a_site_has_to_be_told_apart(tmp_path: Path) -> None:
    twin = "[endpoint.cloud]\nsite = 'home'\nengine = 'fake'\nurl = 'http://h'\nserves = ['m']\n" + rule(to="['cloud']")
    (problem,) = problems_of(tmp_path, BASE + twin)
    assert (problem.path, problem.message) == ("rule.r.to", "`cloud` is an endpoint and a site")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = problems_of(tmp_path, BASE + rule(when="'streem'") + rule(name="'s'", when="'sesion'", to="['x']"))
    assert [p.path for p in found] == ["rule.r.when", "rule.s.when", "rule.s.to"]


def test_a_changed_rule_is_a_difference_that_needs_no_restart() -> None:
    before, after = config(LONG, NIGHT), config(LONG.replace("32768", "8192"), NIGHT)
    (change,) = diff(before, after)
    assert (change.path, change.before, change.after) == (
        "rule.long.when",
        "prompt_tokens > 32768",
        "prompt_tokens > 8192",
    )
    assert not change.at_restart
    assert without_restart(before, after).rules == after.rules


def test_a_rule_that_is_new_or_in_another_place_is_a_difference() -> None:
    assert [change.path for change in diff(config(LONG), config(LONG, NIGHT))] == ["rule.night"]
    (change,) = diff(config(LONG, NIGHT), config(NIGHT, LONG))
    assert (change.path, change.before, change.after) == ("rule", ["long", "night"], ["night", "long"])
    both = diff(config(LONG, NIGHT), config(NIGHT, LONG, LONG.replace("'long'", "'longer'")))
    assert [change.path for change in both] == ["rule", "rule.longer"]


# --- classes ----------------------------------------------------------------------------------------------------


def test_a_class_has_what_it_leaves_out_from_the_one_that_it_is_like() -> None:
    classes = built(
        "[class.code]\nlike = 'batch'\nworth_usd = 0.5\n",
        "[class.review]\nlike = 'code'\nslo = { e2e_ms = 60000 }\nresidency = ['home']\n",
        "[class.late-review]\nlike = 'review'\n",
    ).classes
    batch, code, review, late = (classes[name] for name in ("batch", "code", "review", "late-review"))
    assert (code.slo, code.worth_usd, code.late_usd_per_s) == (batch.slo, 0.5, batch.late_usd_per_s)
    assert (review.slo, review.worth_usd, review.residency) == (Slo(e2e_s=60.0), 0.5, ("home",))
    assert (late.slo, late.worth_usd, late.residency) == (review.slo, 0.5, ("home",))


def test_a_class_that_is_like_none_is_like_interactive_as_it_is_configured() -> None:
    changed = "[class.interactive]\nslo = { ttft_ms = 700 }\nresidency = ['home']\n"
    classes = built(changed, "[class.mine]\nworth_usd = 1\n").classes
    assert (classes["mine"].slo, classes["mine"].residency) == (Slo(ttft_s=0.7), ("home",))
    # What has a promise of its own keeps it.
    assert classes["batch"].slo == Slo(e2e_s=300.0)
    assert classes["batch"].residency == ("home",)


def test_the_classes_that_exist_are_what_they_were() -> None:
    classes = built().classes
    assert (classes["interactive"].slo, classes["interactive"].worth_usd) == (Slo(ttft_s=2.0, tpot_s=0.15), 0.002)
    assert (classes["batch"].slo, classes["batch"].worth_usd) == (Slo(e2e_s=300.0), 0.0005)


def test_batch_is_like_another_class_where_that_is_written() -> None:
    classes = built(
        "[class.night]\nslo = { e2e_ms = 60000 }\nworth_usd = 0.5\n",
        "[class.batch]\nlike = 'night'\nlate_usd_per_s = 0.2\n",
        "[class.report]\nlike = 'batch'\n",
    ).classes
    for name in ("batch", "report"):
        assert (classes[name].slo, classes[name].worth_usd) == (Slo(e2e_s=60.0), 0.5)
        assert classes[name].late_usd_per_s == 0.2


def test_every_class_promises_something() -> None:
    empty = {"[class.a]\n", "[class.b]\nlike = 'batch'\n", "[class.c]\nlike = 'b'\nworth_usd = 0\n"}
    assert all(one.slo != Slo() for one in built(*sorted(empty)).classes.values())


LIKE = [
    ("[class.a]\nlike = 'bach'\n", "class.a.like", "no class `bach`", "`batch`"),
    ("[class.a]\nlike = 'a'\n", "class.a.like", "like itself", "another"),
    ("[class.a]\nlike = 'b'\n[class.b]\nlike = 'a'\n", "class.a.like", "like itself", "another"),
    ("[class.a]\nlike = 'b'\n[class.b]\nlike = 'a'\n", "class.b.like", "like itself", "another"),
    ("[class.batch]\nlike = 'b'\n[class.b]\nlike = 'batch'\n", "class.batch.like", "like itself", "another"),
    ("[class.interactive]\nlike = 'batch'\n", "class.interactive.like", "in the end", "remove"),
    ("[class.a]\nlike = 5\n", "class.a.like", "5 is not text", "class"),
    ("[class.a]\nlike = ['batch']\n", "class.a.like", "this list is not text", "class"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), LIKE)
def test_a_likeness_that_leads_nowhere_is_refused(
    tmp_path: Path, text: str, path: str, message: str, remedy: str
) -> None:
    (problem,) = [p for p in problems_of(tmp_path, BASE + text) if p.path == path]
    assert message in problem.message
    assert remedy in problem.remedy


def test_what_is_wrong_with_a_class_is_said_once_and_not_of_those_that_are_like_it(tmp_path: Path) -> None:
    text = "[class.a]\nworth_usd = -1\n[class.b]\nlike = 'a'\n[class.c]\nlike = 'b'\n"
    assert [p.path for p in problems_of(tmp_path, BASE + text)] == ["class.a.worth_usd"]


def test_who_is_like_one_of_a_circle_is_not_to_blame(tmp_path: Path) -> None:
    text = "[class.a]\nlike = 'b'\n[class.b]\nlike = 'a'\n[class.c]\nlike = 'a'\n[class.d]\nlike = 'c'\n"
    assert sorted(p.path for p in problems_of(tmp_path, BASE + text)) == ["class.a.like", "class.b.like"]
