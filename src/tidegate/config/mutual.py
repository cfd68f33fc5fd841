"""Mutual TLS among gateways and couriers: each shows a certificate of one authority, and checks the other's."""

import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.config import secret
from tidegate.config.door import unreadable
from tidegate.config.problem import Problems
from tidegate.config.schema import MutualTlsTable, SecretTable
from tidegate.config.secret import Secret, SecretError

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
        # A key with a password fails instead of asking for it on a terminal that nobody watches.
        context.load_cert_chain(self.cert, self.key, password=_no_password)
        return context


def files(table: MutualTlsTable, folder: Path) -> MutualTls:
    """The files that a table names, relative to `folder`."""
    return MutualTls(cert=folder / table.cert, key=folder / table.key, ca=folder / table.ca)


def ticket_secret(
    path: str, table: SecretTable, folder: Path, problems: Problems, variables: Mapping[str, str]
) -> Secret | None:
    """What tickets are signed with; None where that is wrong, which is noted."""
    if bool(table.env) == bool(table.file):
        problems.add(path, "it names both or neither", 'write { env = "VARIABLE" } or { file = "tickets.key" }')
        return None
    where = f"{path}.env" if table.env else f"{path}.file"
    try:
        found = secret.from_variable(table.env, variables) if table.env else secret.from_file(folder / table.file)
    except SecretError as error:
        problems.add(where, error.message, error.remedy)
        return None
    if len(found.reveal()) < SECRET_CHARS_MIN:
        problems.add(where, f"it has fewer than {SECRET_CHARS_MIN} characters", "make one with openssl rand -hex 32")
    return found


def check(path: str, files: MutualTls, problems: Problems) -> None:
    """Note what is wrong with the files."""
    for file in (files.cert, files.key, files.ca):
        if unreadable(file) is not None:
            problems.add(path, f"{file} is no file that this user can read", "name a file in PEM")
            return
    if files.key.stat().st_mode & stat.S_IROTH:
        problems.add(f"{path}.key", f"{files.key} can be read by everybody on this machine", f"chmod 600 {files.key}")
    try:
        files.server()
    except (OSError, ValueError) as error:
        reason = (error.reason or "not in PEM").replace("_", " ").lower() if isinstance(error, ssl.SSLError) else error
        problems.add(
            path,
            f"they do not serve as certificate, key and authority: {reason}",
            "name a certificate, the private key that belongs to it, without a password, and the authority's "
            "certificate, all in PEM",
        )


def _no_password() -> str:
    raise ValueError("the key has a password")
