"""What is left of a vendor's limits, as it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import Headroom
from tidegate.wire.headroom import read_headroom

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z

OPENAI = {
    b"x-ratelimit-limit-requests": b"60",
    b"x-ratelimit-limit-tokens": b"150000",
    b"x-ratelimit-remaining-requests": b"59",
    b"x-ratelimit-remaining-tokens": b"149984",
    b"x-ratelimit-reset-requests": b"1s",
    b"x-ratelimit-reset-tokens": b"6m0s",
}
ANTHROPIC = {
    b"anthropic-ratelimit-requests-limit": b"50",
    b"anthropic-ratelimit-requests-remaining": b"49",
    b"anthropic-ratelimit-requests-reset": b"2026-01-01T00:00:30Z",
    b"anthropic-ratelimit-input-tokens-limit": b"30000",
    b"anthropic-ratelimit-input-tokens-remaining": b"100",
    b"anthropic-ratelimit-input-tokens-reset": b"2026-01-01T00:01:00Z",
}


def test_what_openai_says() -> None:
    assert read_headroom(OPENAI, "cloud", lambda: NOW_S) == Headroom(
        endpoint="cloud",
        requests_left=59,
        requests_max=60,
        requests_full_s=1.0,
        tokens_left=149984,
        tokens_max=150000,
        tokens_full_s=360.0,
    )


def test_what_anthropic_says() -> None:
    assert read_headroom(ANTHROPIC, "cloud", lambda: NOW_S) == Headroom(
        endpoint="cloud",
        requests_left=49,
        requests_max=50,
        requests_full_s=30.0,
        tokens_left=100,
        tokens_max=30000,
        tokens_full_s=60.0,
    )


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"1s", 1.0),
        (b"20ms", 0.02),
        (b"6m0s", 360.0),
        (b"1h2m3.5s", 3723.5),
        (b"7.66s", 7.66),
        (b"12", 12.0),
        (b"0.5", 0.5),
        (b"", None),
        (b"soon", None),
        (b"-1s", None),
        (b"1s2m", None),
        (b"9" * 70, None),
    ],
)
def test_spans_of_time(said: bytes, seconds: float | None) -> None:
    told = read_headroom(OPENAI | {b"x-ratelimit-reset-requests": said}, "cloud", lambda: NOW_S)
    assert told is not None
    assert told.requests_full_s == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"2026-01-01T00:00:30Z", 30.0),
        (b"2026-01-01T01:00:30.5+01:00", 30.5),
        (b"2025-12-31T23:00:30-01:00", 30.0),
        (b"2025-12-31T23:59:00Z", 0.0),
        (b"2026-13-01T00:00:30Z", None),
        (b"2026-01-01T00:00:30", None),
        (b"0000-00-00T00:00:00Z", None),
        (b"tomorrow", None),
    ],
)
def test_times_of_day(said: bytes, seconds: float | None) -> None:
    told = read_headroom(ANTHROPIC | {b"anthropic-ratelimit-requests-reset": said}, "cloud", lambda: NOW_S)
    assert told is not None
    assert told.requests_full_s == (None if seconds is None else pytest.approx(seconds))


def test_where_nothing_is_said_nothing_is_known() -> None:
    assert read_headroom({b"content-type": b"text/event-stream"}, "laptop", lambda: NOW_S) is None


@given(st.dictionaries(st.sampled_from([*OPENAI, *ANTHROPIC]), st.binary(max_size=80), min_size=1))
def test_whatever_is_said_is_read_or_says_nothing(headers: dict[bytes, bytes]) -> None:
    told = read_headroom(headers, "cloud", lambda: NOW_S)
    if told is not None:
        for count in (told.requests_left, told.requests_max, told.tokens_left, told.tokens_max):
            assert count is None or 0 <= count < 10**12
        for seconds in (told.requests_full_s, told.tokens_full_s):
            assert seconds is None or seconds >= 0.0
