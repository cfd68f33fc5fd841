"""Every metric that there is: its name, its labels, and what it means. The reference page is made from it."""

from tidegate.core.model import Record


class Spec(Record, frozen=True, kw_only=True):
    """One metric: its name without prefix, its type, its labels, and what it means."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


TABLE: tuple[Spec, ...] = (
    Spec(
        name="requests",
        type="counter",
        labels=("class", "tier", "outcome"),
        help="Requests that ended, by how, and by where they were answered: `local`, `remote`, or `none`.",
    ),
    Spec(
        name="answers",
        type="counter",
        labels=("endpoint", "tier", "class"),
        help="Requests that this endpoint has answered, or begun to.",
    ),
    Spec(
        name="residency",
        type="counter",
        labels=("allowed", "tier"),
        help="Requests that ended, by where their data may go (`anywhere`, `local`, or `sites` by name) and where they"
        " were answered. What is `local` and was answered `remote` is always 0, and absent.",
    ),
    Spec(
        name="residency_breaches",
        type="counter",
        help="Attempts that were sent where the request's data may not go, whatever came of them; always 0.",
    ),
    Spec(
        name="promises",
        type="counter",
        labels=("class", "tier", "outcome"),
        help="Requests with an SLO by whether all of it was `kept` or it was `missed`. Time-outs, failures and "
        "refusals that may be tried again are missed; who left in time, and what could never be served, is in "
        "neither.",
    ),
    Spec(name="bad_requests", type="counter", labels=("status",), help="Requests refused before any decision."),
    Spec(name="key_requests", type="counter", labels=("key", "outcome"), help="Requests that ended, by key."),
    Spec(name="key_refusals", type="counter", labels=("key", "code"), help="Refused before any decision, by key."),
    Spec(name="key_tokens", type="counter", labels=("key",), help="Tokens counted against the limits of keys."),
    Spec(name="key_cost_usd", type="counter", labels=("key",), help="Dollars spent, by key."),
    Spec(
        name="decisions",
        type="counter",
        labels=("why",),
        help="Decisions that send or hold, by reason; of all, the share of `explores` is what explores.",
    ),
    Spec(
        name="refusals",
        type="counter",
        labels=("why",),
        help="Requests refused, by reason. To give up the rest of a stream that broke off refuses none.",
    ),
    Spec(
        name="fallbacks",
        type="counter",
        labels=("cause",),
        help="Times that the static rule took over by itself: a decision `overran`, or the model failed at a decision "
        "(`decide`, `due`, `forbids`, `compare`) or at a fact, by its tag. All but the first are bugs of ours.",
    ),
    Spec(name="ruled", type="counter", labels=("rule",), help="Requests that a rule of the operators' held of."),
    Spec(
        name="attempts",
        type="counter",
        labels=("endpoint", "tier", "ending"),
        help="Calls to endpoints, by ending.",
    ),
    Spec(
        name="hedges",
        type="counter",
        labels=("endpoint", "tier", "ending"),
        help="Of these, calls started as hedges. All are those that fired; `ok` are those that won, and the others "
        "were for nothing.",
    ),
    Spec(
        name="tokens",
        type="counter",
        labels=("endpoint", "tier", "direction"),
        help="Tokens, `input` and `output`, as endpoints report them; of streams that tell of none, what has come.",
    ),
    Spec(
        name="spent_usd",
        type="counter",
        labels=(),
        help="Dollars spent at all endpoints, also at those that a reload has taken out since.",
    ),
    Spec(
        name="cost_usd",
        type="counter",
        labels=("endpoint", "tier"),
        help="Dollars spent, with what running an engine of ours is declared to cost.",
    ),
    Spec(name="hedge_cost_usd", type="counter", labels=("endpoint", "tier"), help="Of these, on hedges."),
    Spec(
        name="wasted_usd",
        type="counter",
        labels=("endpoint", "tier"),
        help="Of these, on attempts that gave no whole answer: failed, given up, beaten by another, or left.",
    ),
    Spec(
        name="compared_usd",
        type="counter",
        help="What answers did cost, hedges and failures included, that one endpoint gave whole with its usage: those "
        "that `baseline_usd` is of.",
    ),
    Spec(
        name="baseline_usd",
        type="counter",
        labels=("baseline",),
        help="What the same tokens would have cost at the cheapest endpoint of one tier that may ever serve the "
        "request (`all-remote`, `all-local`), by list prices with nothing cached, and running costs as predicted "
        "at its end; never full, down or late, so a bound and no replay. Where none of that tier may, what it did"
        " cost. Saved is this less `compared_usd`; less than nothing against `all-local` is what offloading was "
        "paid for.",
    ),
    Spec(
        name="hedge_left_usd",
        type="gauge",
        help="Dollars that may be lost on hedges now; below zero none is started beside an attempt that is paid.",
    ),
    Spec(
        name="hedge_price",
        type="gauge",
        help="What a dollar that is lost on a hedge has to save beyond itself; +Inf where none may be lost.",
    ),
    Spec(
        name="budget_left_usd",
        type="gauge",
        labels=("period", "key"),
        help="Dollars that may still be spent in this period; by one key, or by all where it is empty.",
    ),
    Spec(
        name="budget_price",
        type="gauge",
        labels=("period", "key"),
        help="What a dollar of this budget has to gain beyond itself, so that it lasts; 0 where it lasts anyway. "
        "Absent where it is not paced.",
    ),
    Spec(
        name="ledger_overruns",
        type="counter",
        help="Bills above what was held back for them, and those whose usage is not believed, since the start; "
        "`/api/state` has those of all days that are kept.",
    ),
    Spec(
        name="spending_problem",
        type="gauge",
        help="1 where the ledger cannot be written, so that nothing is paid for; `/api/state` says why.",
    ),
    Spec(name="ttft_seconds", type="histogram", labels=("class",), help="Arrival to first content."),
    Spec(
        name="tpot_seconds",
        type="histogram",
        labels=("class",),
        help="Time per output token after the first, as clients saw it.",
    ),
    Spec(name="e2e_seconds", type="histogram", labels=("class",), help="Arrival to end, whatever the outcome."),
    Spec(
        name="attempt_ttft_seconds",
        type="histogram",
        labels=("endpoint", "tier"),
        help="Sending to first content.",
    ),
    Spec(
        name="attempt_tpot_seconds",
        type="histogram",
        labels=("endpoint", "tier"),
        help="Time per output token after the first, of whole answers with as many as it takes to tell; of several "
        "completions, of one of them.",
    ),
    Spec(
        name="ttft_actual_to_predicted",
        type="histogram",
        labels=("endpoint", "tier"),
        help="Measured TTFT over its prediction at sending; 1 is exact.",
    ),
    Spec(
        name="tpot_actual_to_predicted",
        type="histogram",
        labels=("endpoint", "tier"),
        help="The same of the time per output token, of answers with as many tokens as it takes to tell.",
    ),
    Spec(
        name="covered",
        type="counter",
        labels=("endpoint", "tier", "axis", "outcome"),
        help="Attempts by whether they were `within` the upper bound that was predicted at sending, or `beyond` it: of"
        " `ttft`, `tpot` and `e2e`. Of all, the share within should be `promise_quantile`. Who was given up later"
        " than the bound without content is beyond, and earlier is in neither. Answers in one piece, which nobody sees "
        "begin, are in `e2e` alone.",
    ),
    Spec(
        name="promise_quantile",
        type="gauge",
        help="The share of attempts that are to be within their predicted bounds: `policy.quantile`.",
    ),
    Spec(
        name="cold_starts",
        type="counter",
        labels=("endpoint", "tier"),
        help="Attempts whose model had to be loaded first, as their time to first content tells.",
    ),
    Spec(
        name="cold_share",
        type="gauge",
        labels=("endpoint",),
        help="The chance that a request that is sent now finds the model not loaded; 0 while it is in use.",
    ),
    Spec(name="load_seconds", type="gauge", labels=("endpoint",), help="What loading the model is expected to take."),
    Spec(name="decision_seconds", type="histogram", help="Time of one decision, by the clock."),
    Spec(name="held_seconds", type="histogram", help="Time that held requests waited for a slot."),
    Spec(name="held", type="gauge", help="Requests held now."),
    Spec(name="requests_in_flight", type="gauge", help="Requests under way, held ones included."),
    Spec(
        name="class_worth_factor",
        type="gauge",
        labels=("class",),
        help="What a kept promise is worth in a class with a target, as a share of the most that it may be; at 1 it is "
        "missed for want of more.",
    ),
    Spec(
        name="key_engine_share",
        type="gauge",
        labels=("key",),
        help="Of what our engines did in the last minutes, the share that was for this key; empty is without one.",
    ),
    Spec(name="in_flight", type="gauge", labels=("endpoint",), help="Attempts under way."),
    Spec(
        name="places",
        type="gauge",
        labels=("endpoint",),
        help="How many it is given at once now: `concurrency`, or less where it is not quick with so many, or refuses "
        "them.",
    ),
    Spec(name="concurrency", type="gauge", labels=("endpoint",), help="How many it is given at once at most."),
    Spec(
        name="failing_share",
        type="gauge",
        labels=("endpoint",),
        help="The chance that an attempt fails before content or breaks off, by failures between successes of late.",
    ),
    Spec(
        name="allowance_left",
        type="gauge",
        labels=("endpoint", "of"),
        help="What is left of a vendor's limit on `requests` or `tokens`, as it says; absent while there is enough.",
    ),
    Spec(
        name="others_running",
        type="gauge",
        labels=("endpoint",),
        help="Requests past this gateway that run there, as last reported. Absent where nothing ever was, as the next.",
    ),
    Spec(name="others_queued", type="gauge", labels=("endpoint",), help="Of the same report, those that wait there."),
    Spec(
        name="report_trust",
        type="gauge",
        labels=("endpoint",),
        help="What its reports of load are worth, from 0 to 1: how far they agree with what is known to be there.",
    ),
    Spec(
        name="kv_shipped",
        type="counter",
        labels=("endpoint", "target", "outcome"),
        help="KV caches of prompts that this endpoint has computed for the target: `ok`, `failed`, or `given_up`.",
    ),
    Spec(name="kv_shipped_bytes", type="counter", labels=("endpoint", "target"), help="Bytes of those that came."),
    Spec(
        name="kv_ship_seconds",
        type="histogram",
        labels=("endpoint",),
        help="From a prompt computed here to its KV cache verified where it is decoded.",
    ),
    Spec(
        name="handover_bytes_per_second",
        type="gauge",
        labels=("endpoint", "target"),
        help="Rate at which KV caches are sent from the endpoint to its target, as the estimator has it.",
    ),
    Spec(
        name="handover_under_way",
        type="gauge",
        labels=("endpoint", "target"),
        help="KV caches on their way there, or being computed for it.",
    ),
    Spec(
        name="handover_breaker_open",
        type="gauge",
        labels=("endpoint", "target"),
        help="1 where failures opened the breaker of the handover.",
    ),
    Spec(
        name="kv_tokens_max",
        type="gauge",
        labels=("endpoint",),
        help="Tokens of context that it has memory for, as told, declared or found. Absent where unknown, as the next.",
    ),
    Spec(
        name="kv_tokens_free",
        type="gauge",
        labels=("endpoint",),
        help="Of these, those that are free now, by the last report and by what is in flight.",
    ),
    Spec(
        name="up",
        type="gauge",
        labels=("endpoint",),
        help="0 where the last two probes failed (no answer, an error, our key refused) or it says it cannot serve.",
    ),
    Spec(name="breaker_open", type="gauge", labels=("endpoint",), help="1 where failures opened the breaker."),
    Spec(
        name="another_model",
        type="gauge",
        labels=("endpoint",),
        help="1 where the fingerprint contradicts what it should be, so that the endpoint counts as `same_family`.",
    ),
    Spec(
        name="canary_readings",
        type="counter",
        labels=("endpoint", "outcome"),
        help="Readings of canaries: `near` to the reference or `far`, or why there was none.",
    ),
    Spec(
        name="broken_off",
        type="counter",
        labels=("outcome",),
        help="Streams that broke off after content, where their rest may be asked for: `resumed`, `refused` (its rest "
        "cannot be asked for), `failed` (nobody gave it, the request's time was up, or the fault is the gateway's).",
    ),
    Spec(
        name="warm_ups",
        type="counter",
        labels=("endpoint", "outcome"),
        help="Loads of a model for nobody in particular: `served`, or why it did not answer.",
    ),
    Spec(
        name="canary_distance_nats",
        type="gauge",
        labels=("endpoint",),
        help="Mean difference of log-probabilities between the last reading and the reference.",
    ),
    Spec(
        name="simulator_error",
        type="gauge",
        labels=("figure",),
        help="How far the simulator is from this installation, by `tidegate backtest`: shares of dollars and times, "
        "or of all requests. Absent before the first look.",
    ),
    Spec(
        name="simulator_drifted",
        type="gauge",
        labels=("figure",),
        help="1 where that is further than it may be, beyond chance.",
    ),
    Spec(name="drifted", type="gauge", labels=("endpoint",), help="1 where the model is no longer what it was."),
    Spec(name="rtt_seconds", type="gauge", labels=("endpoint",), help="Round trip as the estimator has it."),
    Spec(
        name="upload_bytes_per_second",
        type="gauge",
        labels=("endpoint",),
        help="Rate at which requests are sent there, as the estimator has it.",
    ),
    Spec(name="drained", type="gauge", labels=("endpoint",), help="1 where operators are draining the endpoint."),
    Spec(name="pinned", type="gauge", labels=("endpoint",), help="1 where operators have pinned its models."),
    Spec(name="static_rule", type="gauge", help="1 where operators have put the static rule in force."),
    Spec(name="reloads", type="counter", labels=("outcome",), help="Reloads of the configuration, by outcome."),
    Spec(name="config_refused", type="gauge", help="1 from a reload that was refused to the next one that was not."),
    Spec(
        name="loop_lag_seconds",
        type="histogram",
        help="How late the event loop's timer fired, twenty times a second while requests are under way.",
    ),
    Spec(name="handler_errors", type="counter", help="Bugs of ours that somebody met; the log says where."),
    Spec(name="journal_lines", type="counter", help="Lines given to the journal."),
    Spec(name="journal_lost", type="counter", help="Lines lost: the disk did not take them, or others removed them."),
    Spec(
        name="journal_problems",
        type="counter",
        help="Times that the disk took no line, no new segment or no fsync, or that others removed a segment. What is "
        "not written waits, up to 8 MiB.",
    ),
    Spec(name="log_dropped", type="counter", help="Lines of the log that nobody took, or that could not be encoded."),
    Spec(name="build_info", type="gauge", labels=("version",), help="1; which software this is."),
    Spec(
        name="trace_spans",
        type="counter",
        labels=("outcome",),
        help="Spans of traces: all that were `made`, and of these those that were `sent`, or `lost` since nobody took "
        "them. What is in none of the two waits, or was pushed out by what came later. Absent where nothing is traced.",
    ),
    Spec(name="http_connections", type="gauge", help="Client connections now open."),
    Spec(name="http_connections_refused", type="counter", help="Clients turned away beyond `gateway.connections_max`."),
    Spec(name="http_protocol_errors", type="counter", labels=("status",), help="Malformed HTTP, by answer."),
)
PREFIX = "tidegate_"


def reference() -> str:
    """The reference page of all metrics, in Markdown."""
    lines = ["# Metrics", "", "At `/metrics` on the admin address.", "", "| name | type | labels | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for spec in TABLE:
        suffix = "_total" if spec.type == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
        lines.append(f"| `{PREFIX}{spec.name}{suffix}` | {spec.type} | {labels} | {spec.help} |")
    return "\n".join(lines) + "\n"
