"""Output length in tokens: what a request of this class, model, key and conversation is likely to produce.

A chain of groups, each a part of the one before: what the request is for, its class, its model with prompts about as
long, its key, its key with its class, and that as it was lately. In a conversation it is told instead how long the
answers were, and by how much the prompt has grown since the last one. Each group counts lengths in bins; what one has
too few of is believed as its larger group has it. Measured: bench/length.py.
"""

from bisect import bisect_right
from math import log2
from typing import Final
from zlib import crc32

from tidegate.core.bins import Level, believed, bin_of, last_passed
from tidegate.core.cached import at_grid
from tidegate.core.classify import base_of
from tidegate.core.counts import Counts, Lengths, Turns
from tidegate.core.model import Request, Started
from tidegate.core.output import Length, length_of
from tidegate.core.prompts import DIGESTS_MAX, GRID, GRID_OF, Prefix
from tidegate.core.sampling import stands_for

# As how many outputs of a group its larger group counts.
CLASS_STRENGTH: Final = 1.0
PROMPT_STRENGTH: Final = 8.0
KEY_STRENGTH: Final = 1.5
TURN_STRENGTH: Final = 8.0
RECENT_STRENGTH: Final = 5.0
# A group that has so many times as many of its own says all there is to say.
ENOUGH: Final = 128.0
# Counts are in sixteenths of an output, whole numbers, so that halves of them add up to the same in any order.
ONE: Final = 16
# Beside the habits of days, what was lately counts for itself: clients go from one task to the next.
RECENT_S: Final = 900
HALF_LIFE_S: Final = 96 * RECENT_S
_RECENT: Final = "r "
# Of a conversation's answers each counts four fifths of the one after it.
TURN_LEFT: Final = 0.8
# Prompts within a quarter of each other are alike: a template, a document, a conversation at the same point.
PROMPTS_PER_OCTAVE: Final = 3.0
# How long a conversation's answers are is told to two bins.
LEVELS_PER_BIN: Final = 0.5
# By how many tokens its prompt has grown: it was made shorter, or is another's; a word or a tool's verdict; a question;
# a page; documents.
GROWTH_EDGES: Final[tuple[int, ...]] = (-1024, 256, 1024, 4096)
# What is learned takes so much of a snapshot at most. Who has more of one has that forgotten that was not seen for
# longest: of groups, most have a dozen bins; of conversations, each is 42 bytes.
COUNTS_BYTES_MAX: Final = 42_000
TURNS_MAX: Final = 500
_NAME_BYTES, _BIN_BYTES = 24, 11
# Clients use a handful of bounds; beyond this the memo starts afresh.
MEMO_MAX: Final = 1024
# Of so many kinds of requests it is remembered how many there were this second; beyond, all are counted.
SAMPLED_MAX: Final = 256

_Asked = tuple[str, int | None, str, str, int, int, int]
_Alike = tuple[str, str, str, int, int, int]


