"""Couriers beside engines of this machine, with an authority of their own that is thrown away with its folder.

`Couriers(folder)` makes certificates and folders in memory; an engine that is started with `saves(name)` gets its
courier, a process of its own, by `async with couriers.beside(name, engine.url) as port`.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import msgspec

from tidegate.lab.command import running

HOST = "127.0.0.1"
MEMORY = Path("/dev/shm")  # noqa: S108 - where a tmpfs is; the folder in it is this user's alone
PREFIX = "tidegate-lab-"  # of that folder's name; the number of its process follows
GATEWAY = "gateway"
DAYS = "2"  # whoever leaves a demo running over night finds it working
OPENSSL_S_MAX = 30.0

_CONFIG = """\
[courier]
name = "{name}"
gateway = "{gateway}"
listen = "{host}:0"
folder = "{saves}"
secret = {{ file = "tickets.key" }}
tls = {{ cert = "{name}.pem", key = "{name}.key", ca = "ca.pem" }}
space_mib = {space_mib}

[engine]
url = "{url}"
"""


class CouriersError(Exception):
    """There can be no couriers here; the message says why and what helps."""


class _Listening(msgspec.Struct):
    port: int


class Couriers:
    """Those of these `names`, and the gateway's certificate. In `folder` are the files that a configuration names."""

    def __init__(self, folder: Path, names: tuple[str, ...], space_mib: int = 64) -> None:
        self.folder = folder
        self._names = names
        self._space_mib = space_mib
        self._memory: TemporaryDirectory[str] | None = None

    def saves(self, name: str) -> Path:
        """The folder in memory that an engine shares with its courier."""
        assert self._memory is not None, "not entered"
        return Path(self._memory.name) / name

    def __enter__(self) -> Self:
        if not MEMORY.is_dir():
            raise CouriersError(f"there is no {MEMORY}, in which KV caches are passed on; mount a tmpfs there")
        self.folder.mkdir(parents=True, exist_ok=True)
        _certify(self.folder, (GATEWAY, *self._names))
        _sweep()
        try:
            self._memory = TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY)
            for name in self._names:
                self.saves(name).mkdir(mode=0o700)
        except OSError as error:
            self.__exit__(None, None, None)
            raise CouriersError(
                f"no folder can be made in {MEMORY}, in which KV caches are passed on: {error.strerror}; "
                "mount a tmpfs there that this user may write to"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._memory is not None:
            self._memory.cleanup()

    @asynccontextmanager
    async def beside(self, name: str, engine_url: str) -> AsyncIterator[int]:
        """The courier of an engine, and the port on which it listens."""
        config = self.folder / f"{name}.toml"
        config.write_text(
            _CONFIG.format(
                name=name,
                gateway=GATEWAY,
                host=HOST,
                saves=self.saves(name),
                space_mib=self._space_mib,
                url=engine_url,
            )
        )
        words = ("courier", "--json", "--config", str(config))
        async with running(*words, said=self.folder / f"{name}.log") as line:
            yield msgspec.json.decode(line, type=_Listening).port


def _sweep() -> None:
    """Remove from memory what processes have left there that were killed: KV caches, which are prompts."""
    for left in MEMORY.glob(f"{PREFIX}*-*"):
        if not Path("/proc", left.name.removeprefix(PREFIX).split("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)


def _certify(folder: Path, names: tuple[str, ...]) -> None:
    """An authority, a certificate for each name, and what tickets are signed with."""
    if shutil.which("openssl") is None:
        raise CouriersError("there is no openssl, which makes the certificates of couriers; install it")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl(
        folder, "req", "-x509", *key, "-days", DAYS, "-subj", "/CN=couriers", "-keyout", "ca.key", "-out", "ca.pem"
    )
    for name in names:
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
        _openssl(folder, "req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS, "-extfile", f"{name}.ext")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    (folder / "tickets.key").write_text(secrets.token_hex(32))
    for file in folder.glob("*.key"):
        file.chmod(0o600)


def _openssl(folder: Path, *words: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["openssl", *words],  # noqa: S607 - the one of this machine
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=OPENSSL_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise CouriersError(
            f"openssl {words[0]} has not ended after {OPENSSL_S_MAX:g} s; see why with `openssl rand -hex 8`"
        ) from error
    if done.returncode != 0:
        raise CouriersError(f"openssl {words[0]} failed: {done.stderr.strip()[-300:]}; is it OpenSSL 1.1.1 or newer?")
