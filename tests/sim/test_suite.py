"""Scenarios as tests: of a configuration that is served, with bounds on what leaves, and of two policies."""

from pathlib import Path

import pytest

from tests.sim.foreign_days import configuration
from tidegate.config.problem import ConfigError
from tidegate.sim import suite
from tidegate.sim.report import report
from tidegate.sim.scenario import load
from tidegate.sim.stage import play
from tidegate.sim.suite import compared, scenarios, settings

WORLD = """
[world]
config = "../tidegate.toml"
duration_s = 120

[world.endpoint.laptop]
engine = "laptop-8b"

[world.endpoint.cloud]
api = "llmperf-2023-together"

[[traffic]]
model = "assistant"
rate_per_s = 0.8
prompt_tokens = 200
output_tokens = 100
"""
PRIVATE = '\n[class.interactive]\nresidency = ["local"]\nslo = { ttft_ms = 600000 }\n'
POOR = '[[rule]]\nname = "ours"\nwhen = "prompt_tokens > 0"\nto = ["laptop"]\n'


def repository(folder: Path, *bounds: str, config: str = "") -> Path:
    """A configuration, and scenarios beside it, one for each of these bounds."""
    (folder / "tidegate.toml").write_text(configuration().split("[class.")[0] + config)
    (folder / "scenarios").mkdir(exist_ok=True)
    for number, text in enumerate(bounds):
        (folder / "scenarios" / f"s{number}.toml").write_text(WORLD + "\n[bounds]\n" + text + "\n")
    return folder / "scenarios"


def test_what_is_tested_is_the_configuration_that_is_served(tmp_path: Path) -> None:
    folder = repository(tmp_path, "attainment_min = 0.5")
    scenario = load(folder / "s0.toml")
    assert [endpoint.name for endpoint in scenario.endpoints] == ["cloud", "laptop"]
    # What the scenario says itself goes before it.
    (folder / "s0.toml").write_text(WORLD + "\n[policy]\nseed = 5\n")
    (tmp_path / "tidegate.toml").write_text((tmp_path / "tidegate.toml").read_text() + "\n[policy]\nseed = 7\n")
    assert load(folder / "s0.toml").policy.seed == 5
    (folder / "s0.toml").write_text(WORLD)
    assert load(folder / "s0.toml").policy.seed == 7


def test_a_configuration_that_is_not_there_or_wrong_is_told_by_its_own_name(tmp_path: Path) -> None:
    folder = repository(tmp_path, "")
    (tmp_path / "tidegate.toml").write_text("[nothing]\n")
    with pytest.raises(ConfigError) as error:
        load(folder / "s0.toml")
    assert "tidegate.toml: nothing" in str(error.value)
    repository(tmp_path, config="\n[endpoint.third]\nsit = 1\n")
    with pytest.raises(ConfigError) as error:
        load(folder / "s0.toml")
    assert all("tidegate.toml" in problem.file for problem in error.value.problems)
    (tmp_path / "tidegate.toml").unlink()
    with pytest.raises(ConfigError, match="there is no such file"):
        load(folder / "s0.toml")


def test_what_may_not_leave_is_a_bound_that_one_attempt_breaks(tmp_path: Path) -> None:
    folder = repository(tmp_path, "away_share_max = 0")
    found = suite.tested(folder / "s0.toml", None, None)
    assert [mark.path for mark in found.broken] == ["bounds.away_share_max"]
    repository(tmp_path, "away_share_max = 0", config=PRIVATE)
    assert suite.tested(folder / "s0.toml", None, None).passed


def test_a_bound_on_requests_that_nobody_made_does_not_hold(tmp_path: Path) -> None:
    folder = repository(tmp_path, "")
    asked = WORLD + "classes = { interactive = 1, batch = 0 }\n[bounds.class.batch]\naway_share_max = 0\n"
    (folder / "s0.toml").write_text(asked)
    found = suite.tested(folder / "s0.toml", None, None)
    assert [(mark.path, mark.figure, mark.holds) for mark in found.marks] == [
        ("bounds.class.batch.away_share_max", None, False)
    ]


def test_a_scenario_that_cannot_be_played_has_failed_and_says_why(tmp_path: Path) -> None:
    folder = repository(tmp_path, "attainment = 0.5")
    found = suite.tested(folder / "s0.toml", 3, None)
    assert not found.passed
    assert "attainment" in found.problem
    assert found.marks == ()


def test_in_a_folder_what_has_a_world_is_a_scenario(tmp_path: Path) -> None:
    folder = repository(tmp_path, "", "")
    (folder / "policy.toml").write_text(POOR)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "s2.toml").write_text(WORLD)
    (folder / "broken.toml").write_text("[")
    (empty := tmp_path / "empty").mkdir()
    names = [path.name for path in scenarios([folder])]
    assert names == ["broken.toml", "s2.toml", "s0.toml", "s1.toml"]
    with pytest.raises(ConfigError, match="there is no scenario here"):
        scenarios([empty])


