"""The two addresses at which we listen, and what has to guard them where other machines reach them."""

import ipaddress
import os
import ssl
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.config import secret
from tidegate.config.address import Address, Url, is_loopback, parse_address
from tidegate.config.problem import Problems
from tidegate.config.schema import GatewayTable
from tidegate.config.secret import Secret, SecretError
from tidegate.config.table import SecretTable, TlsTable

# By which addresses this machine reaches what listens at a host that is more than one, or all, of its own. Loopback has
# many, but the first is most often meant.
_LOOPBACK = {
    "localhost": ("127.0.0.1", "::1"),
    "": ("127.0.0.1", "::1"),
    "0.0.0.0": ("127.0.0.1",),  # noqa: S104 - to compare with, not to listen
    "::": ("::1",),
}
_FAMILIES = frozenset({4, 6})
ADMIN_KEY_CHARS_MIN = 20  # what is shorter was thought up by somebody, and can be guessed by somebody else


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Certificate and key of our own, as files in PEM."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """The context for our clients. Raises OSError (an SSLError is one) or ValueError for files that do not do."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        return context

    def renew(self, context: ssl.SSLContext) -> None:
        """Show what the files hold now to clients that come from now on. Raises as `context` does."""
        # A certificate whose key is not its own would take the place of the one before all the same, and serve nobody.
        self.context()
        self._load(context)

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self.cert, self.key, password=no_password)


def tls(table: TlsTable, folder: Path) -> Tls:
    """The files that a table names, relative to `folder`."""
    return Tls(cert=folder / table.cert, key=folder / table.key)


def check(gateway: GatewayTable, folder: Path, problems: Problems, variables: Mapping[str, str]) -> Secret | None:
    """Note what is wrong with the addresses and their guards; the secret of the admin address, if it has one."""
    listen, admin = addresses(gateway, problems)
    if listen is not None and admin is not None and _same(listen, admin):
        problems.add("gateway.admin", "this is the clients' address", "give it a port of its own, as in 127.0.0.1:8401")
    elif listen is not None and admin is not None and (_holds(listen, admin) or _holds(admin, listen)):
        problems.add(
            "gateway.admin",
            f"`{gateway.admin}` and the clients' address, `{gateway.listen}`, cannot both be had: one holds the other",
            "give it a port of its own, as in 127.0.0.1:8401",
        )
    if listen is not None and not is_loopback(listen.host) and not gateway.keys:
        problems.add(
            "gateway.listen",
            f"`{gateway.listen}` can be reached from other machines, and there are no client keys: "
            "whoever reaches it may spend your money",
            'make a key with `tidegate keys create NAME` and write keys = "keys.db", '
            f"or listen on 127.0.0.1:{listen.port or 8400}",
        )
    if admin is not None and not is_loopback(admin.host) and gateway.admin_key is None:
        problems.add(
            "gateway.admin",
            f"`{gateway.admin}` can be reached from other machines, and there is no admin_key: "
            "whoever reaches it reads your metrics and decisions",
            f'write admin_key = {{ file = "admin.key" }}, or listen on 127.0.0.1:{admin.port or 8401}',
        )
    file = folder / gateway.keys
    # What can be no file's name is noted beside those of the other files.
    if gateway.keys and "\0" not in gateway.keys and (reason := unreadable(file)) is not None:
        remedy = f"`tidegate keys create NAME --file {file}` makes it, for this user to read"
        if os.access(file, os.F_OK):
            remedy = "name the file that `tidegate keys create` has made, and let this user read it"
        problems.add("gateway.keys", f"{file} cannot be read: {reason}", remedy)
    if gateway.tls is not None:
        _tls(tls(gateway.tls, folder), problems)
    return None if gateway.admin_key is None else admin_key(gateway.admin_key, folder, problems, variables)


def addresses(gateway: GatewayTable, problems: Problems) -> tuple[Address | None, Address | None]:
    """The clients' address and the admin's; None where it is none, which is noted."""
    return _address("gateway.listen", gateway.listen, problems), _address("gateway.admin", gateway.admin, problems)


