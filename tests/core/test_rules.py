"""Hard rules, and the reasons they give."""

import pytest

from tests import make
from tidegate.core.model import Capability, Decision, Ended, Ending, Likeness, Price, Probed, Request, replace
from tidegate.core.router import Router
from tidegate.core.why import WHY_TEXT, Why


def decide(router: Router, request: Request, now_s: float = 0.0) -> Decision:
    return router.decide(request, now_s)


def test_every_reason_has_its_sentence() -> None:
    assert set(WHY_TEXT) == set(Why)


def test_a_request_that_must_stay_local_is_refused_rather_than_offloaded() -> None:
    router = make.router(make.endpoint("cloud", local=False))
    decision = decide(router, make.request(residency="local"))
    assert decision.plan == ()
    assert decision.why is Why.MUST_STAY_LOCAL
    assert decision.retry_after_s is None


def test_a_remote_site_that_calls_itself_local_is_still_remote() -> None:
    router = make.router(make.endpoint("cloud", local=False, site="local"))
    assert decide(router, make.request(residency="local")).plan == ()


@pytest.mark.parametrize("residency", [("eu",), ("eu", "local")])
def test_a_named_site_admits_its_endpoints(residency: tuple[str, ...]) -> None:
    router = make.router(make.endpoint("paris", local=False, site="eu"), make.endpoint("texas", local=False, site="us"))
    assert [s.endpoint for s in decide(router, make.request(residency=residency)).plan] == ["paris"]


def test_no_residency_at_all_admits_nothing() -> None:
    decision = decide(make.router(), make.request(residency=()))
    assert decision.why is Why.SITE_NOT_ALLOWED


def test_context_must_hold_prompt_and_output() -> None:
    router = make.router(make.endpoint(context_tokens=4_096))
    assert decide(router, make.request(prompt_tokens=4_000, output_tokens_max=96)).plan
    decision = decide(router, make.request(prompt_tokens=4_000, output_tokens_max=97))
    assert (decision.why, decision.retry_after_s) == (Why.CONTEXT_TOO_LONG, None)


@pytest.mark.parametrize("kind", [Capability.EMBEDDING, Capability.COMPLETION])
def test_of_several_prompts_each_has_a_window_of_its_own(kind: Capability) -> None:
    router = make.router(make.endpoint(context_tokens=8_192, capabilities=(kind,)))
    # In the mean, of which the longest has more: whether that fits, the engine says.
    several = make.request(needs=(kind,), prompts=40, completions=40, output_tokens_max=92)
    assert decide(router, replace(several, prompt_tokens=40 * 8_100)).plan
    decision = decide(router, replace(several, prompt_tokens=40 * 8_100 + 1))
    assert (decision.why, decision.retry_after_s) == (Why.CONTEXT_TOO_LONG, None)


def test_several_choices_after_one_prompt_have_all_of_it_in_their_windows() -> None:
    router = make.router(make.endpoint(context_tokens=8_192))
    assert decide(router, make.request(prompt_tokens=8_193, completions=4)).why is Why.CONTEXT_TOO_LONG


@pytest.mark.parametrize("least", list(Likeness))
def test_no_endpoint_is_less_alike_than_the_request_demands(least: Likeness) -> None:
    endpoints = [
        make.endpoint("a-far", local=False, likeness={"m": Likeness.SUBSTITUTE}),
        make.endpoint("b-near", local=False, likeness={"m": Likeness.SAME_FAMILY}),
        make.endpoint("c-same", local=False, likeness={"other": Likeness.SUBSTITUTE}),
    ]
    plan = make.router(*endpoints).decide(make.request(likeness=least), 0.0).plan
    allowed = {Likeness.IDENTICAL: "c", Likeness.SAME_FAMILY: "bc", Likeness.SUBSTITUTE: "abc"}[least]
    assert sorted(step.endpoint[0] for step in plan) == list(allowed)
    refused = make.router(*endpoints[:1]).decide(make.request(likeness=Likeness.IDENTICAL), 0.0)
    assert (refused.why, refused.retry_after_s) == (Why.NOT_ALIKE, None)


def test_probed_capabilities_replace_the_usual_ones() -> None:
    router = make.router(make.endpoint("laptop"))
    asked = make.request(needs=(Capability.CHAT, Capability.VISION))
    assert decide(router, asked).why is Why.LACKS_CAPABILITY
    router.observe(Probed(endpoint="laptop", up=True, capabilities=(Capability.CHAT, Capability.VISION)), 0.0)
    assert decide(router, asked).plan
    router.observe(Probed(endpoint="laptop", up=True), 1.0)
    assert decide(router, asked).plan


