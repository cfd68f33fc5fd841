"""What the tests of telemetry begin with."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from tests import make
from tidegate.clock import Clock
from tidegate.core.model import JOURNAL_VERSION, Fact, Line, Policy, Released, Segment
from tidegate.telemetry.journal import Journal, read

BIG = 1 << 30


def segment(state: bytes = b"{}") -> Segment:
    return Segment(
        version=JOURNAL_VERSION,
        software="tidegate test",
        policy=Policy(),
        endpoints=(make.endpoint(),),
        state=msgspec.Raw(state),
    )


def journal(
    folder: Path,
    *,
    segment_bytes: int = BIG,
    total_bytes: int = 2 * BIG,
    header: Callable[[], Segment] = segment,
    packs: bool = False,
    on_problem: Callable[[str], None] = lambda _: None,
) -> Journal:
    return Journal(
        folder,
        segment_bytes=segment_bytes,
        total_bytes=total_bytes,
        clock=Clock(),
        header=header,
        packs=packs,
        on_problem=on_problem,
    )


def fact(number: int) -> Released:
    return Released(request_id=f"r{number:06}")


def lines(source: Path) -> list[Line]:
    return list(read(source))


def facts(source: Path) -> list[Fact]:
    """All but the segments' headers."""
    return [line.fact for line in read(source) if not isinstance(line.fact, Segment)]
