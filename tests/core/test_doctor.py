"""What a doctor says of a journal."""

import math
import sys
from pathlib import Path

import msgspec
import pytest

from tests.core.patients import played
from tests.properties.storm import Storm
from tidegate.core.diagnosis import ALARMS, WORDS, Accuracy, Diagnosis, Drift, Health, Promise, Symptom, Total, findings
from tidegate.core.diagnosis import Bucket as Worst
from tidegate.core.doctor import ATTEMPTS_MIN, Doctor
from tidegate.core.model import Ended, Ending, Line, Started, replace
from tidegate.core.replay import ReplayError


def diagnosed(lines: list[Line]) -> Diagnosis:
    doctor = Doctor()
    for line in lines:
        doctor.feed(line)
    return doctor.diagnosis()


def journal(
    seed: int, count: int, *, slow_from: int | None = None, vendor: bool = False, stream: bool = True
) -> list[Line]:
    lines: list[Line] = []
    played(seed, count, lines.append, slow_from=slow_from, vendor=vendor, stream=stream)
    return lines


@pytest.fixture(scope="module")
def steady() -> list[Line]:
    """A journal in which nothing changes."""
    return journal(1, 300)


def symptoms(diagnosis: Diagnosis) -> set[Symptom]:
    return {finding.symptom for health in diagnosis.endpoints for finding in health.findings}


@pytest.mark.parametrize("seed", range(4))
def test_any_journal_can_be_examined_and_its_attempts_add_up(seed: int) -> None:
    lines = Storm(seed).run(300).lines
    found = diagnosed(lines)
    ends = sum(isinstance(line.fact, Ended) for line in lines)
    assert sum(health.attempts for health in found.endpoints) == ends
    assert [health.endpoint for health in found.endpoints] == sorted(one.name for one in Storm(seed).endpoints)
    assert found.alarm == any(finding.alarm for health in found.endpoints for finding in health.findings)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Diagnosis) == found


def test_too_few_attempts_say_nothing_and_that_is_said(steady: list[Line]) -> None:
    ends = [index for index, line in enumerate(steady) if isinstance(line.fact, Ended)]
    found = diagnosed(steady[: ends[ATTEMPTS_MIN - 1]])
    (health,) = found.endpoints
    known = (health.ttft, health.tpot, health.whole, health.promise, health.output_tokens, health.cost_usd)
    assert known == (None,) * 6
    assert symptoms(found) == {Symptom.TOO_FEW}
    assert not found.alarm
    assert diagnosed(steady[: ends[ATTEMPTS_MIN - 1] + 1]).endpoints[0].ttft is not None


def test_an_empty_journal_has_nobody_to_examine() -> None:
    assert diagnosed([]).endpoints == ()
    with pytest.raises(ReplayError):
        diagnosed(Storm(1).run(20).lines[1:])