def test_a_probed_window_replaces_the_declared_one() -> None:
    router = make.router(make.endpoint("laptop", context_tokens=32_768))
    router.observe(Probed(endpoint="laptop", up=True, context_tokens=2_048), 0.0)
    assert decide(router, make.request(prompt_tokens=4_000)).why is Why.CONTEXT_TOO_LONG


def test_a_guess_of_the_outputs_length_prefers_a_longer_window_but_never_refuses() -> None:
    short, long = make.endpoint("laptop", context_tokens=4_096), make.endpoint("cloud", local=False)
    asked = make.request(prompt_tokens=4_000, output_tokens_max=None)
    assert [s.endpoint for s in decide(make.router(short, long), asked).plan] == ["cloud"]
    alone = make.router(short)
    assert [s.endpoint for s in decide(alone, asked).plan] == ["laptop"]
    assert alone.candidates(asked, 0.0)[0].excluded is None
    assert decide(alone, make.request(prompt_tokens=4_096, output_tokens_max=None)).why is Why.CONTEXT_TOO_LONG


def test_what_an_endpoint_cannot_do_it_is_not_asked() -> None:
    chat_only = make.endpoint("laptop")
    able = make.endpoint("cloud", local=False, capabilities=tuple(Capability))
    asked = make.request(needs=(Capability.CHAT, Capability.TOOLS))
    assert decide(make.router(chat_only), asked).why is Why.LACKS_CAPABILITY
    decision = decide(make.router(chat_only, able), asked)
    assert ([s.endpoint for s in decision.plan], decision.why) == (["cloud"], Why.ONLY_CAPABLE)


def test_a_cost_limit_counts_all_the_output_that_is_allowed() -> None:
    cloud = make.endpoint("cloud", local=False, price=Price(usd_per_output_token=1e-5))
    router = make.router(cloud)
    assert decide(router, make.request(output_tokens_max=100, cost_usd_max=0.001)).plan
    assert decide(router, make.request(output_tokens_max=101, cost_usd_max=0.001)).why is Why.OVER_MAX_COST
    assert decide(router, make.request(output_tokens_max=100, completions=2, cost_usd_max=0.001)).plan == ()


def test_a_cost_limit_counts_all_that_has_a_place_where_no_most_is_asked_for() -> None:
    cloud = make.endpoint("cloud", local=False, context_tokens=1_000, price=Price(usd_per_output_token=1e-5))
    router = make.router(cloud)
    assert decide(router, make.request(prompt_tokens=400, output_tokens_max=None, cost_usd_max=0.0061)).plan
    beyond = make.request(prompt_tokens=400, output_tokens_max=None, cost_usd_max=0.0059)
    assert decide(router, beyond).why is Why.OVER_MAX_COST
    brief = make.router(
        make.endpoint(
            "cloud", local=False, context_tokens=1_000, output_tokens_max=100, price=Price(usd_per_output_token=1e-5)
        )
    )
    assert decide(brief, make.request(prompt_tokens=400, output_tokens_max=None, cost_usd_max=0.0011)).plan


def test_a_cost_limit_counts_what_each_of_several_prompts_leaves_of_its_window() -> None:
    cloud = make.endpoint("cloud", local=False, context_tokens=1_000, price=Price(usd_per_output_token=1e-5))
    several = make.request(prompt_tokens=900, prompts=3, completions=3, output_tokens_max=None)
    # However long each is, together they leave 2,100 tokens.
    assert decide(make.router(cloud), replace(several, cost_usd_max=0.0211)).plan
    assert decide(make.router(cloud), replace(several, cost_usd_max=0.0209)).why is Why.OVER_MAX_COST
    twice = replace(several, completions=6)
    assert decide(make.router(cloud), replace(twice, cost_usd_max=0.0419)).why is Why.OVER_MAX_COST


def test_a_budget_counts_what_may_be_generated_however_short_an_answer_is_expected() -> None:
    cloud = make.endpoint("cloud", local=False, context_tokens=1_000, price=Price(usd_per_output_token=1e-5))
    unbounded = make.request(prompt_tokens=400, output_tokens_max=None)
    assert decide(make.router(cloud), replace(unbounded, budget_usd=0.0101)).plan
    assert decide(make.router(cloud), replace(unbounded, budget_usd=0.0099)).why is Why.OVER_BUDGET


