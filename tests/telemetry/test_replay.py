"""A journal of many segments replays, whole and from any of them on."""

import asyncio
import multiprocessing
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from tests import make
from tests.http.harness import eventually
from tests.properties.storm import Storm
from tests.telemetry.make import journal, segment
from tidegate import __version__
from tidegate.cli.journal import cause_text
from tidegate.cli.main import main
from tidegate.core.flips import Axis
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    FirstToken,
    Held,
    Line,
    Observation,
    Run,
    Segment,
    Wait,
    replace,
)
from tidegate.core.replay import Difference, Report, replay, summed
from tidegate.core.why import Why
from tidegate.telemetry.journal import read, segments
from tidegate.telemetry.replaying import reproduce
from tidegate.telemetry.segments import SegmentName


def test_every_decision_comes_out_again_whichever_segment_replay_begins_with(tmp_path: Path) -> None:
    endpoints = (make.endpoint("laptop"), make.endpoint("cloud", local=False))
    router = make.router(*endpoints)

    def header() -> Segment:
        return replace(segment(), endpoints=endpoints, state=router.snapshot())

    async def run() -> None:
        kept = journal(tmp_path, segment_bytes=10_000, header=header)

        def tell(fact: Observation, now_s: float) -> None:
            router.observe(fact, now_s)
            kept.append(fact, now_s)

        for number in range(60):
            now_s = number * 0.7
            request = make.request(f"r{number}", arrived_s=now_s, prompt_tokens=50 + 400 * (number % 7))
            kept.append(request, now_s)
            decision = router.decide(request, now_s)
            kept.append(decision, now_s)
            step = decision.plan[0]
            if isinstance(step, Wait):
                tell(Held(request=request), now_s)
            elif isinstance(step, Run):
                tell(make.started(request, step.endpoint), now_s)
                kept.flush()
                first_s = 0.2 + 0.05 * (number % 5)
                tell(FirstToken(request_id=request.id, endpoint=step.endpoint, ttft_s=first_s), now_s + first_s)
                ended = Ended(
                    request_id=request.id, endpoint=step.endpoint, ending=Ending.OK, e2e_s=1.0, ttft_s=first_s,
                    prompt_tokens=request.prompt_tokens, output_tokens=20 + number,
                )  # fmt: skip
                tell(ended, now_s + 0.5)
            kept.flush()
        await kept.close()

    asyncio.run(run())
    files = segments(tmp_path)
    assert len(files) > 3
    for begin in range(len(files)):
        report = replay(chain.from_iterable(read(file) for file in files[begin:]))
        assert report.difference is None
        assert report.segments == len(files) - begin
    assert replay(read(tmp_path)).decisions == 60


def stormed(folder: Path, seed: int = 4) -> list[Path]:
    """A journal of some segments, each of which follows the one before."""
    storm = Storm(seed)
    for _ in range(5):
        storm.run(40).cut()
    begins = [index for index, line in enumerate(storm.lines) if isinstance(line.fact, Segment)]
    name = SegmentName.first(storm.lines[0].at_s)
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        lines = msgspec.json.Encoder().encode_lines(storm.lines[begin:end])
        (folder / str(name)).write_bytes(lines)
        name = name.next()
    return segments(folder)


def found(folder: Path, jobs: int = 1) -> Report:
    return summed(reproduce(folder, jobs)[1])


@pytest.mark.parametrize("jobs", [1, 2])
def test_segments_are_reproduced_side_by_side_as_one_after_the_other(tmp_path: Path, jobs: int) -> None:
    files = stormed(tmp_path)
    report = found(tmp_path, jobs)
    assert report == replay(read(tmp_path))
    assert (report.segments, report.difference, report.parted_s) == (len(files), None, None)


def test_a_lost_fact_is_told_by_the_segment_that_follows_it(tmp_path: Path) -> None:
    files = stormed(tmp_path)
    lines = files[1].read_bytes().splitlines(keepends=True)
    told = max(index for index, line in enumerate(lines) if b'"ended"' in line)
    files[1].write_bytes(b"".join(lines[:told] + lines[told + 1 :]))
    report = found(tmp_path)
    following = next(read(files[2]))
    assert report.parted_s == following.at_s


