"""Where KV caches of prompts go, as the configuration file declares it, and as the core knows it."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from tidegate.config.table import END, Table
from tidegate.core import hardware
from tidegate.core.hardware import Model
from tidegate.core.model import Handover

# As DNS names are, in lower case.
COURIER_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?" + END
KIB, MIB, GB = 1024.0, 1024.0 * 1024.0, 1e9


class HandoverTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This endpoint may compute prompts for another one, which decodes: their KV caches are sent there, by couriers
    between two llama.cpp, and by the engines themselves between two vLLM."""

    to: Annotated[
        str, Meta(min_length=1, max_length=64, description="The endpoint that decodes: one whose capacity is ours.")
    ]
    kv_kib_per_token: Annotated[
        Annotated[float, Meta(ge=0.001, le=1e6)] | None,  # a GiB for each token: no model is as large
        Meta(
            description="Size of the KV cache for each token of the prompt. Left out, it follows from `hardware` and "
            "the model of either endpoint. What is really sent corrects it."
        ),
    ] = None
    kv_mib_fixed: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)],
        Meta(description="What is sent besides, however short the prompt: the state of a hybrid model."),
    ] = 0.0
    mbit_per_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=1e6)],  # from a bad mobile link to a terabit
        Meta(description="Bandwidth of the way there, until KV caches were sent. A fast office has 100."),
    ] = 100.0
    usd_per_gb: Annotated[
        Annotated[float, Meta(ge=0, le=1000)],
        Meta(description="What sending 10^9 bytes costs, as clouds charge what leaves them."),
    ] = 0.0
    layers: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(
            description="Of so many layers each is sent once it is computed, while the next ones are. 1 where all is "
            "sent at the end, as llama.cpp saves it."
        ),
    ] = 1


class CourierPlaceTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The courier beside an engine, which carries KV caches from and to its slots."""

    address: Annotated[
        str,
        Meta(
            max_length=300,  # a host name has at most 253 characters
            description="Where it listens, `host:port`, for the gateway and for the other couriers.",
        ),
    ]
    name: Annotated[
        str,
        Meta(
            pattern=COURIER_NAME,
            max_length=253,
            description="Its name, as in its own file and among the DNS names of its certificate.",
        ),
    ]


def handovers(
    tables: tuple[HandoverTable, ...], models: Mapping[str, Model | None], name: str, *, whole: bool
) -> tuple[Handover, ...]:
    """Those of the endpoint of this `name`, as the core knows them. `models` is what is known to run at each."""
    found = []
    for table in sorted(tables, key=lambda table: table.to):
        per_token = kv_bytes_per_token(table, models[name] or models[table.to])
        assert per_token is not None, "load refuses an unknown size"
        found.append(
            Handover(
                target=table.to,
                kv_bytes_per_token=per_token,
                kv_bytes_fixed=table.kv_mib_fixed * MIB,
                bytes_per_s=table.mbit_per_s * 1e6 / 8.0,
                usd_per_byte=table.usd_per_gb / GB,
                layers=table.layers,
                whole=whole,
            )
        )
    return tuple(found)


def kv_bytes_per_token(table: HandoverTable, model: Model | None) -> float | None:
    """As written, or as the model has it; None where neither is known."""
    if table.kv_kib_per_token is not None:
        return table.kv_kib_per_token * KIB
    return None if model is None else hardware.kv_bytes(model, 1)
