"""Dynamic batches: records that wait at the same moment are answered together, by one thread that has the model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from umie.extraction import Extraction, Extractor
from umie.records import Record
from umie.serving.limits import Limits, RequestError

WARM_UP = "Ann met Bob in Rome"


@dataclass(frozen=True)
class Question:
    """A record, and the tasks and labels of the request; None for those of the variant."""

    record: Record
    tasks: tuple[str, ...] | None = None
    labels: tuple[tuple[str, tuple[str, ...]], ...] | None = None


@dataclass
class _Job:
    question: Question
    future: Future[Extraction] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def options(self) -> object:
        return self.question.tasks, self.question.labels


class Batcher:
    """Answers records with one thread, in batches of those with equal tasks and labels.

    A batch is answered when it is full, or when its first record has waited for ``limits.max_wait_ms``. While one is
    answered, the next ones gather. A record that cannot be answered does not fail the others of its batch.

    Args:
        extractor: the variant; only the thread uses its model.
        limits: of batches and of the queue.
    """

    def __init__(self, extractor: Extractor, limits: Limits | None = None) -> None:
        self.extractor = extractor
        self.limits = Limits() if limits is None else limits
        self.on_batch: Callable[[int], None] = lambda number: None  # called with the number of records of each batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_warm = self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="umie-batcher", daemon=True)

    def start(self) -> Batcher:
        """Start the thread, answer one text, and return the batcher.

        Raises:
            UmieError: the variant cannot answer a text.
        """
        self._thread.start()
        self.submit([Question(Record(WARM_UP))])[0].result()
        self._is_warm = True
        return self

    @property
    def is_ready(self) -> bool:
        """Whether it has answered a text, and is not asked to end."""
        return self._is_warm and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """The number of records that wait to be answered."""
        return len(self._jobs)

    def check(self, question: Question) -> None:
        """Raise UmieError if the variant has no such tasks or labels, without asking it."""
        self.extractor.extract_many((), tasks=question.tasks, labels=_labels(question))

    def submit(self, questions: Sequence[Question]) -> list[Future[Extraction]]:
        """Return the future answer to each record; one that is canceled before it is answered costs nothing.

        Raises:
            RequestError: there is no room for all of them in the queue, or the batcher is closed.
        """
        jobs = list(map(_Job, questions))
        with self._changed:
            if self._is_closed:
                raise RequestError(503, "the server is shutting down")
            if len(self._jobs) + len(jobs) > self.limits.max_queue:
                raise RequestError(503, f"the queue is full ({len(self._jobs):,} records wait); try again later")
            self._jobs.extend(jobs)
            self._changed.notify()
        for job in jobs:
            job.future.add_done_callback(self._drop)
        return [job.future for job in jobs]

    def _drop(self, future: Future[Extraction]) -> None:
        """Remove a canceled job from the queue, and with it the memory of its images."""
        if future.cancelled():
            with self._changed:
                self._jobs = deque(job for job in self._jobs if job.future is not future)

    def drain(self) -> None:
        """Report that the batcher is not ready any more; what is submitted is still answered."""
        self._is_warm = False

    def close(self, timeout_s: float) -> bool:
        """Answer what waits, for at most ``timeout_s``; return whether the thread has ended."""
        self.drain()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            for job in self._jobs:
                job.future.cancel()
        return not self._thread.is_alive()

    def _work(self) -> None:
        while batch := self._next_batch():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if running:
                self.on_batch(len(running))
                self._answer(running)

    def _next_batch(self) -> list[_Job]:
        """Wait for a batch and return it; none when the batcher is closed and nothing waits."""
        with self._changed:
            while self._jobs or not self._is_closed:
                if not self._jobs:
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                batch = [job for job in self._jobs if job.options == first.options][: self.limits.batch_size]
                left_s = first.since + self.limits.max_wait_ms / 1000 - time.monotonic()
                if len(batch) == self.limits.batch_size or left_s <= 0 or self._is_closed:
                    taken = set(map(id, batch))
                    self._jobs = deque(job for job in self._jobs if id(job) not in taken)
                    return batch
                self._changed.wait(left_s)
        return []

    def _answer(self, batch: Sequence[_Job]) -> None:
        question = batch[0].question
        records = [job.question.record for job in batch]
        try:
            found = list(self.extractor.extract_many(records, tasks=question.tasks, labels=_labels(question)))
        except Exception as error:  # also one of a library, such as too little memory for the batch
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            for job in batch if len(batch) > 1 else ():
                self._answer([job])
        else:
            for job, extraction in zip(batch, found, strict=True):
                job.future.set_result(extraction)


def _labels(question: Question) -> dict[str, tuple[str, ...]] | None:
    return None if question.labels is None else dict(question.labels)
