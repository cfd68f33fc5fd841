from pathlib import Path

import pytest

from tests.courier.harness import SECRET, House
from tidegate.config import expected
from tidegate.config.courier import CourierEngineTable, CourierTable, load
from tidegate.config.problem import ConfigError
from tidegate.config.table import MutualTlsTable


def problems(house: House, old: str, new: str) -> dict[str, str]:
    file = house.configured("a", "http://127.0.0.1:8080")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        load(file)
    return {problem.path: problem.message for problem in raised.value.problems}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, tmp_path)


def test_a_good_file_is_read_and_its_paths_start_at_its_folder(house: House, tmp_path: Path) -> None:
    config = load(house.configured("a", "http://127.0.0.1:8080/llama/"))
    assert (config.listen.port, config.engine_url.path) == (0, "/llama")
    assert config.secret.reveal() == SECRET
    assert config.tls.ca == tmp_path / "ca.pem"


def test_the_engines_key_is_in_a_variable_or_a_file(house: House, tmp_path: Path) -> None:
    (tmp_path / "engine.key").write_text("k1\n")
    (tmp_path / "engine.key").chmod(0o600)
    file = house.configured("a", "http://127.0.0.1:8080", api_key_file="engine.key")
    named = load(file).engine_key
    assert named is not None
    assert named.reveal() == "k1"
    file.write_text(file.read_text().replace('api_key_file = "engine.key"', 'api_key_env = "ENGINE_KEY"'))
    assert load(file, {"ENGINE_KEY": "k1"}).engine_key == named


def test_the_engines_key_does_not_go_through_the_internet_in_the_clear(house: House, tmp_path: Path) -> None:
    (tmp_path / "engine.key").write_text("k1\n")
    (tmp_path / "engine.key").chmod(0o600)
    with pytest.raises(ConfigError, match="in the clear") as raised:
        load(house.configured("a", "http://llama.example:8080", api_key_file="engine.key"))
    assert [one.path for one in raised.value.problems] == ["engine.url"]


@pytest.mark.parametrize(("old", "new", "path"), [
    ('name = "a"', 'name = "A b"', "courier.name"),
    ('name = "a"', "", "courier"),
    ("space_mib = 64", "space_mib = 0", "courier.space_mib"),
    ("space_mib", "space_gib", "courier.space_gib"),
    ('"127.0.0.1:0"', '"127.0.0.1"', "courier.listen"),
    ('"http://127.0.0.1:8080"', '"https://127.0.0.1:8080"', "engine.url"),
    ('"http://127.0.0.1:8080"', '"localhost"', "engine.url"),
    ("[engine]", "[motor]", "motor"),
    ('{ file = "tickets.key" }', '{ env = "NOT_SET" }', "courier.secret.env"),
    ('{ file = "tickets.key" }', "{ }", "courier.secret"),
    ("tickets.key", "ca.pem", "courier.secret.file"),
    ('cert = "a.pem"', 'cert = "missing.pem"', "courier.tls"),
    ('cert = "a.pem"', 'cert = "a\\u0000.pem"', "courier.tls"),
    ('cert = "a.pem"', f'cert = "{"a" * 300}.pem"', "courier.tls"),
    ('arguments = ""', 'api_key = "secret"', "engine.api_key"),
    ('api_key_file = ""', 'api_key_file = "missing.key"', "engine.api_key_file"),
    ('api_key_file = ""', 'api_key_env = "NOT_SET"', "engine.api_key_env"),
    ('api_key_file = ""', 'api_key_file = "a.key"\napi_key_env = "NOT_SET"', "engine.api_key_file"),
    ("folder = \"", 'folder = "a\\u0000', "courier.folder"),
    ('key = "a.key"', 'key = "b.key"', "courier.tls"),
    ('ca = "ca.pem"', 'ca = "tickets.key"', "courier.tls"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(house: House, old: str, new: str, path: str) -> None:
    assert path in problems(house, old, new)


def test_a_key_that_everybody_may_read_is_refused_and_so_is_a_short_secret(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.key").chmod(0o644)
    (tmp_path / "tickets.key").write_text("short")
    assert set(problems(house, "64", "65")) == {"courier.tls.key", "courier.secret.file"}


def test_a_certificate_that_is_none_is_told_as_the_gateways_own_is(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="certificate, key and authority: one of them is not in PEM"):
        load(house.configured("a", "http://127.0.0.1:8080"))


@pytest.mark.parametrize("table", [CourierTable, CourierEngineTable, MutualTlsTable])
def test_every_setting_says_what_it_means_within_which_bounds(table: type) -> None:
    for field in expected.fields(table):
        assert expected.description(field).endswith("."), field.name
        assert expected.words(field.type)