class LengthModel:
    """Lengths by group; one that was not seen says what its larger group says. `learn` writes, the others read."""

    __slots__ = ("_bytes", "_chains", "_memo", "_now_s", "state")

    def __init__(self, state: Lengths | None = None) -> None:
        self.state = state if state is not None else Lengths()
        # By what the request is for: nothing that is learned of one class is in a chain of another.
        self._memo: dict[str, dict[_Asked, Length]] = {}
        self._chains: dict[_Alike, tuple[int, list[tuple[str, float]]]] = {}
        # What was counted long ago weighs less beside what was counted last.
        self._now_s = max((one.seen_s for one in self.state.counts.values()), default=0)
        self._bytes = sum(bytes_of(name, one) for name, one in self.state.counts.items())

    def turns(self, session: str, beginnings: tuple[int, ...] = ()) -> Turns | None:
        """What is known of a conversation: by its session, else by the longest known beginning of its prompt."""
        if session:
            return self.state.sessions.get(session)
        known = self.state.beginnings
        if known:
            for beginning in reversed(beginnings):
                found = known.get(beginning)
                if found is not None:
                    return found
        return None

    def of(self, request: Request) -> Length:
        """What is believed of the output of this request, with what is known of its conversation."""
        return self.asked(request, self.turns(request.session, beginnings_of(request)))

    def asked(self, request: Request | Started, turns: Turns | None) -> Length:
        """The same, where what is known of its conversation was looked up already; of the rest of its output, where
        its client has a part of it.
        """
        said, tokens_max = request.said_tokens, request.output_tokens_max
        if not said:
            return self.at(request.klass, tokens_max, request.model, request.key, request.prompt_tokens, turns)
        whole_max, prompt_tokens = None if tokens_max is None else tokens_max + said, request.prompt_tokens - said
        return self.at(request.klass, whole_max, request.model, request.key, prompt_tokens, turns).rest(said)

    def unlearned(self, request: Request) -> Length:
        """What is believed of any output, whatever was counted."""
        return self.at("", request.output_tokens_max)

    def at(
        self,
        klass: str,
        tokens_max: int | None,
        model: str = "",
        key: str = "",
        prompt_tokens: int = 0,
        turns: Turns | None = None,
    ) -> Length:
        """What is believed of such a request, cut at the client's own bound; `turns` is what is known of its
        conversation. Memoised: it is on every request's path.
        """
        level, growth = _turn(turns, prompt_tokens)
        asked = (klass, tokens_max, model, key, _size(prompt_tokens), level, growth)
        known = self._memo.get(base_of(klass))
        return (None if known is None else known.get(asked)) or self._made(asked)

    def learn(
        self,
        klass: str,
        tokens: float,
        now_s: float,
        *,
        at_least: bool = False,
        model: str = "",
        key: str = "",
        prompt_tokens: int = 0,
        session: str = "",
        beginning: int = 0,
        turns: Turns | None = None,
        request_id: str = "",
    ) -> None:
        """Take in one measured length; `at_least` where the client left, or its own bound cut the output.

        `turns` is what was known of its conversation when it was sent, and `beginning` the longest one of its prompt.
        Of hundreds alike in a second some are counted for all, by `request_id`; who has none is always counted.
        """
        if tokens < 1.0:
            return
        place = last_passed(tokens) if at_least else bin_of(tokens)
        if place < 0:
            return
        second = int(now_s)
        level, growth = _turn(turns, prompt_tokens)
        kind, groups = self._chain((klass, model, key, _size(prompt_tokens), level, growth))
        outputs = self._stands_for(kind, request_id, now_s) if request_id else 1.0
        if outputs:
            sixteenths = int(ONE * outputs + 0.5)
            for name, _ in groups:
                self._count(name, place, second, sixteenths, at_least)
            self._memo.pop(base_of(klass), None)
            if second > self._now_s:
                if second // RECENT_S > self._now_s // RECENT_S:
                    # Of other classes, too, what was counted may have been halved.
                    self._memo.clear()
                self._now_s = second
        # How the conversation goes on is not known from one that was cut.
        if not at_least:
            self._went_on(session, beginning, turns, place, prompt_tokens, second)
        if self._bytes > COUNTS_BYTES_MAX:
            self._forget()
            self._memo.clear()

    def _stands_for(self, kind: int, request_id: str, now_s: float) -> float:
        sampling = self.state.sampling
        if len(sampling) > SAMPLED_MAX:
            sampling.clear()
        return stands_for(sampling, kind, request_id, now_s)

    def _chain(self, alike: _Alike) -> tuple[int, list[tuple[str, float]]]:
        """What such requests are sampled by, in which conversations do not count, and their groups. Kept, since names
        take long to make."""
        found = self._chains.get(alike)
        if found is None:
            if len(self._chains) >= MEMO_MAX:
                self._chains.clear()
            klass, model, key, size, level, growth = alike
            kind = crc32(f"{size} {klass} {model} {key}".encode())
            found = self._chains[alike] = kind, _groups(klass, model, key, size, level, growth)
        return found

    def _made(self, asked: _Asked) -> Length:
        klass, tokens_max, model, key, size, level, growth = asked
        levels: list[Level] = []
        for name, strength in reversed(self._chain((klass, model, key, size, level, growth))[1]):
            counts = self.state.counts.get(name)
            if counts is not None:
                unit = 0.5 ** _halvings(name, counts.seen_s, self._now_s) / ONE
                ended: dict[int, int] = counts.ended
                levels.append((strength, unit, ended, counts.cut))
                outputs = 0
                for one in ended.values():
                    outputs += one
                if outputs * unit >= ENOUGH * strength:
                    break
        levels.reverse()
        if sum([len(known) for known in self._memo.values()]) >= MEMO_MAX:
            self._memo.clear()
        made = length_of(believed(levels), tokens_max)
        self._memo.setdefault(base_of(klass), {})[asked] = made
        return made

    def _count(self, name: str, place: int, second: int, sixteenths: int, at_least: bool) -> None:
        known = self.state.counts
        counts = known.get(name)
        if counts is None:
            counts = Counts(second)
            self._bytes += bytes_of(name, counts)
        else:
            del known[name]
            if second > counts.seen_s:
                halved = _halvings(name, counts.seen_s, second)
                if halved:
                    self._bytes -= bytes_of(name, counts)
                    counts.fade(halved)
                    self._bytes += bytes_of(name, counts)
                counts.seen_s = second
        counted = counts.cut if at_least else counts.ended
        if place in counted:
            counted[place] += sixteenths
        else:
            counted[place] = sixteenths
            self._bytes += _BIN_BYTES
        # What was seen last stands at the end.
        known[name] = counts

    def _went_on(
        self, session: str, beginning: int, before: Turns | None, place: int, prompt_tokens: int, second: int
    ) -> None:
        """An answer of this bin has ended in a conversation."""
        sessions, beginnings = self.state.sessions, self.state.beginnings
        if session:
            sessions[session] = _after(sessions.pop(session, before), place, prompt_tokens, second)
        elif beginning:
            beginnings[beginning] = _after(beginnings.pop(beginning, before), place, prompt_tokens, second)
        while len(sessions) + len(beginnings) > TURNS_MAX:
            oldest, first = next(iter(sessions.items()), None), next(iter(beginnings.items()), None)
            if oldest is not None and (first is None or oldest[1].seen_s <= first[1].seen_s):
                del sessions[oldest[0]]
            elif first is not None:
                del beginnings[first[0]]

    def _forget(self) -> None:
        """Forget the groups that were not seen for longest; of those of one second, by name."""
        counts = self.state.counts
        while self._bytes > COUNTS_BYTES_MAX:
            oldest, oldest_s = "", -1
            for name, one in counts.items():
                if oldest_s < 0:
                    oldest, oldest_s = name, one.seen_s
                elif one.seen_s != oldest_s:
                    break
                elif name < oldest:
                    oldest = name
            self._bytes -= bytes_of(oldest, counts.pop(oldest))


