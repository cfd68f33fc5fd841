"""Trace context is taken as W3C has it, and attributes have the names that the conventions give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.semconv import schemas
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes

from tidegate.core.model import Decision
from tidegate.core.why import Why
from tidegate.telemetry.event import WideEvent
from tidegate.telemetry.trace import (
    CONVENTIONS,
    DECISIONS_MAX,
    TABLE,
    Arrival,
    Attempted,
    Decided,
    Tracer,
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CAME = Arrival(method="POST", path="/v1/chat/completions", operation="chat", output_tokens_max=None, completions=None)


def tracer(ratio: float = 1.0, *, follow: bool = True) -> Tracer:
    return Tracer(ratio, lambda trace, event: None, follow=follow)


def begun(header: str, **more: str) -> tuple[str, str]:
    """The trace and the parent's span that a client's header makes."""
    headers = {b"traceparent": header.encode()} | {k.encode(): v.encode() for k, v in more.items()}
    trace = tracer().begin(headers, CAME)
    return trace.trace_id, trace.parent_id


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what-comes-later"]
)
def test_a_clients_trace_goes_on(header: str) -> None:
    assert begun(header) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
    ],
)
def test_what_is_no_trace_begins_a_new_one(header: str) -> None:
    trace_id, parent_id = begun(header)
    assert trace_id != TRACE
    assert len(trace_id) == 32
    assert parent_id == ""


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_whatever_a_client_sends_the_lines_for_an_engine_are_two_at_most_and_plain(parent: bytes, state: bytes) -> None:
    for header in (parent, f"00-{TRACE}-{PARENT}-01".encode()):
        trace = tracer().begin({b"traceparent": header, b"tracestate": state}, CAME)
        lines = trace.lines("laptop", local=True).split(b"\r\n")
        assert lines.pop() == b""
        assert 1 <= len(lines) <= 2
        assert all(line.isascii() and line.decode().isprintable() for line in lines)


@given(st.floats(0.0, 1.0))
def test_of_the_same_trace_who_tells_a_larger_share_tells_what_who_tells_a_smaller_one_does(ratio: float) -> None:
    headers = {b"traceparent": f"00-{TRACE}-{PARENT}-00".encode()}
    told = tracer(ratio, follow=False).begin(headers, CAME).sampled
    assert not told or tracer(min(1.0, ratio + 0.1), follow=False).begin(headers, CAME).sampled


def test_a_ratio_is_the_share_that_is_told() -> None:
    some = tracer(0.25)
    told = sum(some.begin({}, CAME).sampled for _ in range(4000))
    assert 800 < told < 1200  # seven deviations


def test_decisions_of_one_that_waits_are_bounded() -> None:
    trace = tracer().begin({}, CAME)
    for _ in range(2 * DECISIONS_MAX):
        trace.decided(Decision(request_id="r", plan=(), why=Why.HOLD_FULL), 2, None, 0.0)
    assert len(trace.decisions) == DECISIONS_MAX


def test_every_attribute_is_of_a_field_that_there_is_and_no_two_have_one_name() -> None:
    records = {"came": Arrival, "request": WideEvent, "attempt": Attempted, "decision": Decided}
    for one in TABLE:
        assert one.field in records[one.of].__struct_fields__
    for kinds in (("came", "request"), ("attempt",), ("decision",)):
        names = [one.name for one in TABLE if one.of in kinds]
        assert len(names) == len(set(names))


def test_names_are_the_conventions_own_or_begin_with_ours() -> None:
    told = (gen_ai_attributes, error_attributes, http_attributes, server_attributes, url_attributes)
    known = {value for module in told for value in vars(module).values() if isinstance(value, str)}
    for one in TABLE:
        assert one.name in known or one.name.startswith("tidegate."), one.name
    assert f"https://opentelemetry.io/schemas/{CONVENTIONS}" in {schema.value for schema in schemas.Schemas}


def test_nothing_that_a_prompt_is_in_has_an_attribute() -> None:
    for word in ("messages", "prompt.", "content", "instructions", "arguments"):
        assert not any(word in one.name for one in TABLE)


def test_an_attempt_that_is_not_under_way_has_no_span() -> None:
    trace = tracer().begin({}, CAME)
    trace.lines("laptop", local=True)
    assert trace.span_of("laptop") is not None
    assert trace.span_of("laptop") is None
