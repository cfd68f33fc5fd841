"""The files that browsers are given: from the package, nowhere else, under rules that let no script in."""

import gzip
import re
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from tidegate.http.exchange import Exchange

FOLDER: Final = Path(__file__).parent / "pages"
# A chart library has a megabyte; what is larger is no page of ours.
FILE_BYTES_MAX: Final = 8 * 1024 * 1024
FILES_MAX: Final = 256
GZIP_BYTES_MIN: Final = 1024  # what is smaller fits one packet anyway
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,4}")
_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".woff2": b"font/woff2",
    ".txt": b"text/plain; charset=utf-8",
}
_IMAGES: Final = (".png", ".woff2", ".ico")
SAFE: Final = (
    # Charts are drawn by a library of ours on a canvas: no script and no style is in a page, or comes from elsewhere.
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
"""What each answer of ours says to browsers."""


class _File(msgspec.Struct, frozen=True):
    """One file as it was at that time."""

    changed_ns: int
    kind: bytes
    body: bytes
    packed: bytes | None
    tag: bytes


class Pages:
    """Answers with files; what a path means is `at`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    def answer(self, exchange: Exchange) -> bool:
        """Answer, if there is a file for this path."""
        name = at(exchange.path)
        file = None if name is None else self._file(name)
        if file is None:
            return False
        # Checked again each time, for which there is the tag: after an update nobody has half of the pages before.
        headers = [(b"content-type", file.kind), (b"cache-control", b"no-cache"), (b"etag", file.tag), *SAFE]
        if file.packed is not None:
            headers.append((b"vary", b"accept-encoding"))
        if exchange.headers.get(b"if-none-match") == file.tag:
            exchange.respond(304, headers, b"")
        elif file.packed is not None and b"gzip" in exchange.headers.get(b"accept-encoding", b""):
            exchange.respond(200, [*headers, (b"content-encoding", b"gzip")], file.packed)
        else:
            exchange.respond(200, headers, file.body)
        return True

    def _file(self, name: str) -> _File | None:
        path = self._folder / name
        kind = _TYPES.get(path.suffix)
        try:
            status = path.stat()
            known = self._files.get(name)
            if known is not None and known.changed_ns == status.st_mtime_ns:
                return known
            if kind is None or status.st_size > FILE_BYTES_MAX or not path.is_file():
                return None
            body = path.read_bytes()
        except OSError:
            return None
        packed = None
        if path.suffix not in _IMAGES and len(body) >= GZIP_BYTES_MIN:
            packed = gzip.compress(body, mtime=0)
        tag = b'"%b"' % blake2b(body, digest_size=12).hexdigest().encode()
        file = _File(status.st_mtime_ns, kind, body, packed, tag)
        if len(self._files) < FILES_MAX:
            self._files[name] = file
        return file


def at(path: str) -> str | None:
    """The file that a path means, None where it can mean none."""
    if path == "/":
        return "index.html"
    if path == "/login":
        return "login.html"
    if path == "/favicon.ico":
        return "assets/favicon.ico"
    name = path.removeprefix("/")
    return name if name.startswith("assets/") and _PATH.fullmatch(name) else None
