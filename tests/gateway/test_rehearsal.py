"""The simulator is held against the gateway's own journal now and then, and what that says is published."""

from pathlib import Path

import pytest

from tests.cli.test_backtest import written
from tests.gateway.harness import house
from tests.http.harness import eventually
from tests.sim.week import Week


@pytest.mark.lengthy
async def test_what_the_simulator_is_off_is_in_metrics_and_state(tmp_path: Path) -> None:
    journal = written(tmp_path / "other", Week(count=500).lines)
    async with house(tmp_path) as home:
        await home.gateway.rehearsal.look(journal)
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_simulator_drifted{figure="dollars"} 0.0' in metrics
        assert 'tidegate_simulator_error{figure="ttft"}' in metrics
        told = (await home.get("/api/state", admin=True)).json["simulator"]
        assert told["problem"] == ""
        assert {one["figure"] for one in told["off"]} == {"kept", "away", "dollars", "ttft", "e2e"}


@pytest.mark.lengthy
async def test_drift_is_an_event_of_its_own(tmp_path: Path) -> None:
    slow = Week(count=900, befalls=lambda world, _, api: world.loop.at(1_045.0, setattr, api.api, "slowdown", 8.0))
    journal = written(tmp_path / "other", slow.lines)
    async with house(tmp_path) as home:
        await home.gateway.rehearsal.look(journal)
        (event,) = [line for line in home.log("event") if line["event"].startswith("simulator drifted")]
        assert event["level"] == "warning"
        assert event["e2e"] < -0.25
        assert 'tidegate_simulator_drifted{figure="e2e"} 1.0' in (await home.get("/metrics", admin=True)).body.decode()


@pytest.mark.lengthy
async def test_a_gateway_that_is_told_to_looks_by_itself_and_says_why_there_is_nothing_to_see(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"backtest_s": 0.05}) as home:
        await eventually(lambda: home.gateway.rehearsal.last is not None)
        told = (await home.get("/api/state", admin=True)).json["simulator"]
        assert "too few" in told["problem"]
        assert told["off"] == []
        # What is not known is not published.
        assert "tidegate_simulator" not in "".join(
            line for line in (await home.get("/metrics", admin=True)).body.decode().splitlines() if line[:1] != "#"
        )
