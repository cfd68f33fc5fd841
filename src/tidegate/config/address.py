"""Addresses and URLs: taken apart once, and judged by where they lead."""

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

# Names that only resolve inside a network: a bare host name, and the suffixes kept for that use.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc")
# An address of IPv4 as one number, which may be anybody's.
_NUMBER = re.compile(r"^(?:0x[0-9a-f]*|[0-9]+)$")
_HOST = re.compile(r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$")
_PATH = re.compile(r"^(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$")
# A version at the end: the protocol's own, a vendor's, as in `/api/paas/v4`, or one before Google's name of the
# protocol. Three digits are hardware, as in `/v100`.
_VERSIONED = re.compile(r"/v[0-9]{1,2}(?:[a-z][a-z0-9]*)?(?:/openai)?$")
# What is added to an address for a request of one kind, or for a probe.
_REQUESTS = ("/chat/completions", "/completions", "/messages", "/embeddings", "/responses", "/models")


class Address(msgspec.Struct, frozen=True):
    """Where to listen. Port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """Where an upstream listens. Below `path` lies what `api_path` says: most often `/v1`, which is not part of it."""

    tls: bool
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{Address(self.host, self.port)}{api_path(self.path)}"


def api_path(path: str) -> str:
    """The path of the OpenAI API at that of a URL: `/v1` is added, unless there is a version already."""
    path = path.rstrip("/")
    return path if _VERSIONED.search(path) else path + "/v1"


def parse_address(text: str) -> Address:
    """`host:port` or `[host]:port`; ValueError says what is wrong with it."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("a port is missing")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError("the port is not a number from 0 to 65535")
    return Address(host, int(port))


def parse_url(text: str) -> Url:
    """An upstream's base URL; ValueError says what is wrong, without repeating what may be a secret."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("it has characters that no URL has")
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets without an address in them; the library's message would repeat the text
        raise ValueError("it has no valid host") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("it begins neither with http:// nor with https://")
    if "@" in parts.netloc:
        raise ValueError("it has a user name or password in it")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("it has a query or fragment")
    host = parts.hostname
    if not host or not (_is_ip(host) or _HOST.match(host)):
        raise ValueError("it has no valid host")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("its port is not a number from 1 to 65535")
    path = parts.path.rstrip("/")
    if not _PATH.match(path):
        raise ValueError("its path is not a plain one")
    if ending := next(filter(path.endswith, _REQUESTS), None):
        raise ValueError(f"it ends in `{ending}`, which each request adds by itself")
    above = path.removesuffix("/v1")
    if api_path(above) == path:
        path = above
    tls = parts.scheme == "https"
    return Url(tls=tls, host=host, port=port or (443 if tls else 80), path=path)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    ip = _ip(host)
    if ip is not None:
        return ip.is_loopback
    return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")


def is_private(host: str) -> bool:
    """Whether what is sent there stays in networks of one's own; shared address space counts, as VPNs use it."""
    ip = _ip(host)
    if ip is not None:
        return not ip.is_global
    name = host.lower().rstrip(".")
    return name.endswith(_PRIVATE_SUFFIXES) or ("." not in name and not _NUMBER.match(name))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _is_ip(host: str) -> bool:
    return _ip(host) is not None