def test_of_runs_that_overlap_it_is_told_and_the_end_is_that_of_the_last_to_write(steady: list[Line]) -> None:
    # The second run began a third of the way through the first, and was over before it.
    third = steady[len(steady) // 3].at_s - steady[0].at_s
    second = [msgspec.structs.replace(line, at_s=line.at_s + third) for line in steady[: len(steady) // 3]]
    found = diagnosed([*steady, *second])
    assert (found.overlapping, found.until_s) == (2, max(line.at_s for line in steady))
    # A process that could not start has left its header.
    found = diagnosed([*steady, second[0]])
    assert (found.overlapping, found.until_s) == (0, max(line.at_s for line in steady))
    assert diagnosed(steady).overlapping == 0


def test_figures_are_those_of_all_attempts(steady: list[Line]) -> None:
    found = diagnosed(steady)
    (health,) = found.endpoints
    assert found.otherwise == 0
    assert not found.alarm
    assert health.attempts == health.taught == 300
    assert health.ttft is not None
    assert health.tpot is not None
    assert health.promise is not None
    assert health.output_tokens is not None
    assert 0.0 < health.ttft.error < 0.5
    assert -0.3 < health.ttft.bias < 0.3
    assert health.ttft.worst is not None
    assert health.ttft.worst.error >= health.ttft.error
    assert health.promise.low < health.promise.kept < health.promise.high
    assert health.output_tokens.predicted == pytest.approx(health.output_tokens.measured, rel=0.3)
    assert health.cost_usd is None, "it costs nothing"


def test_what_is_billed_is_put_beside_what_was_predicted() -> None:
    (health,) = diagnosed(journal(1, 80, vendor=True)).endpoints
    assert health.cost_usd is not None
    assert health.cost_usd.predicted == pytest.approx(health.cost_usd.measured, rel=0.3)


def test_an_engine_that_becomes_slower_is_an_alarm_with_its_time_and_soon_history() -> None:
    lines = journal(5, 420, slow_from=200)
    began_s = next(line.at_s for line in lines if getattr(line.fact, "id", "") == "r200")
    ends = [index for index, line in enumerate(lines) if isinstance(line.fact, Ended)]
    before, after, late = (diagnosed(lines[: ends[count] + 1]) for count in (195, 250, 419))
    assert not before.alarm
    assert after.alarm
    (slower, *_) = (f for f in after.endpoints[0].findings if f.symptom is Symptom.SLOWER)
    assert slower.at_s == pytest.approx(began_s, abs=120.0)
    assert Symptom.SLOWER not in symptoms(late)
    assert Symptom.WAS_SLOWER in symptoms(late)


@pytest.mark.parametrize(("waited_s", "judged"), [(1e3, 300), (1e-3, 299)])
def test_who_left_before_any_content_judges_a_promise_only_if_it_was_broken_by_then(
    steady: list[Line], waited_s: float, judged: int
) -> None:
    last = max(index for index, line in enumerate(steady) if isinstance(line.fact, Ended))
    left = replace(steady[last].fact, ending=Ending.CANCELLED, ttft_s=None, output_tokens=None, e2e_s=waited_s)
    (health,) = diagnosed([*steady[:last], replace(steady[last], fact=left)]).endpoints
    assert health.attempts == 300
    assert health.taught == 299
    assert health.promise is not None
    assert health.promise.attempts == judged


def test_who_leaves_an_answer_in_one_piece_judges_no_promise(steady: list[Line]) -> None:
    """Those who stay do not either: when such an answer begins, nobody sees."""
    last = max(index for index, line in enumerate(steady) if isinstance(line.fact, Ended))
    left = replace(steady[last].fact, ending=Ending.CANCELLED, ttft_s=None, output_tokens=None, e2e_s=1e3)
    told = [
        replace(line, fact=replace(line.fact, stream=False)) if isinstance(line.fact, Started) else line
        for line in steady[:last]
    ]
    (health,) = diagnosed([*told, replace(steady[last], fact=left)]).endpoints
    assert health.promise is not None
    assert health.promise.attempts == 299


def test_answers_in_one_piece_are_judged_by_the_time_of_the_whole() -> None:
    (health,) = diagnosed(journal(1, 200, vendor=True, stream=False)).endpoints
    assert (health.attempts, health.taught, health.untold) == (200, 200, 0)
    assert (health.ttft, health.tpot, health.promise) == (None, None, None)
    assert health.whole is not None
    assert health.whole.attempts == 200
    assert 0.0 < health.whole.error < 0.35
    assert -0.3 < health.whole.bias < 0.3
    assert Symptom.TOO_FEW not in {finding.symptom for finding in health.findings}


def test_answers_in_one_piece_that_take_longer_are_an_alarm() -> None:
    lines = journal(5, 260, vendor=True, stream=False, slow_from=200)
    ends = [index for index, line in enumerate(lines) if isinstance(line.fact, Ended)]
    assert not diagnosed(lines[: ends[195] + 1]).alarm
    (slower,) = (f for f in diagnosed(lines).endpoints[0].findings if f.symptom is Symptom.SLOWER)
    assert slower.means.startswith("E2E has become 1.")


def test_answers_in_one_piece_that_do_not_say_how_long_they_are_are_counted_and_nobody_is_told_to_wait() -> None:
    lines = [
        replace(line, fact=replace(line.fact, output_tokens=None)) if isinstance(line.fact, Ended) else line
        for line in journal(1, 60, vendor=True, stream=False)
    ]
    found = diagnosed(lines)
    assert (found.endpoints[0].taught, found.endpoints[0].untold) == (0, 60)
    assert symptoms(found) == {Symptom.UNTOLD}


@pytest.mark.lengthy
def test_memory_does_not_grow_with_the_journal() -> None:
    """Of 300 requests and of ten times as many: what is counted are the same buckets and steps."""

    def size(value: object, seen: set[int]) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        inner: list[object] = []
        if isinstance(value, dict):
            inner = [*value, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = list(value)
        names = getattr(value, "__struct_fields__", ()) or [
            name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())
        ]
        inner += [getattr(value, name) for name in names if hasattr(value, name)]
        inner += list(vars(value).values()) if hasattr(value, "__dict__") and not isinstance(value, type) else []
        return sys.getsizeof(value) + sum(size(one, seen) for one in inner)

    doctor, sizes = Doctor(), []
    for line in journal(3, 3_000):
        doctor.feed(line)
        if isinstance(line.fact, Ended) and line.fact.request_id in ("r1500", "r2999"):
            sizes.append(size(doctor, set()))
    assert sizes[1] < 1.35 * sizes[0]
    assert sizes[1] < 4_000_000


# --- findings -------------------------------------------------------------------------------------------------------

GOOD = Accuracy(
    attempts=500, error=0.1, bias=0.0, error_first_third=0.1, error_last_third=0.1, worst=None, slower=None, faster=None
)
KEPT = Promise(attempts=500, quantile=0.9, kept=0.9, low=0.87, high=0.92, kept_lately=0.9, broken_now=False)
DRIFT = Drift(since_s=5.0, noticed_s=9.0, attempts_ago=3, ratio=1.5, now=True)
PAST = replace(DRIFT, now=False, attempts_ago=900)
WORST = Worst(prompt_tokens=(1025, 4096), load=(8, None), attempts=40, error=0.5, bias=0.4)
SUM = Total(attempts=500, predicted=100.0, measured=100.0, error=0.2)

CASES: dict[Symptom, dict[str, object]] = {
    Symptom.TOO_FEW: {"taught": 3},
    Symptom.UNTOLD: {"taught": 3, "untold": 100},
    Symptom.SLOWER: {"ttft": replace(GOOD, slower=DRIFT)},
    Symptom.FASTER: {"ttft": replace(GOOD, faster=DRIFT)},
    Symptom.WAS_SLOWER: {"ttft": replace(GOOD, slower=PAST)},
    Symptom.WAS_FASTER: {"ttft": replace(GOOD, faster=PAST)},
    Symptom.PROMISES_BROKEN_NOW: {"ttft": GOOD, "promise": replace(KEPT, kept_lately=0.7, broken_now=True)},
    Symptom.PROMISES_BROKEN: {"ttft": GOOD, "promise": replace(KEPT, kept=0.8, low=0.77, high=0.83)},
    Symptom.PROMISES_WIDE: {"ttft": GOOD, "promise": replace(KEPT, kept=0.96, low=0.94, high=0.97)},
    Symptom.FAR_OFF: {"ttft": replace(GOOD, error=0.6)},
    Symptom.TOO_LONG: {"tpot": replace(GOOD, bias=0.3)},
    Symptom.TOO_SHORT: {"tpot": replace(GOOD, bias=-0.3)},
    Symptom.WORST_BUCKET: {"ttft": replace(GOOD, worst=WORST)},
    Symptom.GROWING: {"ttft": replace(GOOD, error_last_third=0.3)},
    Symptom.LENGTHS_OFF: {"ttft": GOOD, "output_tokens": replace(SUM, measured=200.0)},
    Symptom.COSTS_MORE: {"ttft": GOOD, "cost_usd": replace(SUM, measured=200.0)},
    Symptom.COSTS_LESS: {"ttft": GOOD, "cost_usd": replace(SUM, measured=50.0)},
}


def health(**known: object) -> Health:
    return findings(replace(Health(endpoint="laptop", attempts=500, taught=500), **known), ATTEMPTS_MIN)


@pytest.mark.parametrize("symptom", Symptom)
def test_every_symptom_can_be_found_and_says_what_it_means_and_what_to_do(symptom: Symptom) -> None:
    (found,) = health(**CASES[symptom]).findings
    assert found.symptom is symptom
    assert found.alarm == (symptom in ALARMS)
    assert found.means
    assert "{" not in found.means
    assert found.do == WORDS[symptom][1]


def test_the_reference_page_tells_every_symptom_and_which_of_them_alarm() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text()
    rows = [line.split("|")[1:3] for line in page.partition("## What is found")[2].splitlines() if line.startswith("|")]
    told = {name.strip(" `"): alarm.strip() == "yes" for names, alarm in rows[2:] for name in names.split(",")}
    assert told == {symptom.value: symptom in ALARMS for symptom in Symptom}


def test_where_all_is_well_nothing_is_found() -> None:
    assert health(ttft=GOOD, tpot=GOOD, promise=KEPT, output_tokens=SUM, cost_usd=SUM).findings == ()


def test_alarms_come_first() -> None:
    found = health(ttft=replace(GOOD, error=0.6), tpot=replace(GOOD, slower=DRIFT)).findings
    assert [finding.alarm for finding in found] == [True, False]


def test_a_ratio_is_told_to_two_places() -> None:
    (found,) = health(ttft=replace(GOOD, slower=replace(DRIFT, ratio=math.sqrt(2.0)))).findings
    assert "1.41 times" in found.means
