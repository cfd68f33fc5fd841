"""Servers as they stand on the usual ports: what each kind of engine answers to a question, and a note of what it was
asked. And servers that answer with bytes of any kind.

What llama.cpp answers is recorded. The others do not run where the tests do: theirs is written after public samples.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.engines.speakers import recorded
from tests.http.harness import HOST, serving
from tidegate.config.address import Url
from tidegate.http.server import Exchange

Page = tuple[int, bytes]
JSON = ((b"content-type", b"application/json"),)


def page(body: Any, status: int = 200) -> Page:
    return status, body if isinstance(body, bytes) else json.dumps(body).encode()


def models(*names: str, owned_by: str = "organization_owner", **fields: Any) -> Page:
    return page(
        {"object": "list", "data": [{"id": n, "object": "model", "owned_by": owned_by, **fields} for n in names]}
    )


def said(name: str) -> Page:
    """What the real llama.cpp answered."""
    told = recorded(name)
    return told["status"], told["body"].encode()


LLAMACPP = {"/v1/models": said("models"), "/health": said("health"), "/props": said("props")}
LOADING = {"/v1/models": said("models"), "/health": said("health_loading"), "/props": said("health_loading")}
# Of several models, as its source has it: what it says of itself is of none of them.
LLAMACPP_OF_SEVERAL = {
    "/v1/models": page(
        {
            "data": [
                {
                    "id": "qwen3-8b",
                    "owned_by": "llamacpp",
                    "status": {"value": "loaded"},
                    "meta": {"n_ctx": 32768, "n_ctx_train": 40960},
                },
                {"id": "smol", "owned_by": "llamacpp", "status": {"value": "unloaded"}},
            ]
        }
    ),
    "/health": page({"status": "ok"}),
    "/props": page({"role": "router", "model_path": "none", "default_generation_settings": {"n_ctx": 0}}),
}
VLLM = {
    "/v1/models": models("meta-llama/Llama-3.1-8B-Instruct", owned_by="vllm", max_model_len=32768),
    "/version": page({"version": "0.11.0"}),
    "/health": page(b""),
}
SGLANG = {
    "/v1/models": models("qwen", owned_by="sglang", max_model_len=40960),
    "/server_info": page({"context_length": 40960, "max_total_num_tokens": 20000, "api_key": "the engine's own"}),
}
OLLAMA = {
    "/v1/models": models(
        "llama3.2:latest", "qwen3:8b", "nomic-embed-text:latest", "gpt-oss:120b-cloud", owned_by="library"
    ),
    "/api/version": page({"version": "0.13.0"}),
    "/api/ps": page({"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest", "context_length": 8192}]}),
    "/api/tags": page(
        {
            "models": [
                {"name": "llama3.2:latest"},
                {"name": "qwen3:8b"},
                {"name": "nomic-embed-text:latest"},
                {"name": "gpt-oss:120b-cloud", "remote_model": "gpt-oss:120b", "remote_host": "https://ollama.com:443"},
            ]
        }
    ),
    "/api/show llama3.2:latest": page(
        {"capabilities": ["completion", "tools"], "model_info": {"x.context_length": 131072}}
    ),
    "/api/show qwen3:8b": page({"capabilities": ["completion", "vision"]}),
    "/api/show nomic-embed-text:latest": page({"capabilities": ["embedding"]}),
}
UNEXPECTED = page({"error": "Unexpected endpoint or method. (GET /props)"})  # LM Studio says it with status 200
LM_STUDIO = {
    "/v1/models": models("qwen2.5-7b", "pixtral", "text-embedding-nomic"),
    "/api/v0/models": page(
        {
            "data": [
                {
                    "id": "qwen2.5-7b",
                    "type": "llm",
                    "state": "loaded",
                    "max_context_length": 32768,
                    "loaded_context_length": 8192,
                },
                {"id": "pixtral", "type": "vlm", "state": "not-loaded", "max_context_length": 16384},
                {"id": "text-embedding-nomic", "type": "embeddings", "max_context_length": 2048},
            ]
        }
    ),
    **dict.fromkeys(("/livez", "/props", "/server_info", "/api/version", "/version"), UNEXPECTED),
}
# It answers what llama.cpp's and Ollama's clients ask for first, and has no `/health`.
KOBOLDCPP = {
    "/v1/models": models("koboldcpp/qwen3-8b-q4_k_m", owned_by="koboldcpp"),
    "/props": page({"total_slots": 1, "modalities": {"vision": True}, "default_generation_settings": {"n_ctx": 16384}}),
    "/api/version": page({"version": "0.7.0"}),
    "/api/tags": page({"models": [{"name": "koboldcpp", "model": "koboldcpp/qwen3-8b-q4_k_m:latest"}]}),
}
GENERIC = {"/v1/models": models("some-model"), "/version": page({"version": "v3.1"})}
LOCKED = {"/v1/models": page({"error": "Unauthorized"}, 401), "/api/version": page({"version": "0.13.0"})}


@dataclass
class Neighbour:
    """A server with such pages. `asked` notes method and path, `heads` the headers, of all that came."""

    pages: dict[str, Page]
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    heads: list[dict[bytes, bytes]] = field(default_factory=list)

    @property
    def url(self) -> Url:
        return Url(tls=False, host=HOST, port=self.port, path="")

    def __call__(self, exchange: Exchange) -> None:
        self.asked.append((exchange.method, exchange.path))
        self.heads.append(exchange.headers)
        key = exchange.path
        if exchange.method == "POST":
            key += " " + json.loads(exchange.body)["model"]
        status, body = self.pages.get(key, page({"error": "File Not Found"}, 404))
        exchange.respond(status, JSON, body)


@asynccontextmanager
async def neighbour(pages: dict[str, Page]) -> AsyncIterator[Neighbour]:
    made = Neighbour(dict(pages))
    async with serving(made) as server:
        made.port = server.port
        yield made


@asynccontextmanager
async def blurting(said: bytes, *, stays: bool = False) -> AsyncIterator[Url]:
    """A server that answers whatever comes with these bytes, and then closes, or `stays` without a word."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            await reader.read(1)
            writer.write(said)
            await writer.drain()
            if stays:
                await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer, HOST, 0)
    try:
        yield Url(tls=False, host=HOST, port=server.sockets[0].getsockname()[1], path="")
    finally:
        server.close()
        await server.wait_closed()
