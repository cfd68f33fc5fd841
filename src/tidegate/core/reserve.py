"""Work in flight: what we have put on an endpoint and it has not finished."""

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from tidegate.core.bins import AHEAD_TOKENS, Ahead
from tidegate.core.counts import Turns
from tidegate.core.latency import PARTS, Sent
from tidegate.core.line import Carried
from tidegate.core.mixture import Mixture
from tidegate.core.model import Started
from tidegate.core.prompts import Given

# What has lasted long tends to last: one that is overdue is expected to need a fifth of its age more.
OVERDUE_SHARE = 0.2
# Of many such the third that ends first needs a twentieth.
SOONEST_SHARE = 0.05
# What is under way has not ended yet.
SOON_S = 0.001
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


class Reservation(msgspec.Struct, kw_only=True):
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
    prior `teaches` nothing.

    `load_s` is what is expected to pass before its prompt is looked at, for the model has to be loaded: 0 where that is
    less likely than not; `load_s_mean` is what such loads add to `first_s_mean`. `cold` is what it may teach of them,
    and `was_cold` whether one explains its time to first content. Each completion takes memory for `output_tokens_high`
    tokens at most, as far as that is foreseen. Its tokens were promised to take `promised_tpot_s` each at most. It was
    expected to take `engine_s` of the seconds of an engine of ours. Where it is `raced` by another attempt, or races
    one, what is paid for the slower of them is lost; of a hedge `hedge_usd` are held back for that.
    `carried` is what is on the way there until it is. Where it is for the rest of an answer that broke off,
    `said_tokens` are what its client has of that. It computes the prompt for a `target`, or its own has come by the
    handover `shipped`.
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
    load_s: float = 0.0
    load_s_mean: float = 0.0
    cold: ColdSent | None = None
    was_cold: bool = False
    output_tokens_high: int = 0
    promised_tpot_s: float | None = None
    engine_s: float = 0.0
    raced: bool = False
    hedge_usd: float = 0.0
    carried: Carried | None = None
    said_tokens: int = 0
    target: str = ""
    shipped: str = ""

    @property
    def looked_at_s(self) -> float:
        """When the engine can begin with it."""
        return self.started_s + self.network_s + self.load_s

    def loaded(self, now_s: float) -> None:
        """The model is there now, sooner or later than was expected."""
        passed_s = now_s - self.started_s
        self.first_s_mean = min(self.first_s_mean, passed_s + self.first_s_mean - self.load_s_mean)
        self.load_s, self.load_s_mean = min(self.load_s, max(0.0, passed_s - self.network_s)), 0.0

    def streamed_tokens(self, now_s: float) -> int:
        """About how many tokens of each completion have come by now; never more than `output_tokens_high`."""
        if self.first_s is None or self.ahead is None:
            return 0
        short, middle, long = self.ahead
        streaming_s, most = now_s - self.first_s, self.output_tokens_high
        if streaming_s <= 0.0:
            return 0
        streamed = int(streaming_s * (short[0] + middle[0] + long[0]) / (3.0 * self.decode_s_mean))
        return streamed if streamed < most else most

    def begins_s(self, now_s: float) -> float:
        """When its output begins, or now where it has begun: before that it does not end."""
        return now_s if self.first_s is not None else max(self.started_s + self.first_s_mean, now_s)

    def ends_s(self, now_s: float) -> tuple[float, float, float]:
        """When it frees its slot: three moments, each as likely, whose mean is expected.

        Never in the past; and the longer it has streamed, the later.
        """
        begins_s, streamed_s, least_s = self.first_s, 0.0, now_s + SOON_S
        if begins_s is None:
            begins_s = max(self.started_s + self.first_s_mean, now_s)
            least_s += OVERDUE_SHARE * (now_s - self.started_s)
        else:
            streamed_s = max(0.0, now_s - begins_s)
        # A journal of older software tells it at other places.
        if self.ahead is None or len(self.ahead[0]) != len(AHEAD_TOKENS):
            end_s = max(begins_s + self.decode_s_mean, least_s + OVERDUE_SHARE * streamed_s)
            return end_s, end_s, end_s
        short, middle, long = self.ahead
        token_s = 3.0 * self.decode_s_mean / (short[0] + middle[0] + long[0])
        streamed = streamed_s / token_s
        place = bisect_right(AHEAD_TOKENS, streamed)
        return (
            max(begins_s + token_s * _in_all(short, streamed, place, SOONEST_SHARE), least_s),
            max(begins_s + token_s * _in_all(middle, streamed, place, OVERDUE_SHARE), least_s),
            max(begins_s + token_s * _in_all(long, streamed, place, OVERDUE_SHARE), least_s),
        )


