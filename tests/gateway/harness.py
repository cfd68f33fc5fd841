"""A whole gateway in this process, with real servers behind it and real sockets in front: nothing is imitated.

When a house is left, its gateway must owe nothing to anybody, and its journal must replay without a difference.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tests.http.harness import Response, client, eventually, read_response
from tests.virtual import loop_clock
from tidegate.clock import Clock
from tidegate.config.config import Config
from tidegate.config.load import load
from tidegate.core.health import CLIENT_ERROR
from tidegate.core.model import Ended, Held, Line, Released, Started, Warmed, Warming
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.engines.fake import FakeEngine, Script
from tidegate.gateway.app import Gateway
from tidegate.telemetry.journal import read

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
KEY = "sk-upstream-3f9a"  # what endpoints that cost money are opened with
MODEL = "m"

# An engine that is believed to be quick, and to be known well: it is overdue as soon as the promise is in danger.
SURE = {
    "prefill_tokens_per_s": 1e6,
    "decode_tokens_per_s": 1e4,
    "overhead_ms": 1,
    "rtt_ms": 0,
    "upload_mbit_per_s": 1e5,
    "sigma": 0.01,
}


@dataclass
class Place:
    """An endpoint: what stands there, and its settings. With a `url`, somebody else's server stands there."""

    script: Script
    settings: dict[str, Any]
    context_tokens: int = 8192
    url: str = ""
    up: bool = True
    weights: str = ""


def local(
    script: Script | None = None, *, context_tokens: int = 8192, url: str = "", up: bool = True, **settings: Any
) -> Place:
    """An engine of our own, which is free and called first."""
    made = {"site": "home", "engine": "fake", "model": "own", "concurrency": 4}
    return Place(script or Script(), made | settings, context_tokens, url, up)


def remote(
    script: Script | None = None, *, context_tokens: int = 32768, url: str = "", up: bool = True, **settings: Any
) -> Place:
    """A vendor, who wants money and a key."""
    price = {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 4}
    made = {"site": "away", "engine": "fake", "model": "vendor/big", "price": price, "api_key_env": "VENDOR_KEY"}
    return Place(script or Script(), made | settings, context_tokens, url, up)


@dataclass
class Answer:
    """One response, read in full."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which has its four keys and nothing else."""
        found = self.json
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        return dict(found["error"])

    @property
    def events(self) -> list[Any]:
        """What each frame carries, `[DONE]` as it stands."""
        frames = self.body.decode().split("\n\n")
        assert frames.pop() == ""
        assert all(frame.startswith("data: ") for frame in frames)
        return [f if (f := frame[6:]) == "[DONE]" else json.loads(f) for frame in frames]

    @property
    def text(self) -> str:
        """The words of the answer, streamed or not, chat or not."""
        if self.header("content-type").startswith("text/event-stream"):
            chunks = [e for e in self.events if e != "[DONE]" and "choices" in e]
        else:
            chunks = [self.json]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        said = [c.get("text") or (c.get("delta") or c.get("message") or {}).get("content") for c in choices]
        return "".join(piece or "" for piece in said)

    def header(self, name: str) -> str:
        return self.headers.get(name.encode(), b"").decode()

    @property
    def endpoint(self) -> str:
        return self.header("x-tidegate-endpoint")


