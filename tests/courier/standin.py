"""An engine with slots and nothing else: saves and restores as llama.cpp does, and dies of what that one dies of.

`python -m tests.courier.standin PORT FOLDER MODEL TOKENS BYTES_PER_TOKEN` is one with so many tokens in its first slot.
"""

import asyncio
import struct
import sys
from pathlib import Path
from urllib.parse import parse_qs

import msgspec

from tests.http.harness import error_body
from tidegate.clock import Clock
from tidegate.http.server import Exchange, Limits, Server

SLOT_TOKENS = 2048


def state(tokens: list[int], size_bytes: int) -> bytes:
    """A saved slot with these tokens, of about that size; what follows the tokens depends on them."""
    head = struct.pack(f"<6I{len(tokens)}II", 0x67677371, 4, len(tokens) + 4, 2**32 - 1, 1, len(tokens), *tokens, 0)
    pattern = bytes(token % 251 for token in tokens)
    return head + (pattern * (size_bytes // len(pattern) + 1))[:size_bytes]


class Standin:
    """Listens on `port` once started. `slots` are the tokens in each; a restore of what no engine wrote kills it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.build = "b1"
        self.api_key = b""  # where it has one, who does not show it is refused
        self.slots: list[list[int]] = [[], []]
        self.bytes_per_token = 100
        self.alive = True
        self.restores = 0
        self.waiting: list[Exchange] | None = None  # a list: saves wait in it, as for a slot that is busy
        self.reading: list[Exchange] | None = None  # so do restores
        self._server = Server(self._handle, limits=Limits(), clock=Clock(), error_body=error_body)

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self, port: int = 0) -> None:
        await self._server.start("127.0.0.1", port)

    async def stop(self) -> None:
        await self._server.close(grace_s=0.0)

    def _handle(self, exchange: Exchange) -> None:
        if self.api_key and exchange.headers.get(b"authorization") != b"Bearer " + self.api_key:
            exchange.respond(401, [], b"")
            return
        if exchange.path == "/props":
            generation = {"n_ctx": SLOT_TOKENS}
            props = {"model_path": str(self.model), "build_info": self.build, "total_slots": len(self.slots)}
            _answer(exchange, props | {"default_generation_settings": generation})
            return
        slot = int(exchange.path.rsplit("/", 1)[1])
        (verb,) = parse_qs(exchange.query)["action"]
        name = msgspec.json.decode(exchange.body)["filename"]
        if verb == "restore" and self.reading is not None:
            self.reading.append(exchange)
        elif verb == "restore":
            self.restore(exchange, slot, name)
        elif self.waiting is not None:
            self.waiting.append(exchange)
        else:
            self.save(exchange, slot, name)

    def save(self, exchange: Exchange, slot: int, name: str) -> None:
        tokens = self.slots[slot]
        written = state(tokens, len(tokens) * self.bytes_per_token)
        (self.folder / name).write_bytes(written)
        _answer(exchange, {"id_slot": slot, "n_saved": len(tokens), "n_written": len(written)})

    def restore(self, exchange: Exchange, slot: int, name: str) -> None:
        self.restores += 1
        read = (self.folder / name).read_bytes()
        count = struct.unpack_from("<I", read, 20)[0]
        tokens = list(struct.unpack_from(f"<{count}I", read, 24))
        self.alive &= read == state(tokens, len(read) - 28 - 4 * count)
        self.slots[slot] = tokens
        _answer(exchange, {"id_slot": slot, "n_restored": count, "n_read": len(read)})


def _answer(exchange: Exchange, said: object) -> None:
    exchange.respond(200, [(b"content-type", b"application/json")], msgspec.json.encode(said))


async def main(port: str, folder: str, model: str, tokens: str, bytes_per_token: str) -> None:
    engine = Standin(Path(folder), Path(model))
    engine.slots[0] = list(range(1, int(tokens) + 1))
    engine.bytes_per_token = int(bytes_per_token)
    await engine.start(int(port))
    print("listens", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
