"""Mutual TLS among gateways and couriers: each shows a certificate of one authority, and checks the other's."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.config import secret
from tidegate.config.door import no_password, serve, unreadable
from tidegate.config.problem import Problems
from tidegate.config.secret import Secret, SecretError
from tidegate.config.table import MutualTlsTable, SecretTable

SECRET_CHARS_MIN = 32  # below, whoever has seen one ticket could try secrets until one fits


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
        context.load_cert_chain(self.cert, self.key, password=no_password)
        return context


def files(table: MutualTlsTable, folder: Path) -> MutualTls:
    """The files that a table names, relative to `folder`."""
    return MutualTls(cert=folder / table.cert, key=folder / table.key, ca=folder / table.ca)


def ticket_secret(
    path: str, table: SecretTable, folder: Path, problems: Problems, variables: Mapping[str, str]
) -> Secret | None:
    """What tickets are signed with; None where that is wrong, which is noted."""
    made_by = "openssl rand -hex 32"
    try:
        return secret.of_table(table, "tickets.key", folder, variables, chars_min=SECRET_CHARS_MIN, made_by=made_by)
    except SecretError as error:
        problems.add(secret.setting(path, table), error.message, error.remedy)
        return None


def check(path: str, files: MutualTls, problems: Problems) -> None:
    """Note what is wrong with the files."""
    for file in (files.cert, files.key, files.ca):
        if unreadable(file) is not None:
            problems.add(path, f"{file} is no file that this user can read", "name a file in PEM")
            return
    remedy = (
        "name a certificate, the private key that belongs to it, without a password, and the authority's certificate, "
        "all in PEM"
    )
    serve(path, files.key, files.server, "certificate, key and authority", remedy, problems)
