"""The promise, for every fault that is known: see `tidegate.engines.faults`."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import ASKED, GOOD, TRANSLATED, WAYS, meeting
from tests.gateway.dialects import SPEECHES
from tests.gateway.harness import Answer, chat
from tests.http.harness import eventually
from tidegate.engines.faults import FAULTS, Fault, Kind
from tidegate.lab.misdeeds import RETRY_AFTER_S, Pace

WORDS = "w1 w2 w3 w4 "  # the alternative's
# One of each kind stands for the others where the answer is translated: those are met in the slow suite.
TYPICAL = (Fault.STALL, Fault.CUT, Fault.WORDLESS, Fault.STATUS_422)
assert {FAULTS[fault].kind for fault in TYPICAL} == set(Kind)


def cases(*kinds: Kind) -> list[Any]:
    faults = [fault for fault, told in FAULTS.items() if told.kind in kinds]
    found: list[Any] = list(product(faults, ASKED, WAYS))
    for fault, asked, way in product(faults, TRANSLATED, WAYS):
        found.append(pytest.param(fault, asked, way, marks=() if fault in TYPICAL else pytest.mark.slow))
    return found


def is_complete(answer: Answer, asked: str, way: str, text: str) -> None:
    said = SPEECHES[asked].said(answer, stream=way == "streamed")
    assert (said.text, said.complete, said.error) == (text, True, "")


def ends_with_an_error(answer: Answer, asked: str) -> None:
    said = SPEECHES[asked].said(answer, stream=True)
    assert (said.text, said.complete, answer.endpoint) == ("w1 w2 ", False, "laptop")
    assert said.error.startswith("No endpoint could complete this (1 tried)")


@pytest.mark.lengthy
@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.BEFORE_CONTENT))
async def test_a_fault_before_content_is_made_good_elsewhere(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        if fault not in (Fault.REFUSED, Fault.DNS):
            assert met.chaos.seen[fault].requests >= 1
    is_complete(answer, asked, way, WORDS)
    assert (answer.endpoint, answer.header("x-tidegate-attempts")) == ("cloud", "2")


@pytest.mark.lengthy
@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.AFTER_CONTENT))
async def test_a_fault_after_content_ends_a_stream_with_an_error_and_is_else_made_good(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert met.chaos.seen[fault].requests == 1
        assert len(met.home.engines["cloud"].seen) == (0 if way == "streamed" else 1)
    if way == "streamed":
        ends_with_an_error(answer, asked)
    else:
        is_complete(answer, asked, way, WORDS)
        assert answer.endpoint == "cloud"


@pytest.mark.lengthy
@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.HARMLESS))
async def test_a_harmless_fault_is_served_as_if_nothing_were_wrong(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert met.home.engines["cloud"].seen == []
    is_complete(answer, asked, way, "" if fault is Fault.WORDLESS else GOOD)
    assert (answer.endpoint, answer.header("x-tidegate-attempts")) == ("laptop", "1")


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.FINAL))
async def test_a_request_that_is_at_fault_is_told_so_and_tried_elsewhere_only_if_it_was_translated(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert len(met.home.engines["cloud"].seen) == (asked in TRANSLATED)
    if asked in TRANSLATED:
        is_complete(answer, asked, way, WORDS)
    else:
        assert (answer.status, SPEECHES[asked].error(answer)) == (fault.status, f"this is {fault.status}")


def documented(fault: Fault) -> tuple[int, str]:
    """Status and code, as the reference says, of a request that has only this endpoint."""
    if fault.status == 429:
        return 429, "rate_limit_exceeded"
    if fault.status == 413:
        return 413, "request_too_large"
    if fault.status in (503, 529):
        return 503, "upstream_overloaded"
    return (504, "upstream_timeout") if FAULTS[fault].waits else (502, "upstream_error")


@pytest.mark.lengthy
@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.BEFORE_CONTENT, Kind.AFTER_CONTENT))
async def test_without_an_alternative_a_fault_is_told_and_never_looks_like_an_answer(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=False) as met:
        answer = await met.ask(asked, way)
    if way == "streamed" and FAULTS[fault].kind is Kind.AFTER_CONTENT:
        ends_with_an_error(answer, asked)
        return
    status, code = documented(fault)
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    assert "<" not in SPEECHES[asked].error(answer)
    if asked in ASKED:
        assert answer.error["code"] == code


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [Fault.STATUS_429_SECONDS, Fault.STATUS_429_DATE, Fault.STATUS_429_MS])
async def test_the_time_to_come_back_is_told_however_the_provider_says_it(
    tmp_path: Path, fault: Fault, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=False) as met:
        answer = await met.ask("chat", way)
    # A date has whole seconds, and is rounded up.
    assert int(answer.header("retry-after")) in (RETRY_AFTER_S, RETRY_AFTER_S + 1)


@pytest.mark.parametrize("way", ["streamed", "gathered"])
async def test_a_provider_that_ignores_a_cancel_keeps_nothing_here(tmp_path: Path, way: str) -> None:
    async with meeting(tmp_path, Fault.IGNORES_CANCEL, way, alternative=False) as met:
        met.chaos.pace = Pace(token_s=60.0)
        async with met.home.asking(chat(stream=way == "streamed")):
            await eventually(lambda: met.chaos.seen[Fault.IGNORES_CANCEL].in_flight == 1)
        await met.home.quiet()
        await eventually(lambda: met.chaos.seen[Fault.IGNORES_CANCEL].left == 1)
        assert met.chaos.seen[Fault.IGNORES_CANCEL].in_flight == 1  # it works for nobody
