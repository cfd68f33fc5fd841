"""Two policies by turns in a gateway that serves: blocks are counted, harm is stopped, and nothing else notices."""

import asyncio
import errno
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import make as core
from tests.gateway.harness import SURE, House, chat, house, local
from tests.gateway.test_reload import edit
from tests.http.harness import eventually
from tidegate.cli.main import main
from tidegate.clock import Clock
from tidegate.config.load import load, load_unreached
from tidegate.config.secret import Secret
from tidegate.core.model import Ending, Segment, Slo, replace
from tidegate.core.switchback import Arm, Verdict
from tidegate.engines.fake import Script
from tidegate.gateway import switchback as module
from tidegate.gateway.app import Gateway
from tidegate.gateway.switchback import Switchback, Wanted
from tidegate.gateway.trial import Block, FileError, Lock, read, settings_of, write
from tidegate.telemetry.log import Log

QUICK, SLOW = Script(tokens=2), Script(tokens=2, first_s=0.4)
CLASSES = {"interactive": {"slo": {"ttft_ms": 200}, "worth_usd": 0.001}}
ALL_TO_SLOW = '[[rule]]\nname = "all"\nwhen = "prompt_tokens > 0"\nto = ["slow"]\n'
ALIKE = "[policy]\nseed = 17\n"

CONFIG = """
[site.home]
local = true
[endpoint.desk]
site = "home"
engine = "fake"
serves = ["m"]
context_tokens = 8192
[class.interactive]
slo = { ttft_ms = 1000 }
worth_usd = 0.002
worth_usd_per_1k_tokens = 0.004
[class.aimed]
slo = { ttft_ms = 1000 }
attainment = 0.9
[switchback]
policy = "candidate.toml"
"""
LOOSER = """
[class.interactive]
slo = { ttft_ms = 9000 }
worth_usd = 1
[class.aimed]
slo = { ttft_ms = 1000 }
attainment = 0.9
"""

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


def is_turn_of(arm: str) -> Callable[[Told], bool]:
    return lambda found: bool(found["arm"] == arm)


async def ask_until(
    home: House,
    over: Callable[[Told], bool],
    clients: int = 8,
    statuses: tuple[int, ...] = (200,),
    *,
    stream: bool = False,
) -> Told:
    """So many clients ask, one request after the other, until that is so."""
    found = await told(home)

    async def client() -> None:
        nonlocal found
        while not over(found):
            assert (await home.ask(chat(stream=stream))).status in statuses
            await asyncio.sleep(0.1)  # clients think, and time that is virtual goes on
            found = await told(home)

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


