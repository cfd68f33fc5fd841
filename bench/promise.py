"""What a benchmark says of something that was promised."""

import msgspec


class Promise(msgspec.Struct, kw_only=True):
    """What of it was kept, and by whom it was not, the worst first."""

    promise: str
    kept: bool
    found: str
    losing: list[str]
