"""What a doctor says: the figures of each endpoint, and what they mean, in plain words, with what to do."""

from enum import StrEnum

from tidegate.core.model import Record, replace

# Half of the predictions are off by more: decisions then follow a wrong picture.
ERROR_MANY = 0.35
# Half of the predictions are too long, or too short, by more: that is no chance any more.
BIAS_MANY = 0.15
# A bucket is told of where its error is so many times that of all, and large enough to matter.
BUCKET_TIMES, BUCKET_ERROR = 2.0, 0.25
# Errors have grown where the last third's is so many times the first's, and by so much.
GROWN_TIMES, GROWN_BY = 1.5, 0.05
GROWN_ATTEMPTS_MIN = 150
# Of a sum: what is predicted of tokens or dollars, over what it came to.
TOKENS_OFF, COST_OFF = 0.25, 0.10


class Symptom(StrEnum):
    """Everything that can be found. Closed: docs and tests enumerate it."""

    TOO_FEW = "too_few"
    UNTOLD = "untold"
    SLOWER = "slower"
    FASTER = "faster"
    WAS_SLOWER = "was_slower"
    WAS_FASTER = "was_faster"
    PROMISES_BROKEN_NOW = "promises_broken_now"
    PROMISES_BROKEN = "promises_broken"
    PROMISES_WIDE = "promises_wide"
    FAR_OFF = "far_off"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    WORST_BUCKET = "worst_bucket"
    GROWING = "growing"
    LENGTHS_OFF = "lengths_off"
    COSTS_MORE = "costs_more"
    COSTS_LESS = "costs_less"


ALARMS = frozenset({Symptom.SLOWER, Symptom.FASTER, Symptom.PROMISES_BROKEN_NOW})

# What it means, and what to do. `figure` is TTFT, TPOT or E2E.
WORDS: dict[Symptom, tuple[str, str]] = {
    Symptom.TOO_FEW: (
        "{taught} attempts taught something here, and {least} streams, or answers in one piece, are the least from "
        "which anything can be said",
        "wait for more traffic, or give an older journal with it",
    ),
    Symptom.UNTOLD: (
        "{untold} answers came in one piece and did not say how many tokens they have, so that how long they took "
        "tells nothing",
        "let clients ask for streams, or have the engine tell what it used (`usage`)",
    ),
    Symptom.SLOWER: (
        "{figure} has become {ratio:.2f} times as long as it was a hundred attempts before, more than chance explains",
        "look at what else uses this engine, its clock speed, and the way there; if it is to stay so, nothing has to "
        "be done: predictions follow within some attempts",
    ),
    Symptom.FASTER: (
        "{figure} has become {ratio:.2f} times as long as it was a hundred attempts before, less than chance explains",
        "nothing, if somebody made it faster: it gets more work now. If nobody did, see that it still serves the model "
        "that it should",
    ),
    Symptom.WAS_SLOWER: (
        "{figure} had become {ratio:.2f} times as long as it was before; since then it is so, or was learned anew",
        "nothing now; the time may tell what was changed then",
    ),
    Symptom.WAS_FASTER: (
        "{figure} had become {ratio:.2f} times as long as it was before; since then it is so, or was learned anew",
        "nothing now; the time may tell what was changed then",
    ),
    Symptom.PROMISES_BROKEN_NOW: (
        "of the last attempts only {lately:.0%} had their first content within the bound that {quantile:.0%} should",
        "requests here miss their promises more often than decisions believe; send less here (`drain`, or a smaller "
        "`concurrency`) until it is found what slows it down",
    ),
    Symptom.PROMISES_BROKEN: (
        "{kept:.1%} had their first content within the bound that {quantile:.0%} should ({low:.1%} to {high:.1%})",
        "times here vary more than is learned in time: a smaller `concurrency`, or a `prior` with a wider `sigma`, "
        "makes promises more careful",
    ),
    Symptom.PROMISES_WIDE: (
        "{kept:.1%} had their first content within the bound that {quantile:.0%} should ({low:.1%} to {high:.1%})",
        "bounds are wider than they need be, so work may be sent away that would be in time; more traffic narrows them",
    ),
    Symptom.FAR_OFF: (
        "half of the predictions of {figure} are off by more than {error:.0%}",
        "declare what stands there (`hardware`, or a `prior` made by `tidegate calibrate`), and see that nobody else "
        "uses the engine: what comes past the gateway is not seen",
    ),
    Symptom.TOO_LONG: (
        "{figure} is mostly predicted {bias:.0%} longer than it is, so the endpoint gets less work than it could do",
        "where it is short of traffic this goes away by itself; if not, declare faster `hardware` or a faster `prior`",
    ),
    Symptom.TOO_SHORT: (
        "{figure} is mostly predicted {bias:.0%} shorter than it is, so promises are given that are not kept",
        "declare slower `hardware` or a slower `prior`, or a smaller `concurrency`; see who else uses the engine",
    ),
    Symptom.WORST_BUCKET: (
        "predictions of {figure} are worst for prompts of {prompts} tokens beside {load} others: off by {error:.0%}",
        "more such traffic teaches it; if it stays so, send such requests elsewhere by a class of their own",
    ),
    Symptom.GROWING: (
        "predictions of {figure} were off by {first:.0%} in the first third of the journal, by {last:.0%} in the last",
        "look for what has changed meanwhile: the traffic, the engine's settings, or who else uses it",
    ),
    Symptom.LENGTHS_OFF: (
        "{predicted:.0f} output tokens were predicted, and {measured:.0f} came",
        "put requests that behave alike into classes of their own: lengths are learned by class",
    ),
    Symptom.COSTS_MORE: (
        "it cost ${measured:.4f}, and ${predicted:.4f} were predicted",
        "see that `price` is what is billed, by the vendor's bill; answers longer than predicted cost more, too",
    ),
    Symptom.COSTS_LESS: (
        "it cost ${measured:.4f}, and ${predicted:.4f} were predicted",
        "prompts that the vendor had cached cost less than predicted, and so do answers that end sooner; nothing else "
        "should",
    ),
}


