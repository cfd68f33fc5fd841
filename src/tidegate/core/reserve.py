"""Work in flight: what we have put on an endpoint and it has not finished."""

import msgspec

from tidegate.core.bins import Ahead
from tidegate.core.counts import Turns
from tidegate.core.latency import PARTS, Sent
from tidegate.core.line import Carried
from tidegate.core.mixture import Mixture
from tidegate.core.model import Started
from tidegate.core.prompts import Given

# Where nothing can be predicted: an answer of usual length, which begins soon.
FIRST_S_UNKNOWN = 1.0
DECODE_S_UNKNOWN = 10.0
OUTPUT_TOKENS_UNKNOWN = 1024


class ColdSent(msgspec.Struct, gc=False):
    """What was predicted of an attempt when it was sent, so that its ending can teach something of cold starts.

    `idle_s` is for how long nobody had used the model, None where somebody's load was waited for; `resident` what the
    engine had told of that moment, None where nothing was told since the last use. `after_wait`: somebody had waited in
    vain since then, and may have left a load behind. `believed_s` is what was believed of its time to first content
    before anything was measured.
    """

    predicted: Mixture
    idle_s: float | None = None
    resident: bool | None = None
    after_wait: bool = False
    believed_s: float = 0.0


class Reservation(msgspec.Struct):
    """One attempt under way, with what was predicted when it was sent, so that its ending can teach.

    `ttft` is the engine's share of the time to first content, and `tpot` the time per token; `ttft_s` is the predicted
    median with the network, `ttft_s_high` the upper quantile, and `warm_s_high` that of a model that is there: the
    promise that the quantile is held to. `e2e_s_high` is the promise of the whole, among outputs of `output_row`.
    `prefill_s`, `first_s_mean` and `decode_s_mean` are means, since schedules add them up; `ahead` is how long its
    output is in all, by thirds, once more than each of `bins.AHEAD_TOKENS` has streamed. `session` is the conversation
    that it belongs to, or `beginning` the longest one of its prompt, and `turns` what was known of that. In `ttft`,
    `cached_tokens` of the prompt were taken for cached; `given` is what else is known of it. Reports of others had some
    `trust` and counted `gain` times; as far as they said nothing, these were believed to `stretch` the first beyond
    what `ttft` says. Once it is `corrected`, its time to first content has taught. What was predicted from another
    prior `teaches` nothing, and what is not `sampled` nothing of times, of which others of its kind tell enough.

    `load_s` is what is expected to pass before its prompt is looked at, for the model has to be loaded: 0 where that is
    less likely than not; `load_s_mean` is what such loads add to `first_s_mean`. `cold` is what it may teach of them,
    and `was_cold` whether one explains its time to first content. Each completion takes memory for `output_tokens_high`
    tokens at most, as far as that is foreseen. Its tokens were promised to take `promised_tpot_s` each at most. It was
    expected to take `engine_s` of the seconds of an engine of ours, as one of the `rest` where it was late, or had
    waited and was promised nothing. Where it is `raced` by another attempt, or races one, what the slower of them costs
    is lost; of a hedge `hedge_usd` are held back for that. `carried` is what is on the way there until it is.
    Where it is for the rest of an answer that broke off, `said_tokens` are what its client has of that. It computes the
    prompt for a `target`, or its own has come by the handover `shipped`. Without `stream` nobody sees its first
    content: its prompt is taken for `computed` when it should be.
    """

    started_s: float
    klass: str
    prompt_tokens: int
    output_tokens_max: int | None
    completions: int
    network_s: float
    ttft_s: float
    ttft_s_high: float
    warm_s_high: float
    e2e_s_high: float
    output_row: int
    ttft: Sent
    tpot: Sent
    prefill_s: float
    first_s_mean: float
    decode_s_mean: float
    ahead: Ahead | None = None
    first_s: float | None = None
    model: str = ""
    key: str = ""
    trust: float = 1.0
    gain: float = 1.0
    stretch: float = 1.0
    session: str = ""
    beginning: int = 0
    turns: Turns | None = None
    cached_tokens: float = 0.0
    given: Given | None = None
    corrected: bool = False
    teaches: bool = True
    sampled: bool = True
    load_s: float = 0.0
    load_s_mean: float = 0.0
    cold: ColdSent | None = None
    was_cold: bool = False
    output_tokens_high: int = 0
    promised_tpot_s: float | None = None
    engine_s: float = 0.0
    rest: bool = False
    raced: bool = False
    hedge_usd: float = 0.0
    carried: Carried | None = None
    said_tokens: int = 0
    target: str = ""
    shipped: str = ""
    stream: bool = True
    computed: bool = False


def unpredicted(fact: Started, now_s: float) -> Reservation:
    """An attempt of which nothing could be predicted: it takes its place, and teaches nothing."""
    first_s, token_s, nothing = FIRST_S_UNKNOWN, DECODE_S_UNKNOWN / OUTPUT_TOKENS_UNKNOWN, [0.0] * PARTS
    return Reservation(
        started_s=now_s,
        klass=fact.klass,
        prompt_tokens=fact.prompt_tokens,
        output_tokens_max=fact.output_tokens_max,
        completions=fact.completions,
        network_s=0.0,
        ttft_s=first_s,
        ttft_s_high=first_s,
        warm_s_high=first_s,
        e2e_s_high=first_s + DECODE_S_UNKNOWN,
        output_row=0,
        ttft=Sent(nothing, first_s, first_s, 1.0, 1.0, 0.0, 0, 0),
        tpot=Sent(nothing, token_s, token_s, 1.0, 1.0, 0.0, 0, 0),
        prefill_s=first_s,
        first_s_mean=first_s,
        decode_s_mean=DECODE_S_UNKNOWN,
        model=fact.model,
        key=fact.key,
        session=fact.session,
        stream=fact.stream,
        teaches=False,
        output_tokens_high=fact.output_tokens_max or OUTPUT_TOKENS_UNKNOWN,
    )
