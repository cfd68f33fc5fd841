"""The configuration file as types: what may be written, within which bounds, and why each default is what it is.

A description states what the setting means and, in its last sentence, the reason for the default; the reference page
is made from it. The comment beside a bound gives the bound's reason.
"""

from typing import Annotated

from msgspec import Meta

from tidegate.config.table import MutualTlsTable, SecretTable, Table, Text, TlsTable, Usd
from tidegate.core.model import ANYWHERE, Likeness


class CouriersTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the gateway has KV caches sent by the couriers beside its engines."""

    secret: Annotated[
        SecretTable,
        Meta(
            description="What tickets are signed with, as in the couriers' files: 32 characters at least, as from "
            "`openssl rand -hex 32`. No default: it would be no secret."
        ),
    ]
    tls: Annotated[
        MutualTlsTable,
        Meta(description="Certificate, key and authority. No default: what crosses the network is a prompt."),
    ]


class GatewayTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service: where it listens, what it keeps and what it grants its clients."""

    listen: Annotated[
        str,
        Meta(
            max_length=300,  # a host name has at most 253 characters
            description="Address for clients, `host:port`. Beyond loopback only with `keys`: whoever reaches the port "
            "may spend the money. 8400 keeps clear of 8000, 8080 and 11434, where engines listen.",
        ),
    ] = "127.0.0.1:8400"
    admin: Annotated[
        str,
        Meta(
            max_length=300,  # as above
            description="Address for metrics and administration. Beyond loopback only with `admin_key`. A port of "
            "its own, so that a proxy in front of the clients' port does not publish it.",
        ),
    ] = "127.0.0.1:8401"
    dashboard: Annotated[
        bool,
        Meta(
            description="Whether the admin address shows pages in a browser, too. A process of their own serves them, "
            "from when somebody first looks, and reads the journal as it is written; without a journal they show what "
            "is now."
        ),
    ] = True
    keys: Annotated[
        Text,
        Meta(
            description="File of client keys, relative to this one, as `tidegate keys create` makes it. Where it is "
            "named, nothing is served without a key in it. None: on one's own machine a key would be in the way."
        ),
    ] = ""
    couriers: Annotated[
        CouriersTable | None,
        Meta(
            description="How the couriers beside endpoints that hand prompts over know the gateway. Left out, there "
            "are none. Read at the start."
        ),
    ] = None
    admin_key: Annotated[
        SecretTable | None,
        Meta(
            description="Secret that the admin address asks for, as `Authorization: Bearer`, by everything but "
            "`/livez` and `/readyz`; 20 characters at least, as from `openssl rand -hex 24`. None: who reaches "
            "loopback can read this file too."
        ),
    ] = None
    tls: Annotated[
        TlsTable | None,
        Meta(
            description="Certificate and key with which both addresses speak TLS. None: on loopback nobody listens "
            "in, and elsewhere a proxy often does it."
        ),
    ] = None
    journal: Annotated[
        Text,
        Meta(
            description="Folder of the journal, relative to this file; empty switches it off. On by default: "
            "without it no decision can be explained afterwards. It holds no prompts."
        ),
    ] = "journal"
    journal_segment_mib: Annotated[
        int,
        Meta(
            ge=1,  # below, the snapshot that starts each segment is a sizeable part of it
            le=1024,  # replay and removal work on whole segments
            description="Size at which the next segment of the journal begins, beside the snapshot that it begins "
            "with. 16 MiB hold about 9,000 requests: small enough to send to somebody, large enough that its snapshot "
            "weighs nothing.",
        ),
    ] = 16
    journal_total_mib: Annotated[
        int,
        Meta(
            ge=2,  # one segment being written and one to look at
            le=1024 * 1024,  # a TiB: beyond, a number has a zero too many
            description="Size of the whole journal; the oldest segments are removed beyond it. 1 GiB is about "
            "5,000,000 requests, 600,000 where it is not compressed, and fits any disk that holds a model.",
        ),
    ] = 1024
    journal_compress: Annotated[
        bool,
        Meta(
            description="Whether segments that are finished are compressed with zstd, to an eighth. On: it takes some "
            "microseconds of a core for a request, in a thread that no request waits for, and every verb reads both."
        ),
    ] = True
    state: Annotated[
        Text | None,
        Meta(
            description="File of what was learned, relative to this file, so that a restart does not begin anew; empty "
            "switches it off. Left out, `learned.sqlite` beside the journal, and none without a journal: whoever "
            "wants nothing written gets nothing written. It holds no prompts."
        ),
    ] = None
    state_s: Annotated[
        float,
        Meta(
            ge=1,  # below, an idle gateway is busy writing
            le=3600,  # knowledge that is an hour old is worth half of nothing
            description="Time between two snapshots of it: what a killed process loses. Half a minute is little "
            "against the ten minutes after which half is forgotten anyway, and a MB an hour for each endpoint.",
        ),
    ] = 30.0
    backtest_s: Annotated[
        float,
        Meta(
            ge=0,
            le=30 * 86_400,  # a month: then it tells nothing of today
            description="Time between two looks at how far the simulator is from this installation (`tidegate "
            "backtest` of the journal, in a process of its own at the lowest priority): a day is usual. 0 is never, "
            "since it takes a core for a while.",
        ),
    ] = 0.0
    request_timeout_s: Annotated[
        float,
        Meta(
            ge=1,  # below, no model answers
            le=86_400,  # a day: a connection that lives longer has been forgotten
            description="Time after which a request is given up, held or not. The OpenAI SDKs give up after 600 s "
            "too, and nobody would be left to read the answer.",
        ),
    ] = 600.0
    body_mib_max: Annotated[
        int,
        Meta(
            ge=1,  # a 128k-token prompt has about half a MiB
            le=256,  # each body is in memory whole, for every client at once
            description="Size of a request body. A million tokens are 4 MiB of text; the rest is room for images "
            "in base64.",
        ),
    ] = 32
    log: Annotated[
        Text,
        Meta(
            min_length=1,
            description="Where log lines go: `-` is stderr, anything else a file that is nothing else, relative to "
            "this file. stderr, because systemd and containers collect it.",
        ),
    ] = "-"
    connections_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,  # 26 MB and a descriptor for each thousand; more needs more processes
            description="Client connections at once. Each takes a file descriptor, and so does each to an endpoint: "
            "`serve` takes all that the hard limit (`ulimit -Hn`) leaves it, and the log says where these are too few.",
        ),
    ] = 10_000
    drain_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,  # a service manager kills long before
            description="Time running requests get to finish at shutdown; who has not by then is told so within a "
            "second more. Service managers kill after 30 s (Kubernetes) or 90 s (systemd), containers alone after "
            "10 s.",
        ),
    ] = 10.0


class PolicyTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The decision itself. The defaults suit most; each is a bound or a time, not a weight."""

    seed: Annotated[
        int,
        Meta(
            ge=0,
            le=2**63 - 1,  # what a journal's JSON carries everywhere
            description="Seed of every random draw. Fixed, so that a journal replays; the value does not matter.",
        ),
    ] = 0
    held_max: Annotated[
        int,
        Meta(
            ge=0,  # 0: nothing is held, a request goes out at once or is refused
            le=10_000,  # the whole queue is walked when a slot comes free
            description="Requests held here for a slot of our own. 256 are minutes of work for any "
            "single engine; more would only wait to be late.",
        ),
    ] = 256
    hold_s_max: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,  # clients give up before
            description="Longest time a request is held whose promise can be kept no more, or that has none; until its "
            "promise ends, no wait is too long. Two minutes leave most of a client's 600 s for the answer.",
        ),
    ] = 120.0
    recheck_ms: Annotated[
        float,
        Meta(
            ge=10,  # below, rechecking takes more time than deciding
            le=10_000,  # a promise of seconds is missed while nobody looks
            description="Held requests are looked at again after this time at the latest. Half a second is short "
            "against a promise of two; a look schedules 64 requests of each model at most, and decides those whose "
            "turn has come.",
        ),
    ] = 500.0
    attempts_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10,  # each attempt multiplies the load exactly when everything is slow
            description="Attempts of one plan, hedges included. A request that waits for an endpoint that was full, "
            "or whose answer is resumed, is planned again; after six attempts it waits no more. With 1, nothing is "
            "tried again after a failure before content. One primary, one hedge, one last resort.",
        ),
    ] = 3
    quantile: Annotated[
        float,
        Meta(
            ge=0.6,  # nearer to the median, promises that are kept and missed tell nothing of a spread
            le=0.999,  # beyond, hundreds of samples hold one exception, and the quantile is noise
            description="Quantile at which a prediction has to keep the promise. Nine in ten is what interactive "
            "services usually promise.",
        ),
    ] = 0.9
    decide_budget_ms: Annotated[
        float,
        Meta(
            ge=0.1,  # a decision between 16 endpoints takes 0.01
            le=1000,  # the loop stands still meanwhile
            description="Time one decision may take, by the clock (what overran is timed again, and the less counts), "
            "before the static rule takes over for a while. A decision between 16 endpoints takes 0.01 ms, 0.4 with 32 "
            "requests held; at 5 something is wrong, and the streams begin to stutter.",
        ),
    ] = 5.0
    static_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,  # an hour without the model is an outage of it
            description="How long the static rule decides after a decision overran. One second sheds the load of "
            "a burst and forgives a single hiccup.",
        ),
    ] = 1.0
    stall_s: Annotated[
        float,
        Meta(
            ge=1,  # a second is a few tokens of a small engine
            le=3600,
            description="An answer that has begun is given up where it brings nothing for so long, or less than a "
            "tenth of what its endpoint is believed to do at worst. A healthy engine is silent for no longer than one "
            "prefill of a neighbour takes: a minute.",
        ),
    ] = 60.0
    resume: Annotated[
        bool,
        Meta(
            description="Where a streamed answer breaks off, ask an endpoint of the same fingerprint for its rest, "
            "from the text that the client has. Off, since what was said is read and paid for again, and since what "
            "comes is another draw, unless decoding is greedy: see docs/explanation/resuming.md.",
        ),
    ] = False
    explore_share: Annotated[
        float,
        Meta(
            ge=0,
            le=0.1,  # one in ten teaches as much as anything does that changes within minutes
            description="Of requests that have slack, the share that is sent first to another endpoint than the best, "
            "to learn what that is like. At 0 nothing is drawn; an engine of ours that was left alone for ten minutes, "
            "or never asked though its speed is a guess, is still asked once by one (reason `explores`). 0, unless "
            "somebody wants to judge other policies on the journal: see docs/explanation/exploring.md for what it "
            "gains and costs.",
        ),
    ] = 0.0
    hedge_share: Annotated[
        float,
        Meta(
            ge=0,
            le=0.2,  # beyond, most of what is paid twice saves nothing
            description="Of what is paid for tokens, the share that may be paid in vain, for an attempt that another "
            "one has beaten, so that fewer first tokens are late: see docs/explanation/hedging.md. Two in a hundred "
            "cut the slowest hundredth of first tokens by a fifth over all vendors' latencies together, and by nothing "
            "where tails are short; 0 never pays twice.",
        ),
    ] = 0.02


BUDGET_USD_MIN = 0.01  # a cent: below, no request would fit
BUDGET_USD_MAX = 1_000_000  # beyond, a number has a zero too many
Budget = Annotated[float, Meta(ge=BUDGET_USD_MIN, le=BUDGET_USD_MAX)]


class BudgetTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all clients together may spend at endpoints that cost money. Without a number there is no limit."""

    ledger: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File in which every dollar is held back before it is spent, and settled after; relative to "
            "this one. It is made where some endpoint costs money, limits or not: so that it is known what was spent.",
        ),
    ] = "ledger.db"
    usd_per_day: Annotated[
        Budget | None,
        Meta(description="Dollars for one day, from midnight UTC. No limit, since the table has to be asked for."),
    ] = None
    usd_per_month: Annotated[
        Budget | None,
        Meta(description="Dollars for one calendar month, UTC; it holds beside the day's. No limit, as above."),
    ] = None
    pace: Annotated[
        bool,
        Meta(
            description="Whether budgets, those of keys too, are to last until they are renewed: while more is spent "
            "than they last for, a dollar has to gain more than a dollar. Else who comes first spends. On, since "
            "a promise is worth as much in the evening as in the morning."
        ),
    ] = True


class SwitchbackTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another policy, tried on live traffic by turns with the one in this file, until it is known which is better."""

    policy: Annotated[
        Text,
        Meta(
            description="File with `[policy]`, `[class]` and `[[rule]]` as they would be, as for `tidegate preview`; "
            "relative to this one. Left out, nothing is tried."
        ),
    ] = ""
    block_s: Annotated[
        float,
        Meta(
            ge=0.1,  # what is shorter is all washout
            le=86_400,  # a week of pairs says nothing yet
            description="How long each has everything, in seconds. Long beside the time that requests and queues take, "
            "and short beside a day's swings.",
        ),
    ] = 900.0
    washout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=43_200,  # half of the longest block
            description="Of each block, the first seconds count for neither: what the other one began is still there.",
        ),
    ] = 60.0
    pairs_max: Annotated[
        int,
        Meta(
            ge=4,  # the first three only say how large differences are
            le=10_000,
            description="After so many pairs of blocks it ends, whatever is known: two days of blocks by default.",
        ),
    ] = 96
    file: Annotated[
        Text,
        Meta(min_length=1, description="Where the trial is written down, to outlive restarts; relative to this file."),
    ] = "switchback.json"


LimitMs = Annotated[
    float,
    Meta(
        ge=1,  # no network and no engine is faster
        le=86_400_000,  # a day is no promise
    ),
]


class SloTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A promise: limits in milliseconds. An axis left out is no promise; one at least is needed."""

    ttft_ms: Annotated[LimitMs | None, Meta(description="Time to the first content.")] = None
    tpot_ms: Annotated[LimitMs | None, Meta(description="Time per output token after the first.")] = None
    e2e_ms: Annotated[LimitMs | None, Meta(description="Time to the end of the answer.")] = None