def beginnings_of(request: Request | Started) -> tuple[int, ...]:
    """What the prompt of a conversation without a session is known by: its digests at `prompts.GRID`, longest last."""
    prefix = request.prefix
    if request.session or not prefix:
        return ()
    if isinstance(prefix, Prefix):
        return at_grid(prefix)
    return tuple([prefix[place - 1] for place in GRID[: GRID_OF[min(len(prefix), DIGESTS_MAX)]]])


def combined(one: Lengths, other: Lengths) -> Lengths:
    """What two replicas have learned, together: the sums, the older ones faded to the time of the newer ones."""
    counts: dict[str, Counts] = {}
    for name in one.counts.keys() | other.counts.keys():
        parts = [part.counts[name] for part in (one, other) if name in part.counts]
        made = counts[name] = Counts(max(part.seen_s for part in parts), {}, {})
        for part in parts:
            made.add(part, _halvings(name, part.seen_s, made.seen_s))
    sessions, beginnings = one.sessions.copy(), one.beginnings.copy()
    for session, turns in other.sessions.items():
        sessions[session] = _joined(sessions.get(session), turns)
    for beginning, turns in other.beginnings.items():
        beginnings[beginning] = _joined(beginnings.get(beginning), turns)
    return Lengths(
        counts=dict(sorted(counts.items(), key=lambda item: (item[1].seen_s, item[0]))),
        sessions=dict(sorted(sessions.items(), key=lambda item: (item[1].seen_s, item[0]))),
        beginnings=dict(sorted(beginnings.items(), key=lambda item: (item[1].seen_s, item[0]))),
    )


