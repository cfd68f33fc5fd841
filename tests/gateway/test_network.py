"""The way to an endpoint, as a gateway measures it: by what it sends there, and by looking when something is odd."""

from pathlib import Path

import pytest

from tests.gateway.harness import House, chat, house, local
from tests.http.harness import eventually
from tidegate.clock import Clock
from tidegate.core.model import Uploaded
from tidegate.core.network import RATE_LOOK_BYTES
from tidegate.engines.fake import FakeEngine, Script
from tidegate.gateway.probe import Prober
from tidegate.lab.wan import LOCAL, Link, Wan

PROMPT = "word " * 50_000  # 250 kB


def uploads(home: House) -> list[Uploaded]:
    return [line.fact for line in home.journal() if isinstance(line.fact, Uploaded)]


async def test_a_large_request_tells_the_rate_of_its_link(tmp_path: Path) -> None:
    rate = 2.5e6
    async with (
        FakeEngine(Script()) as engine,
        Wan((LOCAL, 0), (LOCAL, engine.port), Link(rtt_s=0.02, rate_bytes_per_s=rate)) as wan,
        house(tmp_path, far=local(url=wan.url, context_tokens=200_000)) as home,
    ):
        assert (await home.ask(chat(PROMPT))).status == 200
        (fact,) = uploads(home)
        assert not fact.at_most
        assert len(PROMPT) < fact.upload_bytes < len(PROMPT) + 2_000
        # Half as much again on a machine that has no time for us; bench/link_rate.py tells how well it does otherwise.
        assert rate / 1.5 < fact.upload_bytes / fact.seconds < rate * 1.5
        network = home.gateway.router.endpoint("far").network
        assert network.upload_bytes_per_s == fact.upload_bytes / fact.seconds
        lines = (await home.get("/metrics", admin=True)).body.decode().splitlines()
        (told,) = (line for line in lines if line.startswith('tidegate_upload_bytes_per_second{endpoint="far"} '))
        assert float(told.split()[1]) == network.upload_bytes_per_s
        state = (await home.get("/api/state", admin=True)).json["endpoints"]["far"]
        assert state["upload_bytes_per_s"] == network.upload_bytes_per_s


async def test_small_requests_are_not_timed(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for _ in range(3):
            assert (await home.ask(chat("word " * 10_000))).status == 200
        assert uploads(home) == []


async def test_what_something_near_takes_in_does_not_make_a_far_link_look_quick(tmp_path: Path) -> None:
    slow = {"upload_mbit_per_s": 1, "rtt_ms": 400, "sigma": 0.01}
    async with house(tmp_path, far=local(context_tokens=200_000, prior=slow)) as home:
        assert (await home.ask(chat(PROMPT))).status == 200
        assert uploads(home) == []
        assert home.gateway.router.endpoint("far").network.upload_bytes_per_s == 125_000.0


@pytest.mark.slow
async def test_a_round_trip_that_has_grown_is_known_within_seconds_though_no_probe_is_due(tmp_path: Path) -> None:
    async with (
        FakeEngine(Script()) as engine,
        Wan((LOCAL, 0), (LOCAL, engine.port), Link(rtt_s=0.01)) as wan,
        house(tmp_path, far=local(url=wan.url, engine="llamacpp")) as home,
    ):
        network = home.gateway.router.endpoint("far").network
        assert 0.01 <= network.rtt_s < 0.1
        await wan.change(rtt_s=0.5)
        assert (await home.ask(chat())).status == 200
        await eventually(lambda: network.rtt_s >= 0.5)
        assert len([seen for seen in network.state.rtts if seen.value >= 0.5]) == 2


@pytest.mark.lengthy
async def test_a_link_that_became_slow_is_found_quick_again_though_nothing_large_is_sent_there(tmp_path: Path) -> None:
    slow, quick = 400_000.0, 1e7
    async with (
        FakeEngine(Script()) as engine,
        Wan((LOCAL, 0), (LOCAL, engine.port), Link(rtt_s=0.02, rate_bytes_per_s=quick)) as wan,
        house(tmp_path, far=local(url=wan.url, context_tokens=200_000)) as home,
    ):
        network = home.gateway.router.endpoint("far").network
        assert (await home.ask(chat(PROMPT))).status == 200
        await wan.change(rate_bytes_per_s=slow)
        for _ in range(2):
            assert (await home.ask(chat(PROMPT))).status == 200
        assert network.upload_bytes_per_s < 2.0 * slow
        await wan.change(rate_bytes_per_s=quick)
        looks = 0
        # Two looks tell, where the machine does not stand still in one of them.
        while network.upload_bytes_per_s < 2.0 * slow and looks < 30:
            prober = Prober(home.gateway.dispatch, home.gateway.dispatch.upstreams["far"], 3600.0)
            prober._clock = Later(60.0 + 2.0 * looks)
            await prober.once()
            looks += 1
        assert network.upload_bytes_per_s > 2.0 * slow
        # A look at which nothing was due, or that a busy machine gave up, tells nothing.
        await eventually(lambda: any(not fact.request_id for fact in uploads(home)))
        told = [fact.upload_bytes for fact in uploads(home) if not fact.request_id]
        assert set(told) == {RATE_LOOK_BYTES}
        assert len(told) <= looks
        # Nobody was asked to compute anything.
        assert len(engine.seen) == 3


class Later(Clock):
    """So many seconds have passed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def now_s(self) -> float:
        return super().now_s() + self._seconds
