"""A streamed answer on its way to a client that streams: what may pass now, and what it tells."""

from typing import Final, Protocol

from tidegate.wire.chunks import Choice, Timings, Usage
from tidegate.wire.reading import brings_content, letters, only_text, read_chunk, usage_of
from tidegate.wire.said import Said
from tidegate.wire.sse import DONE, DONE_FRAME, BadStream, Cause, Frames, data_of

# Before content come a role, a filter result and keep-alives: at one a second, ten thousand are three hours.
HELD_BYTES_MAX = 256 * 1024
# Of English prose; other languages have fewer to a token, and so are never taken for slower than they are by much.
LETTERS_PER_TOKEN = 4
# What stands in a frame as it is meant: letters of which each is a byte, none with a meaning of its own in JSON. By how
# often English has them: each letter of a text is looked for from the first of these on.
_FIRST = b" etaoinshrdlu"
_PLAIN: Final = _FIRST + bytes(sorted(set(range(0x20, 0x7F)) - set(_FIRST + b'"\\')))
# A text is a token, or a few. Of a longer one, and of a longer frame, to decode it tells as soon.
_TEXT_BYTES_MAX: Final = 512
_FRAME_BYTES_MAX: Final = 4096
# As a number: whether bytes are in bytes is first asked of a number, whose exception is made and thrown away.
_BACKSLASH: Final = ord("\\")
_TEXTS: Final = (b"content", b"reasoning_content", b"reasoning", b"text")
_KEYS: Final = [b'"%b":%b' % (key, space) for key in _TEXTS for space in (b"", b" ")]


