"""The loads that relays are measured under, and the bodies of their requests."""

import base64
from random import Random

import msgspec

from bench.rig import Ask

MODEL = "bench-model"
_TEXT = """\
water tide gate dyke river sea field rain wind cloud barge lock canal harbour low high slow quick open shut and or of to
in the a that which under over between before after when where is are was were holds lets keeps turns falls rises"""
WORDS = _TEXT.split()
IMAGES = 4  # of a request that has some: a page or two of a document, each as large as a phone's picture
SEED = 7


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and how. Streams have `ask.chunks`, one each `gap_ms`; `tls`: the engines stand behind TLS."""

    name: str
    about: str
    ask: Ask
    prompt_bytes: int = 1024
    image_bytes: int = 0
    gap_ms: int = 0
    tls: bool = False
    mostly_idle: bool = False

    @property
    def unit(self) -> str:
        """What CPU is divided by: the chunks of streams, or requests."""
        return "chunk" if self.ask.chunks else "request"

    def body(self) -> bytes:
        """The request: as many bytes as `prompt_bytes` and `image_bytes` together, or a few more."""
        text = _text(self.prompt_bytes)
        content = [{"type": "text", "text": text}, *_images(self.image_bytes)] if self.image_bytes else text
        messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": content}]
        asked: dict[str, object] = {"model": MODEL, "messages": messages, "max_tokens": self.ask.chunks or 16}
        if self.ask.chunks:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
            asked |= {"seed": self.gap_ms} if self.gap_ms else {}
        return msgspec.json.encode(asked)


_LOADS = (
    # First, since it asks for memory: what others leave behind would hide it.
    Load(
        name="W5",
        about="5,000 streams, a chunk each 2.5 s",
        ask=Ask(connections=5000, requests=5000, chunks=5, ramp_s=8.0),  # the last begins before the first ends
        gap_ms=2500,
        mostly_idle=True,
    ),
    Load(name="W1", about="1 KB prompt, 32 connections", ask=Ask(connections=32, requests=30_000, seconds=5.0)),
    Load(
        name="W2",
        about="256 KB prompt, 32 connections",
        ask=Ask(connections=32, requests=3000, seconds=5.0),
        prompt_bytes=256 * 1024,
    ),
    Load(
        name="W3",
        about="64 streams of 128 chunks without a gap",
        ask=Ask(connections=64, requests=1000, seconds=5.0, chunks=128),
    ),
    # Streams begin one after the other, so that their chunks do not come all at once.
    Load(
        name="W4",
        about="500 streams of 50 chunks, one each 20 ms",
        ask=Ask(connections=500, requests=2000, seconds=5.0, chunks=50, ramp_s=1.0),
        gap_ms=20,
    ),
    Load(
        name="W6",
        about="2 MB with images, 8 connections",
        ask=Ask(connections=8, requests=500, seconds=5.0),
        image_bytes=2_000_000,
    ),
    # An open loop that every relay keeps up with: only so are added times its own, and not those of a queue.
    Load(
        name="W7",
        about="20 streams of 16 chunks a second, whatever became of those before",
        ask=Ask(connections=500, requests=120, chunks=16, rate_per_s=20.0),
        gap_ms=20,
    ),
    # One at a time, as most come that are not a bench's: nothing of a relay's code is in the nearest cache any more.
    Load(
        name="W8",
        about="470 requests of 1 KB a second, whatever became of those before",
        ask=Ask(connections=500, requests=3000, rate_per_s=470.0),
    ),
)
LOADS = {load.name: load for load in _LOADS}
"""By name, in the order in which they are run."""


def behind_tls(load: Load) -> Load:
    """The same load, with the engines behind TLS."""
    return msgspec.structs.replace(load, about=f"{load.about}; TLS to the engine", tls=True)


def small(load: Load) -> Load:
    """The least of it that shows whether it works: its figures mean nothing."""
    few = min(load.ask.connections, 10)
    ask = msgspec.structs.replace(
        load.ask, connections=few, requests=2 * few, ramp_s=0.0, rate_per_s=4.0 * load.ask.rate_per_s
    )
    return msgspec.structs.replace(load, ask=ask, gap_ms=load.gap_ms // 10)


def _text(length: int) -> str:
    random = Random(SEED)
    words: list[str] = []
    while length > 0:
        words.append(random.choice(WORDS))
        length -= len(words[-1]) + 1
    return " ".join(words)


def _images(total_bytes: int) -> list[dict[str, object]]:
    random = Random(SEED)
    raw_bytes = total_bytes * 3 // 4 // IMAGES  # base64 takes four bytes for three
    urls = [f"data:image/png;base64,{base64.b64encode(random.randbytes(raw_bytes)).decode()}" for _ in range(IMAGES)]
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]
