"""What a model is, in the configuration file: declared of an endpoint, or demanded by a name."""

from typing import Annotated

from msgspec import Meta, structs

from tidegate.config.table import Table
from tidegate.core.fingerprint import TEXT_CHARS_MAX
from tidegate.core.model import Fingerprint

_Word = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]  # repository paths of models have about 100 characters


class FingerprintTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a model; what is left out is unknown, and agrees with everything.

    `GET /v1/models` shows what engines tell of theirs, to be copied. A text that begins with `gguf:`, `hf:`, `dir:`,
    `ollama:` or `blake2b:` is compared with others of that beginning only, and one without with others without.
    """

    weights: Annotated[
        _Word,
        Meta(
            description="Which weights: `gguf:FILE:BYTES:PARAMETERS` as llama.cpp tells, `hf:ORGANISATION/NAME` or "
            "`dir:FOLDER` as vLLM and SGLang do, `ollama:DIGEST`, or a name of your own for vendors who tell nothing."
        ),
    ] = ""
    quantisation: Annotated[
        _Word, Meta(description="How they are quantised, as files are named: `Q4_K_M`, `F16`, `fp8`, `awq`.")
    ] = ""
    tokenizer: Annotated[_Word, Meta(description="Which tokenizer, in words like those for weights.")] = ""
    chat_template: Annotated[
        _Word, Meta(description="Which chat template: the digest that is shown, or a name of your own.")
    ] = ""

    def record(self) -> Fingerprint:
        """As the core knows it."""
        return Fingerprint(**structs.asdict(self))