def test_a_budget_counts_all_the_tokens_that_the_bytes_of_a_prompt_can_be() -> None:
    cloud = make.endpoint("cloud", local=False, context_tokens=1_000, price=Price(usd_per_input_token=1e-5))
    counted = make.request(prompt_tokens=100, prompt_tokens_most=500)
    assert decide(make.router(cloud), replace(counted, budget_usd=0.0051)).plan
    assert decide(make.router(cloud), replace(counted, budget_usd=0.0049)).why is Why.OVER_BUDGET
    images = replace(counted, prompt_tokens_most=2**31 - 1)
    assert decide(make.router(cloud), replace(images, budget_usd=0.0101)).plan, "no more than there is room for"
    several = replace(images, prompts=2)
    assert decide(make.router(cloud), replace(several, budget_usd=0.0199)).plan == (), "each has a window"


@pytest.mark.parametrize(("limit", "why"), [("budget_usd", Why.OVER_BUDGET), ("cost_usd_max", Why.OVER_MAX_COST)])
def test_nobody_generates_more_than_an_endpoint_does_whatever_is_asked_for(limit: str, why: Why) -> None:
    cloud = make.endpoint("cloud", local=False, output_tokens_max=100, price=Price(usd_per_output_token=1e-5))
    router = make.router(cloud)
    asked = make.request(output_tokens_max=5_000)
    assert decide(router, replace(asked, **{limit: 0.0011})).plan
    assert decide(router, replace(asked, **{limit: 0.0009})).why is why


def test_embeddings_have_no_output_that_a_budget_would_have_to_hold() -> None:
    cloud = make.endpoint(
        "cloud",
        local=False,
        price=Price(usd_per_input_token=1e-6, usd_per_output_token=1.0),
        capabilities=(Capability.EMBEDDING,),
    )
    asked = make.request(needs=(Capability.EMBEDDING,), output_tokens_max=0, budget_usd=0.0011)
    assert decide(make.router(cloud), asked).plan


def test_an_endpoint_that_a_probe_could_not_reach_is_left_alone_until_one_does() -> None:
    router = make.router(make.endpoint("laptop"))
    router.observe(Probed(endpoint="laptop", up=False), 0.0)
    assert decide(router, make.request()).why is Why.DOWN
    router.observe(Probed(endpoint="laptop", up=True), 1.0)
    assert decide(router, make.request()).plan


def refused(router: Router, retry_after_s: float | None, now_s: float) -> None:
    sent = make.request()
    router.observe(make.started(sent, "cloud"), now_s)
    fact = Ended(request_id=sent.id, endpoint="cloud", ending=Ending.REFUSED, e2e_s=0.1, retry_after_s=retry_after_s)
    router.observe(fact, now_s)


def test_an_endpoint_that_asked_for_peace_gets_it_and_a_shorter_wish_does_not_shorten_it() -> None:
    router = make.router(make.endpoint("cloud", local=False))
    refused(router, 30.0, 0.0)
    refused(router, 1.0, 5.0)
    decision = decide(router, make.request(), 6.0)
    assert (decision.why, decision.retry_after_s) == (Why.TOLD_TO_WAIT, 24.0)
    assert decide(router, make.request(), 30.0).plan


def test_no_endpoint_is_believed_to_need_a_day_of_peace() -> None:
    router = make.router(make.endpoint("cloud", local=False))
    refused(router, 86_400.0, 0.0)
    assert decide(router, make.request(), 3_600.0).plan


def test_a_model_nobody_serves_is_unknown() -> None:
    decision = decide(make.router(), make.request(model="gpt-99"))
    assert (decision.plan, decision.why, decision.retry_after_s) == ((), Why.UNKNOWN_MODEL, None)


def test_a_refusal_names_the_reason_that_came_closest_to_a_yes() -> None:
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False))
    router.observe(Probed(endpoint="laptop", up=False), 0.0)
    decision = decide(router, make.request(residency="local"))
    assert decision.why is Why.DOWN
    assert decision.retry_after_s is not None


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (make.request(residency="local"), Why.ONLY_ALLOWED),
        (make.request(cost_usd_max=0.0), Why.ONLY_AFFORDABLE),
    ],
)
def test_the_one_endpoint_that_is_left_says_what_excluded_the_other(asked: Request, why: Why) -> None:
    decision = decide(make.router(), asked)
    assert ([s.endpoint for s in decision.plan], decision.why) == (["laptop"], why)


def test_the_only_endpoint_of_a_model_is_just_that() -> None:
    assert decide(make.router(make.endpoint()), make.request()).why is Why.ONLY_ENDPOINT


def test_a_failed_prompt_that_did_not_fit_is_no_fault_of_the_endpoint() -> None:
    router = make.router(make.endpoint("laptop"))
    for _ in range(5):
        sent = make.request()
        router.observe(make.started(sent, "laptop"), 0.0)
        router.observe(
            Ended(request_id=sent.id, endpoint="laptop", ending=Ending.FAILED, e2e_s=0.1, cause="context_exceeded"),
            0.0,
        )
    assert decide(router, make.request()).plan
