"""What a client measures of an emulated link's rate is that rate: over real sockets, in real time."""

import pytest

from tests.http.conftest import Run, run
from tests.http.harness import Recorder, ask, pool, serving
from tidegate.lab.wan import LOCAL, Link, Wan

__all__ = ["run"]


async def told(wan: Wan, size: int) -> tuple[int, float, bool]:
    seen: list[tuple[int, float, bool]] = []
    async with pool(wan.address[1]) as to:
        # The emulated hand-shake takes its time only when the first bytes are there already.
        await ask(to)
        receiver = Recorder()
        to.send(
            b"POST",
            b"/",
            (),
            bytes(size),
            receiver,
            first_byte_timeout_s=30.0,
            idle_timeout_s=30.0,
            uploaded=lambda *what: seen.append(what),
        )
        await receiver.ended
        assert receiver.status == 200
    (only,) = seen
    return only


def seems(rate: float, size: int, seconds: float, at_most: bool) -> bool:
    return not at_most and size / seconds == pytest.approx(rate, rel=0.33)


@pytest.mark.lengthy
@pytest.mark.parametrize("rtt_s", [0.0, 0.05])
def test_the_rate_of_an_emulated_link_is_seen_and_its_changes_too(run: Run, rtt_s: float) -> None:
    """Four megabytes a second, and then a fifth of it, to a third.

    Twenty milliseconds in which a machine has other things to do are half of the first, so of five uploads in a row one
    is enough.
    """

    async def main() -> None:
        async with (
            serving(body_bytes_max=10_000_000) as server,
            Wan((LOCAL, 0), (LOCAL, server.port), Link(rtt_s=rtt_s, rate_bytes_per_s=4e6)) as wan,
        ):
            for rate in (4e6, 8e5):
                await wan.change(rate_bytes_per_s=rate)
                uploads: list[tuple[int, float, bool]] = []
                while not uploads or not seems(rate, *uploads[-1]):
                    assert len(uploads) < 5, uploads
                    uploads.append(await told(wan, 150_000))

    run(main())


def test_a_link_without_a_limit_does_not_seem_slow(run: Run) -> None:
    """Twenty milliseconds in which a machine has other things to do make one upload slow, and not five in a row."""

    async def main() -> None:
        async with (
            serving(body_bytes_max=10_000_000) as server,
            Wan((LOCAL, 0), (LOCAL, server.port), Link(rtt_s=0.05)) as wan,
        ):
            for size in (70_000, 150_000, 1_000_000):
                rates: list[float] = []
                while len(rates) < 5 and max(rates, default=0.0) <= 5e6:
                    done, seconds, _ = await told(wan, size)
                    rates.append(done / seconds)
                assert max(rates) > 5e6, rates

    run(main())
