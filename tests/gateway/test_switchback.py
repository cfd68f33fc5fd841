"""Two policies by turns in a gateway that serves: blocks are counted, harm is stopped, and nothing else notices."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import SURE, House, chat, house, local
from tidegate.cli.main import main
from tidegate.core.model import Segment
from tidegate.engines.fake import Script

QUICK, SLOW = Script(tokens=2), Script(tokens=2, first_s=0.4)
CLASSES = {"interactive": {"slo": {"ttft_ms": 200}, "worth_usd": 0.001}}
ALL_TO_SLOW = '[[rule]]\nname = "all"\nwhen = "prompt_tokens > 0"\nto = ["slow"]\n'
ALIKE = "[policy]\nseed = 17\n"

Told = dict[str, Any]


@asynccontextmanager
async def trying(folder: Path, candidate: str, **settings: float) -> AsyncIterator[House]:
    """A house with a quick and a slow engine, in which this is tried."""
    quick, slow = local(QUICK, prior=SURE, concurrency=64), local(SLOW, prior=SURE, concurrency=64)
    async with house(folder, quick=quick, slow=slow, classes=CLASSES) as home:
        await begin(home, candidate, **settings)
        yield home


async def begin(home: House, candidate: str, **settings: float) -> None:
    (home.folder / "candidate.toml").write_text(candidate)
    table = "".join(f"{name} = {value}\n" for name, value in settings.items())
    file = home.folder / "tidegate.toml"
    file.write_text(file.read_text() + f'\n[switchback]\npolicy = "candidate.toml"\n{table}')
    answer = await home.change("POST", "/api/config")
    assert answer.status == 200, answer.body


async def told(home: House) -> Told:
    found: Told = (await home.get("/api/switchback", admin=True)).json
    return found


def is_over(found: Told) -> bool:
    return bool(found["standing"]["verdict"] != "goes_on")


async def ask_until(
    home: House, over: Callable[[Told], bool], clients: int = 8, statuses: tuple[int, ...] = (200,)
) -> Told:
    """So many clients ask, one request after the other, until that is so."""
    found = await told(home)

    async def client() -> None:
        nonlocal found
        while not over(found):
            assert (await home.ask(chat())).status in statuses
            found = await told(home)

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def test_two_that_are_alike_have_their_turns_and_the_end_is_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05, pairs_max=4) as home:
        found = await ask_until(home, is_over)
        assert (found["candidate"], found["arm"], found["problem"]) == ("candidate.toml", "as_is", "")
        assert found["standing"]["verdict"] == "undecided"
        assert found["standing"]["pairs"] + found["standing"]["short"] == 4
        assert home.gateway.router.policy.seed == 0
        config = (await home.get("/api/config", admin=True)).json
        assert config["settings"]["policy"]["seed"] == 0
        events = [line["event"] for line in home.log("event")]
        assert events.count("switchback: one more pair") == 4
        assert events.count("switchback: over") == 1
        # What is in force is in the journal; where the last one of a pair begins the next, nothing changes.
        seeds = [line.fact.policy.seed for line in home.journal() if isinstance(line.fact, Segment)]
        assert 2 <= seeds.count(17) <= 4
        assert seeds[-1] == 0
    file = str(tmp_path / "tidegate.toml")
    assert main(["switchback", "--config", file]) == 0
    assert "All pairs are over" in capsys.readouterr().out
    assert main(["switchback", "--config", file, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == found["standing"]


async def test_what_was_found_outlives_a_reload_and_other_settings_begin_anew(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05, pairs_max=4) as home:
        found = await ask_until(home, is_over)
        assert (await home.change("POST", "/api/config")).status == 200
        assert await told(home) == found
        (home.folder / "candidate.toml").write_text("[policy]\nseed = 18\n")
        assert (await home.change("POST", "/api/config")).status == 200
        again = await told(home)
        assert again["standing"]["verdict"] == "goes_on"
        assert again["standing"]["pairs"] == 0


async def test_a_reload_that_takes_the_trial_out_leaves_the_settings_of_the_file(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05) as home:
        await ask_until(home, lambda found: bool(found["arm"] == "candidate"))
        assert home.gateway.router.policy.seed == 17
        file = home.folder / "tidegate.toml"
        file.write_text(file.read_text().split("[switchback]")[0])
        assert (await home.change("POST", "/api/config")).status == 200
        assert home.gateway.router.policy.seed == 0
        assert await told(home) is None


@pytest.mark.slow
async def test_a_candidate_that_keeps_next_to_nothing_is_stopped_within_its_block(tmp_path: Path) -> None:
    async with trying(tmp_path, ALL_TO_SLOW, block_s=4.0, washout_s=0.1) as home:
        found = await ask_until(home, is_over, clients=32, statuses=(200, 429, 503))
        assert (found["standing"]["verdict"], found["arm"]) == ("collapsed", "as_is")
        assert found["standing"]["pairs"] <= 1
        assert (await home.ask(chat())).endpoint == "quick"
        assert [line["level"] for line in home.log("event") if line["event"] == "switchback: over"] == ["warning"]


@pytest.mark.slow
async def test_harm_is_found_by_pairs_and_stopped(tmp_path: Path) -> None:
    # One in two requests goes where it is slow: too few for a collapse.
    half = ALL_TO_SLOW.replace("prompt_tokens > 0", "stream")
    async with trying(tmp_path, half, block_s=0.3, washout_s=0.03) as home:
        found = await told(home)

        async def client(number: int) -> None:
            nonlocal found
            while not is_over(found):
                assert (await home.ask(chat(stream=number % 3 == 0))).status in (200, 429, 503)
                await asyncio.sleep(0.05)  # clients think
                found = await told(home)

        await asyncio.gather(*(client(number) for number in range(12)))
        assert found["standing"]["verdict"] in ("harm", "collapsed")
        assert found["arm"] == "as_is"
        assert found["standing"]["as_is"]["kept"] > found["standing"]["candidate"]["kept"]


async def test_hands_on_the_wheel_say_nothing_of_a_policy(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05, pairs_max=4) as home:
        assert (await home.change("PUT", "/api/static")).status == 200
        found = await ask_until(home, is_over)
        assert (found["standing"]["pairs"], found["standing"]["short"]) == (0, 4)
        assert (await home.change("DELETE", "/api/static")).status == 200


async def test_a_file_that_is_broken_is_told_of_and_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "switchback.json").write_text("{")
    async with trying(tmp_path, ALIKE, block_s=600.0) as home:
        assert (await told(home))["standing"]["verdict"] == "goes_on"
        assert [line["level"] for line in home.log("event") if line["event"] == "switchback: begun anew"] == ["error"]


@pytest.mark.parametrize(
    ("candidate", "table", "said"),
    [
        (ALIKE, "washout_s = 900", "switchback.washout_s"),
        ("[policy]\nseeds = 1\n", "", "policy.seeds"),
        ("[endpoint.x]\n", "", "endpoint"),
        ('[[rule]]\nname = "a"\nwhen = "prompt_tokens > 0"\nto = ["nowhere"]\n', "", "nowhere"),
        (None, "", "there is no such file"),
    ],
)
async def test_a_trial_that_cannot_be_is_refused_with_all_that_is_wrong(
    tmp_path: Path, candidate: str | None, table: str, said: str
) -> None:
    async with house(tmp_path) as home:
        if candidate is not None:
            (tmp_path / "candidate.toml").write_text(candidate)
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text() + f'\n[switchback]\npolicy = "candidate.toml"\n{table}\n')
        answer = await home.change("POST", "/api/config")
        assert answer.status == 422
        assert said in answer.body.decode()
        assert await told(home) is None


def test_where_nothing_is_written_down_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["switchback", "--config", "examples/laptop.toml"]) == 1
    assert "write [switchback] policy" in capsys.readouterr().err
