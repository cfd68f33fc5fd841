"""How long requests take to get there: as exactly as the looks are close, and never for a quick one that was slow."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.conftest import Run
from tests.http.harness import Recorder, always, pool, serving, upstream
from tests.http.test_client_faults import client_tls, server_tls
from tidegate.http.upload import LOOK_S_MIN, LOOK_SHARE_BEFORE, SURE_GAPS, SURE_S, Pace

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Acknowledged = Callable[[float], float]
sizes = st.integers(16_000, 4_000_000)
rates = st.floats(5e4, 5e7)
rtts_s = st.floats(0.0, 0.4)


def told(size: int, acknowledged: Acknowledged, until_s: float = 1e4) -> tuple[int, float, bool] | None:
    """What is told of a request of which so much was acknowledged after so many seconds, looked at as it is."""
    pace, at_s = Pace(size), LOOK_S_MIN
    while at_s < until_s:
        done = min(size, max(0, int(acknowledged(at_s))))
        if done == size:
            return pace.took(at_s, done)
        pace.look(at_s, done)
        at_s += pace.again_s(at_s)
    return pace.took(until_s, min(size, max(0, int(acknowledged(until_s)))))


@given(sizes, rates, rtts_s)
@settings(max_examples=300, deadline=None)
def test_a_steady_link_is_timed_as_exactly_as_the_looks_are_close(size: int, rate: float, rtt_s: float) -> None:
    found = told(size, lambda at_s: (at_s - rtt_s) * rate)
    assert found is not None
    done, seconds, at_most = found
    true_s = size / rate
    assert done == size
    if at_most:
        assert seconds >= true_s
        assert true_s < max(SURE_S, SURE_GAPS * LOOK_SHARE_BEFORE * rtt_s) + 2.0 * LOOK_S_MIN
    else:
        assert seconds == pytest.approx(true_s, rel=0.1, abs=3.0 * LOOK_S_MIN)


@given(st.integers(200_000, 4_000_000), st.floats(5e4, 2.5e6), rtts_s)
def test_a_long_transfer_is_timed_to_a_tenth_wherever_it_goes(size: int, rate: float, rtt_s: float) -> None:
    found = told(size, lambda at_s: (at_s - rtt_s) * rate)
    assert found is not None
    if size / rate > rtt_s:
        assert (found[0], found[2]) == (size, False)
        assert found[1] == pytest.approx(size / rate, rel=0.1)


@given(st.integers(128_000, 4_000_000), st.floats(5e4, 2e6), st.integers(0, 40_000))
def test_what_something_near_takes_in_at_once_has_not_been_carried_yet(size: int, rate: float, near: int) -> None:
    found = told(size, lambda at_s: near + at_s * rate)
    assert found is not None
    assert found[1] == pytest.approx(size / rate, rel=0.1)


def test_a_connection_that_begins_slowly_is_timed_as_it_was() -> None:
    """Ten packets, then twice as many with each round trip of 100 ms: 128 KiB need four, and the last one ends it."""
    windows = [14_600 * (2**n - 1) for n in range(10)]
    found = told(131_072, lambda at_s: windows[min(9, int(at_s / 0.1))])
    assert found is not None
    assert found[1] == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("near", [60_000, 99_000, 100_000])
def test_where_most_is_there_at_once_the_rest_does_not_tell_the_pace_of_all(near: int) -> None:
    found = told(100_000, lambda at_s: near + at_s * 1e6)
    assert found is not None
    assert found[2]


def test_what_was_cut_short_tells_of_what_had_got_there() -> None:
    found = told(1_000_000, lambda at_s: (at_s - 0.05) * 1e5, until_s=2.05)
    assert found is not None
    assert found[0] == pytest.approx(200_000, rel=1e-3)
    assert found[1] == pytest.approx(2.0, rel=0.05)
    assert not found[2]


def test_a_stall_counts() -> None:
    found = told(1_000_000, lambda at_s: min(200_000.0, (at_s - 0.05) * 1e6), until_s=10.0)
    assert found is not None
    assert found[0] / found[1] < 25_000


@pytest.mark.parametrize("acknowledged", [0, 30_000])
def test_of_what_was_cut_short_before_it_moved_nothing_is_known(acknowledged: int) -> None:
    assert told(1_000_000, lambda _: acknowledged, until_s=0.5) is None


# --- on real connections ----------------------------------------------------------------------------------------------


def test_a_large_request_is_told_of_once_and_before_its_response(run: Run) -> None:
    async def main() -> None:
        seen: list[tuple[int, float, bool]] = []
        calls: list[list[str]] = []
        async with upstream(always(OK)) as up, pool(up.port) as to:
            for _ in range(3):
                receiver = Recorder()

                def uploaded(size: int, seconds: float, at_most: bool, receiver: Recorder = receiver) -> None:
                    seen.append((size, seconds, at_most))
                    calls.append(receiver.calls.copy())

                to.send(
                    b"POST",
                    b"/",
                    (),
                    bytes(300_000),
                    receiver,
                    first_byte_timeout_s=5.0,
                    idle_timeout_s=5.0,
                    uploaded=uploaded,
                )
                await receiver.ended
                assert receiver.body == b"ok"
        assert calls == [[], [], []]
        assert all(300_000 < size < 301_000 and 0.0 < seconds < 5.0 for size, seconds, _ in seen)

    run(main())


def test_through_tls_too(run: Run) -> None:
    async def main() -> None:
        seen: list[tuple[int, float, bool]] = []
        async with (
            serving(tls=server_tls("engine.test"), body_bytes_max=10_000_000) as server,
            pool(server.port, tls=client_tls(), server_name="engine.test") as to,
        ):
            receiver = Recorder()
            to.send(
                b"POST",
                b"/",
                (),
                bytes(3_000_000),
                receiver,
                first_byte_timeout_s=5.0,
                idle_timeout_s=5.0,
                uploaded=lambda *what: seen.append(what),
            )
            await receiver.ended
            assert len(receiver.body) == 3_000_000
        assert [3_000_000 < size < 3_001_000 for size, _, _ in seen] == [True]

    run(main())


def test_a_request_that_is_cancelled_tells_no_more(run: Run) -> None:
    async def main() -> None:
        seen: list[tuple[int, float, bool]] = []
        async with upstream(always(OK)) as up, pool(up.port) as to:
            call = to.send(
                b"POST",
                b"/",
                (),
                bytes(300_000),
                Recorder(),
                first_byte_timeout_s=5.0,
                idle_timeout_s=5.0,
                uploaded=lambda *what: seen.append(what),
            )
            call.cancel()
            assert call.upload is None
            told_so_far = len(seen)
            other = Recorder()
            to.send(b"POST", b"/", (), b"x", other, first_byte_timeout_s=5.0, idle_timeout_s=5.0)
            await other.ended
            assert len(seen) == told_so_far == 0

    run(main())
