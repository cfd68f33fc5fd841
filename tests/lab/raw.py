"""HTTP/1.1 by hand, so that tests of the lab lean on nothing of ours but the lab."""

import asyncio

import msgspec


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response; `wire` is each byte of it as it came, `body` is freed of chunk framing."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    wire: bytes


async def exchange(port: int, method: str, path: str, body: object = None) -> Answer:
    """One request on a connection of its own; ConnectionError when it closes without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = b"" if body is None else msgspec.json.encode(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    try:
        writer.write(head.encode() + payload)
        return _answer(await reader.read())
    finally:
        writer.close()


def _answer(wire: bytes) -> Answer:
    head, end, body = wire.partition(b"\r\n\r\n")
    if not end:
        raise ConnectionError("closed without an answer")
    status_line, *lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if any((name.lower(), value) == ("transfer-encoding", "chunked") for name, value in headers):
        body = _unchunked(body)
    return Answer(status=int(status_line.split(" ")[1]), headers=headers, body=body, wire=wire)


def _unchunked(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(pieces)
