"""Which of a few classes a number falls in."""


def place_of(edges: tuple[float, ...], value: float) -> int:
    """The first place whose edge is not below the value; behind all of them where there is none.

    As `bisect_left` says it, which compares objects: where this is compiled, numbers are none, and that takes a sixth.
    """
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def place_after(edges: tuple[float, ...], value: float) -> int:
    """The first place whose edge is above the value; behind all of them where there is none: as `bisect_right`."""
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low
