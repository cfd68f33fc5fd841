"""Where traces go is checked before anything starts."""

import sys

import pytest

from tidegate.config.build import build
from tidegate.config.load import parse
from tidegate.config.problem import ConfigError, Problem

TEXT = """
[site.home]
local = true
[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:8080"
serves = ["m"]
"""
GOOD = 'endpoint = "http://127.0.0.1:4318/v1/traces"'


def problems(trace: str, **variables: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse(f"{TEXT}[trace]\n{trace}\n", "tidegate.toml", variables)
    return refused.value.problems


def test_nothing_is_traced_unless_there_is_an_endpoint() -> None:
    for text in (TEXT, f"{TEXT}[trace]\nratio = 1.0\n"):
        assert build(parse(text, "tidegate.toml", {}), 0.0).gateway.traces is None


def test_the_table_becomes_what_the_gateway_is_given() -> None:
    text = f'{TEXT}[trace]\n{GOOD}\nratio = 1\nauthorization = {{ env = "TOKEN" }}\n'
    found = build(parse(text, "tidegate.toml", {"TOKEN": "Bearer abc"}), 0.0).gateway.traces
    assert found is not None
    assert (found.table.endpoint, found.table.ratio, found.table.follow) == (
        "http://127.0.0.1:4318/v1/traces",
        1.0,
        True,
    )
    assert found.authorization is not None
    assert found.authorization.reveal() == "Bearer abc"
    assert "abc" not in repr(found)


@pytest.mark.parametrize(
    ("trace", "path"),
    [
        ('endpoint = "collector:4318"', "trace.endpoint"),
        ('endpoint = "http://user:secret@collector:4318/v1/traces"', "trace.endpoint"),
        (f"{GOOD}\nratio = 1.5", "trace.ratio"),
        (f"{GOOD}\nqueue_spans = 1", "trace.queue_spans"),
        (f"{GOOD}\nqueue_spans = 1000000", "trace.queue_spans"),
        (f"{GOOD}\nevery_s = 0", "trace.every_s"),
        (f"{GOOD}\ntimeout_s = 3600", "trace.timeout_s"),
        (f'{GOOD}\nservice = ""', "trace.service"),
        (f'{GOOD}\nauthorization = {{ env = "NOWHERE" }}', "trace.authorization"),
        (f'{GOOD}\nauthorization = {{ env = "A", file = "b" }}', "trace.authorization"),
        (f"{GOOD}\nshare = 1", "trace.share"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(trace: str, path: str) -> None:
    (problem,) = problems(trace)
    assert problem.path == path
    assert "secret" not in str(problem)


def test_the_secret_of_traces_goes_into_the_internet_over_tls_alone() -> None:
    secret = '\nauthorization = { env = "TOKEN" }'
    plain = 'endpoint = "http://otlp.example.com/v1/traces"'
    (problem,) = problems(plain + secret, TOKEN="Bearer abc")
    assert (problem.path, "in the clear" in problem.message) == ("trace.endpoint", True)
    assert "https://" in problem.remedy
    for good in (plain, plain.replace("http://", "https://") + secret, GOOD + secret):
        parse(f"{TEXT}[trace]\n{good}\n", "tidegate.toml", {"TOKEN": "Bearer abc"})


def without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "tidegate.telemetry.otlp", raising=False)


def test_without_the_extra_the_file_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_sdk(monkeypatch)
    (problem,) = problems(GOOD)
    assert problem.path == "trace.endpoint"
    assert f"{sys.executable} -m pip install 'tidegate[otel]'" in problem.remedy
    parse(f"{TEXT}[trace]\nratio = 1.0\n", "tidegate.toml", {})
