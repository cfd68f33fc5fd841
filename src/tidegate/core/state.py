"""All that the core learns and tracks: a snapshot is this, encoded."""

from typing import NamedTuple

import msgspec

from tidegate.core.batch import Batch
from tidegate.core.breaker import Breaker
from tidegate.core.budget import Spending
from tidegate.core.calibration import unjudged
from tidegate.core.counts import Lengths, Sampling, Tracked
from tidegate.core.dual import Dual
from tidegate.core.failing import Failures
from tidegate.core.hazard import BINS, Level, Outcomes
from tidegate.core.headroom import Allowances
from tidegate.core.hedge import Hedging
from tidegate.core.learned import Learned
from tidegate.core.limit import Limit
from tidegate.core.line import Line
from tidegate.core.load import Load
from tidegate.core.loading import Loads
from tidegate.core.mixture import Mixture
from tidegate.core.model import Capability, Ended, Fingerprint, Overrides, Request
from tidegate.core.output import OUTPUT_ROWS
from tidegate.core.pace import Pace
from tidegate.core.prefills import Prefills
from tidegate.core.prompts import Prompts
from tidegate.core.reserve import ColdSent, Reservation
from tidegate.core.shares import Served


class Loading(msgspec.Struct, gc=False):
    """Since when an attempt has been waiting that may have met a cold start, and what was predicted of it."""

    since_s: float
    predicted: Mixture


def _unjudged() -> list[Tracked]:
    return unjudged(OUTPUT_ROWS)


def _bins() -> list[Outcomes]:
    return [Outcomes() for _ in range(BINS)]


def _levels() -> list[Level]:
    return [Level() for _ in range(BINS)]


class WarmUp(msgspec.Struct, kw_only=True):
    """A load for nobody in particular.

    While one is under way, `loading` is since when and what is believed of it, as long as nobody has shown that it is
    over, and `sent` what its end will teach. So many have `failed` in a row, and none begins before `not_before_s`.
    Since the model was there last, its absence has cost `missed_usd`; the absence before that cost `toll_usd`. A client
    asked for it last at `asked_s`.
    """

    loading: Loading | None = None
    sent: ColdSent | None = None
    failed: int = 0
    not_before_s: float = 0.0
    missed_usd: float = 0.0
    toll_usd: float = 0.0
    asked_s: float | None = None


class ColdState(msgspec.Struct, kw_only=True):
    """What is learned and tracked of one endpoint's cold starts.

    `idle` are outcomes by the time since the last use, and `levels` how long attempts took; `resident` and `away` are
    outcomes of those of which the engine had told either.

    `used_s` is when the model was last known to be where it is needed, and `waited_s` when somebody last gave up to
    wait for that; None is never. `began_s` is when the first of what is in flight was sent, None where nothing is.
    `told` is what a probe heard at `told_s`, and `told_loading_s` since when a load goes on.
    """

    idle: list[Outcomes] = msgspec.field(default_factory=_bins)
    levels: list[Level] = msgspec.field(default_factory=_levels)
    resident: Outcomes = msgspec.field(default_factory=Outcomes)
    away: Outcomes = msgspec.field(default_factory=Outcomes)
    loads: Loads = msgspec.field(default_factory=Loads)
    used_s: float | None = None
    waited_s: float | None = None
    began_s: float | None = None
    loading: Loading | None = None
    told: bool | None = None
    told_s: float = 0.0
    told_loading_s: float | None = None
    warm_up: WarmUp = msgspec.field(default_factory=WarmUp)


class Sample(NamedTuple):
    """One measured value, and when. Ordered by time: those of one instant by their value, not by their arrival."""

    at_s: float
    value: float


class Network(msgspec.Struct):
    """What was measured of the way to an endpoint, the newest of each: round trips in seconds, bytes a second."""

    rtts: list[Sample] = []
    uploads: list[Sample] = []


