"""How often a doctor is alarmed over nothing, and how soon by something: by simulation."""

from random import Random

import pytest

from tests.core.patients import played
from tidegate.core.doctor import Doctor
from tidegate.core.model import Ended, Line

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOURNALS, ATTEMPTS = 60, 600
FALSE_SHARE_MAX = 1 / 20
WITHIN = 100  # attempts


@pytest.mark.parametrize("stream", [True, False], ids=["streams", "in-one-piece"])
@pytest.mark.parametrize("vendor", [False, True], ids=["own", "vendor"])
def test_of_twenty_journals_without_drift_at_most_one_alarms(vendor: bool, stream: bool) -> None:
    """Loads change, by five times and fifty times, an own engine is declared wrongly, and nothing else happens."""
    alarms = 0
    for seed in range(JOURNALS):
        doctor = Doctor()
        played(seed, ATTEMPTS, doctor.feed, vendor=vendor, stream=stream)
        alarms += doctor.diagnosis().alarm
    assert alarms <= JOURNALS * FALSE_SHARE_MAX


def alarmed_after(seed: int, *, vendor: bool, stream: bool) -> int | None:
    """Of a journal in which all becomes half as fast again: how many of these attempts it takes; None if too many."""
    doctor, slow_from, after, found = Doctor(), Random(seed).randint(100, 400), 0, list[int]()

    def told(line: Line) -> None:
        nonlocal after
        doctor.feed(line)
        if isinstance(line.fact, Ended) and int(line.fact.request_id[1:]) >= slow_from and not found:
            after += 1
            if after <= WITHIN and doctor.diagnosis().alarm:
                found.append(after)

    played(seed, slow_from + 150, told, slow_from=slow_from, vendor=vendor, stream=stream)
    return found[0] if found else None


@pytest.mark.parametrize("stream", [True, False], ids=["streams", "in-one-piece"])
@pytest.mark.parametrize("vendor", [False, True], ids=["own", "vendor"])
def test_what_takes_half_as_long_again_is_noticed_within_a_hundred_attempts(vendor: bool, stream: bool) -> None:
    took = [alarmed_after(seed, vendor=vendor, stream=stream) for seed in range(1_000, 1_020)]
    assert None not in took
