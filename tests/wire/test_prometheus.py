import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.streams import recorded
from tidegate.wire.prometheus import EXPOSITION_BYTES_MAX, gauges, samples

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"a 1\n", {"a": 1.0}),
        (b"a 1", {"a": 1.0}),
        (b"a 1.5e3 1760000000000\n", {"a": 1500.0}),
        (b'a{x="1"} 2\na{x="2"} 3\n', {"a": 5.0}),
        (b'a{x="}} 9 \\" {",y="z"} 2\n', {"a": 2.0}),
        (b"a{} 2\r\n", {"a": 2.0}),
        (b"a -2\n", {"a": -2.0}),
        (b"a 0\n", {"a": 0.0}),
        (b"# HELP a 5\n# TYPE a gauge\n", {}),
        (b"ab 1\na:b 1\n", {}),
        (b"a NaN\n", {}),
        (b"a +Inf\n", {}),
        (b'a NaN\na{x="1"} 4\n', {"a": 4.0}),
        (b"a\n", {}),
        (b"a one\n", {}),
        (b'a{x="1 5\n', {}),
        (b'a 4 # {trace="5"} 6\n', {"a": 4.0}),
        (b"", {}),
    ],
)
def test_a_metric_is_read_or_absent(text: bytes, found: dict[str, float]) -> None:
    assert gauges(text, ["a"]) == found


def test_missing_is_absent_and_never_zero() -> None:
    text = b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
    assert gauges(text, (RUNNING, WAITING)) == {RUNNING: 3.0}


def test_llama_cpp_is_read() -> None:
    found = gauges(recorded("metrics"), ("llamacpp:requests_processing", "llamacpp:requests_deferred"))
    assert set(found) == {"llamacpp:requests_processing", "llamacpp:requests_deferred"}


def test_an_exposition_beyond_its_bound_tells_nothing() -> None:
    assert gauges(b"a 1\n" * (EXPOSITION_BYTES_MAX // 4 + 1), ["a"]) == {}


def test_whoever_says_so_reads_a_larger_one() -> None:
    text = b"# %b\na 1\n" % (b"x" * EXPOSITION_BYTES_MAX)
    assert samples(text, ["a"], len(text)) == {"a": [({}, 1.0)]}
    assert samples(text, ["a"], len(text) - 1) == {}


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(text: bytes) -> None:
    gauges(b"a" + text, ["a", "aa"])


def test_samples_keep_their_labels() -> None:
    text = b'a{x="1",y="}\\""} 2\na 3\nb{x="2"} NaN\n'
    assert samples(text, ["a", "b"]) == {"a": [({b"x": b"1", b"y": b'}\\"'}, 2.0), ({}, 3.0)]}
