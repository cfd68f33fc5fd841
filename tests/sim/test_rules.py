"""Operators' rules in a simulated world: the same configuration, and the same decisions of it."""

from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.core.model import Line, Request, Started
from tidegate.core.replay import replay
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

TRAFFIC = (
    '[[traffic]]\nmodel = "m"\nrate_per_s = 2\noutput_tokens = 20\n'
    "prompt_tokens = { median = 900, sigma = 1.0, most = 6000 }\n"
)
WORLD = "[world]\nduration_s = 120\n"
LONG = '[[rule]]\nname = "long"\nwhen = "prompt_tokens > 1500"\n'


def played(*tables: str) -> tuple[list[Outcome], list[Line]]:
    lines: list[Line] = []
    scenario = parse(WORLD + HEAD + OWN + FAR + "".join(tables), "s.toml")
    return play(scenario, journal=lines.append).outcomes, lines


def test_long_prompts_go_where_their_rule_says_and_the_journal_replays() -> None:
    outcomes, lines = played(TRAFFIC, LONG + 'to = ["far"]\n')
    requests = {line.fact.id: line.fact for line in lines if isinstance(line.fact, Request)}
    sent = [
        (requests[f.request_id].prompt_tokens > 1500, f.endpoint)
        for f in (x.fact for x in lines)
        if isinstance(f, Started)
    ]
    assert {endpoint for long, endpoint in sent if long} == {"far"}
    assert "own" in {endpoint for long, endpoint in sent if not long}
    assert any(outcome.request.rulings for outcome in outcomes)
    assert replay(lines).difference is None


def test_rules_give_a_class_to_who_names_none_and_to_nobody_else() -> None:
    gives = LONG + 'class = "batch"\n'
    named = TRAFFIC + "classes = { interactive = 1 }\n"
    silent, _ = played(TRAFFIC, gives)
    spoken, _ = played(named, gives)
    for outcome in silent:
        batch = outcome.request.prompt_tokens > 1500
        assert outcome.request.klass.startswith("batch" if batch else "interactive")
        assert (outcome.request.slo.e2e_s == 300.0) is batch
    assert {outcome.request.klass.partition("/")[0] for outcome in spoken} == {"interactive"}


def test_a_class_that_only_a_rule_gives_can_be_bounded() -> None:
    bounds = "[bounds.class.batch]\nattainment_min = 0.5\n"
    assert parse(WORLD + HEAD + OWN + FAR + TRAFFIC + LONG + 'class = "batch"\n' + bounds, "s.toml").bounds


def test_rules_that_never_hold_change_nothing_that_happens() -> None:
    never = '[[rule]]\nname = "never"\nwhen = "completions > 1"\nto = ["far"]\n'
    also = '[[rule]]\nname = "soft"\nwhen = "prompt_tokens > 1000000"\nto = ["own"]\nbreak_usd = 1\n'
    assert played(TRAFFIC, never, also)[0] == played(TRAFFIC)[0]