class ToldCount(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A count, and when it was told."""

    at_s: float
    count: int


class InUse(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """The `share` of an engine's memory that was told to be in use at `at_s`.

    Of ours, `least` tokens must have been there when that was measured, and `ours` may have been.
    """

    at_s: float
    share: float
    least: int
    ours: int


class GoneTokens(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """What an attempt that is over held at last, for reports that were measured when it was not.

    `first_s` is when it began to answer, and when it ended where it did not.
    """

    ended_s: float
    started_s: float
    first_s: float
    prompt_tokens: int
    held: int
    completions: int = 1


class MemoryState(msgspec.Struct, kw_only=True):
    """What an engine tells of its memory for contexts.

    It holds so many `tokens`, has so many `slots`, and has preempted so often; None was never told. When it last did,
    about as much as `full` was there. `gone` are ours that ended last, the latest at the end.
    """

    tokens: ToldCount | None = None
    slots: ToldCount | None = None
    preemptions: ToldCount | None = None
    full: ToldCount | None = None
    use: InUse | None = None
    gone: list[GoneTokens] = []


class Late(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that is over and was later than promised, of which nobody knows yet whether that was the network."""

    sent: Reservation
    ended: Ended


class UnderWay(msgspec.Struct, gc=False):
    """A prompt that is being computed for another endpoint, or is on its way there.

    It is expected to be computed at `ready_s`, or was then where it is `computed`; then `kv_bytes` are sent, of which
    `declared_bytes` were declared (0 where something else is by now), and it will have a slot there for `occupies_s`.
    """

    ready_s: float
    kv_bytes: float
    declared_bytes: float
    occupies_s: float
    computed: bool = False


class KvSize(NamedTuple):
    """What is declared of the size of KV caches; see `core.model.Handover`."""

    kv_bytes_fixed: float
    kv_bytes_per_token: float
    whole: bool


class HandoverState(msgspec.Struct, kw_only=True):
    """What is learned and tracked of one handover: what is under way, by request, and when the last one was over.

    KV caches had `sent_bytes` where `declared_bytes` were declared, by this `size`: both are sums that had faded so far
    at `free_s`. None is where that was not kept yet.
    """

    breaker: Breaker
    network: Network = msgspec.field(default_factory=Network)
    under_way: dict[str, UnderWay] = {}
    free_s: float = 0.0
    sent_bytes: float = 0.0
    declared_bytes: float = 0.0
    size: KvSize | None = None


class EndpointState(msgspec.Struct, kw_only=True):
    """All that is learned and tracked of one endpoint.

    `fingerprint` is what its probes told last, `trusted` what they told first since the configuration is in force: on
    first use it is believed. `prompts` are those that it was given, and how long it keeps what it computed of them.
    `e2e` is how promises of the whole were kept, by `OUTPUT_EDGES`. Of our own, `given` are the seconds of work that it
    was given of late, and `given_rest` those of work that was late or was promised nothing. At `heard_s` first
    content came last, or the end of an answer. Those in `late` teach once a probe has told of the network. Its
    `handovers` stand by the name of their target.
    """

    breaker: Breaker = msgspec.field(default_factory=Breaker)
    prefills: Prefills = msgspec.field(default_factory=Prefills)
    pace: Pace = msgspec.field(default_factory=Pace)
    network: Network = msgspec.field(default_factory=Network)
    line: Line = msgspec.field(default_factory=Line)
    ttft: Learned | None = None
    tpot: Learned | None = None
    reservations: dict[str, Reservation] = {}
    up: bool = True
    context_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    not_before_s: float = 0.0
    fingerprint: Fingerprint | None = None
    trusted: Fingerprint | None = None
    drifted: bool = False
    prompts: Prompts = msgspec.field(default_factory=Prompts)
    e2e: list[Tracked] = msgspec.field(default_factory=_unjudged)
    load: Load = msgspec.field(default_factory=Load)
    cold: ColdState = msgspec.field(default_factory=ColdState)
    memory: MemoryState = msgspec.field(default_factory=MemoryState)
    batch: Batch = msgspec.field(default_factory=Batch)
    limit: Limit = msgspec.field(default_factory=Limit)
    allowances: Allowances = msgspec.field(default_factory=Allowances)
    failures: Failures = msgspec.field(default_factory=Failures)
    given: Served = msgspec.field(default_factory=Served)
    given_rest: Served = msgspec.field(default_factory=Served)
    heard_s: float = 0.0
    late: list[Late] = []
    sampling: dict[int, Sampling] = {}
    handovers: dict[str, HandoverState] = {}


class Pin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a conversation was served last, and when."""

    endpoint: str
    used_s: float


class State(msgspec.Struct, kw_only=True):
    """Everything learned and tracked. `sessions` by conversation, the one that was used last at the end; `duals` by
    class, of those with a target, and `overdue` the requests under way whose promise is known to be missed. `urgent` is
    by model when somebody came last whose promise was too short to wait. What our engines did of late for each of the
    `tenants` stands by key, and for each of their classes in `flows`;
    `budgets` stand by name, of those that are to last. `hedging` is what may be lost on attempts that are beaten."""

    endpoints: dict[str, EndpointState] = {}
    lengths: Lengths = msgspec.field(default_factory=Lengths)
    held: dict[str, Request] = {}
    overrides: Overrides = Overrides()
    sessions: dict[str, Pin] = {}
    duals: dict[str, Dual] = {}
    overdue: dict[str, bool] = {}
    urgent: dict[str, float] = {}
    tenants: dict[str, Served] = {}
    flows: dict[str, Served] = {}
    budgets: dict[str, Spending] = {}
    hedging: Hedging = msgspec.field(default_factory=Hedging)
    static_until_s: float = 0.0
