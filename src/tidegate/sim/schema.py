"""A scenario's own tables as types: what may be written, within which bounds, and what it means.

The tables of a configuration stand beside these. As there, a description's last sentence gives the reason of a default,
and the reference page is made from it.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from tidegate.config.moment import Moment
from tidegate.config.table import Table, Text
from tidegate.core.model import USUAL_WEIGHT
from tidegate.core.profile import WEIGHT_MAX, WEIGHT_MIN
from tidegate.sim.fitted import PresetName
from tidegate.sim.recorded import TraceFormat

TIMES_MAX_S = 31 * 86_400.0  # a month; longer, and it is another experiment
Seconds = Annotated[float, Meta(ge=0, le=TIMES_MAX_S)]
Share = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[float, Meta(ge=0, le=1e9)]
Tokens = Annotated[int, Meta(ge=0, le=100_000_000)]  # the longest context a configuration may declare


class WorldTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The world as a whole."""

    config: Annotated[
        Text,
        Meta(
            description="A configuration, relative to this file, whose tables count where the scenario has none of "
            "that name: so that what is tested is what is served. Its `[gateway]`, `[switchback]` and `[trace]` play "
            "no part."
        ),
    ] = ""
    seed: Annotated[
        int,
        Meta(
            ge=0,
            le=2**63 - 1,  # as in [policy]
            description="Seed of everything that happens by chance in the world; `--seed` goes before it. 0, since the "
            "value does not matter.",
        ),
    ] = 0
    start: Annotated[
        Moment,
        Meta(
            description="When it begins, UTC, from 1970-01-02 to 9990-01-01: hours of the day, prices and budgets "
            "follow from it. A Monday at eight, when offices open."
        ),
    ] = Moment(2026, 1, 5, 8)
    duration_s: Annotated[
        float,
        Meta(
            ge=1,
            le=TIMES_MAX_S,
            description="How long requests arrive; what has arrived is followed to its end. Ten minutes show a queue, "
            "and take seconds.",
        ),
    ] = 600.0
    requests_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,  # some KiB of memory for each
            description="Requests after which no more arrive. 100,000 are a minute of computing: a rate with a zero "
            "too many should not take a day.",
        ),
    ] = 100_000
    request_timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,  # both as in [gateway]
            description="Time after which a request is given up, held or not. As in a configuration.",
        ),
    ] = 600.0
    probe_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="Time between two probes of every endpoint. As in a configuration.",
        ),
    ] = 5.0


class Law(StrEnum):
    """How gaps between arrivals scatter."""

    POISSON = "poisson"
    GAMMA = "gamma"
    WEIBULL = "weibull"


class SizeTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large something is: log-normal, or always the same."""

    median: Annotated[Number, Meta(description="Half of the cases are below. Above 0.")]
    sigma: Annotated[
        Annotated[float, Meta(ge=0, le=3)], Meta(description="Spread of the logarithm. 0 is always the median.")
    ] = 0.0
    most: Annotated[Number | None, Meta(description="No case is above. No such bound.")] = None


Size = Number | SizeTable


class TrafficTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends requests. There may be several: what they ask for is not shared between them.

    It is a `preset`, a `trace`, an open loop (`rate_per_s` with lengths), or clients who wait for their answers
    (`users` with lengths): a client's next prompt is the last one, its answer and `new_tokens` more.
    """

    name: Annotated[
        str, Meta(max_length=64, description="Begins the ids of its requests. Left out, `traffic-` and its number.")
    ] = ""
    model: Annotated[str, Meta(min_length=1, max_length=256, description="The name that it asks for.")]
    classes: Annotated[
        Annotated[dict[str, Annotated[float, Meta(ge=0, le=1e6)]], Meta(min_length=1)] | None,
        Meta(
            description="Classes that its requests name, with their weights. None: they are `interactive`, unless a "
            "rule gives them another."
        ),
    ] = None
    key: Annotated[
        str, Meta(max_length=80, description="The client key of its requests: whose share of our engines they take.")
    ] = ""
    weight: Annotated[
        Annotated[float, Meta(ge=WEIGHT_MIN, le=WEIGHT_MAX)],
        Meta(description="Weight of that share. 1, as of a key that was given none."),
    ] = USUAL_WEIGHT
    preset: Annotated[
        PresetName | None,
        Meta(description="Traffic like that of a public trace; at its own rate unless `rate_per_s` says otherwise."),
    ] = None
    trace: Annotated[
        Text, Meta(description="A public trace as it is, plain or gzipped; relative to this file. `--trace`.")
    ] = ""
    format: Annotated[TraceFormat | None, Meta(description="Whose trace that is. `--trace-format`.")] = None
    speed: Annotated[
        Annotated[float, Meta(ge=0.001, le=1000)] | None,
        Meta(description="How many times as fast as it was recorded. 1."),
    ] = None
    rate_per_s: Annotated[
        Annotated[float, Meta(ge=1e-6, le=10_000)] | None, Meta(description="Requests a second, on average.")
    ] = None
    law: Annotated[
        Law | None, Meta(description="How they scatter. `poisson`: many clients who know nothing of each other.")
    ] = None
    cv: Annotated[
        Annotated[float, Meta(ge=0.05, le=50)] | None,
        Meta(description="Coefficient of variation of the gaps, of `gamma` and `weibull`: above 1 is bursts."),
    ] = None
    hours: Annotated[
        bool, Meta(description="Whether the rate follows the hours of the day, as BurstGPT's does. It does not.")
    ] = False
    prompt_tokens: Annotated[Size | None, Meta(description="Tokens of prompts; of users, of the first one.")] = None
    output_tokens: Annotated[Size | None, Meta(description="Tokens that the model would generate.")] = None
    correlation: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None, Meta(description="Of prompt and output, by rank. None, 0.")
    ] = None
    output_tokens_max: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None,
        Meta(description="The clients' own bound on the output. Left out, half of them give 4096 and half none."),
    ] = None
    common_tokens: Annotated[Tokens | None, Meta(description="Tokens that all prompts begin with. None, 0.")] = None
    users: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="Clients of a closed loop. Presets and traces that are one have 8."),
    ] = None
    turns: Annotated[Size | None, Meta(description="Turns of a session. 1.")] = None
    new_tokens: Annotated[Size | None, Meta(description="Tokens that a turn adds to prompt and answer. 100.")] = None
    think_s: Annotated[Size | None, Meta(description="Seconds from an answer to the next turn. 10.")] = None
    begins_s: Annotated[Seconds, Meta(description="When it begins, from the world's start. At once.")] = 0.0
    ends_s: Annotated[Seconds | None, Meta(description="When it ends. With the world's duration.")] = None
    requests_max: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | None, Meta(description="How many requests at most. No such bound.")
    ] = None

    def called(self, index: int) -> str:
        """Its name, or else that of its place among the others."""
        return self.name or f"traffic-{index}"


