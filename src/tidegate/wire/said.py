"""What a client has of a streamed answer, gathered while it passes: as long as that is one text and nothing else."""

from tidegate.wire.chunks import Chunk

# As long as the longest outputs are: a million letters are a quarter of a million tokens.
SAID_CHARS_MAX = 1_000_000


class Said:
    """One choice of text. `fault` says why it is no more than that; from then on nothing is gathered.

    head    the first chunk that brought some, as it came: what names the answer stands in it
    tokens  how many chunks brought some. Engines send one for a token, or for several, never less
    """

    __slots__ = ("_chars", "_pieces", "fault", "head", "tokens")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self.fault = ""
        self.head = b""
        self.tokens = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def take(self, data: bytes, chunk: Chunk) -> None:
        """Gather what passes to the client, `chunk` as it stands in `data`."""
        if self.fault:
            return
        for choice in chunk.choices or ():
            delta = choice.delta
            told = choice.text if delta is None else delta.content
            if choice.message is not None:
                self._stop("it is not text alone")
            elif delta is not None and (delta.tool_calls or delta.function_call):
                self._stop("a call of a tool had begun")
            elif delta is not None and (delta.reasoning_content or delta.reasoning):
                self._stop("it has reasoning in it")
            elif delta is not None and (delta.refusal or delta.audio or delta.images):
                self._stop("it is not text alone")
            elif isinstance(told, str):
                if told and not self.head:
                    self.head = data
                self._add(told)
            elif told:
                self._stop("it is not text alone")

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._chars += len(text)
            self.tokens += 1
            if self._chars > SAID_CHARS_MAX:
                self._stop("it is too long")

    def _stop(self, fault: str) -> None:
        self.fault = fault
        self._pieces.clear()
