"""See lanes.py beside this, which has what there is to say of them."""

from asyncio import Transport
from collections.abc import Callable
from ssl import MemoryBIO, SSLObject

from tidegate.http.link import Link

class Lane:
    @property
    def chunks(self) -> int: ...
    @property
    def letters(self) -> int: ...
    def arm(self, before: bytes, behind: bytes, /) -> None: ...
    def heard(self) -> bool: ...
    def leave(self) -> None: ...

class Poll:
    def fileno(self) -> int: ...
    def join(
        self,
        owner: Link,
        source: int,
        transport: Transport,
        sink: int,
        tls: SSLObject | None = None,
        incoming: MemoryBIO | None = None,
        outgoing: MemoryBIO | None = None,
        /,
    ) -> Lane: ...
    def run(self, take: Callable[[list[tuple[Link, bytes, int]]], None], /) -> None: ...
    def close(self) -> None: ...
