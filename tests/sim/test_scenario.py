"""What is wrong with a scenario is said all at once, with its file, its place and what to do about it."""

from pathlib import Path

import msgspec
import pytest

from tidegate.config.problem import ConfigError
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import Setup
from tidegate.core.model import Likeness
from tidegate.core.step import Linear, StepTime
from tidegate.sim import api, engines, network
from tidegate.sim.endpoint import ApiTable, EngineTable, LinearTable, LinkTable, StepTable
from tidegate.sim.engine import EngineProfile
from tidegate.sim.hardware import profile
from tidegate.sim.scenario import load, parse

HEAD = """
[site.home]
local = true
[site.cloud]
local = false
[endpoint.own]
site = "home"
engine = "vllm"
serves = ["m"]
context_tokens = 8192
concurrency = 4
[endpoint.far]
site = "cloud"
engine = "openai"
serves = ["m"]
context_tokens = 8192
price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2 }
"""
OWN = '[world.endpoint.own]\nengine = "gpu-8b"\n'
FAR = '[world.endpoint.far]\napi = "llmperf-2023-groq"\nlink = "metro"\n'
TRAFFIC = '[[traffic]]\nmodel = "m"\nrate_per_s = 1\nprompt_tokens = 100\noutput_tokens = 10\n'
GOOD = HEAD + OWN + FAR + TRAFFIC


def traffic(lines: str) -> str:
    return HEAD + OWN + FAR + f'[[traffic]]\nmodel = "m"\n{lines}\n'


def fault(lines: str) -> str:
    return GOOD + f"[[fault]]\nat_s = 1\nfor_s = 1\n{lines}\n"


