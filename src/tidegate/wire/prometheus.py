"""Gauges out of a Prometheus text exposition: the few that probes need."""

import re
from collections.abc import Collection
from math import isfinite

# vLLM's is about 200 KiB with every histogram.
EXPOSITION_BYTES_MAX = 1024 * 1024

_SAMPLE = re.compile(
    rb'([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]*([-+.0-9a-zA-Z]+)(?:[ \t].*)?'
)
_COUNT = re.compile(rb"[0-9]{1,15}")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

Labels = dict[bytes, bytes]


def gauges(text: bytes, names: Collection[str]) -> dict[str, float]:
    """The values of the named metrics, each summed over its label sets. What is missing is absent, never zero."""
    return {name: sum(value for _, value in found) for name, found in samples(text, names).items()}


def count(told: bytes | None) -> int | None:
    """A count that stands in a label, as in info metrics; None where it is none, as `None` is in vLLM's."""
    return int(told) if told is not None and _COUNT.fullmatch(told) else None


def samples(
    text: bytes, names: Collection[str], bytes_max: int = EXPOSITION_BYTES_MAX
) -> dict[str, list[tuple[Labels, float]]]:
    """The samples of the named metrics with their labels, values of labels as they are escaped.

    NaN, infinities and lines that do not parse are passed over. An exposition of more than `bytes_max` tells nothing:
    half of its label sets would make a wrong sum.
    """
    found: dict[str, list[tuple[Labels, float]]] = {}
    if len(text) > bytes_max:
        return found
    wanted = {name.encode(): name for name in names}
    beginnings = tuple(wanted)
    for line in text.splitlines():
        if not line.startswith(beginnings):
            continue
        sample = _SAMPLE.fullmatch(line)
        name = wanted.get(sample[1]) if sample is not None else None
        if sample is None or name is None:
            continue
        try:
            value = float(sample[3])
        except ValueError:
            continue
        if isfinite(value):
            found.setdefault(name, []).append((dict(_LABEL.findall(sample[2] or b"")), value))
    return found
