"""Is a stream that breaks off completed without a word lost or said twice, and as its engine would have gone on?

    python -m bench.resuming [--cuts 1000]

Two real llama.cpp of the same weights, each on a core of its own, behind a tap each, and a gateway in a process of its
own that resumes (`policy.resume`). One greedy stream after the other: the first answer to each request is cut by its
tap at a byte that is drawn, which may be in the middle of a chunk or of a letter. What a client has got must be what
has passed the one tap, and then what has passed the other: nothing lost, nothing twice. And it must be what the engine
that went on says again when it is asked for the same rest directly, from its cache. Half of all requests have a bound
on their tokens that they reach. The same once more with one engine alone, which is asked for the rest itself, and has
it cached.
"""

import argparse
import asyncio
import os
import random
import re
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import track

from bench.gateway import HOST, LISTENS, free_ports, served
from bench.record import record
from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, fetch
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec

CUTS, SEED, TOKENS_MAX = 1000, 7, 32
CHAT, ANSWER_S_MAX, ANSWER_BYTES_MAX = b"/v1/chat/completions", 60.0, 1 << 20
# An answer's head with its first chunk, and each chunk after it.
HEAD_BYTES, CHUNK_BYTES = 600, 220
SUBJECTS = ("the sea", "a garden", "Zürich", "snow ❄", "the number 7", "a café", "東京", "bread", "rain", "a long road")
_CONFIG = (
    LISTENS
    + """\
[policy]
resume = true
[site.home]
local = true
[endpoint.first]
site = "home"
engine = "llamacpp"
url = "{first}"
serves = ["smollm2"]
concurrency = 2
canary_s = 0
"""
)
_SECOND = """[endpoint.second]
site = "home"
engine = "llamacpp"
url = "{second}"
serves = ["smollm2"]
concurrency = 2
canary_s = 0
"""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, `resumed` or complete before its cut.

    `whole`: its client has what passed the taps, once, and one ending. `again`: the engine that went on says the same
    again, and it had all of it `cached` the first time. Its tokens are `counted` as those of one answer; None where it
    was complete but for that. `error` is what it ended with, empty where it ended as it should.
    """

    resumed: bool
    whole: bool
    again: bool
    cached: bool
    counted: bool | None
    error: str


class Wire:
    """What the taps share: the answer that comes next is cut after `armed` bytes, and those that passed, in order."""

    def __init__(self) -> None:
        self.armed: int | None = None
        self.passed: list[tuple[int, bytearray]] = []


class Tap:
    """Passes bytes on to an engine, whose place it knows, and back."""

    def __init__(self, wire: Wire, place: int, port: int) -> None:
        self._wire, self._place, self._port = wire, place, port
        self._server: asyncio.Server | None = None

    async def serve(self) -> str:
        """Where it listens."""
        self._server = await asyncio.start_server(self._carry, HOST, 0)
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Listen no more; who was connected has left."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = self._wire
        there, back = await asyncio.open_connection(HOST, self._port)
        answer: bytearray | None = None
        left: int | None = None

        async def up() -> None:
            nonlocal answer, left
            while data := await reader.read(1 << 16):
                if data.startswith(b"POST /v1/chat"):
                    left, wire.armed = wire.armed, None
                    answer = bytearray()
                    wire.passed.append((self._place, answer))
                back.write(data)
            back.close()

        upward = asyncio.create_task(up())
        while data := await there.read(1 << 16):
            if left is not None:
                data, left = data[:left], left - len(data)
            if answer is not None:
                answer += data
            writer.write(data)
            if left is not None and left <= 0:
                break
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()
        back.transport.abort()
        upward.cancel()


def _chunks(stream: bytes) -> list[dict[str, Any]]:
    """The chunks of a chunked response that are complete."""
    body, found = stream.partition(b"\r\n\r\n")[2], b""
    while match := re.match(rb"([0-9a-f]+)\r\n", body):
        size, begin = int(match[1], 16), match.end()
        found += body[begin : begin + size]
        body = body[begin + size + 2 :]
    events = []
    # What no blank line ends has not passed: the gateway takes in whole frames.
    for frame in found.split(b"\n\n")[:-1]:
        if frame.startswith(b"data: {"):
            try:
                events.append(msgspec.json.decode(frame[6:], type=dict[str, Any]))
            except msgspec.DecodeError:
                continue
    return events


def _text(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))


class Client:
    """Asks a gateway, or an engine."""

    def __init__(self, port: int) -> None:
        self._pool = Pool(Origin(HOST, port), clock=Clock(), connections_max=2)

    async def close(self) -> None:
        """Ask no more."""
        await self._pool.close()

    async def ask(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of its answer."""
        headers = ((b"content-type", b"application/json"),)
        asked = msgspec.json.encode(body)
        _, _, answer = await fetch(self._pool, b"POST", CHAT, headers, asked, ANSWER_S_MAX, ANSWER_BYTES_MAX)
        return [msgspec.json.decode(f[6:]) for f in answer.split(b"\n\n") if f.startswith(b"data: {")]


