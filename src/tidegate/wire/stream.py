"""A streamed answer on its way to a client that streams: what may pass now, and what it tells."""

from typing import Final, Protocol

from tidegate.wire.chunks import Choice, Chunk, Usage
from tidegate.wire.reading import brings_content, brings_reasoning, broken_off, letters, only_text, read_chunk, usage_of
from tidegate.wire.repeat import Repeat, Tally, repeat_of
from tidegate.wire.said import Said
from tidegate.wire.sse import DONE, DONE_FRAME, FRAME_BYTES_MAX, BadStream, Cause, Frames, data_of

# Before content come a role, a filter result and keep-alives: at one a second, ten thousand are three hours. They are
# counted, for a chunk that tells all tokens of the prompt is long; all of them together are as long as one may be.
HELD_FRAMES_MAX: Final = 10_000
# Of English prose; other languages have fewer to a token, and so are never taken for slower than they are by much.
LETTERS_PER_TOKEN = 4


class Reader(Protocol):
    """Reads the answer of one attempt as its bytes come.

    content        something that a user waits for has come: the commit point
    finished       the answer is complete in substance
    done           nothing more will pass: `[DONE]` was seen, or stands in `done_frame` all the same
    done_frame     what to write last, once the books are closed; empty for answers given whole
    usage          the engine's own count, None where it gave none
    output_chunks  how many chunks brought content
    tokens_seen    about how many tokens these were
    reasoned       whether any of them were reasoning
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
    def reasoned(self) -> bool: ...  # noqa: D102
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
    clients that asked for it. A byte order mark before the first is dropped, and so is data that is empty or `null`.
    `[DONE]` is kept in `done_frame`; nothing behind it passes. A frame that cannot be read, or tells of an error, or
    that a choice was broken off, is `failure` and does not pass; behind the end of an answer it is the end of its
    stream.

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
        "_repeat",
        "_running",
        "_said",
        "_tally",
        "content",
        "done",
        "done_frame",
        "failure",
        "finished",
        "reasoned",
        "usage",
    )

    def __init__(self, *, include_usage: bool, completions: int = 1, said: Said | None = None) -> None:
        self._include_usage = include_usage
        self._said = said
        self._completions = completions
        self._frames = Frames()
        self._held: list[bytes] | None = []  # None once what comes passes: nothing is held back any more
        self._held_bytes = 0
        self._running: set[int] = set()
        self._ended: set[int] | None = None  # as long as no choice has
        self._tally = Tally()
        # Of the last frame that told it. Never where `_said` is: that takes chunks.
        self._repeat: Repeat | None = None
        self.content = False
        self.finished = False
        self.done = False
        self.done_frame = b""
        self.reasoned = False
        self.usage: Usage | None = None
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Reader`."""
        if self._held is None and not self._over():
            # A stream that flows, without the lists of the general case; mostly it is one more piece of one text.
            repeat = self._repeat
            if repeat is not None and self._frames.between and (text_bytes := repeat.text_bytes(data)):
                repeat.count(text_bytes)
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
            repeat = self._repeat
            held = self._held
            if repeat is not None and held is None and (text_bytes := repeat.text_bytes(frame)):
                repeat.count(text_bytes)
                passing.append(frame)
                continue
            if self._take(frame):
                if held is None:
                    passing.append(frame)
                else:
                    self._hold(frame, held)
            if self.failure is not None:
                return passing
            if held is not None and (self.content or self.finished):
                passing += held
                self._held = None
            if self.done:
                return passing
        if self._frames.oversized:
            self._broke(BadStream(Cause.TOO_LARGE, "sent a chunk beyond any bound"))
        return passing

    def end(self) -> bytes:
        """See `Reader`."""
        return b"".join(self.end_frames())

    def end_frames(self) -> list[bytes]:
        """The same, frame by frame."""
        if self._over():
            return []
        passing: list[bytes] = []
        if self._frames.pending.strip():
            # Some servers leave out the last blank line, also that behind the usage. What is cut inside a frame does
            # not read.
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
    def output_chunks(self) -> int:
        """See `Reader`."""
        return self._tally.chunks

    @property
    def tokens_seen(self) -> int:
        """See `Reader`. One a chunk, or by its letters where a chunk brings several."""
        return max(self._tally.chunks, self._tally.letters // LETTERS_PER_TOKEN)

    @property
    def repeat(self) -> Repeat | None:
        """What the next frame may pass by, unseen but for its count; None where it has to be read, as until one
        has come again."""
        repeat = self._repeat
        flows = repeat is not None and repeat.again and self._held is None and self._frames.between and not self._over()
        return repeat if flows else None

    def _over(self) -> bool:
        """Whether nothing more is taken in."""
        return self.done or self.failure is not None

    def _take(self, frame: bytes) -> bool:
        """Learn what a frame tells; whether it is for the client."""
        data = data_of(frame)
        if not data:
            # A comment passes; of data that is empty SDKs would make a chunk that is none.
            return data is None
        if data == DONE:
            self._end_marked(frame)
            return False
        try:
            chunk = read_chunk(data)
        except BadStream as failure:
            self._broke(failure)
            return False
        choices = chunk.choices
        for choice in choices or ():
            if choice.finish_reason or choice.failed or (choice.index or 0) not in self._running:
                broken = broken_off(choice)
                if broken is not None:
                    self._give_up(chunk, broken)
                    return False
                self._count_ending(choice)
        if brings_content(chunk):
            self.content = True
            self._tally.count(letters(chunk))
            self.reasoned = self.reasoned or brings_reasoning(chunk)
            if self._said is not None:
                self._said.take(data, chunk)
            elif choices and (choices[0].index or 0) in self._running and (text := only_text(chunk)):
                self._repeat = repeat_of(frame, text, self._tally) or self._repeat
        if chunk.told is not None:
            self.usage = usage_of(chunk.told)
            return bool(choices) or self._include_usage
        return True

    def _count_ending(self, choice: Choice) -> None:
        """Note that a choice began or ended. One without an index is the first, also where other chunks name that."""
        self._repeat = None
        index = choice.index or 0
        ended = self._ended
        if choice.finish_reason:
            if ended is None:
                ended = self._ended = set()
            ended.add(index)
            self._running.discard(index)
        elif ended is None or index not in ended:
            self._running.add(index)
        if ended is not None:
            self.finished = not self._running and len(ended) >= self._completions

    def _give_up(self, chunk: Chunk, broken: BadStream) -> None:
        """A choice was broken off. What its last chunk brings does not pass, for it would look like an end, but was
        made, and may be billed."""
        if brings_content(chunk):
            self._tally.count(letters(chunk))
        if chunk.told is not None:
            self.usage = usage_of(chunk.told)
        self._broke(broken)

    def _end_marked(self, frame: bytes) -> None:
        """`[DONE]`: the engine's word that this was all. It needs something that was: a word alone is a cut."""
        if self.content or self._ended is not None:
            self.finished = True
            self._close(frame)
        else:
            self.failure = BadStream(Cause.TRUNCATED, "ended its answer before it began")

    def _broke(self, failure: BadStream) -> None:
        """Nothing more can be read: behind the end of an answer only its usage is missing."""
        if self.finished:
            self._close(DONE_FRAME)
        else:
            self.failure = failure.kept()

    def _close(self, done_frame: bytes) -> None:
        self.done = True
        self.done_frame = done_frame

    def _hold(self, frame: bytes, held: list[bytes]) -> None:
        held.append(frame)
        self._held_bytes += len(frame)
        too_much = len(held) > HELD_FRAMES_MAX or self._held_bytes > FRAME_BYTES_MAX
        if too_much and not (self.content or self.finished):
            self.failure = BadStream(Cause.TOO_LARGE, "sent more than any bound before its first content")
