"""Two vLLM behind a gateway, of which one fetches the KV cache that the other has computed; and what real ones say of
that, as recorded."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.engines.speakers import recorded
from tests.gateway.harness import House, house, local, remote
from tests.http.harness import HOST, serving
from tidegate.core.breaker import Breaker
from tidegate.http.server import Exchange

TEXT = "Once upon a time a lighthouse keeper counted the ships that came home. " * 24


class Recorded:
    """One of them. `kept` is what it says of a prompt for another, `fetched` of one of another's, `plain` of any other:
    names of recordings, or bytes with status 200. Where it is `""` it says nothing."""

    def __init__(self, *, kept: str | bytes = "kept", fetched: str = "fetched", plain: str = "plain") -> None:
        self.kept, self.fetched, self.plain = kept, fetched, plain
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self.url = ""

    def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            self._say(exchange, exchange.path.rpartition("/")[2])
            return
        body = json.loads(exchange.body)
        self.asked.append(body)
        params = body.get("kv_transfer_params") or {}
        said = self.kept if params.get("do_remote_decode") else self.fetched if params else self.plain
        if said == "":
            exchange.on_left = self._left
        else:
            self._say(exchange, f"{said}_stream" if body["stream"] and isinstance(said, str) else said)

    def _left(self) -> None:
        self.left += 1

    @staticmethod
    def _say(exchange: Exchange, said: str | bytes) -> None:
        if isinstance(said, bytes):
            exchange.respond(200, ((b"content-type", b"application/json"),), said)
            return
        if said == "metrics":
            exchange.respond(404, (), b"")
            return
        told = recorded(said, "vllm")
        kind = next((value for name, value in told["headers"] if name == "content-type"), "")
        exchange.respond(told["status"], ((b"content-type", kind.encode()),), told["body"].encode())


@asynccontextmanager
async def between(
    folder: Path, rack_url: str, laptop_url: str, *, slower: float = 1.0, places: int = 4, **settings: Any
) -> AsyncIterator[House]:
    """A gateway before the two, in which a long prompt is too slow at the laptop, which has so many `places`, and
    output dear at the rack. All is believed to be, and may be, so much `slower`."""
    laptop = local(url=laptop_url, engine="vllm", model="smollm2", prior=prior(5 / slower), concurrency=places)
    rack = remote(url=rack_url, engine="vllm", model="smollm2", prior=prior(150 / slower))
    rack.settings["price"] = {"usd_per_1m_input_tokens": 0.1, "usd_per_1m_output_tokens": 1000}
    rack.settings["handover"] = [{"to": "laptop", "kv_kib_per_token": 23, "mbit_per_s": 1000}]
    slow = {"slo": {"ttft_ms": 4000 * slower}, "worth_usd": 0.05, "late_usd_per_s": 0.001}
    async with house(folder, classes={"interactive": slow}, laptop=laptop, rack=rack, **settings) as home:
        yield home


def prior(prefill_tokens_per_s: float) -> dict[str, Any]:
    return {"prefill_tokens_per_s": prefill_tokens_per_s, "decode_tokens_per_s": 30, "sigma": 0.1}


@asynccontextmanager
async def pair(folder: Path, rack: Recorded, laptop: Recorded, **settings: Any) -> AsyncIterator[House]:
    async with (
        serving(rack) as there,
        serving(laptop) as here,
        between(folder, f"http://{HOST}:{there.port}", f"http://{HOST}:{here.port}", **settings) as home,
    ):
        yield home


def facts(home: House, kind: type[Any]) -> list[Any]:
    return [line.fact for line in home.journal() if isinstance(line.fact, kind)]


def breaker(home: House) -> Breaker:
    handover = home.gateway.router.handover("rack", "laptop")
    assert handover is not None
    return handover.state.breaker
