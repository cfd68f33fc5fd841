"""Operators' rules: what holds of a request, and what decisions make of it."""

from typing import Any

import msgspec
import pytest

from tests import make
from tests.core.test_hold import base
from tidegate.core.base import Base
from tidegate.core.condition import All, Comparison, Condition, Not, Some, Value, holds
from tidegate.core.hold import schedule
from tidegate.core.model import Capability, Held, Overrides, Price, Probed, Request, Ruling, Slo, Wait, replace
from tidegate.core.resume import PASSED_OVER, narrowed
from tidegate.core.ruled import barred_by, break_usd, class_ruling, rulings
from tidegate.core.ruling import Rule
from tidegate.core.starts import Pool, item
from tidegate.core.why import Why

LONG = Comparison(feature="prompt_tokens", op=">", value=1000)
BATCH = Comparison(feature="class", op="==", value="batch")
TO_CLOUD = Ruling(rule="long", to=("cloud",))
RATHER_CLOUD = Ruling(rule="rather", to=("cloud",), break_usd=1.0)


def asked(**features: Value | None) -> dict[str, Value | None]:
    return features


@pytest.mark.parametrize(
    ("op", "value", "true", "false"),
    [
        ("<", 5, 4, 5),
        ("<=", 5, 5, 6),
        (">", 5, 6, 5),
        (">=", 5.5, 6, 5),
        ("==", "m", "m", "n"),
        ("!=", True, False, True),
        ("in", ("m", "n"), "n", "o"),
        ("has", "vision", (Capability.CHAT, Capability.VISION), (Capability.CHAT,)),
    ],
)
def test_a_comparison_holds_where_it_is_true_and_never_of_what_is_not_known(
    op: str, value: Value, true: Value, false: Value
) -> None:
    one = Comparison(feature="f", op=op, value=value)
    assert holds(one, asked(f=true))
    assert not holds(one, asked(f=false))
    assert not holds(one, asked(f=None))
    assert not holds(one, asked())


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_and_or_and_not_mean_what_they_say(first: bool, second: bool) -> None:
    both: tuple[Condition, ...] = tuple(Comparison(feature=name, op="==", value=True) for name in ("a", "b"))
    observed = asked(a=first, b=second)
    assert holds(All(of=both), observed) == (first and second)
    assert holds(Some(of=both), observed) == (first or second)
    assert holds(Not(of=both[0]), observed) == (not first)


def test_the_first_rule_that_holds_and_is_allowed_gives_the_class() -> None:
    named = [Rule(when=LONG, says=Ruling(rule=name, klass=name)) for name in ("archive", "batch", "late")]
    named = [Rule(when=BATCH, says=Ruling(rule="never", klass="batch")), Rule(when=LONG, says=TO_CLOUD), *named]
    observed = asked(prompt_tokens=2000)
    assert class_ruling(named, observed, {"batch", "late"}) == Ruling(rule="batch", klass="batch")
    assert class_ruling(named, asked(prompt_tokens=10), {"batch", "late"}) is None
    assert class_ruling(named, observed, {"none"}) is None


def test_all_rules_that_hold_say_where_it_goes() -> None:
    written = [
        Rule(when=LONG, says=TO_CLOUD),
        Rule(when=LONG, says=Ruling(rule="class", klass="batch")),
        Rule(when=BATCH, says=Ruling(rule="batch", to=("desk",))),
        Rule(when=Not(of=BATCH), says=RATHER_CLOUD),
    ]
    observed: dict[str, Value | None] = {"prompt_tokens": 2000, "class": "chat"}
    assert rulings(written, observed) == (TO_CLOUD, RATHER_CLOUD)


def test_hard_rules_narrow_each_other_and_soft_ones_add_up() -> None:
    said = (TO_CLOUD, Ruling(rule="two", to=("cloud", "desk")), RATHER_CLOUD, replace(RATHER_CLOUD, break_usd=0.5))
    assert [barred_by(said, name) for name in ("cloud", "desk", "lap")] == ["", "long", "long"]
    assert barred_by(said[1:], "lap") == "two"
    assert [break_usd(said, name) for name in ("cloud", "lap")] == [0.0, 1.5]


def test_a_request_without_rules_writes_the_line_that_it_always_wrote() -> None:
    assert b"ruling" not in msgspec.json.encode(make.request())
    ruled = make.request(rulings=(TO_CLOUD, RATHER_CLOUD, Ruling(rule="c", klass="batch")))
    assert msgspec.json.decode(msgspec.json.encode(ruled), type=Request) == ruled


def test_a_hard_rule_sends_a_request_where_it_says_and_nowhere_else() -> None:
    decision = make.router().decide(make.request(rulings=(TO_CLOUD,)), 0.0)
    assert [step.endpoint for step in decision.plan] == ["cloud"]
    assert decision.why is Why.ONLY_RULED


def test_where_all_of_a_hard_rule_is_down_the_request_is_refused_until_it_is_up() -> None:
    router = make.router()
    router.observe(Probed(endpoint="cloud", up=False), 0.0)
    decision = router.decide(make.request(rulings=(TO_CLOUD,)), 0.0)
    assert (decision.plan, decision.why) == ((), Why.DOWN)
    assert decision.retry_after_s is not None


def test_where_all_of_a_hard_rule_is_full_the_request_waits_there() -> None:
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False, concurrency=1))
    router.observe(make.started(make.request("before"), "cloud"), 0.0)
    decision = router.decide(make.request(rulings=(TO_CLOUD,)), 0.0)
    assert isinstance(decision.plan[0], Wait)
    assert decision.plan[0].endpoint == "cloud"


