"""What is counted: output lengths by group and by conversation, promises by kind. Sums, which replicas can add up."""

import msgspec


class Counts(msgspec.Struct, array_like=True, gc=False):
    """How many outputs of a group were how long, in sixteenths of one, by bin; halved with each half-life since.

    `seen_s` is when the last one was counted, in whole seconds. `cut` passed the bin they stand at, and how much longer
    they would have been is not known: the client left, or its bound ended them.
    """

    seen_s: int
    ended: dict[int, int] = {}
    cut: dict[int, int] = {}

    def fade(self, halvings: int) -> None:
        """Halve what was counted so often; what is less than a sixteenth then is nothing."""
        self.ended = {place: left for place, count in self.ended.items() if (left := count >> halvings)}
        self.cut = {place: left for place, count in self.cut.items() if (left := count >> halvings)}

    def add(self, other: "Counts", halvings: int) -> None:
        """Count what another one has counted, halved so often."""
        for mine, theirs in ((self.ended, other.ended), (self.cut, other.cut)):
            for place, count in theirs.items():
                if left := count >> halvings:
                    mine[place] = mine.get(place, 0) + left


class Turns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a conversation: when its last answer ended, in whole seconds, and how long its prompt was.

    `total` are the bins of its answers and `weight` their number: sums in sixteenths that fade from turn to turn.
    """

    seen_s: int
    prompt_tokens: int
    weight: int
    total: int


class Sampling(msgspec.Struct, gc=False):
    """The `count` of a kind in this `second`, and which `share` of them teaches."""

    second: int = 0
    count: int = 0
    share: float = 1.0


class Lengths(msgspec.Struct):
    """All that is learned of lengths; what was seen last is at the end of each.

    `counts` are by group; conversations by session, or by a digest of what their last prompt began with. Which answers
    are counted is by `sampling`, of those that are alike but for their conversations.
    """

    counts: dict[str, Counts] = {}
    sessions: dict[str, Turns] = {}
    beginnings: dict[int, Turns] = {}
    sampling: dict[int, Sampling] = {}


class Tracked(msgspec.Struct, array_like=True):
    """The promises of one kind that were judged: how many, how many of them were missed, and by how much that was too
    many or too few, in steps.
    """

    judged: float = 0.0
    missed: float = 0.0
    excess: float = 0.0
