"""Mutual TLS among gateways and couriers: each shows a certificate of one authority, and checks the other's."""

import ssl
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.config.schema import Table, Text


class MutualTlsTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we prove who we are, and know the others. TLS 1.3 alone is spoken; the files are read at the start."""

    cert: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of the certificate in PEM, relative to this one, with our name among its DNS names. It "
            "has no default: nobody can make one up.",
        ),
    ]
    key: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of its private key in PEM, without a password, not readable by everybody. No default, as "
            "above.",
        ),
    ]
    ca: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of the authority's certificate in PEM: whoever shows one of its certificates may "
            "connect, so it should be one of your own that signs for nobody else. No default, as above.",
        ),
    ]


class MutualTls(msgspec.Struct, frozen=True, kw_only=True):
    """The three files."""

    cert: Path
    key: Path
    ca: Path

    def server(self) -> ssl.SSLContext:
        """For who connects to us. Raises OSError (an SSLError is one) or ValueError for files that do not do."""
        return self._of(ssl.PROTOCOL_TLS_SERVER)

    def client(self) -> ssl.SSLContext:
        """For whom we connect to, whose certificate has to have the name that we expect. Raises as above."""
        return self._of(ssl.PROTOCOL_TLS_CLIENT)

    def _of(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca)
        # A key with a password fails instead of asking for it on a terminal that nobody watches.
        context.load_cert_chain(self.cert, self.key, password=_no_password)
        return context


def files(table: MutualTlsTable, folder: Path) -> MutualTls:
    """The files that a table names, relative to `folder`."""
    return MutualTls(cert=folder / table.cert, key=folder / table.key, ca=folder / table.ca)


def _no_password() -> str:
    raise ValueError("the key has a password")
