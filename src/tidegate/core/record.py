"""What every noun of the core is made from."""

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact. Frozen, so that a journal line and the argument it came from can be one object.

    Settings are written out whole instead: a default that changes later must not change an old journal.
    """