class Bucket(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Requests of so many prompt tokens beside so many others, from the least to the most; None is no end."""

    prompt_tokens: tuple[int, int | None]
    load: tuple[int, int | None]
    attempts: int
    error: float
    bias: float


class Drift(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What was measured left what had been believed before: from `since_s` on it was `ratio` times what it used to be.

    `now`: it was noticed among the last attempts, of which there were `attempts_ago` since.
    """

    since_s: float
    noticed_s: float
    attempts_ago: int
    ratio: float
    now: bool


class Accuracy(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How near predictions of one figure came. Errors are medians of |predicted / measured - 1|.

    `bias` is the median of predicted / measured - 1: above zero, more was predicted. `slower` and `faster` are the
    latest drifts, None where there was none.
    """

    attempts: int
    error: float
    bias: float
    error_first_third: float
    error_last_third: float
    worst: Bucket | None
    slower: Drift | None
    faster: Drift | None


class Promise(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How often the time to first content was within the bound that should hold with probability `quantile`.

    `low` and `high` bound what that share is in truth, in 95 of 100 such cases.
    """

    attempts: int
    quantile: float
    kept: float
    low: float
    high: float
    kept_lately: float
    broken_now: bool


class Total(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Predicted and measured, each added up over all attempts, and the median error of one."""

    attempts: int
    predicted: float
    measured: float
    error: float


class Finding(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One thing that was found: what it means, and what to do. `at_s` is when it began, where that is known."""

    symptom: Symptom
    alarm: bool
    means: str
    do: str
    at_s: float | None = None


class Health(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One endpoint. `taught` of its attempts taught what to expect; of `untold` answers in one piece nobody knows how
    many tokens they have. `whole` is the time of answers in one piece, from end to end and for as many tokens as came.
    A figure is None where too few say nothing."""

    endpoint: str
    attempts: int
    taught: int
    untold: int = 0
    ttft: Accuracy | None = None
    tpot: Accuracy | None = None
    whole: Accuracy | None = None
    promise: Promise | None = None
    output_tokens: Total | None = None
    cost_usd: Total | None = None
    findings: tuple[Finding, ...] = ()


class Diagnosis(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All endpoints. `otherwise` of the `decisions` came out otherwise now: so much predictions may differ, too. So
    many runs are `overlapping`: they were at work at the same time, and are read one after the other."""

    from_s: float | None
    until_s: float
    decisions: int
    otherwise: int
    overlapping: int
    alarm: bool
    endpoints: tuple[Health, ...]


def findings(health: Health, least: int) -> Health:
    """The same with what there is to find; fewer than `least` attempts say nothing."""
    found: list[Finding] = []
    figures = ("TTFT", health.ttft), ("TPOT", health.tpot), ("E2E", health.whole)
    for figure, accuracy in figures:
        if accuracy is not None:
            found += _drifts(figure, accuracy) + _errors(figure, accuracy)
    if health.promise is not None:
        found += _promises(health.promise)
    found += _sums(health)
    if health.untold >= least:
        found.append(_found(Symptom.UNTOLD, untold=health.untold))
    elif all(accuracy is None for _, accuracy in figures):
        found.append(_found(Symptom.TOO_FEW, taught=health.taught, least=least))
    return replace(health, findings=tuple(sorted(found, key=lambda one: not one.alarm)))


def _drifts(figure: str, accuracy: Accuracy) -> list[Finding]:
    return [
        _found(now if drift.now else before, at_s=drift.since_s, figure=figure, ratio=drift.ratio)
        for drift, now, before in (
            (accuracy.slower, Symptom.SLOWER, Symptom.WAS_SLOWER),
            (accuracy.faster, Symptom.FASTER, Symptom.WAS_FASTER),
        )
        if drift is not None
    ]


def _errors(figure: str, accuracy: Accuracy) -> list[Finding]:
    found = []
    if accuracy.error > ERROR_MANY:
        found.append(_found(Symptom.FAR_OFF, figure=figure, error=accuracy.error))
    if abs(accuracy.bias) > BIAS_MANY:
        symptom = Symptom.TOO_LONG if accuracy.bias > 0.0 else Symptom.TOO_SHORT
        found.append(_found(symptom, figure=figure, bias=abs(accuracy.bias)))
    worst = accuracy.worst
    if worst is not None and worst.error > max(BUCKET_TIMES * accuracy.error, BUCKET_ERROR):
        found.append(
            _found(
                Symptom.WORST_BUCKET,
                figure=figure,
                prompts=span(worst.prompt_tokens),
                load=span(worst.load),
                error=worst.error,
            )
        )
    first, last = accuracy.error_first_third, accuracy.error_last_third
    if accuracy.attempts >= GROWN_ATTEMPTS_MIN and last > max(GROWN_TIMES * first, first + GROWN_BY):
        found.append(_found(Symptom.GROWING, figure=figure, first=first, last=last))
    return found


def _promises(promise: Promise) -> list[Finding]:
    said = {
        "kept": promise.kept,
        "quantile": promise.quantile,
        "low": promise.low,
        "high": promise.high,
        "lately": promise.kept_lately,
    }
    found = []
    if promise.broken_now:
        found.append(_found(Symptom.PROMISES_BROKEN_NOW, **said))
    if promise.high < promise.quantile:
        found.append(_found(Symptom.PROMISES_BROKEN, **said))
    elif promise.low > promise.quantile:
        found.append(_found(Symptom.PROMISES_WIDE, **said))
    return found


def _sums(health: Health) -> list[Finding]:
    found = []
    tokens, cost = health.output_tokens, health.cost_usd
    if tokens is not None and _off(tokens, TOKENS_OFF):
        found.append(_found(Symptom.LENGTHS_OFF, predicted=tokens.predicted, measured=tokens.measured))
    if cost is not None and _off(cost, COST_OFF):
        symptom = Symptom.COSTS_MORE if cost.measured > cost.predicted else Symptom.COSTS_LESS
        found.append(_found(symptom, predicted=cost.predicted, measured=cost.measured))
    return found


def _off(total: Total, share: float) -> bool:
    return abs(total.predicted / total.measured - 1.0) > share


def _found(symptom: Symptom, at_s: float | None = None, **said: object) -> Finding:
    means, do = WORDS[symptom]
    return Finding(symptom=symptom, alarm=symptom in ALARMS, means=means.format(**said), do=do, at_s=at_s)


def span(ends: tuple[int, int | None]) -> str:
    """From the least to the most, for people."""
    low, high = ends
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"
