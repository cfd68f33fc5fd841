"""Frames of a stream that are as the one before but for their text, as nearly all of an answer are: known by what
stands around it, and not decoded."""

from typing import Final, Protocol

# What stands in a frame as it is meant: letters of which each is a byte, none with a meaning of its own in JSON. By how
# often English has them: each letter of a text is looked for from the first of these on.
_FIRST = b" etaoinshrdlu"
_PLAIN: Final = _FIRST + bytes(sorted(set(range(0x20, 0x7F)) - set(_FIRST + b'"\\')))
# A text is a token, or a few. Of a longer one, and of a longer frame, to decode it tells as soon.
TEXT_BYTES_MAX: Final = 512
_FRAME_BYTES_MAX: Final = 4096
# As a number: whether bytes are in bytes is first asked of a number, whose exception is made and thrown away.
_BACKSLASH: Final = ord("\\")
_TEXTS: Final = (b"content", b"reasoning_content", b"reasoning", b"text")
_KEYS: Final = [b'"%b":%b' % (key, space) for key in _TEXTS for space in (b"", b" ")]


class Counted(Protocol):
    """What somebody else has counted so far."""

    @property
    def chunks(self) -> int: ...  # noqa: D102 - as below
    @property
    def letters(self) -> int: ...  # noqa: D102


class Tally:
    """What of an answer has come: how many chunks brought content, and the letters in it."""

    __slots__ = ("_chunks", "_letters", "_other")

    def __init__(self) -> None:
        self._chunks = self._letters = 0
        self._other: Counted | None = None

    @property
    def chunks(self) -> int:
        """Those that brought content."""
        return self._chunks if self._other is None else self._chunks + self._other.chunks

    @property
    def letters(self) -> int:
        """Those in them."""
        return self._letters if self._other is None else self._letters + self._other.letters

    def count(self, letters: int) -> None:
        """One more has come, with so many letters."""
        self._chunks += 1
        self._letters += letters

    def count_in(self, other: Counted) -> None:
        """What that counts, it counts for this."""
        # One whose client pauses it often has had many.
        self._chunks, self._letters, self._other = self.chunks, self.letters, other


class Repeat:
    """What stands `before` and `behind` the text of a frame.

    With a text of letters that end neither it nor a line, what has the same around it is one frame as that was, and
    tells as much: `count` is told of it. `again`: whether it ever was.
    """

    __slots__ = ("_tally", "again", "before", "behind")

    def __init__(self, before: bytes, behind: bytes, tally: Tally) -> None:
        self.before = before
        self.behind = behind
        self._tally = tally
        self.again = False

    def count(self, text_bytes: int) -> None:
        """One more has come, with a text of so many letters."""
        self._tally.count(text_bytes)
        self.again = True

    def count_in(self, other: Counted) -> None:
        """The same, told by who counts them."""
        self._tally.count_in(other)

    def text_bytes(self, frame: bytes) -> int:
        """How long the text of a frame is that is this one again; 0 for all else."""
        before, behind = self.before, self.behind
        begin = len(before)
        end = len(frame) - len(behind)
        if not begin < end <= begin + TEXT_BYTES_MAX or frame[:begin] != before or frame[end:] != behind:
            return 0
        return end - begin if is_text(frame[begin:end]) else 0


def is_text(letters: bytes) -> bool:
    """Whether each of them stands for itself."""
    return not letters.strip(_PLAIN)


def repeat_of(frame: bytes, text: str, tally: Tally) -> Repeat | None:
    """What those have in common that come after this frame, where it can be told for sure which part is its text.

    Where nothing is escaped, quotes in what a frame carries stand around keys and texts alone. Then a key stands only
    where it is one, and a text that stands nowhere else in the frame is that of its own key, however often and in
    whatever spelling that comes.
    """
    plain = text.encode("utf-8", "surrogatepass")
    quoted = b'"%b"' % plain
    if len(frame) > _FRAME_BYTES_MAX or _BACKSLASH in frame or not is_text(plain) or frame.count(quoted) != 1:
        return None
    for key in _KEYS:
        start = frame.find(key + quoted)
        if start >= 0:
            start += len(key) + 1
            return Repeat(frame[:start], frame[start + len(plain) :], tally)
    return None
