"""Records what vLLM really says of KV caches: `TIDEGATE_VLLM=PYTHON python -m tests.lab.record_vllm`, from the top.

As `record` does of llama.cpp: one JSON file per exchange, streams also as .txt. Two engines with NIXL, and two that
share a folder; see `tests/lab/vllm.py` for what it takes.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tests.lab.raw import Answer, exchange
from tests.lab.record import CHAT, USAGE, ask, save
from tests.lab.vllm import MODEL, Engine, nixl, shared, two

FOLDER = Path("tests/engines/cassettes/vllm")
TEXT = "Once upon a time a lighthouse keeper counted the ships that came home. " * 24
# As vLLM's own proxies ask, examples/ and tests/ of its repository.
KEEP = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
CLOSED = 9  # nobody listens on the port of `discard`


async def exchanged(engine: Engine, name: str, path: str, body: dict[str, object] | None = None) -> Answer:
    """Do one exchange and keep it."""
    method = "GET" if body is None else "POST"
    answer = await exchange(engine.port, method, path, body)
    save(name, {"method": method, "path": path, "body": body}, answer, FOLDER)
    return answer


def chat(opening: str, **fields: object) -> dict[str, object]:
    """A prompt that begins like no other, so that nothing of it is cached."""
    return ask(f"{opening} {TEXT}", model=MODEL, max_tokens=8) | fields


def told(answer: Answer, **changed: object) -> Any:
    """What an engine has told who is to fetch, for that one to tell its own cached tokens."""
    params = msgspec.json.decode(answer.body)["kv_transfer_params"]
    del params["remote_prefill_cached_tokens"]
    return params | changed


async def record_fetching(rack: Engine, laptop: Engine) -> None:
    """By NIXL: a prompt that is kept, fetched, and all that is not as it should be."""
    await exchanged(laptop, "models", "/v1/models")
    await exchanged(laptop, "version", "/version")
    await exchanged(laptop, "health", "/health")
    await exchanged(laptop, "plain", CHAT, chat("plain"))
    keep: dict[str, object] = {"max_tokens": 1, "stream": False, "kv_transfer_params": KEEP}
    streamed = {"stream": True, "stream_options": USAGE}
    kept = await exchanged(rack, "kept", CHAT, chat("one", **keep))
    await exchanged(laptop, "fetched", CHAT, chat("one", kv_transfer_params=told(kept)))
    kept = await exchange(rack.port, "POST", CHAT, chat("two", **keep))
    as_told = {"kv_transfer_params": msgspec.json.decode(kept.body)["kv_transfer_params"]}
    await exchanged(laptop, "fetched_as_told", CHAT, chat("two", **as_told))
    kept = await exchange(rack.port, "POST", CHAT, chat("three", **keep))
    await exchanged(laptop, "fetched_stream", CHAT, chat("three", kv_transfer_params=told(kept), **streamed))
    await exchanged(rack, "kept_stream", CHAT, chat("four", **keep | streamed))
    await exchanged(laptop, "misunderstood", CHAT, chat("five", kv_transfer_params="none"))
    kept = await exchange(rack.port, "POST", CHAT, chat("six", **keep))
    nowhere = told(kept, remote_port=CLOSED, remote_engine_id="gone")
    await exchanged(laptop, "unreachable", CHAT, chat("six", kv_transfer_params=nowhere))
    await exchanged(laptop, "plain_stream", CHAT, chat("seven", **streamed))


async def record_sharing(rack: Engine, laptop: Engine) -> None:
    """By a folder that both have: nothing is told."""
    keep: dict[str, object] = {"max_tokens": 1, "stream": False, "kv_transfer_params": KEEP}
    await exchanged(rack, "shared_kept", CHAT, chat("one", **keep))
    await exchanged(laptop, "shared_found", CHAT, chat("one"))


async def main() -> None:
    """Record all."""
    with tempfile.TemporaryDirectory() as folder:
        async with two(nixl(), Path(folder)) as engines:
            await record_fetching(*engines)
        store = Path(folder) / "store"
        async with two(shared(store), Path(folder)) as engines:
            await record_sharing(*engines)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    asyncio.run(main())
