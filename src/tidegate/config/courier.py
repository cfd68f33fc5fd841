"""The file of a courier: what stands in it, what it has to be, and its reference page."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.config import mutual, secret
from tidegate.config.address import Address, Url, is_private, parse_address, parse_url
from tidegate.config.convert import convert, unknown
from tidegate.config.handover import COURIER_NAME
from tidegate.config.load import document, read
from tidegate.config.mutual import SECRET_CHARS_MIN, MutualTls
from tidegate.config.problem import ConfigError, Problems
from tidegate.config.reference import section
from tidegate.config.secret import Secret
from tidegate.config.table import END, MutualTlsTable, SecretTable, Table, Text


class CourierTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process: where it listens, what it may keep, and whom it believes."""

    name: Annotated[
        str,
        Meta(
            pattern=COURIER_NAME,
            max_length=253,
            description="Its name, which is among the DNS names of its certificate; tickets say it. It has no default: "
            "a wrong guess would refuse everything.",
        ),
    ]
    gateway: Annotated[
        str,
        Meta(
            pattern=COURIER_NAME,
            max_length=253,
            description="The DNS name in the gateway's certificate: who else asks for a blob to be sent or restored is "
            "refused. No default, as above.",
        ),
    ]
    folder: Annotated[
        Text,
        Meta(
            min_length=1,
            description="The engine's `--slot-save-path`: a folder in memory (tmpfs), of this user alone, for nothing "
            "else. It is made where it is missing. No default, since two couriers must not share one: the second does "
            "not start.",
        ),
    ]
    secret: Annotated[
        SecretTable,
        Meta(
            description=f"What tickets are signed with, the gateway's and all its couriers' own: {SECRET_CHARS_MIN} "
            "characters at least, as from `openssl rand -hex 32`. It has no default: it would be no secret."
        ),
    ]
    tls: Annotated[
        MutualTlsTable,
        Meta(description="Certificate, key and authority. No default: what crosses the network is a prompt."),
    ]
    listen: Annotated[
        str,
        Meta(
            max_length=300,  # a host name has at most 253 characters
            description="Address for the gateway and other couriers, `host:port`. Beyond loopback it is meant to be "
            "told: one on this machine alone is of use to nobody but a test.",
        ),
    ] = "127.0.0.1:8490"
    space_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,  # a terabyte
            description="Memory for blobs, those on their way included; the oldest that nobody has claimed makes room. "
            "An 8B model takes 128 KiB a token: a prompt of 8,000 tokens fits four times.",
        ),
    ] = 4096
    transfers_max: Annotated[
        int,
        Meta(
            ge=1,
            le=64,  # beyond, each gets so little of a link that none is worth it
            description="Blobs sent and received at once; more are refused. Four, since one fills most links.",
        ),
    ] = 4
    unclaimed_s: Annotated[
        float,
        Meta(
            ge=1,
            le=600,  # as long as a ticket lives
            description="How long a blob is kept that is not restored. A minute, since what is kept is a prompt. A "
            "gateway may want it later, where all slots of the engine are busy for longer: then its prompt is computed "
            "once more, and was paid for in vain. Keep it longer there.",
        ),
    ] = 60.0


_KV = "as the engine was started; it does not tell, and refuses what it cannot read. The default is llama.cpp's."


class CourierEngineTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The llama.cpp beside it, and what it does not tell of itself."""

    url: Annotated[
        str,
        Meta(
            max_length=2048,
            description="Where it listens on this machine, as in `http://127.0.0.1:8080`. It has no default: the wrong "
            "engine would be given somebody's prompt.",
        ),
    ]
    api_key_env: Annotated[
        str,
        Meta(
            max_length=128,
            description="Environment variable that holds the engine's key, where it was started with `--api-key`. "
            "Never the key itself, as everywhere.",
        ),
    ] = ""
    api_key_file: Annotated[
        Text,
        Meta(description="File that holds it, relative to this one, not readable by everybody. Instead of that."),
    ] = ""
    kv_type_k: Annotated[
        str,
        Meta(pattern=r"^[a-z0-9_]+" + END, max_length=16, description=f"`--cache-type-k`, {_KV}"),
    ] = "f16"
    kv_type_v: Annotated[
        str,
        Meta(pattern=r"^[a-z0-9_]+" + END, max_length=16, description=f"`--cache-type-v`, {_KV}"),
    ] = "f16"
    flash_attention: Annotated[bool, Meta(description=f"`--flash-attn`, {_KV}")] = True
    unified: Annotated[bool, Meta(description=f"`--kv-unified`, {_KV}")] = False
    arguments: Annotated[
        str,
        Meta(
            pattern=r"^[ -~]*" + END,
            max_length=1000,
            description="What else it was started with that changes what it computes, as one text: "
            "`--rope-scaling yarn --rope-scale 4`, `--lora` with the digest of the adapter. It does not tell; both "
            "sides have to say the same.",
        ),
    ] = ""
    weights_sha256: Annotated[
        str,
        Meta(
            pattern=r"^([0-9a-f]{64})?" + END,
            max_length=64,
            description="SHA-256 of the model's file, where the file that the engine names cannot be read here; of a "
            "model in several files that of all, one after the other (`cat m-*.gguf | sha256sum`). Left out, it is "
            "computed once and again when a file changes.",
        ),
    ] = ""


class CourierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The file, checked."""

    file: Path
    courier: CourierTable
    engine: CourierEngineTable
    listen: Address
    engine_url: Url
    engine_key: Secret | None
    folder: Path
    secret: Secret
    tls: MutualTls


def load(path: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> CourierConfig:
    """The courier's file at `path`; ConfigError tells everything that is wrong with it."""
    shown = os.fspath(path)
    problems = Problems(shown)
    tables = document(read(shown), shown)
    unknown(tables, ("courier", "engine"), problems)
    courier = convert(tables.get("courier", {}), "courier", CourierTable, problems)
    engine = convert(tables.get("engine", {}), "engine", CourierEngineTable, problems)
    listen = None if courier is None else _listen(courier, problems)
    url = None if engine is None else _url(engine, problems)
    base = Path(shown).parent
    named = os.environ if variables is None else variables
    found = key = None
    if engine is not None:
        key = secret.api_key("engine", engine.api_key_env, engine.api_key_file, base, problems, named)
    if courier is not None:
        found = mutual.ticket_secret("courier.secret", courier.secret, base, problems, named)
    if courier is not None:
        mutual.check("courier.tls", mutual.files(courier.tls, base), problems)
        if "\0" in courier.folder:
            problems.add("courier.folder", "this is not the name of a folder", "write a path")
    if problems.found:
        raise ConfigError(problems.found)
    assert courier is not None
    assert engine is not None
    assert listen is not None
    assert url is not None
    assert found is not None
    return CourierConfig(
        file=Path(shown),
        courier=courier,
        engine=engine,
        listen=listen,
        engine_url=url,
        engine_key=key,
        folder=base / courier.folder,
        secret=found,
        tls=mutual.files(courier.tls, base),
    )


def _listen(courier: CourierTable, problems: Problems) -> Address | None:
    try:
        return parse_address(courier.listen)
    except ValueError as error:
        problems.add(
            "courier.listen", f"{error} in `{courier.listen}`", "write host:port, as in 0.0.0.0:8490 or [::1]:8490"
        )
        return None


def _url(engine: CourierEngineTable, problems: Problems) -> Url | None:
    try:
        url = parse_url(engine.url)
    except ValueError as error:
        problems.add("engine.url", str(error), "write it like http://127.0.0.1:8080")
        return None
    if url.tls:
        problems.add(
            "engine.url",
            "the engine of a courier is on its own machine, where there is nothing to encrypt",
            "write http:// and an address of this machine",
        )
    elif (engine.api_key_env or engine.api_key_file) and not is_private(url.host):
        problems.add(
            "engine.url",
            "the API key would travel through the internet in the clear",
            "write an address of this machine",
        )
    return url


_INTRODUCTION = """\
<!-- Made by `make docs`. Edit the schema in config/courier.py. -->
# The courier's file

`tidegate courier --config FILE` runs the process that carries KV caches beside one llama.cpp; how to set up two of them
is in [handing over a prompt](../explanation/handover.md). An unknown setting is an error; all errors are reported at
once, each with what to do about it. Relative paths start at the folder of the file.
"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [_INTRODUCTION]
    parts.append(section("[courier]", CourierTable, {}))
    parts.append(section("secret = { ... } in [courier]", SecretTable, {}))
    parts.append(section("tls = { ... } in [courier]", MutualTlsTable, {}))
    parts.append(section("[engine]", CourierEngineTable, {}))
    return "\n".join(parts)
