"""Who a request comes from: a person with a tool, or a page in a browser that its owner has not made."""

import socket
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from tidegate.config.address import is_loopback, is_private
from tidegate.wire.board import DASHBOARD
from tidegate.wire.errors import BadRequest

_OTHERS = (b"cross-site", b"same-site")  # the latter: another port, or a name beside ours


def refuse_strangers(headers: Mapping[bytes, bytes]) -> None:
    """Raise for a request that a page in a browser may have made: no secret guards loopback from it.

    Such a page has an origin, or reaches us by a name of its own that it made to mean this machine.
    """
    host = headers.get(b"host", b"")
    if not is_loopback(_host(b"//" + host)):
        raise BadRequest(
            "Without gateway.admin_key, this is for whoever asks this machine by its own name: 127.0.0.1, [::1] or "
            "localhost.",
            status=403,
        )
    # Of another port, too: what else this machine serves may show pages of others.
    if not is_own(headers):
        raise BadRequest("This is not for pages of others; use curl, or set gateway.admin_key.", status=403)


def refuse_forged(headers: Mapping[bytes, bytes]) -> None:
    """Raise for a change that a page of others may have sent with a cookie of ours.

    A browser asks for leave before it sends a header that is not its own, and we give none.
    """
    if DASHBOARD not in headers or not is_own(headers):
        raise BadRequest(f"This is for the dashboard's own pages, which send `{DASHBOARD.decode()}: 1`.", status=403)


def refuse_pages(headers: Mapping[bytes, bytes]) -> None:
    """Raise for what a page from elsewhere asks, where no key guards what costs money.

    It could not read the answer, but a browser lets it ask all the same, as long as it says that it sends plain text.
    What it reads by a name of its own, that it made to mean this machine, comes without an origin.
    """
    origin = headers.get(b"origin", b"").lower()
    if not origin and not _is_nobody_elses(headers.get(b"host", b"")):
        raise BadRequest(
            "Without gateway.keys, this is for whoever asks by an address, by this machine's own name, or by one that "
            "means nothing outside its network, as localhost does. A proxy before it can ask by 127.0.0.1.",
            status=403,
        )
    if origin == b"null" or (origin.startswith((b"http:", b"https:")) and not is_loopback(_host(origin))):
        raise BadRequest(
            "Without gateway.keys, this is not for pages in browsers that are not of this machine.", status=403
        )


def is_own(headers: Mapping[bytes, bytes]) -> bool:
    """Whether no page of another address asks: there is no origin, or it is the address that is asked."""
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    # What a page has shown as an image or run as a script has no origin, but browsers say whose page it was. Whoever
    # follows a link has asked himself.
    embedded = headers.get(b"sec-fetch-site") in _OTHERS and headers.get(b"sec-fetch-mode") != b"navigate"
    if origin is None:
        return not embedded
    return origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower())


@lru_cache(maxsize=16)
def _is_nobody_elses(host: bytes) -> bool:
    """Whether nobody else can have made this name mean us: an address, our own name, or one that only a network of
    ours resolves."""
    name = _host(b"//" + host)
    if is_private(name) or name == socket.gethostname().lower():
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _host(url: bytes) -> str:
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
