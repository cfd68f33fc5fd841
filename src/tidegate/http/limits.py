"""What the server grants a client that it knows nothing about, and what a turn of the loop is to bear at once."""

from dataclasses import dataclass
from typing import Final

# To take in a body of two megabytes holds the loop for half a millisecond, to judge it for more than one, to send it on
# for half of one. From this size on each has a turn of its own: others wait for one of them, and not for all.
OWN_TURN_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the server, each with its reason."""

    header_bytes_max: int = 64 * 1024  # agents send long session, trace and auth headers; nginx allows 32 KiB
    headers_max: int = 100  # browsers and SDKs send about 20, a mesh adds another 20
    target_bytes_max: int = 8 * 1024  # what nginx and most proxies accept
    body_bytes_max: int = 32 * 1024 * 1024  # a million tokens are 4 MiB; the rest is room for images in base64
    stranger_body_bytes_max: int = (
        64 * 1024
    )  # from whom the server does not know: 10,000 of them take 640 MB, not 320 GB
    # Of bodies larger than that, all that has come while more is to come, or one body, if that may be larger: 32 of the
    # largest, 500 prompts with images. Beyond it whose has been coming for longest is refused: who keeps bodies open.
    arriving_bytes_max: int = 1024 * 1024 * 1024
    # Of the same bodies all whose requests are under way and still need them, or one body: as many. Beyond it the next
    # is refused. Whoever sends them on has each twice, as it came and as it goes.
    kept_bytes_max: int = 1024 * 1024 * 1024
    head_timeout_s: float = 10.0  # a head is one packet or two, even from a phone
    # Silence between two pieces of a body: a lossy link that recovers, not one that died. From whom the server does not
    # know, the whole body: 2 KiB a second.
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0  # keep-alive: longer than the 60 s of common load balancers, so that they close first
    write_stall_s: float = 60.0  # a reader that takes nothing for a minute keeps an engine busy for nobody
    linger_s: float = 2.0  # after a refusal, time for the client to stop sending and read why
    connections_max: int = 10_000  # 260 MB, and a file descriptor each; the upstream side needs as many again
    write_high_water: int = 256 * 1024  # a minute of tokens; beyond it the upstream is paused
    pipelined_bytes_max: int = 64 * 1024  # read ahead of the running exchange; beyond it reading stops
    pipelined_max: int = 32  # requests in one segment; the client repeats the others on a new connection
    sweep_s: float = 0.5  # how late a time-out may fire; one pass over 10,000 connections costs 1 ms
