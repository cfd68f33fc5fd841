"""A stream that flows: chunks on their way from one connection to another that need no parsing on it."""

from typing import Final

from tidegate.http.exchange import Exchange
from tidegate.wire.repeat import TEXT_BYTES_MAX, Counted, Repeat, is_text

# A chunk of a stream is one token, or a few: its size as servers write it. What is larger, or written otherwise (with
# zeros, with extensions), is the parser's.
CHUNK_BYTES_MAX: Final = 1535
# By the size of all of a chunk, what its own size is written like, as we would; empty where none is so large.
_LINES: Final = [b""] * (CHUNK_BYTES_MAX + 8)
for _size in range(1, CHUNK_BYTES_MAX + 1):
    _line = b"%x\r\n" % _size
    _LINES[len(_line) + _size + 2] = _line


class Flow:
    """Hands chunks that repeat the one before on to the client as they came: framed as they are to go out.

    `before` and `behind` are what stands around the text of each. The `sink` is the transport by which they go, None
    where nothing is to be sent beside it.
    """

    __slots__ = ("_behind", "_exchange", "_repeat", "before", "behind", "sink")

    def __init__(self, repeat: Repeat, exchange: Exchange) -> None:
        self._repeat = repeat
        self._exchange = exchange
        self._behind = repeat.behind + b"\r\n"
        self.before, self.behind = repeat.before, repeat.behind
        self.sink = exchange.sink

    def passes(self, data: bytes) -> bool:
        """Whether that was all of one such chunk, and is on its way. What is not has to be read."""
        size = len(data)
        line = _LINES[size] if size < len(_LINES) else b""
        if not line:
            return False
        # As `Repeat.text_bytes` has it, which would have to be called, for each chunk, with a copy of the frame.
        repeat, behind = self._repeat, self._behind
        at = len(line)
        begin = at + len(repeat.before)
        end = size - len(behind)
        if not begin < end <= begin + TEXT_BYTES_MAX:
            return False
        if data[:at] != line or data[at:begin] != repeat.before or data[end:] != behind:
            return False
        if not is_text(data[begin:end]) or not self._exchange.pass_on(data):
            return False
        repeat.count(end - begin)
        return True

    def send(self, chunks: bytes) -> None:
        """What has passed elsewhere goes the usual way after all."""
        self._exchange.pass_on(chunks)

    def count_in(self, other: Counted) -> None:
        """What passes there counts as what passes here."""
        self._repeat.count_in(other)