LENGTHS = "prompt_tokens = 1\noutput_tokens = 1\n"
HARDWARE = 'hardware = { model = "qwen3-32b", accelerator = "h100-sxm", tensor_parallel = 2, slots = 64 }'
MALFORMED = [
    (GOOD.replace(OWN, f"{OWN}{HARDWARE}\n"), "world.endpoint.own", "engine and hardware stand", "one of"),
    (
        GOOD.replace('engine = "gpu-8b"', HARDWARE.replace("qwen3-32b", "qwen3-32")),
        "world.endpoint.own.hardware.model",
        "no such model",
        "did you mean `qwen3-32b`",
    ),
    (
        GOOD.replace('engine = "gpu-8b"', HARDWARE.replace("h100-sxm", "abacus")),
        "world.endpoint.own.hardware.accelerator",
        "no such accelerator",
        "known are",
    ),
    (
        GOOD.replace('engine = "gpu-8b"', HARDWARE.replace("h100-sxm", "l4")),
        "world.endpoint.own.hardware",
        "the weights need",
        "raise tensor_parallel",
    ),
    (GOOD + "[worlds]\n", "worlds", "no such table", "did you mean `world`"),
    (GOOD + "[gateway]\n", "gateway", "no such table", "known are"),
    ("[world]\nduration = 5\n" + GOOD, "world.duration", "no such setting", "did you mean `duration_s`"),
    ("[world]\nduration_s = 0\n" + GOOD, "world.duration_s", "0 is not a number from 1", "How long"),
    ('[world]\nstart = "monday"\n' + GOOD, "world.start", "this text is not a time, as in", "UTC"),
    (
        "[world]\nstart = 1960-01-01T00:00:00Z\n" + GOOD,
        "world.start",
        "no clock shows",
        "from 1970-01-02 to 9990-01-01",
    ),
    (
        "[world]\nstart = 9999-12-31T23:59:59Z\n" + GOOD,
        "world.start",
        "no clock shows",
        "from 1970-01-02 to 9990-01-01",
    ),
    ("[world]\nrequest_timeout_s = 60\n" + GOOD, "policy.hold_s_max", "its whole life", "less than"),
    (HEAD + FAR + TRAFFIC, "world.endpoint.own", "it is missing", "hardware or an API"),
    (GOOD + '[world.endpoint.fax]\nengine = "gpu-8b"\n', "world.endpoint.fax", "no such endpoint", "`far`"),
    (
        GOOD.replace(OWN, "[world.endpoint.own]\n"),
        "world.endpoint.own",
        "nothing stands",
        "one of engine, hardware, api",
    ),
    (GOOD.replace(OWN, OWN + 'api = "llmperf-2023-groq"\n'), "world.endpoint.own", "engine and api stand", "one of"),
    (GOOD.replace("gpu-8b", "gpu-9b"), "world.endpoint.own.engine", "no preset `gpu-9b`", "did you mean `gpu-8b`"),
    (GOOD.replace("groq", "grok"), "world.endpoint.far.api", "no preset", "did you mean `llmperf-2023-groq`"),
    (GOOD.replace("metro", "moon"), "world.endpoint.far.link", "no preset `moon`", "known are"),
    (GOOD.replace('"gpu-8b"', "{ slots = 4 }"), "world.endpoint.own.engine", "`step`, `kv_tokens` must", "preset"),
    (
        GOOD.replace('"gpu-8b"', '{ preset = "gpu-8b", slot = 4 }'),
        "world.endpoint.own.engine.slot",
        "no such",
        "`slots`",
    ),
    (GOOD.replace('"gpu-8b"', "7"), "world.endpoint.own.engine", "7 is not text", "preset"),
    (GOOD.replace('"metro"', "{ rtt_s = 0.1 }"), "world.endpoint.far.link", "`upload_bytes_per_s`", "preset"),
    (GOOD.replace('"gpu-8b"', '"none.toml"'), "", "no such file", "name the file"),
    (GOOD.replace(TRAFFIC, ""), "traffic", "there is none", "[[traffic]]"),
    (GOOD.replace(TRAFFIC, "[traffic]\nmodel = 1\n"), "traffic", "no list", "[[traffic]]"),
    (traffic(""), "traffic[0]", "not said where requests come from", "preset, trace"),
    (traffic("rate_per_s = 1\nprompt_tokens = 5"), "traffic[0]", "`output_tokens` is missing", "median"),
    (traffic("rate_per_s = 1\n" + LENGTHS + 'law = "gamma"'), "traffic[0].cv", "need it", "both"),
    (traffic("rate_per_s = 1\n" + LENGTHS + "cv = 2"), "traffic[0].cv", "need it", "both"),
    (traffic("rate_per_s = 1\n" + LENGTHS + "turns = 3"), "traffic[0].turns", "means nothing", "remove"),
    (traffic('preset = "azure-code"\nusers = 3'), "traffic[0].users", "means nothing where `preset`", "remove"),
    (traffic('preset = "coding-agents"\nrate_per_s = 3'), "traffic[0].rate_per_s", "means nothing", "remove"),
    (traffic('preset = "azure-cod"'), "traffic[0].preset", 'one of "azure-code"', "public trace"),
    (traffic('trace = "t.csv"\nformat = "azure"'), "traffic[0].trace", "there is no file", "name a trace"),
    (traffic('trace = "scenario.toml"'), "traffic[0].format", "it is missing", "azure"),
    (GOOD.replace('model = "m"', 'model = "n"'), "traffic[0].model", "no endpoint serves", "known are: `m`"),
    (traffic("rate_per_s = 1\n" + LENGTHS + "classes = { vip = 1 }"), "traffic[0].classes", "no class `vip`", "known"),
    (traffic("rate_per_s = 1\n" + LENGTHS + "classes = { batch = 0 }"), "traffic[0].classes", "all weights", "weight"),
    (traffic("rate_per_s = 1\n" + LENGTHS + "begins_s = 600"), "traffic[0].begins_s", "ends after 600", "less"),
    (
        traffic("rate_per_s = 1\n" + LENGTHS + "begins_s = 9\nends_s = 3"),
        "traffic[0].ends_s",
        "before it begins",
        "more",
    ),
    (
        traffic("rate_per_s = 1\noutput_tokens = 1\nprompt_tokens = { median = 9, most = 3 }"),
        "traffic[0].prompt_tokens",
        "above `most`",
        "between",
    ),
    (GOOD + TRAFFIC.replace("rate", 'name = "a"\nrate') * 2, "traffic", "two are called `a`", "of its own"),
    # What the first is called, which has no name of its own.
    (
        GOOD + TRAFFIC.replace("rate", 'name = "traffic-0"\nrate'),
        "traffic",
        "two are called `traffic-0`",
        "of its own",
    ),
    (fault('kind = "fire"'), "fault[0].kind", 'one of "crash"', "What happens"),
    (fault('kind = "crash"'), "fault[0].endpoint", "no endpoint ``", "known are"),
    (fault('kind = "crash"\nendpoint = "far"'), "fault[0].kind", "an API stands there", "unavailable"),
    (fault('kind = "rate_limit"\nendpoint = "own"\nrequests_per_minute = 3'), "fault[0].kind", "an engine", "crash"),
    (fault('kind = "rate_limit"\nendpoint = "far"'), "fault[0].requests_per_minute", "needs it", "how much"),
    (fault('kind = "slow"\nendpoint = "own"'), "fault[0].factor", "needs it", "how much"),
    (fault('kind = "crash"\nendpoint = "own"\nfactor = 2'), "fault[0].factor", "means nothing to `crash`", "remove"),
    (fault('kind = "outage"\nendpoint = "own"'), "fault[0].kind", "no way to that endpoint", "own.link"),
    (fault('kind = "static"\nendpoint = "own"'), "fault[0].endpoint", "everywhere", "remove"),
    (fault('kind = "static"').replace("at_s = 1", "at_s = 9999"), "fault[0].at_s", "all is over", "duration_s"),
    (GOOD + "[[fault]]\nkind = 'static'\nat_s = 1\n", "fault[0]", "`for_s` is missing", "no default"),
    (GOOD + "[bounds]\nattainment = 1\n", "bounds.attainment", "no such setting", "did you mean `attainment_min`"),
    (GOOD + "[bounds]\nattainment_min = 95\n", "bounds.attainment_min", "95 is not a number from 0 to 1", "kept"),
    (GOOD + "[bounds.class.vip]\nattainment_min = 1\n", "bounds.class.vip", "no traffic has", "known are"),
    (GOOD + "[bounds.class.interactive]\n", "bounds.class.interactive", "bounds nothing", "remove"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), MALFORMED)
