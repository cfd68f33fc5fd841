"""The requests of the demo's tour: each shows one reason to run here or there."""

import random
from collections.abc import Sequence

import msgspec

MODEL = "smollm2"

_TEXT = (
    "river stone window garden letter market engine silver bridge winter table forest signal harbor teacher "
    "camera mountain paper island music doctor kitchen machine summer village number ocean pocket mirror "
    "railway basket candle student weather picture hammer valley orange ticket shadow"
)
_WORDS = _TEXT.split()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request: its body, and the headers that say what is promised and allowed."""

    title: str
    prompt: str
    stream: bool = True
    max_tokens: int = 24
    # So much of what home is predicted to take is promised, to the first token; None: what the headers say.
    share_of_home: float | None = None
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
    """Requests that show one thing: one after the other, or `together`.

    `after_first`: the others follow once the first one is under way. `hands_over`: from here on, the remote engine may
    compute prompts for the local one.
    """

    text: str
    asks: tuple[Ask, ...]
    together: bool = False
    after_first: bool = False
    hands_over: bool = False
    warm_up: bool = False


def document(seed: int, words: int) -> str:
    """A text of so many common words, different from the first one on for every seed, so that no cache helps."""
    # Not a security matter: the same seed must give the same tour.
    chance = random.Random(seed)  # noqa: S311
    return " ".join(chance.choice(_WORDS) for _ in range(words))


def _list(seed: int, words: int) -> str:
    return f"Continue this list of words with other words: {document(seed, words)}"


_LOCAL = ((b"x-tidegate-residency", b"local"),)
_CLOUD = ((b"x-tidegate-residency", b"cloud"),)
_PATIENT = (b"x-tidegate-slo-ttft-ms", b"60000")
_BATCH = ((b"x-tidegate-class", b"batch"),)


def _warm_up() -> Scene:
    """A few requests of each size to each side, so that the priors give way to measurements."""
    asks = tuple(
        Ask(title=f"warm-up, {words} words, {name}", prompt=_list(100 + words, words), headers=(*side, _PATIENT))
        for words in (12, 110, 420, 900)
        for name, side in (("local", _LOCAL), ("cloud", _CLOUD))
    )
    return Scene(text="Warming up: each side measures each size once", asks=asks, warm_up=True)


def handing_over() -> Scene:
    """A prompt that home is too busy for, and whose output is dear elsewhere; it needs couriers.

    Nobody knows how quick this machine is, so what is promised follows what is predicted: a quarter more than home
    takes in the mean, which may read it before what it is busy with, or after. So home misses it one time in four, and
    elsewhere there is time enough for a KV cache to be sent. Where it goes is decided as for any other request. What
    occupies home is not much longer: it has been read when the KV cache comes.
    """
    away = Ask(
        title="a promise that home may miss",
        # What is asked for last makes for an answer of some length.
        prompt=f"{document(9, 850)}\n\nWrite a short story that uses some of these words.",
        max_tokens=256,
        share_of_home=1.25,
        headers=((b"x-tidegate-slo-tpot-ms", b"5000"),),
    )
    busy = Ask(title="occupies the local engine", prompt=_list(8, 1000), headers=(*_LOCAL, _PATIENT))
    return Scene(
        text="From now on the remote engine may compute prompts for the local one, which reads a long one just now",
        asks=(busy, away),
        together=True,
        after_first=True,
        hands_over=True,
    )


def scenes() -> Sequence[Scene]:
    """The tour, warm-up first; where there are couriers, `handing_over` comes after it."""
    chats = (
        Ask(title="short chat", prompt="Name three primary colours."),
        Ask(title="short chat, not streamed", prompt="What is the capital of France?", stream=False),
        Ask(title="short chat", prompt="Give me a word that rhymes with blue."),
        Ask(title="short chat, not streamed", prompt="How many legs has a spider?", stream=False),
    )
    fitting = (
        Ask(title="long, but it fits", prompt=_list(1, 700), headers=(_PATIENT,)),
        Ask(title="longer, but it fits", prompt=_list(2, 850), headers=(_PATIENT,)),
    )
    beyond = (Ask(title="document", prompt=_list(3, 2100), headers=(_PATIENT,)),)
    burst = tuple(Ask(title=f"burst {i + 1} of 8", prompt=_list(20 + i, 40), max_tokens=32) for i in range(8))
    private = (
        Ask(title="private note", prompt="My password hint is my dog. Is that wise?", headers=_LOCAL),
        Ask(title="private list", prompt=_list(5, 400), headers=(*_LOCAL, _PATIENT)),
    )
    tight = Ask(title="tight TTFT meanwhile", prompt="Say hello.", headers=((b"x-tidegate-slo-ttft-ms", b"400"),))
    cheap = Ask(title="batch class meanwhile", prompt="Sort: pear, apple, fig.", headers=_BATCH)
    busy = [
        Ask(title="occupies the local engine", prompt=_list(seed, 500), headers=(*_LOCAL, _PATIENT)) for seed in (6, 7)
    ]
    return (
        _warm_up(),
        Scene(text="Short chats: cheap and quick at home", asks=chats),
        Scene(text="Long, but it fits at home, and the promise allows it", asks=fitting),
        Scene(text="A document beyond the local window", asks=beyond),
        Scene(text="A burst of eight: some wait for a slot, some are sent away", asks=burst, together=True),
        Scene(text="Data that must stay local", asks=private),
        Scene(
            text="A tight promise while the local engine is busy",
            asks=(busy[0], tight),
            together=True,
            after_first=True,
        ),
        Scene(
            text="Cheap batch work while the local engine is busy",
            asks=(busy[1], cheap),
            together=True,
            after_first=True,
        ),
    )
