"""What a server accepts, and the errors of requests that go beyond it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from umie.errors import UmieError, check_positive, check_whole
from umie.records.jsonl import MAX_TEXT

_MB = 1_000_000


class RequestError(UmieError):
    """A request that is not answered, with the status that says why; see ``umie.serving.app``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server accepts.

    Args:
        batch_size: records that are answered together.
        max_wait_ms: how long the first record of a batch waits for others.
        max_queue: records that wait to be answered.
        max_body_mb: size of a request, in megabytes.
        timeout_s: seconds from the headers of a request to its answer.
        max_records: records of a request.
        max_text: characters of a text.
        max_images: images of a record.
        max_pixels: pixels of an image.
        max_items: regions, entities, relations and events of a record, each.
        max_labels: labels of a record, over all tasks.
        max_label: characters of a label.
        max_memory_mb: megabytes of bodies and decoded images that are held at once, for all clients.

    Raises:
        UmieError: a limit is out of range.
    """

    batch_size: int = 16
    max_wait_ms: float = 5
    max_queue: int = 256
    max_body_mb: float = 20
    timeout_s: float = 30
    max_records: int = 64
    max_text: int = 10_000
    max_images: int = 10
    max_pixels: int = 25_000_000
    max_items: int = 200
    max_labels: int = 200
    max_label: int = 100
    max_memory_mb: float = 1_000

    def __post_init__(self) -> None:
        for name in (
            "batch_size", "max_queue", "max_records", "max_text", "max_images", "max_pixels", "max_items", "max_labels",
            "max_label",
        ):  # fmt: skip
            check_whole(name, getattr(self, name), 1)
        for name in ("max_body_mb", "timeout_s", "max_memory_mb"):
            check_positive(name, getattr(self, name))
        if not 0 <= self.max_wait_ms < 1000 * self.timeout_s:
            raise UmieError(f"max_wait_ms is {self.max_wait_ms}: use 0 or more, and less than timeout_s")
        if self.max_text > MAX_TEXT:
            raise UmieError(f"max_text is {self.max_text:,}: records have at most {MAX_TEXT:,} characters")

    @property
    def max_body(self) -> int:
        """The size of a request, in bytes."""
        return int(self.max_body_mb * _MB)

    @property
    def max_memory(self) -> int:
        """The size of what is held at once, in bytes."""
        return int(self.max_memory_mb * _MB)


class Memory:
    """The bytes that all requests hold, at most ``size``.

    Without it, a queue of small files that decode to large images would fill the memory.
    """

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self.lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[MemoryShare]:
        """Yield the share of one request, which is returned at the end."""
        share = MemoryShare(self)
        try:
            yield share
        finally:
            share.close()


class MemoryShare:
    """What one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0
        self._is_closed = False

    def take(self, size: int) -> None:
        """Take further bytes.

        Raises:
            RequestError: there are not enough, now or ever, or the request is over; a thread may still work for it.
        """
        with self._memory.lock:
            if self._size + size > self._memory.size:
                message = "the images of the request are too large together: send them in several requests"
                raise RequestError(413, message)
            if self._is_closed or size > self._memory.left:
                raise RequestError(503, "the server is busy with other large requests; try again later")
            self._memory.left -= size
            self._size += size

    def close(self) -> None:
        """Return everything."""
        with self._memory.lock:
            self._memory.left += self._size
            self._is_closed = True
