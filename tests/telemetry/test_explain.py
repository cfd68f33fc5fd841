"""What became of a request is told whole, wherever segments begin."""

from pathlib import Path

import msgspec
import pytest

from tests import make
from tests.telemetry.make import segment
from tests.telemetry.test_replay import stormed
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    Fact,
    FirstToken,
    Held,
    Line,
    Request,
    Run,
    Segment,
    replace,
)
from tidegate.core.replay import handover_of
from tidegate.core.timeline import Stage, Timeline, What, beside
from tidegate.core.why import Why
from tidegate.telemetry.explain import find
from tidegate.telemetry.reading import JournalError, read
from tidegate.telemetry.segments import SegmentName, segments

FIRST = SegmentName("20261125T000000000Z", 1, 0)
ENDPOINTS = (make.endpoint("laptop"), make.endpoint("cloud", local=False))
R = make.request("r", arrived_s=100.0)


def written(folder: Path, *parts: list[tuple[float, Fact]]) -> list[Path]:
    """A journal of so many segments, each of which knows what came before it."""
    router, name = make.router(*ENDPOINTS), FIRST
    for part in parts:
        head = replace(segment(), endpoints=ENDPOINTS, policy=router.policy, state=router.snapshot())
        lines = [Line(at_s=part[0][0], fact=head), *(Line(at_s=at_s, fact=fact) for at_s, fact in part)]
        (folder / str(name)).write_bytes(msgspec.json.Encoder().encode_lines(lines))
        for at_s, fact in part:
            if not isinstance(fact, Segment | Request | Decision):
                router.observe(fact, at_s)
        name = name.next()
    return segments(folder)


def sent(endpoint: str) -> Decision:
    return Decision(request_id="r", plan=(Run(endpoint=endpoint, timeout_s=10.0),), why=Why.CHEAPEST_ON_TIME)


ASKED: list[tuple[float, Fact]] = [(100.0, R), (100.0, Held(request=R))]
SENT: list[tuple[float, Fact]] = [(103.0, sent("laptop")), (103.0, make.started(R, "laptop"))]
SEEN: list[tuple[float, Fact]] = [(104.0, FirstToken(request_id="r", endpoint="laptop", ttft_s=1.0))]
ENDED: list[tuple[float, Fact]] = [
    (109.0, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=6.0, ttft_s=1.0, output_tokens=50))
]
STAGES = (
    Stage(what=What.HOLD, began_s=0.0, took_s=3.0),
    Stage(what=What.PREFILL, endpoint="laptop", began_s=3.0, took_s=1.0),
    Stage(what=What.DECODE, endpoint="laptop", began_s=4.0, took_s=5.0),
)


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "parts",
    [
        (ASKED + SENT + SEEN + ENDED,),
        (ASKED, SENT + SEEN + ENDED),
        (ASKED + SENT, SEEN + ENDED),
        (ASKED, SENT, SEEN, ENDED),
        (ASKED[:1], ASKED[1:] + SENT, SEEN + ENDED),
    ],
    ids=len,
)
def test_what_was_held_before_a_segment_or_ends_after_it_is_told_with_all_its_stages(
    tmp_path: Path, parts: tuple[list[tuple[float, Fact]], ...]
) -> None:
    files = written(tmp_path, *parts)
    (of,) = (file for file in files if any(isinstance(line.fact, Decision) for line in read(file)))
    # As a folder, and as the segment that a dashboard names.
    for source in (tmp_path, of):
        (one,) = find(source, "r")
        assert one.stages == STAGES
        assert one.endings == tuple(fact for _, fact in ENDED)


def test_where_the_segments_around_it_are_gone_or_damaged_stages_still_count_from_the_arrival(tmp_path: Path) -> None:
    before, of, after = written(tmp_path, ASKED, SENT, SEEN + ENDED)
    before.unlink()
    after.write_bytes(b"nonsense\n")
    (one,) = find(of, "r")
    assert one.stages == ()
    after.unlink()
    of.write_bytes(of.read_bytes() + msgspec.json.Encoder().encode_lines([Line(at_s=t, fact=f) for t, f in SEEN]))
    (one,) = find(of, "r")
    assert one.stages == STAGES[1:2]


def test_an_id_is_just_not_found_where_the_oldest_segment_is_removed_meanwhile(tmp_path: Path) -> None:
    oldest, _, _ = written(tmp_path, ASKED, SENT, SEEN + ENDED)
    oldest.unlink()
    oldest.symlink_to("nowhere")  # listed, and gone when it is opened
    assert find(tmp_path, "other") == []
    with pytest.raises(JournalError, match=rf"^{oldest}: there is no such file"):
        find(oldest, "other")


def test_a_decision_is_explained_though_another_request_was_asked_for_before_its_segment(tmp_path: Path) -> None:
    other = replace(R, id="other")
    decided = replace(sent("cloud"), request_id="other")
    written(tmp_path, [(99.0, other)], [(99.0, decided), *ASKED, *SENT])
    (one,) = find(tmp_path, "r")
    assert one.decision == sent("laptop")


@pytest.mark.lengthy
def test_stages_are_those_of_all_lines_wherever_a_storm_is_cut(tmp_path: Path) -> None:
    files = stormed(tmp_path, 2)
    where: dict[str, set[int]] = {}
    for number, file in enumerate(files):
        for line in read(file):
            about = getattr(line.fact, "request", line.fact)
            where.setdefault(getattr(about, "id", "") or getattr(line.fact, "request_id", ""), set()).add(number)
    spread = [name for name, seen in where.items() if name and len(seen) > 1][:4]
    assert spread
    for name in spread:
        timeline = Timeline(name)
        for line in read(tmp_path):
            timeline.feed(line)
        found = find(tmp_path, name)
        handed = [chosen for chosen in map(handover_of, found) if chosen is not None]
        assert found[-1].stages == (tuple(beside(timeline.stages, handed[-1])) if handed else tuple(timeline.stages))
