"""A request as a client made it, whatever the dialect: its fields as they came, and what is known of them."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from tidegate.core.model import Capability
from tidegate.core.price import TEMPLATE_TOKENS_MAX

# Of images and sounds nobody here knows the tokens: as many as there is room for.
_MEDIA_TOKENS_MOST: Final = 2**31 - 1
# Of many calls at once: nothing is put into it.
_NO_FIELDS: Final[dict[str, Raw]] = {}
_NOTHING = memoryview(b"")


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came in a dialect other than OpenAI's, for an engine that speaks the same: it loses nothing.

    `known` is what of it has a meaning here, None where all of it has. `headers` are those that say how the fields are
    to be read.
    """

    dialect: str
    fields: dict[str, Raw]
    known: dict[str, Raw] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for, its fields kept as they came.

    `prompt` is the JSON of the messages or the prompt, `tools` that of the tools, which engines put before it.
    `text_bytes` is about how much text the two hold, escapes and media left out; `messages` and `media` count the
    parts of it that tokens are not made of. `prompt_tokens` is exact where the client sent tokens. `knobs` is our
    own object in the body, and no longer in `fields`. `completions` are the choices that an answer has, and `generated`
    those that are made for them, of which the best are told. There are several `prompts`, each with a window of its
    own, where several texts are to be embedded or completed; several choices after one prompt make no more of them.
    """

    kind: Capability
    model: str
    stream: bool
    include_usage: bool
    output_tokens_max: int | None
    completions: int
    generated: int = 1
    prompts: int = 1
    needs: tuple[Capability, ...]
    prompt: memoryview
    tools: memoryview
    text_bytes: int
    messages: int
    media: int
    prompt_tokens: int | None
    knobs: Raw | None
    fields: dict[str, Raw]
    native: Native | None = None

    @property
    def prompt_bytes(self) -> int:
        """Of the prompt, and of the tools before it."""
        return len(self.prompt) + len(self.tools)

    @property
    def prompt_tokens_most(self) -> int:
        """What no tokenizer makes more of than there are bytes. What stands beside the prompt is read as well, as
        schemas are; what is longer than a window is no prompt."""
        if self.media:
            return _MEDIA_TOKENS_MOST
        return max(self.prompt_bytes, _bytes_of(self.fields)) + TEMPLATE_TOKENS_MAX * (self.messages + 1)

    @property
    def native_tokens_most(self) -> int:
        """The same of what an engine of the client's own dialect is sent; 0 where that is OpenAI's."""
        if self.native is None:
            return 0
        return _bytes_of(self.native.fields) + TEMPLATE_TOKENS_MAX * (self.messages + 1)

    @property
    def native_fields(self) -> Mapping[str, Raw]:
        """What an engine is sent that speaks the client's own dialect; nothing where that is OpenAI's."""
        return _NO_FIELDS if self.native is None else self.native.fields

    def as_known(self) -> "Call":
        """The same without what has no meaning here: of that, nobody knows what it costs, either."""
        native = self.native
        if native is None or native.known is None:
            return self
        return msgspec.structs.replace(self, native=msgspec.structs.replace(native, fields=native.known, known=None))

    def without_text(self) -> "Call":
        """What is known of it, when nothing of it will be sent any more: of its body nothing is kept."""
        return msgspec.structs.replace(
            self, prompt=_NOTHING, tools=_NOTHING, knobs=None, fields=_NO_FIELDS, native=None
        )


def _bytes_of(fields: Mapping[str, Raw]) -> int:
    return sum([len(memoryview(value)) for value in fields.values()])
