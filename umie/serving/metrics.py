"""What a server counts, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, with a registry of their own.

    Args:
        waiting: returns the number of records that wait.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self._requests = Counter("umie_requests", "Requests.", ("path", "status"), **own)
        time = "Time from the headers of a request to its answer."
        self._seconds = Histogram("umie_request_seconds", time, ("path",), buckets=_SECONDS, **own)
        self._batches = Histogram("umie_batch_records", "Records answered together.", buckets=_RECORDS, **own)
        self._records = Counter("umie_records", "Records answered.", **own)
        queue = Gauge("umie_queue_records", "Records that wait to be answered.", **own)
        queue.set_function(waiting)
        ProcessCollector(registry=self.registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has been answered, or whose client is gone (status 499)."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_batch(self, number: int) -> None:
        """Count a batch of a number of records."""
        self._batches.observe(number)

    def count_records(self, number: int) -> None:
        """Count records that have been answered."""
        self._records.inc(number)

    def text(self) -> bytes:
        """Return all values as text."""
        return generate_latest(self.registry)