@pytest.mark.lengthy
@pytest.mark.virtual
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
        arms = [line["arm"] for line in home.log("event") if line["event"] == "switchback: in force"]
        assert set(arms) == {"as_is", "candidate"}
    file = str(tmp_path / "tidegate.toml")
    assert main(["switchback", "--config", file]) == 0
    assert "All pairs are over" in capsys.readouterr().out
    assert main(["switchback", "--config", file, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == found["standing"] | {"problem": ""}
    # Of another candidate it says nothing.
    (tmp_path / "candidate.toml").write_text("[policy]\nseed = 18\n")
    assert main(["switchback", "--config", file]) == 1
    assert "is of other settings" in capsys.readouterr().err


@pytest.mark.virtual
async def test_what_was_found_outlives_a_reload_and_other_settings_begin_anew(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05, pairs_max=4) as home:
        found = await ask_until(home, is_over)
        assert (await home.change("POST", "/api/config")).status == 200
        assert await told(home) == found
        (home.folder / "candidate.toml").write_text("[policy]\nseed = 18\n")
        outcome = (await home.change("POST", "/api/config")).json
        assert [change["path"] for change in outcome["changes"]] == ["switchback.candidate.policy.seed"]
        again = await told(home)
        assert again["standing"]["verdict"] == "goes_on"
        assert again["standing"]["pairs"] == 0


async def _small_steps() -> None:
    while True:  # noqa: ASYNC110 - nobody is waited for
        await asyncio.sleep(0.01)


@pytest.mark.lengthy
@pytest.mark.virtual
async def test_reloads_that_change_nothing_cut_no_pair_however_often_they_come(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=3.0, washout_s=0.05, pairs_max=4) as home:
        # Time goes on in small steps: while the kernel has yet to bring what was sent, none ends a block.
        steps = asyncio.create_task(_small_steps())
        for arm, seed in (("as_is", 0), ("candidate", 17)):
            await ask_until(home, is_turn_of(arm))
            assert (await home.change("POST", "/api/config")).status == 200
            assert (await told(home))["arm"] == arm
            assert home.gateway.router.policy.seed == seed

        steps.cancel()

        async def reloads() -> None:
            while not is_over(await told(home)):
                assert (await home.change("POST", "/api/config")).status == 200
                await asyncio.sleep(0.1)

        async with asyncio.timeout(60.0):
            await asyncio.gather(reloads(), ask_until(home, is_over))
        assert home.gateway.router.policy.seed == 0


def test_a_trial_goes_on_with_a_secret_that_is_another(tmp_path: Path) -> None:
    switchback = tried(tmp_path)
    trial, config = switchback._trial, load_unreached(tmp_path / "tidegate.toml")
    assert trial is not None
    trial.arm = Arm.CANDIDATE
    assert config.candidate is not None
    secrets = {"desk": Secret("sk-later")}
    other = msgspec.structs.replace(
        config, secrets=secrets, candidate=msgspec.structs.replace(config.candidate, secrets=secrets)
    )
    assert switchback.turn_of(other) is other.candidate
    switchback.configure(other, other.candidate)
    assert switchback._trial is trial
    assert trial.settings_for(Arm.CANDIDATE) is other.candidate


@pytest.mark.parametrize("writable", [True, False])
async def test_a_candidate_that_is_stopped_while_a_reload_is_under_way_is_taken_back_after_it(
    tmp_path: Path, writable: bool
) -> None:
    switchback = tried(tmp_path)
    trial, config, file = switchback._trial, load_unreached(tmp_path / "tidegate.toml"), tmp_path / "switchback.json"
    assert trial is not None
    trial.arm, under_way, puts = Arm.CANDIDATE, asyncio.Lock(), list[Any]()

    async def put(wanted: Wanted) -> bool:
        async with under_way:
            puts.append(wanted())
        return puts[-1] is not None

    switchback._put = put
    if not writable:
        (tmp_path / "switchback.json.new").mkdir()
    async with under_way:
        in_force = switchback.turn_of(config)
        assert in_force is config.candidate
        end = asyncio.create_task(switchback._end(trial, Verdict.COLLAPSED))
        await eventually(lambda: bool(trial.problem) or file.exists())
        switchback.configure(config, in_force)
    await end
    assert puts[-1] is config
    found = switchback.told
    assert found is not None
    assert (found.arm, found.standing.verdict) == (Arm.AS_IS, Verdict.COLLAPSED)
    assert found.problem == ("" if writable else f"{trial.file} cannot be written: Is a directory")
    assert switchback.turn_of(config) is config


async def test_a_trial_that_other_settings_end_is_told_of(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=600.0) as home:
        edit(home, "decide_budget_ms = 1000", "decide_budget_ms = 999")
        assert (await home.change("POST", "/api/config")).status == 200
        (line,) = [line for line in home.log("event") if line["event"] == "switchback: begins anew"]
        assert (line["level"], line["pairs"]) == ("warning", 0)


async def test_a_reload_that_takes_the_trial_out_leaves_the_settings_of_the_file(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05) as home:
        await ask_until(home, lambda found: bool(found["arm"] == "candidate"))
        assert home.gateway.router.policy.seed == 17
        file = home.folder / "tidegate.toml"
        file.write_text(file.read_text().split("[switchback]")[0])
        assert (await home.change("POST", "/api/config")).status == 200
        assert home.gateway.router.policy.seed == 0
        assert await told(home) is None


@pytest.mark.lengthy
@pytest.mark.virtual
async def test_a_candidate_that_keeps_next_to_nothing_is_cut_short_and_the_second_time_stopped(tmp_path: Path) -> None:
    async with trying(tmp_path, ALL_TO_SLOW, block_s=2.0, washout_s=0.0) as home:
        found = await ask_until(home, is_over, clients=40, statuses=(200, 429, 503), stream=True)
        assert (found["standing"]["verdict"], found["arm"]) == ("collapsed", "as_is")
        assert (await home.ask(chat())).endpoint == "quick"
        told = [line for line in home.log("event") if line["event"].startswith("switchback: ")]
        assert [line["level"] for line in told if line["event"] == "switchback: over"] == ["warning"]
        # Whose turn is first is drawn: there may be nothing yet that the first one could be held against.
        names = [line["event"].removeprefix("switchback: ") + line.get("arm", "") for line in told]
        blocks = " ".join(name for name in names if name != "one more pair")
        cut = "in forcecandidate a block was cut in forceas_is"
        stopped = "in forcecandidate over in forceas_is"
        assert blocks.removeprefix("in forcecandidate in forceas_is ") == f"{cut} {stopped}"


@pytest.mark.slow
@pytest.mark.virtual
async def test_harm_is_found_by_pairs_and_stopped(tmp_path: Path) -> None:
    # One in two requests goes where it is slow: too few for a collapse.
    half = ALL_TO_SLOW.replace("prompt_tokens > 0", "stream")
    async with trying(tmp_path, half, block_s=0.3, washout_s=0.03) as home:
        found = await told(home)

        async def client(number: int) -> None:
            nonlocal found
            while not is_over(found):
                assert (await home.ask(chat(stream=number % 3 == 0))).status in (200, 429, 503)
                await asyncio.sleep(0.1)  # clients think
                found = await told(home)

        await asyncio.gather(*(client(number) for number in range(12)))
        assert found["standing"]["verdict"] in ("harm", "collapsed")
        assert found["arm"] == "as_is"
        assert found["standing"]["as_is"]["kept"] > found["standing"]["candidate"]["kept"]


@pytest.mark.virtual
async def test_hands_on_the_wheel_say_nothing_of_a_policy(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05, pairs_max=4) as home:
        assert (await home.change("PUT", "/api/static")).status == 200
        found = await ask_until(home, is_over)
        assert (found["standing"]["pairs"], found["standing"]["short"]) == (0, 4)
        assert (await home.change("DELETE", "/api/static")).status == 200


def test_a_setting_that_waits_for_a_restart_makes_no_other_trial(tmp_path: Path) -> None:
    (tmp_path / "candidate.toml").write_text(LOOSER)
    file, digests = tmp_path / "tidegate.toml", []
    for gateway in ("", "log = 'other.log'\n", "request_timeout_s = 599\n"):
        file.write_text(f"[gateway]\n{gateway}{CONFIG}")
        digests.append(settings_of(load_unreached(file)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("content", ["{", "[policy]\n", '{"version": 99, "settings": "a", "seed": 1}'])
async def test_a_file_that_is_no_trials_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "switchback.json").write_text(content)
    async with trying(tmp_path, ALIKE, block_s=600.0) as home:
        found = await told(home)
        assert "move it away, or name another file" in found["problem"]
        assert found["arm"] == "as_is"
        assert (tmp_path / "switchback.json").read_text() == content


def test_what_is_written_of_a_trial_is_on_the_disk_before_it_has_its_name_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, synced = tmp_path / "switchback.json", list[tuple[Path, bytes]]()
    file.write_bytes(b"before")
    sync = os.fsync

    def synced_with(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").readlink(), file.read_bytes()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", synced_with)
    write(file, b"after")
    assert synced == [(tmp_path / "switchback.json.new", b"before"), (tmp_path, b"after")]


async def test_two_gateways_do_not_try_with_one_file(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    async with house(tmp_path / "one", classes=CLASSES) as one, house(tmp_path / "other", classes=CLASSES) as other:
        await begin(one, ALIKE, block_s=600.0)
        (tmp_path / "other" / "switchback.json.lock").symlink_to(tmp_path / "one" / "switchback.json.lock")
        await begin(other, ALIKE, block_s=600.0)
        assert (await told(one))["problem"] == ""
        assert "open in another process" in (await told(other))["problem"]
        assert other.gateway.router.policy.seed == 0


def unlocked(_file: int, _operation: int) -> None:
    """As over a network whose server knows no locks."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


async def test_where_files_cannot_be_locked_no_other_gateway_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, classes=CLASSES) as home:
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", unlocked)
            await begin(home, ALIKE, block_s=600.0)
        problem = (await told(home))["problem"]
    assert "switchback.json: it cannot be locked: No locks available" in problem
    assert "another process" not in problem


async def test_a_reload_that_is_under_way_is_not_undone_by_a_turn_that_waited_for_it(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05) as home:
        await ask_until(home, lambda found: bool(found["arm"] == "candidate"))
        switchback, reloader = home.gateway.switchback, home.gateway.reloader
        trial, file = switchback._trial, home.folder / "tidegate.toml"
        assert trial is not None
        file.write_text(file.read_text().split("[switchback]")[0])
        async with reloader._lock:
            # The reload waits first, and the turn behind it.
            reload = asyncio.create_task(reloader.reload("a test"))
            await asyncio.sleep(0)
            turn = asyncio.create_task(switchback._in_force(trial, Arm.CANDIDATE))
            await asyncio.sleep(0)
        await reload
        assert not await turn
        assert await told(home) is None
        assert home.gateway.router.policy.seed == 0


async def test_a_candidate_that_cannot_be_taken_back_is_taken_back_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    async with trying(tmp_path, ALIKE, block_s=0.5, washout_s=0.05) as home:
        switchback = home.gateway.switchback
        put, refused = switchback._put, 0

        async def broken(wanted: Wanted) -> bool:
            nonlocal refused
            if refused < 3:
                refused += 1
                raise OSError("the disk is full")
            return await put(wanted)

        await ask_until(home, lambda found: bool(found["arm"] == "candidate"))
        switchback._put = broken
        found = await ask_until(home, lambda found: bool(found["problem"]))
        assert found["problem"] == "settings could not be put in force: the disk is full"
        await eventually(lambda: home.gateway.router.policy.seed == 0)
        assert refused == 3
        # It is written down beside that, and may be later. Whoever reads the file alone learns that it does not go on,
        # until operators let it begin again.
        await eventually((tmp_path / "switchback.json").exists)
        command = ["switchback", "--config", str(tmp_path / "tidegate.toml")]
        assert main(command) == 1
        assert "It was stopped: settings could not be put in force: the disk is full." in capsys.readouterr().out
        assert main([*command, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["problem"] == found["problem"]
        assert (await home.change("POST", "/api/config")).status == 200
        await eventually(lambda: b'"problem": ""' in (tmp_path / "switchback.json").read_bytes())
        assert main(command) == 0
        assert "It was stopped" not in capsys.readouterr().out


async def test_what_was_learned_in_a_block_of_the_candidates_outlives_a_restart(tmp_path: Path) -> None:
    async with trying(tmp_path, ALIKE, block_s=600.0, washout_s=0.0) as home:
        switchback = home.gateway.switchback
        trial = switchback._trial
        assert trial is not None
        assert await switchback._in_force(trial, Arm.CANDIDATE)
        assert home.gateway.router.policy.seed == 17
        assert (await home.ask(chat())).status == 200
    # The next process with the same files.
    gateway = Gateway(load(tmp_path / "tidegate.toml"), Clock())
    assert gateway.keeper.restored.refused == ""
    assert gateway.keeper.restored.state is not None
    assert gateway.router.policy.seed == 0


def test_promises_are_measured_by_the_file_axis_by_axis_and_worth_by_what_is_usual(tmp_path: Path) -> None:
    trial = tried(tmp_path)._trial
    assert trial is not None
    asked = core.request("r", klass="interactive/short", slo=Slo(ttft_s=9.0, e2e_s=20.0), prompt_tokens=1000)
    # The candidate's class promises nine seconds, the file's one; the client has asked for twenty in all himself.
    assert trial.measured(asked, Arm.CANDIDATE).slo == Slo(ttft_s=1.0, e2e_s=20.0)
    assert trial.measured(asked, Arm.AS_IS).slo == asked.slo
    assert trial.worth_usd(asked, 500) == pytest.approx(0.002 + 0.004 * 1.5)
    # The most that a class with a target may pay is no measure of what it is worth.
    aimed = core.request("r", klass="aimed/short", prompt_tokens=1000)
    assert trial.worth_usd(aimed, 0) == pytest.approx(0.002 + 0.004)


def test_who_left_after_the_promise_had_passed_has_seen_it_missed(tmp_path: Path) -> None:
    switchback = tried(tmp_path)
    trial = switchback._trial
    assert trial is not None
    block = Block(Arm.AS_IS, 0.0, 100.0)
    trial.blocks.append(block)
    request = core.request("r", arrived_s=1.0, klass="interactive/short", slo=Slo(ttft_s=1.0))
    for ending, e2e_s in ((Ending.CANCELLED, 0.5), (Ending.CANCELLED, 30.0), (Ending.REFUSED, 0.1), (Ending.OK, 0.9)):
        switchback.over(request, ending, ttft_s=None, e2e_s=e2e_s, output_tokens=None, usd=0.01)
    assert (block.tally.requests, block.tally.kept) == (3, 1)
    assert block.tally.usd == pytest.approx(0.03)
    # What came before a block counts, or after it, counts nowhere.
    early = replace(request, arrived_s=-1.0)
    switchback.over(early, Ending.OK, ttft_s=0.1, e2e_s=0.9, output_tokens=2, usd=0.01)
    assert block.tally.requests == 3


def test_answers_in_one_piece_of_which_nobody_can_say_count_with_their_dollars(tmp_path: Path) -> None:
    switchback = tried(tmp_path)
    trial = switchback._trial
    assert trial is not None
    block = Block(Arm.CANDIDATE, 0.0, 100.0)
    trial.blocks.append(block)
    request = core.request("r", arrived_s=1.0, klass="interactive/short", slo=Slo(ttft_s=1.0), stream=False)
    for e2e_s, usd in ((30.0, 0.05), (0.5, 0.0)):
        switchback.over(request, Ending.OK, ttft_s=None, e2e_s=e2e_s, output_tokens=100, usd=usd)
    assert (block.tally.requests, block.tally.kept, block.tally.usd) == (2, 2, 0.05)
    # What can be seen is a miss all the same.
    late = replace(request, slo=Slo(ttft_s=1.0, e2e_s=20.0))
    switchback.over(late, Ending.OK, ttft_s=None, e2e_s=30.0, output_tokens=100, usd=0.05)
    assert (block.tally.requests, block.tally.kept) == (3, 2)


async def test_what_ends_after_its_pair_was_settled_changes_nothing(tmp_path: Path) -> None:
    switchback = tried(tmp_path)
    trial = switchback._trial
    assert trial is not None
    blocks = [Block(arm, 100.0 * at, 100.0 * at + 90.0) for at, arm in enumerate((Arm.AS_IS, Arm.CANDIDATE))]
    trial.blocks += blocks
    trial.settling = (blocks[0], blocks[1])
    for at_s in (1.0, 101.0):
        request = core.request("r", arrived_s=at_s, klass="interactive/short", slo=Slo(ttft_s=1.0))
        switchback.over(request, Ending.OK, ttft_s=0.1, e2e_s=0.9, output_tokens=2, usd=0.01)
    await switchback._settle(trial)
    before = msgspec.json.encode(trial.kept.pairs)
    assert [pair.as_is.requests for pair in trial.kept.pairs] == [1]
    switchback.over(request, Ending.OK, ttft_s=0.1, e2e_s=0.9, output_tokens=2, usd=0.01)
    assert msgspec.json.encode(trial.kept.pairs) == before
    found = read(trial.file)
    assert found is not None
    assert found.pairs == trial.kept.pairs


def tried(folder: Path) -> Switchback:
    """A trial that nobody plays."""
    (folder / "tidegate.toml").write_text(CONFIG)
    (folder / "candidate.toml").write_text(LOOSER)

    async def put(wanted: Wanted) -> bool:
        return wanted() is not None

    clock = Clock()
    return Switchback(load_unreached(folder / "tidegate.toml"), put, clock=clock, log=Log.to(folder / "log", clock))


@pytest.mark.parametrize(
    ("candidate", "table", "said"),
    [
        (ALIKE, "washout_s = 900", "switchback.washout_s"),
        (ALIKE, 'file = "candidate.toml"', "switchback.file"),
        ("[class.other]\n", "", "class.other"),
        ('[class.interactive]\nresidency = ["local"]\n', "", "class.interactive.residency"),
        ('[[rule]]\nname = "a"\nwhen = "stream"\nclass = "batch"\n', "", "rules give other classes"),
        ("[policy]\nquantile = 0.8\n", "", "policy.quantile"),
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


@pytest.mark.parametrize("written", [True, False])
def test_a_trial_is_held_and_written_by_whatever_name_it_has(tmp_path: Path, written: bool) -> None:
    file, link = tmp_path / "kept" / "trial.json", tmp_path / "trial.json"
    file.parent.mkdir()
    link.symlink_to(file)
    if written:
        write(link, b"{}")
        assert (link.is_symlink(), file.read_bytes()) == (True, b"{}")
    for one, other in ((file, link), (link, file)):
        held = Lock()
        held.take(one)
        with pytest.raises(FileError, match="the trial file is open in another process"):
            Lock().take(other)
        held.release()
