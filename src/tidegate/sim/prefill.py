"""Prompts that are prefilled in one of two places, with the queues that `core/throughput` leaves out.

Instances take one prompt after the other, here as there, in the order in which it was decided. The link carries one KV
cache after the other, and may begin while a cache is computed; then the request takes one of the slots that decode.
Every request is decided on arrival and stays where it was sent.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import heapreplace
from math import inf
from typing import Protocol

import msgspec

from tidegate.core.offload import Backlog
from tidegate.core.throughput import Model
from tidegate.sim.loop import Loop


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a second from each of some times on, in their order; the first is that of all time before, too.

    A cache can cross while it is computed, during the last `overlap` of that. Its last part, one of `layers`, crosses
    when all is computed.
    """

    rates: tuple[tuple[float, float], ...]
    overlap: float
    layers: int


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Instances that prefill there and here, slots that decode one request at a time each, and the link."""

    model: Model
    remote: int
    prefill: int
    slots: int
    decode_s: float
    link: Link


class Served(msgspec.Struct, frozen=True, gc=False):
    """A request whose first token came `ttft_s` after it did."""

    arrived_s: float
    tokens: float
    away: bool
    ttft_s: float


class Rule(Protocol):
    """Who decides where prompts are prefilled."""

    def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:
        """Whether this one, which has just come, is sent away."""

    def crossed(self, kv_bytes: float, seconds: float, now_s: float) -> None:
        """A cache has crossed the link, which carried nothing else in these seconds."""


class Wire:
    """A link whose rate changes, as the bytes that could have crossed it since the beginning."""

    def __init__(self, rates: tuple[tuple[float, float], ...]) -> None:
        self._times = [at_s for at_s, _ in rates]
        self._rates = [rate for _, rate in rates]
        self._places = [0.0]
        for i in range(1, len(rates)):
            self._places.append(self._places[-1] + self._rates[i - 1] * (self._times[i] - self._times[i - 1]))
        self._taken = 0.0

    def place(self, at_s: float) -> float:
        """How many bytes could have crossed by then."""
        i = max(bisect_right(self._times, at_s) - 1, 0)
        return self._places[i] + self._rates[i] * (at_s - self._times[i])

    def when(self, place: float) -> float:
        """By when so many could have."""
        i = max(bisect_right(self._places, place) - 1, 0)
        return self._times[i] + (place - self._places[i]) / self._rates[i]

    def carry(self, size: float, now_s: float) -> tuple[float, float]:
        """From when until when one more cache crosses, after those before it."""
        begins = max(self._taken, self.place(now_s))
        self._taken = begins + size
        return self.when(begins), self.when(self._taken)


class Prefill:
    """The queues: who asks has to `come`, and `served` is called when the first token does."""

    def __init__(self, site: Site, rule: Rule, loop: Loop, served: Callable[[Served], None]) -> None:
        self._site, self._rule, self._loop, self._served = site, rule, loop, served
        self._wire = Wire(site.link.rates)
        # When instances and slots are free, heaps: the first one is the next. Where there is none, never.
        self._here, self._there = [0.0] * site.prefill or [inf], [0.0] * site.remote or [inf]
        self._slots = [0.0] * site.slots
        # Of what was sent away and has not crossed.
        self._bytes = 0.0

    def come(self, tokens: float) -> None:
        """Somebody asks."""
        now_s, model = self._loop.now_s, self._site.model
        backlog = Backlog(
            local_s=max(self._here[0] - now_s, 0.0), remote_s=max(self._there[0] - now_s, 0.0), link_bytes=self._bytes
        )
        if self._rule.away(tokens, backlog, now_s):
            begins_s = max(self._there[0], now_s)
            computed_s = begins_s + model.remote_s.at(tokens)
            heapreplace(self._there, computed_s)
            size, link = model.kv_bytes.at(tokens), self._site.link
            self._bytes += size
            self._loop.at(
                computed_s - link.overlap * (computed_s - begins_s), self._cross, now_s, tokens, size, computed_s
            )
        else:
            computed_s = max(self._here[0], now_s) + model.local_s.at(tokens)
            heapreplace(self._here, computed_s)
            self._loop.at(computed_s, self._decode, now_s, tokens, False)

    def _cross(self, arrived_s: float, tokens: float, size: float, computed_s: float) -> None:
        """What there is of a cache may cross."""
        link = self._site.link
        # It is put in line when it would not have to wait for the rest of it.
        begins_s, ends_s = self._wire.carry(size, self._loop.now_s)
        last_s = (ends_s - begins_s) / link.layers
        self._loop.at(ends_s, self._crossed, size, ends_s - begins_s)
        self._loop.at(max(ends_s, computed_s + last_s), self._decode, arrived_s, tokens, True)

    def _crossed(self, size: float, seconds: float) -> None:
        self._bytes -= size
        self._rule.crossed(size, seconds, self._loop.now_s)

    def _decode(self, arrived_s: float, tokens: float, away: bool) -> None:
        """Its cache is here: the first token comes when a slot is free."""
        begins_s = max(self._slots[0], self._loop.now_s)
        heapreplace(self._slots, begins_s + self._site.decode_s)
        self._loop.at(begins_s, self._served, Served(arrived_s, tokens, away, begins_s - arrived_s))


def open_loop(site: Site, rule: Rule, times_s: Sequence[float], tokens: Sequence[float]) -> list[Served]:
    """All who come at these times, whatever becomes of others; in the order of their first tokens."""
    loop, found = Loop(0.0), list[Served]()
    queues = Prefill(site, rule, loop, found.append)
    for at_s, size in zip(times_s, tokens, strict=True):
        loop.run(at_s)
        loop.now_s = at_s
        queues.come(size)
    loop.run(inf)
    return found


def closed_loop(site: Site, rule: Rule, at_once: int, tokens: Iterator[float], until_s: float) -> list[Served]:
    """As many are always waiting for their first token: with each that comes, the next one asks."""
    loop, found = Loop(0.0), list[Served]()

    def served(one: Served) -> None:
        found.append(one)
        queues.come(next(tokens))

    queues = Prefill(site, rule, loop, served)
    for _ in range(at_once):
        queues.come(next(tokens))
    loop.run(until_s)
    return found
