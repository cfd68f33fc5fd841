"""How long an answer may become that is paid for: one that surely goes on beyond that is cut off."""

from math import inf

from tidegate.core.model import Endpoint
from tidegate.wire.openai import EMBEDDING, Call
from tidegate.wire.stream import Reader

# So often it is looked at what has more than was asked for.
METER_S = 1.0
# A chunk may be less than a token, down to a letter, of which a token has nearly five, and engines count otherwise than
# their clients: only what is beyond six times a bound is surely beyond it, and of a small one by some tokens more.
_SURELY = 6
_TOKENS_MORE = 64
# By its letters a line of dashes, or of blanks, has several times the tokens that it has.
_LETTERS_SURELY = 4


class Meter:
    """The most tokens that one attempt may bring, and the most if it has reasoned, which few engines count as a part
    of what they are asked for; None where nobody knows."""

    __slots__ = ("_most", "_most_reasoned")

    def __init__(self, most: int | None, most_reasoned: int | None) -> None:
        self._most, self._most_reasoned = most, most_reasoned

    def overran(self, reader: Reader) -> bool:
        """Whether it has surely brought more. What has told its end is left to end."""
        most = self._most_of(reader)
        return most is not None and not reader.finished and _tokens(reader) > _SURELY * most + _TOKENS_MORE

    def again_s(self, reader: Reader, since_s: float) -> float:
        """In how many seconds to look again, where it has come for so many: as soon as it may be twice as long."""
        most = self._most_of(reader)
        if most is None or reader.finished:
            return inf
        return METER_S if _tokens(reader) > most else max(METER_S, since_s)

    def _most_of(self, reader: Reader) -> int | None:
        return self._most_reasoned if reader.reasoned else self._most


def meter_of(endpoint: Endpoint, call: Call, window: int, *, assumed: bool) -> Meter | None:
    """For `call` at `endpoint`, whose window is believed to be `window`; None where nothing bounds its answer. An
    `assumed` window bounds it once the engine has told another one."""
    if call.kind is EMBEDDING or _echoes(call):
        return None
    of_endpoint, of_client = endpoint.output_tokens_max, call.output_tokens_max
    if of_endpoint is None and not (assumed and window == endpoint.context_tokens):
        of_endpoint = max(window, endpoint.context_tokens)
    bounds = [bound for bound in (of_endpoint, of_client) if bound is not None]
    if not bounds:
        return None
    answers = max(call.completions, call.generated)
    return Meter(answers * min(bounds), None if of_endpoint is None else answers * of_endpoint)


def _echoes(call: Call) -> bool:
    """Whether the prompt comes with the answer."""
    echo = call.fields.get("echo")
    return echo is not None and bytes(echo) not in (b"false", b"null")


def _tokens(reader: Reader) -> int:
    """How many have come at least."""
    return max(reader.output_chunks, reader.tokens_seen // _LETTERS_SURELY)
