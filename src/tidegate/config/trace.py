"""Traces: where they are sent, and which of them. Off unless there is an `endpoint`."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.config import secret
from tidegate.config.address import is_private, parse_url
from tidegate.config.extra import installs
from tidegate.config.problem import Problems
from tidegate.config.secret import Secret, SecretError
from tidegate.config.table import SecretTable, Table, Text

_SDK = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


class TraceTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces of requests, for OpenTelemetry: one span for each, and one for each attempt. Needs `tidegate[otel]`."""

    endpoint: Annotated[
        Text,
        Meta(
            description="URL that takes OTLP over HTTP, as `http://127.0.0.1:4318/v1/traces` of a collector on this "
            "machine. Left out, nothing is traced, and requests are passed on without a trace."
        ),
    ] = ""
    ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of the traces that is told, of those about which no client has decided. A tenth "
            "shows what is usual; the journal has every request.",
        ),
    ] = 0.1
    follow: Annotated[
        bool,
        Meta(
            description="Whether a client that sends `traceparent` decides whether its trace is told. Else `ratio` "
            "does for all; its trace goes on all the same. On, since half a trace is of no use to who began it."
        ),
    ] = True
    service: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,  # as OpenTelemetry's own components bound it
            description="The name of this service in traces (`service.name`).",
        ),
    ] = "tidegate"
    queue_spans: Annotated[
        int,
        Meta(
            ge=512,  # one batch
            le=65_536,  # 200 MB
            description="How many spans wait at most for whoever takes them; beyond that the oldest are lost. A "
            "minute of ten requests a second.",
        ),
    ] = 2048
    every_s: Annotated[
        float,
        Meta(
            ge=0.1,  # more often is one connection after the other
            le=60,
            description="How often they are sent, in seconds, unless 512 wait sooner. As often as somebody "
            "looks again.",
        ),
    ] = 5.0
    timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=60,  # what nobody takes delays the end of the process by twice as long
            description="How long one sending may take, with its repetitions, in seconds. As OpenTelemetry has it.",
        ),
    ] = 10.0
    authorization: Annotated[
        SecretTable | None,
        Meta(
            description="The value of the header `authorization` that goes with them, as `Bearer ...`: `{ env = "
            '"VARIABLE" }` or `{ file = "trace.key" }`. None, since a collector beside us asks for none.'
        ),
    ] = None


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """The same, with the secret."""

    table: TraceTable
    authorization: Secret | None


def traces(table: TraceTable, authorization: Secret | None) -> Traces | None:
    """The settings; None where nothing is traced."""
    return Traces(table=table, authorization=authorization) if table.endpoint else None


def check(table: TraceTable, folder: Path, problems: Problems, variables: Mapping[str, str]) -> Secret | None:
    """Note what is wrong with it; what the receiver is shown, if anything."""
    if table.endpoint:
        try:
            url = parse_url(table.endpoint)
        except ValueError as error:
            problems.add("trace.endpoint", str(error), "write it as in http://127.0.0.1:4318/v1/traces")
        else:
            if table.authorization is not None and not url.tls and not is_private(url.host):
                problems.add(
                    "trace.endpoint",
                    "what `authorization` holds would travel through the internet in the clear",
                    "write https://, or reach it through a private network or tunnel",
                )
        if not installed():
            problems.add(
                "trace.endpoint",
                "OpenTelemetry's SDK is not installed, without which nothing is traced",
                f"{installs('otel')}, or leave `endpoint` out",
            )
    if table.authorization is None:
        return None
    try:
        return secret.of_table(table.authorization, "trace.key", folder, variables)
    except SecretError as error:
        problems.add("trace.authorization", error.message, error.remedy)
        return None


def installed() -> bool:
    """Whether what sends traces is there."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in _SDK)
    except ModuleNotFoundError:
        return False
