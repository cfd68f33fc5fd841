"""What a courier has done, for Prometheus: numbers alone."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from tidegate.wire.courier import Why

DONE, LEFT = "done", "left"


class Counts:
    """Counters since the start, and two gauges that are read when somebody asks."""

    def __init__(self, free_bytes: Callable[[], int], held: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._blobs = Counter(
            "tidegate_courier_blobs",
            "What came of each blob, by what was asked: ship, receive, restore, discard or expire.",
            ["verb", "outcome"],
            registry=self._registry,
        )
        self._bytes = Counter(
            "tidegate_courier_bytes", "Bytes of blobs that arrived whole.", ["verb"], registry=self._registry
        )
        free = Gauge("tidegate_courier_free_bytes", "Room for blobs.", registry=self._registry)
        free.set_function(free_bytes)
        waiting = Gauge("tidegate_courier_held_blobs", "Blobs that wait to be restored.", registry=self._registry)
        waiting.set_function(held)

    def done(self, verb: str, size_bytes: int = 0) -> None:
        """It went well."""
        self._blobs.labels(verb, DONE).inc()
        if size_bytes:
            self._bytes.labels(verb).inc(size_bytes)

    def failed(self, verb: str, why: Why) -> None:
        """It did not."""
        self._blobs.labels(verb, why.value).inc()

    def left(self, verb: str) -> None:
        """Whoever asked has gone before."""
        self._blobs.labels(verb, LEFT).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