class FaultKind(StrEnum):
    """What can go wrong, and what operators do by hand."""

    CRASH = "crash"
    FREEZE = "freeze"
    SLOW = "slow"
    OUTAGE = "outage"
    UNAVAILABLE = "unavailable"
    RATE_LIMIT = "rate_limit"
    DRAIN = "drain"
    PIN = "pin"
    STATIC = "static"


FAULT_TEXT = {
    FaultKind.CRASH: "an engine dies with what it has, and is back after `for_s`",
    FaultKind.FREEZE: "an engine stands still for `for_s`; connections stay, and no probe is answered",
    FaultKind.SLOW: "an engine or an API takes `factor` times as long for `for_s`",
    FaultKind.OUTAGE: "the way to an endpoint, its `link`, is down for `for_s`; what would have come comes then",
    FaultKind.UNAVAILABLE: "an API answers 503 for `for_s`",
    FaultKind.RATE_LIMIT: "an API serves `requests_per_minute` for `for_s`, and refuses others with 429",
    FaultKind.DRAIN: "operators drain an endpoint for `for_s`",
    FaultKind.PIN: "operators pin its models to an endpoint for `for_s`",
    FaultKind.STATIC: "operators put the static rule in force for `for_s`",
}


class FaultTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that happens at a time, and is over after another."""

    kind: Annotated[FaultKind, Meta(description="What happens.")]
    endpoint: Annotated[str, Meta(max_length=64, description="Where. All kinds but `static` need it.")] = ""
    at_s: Annotated[Seconds, Meta(description="When, from the world's start.")]
    for_s: Annotated[
        Annotated[float, Meta(ge=0.001, le=TIMES_MAX_S)],
        Meta(description="For how long. It has no default: what never ends is another world."),
    ]
    factor: Annotated[
        Annotated[float, Meta(ge=0.001, le=1000)] | None, Meta(description="Of `slow`, which needs it.")
    ] = None
    requests_per_minute: Annotated[
        Annotated[float, Meta(ge=1, le=1e9)] | None, Meta(description="Of `rate_limit`, which needs it.")
    ] = None
    to: Annotated[
        str,
        Meta(max_length=64, description="Of `outage`: the way of KV caches to this endpoint, and only that."),
    ] = ""


class BoundsTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold of all requests, or of those of a class. One bound that is broken is exit status 1."""

    attainment_min: Annotated[Share | None, Meta(description="Share of requests whose promise is kept.")] = None
    refused_share_max: Annotated[Share | None, Meta(description="Share that is refused.")] = None
    failed_share_max: Annotated[
        Share | None, Meta(description="Share that fails or times out, of which a client sees an error.")
    ] = None
    away_share_max: Annotated[
        Share | None,
        Meta(
            description="Share whose data is sent to a site that is not local, by whatever attempt, also one that "
            "fails: 0 where nothing may leave."
        ),
    ] = None
    kept_per_s_min: Annotated[Number | None, Meta(description="Promises kept each second: the goodput.")] = None
    usd_per_hour_max: Annotated[Number | None, Meta(description="Dollars an hour.")] = None
    usd_per_1k_kept_max: Annotated[Number | None, Meta(description="Dollars for a thousand promises kept.")] = None
    ttft_s_p50_max: Annotated[Seconds | None, Meta(description="Median time to first content.")] = None
    ttft_s_p99_max: Annotated[Seconds | None, Meta(description="Its 99th percentile.")] = None
    tpot_s_p99_max: Annotated[Seconds | None, Meta(description="Of the time per token.")] = None
    e2e_s_p99_max: Annotated[Seconds | None, Meta(description="Of the time to the end.")] = None
