"""What was believed a while ago, beside what is believed now."""

import msgspec
import pytest

from tests import make
from tests.core.patients import played
from tests.core.test_fallback import spoil
from tidegate.core.hindsight import Compared, Hindsight
from tidegate.core.model import Ended, Fingerprint, Line, ModelFailed, Probed, Segment, replace
from tidegate.core.reference import ATTEMPTS
from tidegate.core.router import Router
from tidegate.core.state import State


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    """From its 150th request on the engine takes twice as long."""
    found: list[Line] = []
    played(3, 320, found.append, slow_from=150, factor=2.0)
    return found


def compared(lines: list[Line]) -> list[Compared]:
    hindsight = Hindsight()
    return [one for line in lines if (one := hindsight.feed(line)) is not None]


def known(found: list[Compared]) -> list[bool]:
    return [one.believed is not None for one in found]


def ends(lines: list[Line]) -> list[int]:
    return [index for index, line in enumerate(lines) if isinstance(line.fact, Ended)]


def after(lines: list[Line], attempts: int, more: Line) -> list[Line]:
    """With one more line after so many attempts."""
    index = ends(lines)[attempts - 1] + 1
    return [*lines[:index], replace(more, at_s=lines[index - 1].at_s), *lines[index:]]


def header(lines: list[Line], attempts: int, **changes: object) -> Line:
    """A segment's first line as it is after so many attempts, but for these changes."""
    hindsight = Hindsight()
    for line in lines[: ends(lines)[attempts - 1] + 1]:
        hindsight.feed(line)
    assert hindsight.replay.router is not None
    first = lines[0].fact
    assert isinstance(first, Segment)
    return Line(at_s=0.0, fact=replace(first, state=hindsight.replay.router.snapshot(), **changes))


def test_nothing_is_believed_before_enough_was_seen(lines: list[Line]) -> None:
    found = compared(lines)
    first = known(found).index(True)
    assert ATTEMPTS - 5 <= first <= ATTEMPTS + 10
    assert all(known(found)[ATTEMPTS + 10 :])


def test_a_change_shows_against_what_was_believed_after_predictions_have_followed_it(lines: list[Line]) -> None:
    found = compared(lines)

    def off(which: str, begin: int, end: int) -> float:
        ratios: list[float] = []
        for one in found:
            number = int(one.ended.request_id[1:])
            prediction = getattr(one, which)
            if begin <= number < end and one.tpot_s is not None and prediction is not None:
                ratios.append(one.tpot_s / prediction.tpot_s)
        return sorted(ratios)[len(ratios) // 2]

    assert off("predicted", 175, 200) == pytest.approx(1.0, abs=0.35)
    assert off("believed", 175, 200) > 1.6
    assert off("believed", 290, 320) == pytest.approx(1.0, abs=0.25)


def test_where_a_segment_begins_makes_no_difference(lines: list[Line]) -> None:
    cut = after(lines, 130, header(lines, 130))
    beliefs = [one.believed for one in compared(lines)]
    for one, other in zip(beliefs, [one.believed for one in compared(cut)], strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert msgspec.structs.astuple(one) == pytest.approx(msgspec.structs.astuple(other), rel=0.02)


def test_of_an_endpoint_that_was_configured_anew_nothing_is_believed(lines: list[Line]) -> None:
    first = lines[0].fact
    assert isinstance(first, Segment)
    wider = tuple(replace(one, prior=make.LOCAL_PRIOR) for one in first.endpoints)
    found = known(compared(after(lines, 130, header(lines, 130, endpoints=wider))))
    assert not any(found[135 : 130 + ATTEMPTS - 5])
    assert all(found[130 + ATTEMPTS + 10 :])


def test_of_another_model_nothing_is_believed(lines: list[Line]) -> None:
    def told(weights: str) -> Line:
        return Line(at_s=0.0, fact=Probed(endpoint="laptop", up=True, fingerprint=Fingerprint(weights=weights)))

    found = known(compared(after(after(lines, 60, told("hf:o/a")), 130, told("hf:o/b"))))
    assert not any(found[135 : 130 + ATTEMPTS - 5])
    assert all(found[130 + ATTEMPTS + 10 :])


def test_what_was_believed_while_the_model_failed_is_forgotten_when_it_works_again(lines: list[Line]) -> None:
    broken = header(lines, 100)
    assert isinstance(broken.fact, Segment)
    router = Router(broken.fact.endpoints, broken.fact.policy, msgspec.json.decode(broken.fact.state, type=State))
    spoil(router, "laptop")
    broken = replace(broken, fact=replace(broken.fact, state=router.snapshot()))
    failing = after(after(lines, 250, header(lines, 250)), 100, broken)
    begins, mended = (index for index, line in enumerate(failing) if index and isinstance(line.fact, Segment))
    told: list[Line] = []
    for index, line in enumerate(failing):
        told.append(line)
        if begins <= index < mended:
            told.append(replace(line, fact=ModelFailed(during="test", error="IndexError")))
    found = [one.believed is not None for one in compared(told) if int(one.ended.request_id[1:]) >= 250]
    assert not any(found[5 : ATTEMPTS - 5])
    assert all(found[ATTEMPTS + 10 :])
