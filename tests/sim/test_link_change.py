"""What a world tells of its links, as a gateway would; and that a changed one is known within seconds."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import pytest

from tests import make as core
from tests.sim.make import profile
from tidegate.core.model import Endpoint, Line, Price, Probed, Request, Slo, Uploaded, replace
from tidegate.core.network import LOOK_S, UPLOAD_S_LEAST, UPLOAD_S_SURE
from tidegate.core.replay import replay
from tidegate.core.step import StepTime
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.place import Local
from tidegate.sim.world import World

ENGINE = profile(step=StepTime(base_s=0.02, per_token_s=1e-5), slots=64, batch_tokens=8192, kv_tokens=10**6)
CHANGE_S = 60.0
PROBE_S = 5.0


class Changing:
    """A way that is another one from `CHANGE_S` on."""

    def __init__(self, before: tuple[float, float], after: tuple[float, float]) -> None:
        self.down = False
        self._ways = [
            Link(LinkProfile(rtt_s=rtt_s, upload_bytes_per_s=rate, download_bytes_per_s=1e8), Chance(1), "way")
            for rtt_s, rate in (before, after)
        ]

    def _now(self, now_s: float) -> Link:
        return self._ways[now_s >= CHANGE_S]

    def sent(self, payload_bytes: int, now_s: float) -> float:
        return self._now(now_s).sent(payload_bytes, now_s)

    def upload_s(self, payload_bytes: int, now_s: float) -> float:
        return self._now(now_s).upload_s(payload_bytes, now_s)

    def answered(self, now_s: float) -> float:
        return self._now(now_s).answered(now_s)

    def rtt_s(self, now_s: float) -> float:
        return self._now(now_s).rtt_s(now_s)


class Steady:
    """One request after the other, all of them alike."""

    def __init__(self, prompt_bytes: int, every_s: float, count: int) -> None:
        self._request = core.request(prompt_tokens=prompt_bytes // 4, prompt_bytes=prompt_bytes)
        self._every_s, self._count = every_s, count

    def arrivals(self) -> Iterator[Job]:
        for number in range(self._count):
            request: Request = replace(self._request, id=f"r{number}", arrived_s=self._every_s * number)
            yield Job(request=request, prompt_tokens=request.prompt_tokens, output_tokens=20)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


def cloud(rtt_s: float, rate: float) -> Endpoint:
    prior = replace(core.REMOTE_PRIOR, overhead_s=0.02, prefill_s_per_token=1e-5, rtt_s=rtt_s, upload_bytes_per_s=rate)
    return core.endpoint("cloud", local=False, prior=prior)


def played(
    before: tuple[float, float], after: tuple[float, float], traffic: Steady, until_s: float = 1e6
) -> tuple[World, list[Line]]:
    lines: list[Line] = []
    world = World((cloud(*before),), core.policy(), journal=lines.append)
    place = Local("cloud", Engine(ENGINE), world.loop, world, Changing(before, after))
    world.run({"cloud": place}, traffic, probe_s=PROBE_S, until_s=until_s)
    assert replay(lines).difference is None
    return world, lines


def uploads(lines: list[Line]) -> list[Uploaded]:
    return [line.fact for line in lines if isinstance(line.fact, Uploaded)]


@pytest.mark.parametrize(
    ("prompt_bytes", "rate", "seconds"),
    [(100_000, 1e6, 0.1), (40_000, 1e6, 0.04), (1_500, 1e6, None), (40_000, 1e9, None)],
)
def test_what_is_large_or_long_is_told_with_the_time_that_its_bytes_took(
    prompt_bytes: int, rate: float, seconds: float | None
) -> None:
    _, lines = played((0.1, rate), (0.1, rate), Steady(prompt_bytes, 3.0, 3))
    told = uploads(lines)
    assert len(told) == (0 if seconds is None else 3)
    for fact in told:
        assert (fact.upload_bytes, fact.at_most) == (prompt_bytes, False)
        assert fact.seconds == pytest.approx(seconds)


def test_what_was_too_quick_to_be_timed_is_told_where_that_is_news() -> None:
    # Thought to be slow, and quick from then on: the first such transfers say that it is quicker.
    _, lines = played((0.1, 1e5), (0.1, 1e9), Steady(100_000, 3.0, 40))
    quick = [fact for fact in uploads(lines) if fact.at_most]
    assert 2 <= len(quick) <= 4
    assert all(fact.seconds == UPLOAD_S_LEAST < UPLOAD_S_SURE for fact in quick)


@pytest.mark.lengthy
@pytest.mark.parametrize("every_s", [0.5, 2.0])
@pytest.mark.parametrize(
    ("before", "after"),
    [((0.05, 1e6), (0.5, 1e6)), ((0.5, 1e6), (0.05, 1e6)), ((0.05, 1e6), (0.05, 1e5)), ((0.05, 1e5), (0.05, 1e6))],
    ids=["further", "nearer", "slower", "faster"],
)
def test_twenty_requests_after_a_link_has_changed_tenfold_ttft_is_predicted_again(
    every_s: float, before: tuple[float, float], after: tuple[float, float]
) -> None:
    world, _ = played(before, after, Steady(20_000, every_s, int(CHANGE_S / every_s) + 60))
    errors = [
        abs((outcome.predicted_s or 0.0) / (outcome.measured_s or 1.0) - 1.0)
        for outcome in world.outcomes
        if outcome.request.arrived_s >= CHANGE_S
    ]
    assert median(errors[20:40]) < 0.15
    assert median(errors[40:]) < 0.1


def test_a_round_trip_that_has_changed_is_looked_at_before_the_next_probe_is_due() -> None:
    _, lines = played((0.05, 1e6), (0.5, 1e6), Steady(2_000, 0.25, 280))
    seen = [line.at_s for line in lines if isinstance(line.fact, Probed) and (line.fact.rtt_s or 0.0) > 0.4]
    assert seen[1] - CHANGE_S < 0.5 + 2.0 * LOOK_S + 0.5
    # And once it is known, probes are as they were, after one more for what was late meanwhile.
    assert all(after - before == pytest.approx(PROBE_S) for before, after in pairwise(seen[3:]))


def test_a_world_that_is_over_ends_though_its_network_is_in_doubt() -> None:
    class Restless(Changing):
        """Each look finds another round trip."""

        def rtt_s(self, now_s: float) -> float:
            return 10.0 ** (int(now_s / LOOK_S) % 2)

    world = World((cloud(0.1, 1e6),), core.policy())
    place = Local("cloud", Engine(ENGINE), world.loop, world, Restless((0.1, 1e6), (0.1, 1e6)))
    world.run({"cloud": place}, Steady(2_000, 1.0, 20), probe_s=PROBE_S, until_s=1e9)
    assert len(world.outcomes) == 20
    assert world.loop.now_s < 1e4


def test_who_left_for_a_slow_link_is_back_within_seconds_of_its_end() -> None:
    """Nothing large is sent over a slow link, so nothing that is sent can tell that it is quick again."""
    slow, quick = (0.02, 250_000.0), (0.02, 12.5e6)
    prior = replace(core.LOCAL_PRIOR, prefill_s_per_token=6e-6)
    laptop = core.endpoint("laptop", prior=prior, usd_per_s=0.02, concurrency=8)
    world = World((laptop, replace(cloud(*quick), price=Price())), core.policy())
    engine = replace(ENGINE, step=StepTime(base_s=0.05, per_token_s=6e-6), batch_tokens=32_768)
    places = {
        "laptop": Local("laptop", Engine(engine), world.loop, world),
        "cloud": Local("cloud", Engine(ENGINE), world.loop, world, Changing(slow, quick)),
    }
    traffic = Steady(100_000, 0.5, 200)
    traffic._request = replace(traffic._request, slo=Slo(ttft_s=0.5), late_usd_per_s=0.0)
    world.run(places, traffic, probe_s=PROBE_S, until_s=1e6)
    served = [
        (one.request.arrived_s, one.endpoint) for one in sorted(world.outcomes, key=lambda o: o.request.arrived_s)
    ]
    assert {name for at_s, name in served if 10.0 <= at_s < CHANGE_S} == {"laptop"}
    assert {name for at_s, name in served if at_s >= CHANGE_S + 10.0} == {"cloud"}
    after = [name for at_s, name in served if at_s >= CHANGE_S]
    assert sum(a != b for a, b in pairwise(after)) <= 2
