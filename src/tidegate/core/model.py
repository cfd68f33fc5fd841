"""The nouns: what the core knows of the world, as frozen records.

The same type is the argument, the journal line and the test datum. A number's name ends in its unit.
"""

from enum import StrEnum
from typing import TypeVar

import msgspec

from tidegate.core.fingerprint import Fingerprint as Fingerprint
from tidegate.core.hardware import Machine as Machine
from tidegate.core.price import Price as Price
from tidegate.core.price import Tier as Tier
from tidegate.core.prior import Prior as Prior
from tidegate.core.prompts import Prefix as Prefix
from tidegate.core.ruling import Ruling as Ruling

# A noun is imported from here, wherever it stands.
from tidegate.core.why import Why

_T = TypeVar("_T")

# The weight of a key that was given none. By this name: what is left out of a journal's line is told by identity.
USUAL_WEIGHT = 1.0
ANYWHERE = "anywhere"
LOCAL = "local"


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fact. Frozen, so that a journal line and the argument it came from can be one object; and so that it is in no
    cycle, and the collector need not look at the thousands of them that are kept for operators.

    Settings are written out whole instead: a default that changes later must not change an old journal.
    """


class Capability(StrEnum):
    """What a request may need an endpoint to be able to do."""

    CHAT = "chat"
    COMPLETION = "completion"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"
    AUDIO = "audio"
    LOGPROBS = "logprobs"
    EMBEDDING = "embedding"


class Likeness(StrEnum):
    """How alike an endpoint's model is to what a model's name promises."""

    IDENTICAL = "identical"
    SAME_FAMILY = "same_family"
    SUBSTITUTE = "substitute"


class Slo(Record, frozen=True, kw_only=True):
    """Limits in seconds; an axis left out is no promise."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


class Request(Record, frozen=True, kw_only=True, tag="request"):
    """What the core may know of one inference request. Never the prompt.

    `prompt_tokens` is an estimate made from bytes, and `prompt_tokens_most` what no tokenizer makes more of, counted
    where a budget is to hold it, 0 where it was not. Where there are several `prompts`, each with a window of its own,
    both are those of all of them. `output_tokens_max` is the client's own bound of each answer, None where it
    gave none. Meeting the SLO is worth `worth_usd`, and `worth_usd_per_1k_tokens` for the size of the work. Where its
    class has a target for its `attainment`, those are the most, and what is learned says how much of them it is.
    `residency` holds `anywhere`, `local` or names of sites. `likeness` is the least that will do. `budget_usd`
    is what the budget had left when it arrived, None without one. `prefix` are salted digests of 32 bits, one per
    block of 1 KiB, each of all up to its end, at most 256; of `prompt_bytes` the first `preamble_bytes` stand before
    the blocks. `key` is the id of the client's key, empty where none is asked for, and `weight` that
    of its share of our engines. `session` is a salted digest of the
    conversation as the client names it, with its key and model; it stays with the model that served it unless
    `session_moves`. `rulings` are what operators' rules say of it that held when it arrived, in their order. What it
    costs is drawn on `budgets`, by name, those that are to last; a dollar of theirs is worth `budget_price` more than
    itself. No line has that: it is learned, and put in where a decision is made. Its client has tried before, `retry`
    times. Where an answer broke off and its rest is asked for, the client has `said_tokens` of it, which stand at the
    end of the prompt. Its prompt was computed elsewhere and its KV cache has come by the handover `shipped`; empty
    where it has not. Without `stream` its client gets the answer in one piece.
    """

    id: str
    arrived_s: float
    model: str
    klass: str
    prompt_tokens: int
    prompt_bytes: int
    preamble_bytes: int = 0
    prompt_tokens_most: int = 0
    prompts: int = 1
    output_tokens_max: int | None = None
    completions: int = 1
    needs: tuple[Capability, ...] = ()
    slo: Slo = Slo()
    attainment: float | None = None
    worth_usd: float = 0.0
    worth_usd_per_1k_tokens: float = 0.0
    late_usd_per_s: float = 0.0
    residency: tuple[str, ...] = (ANYWHERE,)
    cost_usd_max: float | None = None
    budget_usd: float | None = None
    failover: bool = True
    likeness: Likeness = Likeness.SUBSTITUTE
    session: str = ""
    session_moves: bool = False
    prefix: tuple[int, ...] = ()
    key: str = ""
    weight: float = USUAL_WEIGHT
    rulings: tuple[Ruling, ...] = ()
    budgets: tuple[str, ...] = ()
    budget_price: float = 0.0
    retry: int = 0
    said_tokens: int = 0
    shipped: str = ""
    stream: bool = True