def _groups(klass: str, model: str, key: str, size: int, level: int, growth: int) -> list[tuple[str, float]]:
    """The chain of groups of a request, the largest first, each with as how many outputs its larger one counts."""
    base = base_of(klass)
    found = [(base, CLASS_STRENGTH)]
    if klass != base:
        found.append((klass, CLASS_STRENGTH))
    smallest = ""
    if size >= 0 and level < 0:
        smallest = f"p{size} {base} {model}"
        found.append((smallest, PROMPT_STRENGTH))
    if key:
        smallest = f"k {base} {model} {key}"
        found.append((smallest, KEY_STRENGTH))
        if klass != base:
            found.append((f"k {klass} {model} {key}", KEY_STRENGTH))
    if level >= 0:
        found.append((f"t{level} {base} {model}", TURN_STRENGTH))
        found.append((f"t{level}+{growth} {base} {model}", TURN_STRENGTH))
    elif smallest:
        found.append((_RECENT + smallest, RECENT_STRENGTH))
    return found


def _turn(turns: Turns | None, prompt_tokens: int) -> tuple[int, int]:
    """How long the answers of a conversation are, and how much its prompt has grown; -1 outside of one."""
    if turns is None:
        return -1, 0
    level = int(LEVELS_PER_BIN * (turns.total / turns.weight + 0.5))
    return level, bisect_right(GROWTH_EDGES, prompt_tokens - turns.prompt_tokens)


def _size(prompt_tokens: int) -> int:
    """Which prompts are about as long; -1 where that is not known."""
    return int(PROMPTS_PER_OCTAVE * log2(prompt_tokens)) if prompt_tokens > 0 else -1


def bytes_of(name: str, counts: Counts) -> int:
    """About what a group takes in a snapshot."""
    return len(name) + _NAME_BYTES + _BIN_BYTES * (len(counts.ended) + len(counts.cut))


def _halvings(group: str, since_s: int, now_s: int) -> int:
    """How often what was counted of a group is halved meanwhile, at fixed times: it does not matter when it is done."""
    half_life_s = RECENT_S if group.startswith(_RECENT) else HALF_LIFE_S
    return max(0, now_s // half_life_s - since_s // half_life_s)


def _after(before: Turns | None, place: int, prompt_tokens: int, seen_s: int) -> Turns:
    """What is known of a conversation after an answer of this bin; two within a second have no order."""
    if before is None:
        return Turns(seen_s, prompt_tokens, ONE, ONE * place)
    if seen_s == before.seen_s:
        return Turns(seen_s, max(prompt_tokens, before.prompt_tokens), before.weight + ONE, before.total + ONE * place)
    weight = int(before.weight * TURN_LEFT)
    return Turns(seen_s, prompt_tokens, weight + ONE, before.total * weight // before.weight + ONE * place)


def _joined(one: Turns | None, other: Turns) -> Turns:
    if one is None:
        return other
    seen_s, prompt_tokens = max((one.seen_s, one.prompt_tokens), (other.seen_s, other.prompt_tokens))
    return Turns(seen_s, prompt_tokens, one.weight + other.weight, one.total + other.total)