def unpredicted(fact: Started, now_s: float) -> Reservation:
    """An attempt of which nothing could be predicted: it takes its place, and teaches nothing."""
    first_s, nothing = FIRST_S_UNKNOWN, [0.0] * PARTS
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
        tpot=Sent(nothing, first_s, first_s, 1.0, 1.0, 0.0, 0, 0),
        prefill_s=first_s,
        first_s_mean=first_s,
        decode_s_mean=DECODE_S_UNKNOWN,
        model=fact.model,
        key=fact.key,
        session=fact.session,
        teaches=False,
        output_tokens_high=fact.output_tokens_max or OUTPUT_TOKENS_UNKNOWN,
    )


class Prefills(msgspec.Struct):
    """The prompts an engine was given and has not begun to answer, worked on one after the other, oldest first.

    `head_s` is what the oldest takes, from `since_s` on, when the engine turned to it; `behind_s` what the rest takes.
    `count` is how many they are.
    """

    since_s: float = 0.0
    head_s: float = 0.0
    behind_s: float = 0.0
    count: int = 0

    def add(self, reservation: Reservation) -> None:
        """One more prompt, behind the others."""
        self.count += 1
        if self.head_s:
            self.behind_s += reservation.prefill_s
        else:
            self.head_s = reservation.prefill_s
            self.since_s = reservation.looked_at_s

    def settle(self, waiting: Iterable[Reservation], now_s: float, *, head_done: bool) -> None:
        """Some prompt is done with: these are left. `head_done`: it was the oldest, so the next one's turn has come."""
        head = None
        self.behind_s, self.count = 0.0, 0
        for reservation in waiting:
            self.count += 1
            if head is None:
                head = reservation
            else:
                self.behind_s += reservation.prefill_s
        if head is None:
            self.head_s = 0.0
        elif head_done:
            self.head_s = head.prefill_s
            self.since_s = max(now_s, head.looked_at_s)

    def planned_s(self, now_s: float, *, shared: bool) -> float:
        """How long the engine is still busy with them, had all gone as predicted since it turned to the oldest.

        Where it is `shared` with others and that one is overdue, theirs are computed, and nobody knows how many: for as
        long again as it has been waited for.
        """
        if not self.head_s:
            return 0.0
        spent_s = max(0.0, now_s - self.since_s)
        if shared and spent_s > self.head_s:
            return spent_s + self.behind_s
        return max(0.0, self.head_s + self.behind_s - spent_s)

    def left_s(self, now_s: float) -> float:
        """How long the engine is still busy with them: one after the other, they delay a new prompt by so much."""
        head_s, spent_s = self.head_s, now_s - self.since_s
        if not head_s:
            return 0.0
        if spent_s > 0.0:
            head_s -= spent_s
            if head_s < OVERDUE_SHARE * spent_s:
                head_s = OVERDUE_SHARE * spent_s
        return head_s + self.behind_s

    def beside_s(self, prefill_s: float, step_s: float, now_s: float) -> float:
        """How long they delay a new prompt that takes `prefill_s` where all advance side by side, in steps of `step_s`.

        It waits for the step under way, and then each of them gets as much as the new one until that is done, and no
        more than it needs.
        """
        return min(self.left_s(now_s), step_s + self.count * prefill_s)


def _in_all(ahead: tuple[int, ...], streamed: float, place: int, more: float) -> float:
    """How many tokens are expected in all of which so many have streamed: straight lines between what is known.

    Beyond that, it is by so much `more`, as a share of these.
    """
    expected = float(ahead[place - 1])
    if place < len(ahead):
        low = AHEAD_TOKENS[place - 1]
        expected += (streamed - low) / (AHEAD_TOKENS[place] - low) * (ahead[place] - expected)
    # Beyond its bound, or what is ever seen: its tokens take longer than was thought.
    return expected if expected > streamed else (1.0 + more) * streamed
