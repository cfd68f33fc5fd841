"""Two couriers beside two real llama.cpp, and what comes for one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.courier.harness import HOST, House, Put
from tests.courier.spoilt import SPOILT
from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, fetch
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec
from tidegate.wire.courier import Restore

PROMPT = "Once upon a time a lighthouse keeper counted the ships that came home. " * 8
OTHER = "The tide comes in"


class Real(House):
    """Two couriers, each beside a real engine; `b` has the smaller window, as a laptop would."""

    def __init__(self, folder: Path, saves: Path, context_tokens: tuple[int, int]) -> None:
        super().__init__(folder, saves)
        model = weights.fetch()
        self.engines: dict[str, Engine] = {}
        for name, window in zip("ab", context_tokens, strict=True):
            self.saves_of(name).mkdir(mode=0o700)
            spec = Spec(model=model, context_tokens=window, saves=self.saves_of(name))
            self.engines[name] = Engine(spec, folder / f"{name}.log")

    async def complete(self, engine: str, prompt: str, *, slot: int, tokens: int) -> Any:
        pool = Pool(Origin(HOST, self.engines[engine].port), clock=Clock())
        asked = {"prompt": prompt, "n_predict": tokens, "id_slot": slot, "cache_prompt": True, "temperature": 0}
        try:
            status, _, body = await fetch(pool, b"POST", b"/completion", (), msgspec.json.encode(asked), 120.0, 1 << 20)
        finally:
            await pool.close()
        assert status == 200, body
        return msgspec.json.decode(body)

    async def saved(self) -> bytes:
        """What the engine of `a` writes of slot 0."""
        pool = Pool(Origin(HOST, self.engines["a"].port), clock=Clock())
        try:
            await fetch(pool, b"POST", b"/slots/0?action=save", (), b'{"filename": "saved"}', 60.0, 1 << 20)
        finally:
            await pool.close()
        file = self.saves_of("a") / "saved"
        blob = file.read_bytes()
        file.unlink()
        return blob

    async def prefilled(self) -> int:
        """The prompt is in slot 0 of `a`; its tokens."""
        done = await self.complete("a", PROMPT, slot=0, tokens=0)
        return int(done["timings"]["prompt_n"] + done["timings"]["cache_n"])


@asynccontextmanager
async def real(
    folder: Path, context_tokens: tuple[int, int] = (2048, 1024), space_mib: int = 64
) -> AsyncIterator[Real]:
    with TemporaryDirectory(dir="/dev/shm") as saves:
        home = Real(folder, Path(saves), context_tokens)
        try:
            for name, engine in home.engines.items():
                await engine.start()
                await home.start(name, engine.url, space_mib=space_mib)
            yield home
        finally:
            await home.stop()
            for engine in home.engines.values():
                assert await engine.stop() == 0


async def besieged(home: Real, blobs: int) -> tuple[int, int, int]:
    """So many spoilt blobs for `b`: how many were refused, and how many requests were served and failed meanwhile."""
    tokens = await home.prefilled()
    fingerprint = (await home.client("b").health(5.0)).fingerprint or ""
    saved = await home.saved()
    served = failed = refused = 0
    over = False

    async def serve() -> None:
        nonlocal served, failed
        while not over:
            try:
                done = await home.complete("b", OTHER, slot=0, tokens=4)
                served += bool(done["content"])
            except Exception:
                failed += 1

    serving = asyncio.ensure_future(serve())
    tls, port = home.tls("a").client(), home.couriers["b"].port
    for n in range(blobs):
        spoilt = SPOILT[n % len(SPOILT)]
        refused += await spoilt.refused(Put(home.ticket(fingerprint), saved, tokens), port, tls)
    over = True
    await serving
    # And a good one comes through.
    ticket = home.ticket(fingerprint)
    shipped = await home.client("a").ship(home.order(ticket, tokens=tokens), 30.0)
    await home.client("b").restore(Restore(name=shipped.name, slot=1), 30.0)
    done = await home.complete("b", PROMPT, slot=1, tokens=1)
    assert done["timings"]["cache_n"] == tokens - 1
    return refused, served, failed
