"""Both addresses over TLS, with keys."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.gateway.harness import CHAT, Answer, chat, house, local, remote, whole, wire
from tests.gateway.test_auth import create
from tests.gateway.test_reload import paths, reload
from tests.http.harness import HOST, eventually, read_response, upstream
from tidegate.engines.fake import FakeEngine, Fault, Script

AUTHORITY = trustme.CA()
LOCKED = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    .decode()
)


def certified(folder: Path) -> dict[str, Any]:
    """The settings of a gateway that has a certificate and asks for keys."""
    made = AUTHORITY.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "key.pem").chmod(0o600)
    return {"tls": {"cert": "cert.pem", "key": "key.pem"}, "keys": "keys.db"}


@asynccontextmanager
async def connected(
    port: int, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that trusts our authority, and speaks this version of TLS at most."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # with the usual level OpenSSL itself would not speak the old ones
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, most
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname="localhost")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(port: int, raw: bytes, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Answer:
    async with connected(port, most) as (reader, writer):
        writer.write(raw)
        return whole(await read_response(reader))


def asking(secret: str, **fields: Any) -> bytes:
    return wire("POST", CHAT, json.dumps(chat(**fields)).encode(), [("authorization", f"Bearer {secret}")])


async def test_both_addresses_speak_tls_and_nothing_else(tmp_path: Path) -> None:
    secret = create(tmp_path)
    async with house(tmp_path, gateway=certified(tmp_path)) as home:
        assert (await ask(home.port, asking(secret))).status == 200
        assert (await ask(home.port, asking(secret, stream=True))).events[-1] == "[DONE]"
        assert (await ask(home.admin_port, wire("GET", "/readyz"))).status == 200
        for port in (home.port, home.admin_port):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await home.send(wire("GET", "/livez"), port=port)


@pytest.mark.parametrize(("listen", "secure", "warned"), [
    ("127.0.0.1:0", False, False), ("0.0.0.0:0", False, True), ("0.0.0.0:0", True, False),
])  # fmt: skip
async def test_the_log_warns_of_what_crosses_the_network_in_the_clear(
    tmp_path: Path, listen: str, secure: bool, warned: bool
) -> None:
    create(tmp_path)
    gateway = certified(tmp_path) | {"listen": listen}
    if not secure:
        del gateway["tls"]
    async with house(tmp_path, gateway=gateway) as home:
        assert any("in the clear" in line["event"] for line in home.log("event")) == warned


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_12_is_the_least_that_is_spoken(tmp_path: Path) -> None:
    secret = create(tmp_path)
    async with house(tmp_path, gateway=certified(tmp_path)) as home:
        assert (await ask(home.port, asking(secret), ssl.TLSVersion.TLSv1_2)).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(home.port, asking(secret), ssl.TLSVersion.TLSv1_1)


async def test_a_client_that_leaves_over_tls_frees_the_engine(tmp_path: Path) -> None:
    secret = create(tmp_path)
    async with house(tmp_path, gateway=certified(tmp_path), laptop=local(Script(fault=Fault.SILENT))) as home:
        async with connected(home.port) as (_, writer):
            writer.write(asking(secret))
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
        await eventually(lambda: home.engines["laptop"].in_flight == 0)


async def test_a_renewed_certificate_is_shown_to_clients_that_come_after_a_reload(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=certified(tmp_path) | {"keys": ""}) as home:

        async def serial() -> str:
            async with connected(home.port) as (_, writer):
                shown: dict[str, Any] = writer.get_extra_info("peercert")
                return str(shown["serialNumber"])

        first = await serial()
        certified(tmp_path)
        assert await serial() == first
        outcome = await home.gateway.reloader.reload("a test")
        assert (outcome.applied, outcome.changes) == (True, ())
        assert await serial() != first
        (tmp_path / "cert.pem").write_text("no certificate")
        refused = await home.gateway.reloader.reload("a test")
        assert [p.path for p in refused.problems] == ["gateway.tls"]
        assert await serial() != first


async def test_a_certificate_without_its_key_takes_nothing_down_and_the_prices_of_a_new_day_hold(
    tmp_path: Path,
) -> None:
    """Midnight comes while somebody has written one of the two files, or a key with a password."""
    async with house(tmp_path, gateway=certified(tmp_path) | {"keys": ""}) as home:
        key = (tmp_path / "key.pem").read_text()
        certified(tmp_path)
        for bad in (key, LOCKED):
            (tmp_path / "key.pem").write_text(bad)
            home.gateway.reloader._day -= 1
            day = home.gateway.reloader._day
            await home.gateway.reloader.look_at_the_day()
            assert home.gateway.reloader._day == day + 1
            assert (await ask(home.port, wire("GET", "/livez"))).status == 200
        told = [line for line in home.log("event") if line["event"].startswith("certificate not renewed")]
        assert len(told) == 2


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        target.write(piece)
    target.close()


async def test_certificates_under_the_same_name_are_read_by_a_reload(tmp_path: Path) -> None:
    """Those of an engine's authority, which was renewed."""
    renewed, file = trustme.CA(), tmp_path / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    renewed.issue_cert(HOST).configure_cert(context)
    AUTHORITY.cert_pem.write_to_path(str(file))

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(HOST, engine.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, to))
                both.create_task(copy(there, writer))
        finally:
            to.transport.abort()

    async with FakeEngine(Script()) as engine, upstream(pass_on, context) as up:
        behind = remote(url=f"https://{HOST}:{up.port}/v1", tls_ca_file="ca.pem")
        async with house(tmp_path, cloud=behind) as home:
            assert (await home.ask()).status == 503
            renewed.cert_pem.write_to_path(str(file))
            assert paths(await reload(home)) == ["endpoint.cloud.tls_ca_file"]
            assert (await home.ask()).endpoint == "cloud"
            connections = up.connections
            assert paths(await reload(home)) == []
            assert (await home.ask()).status == 200
            assert up.connections == connections
