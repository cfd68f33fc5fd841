"""Requests are told as traces to whoever takes OTLP: a real receiver decodes what a real gateway sends."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.gateway.harness import chat, house, local, remote
from tests.http.harness import eventually
from tests.telemetry.test_log import EVENT
from tests.telemetry.test_trace import CAME
from tidegate.clock import Clock
from tidegate.engines.fake import Fault, Script
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server
from tidegate.telemetry.otlp import Sender
from tidegate.telemetry.trace import Tracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TOLD = f"00-{TRACE}-{PARENT}-01"
NOT_TOLD = f"00-{TRACE}-{PARENT}-00"


class Receiver:
    """Takes OTLP over HTTP, and keeps what it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.authorization = b""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def __call__(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.status == 200:
            assert exchange.path == "/v1/traces"
            assert exchange.headers[b"content-type"] == b"application/x-protobuf"
            self.authorization = exchange.headers.get(b"authorization", b"")
            body = exchange.body
            if exchange.headers.get(b"content-encoding") == b"gzip":
                body = gzip.decompress(body)
            for batch in ExportTraceServiceRequest.FromString(bytes(body)).resource_spans:
                self.resource = read(batch.resource.attributes)
                for scope in batch.scope_spans:
                    assert scope.scope.name == "tidegate"
                    self.spans += scope.spans
        exchange.respond(self.status, ((b"content-type", b"application/x-protobuf"),), b"")

    def of(self, kind: int) -> list[Span]:
        return [span for span in self.spans if span.kind == kind]


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    told = Receiver()
    limits = Limits(body_bytes_max=16 * 1024 * 1024, connections_max=10)
    server = Server(told, limits=limits, clock=Clock(), error_body=lambda *_: (b"text/plain", b""))
    await server.start("127.0.0.1", 0)
    told.port = server.port
    try:
        yield told
    finally:
        await server.close(0.0)


def read(attributes: Any) -> dict[str, Any]:
    """Attributes as plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def told_to(receiver: Receiver, **settings: Any) -> dict[str, Any]:
    return {"endpoint": receiver.url, "ratio": 1.0, "every_s": 0.1, "timeout_s": 2.0} | settings


async def test_a_request_is_a_span_within_its_clients_trace_and_its_attempts_are_spans_within_it(
    tmp_path: Path,
) -> None:
    async with receiver() as collector:
        laptop, cloud = local(Script(status=500)), remote()
        async with house(tmp_path, laptop=laptop, cloud=cloud, trace=told_to(collector)) as home:
            body = chat("The secret of the prompt", max_tokens=7)
            answer = await home.ask(body, traceparent=TOLD, tracestate="rojo=00f0")
            await eventually(lambda: len(collector.spans) == 3)
            (line,) = home.log()
        (own,) = collector.of(Span.SPAN_KIND_SERVER)
        failed, served = sorted(collector.of(Span.SPAN_KIND_CLIENT), key=lambda s: s.start_time_unix_nano)
    assert answer.endpoint == "cloud"
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert own.parent_span_id.hex() == PARENT
    assert {failed.parent_span_id, served.parent_span_id} == {own.span_id}
    assert len({own.span_id, failed.span_id, served.span_id}) == 3
    assert own.start_time_unix_nano <= failed.start_time_unix_nano <= failed.end_time_unix_nano
    assert served.start_time_unix_nano <= served.end_time_unix_nano <= own.end_time_unix_nano
    assert (own.name, served.name) == ("POST /v1/chat/completions", "chat vendor/big")
    assert (own.status.code, failed.status.code) == (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR)
    usage = answer.json["usage"]
    about = read(own.attributes)
    assert (
        about.items()
        >= {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.request.max_tokens": 7,
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "tidegate.decision.id": line["decision_id"],
            "tidegate.endpoint": "cloud",
            "tidegate.outcome": "ok",
            "tidegate.attempts": 2,
        }.items()
    )
    assert about["tidegate.cost_usd"] == pytest.approx(line["cost_usd"])
    assert (
        read(failed.attributes).items()
        >= {
            "tidegate.endpoint": "laptop",
            "tidegate.tier": "local",
            "tidegate.ending": "failed",
            "http.response.status_code": 500,
        }.items()
    )
    assert "error.type" in read(failed.attributes)
    at_the_vendor = read(served.attributes)
    assert (
        at_the_vendor.items()
        >= {
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "vendor/big",
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "server.address": "127.0.0.1",
            "tidegate.tier": "remote",
            "tidegate.ending": "ok",
        }.items()
    )
    assert 0.0 < at_the_vendor["tidegate.predicted_ttft_s"] <= at_the_vendor["tidegate.predicted_ttft_s_high"]
    (decision,) = own.events
    assert decision.name == "tidegate.decision"
    assert (
        read(decision.attributes).items()
        >= {
            "tidegate.why": line["why"],
            "tidegate.endpoint": "laptop",
            "tidegate.candidates": 2,
            "tidegate.steps": 2,
            "tidegate.predicted_cost_usd": 0.0,
        }.items()
    )
    assert collector.resource["service.name"] == "tidegate"
    assert not any("secret" in str(span) for span in collector.spans)


async def test_engines_are_given_the_span_of_their_attempt_and_vendors_nothing_else_of_the_clients(
    tmp_path: Path,
) -> None:
    async with receiver() as collector:
        laptop = local(Script(status=500))
        async with house(tmp_path, laptop=laptop, cloud=remote(), trace=told_to(collector)) as home:
            await home.ask(traceparent=TOLD, tracestate="rojo=00f0")
            seen = {name: home.engines[name].seen[-1].headers for name in ("laptop", "cloud")}
            await eventually(lambda: len(collector.spans) == 3)
    spans = {read(span.attributes)["tidegate.endpoint"]: span for span in collector.of(Span.SPAN_KIND_CLIENT)}
    for name, headers in seen.items():
        assert headers[b"traceparent"].decode() == f"00-{TRACE}-{spans[name].span_id.hex()}-01"
    assert seen["laptop"][b"tracestate"] == b"rojo=00f0"
    assert b"tracestate" not in seen["cloud"]


@pytest.mark.parametrize(
    ("settings", "headers", "spans"),
    [
        ({"ratio": 0.0}, {}, 0),
        ({"ratio": 0.0}, {"traceparent": TOLD}, 2),
        ({"ratio": 1.0}, {"traceparent": NOT_TOLD}, 0),
        ({"ratio": 0.0, "follow": False}, {"traceparent": TOLD}, 0),
        ({"ratio": 1.0, "follow": False}, {"traceparent": NOT_TOLD}, 2),
    ],
)
async def test_a_trace_that_is_not_told_goes_on_all_the_same(
    tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], spans: int
) -> None:
    async with receiver() as collector:
        async with house(tmp_path, laptop=local(), trace=told_to(collector, **settings)) as home:
            assert (await home.ask(**headers)).status == 200
            sent = home.engines["laptop"].seen[-1].headers[b"traceparent"].decode()
        # What was left was sent when the gateway stopped.
        assert len(collector.spans) == spans
    version, trace_id, span_id, flags = sent.split("-")
    assert (version, len(trace_id), len(span_id)) == ("00", 32, 16)
    assert flags == ("01" if spans else "00")
    if headers:
        assert trace_id == TRACE
        assert span_id != PARENT


async def test_without_a_receiver_nothing_is_traced_or_passed_on(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        await home.ask(traceparent=TOLD, tracestate="rojo=00f0")
        assert home.gateway.tracing is None
        assert not {b"traceparent", b"tracestate"} & home.engines["laptop"].seen[-1].headers.keys()
        assert b"tidegate_trace_spans_total{" not in (await home.get("/metrics", admin=True)).body


@pytest.mark.lengthy
async def test_a_hedge_is_told_and_so_is_the_attempt_that_it_beat(tmp_path: Path) -> None:
    async with receiver() as collector:
        laptop = local(Script(fault=Fault.SILENT))
        async with house(tmp_path, laptop=laptop, cloud=remote(), trace=told_to(collector)) as home:
            answer = await home.ask(chat(stream=True))
            await eventually(lambda: len(collector.spans) == 3)
    assert answer.endpoint == "cloud"
    by_name = {read(s.attributes)["tidegate.endpoint"]: read(s.attributes) for s in collector.of(Span.SPAN_KIND_CLIENT)}
    assert by_name["cloud"]["tidegate.hedge"] is True
    assert by_name["cloud"]["gen_ai.response.time_to_first_chunk"] >= 0.0
    assert by_name["laptop"]["tidegate.ending"] in ("cancelled", "timed_out")
    assert "gen_ai.response.time_to_first_chunk" not in by_name["laptop"]


async def test_a_request_that_fails_and_one_that_is_refused_are_told_with_their_reason(tmp_path: Path) -> None:
    async with receiver() as collector:
        async with house(tmp_path, laptop=local(Script(status=500)), trace=told_to(collector)) as home:
            failed = await home.ask()
            refused = await home.ask(chat("x" * 200_000))
        assert (failed.status // 100, refused.status) == (5, 400)
        first, second = sorted(collector.of(Span.SPAN_KIND_SERVER), key=lambda s: s.start_time_unix_nano)
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert read(first.attributes)["error.type"] == failed.error["code"]
    # What the client can do better is no error of the server's.
    assert second.status.code == Status.STATUS_CODE_UNSET
    assert read(second.attributes)["error.type"] == refused.error["code"]
    assert "tidegate.endpoint" not in read(second.events[0].attributes)


async def test_a_receiver_that_takes_nothing_costs_no_request_and_is_told_once(tmp_path: Path) -> None:
    async with receiver() as collector:
        collector.status = 400
        async with house(tmp_path, laptop=local(), trace=told_to(collector)) as home:
            tracing = home.gateway.tracing
            assert tracing is not None
            for _ in range(3):
                assert (await home.ask()).status == 200
            await eventually(lambda: tracing.statistics()["lost"] == 6)
            await eventually(lambda: "traces are lost" in str(home.log("event")))
            collector.status = 200
            await home.ask()
            await eventually(lambda: "traces are taken again" in str(home.log("event")))
            metrics = (await home.get("/metrics", admin=True)).body.decode()
        told = [line["event"] for line in home.log("event") if "traces" in line["event"]]
    assert told == ["traces are lost: nobody takes them", "traces are taken again"]
    assert 'tidegate_trace_spans_total{outcome="lost"} 6.0' in metrics
    assert 'tidegate_trace_spans_total{outcome="made"} 8.0' in metrics


async def test_the_receivers_secret_goes_with_what_is_sent(tmp_path: Path) -> None:
    key = tmp_path / "trace.key"
    key.write_text("Bearer of-a-collector")
    key.chmod(0o600)
    async with receiver() as collector:
        trace = told_to(collector, authorization={"file": "trace.key"})
        async with house(tmp_path, laptop=local(), trace=trace) as home:
            await home.ask()
            await eventually(lambda: len(collector.spans) == 2)
    assert collector.authorization == b"Bearer of-a-collector"


async def test_where_the_sdk_is_gone_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "tidegate.telemetry.otlp", raising=False)
    with pytest.raises(OSError, match=r"pip install .tidegate\[otel\]."):
        async with house(tmp_path, laptop=local(), trace={"endpoint": "http://127.0.0.1:9/v1/traces"}):
            pass


async def test_a_hundred_requests_at_once_are_each_told_whole(tmp_path: Path) -> None:
    async with receiver() as collector:
        async with house(tmp_path, laptop=local(), trace=told_to(collector, queue_spans=512)) as home:
            await asyncio.gather(*(home.ask() for _ in range(100)))
        spans = collector.spans
    assert len({span.trace_id for span in spans}) == 100
    assert len(spans) == len({span.span_id for span in spans}) == 200


async def test_the_end_of_the_process_waits_for_a_receiver_that_is_silent_no_longer_than_two_sendings_take() -> None:
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0, limit=1 << 24) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        sender = Sender(
            url, service="", authorization="", queue_spans=8192, every_s=60, timeout_s=0.3, on_problem=lambda _: None
        )
        trace = Tracer(1.0, sender.tell, follow=False).begin({}, CAME)
        for _ in range(8192):
            sender.tell(trace, EVENT)
        await asyncio.to_thread(sender.close)
    assert sender.statistics == {"made": 8192, "sent": 0, "lost": 8192}
    assert 1 <= asked <= 4, "there are 16 batches"
