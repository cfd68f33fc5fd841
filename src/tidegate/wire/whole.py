"""An answer that an endpoint gives whole, for a client that does not stream."""

from tidegate.core.model import Capability
from tidegate.wire.chunks import ANSWER_BYTES_MAX, EMBEDDING_BYTES_MAX, EMBEDDINGS_BYTES_MAX, Chunk, Usage
from tidegate.wire.openai import EMBEDDING
from tidegate.wire.reading import brings_content, broken_off, read_chunk, usage_of
from tidegate.wire.sse import BYTE_ORDER_MARK, BadStream, Cause


def gather(body: bytearray, data: bytes, bytes_max: int = ANSWER_BYTES_MAX) -> BadStream | None:
    """Take the next bytes of an answer given whole. The failure where it is beyond that bound, and no more is kept."""
    body += data
    if len(body) <= bytes_max:
        return None
    body.clear()
    return BadStream(Cause.TOO_LARGE, "sent an answer beyond any bound")


class WholeReader:
    """See `Reader`. Nothing passes while the answer comes; `result` is all of it, untouched but for a byte order mark
    before it, which is dropped, once `done`.

    When its first word was made cannot be seen: `content` comes with the end.
    """

    __slots__ = (
        "_body",
        "_bytes_max",
        "_kind",
        "_result",
        "content",
        "done",
        "failure",
        "finished",
        "output_chunks",
        "usage",
    )

    done_frame = b""
    reasoned = False  # nobody looks into it

    def __init__(self, kind: Capability = Capability.CHAT, *, prompts: int = 1) -> None:
        """`prompts`: how many are to be answered; each has an embedding, where it is to be embedded."""
        self._kind = kind
        self._bytes_max = ANSWER_BYTES_MAX
        if kind is EMBEDDING:
            self._bytes_max = max(ANSWER_BYTES_MAX, min(prompts * EMBEDDING_BYTES_MAX, EMBEDDINGS_BYTES_MAX))
        self._body = bytearray()
        self._result = b""
        self.content = False
        self.finished = False
        self.done = False
        self.usage: Usage | None = None
        self.output_chunks = 0
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Reader`."""
        if self.failure is None and not self.done:
            self.failure = gather(self._body, data, self._bytes_max)
        return b""

    def end(self) -> bytes:
        """See `Reader`."""
        if self.failure is None and not self.done:
            try:
                # To read it takes bytes: they are what is kept, and not a second copy.
                self._result, self._body = bytes(self._body).removeprefix(BYTE_ORDER_MARK), bytearray()
                self._learn(read_chunk(self._result))
            except BadStream as failure:
                self.failure = failure.kept()
        return b""

    @property
    def tokens_seen(self) -> int:
        """See `Reader`."""
        return self.output_chunks

    def fail(self, failure: BadStream) -> None:
        """Give up an answer for a reason that only the caller can see."""
        self.failure = self.failure or failure

    def result(self) -> bytes:
        """The answer."""
        assert self.done, "the answer is not complete"
        return self._result

    def _learn(self, answer: Chunk) -> None:
        embedded = self._kind is EMBEDDING
        if not (answer.data if embedded else answer.choices):
            missing = "an embedding" if embedded else "a choice"
            self.failure = BadStream(Cause.MALFORMED, f"answered without {missing}")
            return
        self.usage = usage_of(answer.told)
        for choice in answer.choices or ():
            if (broken := broken_off(choice)) is not None:
                self.failure = broken
                return
        self.content = embedded or brings_content(answer)
        self.output_chunks = int(self.content)
        self.finished = self.done = True
