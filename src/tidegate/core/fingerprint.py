"""What must agree for two endpoints to be the same model, as far as it is known; and what is made of two of them."""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

# Paths of repositories and names of files have about 100 characters; what is longer is told by its digest.
TEXT_CHARS_MAX = 256
_DIGEST_BYTES = 16
# Whose word a text is. What two of them say of one model does not compare: it neither agrees nor contradicts.
# `gguf`: a file's name, bytes and parameters. `hf`: a repository at Hugging Face. `dir`: the last name of a folder.
# `ollama`: the digest of a manifest. `blake2b`: a digest of ours. Anything else before a colon is part of a name.
NAMESPACES = frozenset({"gguf", "hf", "dir", "ollama", "blake2b"})


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the model behind an endpoint; empty text and None are unknown.

    The first four are of the model itself. The window and the build of the engine are shown, and are no reason to
    call a model another. `chat_template` is a digest, being long. `parameters` is their number as an engine rounds it,
    where it tells no more of the weights' size.
    """

    weights: str = ""
    quantisation: str = ""
    tokenizer: str = ""
    chat_template: str = ""
    context_tokens: int | None = None
    engine: str = ""
    parameters: int | None = None


FIELDS = Fingerprint.__struct_fields__
# What differs in one of these is another model.
OF_THE_MODEL = ("weights", "quantisation", "tokenizer", "chat_template")
# What differs in one of these takes its own time for the same work.
OF_THE_SPEED = ("weights", "quantisation")


def differs(a: Fingerprint, b: Fingerprint, among: Iterable[str] = FIELDS) -> tuple[str, ...]:
    """The fields that both know, in words that compare, and that are not the same. Symmetric; the unknown agrees."""
    return tuple(name for name in among if _contradict(getattr(a, name), getattr(b, name)))


def filled(known: Fingerprint, by: Fingerprint) -> Fingerprint:
    """`known`, and what it does not know taken from `by`."""
    return Fingerprint(**{name: getattr(known, name) or getattr(by, name) for name in FIELDS})


def later(before: Fingerprint | None, told: Fingerprint) -> Fingerprint:
    """What is known after a probe told this: what it left out is as it was, as long as it is the same model.

    A lost answer is no news, and must not make a contradiction be forgotten.
    """
    return told if before is None or differs(before, told, OF_THE_MODEL) else filled(told, before)


def one_model(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether they are known to be one model: the same weights, and nothing of the model differs."""
    return bool(a.weights) and a.weights == b.weights and not differs(a, b, OF_THE_MODEL)


def text(said: str) -> str:
    """A text that may stand in a fingerprint: printable and bounded. What is not is told by its digest."""
    said = said.strip()
    return said if len(said) <= TEXT_CHARS_MAX and said.isprintable() else digest(said)


def digest(said: str) -> str:
    """The digest of a text, of which nobody wants to read the whole; empty for an empty one."""
    if not said:
        return ""
    # A lone surrogate, which JSON can bring, has no bytes of its own.
    return "blake2b:" + blake2b(said.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()


def _contradict(a: str | int | None, b: str | int | None) -> bool:
    return bool(a and b) and a != b and _namespace(a) == _namespace(b)


def _namespace(value: str | int | None) -> str:
    word = value.partition(":")[0] if isinstance(value, str) else ""
    return word if word in NAMESPACES else ""