class Reader(Protocol):
    """Reads the answer of one attempt as its bytes come.

    content        something that a user waits for has come: the commit point
    finished       the answer is complete in substance
    done           nothing more will pass: `[DONE]` was seen, or stands in `done_frame` all the same
    done_frame     what to write last, once the books are closed; empty for answers given whole
    usage          the engine's own count, None where it gave none
    output_chunks  how many chunks brought content
    tokens_seen    about how many tokens these were
    timings        llama.cpp's measurements, None elsewhere
    failure        why there is no more to come; what was fed since is dropped
    """

    @property
    def content(self) -> bool: ...  # noqa: D102 - told above, as are those below
    @property
    def finished(self) -> bool: ...  # noqa: D102
    @property
    def done(self) -> bool: ...  # noqa: D102
    @property
    def done_frame(self) -> bytes: ...  # noqa: D102
    @property
    def usage(self) -> Usage | None: ...  # noqa: D102
    @property
    def output_chunks(self) -> int: ...  # noqa: D102
    @property
    def tokens_seen(self) -> int: ...  # noqa: D102
    @property
    def timings(self) -> Timings | None: ...  # noqa: D102
    @property
    def failure(self) -> BadStream | None: ...  # noqa: D102

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; what of them may be relayed now."""
        ...

    def end(self) -> bytes:
        """There is no more: what may still be relayed. Sets `done`, or `failure` where the answer is cut short."""
        ...


class StreamReader:
    """See `Reader`. Frames pass as they came, in order, with these exceptions.

    Until content comes they are held back, so that another endpoint can still take over unseen. A completion that
    ends without content is let go when it ends. The final chunk of usage, which we ask of every endpoint, goes to
    clients that asked for it. `[DONE]` is kept in `done_frame`; nothing behind it passes. A frame that cannot be
    read, or tells of an error, is `failure` and does not pass.

    `completions` is how many choices were asked for: without a `[DONE]`, the end of fewer is no end. What passes is
    gathered in `said`, where somebody wants it.
    """

    __slots__ = (
        "_completions",
        "_ended",
        "_frames",
        "_held",
        "_held_bytes",
        "_include_usage",
        "_letters",
        "_open",
        "_running",
        "_said",
        "_shape",
        "content",
        "done",
        "done_frame",
        "failure",
        "finished",
        "output_chunks",
        "timings",
        "usage",
    )

    def __init__(self, *, include_usage: bool, completions: int = 1, said: Said | None = None) -> None:
        self._include_usage = include_usage
        self._said = said
        self._completions = completions
        self._frames = Frames()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._open = False  # what comes passes: nothing is held back any more
        self._running: set[int | None] = set()
        self._ended: set[int | None] = set()
        # What stands before and behind the text of the last frame that told it, as in nearly all that follow. Never
        # where `_said` is: that takes chunks.
        self._shape: tuple[bytes, bytes] | None = None
        self.content = False
        self.finished = False
        self.done = False
        self.done_frame = b""
        self.usage: Usage | None = None
        self.output_chunks = 0
        self._letters = 0
        self.timings: Timings | None = None
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Reader`."""
        if self._open and not self._over():
            # A stream that flows, without the lists of the general case; mostly it is one more piece of one text.
            if self._repeats(data):
                return data
            if self._frames.is_one(data):
                return data if self._take(data) else b""
        frames = self.frames(data)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def frames(self, data: bytes) -> list[bytes]:
        """The same, frame by frame."""
        if self._over():
            return []
        passing: list[bytes] = []
        for frame in self._frames.feed(data):
            if self._take(frame):
                if self._open:
                    passing.append(frame)
                else:
                    self._hold(frame)
            if self.failure is not None:
                return passing
            if not self._open and (self.content or self.finished):
                self._open = True
                passing += self._held
                self._held = []
            if self.done:
                return passing
        if self._frames.oversized:
            self.failure = BadStream(Cause.TOO_LARGE, "sent a chunk beyond any bound")
        return passing

    def end(self) -> bytes:
        """See `Reader`."""
        return b"".join(self.end_frames())

    def end_frames(self) -> list[bytes]:
        """The same, frame by frame."""
        if self._over():
            return []
        passing: list[bytes] = []
        if not self.finished and self._frames.pending.strip():
            # Some servers leave out the last blank line. What is cut inside a frame does not read.
            passing = self.frames(b"\n\n")
            failure = self.failure
            if failure is not None and failure.cause is Cause.ERROR_EVENT:
                return passing
        if not self.finished:
            self.failure = BadStream(Cause.TRUNCATED, "ended its answer before it was complete")
        elif not self.done:
            self._close(DONE_FRAME)
        return passing

    def fail(self, failure: BadStream) -> None:
        """Stop here, for a reason that only the caller can see."""
        self.failure = self.failure or failure

    @property
    def tokens_seen(self) -> int:
        """See `Reader`. One a chunk, or by its letters where a chunk brings several."""
        return max(self.output_chunks, self._letters // LETTERS_PER_TOKEN)

    def _over(self) -> bool:
        """Whether nothing more is taken in."""
        return self.done or self.failure is not None

    def _repeats(self, data: bytes) -> bool:
        """Count what came, and be done with it, where it is that of `_shape` but for its text. False for all else.

        With a text of letters that end neither it nor a line, it is one frame as that was, and tells as much.
        """
        shape = self._shape
        if shape is None:
            return False
        before, behind = shape
        if not (data.startswith(before) and data.endswith(behind)):
            return False
        count = len(data) - len(before) - len(behind)
        if not 0 < count <= _TEXT_BYTES_MAX or not self._frames.between:
            return False
        if data[len(before) : len(before) + count].strip(_PLAIN):
            return False
        self.output_chunks += 1
        self._letters += count
        return True

    def _take(self, frame: bytes) -> bool:
        """Learn what a frame tells; whether it is for the client."""
        data = data_of(frame)
        if not data:
            return True
        if data == DONE:
            self._end_marked(frame)
            return False
        try:
            chunk = read_chunk(data)
        except BadStream as failure:
            # Its traceback would tie the reader to itself until the next garbage collection.
            self.failure = failure.with_traceback(None)
            return False
        choices = chunk.choices
        if brings_content(chunk):
            self.content = True
            self.output_chunks += 1
            self._letters += letters(chunk)
            if self._said is not None:
                self._said.take(data, chunk)
            elif choices and choices[0].index in self._running and (text := only_text(chunk)):
                self._shape = _shape(frame, text) or self._shape
        if chunk.timings is not None:
            self.timings = chunk.timings
        for choice in choices or ():
            if choice.finish_reason or choice.index not in self._running:
                self._count_ending(choice)
        if chunk.told is not None:
            self.usage = usage_of(chunk)
            return bool(choices) or self._include_usage
        return True

    def _count_ending(self, choice: Choice) -> None:
        """Note that a choice began or ended."""
        self._shape = None
        if choice.finish_reason:
            self._ended.add(choice.index)
            self._running.discard(choice.index)
        elif choice.index not in self._ended:
            self._running.add(choice.index)
        if self._ended:
            self.finished = not self._running and len(self._ended) >= self._completions

    def _end_marked(self, frame: bytes) -> None:
        """`[DONE]`: the engine's word that this was all. It needs something that was: a word alone is a cut."""
        if self.content or self._ended:
            self.finished = True
            self._close(frame)
        else:
            self.failure = BadStream(Cause.TRUNCATED, "ended its answer before it began")

    def _close(self, done_frame: bytes) -> None:
        self.done = True
        self.done_frame = done_frame

    def _hold(self, frame: bytes) -> None:
        self._held.append(frame)
        self._held_bytes += len(frame)
        if self._held_bytes > HELD_BYTES_MAX and not (self.content or self.finished):
            self.failure = BadStream(Cause.TOO_LARGE, "sent more than any bound before its first content")


def _shape(frame: bytes, text: str) -> tuple[bytes, bytes] | None:
    """What stands before and behind the text of a frame, where that can be told for sure.

    Where nothing is escaped, quotes in what a frame carries stand around keys and texts alone. Then a key stands only
    where it is one, and a text that stands nowhere else in the frame is that of its own key, however often and in
    whatever spelling that comes.
    """
    plain = text.encode("utf-8", "surrogatepass")
    quoted = b'"%b"' % plain
    if len(frame) > _FRAME_BYTES_MAX or _BACKSLASH in frame or plain.strip(_PLAIN) or frame.count(quoted) != 1:
        return None
    for key in _KEYS:
        start = frame.find(key + quoted)
        if start >= 0:
            start += len(key) + 1
            return frame[:start], frame[start + len(plain) :]
    return None