Attainment = Annotated[
    float,
    Meta(
        ge=0.5,  # who does not mind more misses than kept promises has no promise
        le=0.999,  # beyond, there are hours between two misses, and nothing to learn by
    ),
]
Factor = Annotated[
    float,
    Meta(
        ge=1,  # less than what is usual buys nothing
        le=1000,  # two dollars for one request, and more by its tokens: a slip of the keyboard, too
    ),
]

INTERACTIVE = "interactive"
"""The class of a request that names none: someone waits for it."""
WORTH_FACTOR_MAX = 10.0
"""The `worth_factor_max` of a class with a target that does not say."""


class ClassTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of requests: what it promises, what keeping the promise is worth, and where its data may go.

    `interactive` and `batch` exist without being written down; a client names its class in a header, or a rule gives
    it. What a class leaves out is as in the one that it is `like`; so each promises something. `batch` has settings of
    its own, which count unless it is written to be like another.
    """

    like: Annotated[
        str,
        Meta(
            max_length=64,
            description="The class whose settings it has where it says nothing itself; each counts as a whole, the "
            "promise too. `interactive`, which is like none: what nobody thought of is what somebody waits for.",
        ),
    ] = INTERACTIVE
    slo: Annotated[
        SloTable,
        Meta(
            description="The promise. Two seconds is what people wait for an answer to begin; 150 ms a token is "
            "a little faster than they read. Batch work only has to come back while its client waits: "
            "`e2e_ms = 300000`, half of the request time-out."
        ),
    ] = SloTable(ttft_ms=2000.0, tpot_ms=150.0)
    attainment: Annotated[
        Attainment | None,
        Meta(
            description="The share of promises that is to be kept, at the least cost: what a promise is worth is "
            "then learned, and moves what a second of lateness loses alike. A class has this or a worth; what it "
            "writes itself goes before what it takes over. None: worth is what is written.",
        ),
    ] = None
    worth_factor_max: Annotated[
        Factor | None,
        Meta(
            description="The most that a promise may be worth for the sake of `attainment`, as so many times the "
            "worth that classes have by default. Ten times are 0.02 dollars, and 0.04 for each thousand tokens: above "
            "what the largest models ask for.",
        ),
    ] = None
    worth_usd: Annotated[
        Usd,
        Meta(
            description="Dollars that one kept promise is worth. A fifth of a cent pays for a short answer of a "
            "small commercial model; batch is worth a quarter of it."
        ),
    ] = 0.002
    worth_usd_per_1k_tokens: Annotated[
        Usd,
        Meta(
            description="Dollars added for each thousand tokens of prompt and output. Worth has to grow with the "
            "work as its price does, or long prompts are pulled back from where they should go: 0.004 is above "
            "the 3 dollars a million of a large model; batch is worth a quarter of it."
        ),
    ] = 0.004
    late_usd_per_s: Annotated[
        Usd,
        Meta(
            description="Dollars lost with each second of lateness: ranks the endpoints where none keeps the "
            "promise. After four seconds as much as the promise itself; batch loses a fiftieth of it."
        ),
    ] = 0.0005
    residency: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            min_length=1,
            max_length=64,  # sites are counted in a handful
            description="Where its data may go: `local`, names of sites, or `anywhere`. A hard rule. `local` and the "
            "name of a site are two things, also where that site is local: write the same in class, key and request. "
            "Anywhere, because an endpoint that is configured is meant to be used.",
        ),
    ] = (ANYWHERE,)
    likeness: Annotated[
        Likeness | None,
        Meta(
            description="The least alike model that will do for its requests: `identical`, `same_family` or "
            "`substitute`. Left out, what the model's own table says."
        ),
    ] = None
    session_moves: Annotated[
        bool,
        Meta(
            description="Whether a conversation (`x-tidegate-session`) may go on with another model than it began "
            "with. False: people notice when the one they talk to is replaced. A request may say otherwise."
        ),
    ] = False


CLASSES: dict[str, dict[str, object]] = {
    INTERACTIVE: {},
    "batch": {
        "slo": {"e2e_ms": 300_000.0},
        "worth_usd": 0.0005,
        "worth_usd_per_1k_tokens": 0.001,
        "late_usd_per_s": 0.00001,
    },
}
"""The classes that exist without being written down, and what they set themselves."""


class SiteTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One location: one network path, one failure domain, and either under your roof or not."""

    local: Annotated[
        bool,
        Meta(description="Whether data sent there stays at home. It has no default: a wrong guess would let data out."),
    ]
