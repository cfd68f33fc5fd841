"""How far work in flight has come, and when it ends, by what was predicted when it was sent.

Functions, and not methods of the record: every decision asks of all that is under way, and they are compiled.
"""

from bisect import bisect_right
from collections.abc import Mapping
from math import sqrt
from typing import Final

from tidegate.core.bins import AHEAD_TOKENS
from tidegate.core.reserve import Reservation

# What has lasted long tends to last: one that is overdue is expected to need a fifth of its age more.
OVERDUE_SHARE: Final = 0.2
# Of many such the third that ends first needs a twentieth.
SOONEST_SHARE: Final = 0.05
# What is under way has not ended yet.
SOON_S: Final = 0.001
# Of so many attempts each is asked when it ends; of more, as many from all ages, since each decision asks where no slot
# is free. By the golden ratio, so that what comes by turns is not passed over by turns.
SAMPLE_MAX: Final = 128
_SAMPLE: Final = tuple([index * (sqrt(5.0) - 1.0) / 2.0 % 1.0 for index in range(SAMPLE_MAX)])


def sample_of(reservations: Mapping[str, Reservation]) -> list[Reservation]:
    """All of them, or of very many some that stand for all."""
    sent = list(reservations.values())
    there = len(sent)
    return sent if there <= SAMPLE_MAX else [sent[int(share * there)] for share in _SAMPLE]


def looked_at_s(sent: Reservation) -> float:
    """When the engine can begin with it."""
    return sent.started_s + sent.network_s + sent.load_s


def loaded(sent: Reservation, now_s: float) -> None:
    """The model is there now, sooner or later than was expected."""
    passed_s = now_s - sent.started_s
    sent.first_s_mean = min(sent.first_s_mean, passed_s + sent.first_s_mean - sent.load_s_mean)
    sent.load_s, sent.load_s_mean = min(sent.load_s, max(0.0, passed_s - sent.network_s)), 0.0


def begun_s(sent: Reservation, now_s: float) -> float | None:
    """When its first content came, None before that. Of an answer in one piece nobody sees it: when it should have."""
    if sent.stream or sent.first_s is not None:
        return sent.first_s
    expected_s = sent.started_s + sent.first_s_mean
    return expected_s if expected_s <= now_s else None


def streamed_tokens(sent: Reservation, now_s: float) -> int:
    """About how many tokens of each completion have come by now; never more than `output_tokens_high`."""
    first_s = begun_s(sent, now_s)
    if first_s is None or sent.ahead is None:
        return 0
    short, middle, long = sent.ahead
    streaming_s, most = now_s - first_s, sent.output_tokens_high
    if streaming_s <= 0.0:
        return 0
    streamed = int(streaming_s * (short[0] + middle[0] + long[0]) / (3.0 * sent.decode_s_mean))
    return streamed if streamed < most else most


def missed_s(sent: Reservation, waited_s: float) -> float:
    """For how much of the time that it was waited for first content was missed: of an answer in one piece, what is
    beyond the time that the rest of it may take."""
    if sent.stream:
        return waited_s
    return max(0.0, waited_s - sent.output_tokens_high * sent.tpot.median_s)


def begins_s(sent: Reservation, now_s: float) -> float:
    """When its output begins, or now where it has begun: before that it does not end."""
    return now_s if begun_s(sent, now_s) is not None else max(sent.started_s + sent.first_s_mean, now_s)


def ends_s(sent: Reservation, now_s: float) -> tuple[float, float, float]:
    """When it frees its slot: three moments, each as likely, whose mean is expected.

    Never in the past; and the longer it has streamed, the later.
    """
    since_s, streamed_s, least_s = begun_s(sent, now_s), 0.0, now_s + SOON_S
    if since_s is None:
        since_s = max(sent.started_s + sent.first_s_mean, now_s)
        least_s += OVERDUE_SHARE * (now_s - sent.started_s)
    else:
        streamed_s = max(0.0, now_s - since_s)
    # A journal of older software tells it at other places.
    if sent.ahead is None or len(sent.ahead[0]) != len(AHEAD_TOKENS):
        end_s = max(since_s + sent.decode_s_mean, least_s + OVERDUE_SHARE * streamed_s)
        return end_s, end_s, end_s
    short, middle, long = sent.ahead
    token_s = 3.0 * sent.decode_s_mean / (short[0] + middle[0] + long[0])
    streamed = streamed_s / token_s
    place = bisect_right(AHEAD_TOKENS, streamed)
    return (
        max(since_s + token_s * _in_all(short, streamed, place, SOONEST_SHARE), least_s),
        max(since_s + token_s * _in_all(middle, streamed, place, OVERDUE_SHARE), least_s),
        max(since_s + token_s * _in_all(long, streamed, place, OVERDUE_SHARE), least_s),
    )


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