def chat(prompt: str = "Say hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **fields}


def completion(prompt: str = "Say hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, **fields}


def wire(method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class House:
    """A gateway with what stands behind it."""

    gateway: Gateway
    folder: Path
    engines: dict[str, FakeEngine]
    port: int
    admin_port: int

    async def ask(self, body: Any = None, *, path: str = CHAT, method: str = "POST", **headers: str) -> Answer:
        """Send a request and read all of its answer. Headers are named with underscores."""
        raw = body if isinstance(body, bytes) else json.dumps(chat() if body is None else body).encode()
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.send(wire(method, path, raw, named))

    async def get(self, path: str, *, method: str = "GET", admin: bool = False) -> Answer:
        port = self.admin_port if admin else self.port
        return await self.send(wire(method, path), port=port, head_only=method == "HEAD")

    async def change(
        self, method: str, path: str, *, host: str = "127.0.0.1", secret: str = "", **named: str
    ) -> Answer:
        """What an operator sends to the admin address."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-length: 0"]
        lines += [f"authorization: Bearer {secret}"] if secret else []
        lines += [f"{name}: {value}" for name, value in named.items()]
        return await self.send("\r\n".join([*lines, "", ""]).encode(), port=self.admin_port)

    async def get_with(self, path: str, secret: str) -> Answer:
        """The same from a client that has a key."""
        return await self.send(wire("GET", path, headers=[("authorization", f"Bearer {secret}")]))

    async def send(self, raw: bytes, *, port: int | None = None, head_only: bool = False) -> Answer:
        async with client(port or self.port) as (reader, writer):
            writer.write(raw)
            return whole(await read_response(reader, head_only=head_only))

    @asynccontextmanager
    async def asking(self, body: Any = None, **headers: str) -> AsyncIterator[asyncio.StreamReader]:
        """A client that is still connected when its request is sent; leaving is going away."""
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        async with client(self.port) as (reader, writer):
            writer.write(wire("POST", CHAT, json.dumps(chat() if body is None else body).encode(), named))
            yield reader

    async def fell(self, name: str) -> None:
        """This engine's process is gone: its port refuses."""
        await self.engines[name].__aexit__(None, None, None)

    async def quiet(self) -> None:
        """Return when nothing is under way any more."""
        router = self.gateway.router
        models = [router.endpoint(e.name) for e in self.gateway._built.endpoints]
        await eventually(
            lambda: not (self.gateway.dispatch.in_flight or router.held or any(m.state.reservations for m in models))
        )

    def log(self, kind: str = "request") -> list[dict[str, Any]]:
        """The lines of one type that were logged so far."""
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        return [line for line in lines if line["type"] == kind]

    def journal(self) -> list[Line]:
        """All that was told so far."""
        if self.gateway.journal is not None:
            self.gateway.journal.flush()
        return list(read(self.folder / "journal"))


def whole(response: Response) -> Answer:
    return Answer(response.status, response.headers, response.body)


@asynccontextmanager
async def house(
    folder: Path,
    *,
    gateway: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    classes: dict[str, dict[str, Any]] | None = None,
    models: dict[str, dict[str, Any]] | None = None,
    budget: dict[str, Any] | None = None,
    trace: dict[str, Any] | None = None,
    rules: Sequence[dict[str, Any]] = (),
    clock: Clock | None = None,
    **places: Place,
) -> AsyncIterator[House]:
    """A gateway before these endpoints; without any, one of our own and one that costs money.

    They serve `MODEL`, or what the tables of `models` say.
    """
    places = places or {"laptop": local(), "cloud": remote()}
    async with AsyncExitStack() as stack:
        engines = {}
        for name, place in places.items():
            if not place.url:
                engines[name] = FakeEngine(place.script, context_tokens=place.context_tokens, weights=place.weights)
                engines[name].up = place.up
                await stack.enter_async_context(engines[name])
        urls = {name: place.url or engines[name].url for name, place in places.items()}
        file = folder / "tidegate.toml"
        tables = _toml(places, urls, gateway or {}, policy or {}, classes or {}, models or {}, budget or {})
        if trace is not None:
            tables += f"\n[trace]\n{_lines(trace)}"
        file.write_text(tables + "".join(f"\n[[rule]]\n{_lines(rule)}" for rule in rules))
        clock = clock or loop_clock()

        def source() -> Config:
            return load(file, {"VENDOR_KEY": KEY})

        made = Gateway(source(), clock, source)
        await made.start()
        home = House(made, folder, engines, made.server.port, made.admin.port)
        try:
            yield home
            await home.quiet()
        finally:
            await made.stop()
        assert made.server.statistics().handler_errors == 0
        assert made.admin.statistics().handler_errors == 0
        assert made.server.kept_bytes == 0
        if (folder / "journal").exists():
            _check(home.journal())


def _check(journal: list[Line]) -> None:
    """What every journal must hold: it replays, and every attempt, hold and load that began has ended once."""
    report = replay(journal)
    assert (report.difference, report.parted_s) == (None, None)
    warming: set[str] = set()
    begun: dict[tuple[str, str], int] = {}
    held: set[str] = set()
    for line in journal:
        fact = line.fact
        if isinstance(fact, Started):
            begun[fact.request_id, fact.endpoint] = begun.get((fact.request_id, fact.endpoint), 0) + 1
            held.discard(fact.request_id)
        elif isinstance(fact, Ended):
            begun[fact.request_id, fact.endpoint] = begun.get((fact.request_id, fact.endpoint), 0) - 1
        elif isinstance(fact, Held):
            held.add(fact.request.id)
        elif isinstance(fact, Released):
            assert fact.request_id in held or fact.cause in (CLIENT_ERROR, Why.OVER_BUDGET)
            held.discard(fact.request_id)
        elif isinstance(fact, Warming):
            assert fact.endpoint not in warming
            warming.add(fact.endpoint)
        elif isinstance(fact, Warmed):
            warming.remove(fact.endpoint)
    assert {attempt: left for attempt, left in begun.items() if left} == {}
    assert held == set()
    assert warming == set()


def _toml(
    places: dict[str, Place],
    urls: dict[str, str],
    gateway: dict[str, Any],
    policy: dict[str, Any],
    classes: dict[str, dict[str, Any]],
    models: dict[str, dict[str, Any]],
    budget: dict[str, Any],
) -> str:
    usual = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "journal": "journal", "log": "log", "drain_s": 5}
    # A process of its own, which most tests do not look at.
    usual["dashboard"] = False
    tables: dict[str, dict[str, Any]] = {
        "gateway": usual | gateway,
        # A busy machine must not bring on the static rule.
        "policy": {"decide_budget_ms": 1000} | policy,
        "budget": budget,
        "site.home": {"local": True},
        "site.away": {"local": False},
    }
    tables |= {f"class.{name}": table for name, table in classes.items()}
    tables |= {f"model.{json.dumps(name)}": table for name, table in models.items()}
    serves = {} if models else {"serves": [MODEL]}
    for name, place in places.items():
        told = {"url": urls[name], **serves, "context_tokens": place.context_tokens, "probe_s": 3600}
        tables[f"endpoint.{name}"] = {"prior": SURE} | told | place.settings
    return "\n".join(f"[{name}]\n{_lines(table)}" for name, table in tables.items())


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return value.isoformat() if isinstance(value, date) else json.dumps(value)