def test_two_runs_in_one_folder_of_which_the_beginnings_were_removed_are_whole(tmp_path: Path) -> None:
    stormed(tmp_path, 4)
    other = tmp_path / "other"
    other.mkdir()
    begun = SegmentName(opened="20240101T000000000Z", pid=7, counter=0)
    for file in stormed(other, 5):
        file.rename(tmp_path / str(begun))
        begun = begun.next()
    (tmp_path / str(SegmentName(opened="20240101T000000000Z", pid=7, counter=0))).unlink()
    report = found(tmp_path)
    assert (report.difference, report.parted_s) == (None, None)
    # In the midst of a run one is missed.
    (tmp_path / str(SegmentName(opened="20240101T000000000Z", pid=7, counter=2))).unlink()
    assert found(tmp_path).parted_s is not None


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_segment_that_is_removed_meanwhile_is_passed_over(tmp_path: Path, jobs: int) -> None:
    files = stormed(tmp_path)
    count, parts = reproduce(tmp_path, jobs)
    files[0].unlink()
    assert count == len(files)
    assert summed(parts).segments == count - 1


def test_a_process_that_is_killed_while_it_replays_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> int:
        replaying = asyncio.ensure_future(asyncio.to_thread(main, ["replay", str(tmp_path), "--jobs", "2"]))
        await eventually(lambda: bool(multiprocessing.active_children()))
        for process in multiprocessing.active_children():
            process.kill()
        return await replaying

    stormed(tmp_path)
    assert asyncio.run(run()) == 1
    assert "is there memory enough?" in capsys.readouterr().err


def changed(file: Path, kind: type[Decision] | type[Segment], **changes: object) -> None:
    """Its header, or the first decision in it, says so instead."""
    lines = list(read(file))
    index = next(number for number, line in enumerate(lines) if isinstance(line.fact, kind))
    lines[index] = replace(lines[index], fact=replace(lines[index].fact, **changes))
    file.write_bytes(msgspec.json.Encoder().encode_lines(lines))


def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["replay", str(folder), "--jobs", "1"]) == 1
    return capsys.readouterr().out


def test_where_nothing_is_written_nothing_came_out_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / str(SegmentName.first(0.0))).touch()
    assert said(tmp_path, capsys) == ""
    assert main(["replay", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path}: nothing is written in this journal" in err


@pytest.mark.lengthy
def test_what_comes_out_otherwise_is_told_with_its_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = stormed(tmp_path)
    for file in files:
        changed(file, Segment, software=f"tidegate {__version__}")
    assert main(["replay", str(tmp_path)]) == 0
    assert "all came out again" in capsys.readouterr().out
    changed(files[2], Decision, plan=(Run(endpoint="nobody", timeout_s=1.0),))
    report = said(tmp_path, capsys)
    assert "one came out otherwise" in report
    assert "first step" in report
    assert "recorded nobody" in report
    assert "when its segment began, a fact is missing, or one was changed" in report
    changed(files[2], Segment, software="tidegate 0.0.1")
    assert "because tidegate 0.0.1 wrote it" in said(tmp_path, capsys)


@pytest.mark.parametrize(
    ("software", "parted_s", "cause"),
    [
        ("tidegate 0.0.1", 100.0, "because tidegate 0.0.1 wrote it"),
        ("tidegate 1", 100.0, "because the segment that began at 1970-01-01T00:01:40"),
        ("tidegate 1", 300.0, "because since 1970-01-01T00:03:20"),
        ("tidegate 1", None, "because since 1970-01-01T00:03:20"),
    ],
)
def test_the_cause_is_the_software_then_what_was_lost_before_then_the_segment_itself(
    software: str, parted_s: float | None, cause: str
) -> None:
    decision = Decision(request_id="r", plan=(), why=Why.DOWN)
    difference = Difference(
        at_s=250.0, since_s=200.0, software=software, recorded=decision, replayed=decision, parts=("reason",)
    )
    assert cause_text(difference, parted_s, "tidegate 1").startswith(cause)


def test_how_a_changed_plan_would_come_out_as_recorded_is_told() -> None:
    laptop, cloud = make.endpoint("laptop", context_tokens=4_096), make.endpoint("cloud", local=False)
    router, request = make.router(laptop, cloud), make.request("r", output_tokens_max=100)
    header = replace(segment(), endpoints=(cloud, laptop), policy=router.policy, state=router.snapshot())
    decision = router.decide(request, 0.0)
    first = decision.plan[0]
    assert first.endpoint == "laptop"
    recorded = replace(decision, plan=(replace(first, endpoint="cloud"),))
    difference = replay(Line(at_s=0.0, fact=fact) for fact in (header, request, recorded)).difference
    assert difference is not None
    assert difference.parts == ("first step", "later steps")
    assert {flip.goes_to for flip in difference.flips} == {"cloud"}
    assert Axis.PROMPT_TOKENS in {flip.axis for flip in difference.flips}


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_how_many_at_once_is_a_number_from_one_on(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["replay", "journal", "--jobs", jobs])
    assert "no number from 1 on" in capsys.readouterr().err
