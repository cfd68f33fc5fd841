"""Couriers in this process, with an authority of their own, and what somebody sends who is none."""

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import trustme
from blake3 import blake3

from tests.courier.standin import Standin, state
from tidegate.clock import Clock
from tidegate.config.courier import load
from tidegate.config.mutual import MutualTls
from tidegate.courier.app import Courier
from tidegate.engines.courier import CourierClient
from tidegate.http.client import Origin, Pool
from tidegate.telemetry.log import Log
from tidegate.wire.blob import Declared, head_bytes, tokens_of
from tidegate.wire.courier import Refused, Ship
from tidegate.wire.ticket import Ticket, sign

HOST = "127.0.0.1"
SECRET = "a secret that only tests know, and they tell everybody"
CONFIG = """
[courier]
name = "{name}"
gateway = "gateway"
listen = "{listen}"
folder = "{folder}"
secret = {{ file = "tickets.key" }}
tls = {{ cert = "{name}.pem", key = "{name}.key", ca = "ca.pem" }}
space_mib = {space_mib}
transfers_max = {transfers_max}
unclaimed_s = {unclaimed_s}
[engine]
url = "{url}"
arguments = "{arguments}"
api_key_file = "{api_key_file}"
"""


class SetClock(Clock):
    """A clock that a test moves ahead, or that stood still for so long, as the system's shows."""

    __slots__ = ("ahead_s", "slept_s")

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = self.slept_s = 0.0

    def behind_s(self) -> float:
        return super().behind_s() + self.slept_s

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s


class House:
    """A folder with certificates for `gateway`, `a`, `b` and `stranger`, and couriers that are started from there."""

    def __init__(self, folder: Path, saves: Path) -> None:
        self.folder = folder
        self.saves = saves
        self.clock = SetClock()
        self.log = folder / "log"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        for name in ("gateway", "a", "b", "stranger"):
            certify(authority, folder, name)
        (folder / "tickets.key").write_text(SECRET)
        (folder / "tickets.key").chmod(0o600)
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"weights")
        self._pools: list[Pool] = []
        self.couriers: dict[str, Courier] = {}

    def saves_of(self, name: str) -> Path:
        return self.saves / name

    def tls(self, name: str) -> MutualTls:
        folder = self.folder
        return MutualTls(cert=folder / f"{name}.pem", key=folder / f"{name}.key", ca=folder / "ca.pem")

    def configured(self, name: str, url: str, **settings: Any) -> Path:
        told = {
            "listen": f"{HOST}:0",
            "space_mib": 64,
            "transfers_max": 4,
            "unclaimed_s": 60,
            "arguments": "",
            "api_key_file": "",
        } | settings
        file = self.folder / f"{name}.toml"
        file.write_text(CONFIG.format(name=name, url=url, folder=self.saves_of(name), **told))
        return file

    async def start(self, name: str, url: str, **settings: Any) -> Courier:
        courier = Courier(load(self.configured(name, url, **settings)), self.clock)
        await courier.start(Log.to(self.log, self.clock))
        self.couriers[name] = courier
        return courier

    def client(self, courier: str, *, as_: str = "gateway") -> CourierClient:
        origin = Origin(HOST, self.couriers[courier].port, self.tls(as_).client(), courier)
        self._pools.append(Pool(origin, clock=self.clock))
        return CourierClient(self._pools[-1])

    def to(self, courier: str) -> str:
        return f"{HOST}:{self.couriers[courier].port}"

    def ticket(self, fingerprint: str, **fields: Any) -> Ticket:
        now_s = self.clock.now_s()
        told: dict[str, Any] = {
            "source": "a",
            "target": "b",
            "bytes_max": 1 << 25,
            "issued_s": now_s,
            "expires_s": now_s + 60.0,
        }
        return Ticket(id=secrets.token_hex(16), fingerprint=fingerprint, **(told | fields))

    def order(self, ticket: Ticket, *, slot: int = 0, tokens: int = 3) -> Ship:
        return Ship(slot=slot, tokens=tokens, to=self.to(ticket.target), ticket=sign(ticket, SECRET))

    async def stop(self) -> None:
        for pool in self._pools:
            await pool.close()
        for courier in self.couriers.values():
            await courier.stop()


def certify(authority: trustme.CA, folder: Path, name: str) -> None:
    issued = authority.issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    issued.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


class Pair(House):
    """Two couriers, `a` and `b`, each with a stand-in for an engine."""

    engines: dict[str, Standin]

    async def fingerprint(self) -> str:
        health = await self.client("b").health(5.0)
        assert health.fingerprint is not None
        return health.fingerprint

    def events(self) -> list[dict[str, Any]]:
        """What both have logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def files(self) -> list[Path]:
        return [file for name in self.engines for file in self.saves_of(name).iterdir()]


@asynccontextmanager
async def pair(folder: Path, **settings: Any) -> AsyncIterator[Pair]:
    with TemporaryDirectory(dir="/dev/shm") as saves:
        home = Pair(folder, Path(saves))
        home.engines = {name: Standin(home.saves_of(name), home.model) for name in ("a", "b")}
        try:
            for name, engine in home.engines.items():
                await engine.start()
                await home.start(name, f"http://{HOST}:{engine.port}", **settings)
            yield home
        finally:
            await home.stop()
            for engine in home.engines.values():
                await engine.stop()


class Put:
    """A blob as somebody sends it, good until one of its parts is spoilt."""

    def __init__(self, ticket: Ticket, blob: bytes, tokens: int) -> None:
        _, digest = tokens_of(blob[: head_bytes(tokens)])
        self.granted = ticket
        self.ticket = sign(ticket, SECRET).encode()
        self.declared = Declared(
            size_bytes=len(blob), tokens=tokens, tokens_digest=digest, fingerprint=ticket.fingerprint
        )
        self.blob = blob
        self.footer = blake3(blob).digest()
        self.content_length = len(blob) + 32
        self.leaves = False

    def declare(self, **fields: Any) -> None:
        self.declared = msgspec.structs.replace(self.declared, **fields)

    def head(self) -> bytes:
        return (
            b"PUT /v1/blobs HTTP/1.1\r\nhost: b\r\ncontent-length: %d\r\n"
            b"tidegate-ticket: %b\r\ntidegate-blob: %b\r\n\r\n"
        ) % (self.content_length, self.ticket, msgspec.json.encode(self.declared))

    async def send(self, port: int, tls: ssl.SSLContext) -> tuple[int, Refused | None]:
        """The status, 0 where nothing is answered, and why."""
        reader, writer = await asyncio.open_connection(HOST, port, ssl=tls, server_hostname="b")
        try:
            writer.write(self.head() + self.blob + self.footer)
            if self.leaves:
                return 0, None
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            status, body = int(head.split(b" ")[1]), await reader.readexactly(length)
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0, None
        finally:
            writer.transport.abort()
        return status, msgspec.json.decode(body, type=Refused) if status >= 300 else None


def made(tokens: int = 3, size_bytes: int = 100_000) -> bytes:
    return state(list(range(1, tokens + 1)), size_bytes)


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
