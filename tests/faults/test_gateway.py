"""The promise, for every fault that is known: see `tidegate.engines.faults`."""

from itertools import product
from pathlib import Path

import pytest

from tests.faults.harness import ASKED, GOOD, WAYS, meeting
from tests.gateway.harness import Answer, chat
from tests.http.harness import eventually
from tidegate.engines.faults import FAULTS, Fault, Kind
from tidegate.lab.misdeeds import RETRY_AFTER_S, Pace

WORDS = "w1 w2 w3 w4 "  # the alternative's
ERROR_KEYS = {"message", "type", "param", "code"}


def cases(*kinds: Kind) -> list[tuple[Fault, str, str]]:
    faults = [fault for fault, told in FAULTS.items() if told.kind in kinds]
    return list(product(faults, ASKED, WAYS))


def is_complete(answer: Answer, way: str, text: str) -> None:
    assert (answer.status, answer.text) == (200, text)
    if way == "streamed":
        assert answer.events.count("[DONE]") == 1
        assert answer.events[-1] == "[DONE]"
    else:
        assert answer.json["choices"][0]["finish_reason"] == "stop"


def ends_with_an_error(answer: Answer) -> None:
    assert (answer.status, answer.text, answer.endpoint) == (200, "w1 w2 ", "laptop")
    assert "[DONE]" not in answer.events
    assert set(answer.events[-1]) == {"error"}
    assert set(answer.events[-1]["error"]) == ERROR_KEYS
    assert all("error" not in event for event in answer.events[:-1])


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.BEFORE_CONTENT))
async def test_a_fault_before_content_is_made_good_elsewhere(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        if fault not in (Fault.REFUSED, Fault.DNS):
            assert met.chaos.seen[fault].requests >= 1
    is_complete(answer, way, WORDS)
    assert (answer.endpoint, answer.header("x-tidegate-attempts")) == ("cloud", "2")


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.AFTER_CONTENT))
async def test_a_fault_after_content_ends_a_stream_with_an_error_and_is_else_made_good(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert met.chaos.seen[fault].requests == 1
        assert len(met.home.engines["cloud"].seen) == (0 if way == "streamed" else 1)
    if way == "streamed":
        ends_with_an_error(answer)
    else:
        is_complete(answer, way, WORDS)
        assert answer.endpoint == "cloud"


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.HARMLESS))
async def test_a_harmless_fault_is_served_as_if_nothing_were_wrong(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert met.home.engines["cloud"].seen == []
    is_complete(answer, way, "" if fault is Fault.WORDLESS else GOOD)
    assert (answer.endpoint, answer.header("x-tidegate-attempts")) == ("laptop", "1")


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.FINAL))
async def test_a_request_that_is_at_fault_is_told_so_and_tried_nowhere_else(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=True) as met:
        answer = await met.ask(asked, way)
        assert met.home.engines["cloud"].seen == []
    assert (answer.status, answer.error["message"]) == (fault.status, f"this is {fault.status}")


def documented(fault: Fault) -> tuple[int, str]:
    """Status and code, as the reference says, of a request that has only this endpoint."""
    if fault.status == 429:
        return 429, "rate_limit_exceeded"
    if fault.status in (503, 529):
        return 503, "upstream_overloaded"
    return (504, "upstream_timeout") if FAULTS[fault].waits else (502, "upstream_error")


@pytest.mark.parametrize(("fault", "asked", "way"), cases(Kind.BEFORE_CONTENT, Kind.AFTER_CONTENT))
async def test_without_an_alternative_a_fault_is_told_and_never_looks_like_an_answer(
    tmp_path: Path, fault: Fault, asked: str, way: str
) -> None:
    async with meeting(tmp_path, fault, way, alternative=False) as met:
        answer = await met.ask(asked, way)
    if way == "streamed" and FAULTS[fault].kind is Kind.AFTER_CONTENT:
        ends_with_an_error(answer)
        return
    assert (answer.status, answer.error["code"]) == documented(fault)
    assert answer.header("content-type") == "application/json"
    assert "<" not in answer.error["message"]


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
