"""What was learned outlives the gateway, however it ends; and where it cannot, that is said once and nothing stops."""

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import House, Place, chat, house, local
from tests.http.harness import eventually
from tidegate.clock import Clock
from tidegate.core.counts import Lengths
from tidegate.core.model import Segment
from tidegate.core.state import State
from tidegate.engines.fake import FakeEngine, Script
from tidegate.state.checkpoint import Checkpoint
from tidegate.telemetry.journal import read, segments

FILE = "learned.sqlite"
INTERVAL_S = 1.0
BUSY_S = 5.0  # what a busy machine may take for one write
SLOW = Script(first_s=0.02, token_s=0.001, tokens=8)  # twenty times what it is believed to take


@asynccontextmanager
async def engine() -> AsyncIterator[Place]:
    """One engine that outlives the gateways before it, which find it where it was."""
    async with FakeEngine(SLOW) as running:
        yield local(url=running.url)


async def ask(home: House) -> None:
    """A few requests, streamed: only so does an answer show when its first content came."""
    for _ in range(5):
        assert (await home.ask(chat("word " * 200, stream=True))).status == 200


def state(home: House) -> State:
    return msgspec.json.decode(home.gateway.router.snapshot(), type=State)


async def predicted_ms(home: House) -> float:
    """What a request is predicted to take to its first content."""
    answer = await home.ask(x_tidegate_dry_run="1")
    (candidate,) = answer.json["candidates"]
    return float(candidate["estimate"]["ttft_s"]) * 1000