@pytest.mark.lengthy
def test_of_two_policies_it_is_told_what_each_comes_to_and_which_bounds_break(tmp_path: Path) -> None:
    folder = repository(tmp_path, "attainment_min = 0.9")
    policy = tmp_path / "poor.toml"
    policy.write_text(POOR)
    found = compared(folder / "s0.toml", [0, 1], None, policy)
    # What may only go to the laptop waits for it, and costs nothing.
    assert found.new.usd_per_1k < found.old.usd_per_1k
    assert found.saved_usd_per_1k.figure == pytest.approx(found.old.usd_per_1k - found.new.usd_per_1k, rel=1e-6)
    assert found.old.kept is not None
    assert found.new.kept is not None
    assert found.kept_more.figure == pytest.approx(found.new.kept - found.old.kept)
    assert (found.broken, found.mended) == (("bounds.attainment_min",), ())
    back = compared(folder / "s0.toml", [0, 1], policy, None)
    assert (back.broken, back.mended) == ((), ("bounds.attainment_min",))
    same = compared(folder / "s0.toml", [None], policy, policy)
    assert same.saved_usd_per_1k.figure == same.kept_more.figure == 0.0
    assert same.old == same.new


def test_a_policy_that_refuses_for_ever_whom_another_serves_has_kept_less(tmp_path: Path) -> None:
    folder = repository(tmp_path, "")
    config = tmp_path / "tidegate.toml"
    config.write_text(config.read_text().replace("context_tokens = 16384", "context_tokens = 512"))
    some_are_longer = WORLD.replace("prompt_tokens = 200", "prompt_tokens = { median = 200, sigma = 1.0, most = 6000 }")
    (folder / "s0.toml").write_text(some_are_longer)
    policy = tmp_path / "poor.toml"
    policy.write_text(POOR)
    found = compared(folder / "s0.toml", [0], None, policy)
    assert found.new.served < found.old.served
    assert found.new.judged == found.old.judged == found.new.requests
    assert found.old.kept is not None
    assert found.new.kept is not None
    assert found.new.kept < found.old.kept
    assert found.kept_more.figure == pytest.approx(found.new.kept - found.old.kept)


@pytest.mark.lengthy
def test_loads_for_nobody_cost_in_a_difference_what_they_cost_in_a_simulation(tmp_path: Path) -> None:
    file = repository(tmp_path, "") / "s0.toml"
    config, unloads = tmp_path / "tidegate.toml", "load_s = 20, unload_after_s = 60 }"
    ours = config.read_text().replace("batch_slowdown = 0.05 }", f"batch_slowdown = 0.05, {unloads}")
    config.write_text(ours.replace('"llamacpp"', '"ollama"\nrunning_cost = { usd_per_hour = 0.1 }'))
    file.write_text(WORLD.replace('"laptop-8b"', f'{{ preset = "laptop-8b", {unloads}'))
    scenario = load(file)
    played = play(scenario)
    assert played.warm_ups_usd > 0.0
    told = report(scenario, "", played).groups[0]
    found = compared(file, [None], None, None)
    assert found.old == found.new
    assert found.old.usd_per_1k == pytest.approx(1000.0 * told.usd / told.requests, rel=1e-9)
    # Where all goes there it is loaded less often for nobody.
    (policy := tmp_path / "poor.toml").write_text(POOR)
    assert play(load(file, policy=policy)).warm_ups_usd < played.warm_ups_usd
    other = compared(file, [None], None, policy)
    assert other.saved_usd_per_1k.figure == pytest.approx(other.old.usd_per_1k - other.new.usd_per_1k, rel=1e-9)


def test_where_nothing_differs_one_dear_request_still_may(tmp_path: Path) -> None:
    found = compared(repository(tmp_path, "") / "s0.toml", [None], None, None)
    assert found.saved_usd_per_1k.low < 0.0 < found.saved_usd_per_1k.high


def test_settings_that_differ_are_told_one_by_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    rule = '[[rule]]\nname = "long"\nwhen = "prompt_tokens > {}"\nto = ["cloud"]\n'
    old.write_text("[policy]\nseed = 1\nheld_max = 9\n" + rule.format(100))
    new.write_text("[policy]\nseed = 2\nheld_max = 9\n[class.batch]\nworth_usd = 1.0\n" + rule.format(200))
    assert [(one.path, one.old, one.new) for one in settings(old, new)] == [
        ("class.batch.worth_usd", None, 1.0),
        ("policy.seed", 1, 2),
        ("rule.long.when", "prompt_tokens > 100", "prompt_tokens > 200"),
    ]
    assert settings(old, old) == ()
    # The first rule that holds gives the class.
    old.write_text(rule.format(100) + rule.replace("long", "longer").format(200))
    new.write_text(rule.replace("long", "longer").format(200) + rule.format(100))
    assert [(one.path, one.old, one.new) for one in settings(old, new)] == [
        ("rule", ["long", "longer"], ["longer", "long"])
    ]
    new.write_text("[policy]\nheld_max = 9\nseed = 1\n" + rule.format(100))
    assert {one.path for one in settings(None, new)} == {
        "policy.held_max",
        "policy.seed",
        "rule.long.to",
        "rule.long.when",
    }