def test_what_is_wrong_is_named_with_its_place_and_its_remedy(
    text: str, path: str, message: str, remedy: str, tmp_path: Path
) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(file)
    problems = [p for p in raised.value.problems if p.path == path and message in p.message]
    assert len(problems) == 1, str(raised.value)
    assert remedy in problems[0].remedy
    assert problems[0].file.startswith(str(tmp_path))


@pytest.mark.parametrize("start", ["1970-01-02T00:00:00Z", "9990-01-01T00:00:00Z"])
def test_a_world_begins_at_any_time_that_a_clock_shows(start: str) -> None:
    assert parse(f"[world]\nstart = {start}\n{GOOD}", "scenario.toml").start_s > 0.0


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = GOOD.replace("gpu-8b", "gpu-9b").replace('model = "m"', 'model = "n"') + "[bounds]\nattainment_min = 2\n"
    text += "[class.batch]\nworth = 1\n[[fault]]\nkind = 'static'\nat_s = 1\nfor_s = 0\n"
    with pytest.raises(ConfigError) as raised:
        parse(text, "scenario.toml")
    found = {problem.path for problem in raised.value.problems}
    assert found >= {"world.endpoint.own.engine", "bounds.attainment_min", "class.batch.worth", "fault[0].for_s"}


def test_no_key_and_no_address_is_needed_to_simulate() -> None:
    text = GOOD.replace('engine = "openai"', 'engine = "openai"\napi_key_env = "NOT_SET_ANYWHERE"')
    scenario = parse(text, "scenario.toml")
    assert [endpoint.name for endpoint in scenario.endpoints] == ["far", "own"]
    assert scenario.likeness["m"] is Likeness.IDENTICAL


def test_what_stands_there_is_the_preset_with_what_is_written_in_its_place() -> None:
    text = GOOD.replace('"gpu-8b"', '{ preset = "gpu-8b", slots = 3 }')
    text = text.replace('api = "llmperf-2023-groq"', 'api = { preset = "llmperf-2023-groq", errors = 0.5 }')
    stands = parse(text.replace('"metro"', '{ preset = "metro", loss = 0.1 }'), "scenario.toml").stands
    assert stands["own"].engine == msgspec.structs.replace(engines.PRESETS["gpu-8b"], slots=3)
    assert stands["own"].link is None
    assert stands["far"].api == msgspec.structs.replace(api.PRESETS["llmperf-2023-groq"], errors=0.5)
    assert stands["far"].link == msgspec.structs.replace(network.PRESETS["metro"], loss=0.1)


def test_an_engine_is_what_its_model_and_its_hardware_make_it() -> None:
    stands = parse(GOOD.replace('engine = "gpu-8b"', HARDWARE), "s.toml").stands["own"]
    setup = Setup(tensor_parallel=2, slots=64)
    assert stands.engine == profile(MODELS["qwen3-32b"], ACCELERATORS["h100-sxm"], setup)