def snapshots(folder: Path) -> list[Checkpoint]:
    """The newest first, as another process reads them."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        rows = db.execute("SELECT body FROM snapshot ORDER BY number DESC").fetchall()
    return [msgspec.json.decode(body, type=Checkpoint) for (body,) in rows]


def kept(folder: Path) -> bool:
    return any(path.name.startswith(FILE) for path in folder.iterdir())


async def shown(home: House) -> Any:
    return (await home.get("/api/state", admin=True)).json["learned"]


def told(home: House) -> list[dict[str, Any]]:
    """The events about learned state."""
    return [event for event in home.log("event") if event["event"].startswith("learned state")]


async def test_the_second_run_predicts_from_what_the_first_one_learned(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, laptop=place) as first:
            unlearned_ms = await predicted_ms(first)
            await ask(first)
            learned_ms, before = await predicted_ms(first), state(first)
            ratio = bytes_per_token(first)
            assert told(first) == []
        async with house(tmp_path, laptop=place) as second:
            restored_ms, after = await predicted_ms(second), state(second)
            assert bytes_per_token(second) == pytest.approx(ratio)
            (event,) = told(second)
            seen = await shown(second)
    assert learned_ms > 5 * unlearned_ms
    # A probe of the new run has measured the round trip once more.
    assert restored_ms == pytest.approx(learned_ms, rel=0.2)
    assert known(after) == known(before)
    assert before.lengths.counts
    assert after.lengths.counts == before.lengths.counts
    assert (event["level"], event["event"], event["endpoints"]) == ("info", "learned state restored", 1)
    assert 0.0 < event["age_s"] < 30.0
    assert seen["file"] == str(tmp_path / FILE)
    assert seen["restored_at_s"] is not None
    assert (seen["dropped"], seen["refused"], seen["problem"]) == ([], "", "")


async def test_the_journal_of_the_second_run_begins_with_the_restored_state_and_both_replay(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, laptop=place) as first:
            await ask(first)
            before = state(first)
        async with house(tmp_path, laptop=place) as second:  # which replays all of the journal when it is left
            await ask(second)
    files = segments(tmp_path / "journal")
    assert len(files) == 2
    header = next(iter(read(files[1]))).fact
    assert isinstance(header, Segment)
    began = msgspec.json.decode(header.state, type=State)
    assert known(began) == known(before)
    assert began.endpoints["laptop"].reservations == {}


def known(state: State) -> tuple[object, ...]:
    """What was learned of the laptop, but for promises, which have loosened meanwhile."""
    ttft, tpot = state.endpoints["laptop"].ttft, state.endpoints["laptop"].tpot
    assert ttft is not None
    assert tpot is not None
    return ttft.sums, ttft.cells, tpot.sums, tpot.cells


def bytes_per_token(home: House) -> float:
    ratio = home.gateway.dispatch.ratios["m"]
    return ratio.bytes_sum / ratio.tokens_sum


def learned(home: House) -> bool:
    ttft = state(home).endpoints["laptop"].ttft
    return ttft is not None and any(cell.weight for cell in ttft.cells)


async def test_an_endpoint_that_changed_begins_anew_and_is_named(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, laptop=place) as first:
            await ask(first)
        place.settings["concurrency"] = 2
        async with house(tmp_path, laptop=place) as second:
            assert not learned(second)
            assert state(second).lengths.counts
            assert [event["dropped"] for event in told(second)] == ["laptop"]
            assert (await shown(second))["dropped"] == ["laptop"]


async def test_another_policy_begins_anew_and_says_why_once_and_where_it_is_looked_for(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, laptop=place) as first:
            await ask(first)
        async with house(tmp_path, policy={"quantile": 0.95}, laptop=place) as second:
            assert state(second).lengths == Lengths()
            (event,) = told(second)
            seen = await shown(second)
            await ask(second)
        async with house(tmp_path, policy={"quantile": 0.95}, laptop=place) as third:
            assert state(third).lengths.counts
    assert (event["level"], event["event"], event["saving"]) == ("warning", "learned state refused", True)
    assert event["reason"] == seen["refused"]
    assert "policy.quantile was 0.9 and is 0.95" in event["reason"]


@pytest.mark.lengthy
async def test_a_damaged_newest_snapshot_costs_the_time_since_the_one_before(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, gateway={"state_s": 1}, laptop=place) as first:
            await ask(first)
            await eventually(lambda: len(snapshots(tmp_path)) > 0)
        assert len(snapshots(tmp_path)) > 1
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            db.execute("UPDATE snapshot SET body = substr(body, 2) WHERE number = (SELECT max(number) FROM snapshot)")
            db.commit()
        async with house(tmp_path, laptop=place) as second:
            assert learned(second)
            (event,) = told(second)
    assert event["level"] == "warning"
    assert "checksum" in event["skipped"]


async def test_a_breaker_that_is_open_stays_open_over_a_restart(tmp_path: Path) -> None:
    async with FakeEngine(Script(status=500)) as running:
        place = local(url=running.url)
        async with house(tmp_path, laptop=place) as first:
            for _ in range(3):
                assert (await first.ask()).status == 502
            assert (await first.ask()).error["code"] == "no_endpoint_available"
            until_s = state(first).endpoints["laptop"].breaker.open_until_s
        async with house(tmp_path, laptop=place) as second:
            asked = len(running.seen)
            assert (await second.ask()).error["code"] == "no_endpoint_available"
            assert len(running.seen) == asked
            assert state(second).endpoints["laptop"].breaker.open_until_s == until_s


async def test_a_clock_that_was_set_back_makes_nothing_older_and_is_told(tmp_path: Path) -> None:
    behind = Clock()
    behind._offset_s -= 3600.0
    async with engine() as place:
        async with house(tmp_path, laptop=place) as first:
            await ask(first)
        async with house(tmp_path, clock=behind, laptop=place) as second:
            (event,) = told(second)
            seen = await shown(second)
            assert learned(second)
            await ask(second)
    assert event["level"] == "warning"
    assert event["age_s"] == seen["age_s"] == 0.0
    assert event["clock_went_back_s"] == seen["ahead_s"] == pytest.approx(3600.0, abs=30.0)


async def test_where_the_file_cannot_be_used_one_event_says_so_and_the_gateway_serves(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    async with house(tmp_path, gateway={"state": "taken/learned"}) as home:
        await ask(home)
        (event,) = told(home)
        seen = await shown(home)
    assert (event["level"], event["event"], event["saving"]) == ("warning", "learned state refused", False)
    assert str(tmp_path / "taken") in event["reason"]
    assert (seen["file"], seen["refused"]) == (None, event["reason"])


async def test_two_gateways_do_not_share_a_file_and_the_second_says_so(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    shared = {"state": str(tmp_path / FILE)}
    async with house(one, gateway=shared) as first, house(two, gateway=shared) as second:
        await asyncio.gather(ask(first), ask(second))
        assert told(first) == []
        (event,) = told(second)
    assert "open in another process" in event["reason"]


async def test_a_full_disk_is_said_once_and_what_is_learned_is_saved_when_there_is_room(tmp_path: Path) -> None:
    async with engine() as place, house(tmp_path, laptop=place) as home:
        keeper = home.gateway.keeper
        file = keeper._file
        assert file is not None
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The log and the journal are smaller than this, and the snapshot is not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            for _ in range(3):
                await keeper._save(file)
            seen = await shown(home)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await ask(home)
        (event,) = told(home)
        assert (event["level"], event["event"]) == ("error", "learned state not saved")
        assert seen["problem"] == event["reason"]
        assert seen["saved_at_s"] is None
        await keeper._save(file)
        assert (await shown(home))["problem"] == ""
        assert len(told(home)) == 1
        assert snapshots(tmp_path)[0].at_s == (await shown(home))["saved_at_s"]


@pytest.mark.parametrize("gateway", [{"state": ""}, {"journal": ""}])
async def test_switched_off_or_without_a_journal_nothing_is_kept(tmp_path: Path, gateway: dict[str, Any]) -> None:
    async with house(tmp_path, gateway=gateway) as home:
        await ask(home)
        seen = await shown(home)
    assert seen["file"] is None
    assert not kept(tmp_path)


async def test_settings_that_a_reload_changes_are_written_down_at_once_with_what_was_learned(tmp_path: Path) -> None:
    async with engine() as place, house(tmp_path, laptop=place) as home:
        await ask(home)
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace("[policy]", "[policy]\nquantile = 0.8"))
        assert (await home.change("POST", "/api/config")).status == 200
        # Far from the next interval: who is killed now has lost nothing.
        await eventually(lambda: [one.policy["quantile"] for one in snapshots(tmp_path)] == [0.8])
        assert msgspec.json.decode(snapshots(tmp_path)[0].state, type=State).endpoints["laptop"].ttft is not None


@pytest.mark.lengthy
async def test_a_killed_gateway_loses_no_more_than_the_interval(tmp_path: Path) -> None:
    async with engine() as place:
        async with house(tmp_path, gateway={"state_s": INTERVAL_S}, laptop=place) as home:
            clock = home.gateway.clock
        saved_s, killed_s = await killed(tmp_path / "tidegate.toml", clock)
        async with house(tmp_path, gateway={"state_s": INTERVAL_S}, laptop=place) as home:
            restored = home.gateway.keeper.restored
    assert restored.refused == restored.skipped == ""
    assert restored.at_s is not None
    assert saved_s < restored.at_s <= killed_s
    assert killed_s - restored.at_s < INTERVAL_S + BUSY_S


async def killed(config: Path, clock: Clock) -> tuple[float, float]:
    """Runs a gateway of its own process; when it had saved once, and when it was killed half-way to the third time."""
    started_s = clock.now_s()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate.cli.main", "serve", "--config", str(config), stderr=subprocess.DEVNULL
    )
    try:
        await eventually(lambda: snapshots(config.parent)[0].at_s > started_s)
        saved_s = snapshots(config.parent)[0].at_s
        await eventually(lambda: snapshots(config.parent)[0].at_s > saved_s)
        await eventually(lambda: clock.now_s() > snapshots(config.parent)[0].at_s + INTERVAL_S / 2)
    finally:
        process.kill()
        await process.wait()
    return saved_s, clock.now_s()