def _address(path: str, text: str, problems: Problems) -> Address | None:
    try:
        return parse_address(text)
    except ValueError as error:
        problems.add(path, f"{error} in `{text}`", "write host:port, as in 127.0.0.1:8400 or [::1]:8400")
        return None


def own(url: Url, gateway: GatewayTable) -> str:
    """Which of our two addresses this leads to, as a setting; empty where it leads elsewhere, as far as can be known:
    by what names other machines reach this one is not."""
    for setting, text in (("gateway.listen", gateway.listen), ("gateway.admin", gateway.admin)):
        with suppress(ValueError):  # noted where it stands
            if _same(url, parse_address(text)):
                return setting
    return ""


def _same(one: Address | Url, other: Address) -> bool:
    # Port 0 is a free one each time.
    return one.port == other.port != 0 and not _hosts(one.host).isdisjoint(_hosts(other.host))


def _holds(one: Address, other: Address) -> bool:
    """Whether who listens at the first leaves nobody the second: a wildcard holds all addresses of its family."""
    return one.port == other.port != 0 and _families(other.host) <= _wild(one.host)


def _wild(host: str) -> frozenset[int]:
    """The families of which this is every address."""
    if not host:
        return _FAMILIES
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return frozenset()
    return frozenset({ip.version}) if ip.is_unspecified else frozenset()


def _families(host: str) -> frozenset[int]:
    """Of which families a host may be: a name of either, until somebody resolves it."""
    try:
        return frozenset({ipaddress.ip_address(host).version})
    except ValueError:
        return _FAMILIES


def _hosts(host: str) -> frozenset[str]:
    host = host.lower().rstrip(".")
    return frozenset(_LOOPBACK.get(host, (host,)))


def admin_key(table: SecretTable, folder: Path, problems: Problems, variables: Mapping[str, str]) -> Secret | None:
    """The secret of the admin address; None where that is wrong, which is noted."""
    made_by = "openssl rand -hex 24"
    try:
        return secret.of_table(table, "admin.key", folder, variables, chars_min=ADMIN_KEY_CHARS_MIN, made_by=made_by)
    except SecretError as error:
        problems.add(secret.setting("gateway.admin_key", table), error.message, error.remedy)
        return None


def _tls(files: Tls, problems: Problems) -> None:
    readable = True
    for path, file, remedy in (
        ("gateway.tls.cert", files.cert, "name the file of the certificate in PEM, readable by this user"),
        ("gateway.tls.key", files.key, "name the file of its private key in PEM, readable by this user"),
    ):
        if (reason := unreadable(file)) is not None:
            problems.add(path, f"{file} cannot be read: {reason}", remedy)
            readable = False
    if readable:
        remedy = "name a certificate and the private key that belongs to it, both in PEM, the key without a password"
        serve("gateway.tls", files.key, files.context, "certificate and key", remedy, problems)


def serve(path: str, key: Path, context: Callable[[], object], roles: str, remedy: str, problems: Problems) -> None:
    """Note what is wrong with the files of the table at `path`, which can be read: whether everybody can read the
    private key, and what keeps a `context` of them from being made."""
    if key.stat().st_mode & stat.S_IROTH:
        problems.add(f"{path}.key", f"{key} can be read by everybody on this machine", secret.of_few(key))
    try:
        context()
    except (OSError, ValueError) as error:
        problems.add(path, f"they do not serve as {roles}: {_reason(error)}", remedy)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "one of them is not in PEM"
    return str(error)


def unreadable(file: Path) -> str | None:
    """Why it cannot be read, None where it can."""
    try:
        if file.is_dir():
            return "it is a folder"
        if not file.is_file():
            return "there is no such file"
    except OSError as error:
        return error.strerror or "this is not the name of a file"
    return None if os.access(file, os.R_OK) else "this user may not"


def no_password() -> str:
    """A key with a password fails instead of asking for it on a terminal that nobody watches."""
    raise ValueError("the key has a password")