class RequestClass(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What requests of one class promise, are worth and may do; a request's own headers refine it.

    `worth_usd` is paid for each request that meets the SLO; `worth_usd_per_1k_tokens` makes it grow with the
    work, prompt and output. Where `attainment` is the share of promises that is to be kept, they are the most that it
    may be worth, and `late_usd_per_s` the most that is lost with a second. `likeness` is the least that will do, None
    what the model's name asks for. With `session_moves` conversations may go on with another model than they began
    with.
    """

    name: str
    slo: Slo = Slo()
    attainment: float | None = None
    worth_usd: float = 0.0
    worth_usd_per_1k_tokens: float = 0.0
    late_usd_per_s: float = 0.0
    residency: tuple[str, ...] = (ANYWHERE,)
    likeness: Likeness | None = None
    session_moves: bool = False


class ModelGroup(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A model as clients ask for it: its name, other names for it, and the least alike endpoint that serves it unasked.

    Which endpoints there are, and how alike, stands at the endpoints. `fingerprint` is what `identical` means here, as
    far as it was written down.
    """

    name: str
    aliases: tuple[str, ...] = ()
    likeness: Likeness = Likeness.IDENTICAL
    fingerprint: Fingerprint = Fingerprint()


class Handover(Record, frozen=True, kw_only=True, omit_defaults=False):
    """An endpoint may compute prompts for another one, the `target`, which decodes: their KV caches are sent there.

    That of `n` tokens is `kv_bytes_fixed + n * kv_bytes_per_token`. Where it is sent `whole`, what the target has
    cached is sent too. It is carried at `bytes_per_s`, one after the other, and each byte costs `usd_per_byte`. Of so
    many `layers` each is sent once it is computed, while the next ones are; 1 is all of it at the end.
    """

    target: str
    kv_bytes_per_token: float
    kv_bytes_fixed: float = 0.0
    bytes_per_s: float
    usd_per_byte: float = 0.0
    layers: int = 1
    whole: bool = True


class Endpoint(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One addressable engine at a site serving one model: the unit a decision picks.

    `owned`: the capacity is ours, so work is held here rather than queued in the engine, which is never filled
    beyond `concurrency`. Where it is not ours, `concurrency` is the most we send at once. `shares_compute`: requests
    in flight slow each other, as in one engine; a fleet behind an API does not show it. Tokens cost `price`, paid to
    others; running the engine costs `usd_per_s`, shared by as many requests as it runs at once. `models` are the names
    that it serves; under each its model is `identical` to what the name promises, unless `likeness` says otherwise.
    It generates `output_tokens_max` at most, None is the window. `fingerprint` is what was declared of its model, and
    `demands` by name what a model has to be to be identical. `machine` is the hardware, where it was declared. Its
    model may be loaded for nobody in particular where it `warms_up`; to keep it loaded costs `kept_usd_per_s`, None
    where it is not kept. The endpoints `beside` it are others of the same engine, which may have one of them at a time.
    By its `handovers` it computes prompts for others. Where it `streams` whatever a client asks for, an answer is seen
    to begin; embeddings are given whole everywhere.
    """

    name: str
    site: str
    local: bool
    models: tuple[str, ...]
    likeness: dict[str, Likeness] = {}
    fingerprint: Fingerprint = Fingerprint()
    demands: dict[str, Fingerprint] = {}
    context_tokens: int
    concurrency: int
    owned: bool = False
    shares_compute: bool = True
    output_tokens_max: int | None = None
    capabilities: tuple[Capability, ...] = (Capability.CHAT, Capability.COMPLETION)
    price: Price = Price()
    usd_per_s: float = 0.0
    prior: Prior = Prior()
    machine: Machine | None = None
    warms_up: bool = False
    kept_usd_per_s: float | None = None
    beside: tuple[str, ...] = ()
    handovers: tuple[Handover, ...] = ()
    streams: bool = False

    def handover_to(self, target: str) -> Handover | None:
        """By which it computes prompts for this one; None where it does not."""
        for one in self.handovers:
            if one.target == target:
                return one
        return None

    def streams_to(self, request: Request) -> bool:
        """Whether the answer to this is streamed to us, whatever its client gets."""
        return request.stream or (self.streams and Capability.EMBEDDING not in request.needs)

    def running_usd(self, in_use_s: float) -> float:
        """What it costs that a request has one of the engine's places for so long."""
        return in_use_s * self.usd_per_s / self.concurrency


# --- what a decision is made of ---------------------------------------------------------------------------------


class Run(Record, frozen=True, kw_only=True, tag="run"):
    """Run all of it on one endpoint.

    After `cutover_s` without content the next step starts beside it; after `timeout_s` without content it is given up,
    and so is an answer whose tokens take more than `token_s_max` each.
    """

    endpoint: str
    timeout_s: float
    cutover_s: float | None = None
    token_s_max: float | None = None


class Prefill(Record, frozen=True, kw_only=True, tag="prefill"):
    """Compute the prompt on one endpoint and send its KV cache to `target`; once it is there, decide again.

    After `cutover_s` the next step starts beside it; after `timeout_s` it is given up.
    """

    endpoint: str
    target: str
    timeout_s: float
    cutover_s: float | None = None


class Wait(Record, frozen=True, kw_only=True, tag="wait"):
    """Hold the request here until a slot of `endpoint` is free.

    That is expected at `until_s`, or a look at it is due then: whoever holds it looks when first content, an end or a
    probe is told, and else once in `Policy.recheck_s`.
    """

    endpoint: str
    until_s: float


Step = Run | Prefill | Wait


class Decision(Record, frozen=True, kw_only=True, tag="decision"):
    """What was decided: the ordered plan, why, and with which probability the primary was picked.

    An empty plan is a refusal; `retry_after_s` then says when it may be worth coming back, None if never.
    """

    request_id: str
    plan: tuple[Step, ...]
    why: Why
    propensity: float = 1.0
    retry_after_s: float | None = None


class Estimate(msgspec.Struct, kw_only=True, gc=False):
    """Prediction for one request at one endpoint, now. Times in seconds from now; the hold until now is not in them.

    `ttft_s` and `tpot_s` are medians, `ttft_s_high` the calibrated upper quantile. `sigma` is the spread of the
    logarithm. `attainment` is the probability that every axis of the SLO is met. Of the prompt `cached_tokens` are
    expected to be cached there, with the standard deviation `cached_sd_tokens`. With the chance `cold_share` the model
    has to be loaded first, which takes `load_s`; that is in `ttft_s` where it is likelier than not. Of attempts there
    `failed_share` fail before any content, after `failed_after_s` in the mean, and `broken_share` break off.
    """

    wait_s: float
    network_s: float
    prefill_s: float
    ttft_s: float
    ttft_s_high: float
    tpot_s: float
    output_tokens: float
    e2e_s: float
    sigma: float
    attainment: float
    lateness_s: float
    cost_usd: float
    cached_tokens: float = 0.0
    cached_sd_tokens: float = 0.0
    cold_share: float = 0.0
    load_s: float = 0.0
    failed_share: float = 0.0
    failed_after_s: float = 0.0
    broken_share: float = 0.0


class Candidate(Record, frozen=True, kw_only=True):
    """One endpoint as a decision saw it: the rule that excluded it, or its estimate and what makes up its value.

    `rule` is the name of the operators' rule that excluded it, empty where something else did.
    The request needs `kv_tokens` of the memory for contexts there, of which `kv_free_tokens` are believed to be free;
    None where that is not known. With a `target` it would compute the prompt, which is expected to take `computed_s`,
    and send `kv_bytes` there, which are there `ship_s` later and wait for a slot for `slot_s`.
    """

    endpoint: str
    target: str = ""
    kv_bytes: int | None = None
    computed_s: float | None = None
    ship_s: float | None = None
    slot_s: float | None = None
    excluded: Why | None = None
    rule: str = ""
    estimate: Estimate | None = None
    value_usd: float | None = None
    contributions_usd: dict[str, float] = {}
    kv_tokens: int | None = None
    kv_free_tokens: int | None = None


# --- what happened ----------------------------------------------------------------------------------------------


class Ending(StrEnum):
    """How an attempt ended, and so what it teaches."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Held(Record, frozen=True, kw_only=True, tag="held"):
    """The request waits in the hold queue."""

    request: Request


class Released(Record, frozen=True, kw_only=True, tag="released"):
    """A held request left the queue unsent: its client left, or it was refused, or it came to nothing here for this
    `cause`.

    Or nobody was left to whom a request could be sent, held or not: then the `cause` is `client_error`, where nobody
    can be asked for it as it stands, or `over_budget`.
    """

    request_id: str
    cause: str = ""


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """An attempt was sent: the reservation. The numbers repeat the request's, so that the fact stands alone.

    `prefix` is the beginning of the prompt in short, a tenth of what the request has of it. `promised_tpot_s` is the
    limit of its SLO on the time per token, and `urgent` that the one on its first content leaves it no time to wait.
    With a `target` it computes the prompt alone, whose KV cache is then sent there. `shipped` is as in the request,
    where this is the endpoint to which that has come. Without `stream` its answer comes in one piece, and nobody sees
    it begin.
    """

    request_id: str
    endpoint: str
    klass: str
    prompt_tokens: int
    prompt_bytes: int
    output_tokens_max: int | None = None
    completions: int = 1
    model: str = ""
    key: str = ""
    session: str = ""
    hedge: bool = False
    prefix: Prefix | None = None
    preamble_bytes: int = 0
    promised_tpot_s: float | None = None
    urgent: bool = False
    said_tokens: int = 0
    target: str = ""
    shipped: str = ""
    stream: bool = True


class Uploaded(Record, frozen=True, kw_only=True, tag="uploaded"):
    """So many bytes of an attempt's request have reached the other side, `seconds` after its first one was sent, not
    counting the round trip; or `at_most` so long after it, where they were too quick to be timed.

    Told once of an attempt at most, and of large requests only.
    """

    request_id: str
    endpoint: str
    upload_bytes: int
    seconds: float
    at_most: bool = False


class Shipped(Record, frozen=True, kw_only=True, tag="shipped"):
    """The KV cache of a prompt that `endpoint` has computed is at its `target`, or did not get there for this `cause`.

    Of its `kv_bytes`, `left_bytes` were left to be sent when the prompt was computed. From the first of these to the
    moment at which all was verified it took `seconds`, without the wait for others. Of what did not get there,
    `kv_bytes` are those that had been sent, as far as anybody tells. `given_up`: nobody wanted it any more, or the
    gateway had no file descriptor to ask for it, which is no fault of theirs.
    """

    request_id: str
    endpoint: str
    target: str
    kv_bytes: int = 0
    left_bytes: int = 0
    seconds: float = 0.0
    ok: bool = True
    given_up: bool = False
    cause: str = ""


class FirstToken(Record, frozen=True, kw_only=True, tag="first_token"):
    """First content of an attempt, `ttft_s` after it was sent."""

    request_id: str
    endpoint: str
    ttft_s: float


class Ended(Record, frozen=True, kw_only=True, tag="ended"):
    """An attempt is over.

    Times count from its sending; `ttft_s` is None where no content came, or none could be seen. Token counts are the
    engine's own usage, None where it reported none. `predicted_ttft_s` is what was believed of the first in the moment
    of its sending, and `predicted_ttft_s_high` the bound that the policy's quantile names: nothing is decided by them,
    and whoever compares them with what came need not make them again. None where nobody had reserved for it.
    """

    request_id: str
    endpoint: str
    ending: Ending
    e2e_s: float
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    retry_after_s: float | None = None
    cause: str = ""
    predicted_ttft_s: float | None = None
    predicted_ttft_s_high: float | None = None


class Headroom(Record, frozen=True, kw_only=True, tag="headroom"):
    """What a vendor says with an answer is left of its limits on requests and on tokens, of how many, and in how many
    seconds all of it is there again. None is what it does not say."""

    endpoint: str
    requests_left: int | None = None
    requests_max: int | None = None
    requests_full_s: float | None = None
    tokens_left: int | None = None
    tokens_max: int | None = None
    tokens_full_s: float | None = None


class Judged(Record, frozen=True, kw_only=True, tag="judged"):
    """A request of a class with a target for its `attainment` is over, and its promise was `kept` or not.

    Told once of each; None where nobody can say: its client left in time, or no worth could have had it served.
    """

    request_id: str
    klass: str
    attainment: float
    kept: bool | None = None


class Drawn(Record, frozen=True, kw_only=True, tag="drawn"):
    """Of a `budget` of `usd` from `begins_s` to `ends_s` so much is spent, without what is held back for requests under
    way."""

    budget: str
    usd: float
    spent_usd: float
    begins_s: float
    ends_s: float


class Probed(Record, frozen=True, kw_only=True, tag="probed"):
    """A probe came back, or did not. None is unknown, never zero.

    `running` and `queued` are requests of all clients, as the engine had them at `measured_s` or later; None is now.
    `resident`: the model is loaded. `loading`: it is being loaded, so that whoever comes waits for the rest of that.
    Its memory for contexts holds `kv_tokens_max` tokens, of which the share `kv_share` is in use and cannot be evicted;
    it runs as many as `slots` at once, and has made `preemptions` requests give way since it was started.
    """

    endpoint: str
    up: bool
    rtt_s: float | None = None
    context_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    running: int | None = None
    queued: int | None = None
    fingerprint: Fingerprint | None = None
    measured_s: float | None = None
    resident: bool | None = None
    loading: bool = False
    kv_tokens_max: int | None = None
    kv_share: float | None = None
    slots: int | None = None
    preemptions: int | None = None


class Warming(Record, frozen=True, kw_only=True, tag="warming"):
    """An endpoint's model is being loaded, or used so that it stays, for nobody in particular."""

    endpoint: str


class Warmed(Record, frozen=True, kw_only=True, tag="warmed"):
    """That is over, `took_s` later: its model has `served`, or could not. `given_up`: it was not waited for any more,
    which says nothing of it."""

    endpoint: str
    took_s: float
    served: bool
    given_up: bool = False


class Checked(Record, frozen=True, kw_only=True, tag="checked"):
    """A canary's reading was compared with its reference. `drifted` is what holds from now on.

    `distance` is the mean difference of log-probabilities in nats, None where there was nothing to compare with.
    """

    endpoint: str
    drifted: bool
    distance: float | None = None


class DecisionOverran(Record, frozen=True, kw_only=True, tag="decision_overran"):
    """A decision took longer than its budget, measured by the shell."""

    spent_s: float


class ModelFailed(Record, frozen=True, kw_only=True, tag="model_failed"):
    """A bug of ours: the model could not decide, or take in the fact before this one. Found by the shell.

    `during` is `decide`, `due`, `forbids`, `compare` or the fact's tag; `error` is the type of the error, and where it
    was.
    """

    during: str
    error: str


class Overrides(Record, frozen=True, kw_only=True, tag="overrides"):
    """All that operators have set by hand. It takes the place of what was set before.

    Endpoints that are `drained` get nothing new. While one of its endpoints is `pinned`, a model is served there and
    nowhere else. Hard rules hold all the same, so a pin never takes data where it may not go. `static` puts the static
    rule in force. Names without an endpoint count for nothing until there is one.
    """

    drained: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    static: bool = False


Observation = (
    Held
    | Released
    | Started
    | Uploaded
    | Shipped
    | FirstToken
    | Ended
    | Headroom
    | Judged
    | Drawn
    | Probed
    | Warming
    | Warmed
    | Checked
    | DecisionOverran
    | ModelFailed
    | Overrides
)


# --- the policy's settings and the journal ----------------------------------------------------------------------


class Policy(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Settings of the decision itself; each default states its reason where the configuration declares it."""

    seed: int = 0
    held_max: int = 256
    hold_s_max: float = 120.0
    recheck_s: float = 0.5
    attempts_max: int = 3
    quantile: float = 0.9
    decide_budget_s: float = 0.005
    static_s: float = 1.0
    explore_share: float = 0.0
    hedge_share: float = 0.02
    stall_s: float = 60.0
    resume: bool = False


class Segment(Record, frozen=True, kw_only=True, tag="segment"):
    """First line of every journal segment: all that replay needs. `state` is what `Router.snapshot` made.

    Where it `follows` the segment before, which was full, that is what the lines of that one had come to. `going_on`
    are requests under way of which the state has nothing any more: a reload has taken out the endpoint where they are.
    """

    version: int
    software: str
    policy: Policy
    endpoints: tuple[Endpoint, ...]
    state: msgspec.Raw
    follows: bool = False
    going_on: tuple[str, ...] = ()


Fact = Segment | Request | Decision | Observation


class Line(Record, frozen=True, kw_only=True):
    """One line of a journal: a fact and when it became one, in seconds since the epoch."""

    at_s: float
    fact: Fact


JOURNAL_VERSION = 2


def replace(record: _T, **changes: object) -> _T:
    """A copy of a record with some fields changed."""
    return msgspec.structs.replace(record, **changes)  # type: ignore[type-var]
