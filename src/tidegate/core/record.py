"""What records of compiled modules derive from: mypyc drops the keywords of a class statement, and keeps its bases."""

import msgspec


class Untracked(msgspec.Struct, gc=False):
    """A record that nothing it refers to refers back to: the garbage collector has nothing to look for in it.

    Predictions make dozens for each decision.
    """


class Fixed(msgspec.Struct, frozen=True, gc=False):
    """The same, and nothing of it changes."""