def test_an_engine_comes_from_the_file_of_its_profile(tmp_path: Path) -> None:
    profile = EngineProfile(step=StepTime(base_s=0.01, per_token_s=0.001), slots=2, kv_tokens=4096)
    (tmp_path / "mine.toml").write_text(
        "[engine]\nslots = 2\nkv_tokens = 4096\nstep = { base_s = 0.01, per_token_s = 0.001 }\n[confidence]\nx = 1\n"
    )
    text = GOOD.replace('"gpu-8b"', '"mine.toml"')
    assert parse(text, str(tmp_path / "scenario.toml")).stands["own"].engine == profile


def test_a_profile_that_is_wrong_is_named_by_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[engine]\nslots = 0\n[engines]\n")
    with pytest.raises(ConfigError) as raised:
        parse(GOOD.replace('"gpu-8b"', '"mine.toml"'), str(tmp_path / "scenario.toml"))
    assert [(p.file, p.path) for p in raised.value.problems] == [
        (str(tmp_path / "mine.toml"), "engines"),
        (str(tmp_path / "mine.toml"), "engine.slots"),
    ]


@pytest.mark.parametrize(
    ("table", "profile"),
    [
        (EngineTable, EngineProfile),
        (StepTable, StepTime),
        (LinearTable, Linear),
        (ApiTable, api.ApiProfile),
        (LinkTable, network.LinkProfile),
    ],
)
def test_a_scenario_can_write_all_that_a_profile_has(
    table: type[msgspec.Struct], profile: type[msgspec.Struct]
) -> None:
    regimes = {"rate_regimes", "rtt_regimes"}  # of presets alone
    assert set(table.__struct_fields__) - {"preset"} == set(profile.__struct_fields__) - regimes


def test_what_is_served_is_a_scenarios_configuration_as_it_is_in_its_world(tmp_path: Path) -> None:
    own = "[world]\nconfig = 'served.toml'\nrequest_timeout_s = 1800\n" + OWN + FAR + TRAFFIC
    served = "[gateway]\nrequest_timeout_s = 1800\n[trace]\nservice = 'x'\n[policy]\nhold_s_max = 900\n" + HEAD
    (tmp_path / "served.toml").write_text(served)
    assert parse(own, str(tmp_path / "scenario.toml")).policy.hold_s_max == 900.0
    with pytest.raises(ConfigError) as caught:
        parse(own.replace("1800", "600"), str(tmp_path / "scenario.toml"))
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == (str(tmp_path / "served.toml"), "policy.hold_s_max")


def test_a_world_that_is_wrong_is_no_fault_of_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "served.toml").write_text("[gateway]\nrequest_timeout_s = 1800\n[policy]\nhold_s_max = 900\n" + HEAD)
    world = "[world]\nconfig = 'served.toml'\nrequest_timeout_s = 1800\nduration = 5\n"
    with pytest.raises(ConfigError) as caught:
        parse(world + OWN + FAR + TRAFFIC, str(tmp_path / "scenario.toml"))
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == (str(tmp_path / "scenario.toml"), "world.duration")


def test_a_policy_takes_the_place_of_the_scenarios_own(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[policy]\nattempts_max = 1\n[class.interactive]\nworth_usd = 0.5\n")
    text = "[policy]\nheld_max = 7\n" + GOOD
    own, other = parse(text, "s.toml"), parse(text, "s.toml", policy=policy)
    assert own.file == other.file
    assert (own.policy.held_max, own.policy.attempts_max) == (7, 3)
    assert (other.policy.held_max, other.policy.attempts_max) == (256, 1)
    assert other.classes["interactive"].worth_usd == 0.5


def test_a_policys_file_holds_nothing_else(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[site.x]\nlocal = true\n")
    with pytest.raises(ConfigError) as raised:
        parse(GOOD, "s.toml", policy=policy)
    assert [(p.file, p.path) for p in raised.value.problems] == [(str(policy), "site")]


def test_a_trace_takes_the_place_of_the_traffic_with_the_classes_of_all_of_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    text = GOOD + TRAFFIC.replace('model = "m"', 'model = "m"\nclasses = { batch = 6, interactive = 2 }')
    (only,) = parse(text, "s.toml", trace=(trace, "azure")).traffic
    assert (only.trace, only.format, only.model) == (str(trace), "azure", "m")
    assert only.classes == {"interactive": 1.25, "batch": 0.75}