async def one(number: int, wire: Wire, gateway: Client, engines: list[Client]) -> Cut:
    """Cut, and compare."""
    draw = random.Random(f"{SEED}/{number}")
    tokens_max = draw.randint(8, TOKENS_MAX) if draw.random() < 0.5 else 2 * TOKENS_MAX
    ask: dict[str, Any] = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": f"Say something of {draw.choice(SUBJECTS)}, number {number}."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": tokens_max,
    }
    wire.passed, wire.armed = [], draw.randint(HEAD_BYTES, CHUNK_BYTES * tokens_max)
    got = await gateway.ask(ask)
    wire.armed = None
    passed = [(place, _chunks(bytes(answer))) for place, answer in wire.passed]
    # A second attempt may have been asked for the rest beside the first, and beaten it.
    passed = passed[:1] + [(place, chunks) for place, chunks in passed[1:] if _usage(chunks)]
    parts = [chunks for _, chunks in passed]
    said = _text(parts[0])
    brought = sum(bool(_text([chunk])) for chunk in parts[0])
    usage = _usage(got)
    endings = sum(bool(choice.get("finish_reason")) for chunk in got for choice in chunk.get("choices", ()))
    rest, left = "", tokens_max - brought
    again, cached = True, False
    if len(parts) > 1 and said and left:
        rest, told = _text(parts[1]), _usage(parts[1])
        assert told is not None, "it was taken for that"
        cached = told["prompt_tokens_details"]["cached_tokens"] >= told["prompt_tokens"] - 1
        messages = [*ask["messages"], {"role": "assistant", "content": said}]
        engine = engines[passed[1][0]]
        again = _text(await engine.ask({**ask, "messages": messages, "max_tokens": left})) == rest
    elif not (len(parts) > 1 and said):
        # Complete before its cut, or cut before its first content, so that the other one has answered it all.
        rest, brought = _text(parts[1]) if len(parts) > 1 else "", 0
    return Cut(
        resumed=len(parts) > 1 and bool(said),
        whole=_text(got) == said + rest and (endings == 1 or any(chunk.get("error") for chunk in got)),
        again=again,
        cached=cached,
        error=next((chunk["error"]["message"] for chunk in got if chunk.get("error")), ""),
        counted=None if usage is None else usage["completion_tokens"] - brought == _told(parts, left),
    )


def _usage(chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)


def _told(parts: list[list[dict[str, Any]]], left: int) -> int:
    """How many tokens the engine that came last has made for the client, in its own words."""
    usage = _usage(parts[-1])
    made = -1 if usage is None else int(usage["completion_tokens"])
    return 0 if len(parts) > 1 and not left else made


async def played(cuts: int, *, alone: bool) -> list[Cut]:
    """So many streams, before two engines or one."""
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder, (port, admin) = Path(name), free_ports(2)
        engines = [
            Engine(Spec(model=weights.fetch(), context_tokens=512, cpu=cpu), folder / f"{place}.log")
            for place, cpu in enumerate(cpus[:1] if alone else (cpus[0], cpus[-1]))
        ]
        for engine in engines:
            await engine.start()
        wire = Wire()
        taps = [Tap(wire, place, engine.port) for place, engine in enumerate(engines)]
        urls = dict(zip(("first", "second"), [await tap.serve() for tap in taps], strict=False))
        config = folder / "tidegate.toml"
        text = _CONFIG if alone else _CONFIG + _SECOND
        config.write_text(text.format(host=HOST, port=port, admin=admin, **urls))
        gateway = await served(config)
        client, *clients = [Client(place) for place in (port, *(engine.port for engine in engines))]
        try:
            return [await one(number, wire, client, clients) for number in track(range(cuts))]
        finally:
            for one_client in (client, *clients):
                await one_client.close()
            gateway.terminate()
            await gateway.wait()
            for engine in engines:
                await engine.kill()
            for tap in taps:
                await tap.close()


def show(console: Console, cuts: list[Cut]) -> dict[str, object]:
    """For people, and what is written down."""
    resumed = [cut for cut in cuts if cut.resumed]
    found: dict[str, object] = {
        "streams": len(cuts),
        "resumed": len(resumed),
        "lost_or_doubled": sum(not cut.whole for cut in cuts),
        "miscounted": sum(cut.counted is False for cut in cuts),
        "cut_before_usage_alone": sum(cut.counted is None and not cut.error for cut in cuts),
        "cached": sum(cut.cached for cut in resumed),
        "cached_otherwise": sum(not cut.again for cut in resumed if cut.cached),
        "computed_otherwise": sum(not cut.again for cut in resumed if not cut.cached),
        "errors": dict(Counter(cut.error for cut in cuts if cut.error)),
    }
    for name, count in found.items():
        console.print(f"{name:20} {count}", markup=False, soft_wrap=True)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=CUTS)
    cuts = parser.parse_args().cuts
    console, found = Console(), {}
    for name, alone in (("two_engines", False), ("one_engine", True)):
        console.print(name)
        found[name] = show(console, asyncio.run(played(cuts // 2, alone=alone)))
    if cuts == CUTS:
        record("resuming", {**found})


if __name__ == "__main__":
    main()
