"""Profiles as files: what was written is read again, and what is wrong is said with file, setting and remedy."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.config.problem import ConfigError, Problems
from tidegate.core.step import StepTime
from tidegate.sim.endpoint import PlaceTable
from tidegate.sim.engine import EngineProfile
from tidegate.sim.network import PRESETS
from tidegate.sim.profile import Interval, Measured, Network, Profile, profile, rounded, toml
from tidegate.sim.profiles import stands

seconds = st.floats(0.0, 10.0)
counts = st.integers(1, 10**6)
texts = st.text(max_size=20)
profiles = st.builds(
    Profile,
    engine=st.builds(
        EngineProfile,
        step=st.builds(
            StepTime,
            base_s=st.floats(1e-6, 10.0),
            per_token_s=seconds,
            per_sequence_s=seconds,
            per_context_token_s=st.floats(0.0, 1.0),
            per_pair_s=st.floats(0.0, 1.0),
        ),
        slots=st.integers(1, 1000),
        batch_tokens=counts,
        kv_tokens=st.integers(128, 10**9),
        queue_max=st.none() | counts,
        keeps_prefixes=st.booleans(),
        load_s=seconds,
        unload_after_s=st.none() | seconds,
    ),
    network=st.builds(Network, rtt_s=seconds, upload_bytes_per_s=st.floats(1.0, 1e9), request_s=seconds),
    confidence=st.dictionaries(
        st.sampled_from(["step.base_s", "slots"]), st.builds(Interval, low=seconds, high=st.none() | seconds)
    ),
    measured=st.none()
    | st.builds(
        Measured,
        at=texts,
        url=texts,
        software=texts,
        model=texts,
        requests=counts,
        tokens=counts,
        seconds=seconds,
        usd=seconds,
        error=seconds,
        assumed=st.tuples(texts),
        remarks=st.tuples(texts, texts),
    ),
)
GOOD = """
[engine]
slots = 4
kv_tokens = 8192
[engine.step]
base_s = 0.01
per_token_s = 0.001
[network]
rtt_s = 0.001
upload_bytes_per_s = 1e6
"""


@settings(max_examples=40)
@given(profiles)
def test_what_was_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, made: Profile) -> None:
    file = tmp_path_factory.getbasetemp() / "profile.toml"
    file.write_text(toml(made), encoding="utf-8")
    assert profile(file) == made


def test_the_least_that_a_profile_has_is_engine_and_network(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(GOOD)
    read = profile(file)
    assert (read.engine.slots, read.engine.batch_tokens, read.measured) == (4, 2048, None)
    assert read.network.link.rtt_s == 0.001


@given(profiles)
@settings(max_examples=20)
def test_a_scenario_takes_the_engine_and_the_way_to_it_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, made: Profile
) -> None:
    folder, problems = tmp_path_factory.getbasetemp(), Problems("scenario.toml")
    (folder / "engine.toml").write_text(toml(made), encoding="utf-8")
    there = stands("there", PlaceTable(engine="engine.toml"), folder, problems)
    assert problems.found == []
    assert there is not None
    assert there.engine == made.engine
    assert there.link == made.network.link
    written = stands("there", PlaceTable(engine="engine.toml", link="metro"), folder, problems)
    assert written is not None
    assert written.link == PRESETS["metro"]


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (("slots = 4", "slots = 0"), "engine.slots", "1 at least"),
        (("slots = 4", "slots = 'four'"), "engine.slots", "expected `int`"),
        (("slots = 4", "slots = 4\nslotz = 5"), "engine.slotz", "no such setting"),
        (("base_s = 0.01", "base_s = -0.01"), "engine.step.base_s", "a number from 0"),
        (("base_s = 0.01", "base_s = nan"), "engine.step.base_s", "a number from 0"),
        (("base_s = 0.01", "base_s = inf"), "engine.step.base_s", "a number from 0"),
        (("base_s = 0.01", "base_s = 0.01\nbaze_s = 1"), "engine.step.baze_s", "no such setting"),
        (("0.01\nper_token_s = 0.001", "0.0\nper_token_s = 0.0"), "engine.step", "must take time"),
        (("kv_tokens = 8192", ""), "engine", "missing required field `kv_tokens`"),
        (("[network]", "[networks]"), "", "unknown field `networks`"),
        (("rtt_s = 0.001", "rtt_s = -1.0"), "network.rtt_s", ">= 0"),
        (("rtt_s = 0.001", "rtt_s = "), "", "no TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_a_remedy(
    tmp_path: Path, change: tuple[str, str], path: str, said: str
) -> None:
    file = tmp_path / "p.toml"
    file.write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError) as caught:
        profile(file)
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == (str(file), path)
    assert said in problem.message
    assert "tidegate calibrate" in problem.remedy


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.toml", tmp_path / "binary.toml"
    large.write_text(GOOD + "#" * 100_000)
    binary.write_bytes(b"\xff\xfe")
    for file, said in ((tmp_path / "none.toml", "cannot be read"), (large, "larger"), (binary, "no TOML")):
        with pytest.raises(ConfigError, match=said):
            profile(file)


def test_digits_beyond_what_is_measured_are_left_out() -> None:
    assert rounded(0.000123456) == 0.0001235
    assert rounded(0.0) == 0.0
