"""The requests of the demo's tour: each shows one reason to run here or there."""

import random
from collections.abc import Sequence

import msgspec

MODEL = "smollm2"

_WORDS = (
    "river stone window garden letter market engine silver bridge winter table forest signal harbor teacher "
    "camera mountain paper island music doctor kitchen machine summer village number ocean pocket mirror "
    "railway basket candle student weather picture hammer valley orange ticket shadow"
).split()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request: its body, and the headers that say what is promised and allowed."""

    title: str
    prompt: str
    stream: bool = True
    max_tokens: int = 24
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> bytes:
        """As the client sends it."""
        return msgspec.json.encode(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": self.prompt}],
                "max_tokens": self.max_tokens,
                "temperature": 0,
                "stream": self.stream,
            }
        )


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Requests sent together. `after_first`: the others follow once the first one is under way."""

    text: str
    asks: tuple[Ask, ...]
    after_first: bool = False
    warm_up: bool = False


def document(seed: int, words: int) -> str:
    """A text of so many common words, different from the first one on for every seed, so that no cache helps."""
    # Not a security matter: the same seed must give the same tour.
    chance = random.Random(seed)  # noqa: S311
    return " ".join(chance.choice(_WORDS) for _ in range(words))


def _summary(seed: int, words: int) -> str:
    return f"Summarise in one sentence: {document(seed, words)}"


_LOCAL = ((b"x-tidegate-residency", b"local"),)
_CLOUD = ((b"x-tidegate-residency", b"cloud"),)
_PATIENT = (b"x-tidegate-slo-ttft-ms", b"60000")
_BATCH = ((b"x-tidegate-class", b"batch"),)


def _warm_up() -> list[Scene]:
    """A few requests of each size to each side, so that the priors give way to measurements."""
    sizes = (12, 110, 420, 900)
    asks = [
        Ask(title=f"warm-up, {words} words, {name}", prompt=_summary(100 + i, words), headers=(*side, _PATIENT))
        for i, (words, (name, side)) in enumerate((w, s) for w in sizes for s in (("local", _LOCAL), ("cloud", _CLOUD)))
    ]
    return [Scene(text="Warming up: each side measures each size once", asks=(a,), warm_up=True) for a in asks]


def scenes() -> Sequence[Scene]:
    """The tour, warm-up first."""
    chats = [
        Ask(title="short chat", prompt="Name three primary colours."),
        Ask(title="short chat, not streamed", prompt="What is the capital of France?", stream=False),
        Ask(title="short chat", prompt="Give me a word that rhymes with blue."),
        Ask(title="short chat, not streamed", prompt="How many legs has a spider?", stream=False),
    ]
    fitting = [
        Ask(title="long, but it fits", prompt=_summary(1, 700), headers=(_PATIENT,)),
        Ask(title="longer, but it fits", prompt=_summary(2, 850), headers=(_PATIENT,)),
    ]
    beyond = Ask(title="document beyond the local window", prompt=_summary(3, 2100), headers=(_PATIENT,))
    burst = tuple(
        Ask(title=f"burst {i + 1} of 8", prompt=f"{document(20 + i, 40)} Which word comes first?", max_tokens=32)
        for i in range(8)
    )
    private = [
        Ask(title="must stay local", prompt="My password hint is my dog. Is that wise?", headers=_LOCAL),
        Ask(title="must stay local, longer", prompt=_summary(5, 400), headers=(*_LOCAL, _PATIENT)),
    ]
    busy = Ask(title="occupies the local engine", prompt=_summary(6, 800), headers=(*_LOCAL, _PATIENT))
    tight = Ask(
        title="tight TTFT meanwhile",
        prompt="Say hello.",
        headers=((b"x-tidegate-slo-ttft-ms", b"900"),),
    )
    busy2 = Ask(title="occupies the local engine", prompt=_summary(7, 800), headers=(*_LOCAL, _PATIENT))
    cheap = Ask(title="batch class meanwhile", prompt="Sort: pear, apple, fig.", headers=_BATCH)
    return [
        *_warm_up(),
        *(Scene(text="Short chats: cheap and quick at home", asks=(a,)) for a in chats),
        *(Scene(text="Long, but it fits at home, and the promise allows it", asks=(a,)) for a in fitting),
        Scene(text="A document beyond the local window", asks=(beyond,)),
        Scene(text="A burst of eight: held by deadline, some sent away", asks=burst),
        *(Scene(text="Data that must stay local", asks=(a,)) for a in private),
        Scene(text="A tight promise while the local engine is busy", asks=(busy, tight), after_first=True),
        Scene(text="Cheap batch work while the local engine is busy", asks=(busy2, cheap), after_first=True),
    ]
