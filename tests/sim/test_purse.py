"""A budget in a simulated world: what is held back, what is left, and that no more is ever spent."""

import pytest

from tests import make
from tests.sim.days import LONG_S, Listed
from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.config.cap import Cap, Period
from tidegate.core.model import Decision, Drawn, Line, Price, Request, replace
from tidegate.core.replay import replay
from tidegate.core.rows import Rows
from tidegate.core.rules import budget_usd_bound
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.place import Remote
from tidegate.sim.purse import Purse
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play
from tidegate.sim.world import World

CLOUD = make.endpoint("cloud", local=False)
DAY_S = 86_400.0


def most_usd(request: Request) -> float:
    """What is held back for it at `CLOUD`."""
    return budget_usd_bound(request, CLOUD, CLOUD.context_tokens)


def test_without_a_cap_there_is_no_limit() -> None:
    purse = Purse()
    assert purse.left_usd(0.0) is None
    assert purse.hold(make.request(), CLOUD, 0.0)


def test_what_is_held_back_is_not_there_and_what_it_did_not_cost_comes_back() -> None:
    purse, request = Purse([Cap(usd=1.0, period=Period.DAY)]), make.request()
    most = most_usd(request)
    assert purse.hold(request, CLOUD, 0.0)
    assert purse.left_usd(0.0) == 1.0 - most
    purse.settle(request, CLOUD, most / 4, 1.0)
    assert purse.left_usd(1.0) == 1.0 - most / 4
    purse.settle(request, CLOUD, most, 2.0)
    assert purse.left_usd(2.0) == 1.0 - most / 4, "once is enough"
    assert purse.left_usd(DAY_S) == 1.0


def test_what_does_not_fit_is_not_held_and_what_is_free_always_does() -> None:
    request = make.request()
    purse = Purse([Cap(usd=most_usd(request) / 2, period=Period.MONTH)])
    assert not purse.hold(request, CLOUD, 0.0)
    assert purse.left_usd(0.0) == most_usd(request) / 2
    assert purse.hold(request, make.endpoint("laptop"), 0.0)


def test_the_smallest_of_several_caps_is_what_is_left() -> None:
    purse = Purse([Cap(usd=1.0, period=Period.DAY), Cap(usd=1.5, period=Period.MONTH)])
    request = make.request()
    for day in range(2):
        assert purse.hold(request, CLOUD, day * DAY_S)
        purse.settle(request, CLOUD, 0.9, day * DAY_S)
    assert purse.left_usd(2 * DAY_S) == 1.5 - 1.8


@pytest.mark.slow
def test_no_more_is_spent_than_the_budget_has_and_the_journal_replays() -> None:
    traffic = '[[traffic]]\nmodel = "m"\nrate_per_s = 10\nprompt_tokens = 900\noutput_tokens = 300\n'
    budget = "[budget]\nusd_per_day = 0.3\npace = false\n"
    text = f"[world]\nduration_s = 60\n{budget}{HEAD}{OWN}{FAR}{traffic}output_tokens_max = 400\n"
    lines: list[Line] = []
    played = play(parse(text, "s.toml", seed=3), journal=lines.append)
    free = play(parse(text.replace("0.3", "1000"), "s.toml", seed=3))
    assert free.usd["far"] > 0.5
    assert 0.25 < played.usd["far"] <= 0.3
    assert replay(lines).difference is None
    # Who may not be paid for knows it, and is not decided anew whenever anything ends.
    asked, decided = (sum(isinstance(line.fact, kind) for line in lines) for kind in (Request, Decision))
    assert decided < 4 * asked


def test_who_could_not_be_paid_for_when_another_one_had_failed_was_refused_in_the_journal_as_in_the_world() -> None:
    cheap = make.endpoint("cheap", local=False, price=Price(usd_per_input_token=1e-9))
    # Enough for one at a time.
    most = most_usd(make.request())
    lines: list[Line] = []
    world = World(
        (cheap, CLOUD), make.policy(), purse=Purse([Cap(usd=1.5 * most, period=Period.DAY)]), journal=lines.append
    )
    broken = ApiProfile(ttft_s=0.1, tpot_s=0.1, errors=1.0, error_times_s=(1.0,))
    profiles = {"cheap": broken, "cloud": replace(broken, errors=0.0)}
    places = {name: Remote(name, Api(one, Chance(1), name), world.loop, world) for name, one in profiles.items()}
    jobs = [
        Job(request=make.request(f"r{number}", arrived_s=0.1 * number), prompt_tokens=200, output_tokens=100)
        for number in range(2)
    ]
    world.run(places, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    rows = Rows()
    told = {row.id: row.outcome for row in [*(row for line in lines for row in rows.feed(line)), *rows.rest()]}
    assert told == {one.request.id: one.outcome for one in world.outcomes} == {"r0": "ok", "r1": "refused"}
    assert replay(lines).difference is None


def test_what_a_budget_has_spent_is_told_before_anything_is_decided_unless_who_comes_first_is_served() -> None:
    traffic = '[[traffic]]\nmodel = "m"\nrate_per_s = 1\nprompt_tokens = 900\noutput_tokens = 300\n'
    for pace, told in (("true", [Request, Drawn, Decision]), ("false", [Request, Decision])):
        text = f"[world]\nduration_s = 20\n[budget]\nusd_per_day = 1\npace = {pace}\n{HEAD}{OWN}{FAR}{traffic}"
        lines: list[Line] = []
        play(parse(text, "s.toml"), journal=lines.append)
        facts = [line.fact for line in lines]
        first = next(place for place, fact in enumerate(facts) if isinstance(fact, Request))
        assert [type(fact) for fact in facts[first : first + len(told)]] == told


def test_each_cap_tells_what_is_spent_of_it_in_its_window() -> None:
    purse, request = Purse([Cap(usd=1.0, period=Period.DAY), Cap(usd=9.0, period=Period.MONTH)]), make.request()
    assert purse.hold(request, CLOUD, 0.0)
    assert [one.spent_usd for one in purse.drawn(0.0)] == [0.0, 0.0], "what is held back is not spent yet"
    purse.settle(request, CLOUD, 0.25, 1.0)
    day, month = purse.drawn(2.0)
    assert (day.budget, day.usd, day.spent_usd, day.begins_s, day.ends_s) == ("day", 1.0, 0.25, 0.0, DAY_S)
    assert (month.budget, month.spent_usd, month.ends_s) == ("month", 0.25, 31 * DAY_S)
    assert [one.spent_usd for one in purse.drawn(DAY_S)] == [0.0, 0.25]
    assert Purse([Cap(usd=1.0, period=Period.DAY)], paced=False).drawn(0.0) == []