def test_rules_that_leave_nothing_refuse_for_good() -> None:
    decision = make.router().decide(make.request(rulings=(TO_CLOUD, Ruling(rule="two", to=("laptop",)))), 0.0)
    assert (decision.plan, decision.why, decision.retry_after_s) == ((), Why.RULED_OUT, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"residency": "local"}, Why.MUST_STAY_LOCAL),
        ({"needs": (Capability.TOOLS,)}, Why.LACKS_CAPABILITY),
    ],
)
def test_residency_and_capabilities_stand_above_every_rule(changes: dict[str, Any], why: Why) -> None:
    router = make.router()
    found = {c.endpoint: c for c in router.candidates(make.request(rulings=(TO_CLOUD,), **changes), 0.0)}
    assert (found["cloud"].excluded, found["cloud"].rule) == (why, "")


def test_the_static_rule_knows_what_is_hard() -> None:
    router = make.router()
    router.observe(Overrides(static=True), 0.0)
    assert [s.endpoint for s in router.decide(make.request(rulings=(TO_CLOUD,)), 0.0).plan] == ["cloud"]


def test_a_soft_rule_moves_what_is_worth_less_than_it_and_says_so() -> None:
    router = make.router()
    free, ruled = make.request(), make.request(rulings=(RATHER_CLOUD,))
    assert router.decide(free, 0.0).plan[0].endpoint == "laptop"
    decision = router.decide(ruled, 0.0)
    assert decision.plan[0].endpoint == "cloud"
    assert decision.why is Why.RULE_DECIDES
    found = {c.endpoint: c.contributions_usd for c in router.candidates(ruled, 0.0)}
    assert found["laptop"]["rule"] == -1.0
    assert "rule" not in found["cloud"]
    assert "rule" not in router.candidates(free, 0.0)[0].contributions_usd


def test_a_soft_rule_that_is_dearer_to_keep_than_to_break_is_broken() -> None:
    cheap = make.request(rulings=(replace(RATHER_CLOUD, break_usd=1e-6),))
    decision = make.router().decide(cheap, 0.0)
    assert decision.plan[0].endpoint == "laptop"
    assert decision.why is Why.CHEAPEST_ON_TIME


def test_a_soft_rule_decides_about_what_waits_too() -> None:
    """The laptop is taken: free of rules the request waits for it, and where that breaks one it goes away."""
    router = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
    router.observe(make.started(make.request("before"), "laptop"), 0.0)
    slow = Slo(ttft_s=60.0)
    assert isinstance(router.decide(make.request(slo=slow), 0.0).plan[0], Wait)
    decision = router.decide(make.request(slo=slow, rulings=(RATHER_CLOUD,)), 0.0)
    assert decision.plan[0].endpoint == "cloud"
    assert decision.why is Why.RULE_DECIDES
    stays = Ruling(rule="rather-home", to=("laptop",), break_usd=1.0)
    late = Slo(ttft_s=0.5)
    assert router.decide(make.request(slo=late), 0.0).plan[0].endpoint == "cloud"
    assert isinstance(router.decide(make.request(slo=late, rulings=(stays,)), 0.0).plan[0], Wait)


def test_what_waits_is_let_go_by_its_rules_and_not_against_them() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
    router.observe(make.started(make.request("before"), "laptop"), 0.0)
    waiting = make.request("w", slo=Slo(ttft_s=1.0), rulings=(Ruling(rule="home", to=("laptop",)),))
    decision = router.decide(waiting, 0.0)
    assert isinstance(decision.plan[0], Wait)
    router.observe(Held(request=waiting), 0.0)
    for now_s in (0.5, 2.0, 60.0):
        assert all(step.endpoint == "laptop" for step in router.decide(waiting, now_s).plan)


def seat(**rule_usd: float) -> str:
    """Where two of our own are free, one quicker: which one is the request's."""
    request = make.request("w", rulings=(RATHER_CLOUD,))
    own: dict[str, Base] = {"a": base(first_s=2.0), "b": base(first_s=1.0)}
    for name, usd in rule_usd.items():
        own[name].rule_usd = usd
    pools = {name: Pool([0.0]) for name in own}
    return schedule([item(request, 0.01, own)], pools, {}, lambda _: [], 0.0)["w"].endpoint


def test_of_our_own_it_waits_for_the_quickest_unless_rules_make_another_worth_more() -> None:
    assert seat() == "b"
    assert seat(a=1.0, b=1.0) == "b"
    assert seat(b=1.0) == "a"


def test_a_hedge_that_breaks_a_rule_has_to_be_worth_that() -> None:
    quick = make.endpoint("cloud", local=False, price=Price(), prior=replace(make.REMOTE_PRIOR, sigma=0.1))
    router = make.router(make.endpoint("laptop"), quick)
    free = router.decide(make.request(), 0.0).plan[0]
    assert getattr(free, "cutover_s", None) is not None
    home = Ruling(rule="home", to=(free.endpoint,), break_usd=1.0)
    ruled = router.decide(make.request(rulings=(home,)), 0.0).plan[0]
    assert (ruled.endpoint, getattr(ruled, "cutover_s", None)) == (free.endpoint, None)


def test_who_could_not_be_sent_to_everybody_is_decided_among_the_others_as_long_as_that_is_so() -> None:
    router = make.router(make.endpoint("desk"), make.endpoint("cloud", local=False))
    ruled = replace(make.request("r"), rulings=(Ruling(rule="both", to=("desk", "cloud")),))
    less = narrowed(ruled, ("cloud",))
    assert [step.endpoint for step in router.decide(less, 0.0).plan] == ["cloud"]
    assert [one.rule for one in less.rulings] == ["both", PASSED_OVER]
    assert narrowed(less, ("cloud",)) is less
    assert narrowed(less, ("desk",)).rulings[-1].to == ("desk",)
    assert narrowed(less, None) == ruled
    assert narrowed(ruled, None) is ruled
