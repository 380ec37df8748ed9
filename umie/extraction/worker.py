"""From the lines of a file to those of the output, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from umie.errors import UmieError, at
from umie.extraction.extractor import Extractor, Labels
from umie.extraction.media import SKIPPED
from umie.extraction.result import Extraction, with_named_media
from umie.extraction.rows import free_key
from umie.extraction.source import SourceLine, with_further_keys
from umie.files import json_text
from umie.records import record_to_json
from umie.records.no_relation import chosen_names, no_relation_names
from umie.registry import load_plugins, loaded_plugins
from umie.types import IMAGE_POLICIES

Outcomes = Callable[[Iterable[Sequence[SourceLine]]], Iterator["Outcome"]]


@dataclass(frozen=True)
class FileRequest:
    """What is asked about all lines of a file.

    Args:
        source: the name of the file, for messages.
        tasks: as in ``Extractor.extract``.
        labels: as in ``Extractor.extract``.
        has_details: whether there is a line for the details, too.
        skip_bad: whether a line without a result is rejected; otherwise its error is raised.
    """

    source: str
    tasks: Sequence[str] | None
    labels: Labels | None
    has_details: bool
    skip_bad: bool


class Outcome(NamedTuple):
    """What becomes of a line: the lines of the output, of the details, and of the rejected; or an error to raise."""

    parts: tuple[str | None, ...] = ()
    kinds: frozenset[str] = frozenset()  # of its warnings
    further: tuple[str, ...] = ()  # the keys that were copied
    is_empty: bool = False
    error: UmieError | None = None  # no further lines follow


class Worker:
    """Extracts from windows of lines with one model."""

    def __init__(self, extractor: Extractor, request: FileRequest) -> None:
        self.extractor, self.request = extractor, request
        self.rejects_images = request.skip_bad and extractor.missing_images == IMAGE_POLICIES[0]
        if self.rejects_images:  # so that the rest of the window is not lost
            extractor.missing_images = "skip"

    def outcomes(self, window: Sequence[SourceLine]) -> list[Outcome]:
        """Return what becomes of each line of a window, until one whose error is to be raised."""
        valid = [item for item in window if item.record is not None]
        found = iter(self._extract(valid))
        outcomes: list[Outcome] = []
        for item in window:
            try:
                result: Extraction | UmieError | None = next(found) if item.record is not None else item.error
                if isinstance(result, Extraction):
                    outcomes.append(self._written(item, result))
                elif isinstance(result, UmieError):
                    outcomes.append(self._rejected(item, result))
            except UmieError as error:
                return [*outcomes, Outcome(error=error)]
        return outcomes

    def _extract(self, items: Sequence[SourceLine]) -> Iterable[Extraction | UmieError]:
        request = self.request
        records = [item.record for item in items if item.record is not None]
        found = self.extractor.extract_many(
            records,
            tasks=request.tasks,
            labels=request.labels,
            place=lambda index: f"{request.source}:{items[index].number}",
        )
        if not request.skip_bad:
            return found
        try:
            return list(found)
        except UmieError as error:
            if len(items) == 1:
                return [error]
        return [one for item in items for one in self._extract([item])]

    def _written(self, item: SourceLine, found: Extraction) -> Outcome:
        reasons = [notice.message for notice in found.warnings if notice.message.endswith(SKIPPED)]
        if reasons and self.rejects_images:
            return self._rejected(item, UmieError(reasons[0].removesuffix(SKIPPED)))
        try:
            with at(f"{self.request.source}:{item.number}"):
                named = with_named_media(found.record, lambda medium: f"{medium} of row {item.number}")
                parts = [with_further_keys(record_to_json(named), item.further)]
                if self.request.has_details:
                    details = {"line": item.number, **found.to_json()}
                    others = {free_key(key, details, item.further): value for key, value in item.further.items()}
                    parts.append(with_further_keys(json_text(details), others))
        except UmieError as error:
            if not self.request.skip_bad:
                raise
            return self._rejected(item, error)
        kinds = frozenset(notice.kind for notice in found.warnings)
        return Outcome((*parts, None), kinds, tuple(item.further))

    def _rejected(self, item: SourceLine, error: UmieError) -> Outcome:
        place = f"{self.request.source}:{item.number}: "
        content = {"line": item.number, "reason": str(error).removeprefix(place), "content": item.content}
        line = json_text(content, ensure_ascii=True)  # the line may hold unpaired surrogates
        return Outcome((*[None] * (1 + self.request.has_details), line), is_empty=item.is_empty)


@contextmanager
def extracting(
    model: str | Path, devices: Sequence[str | None], options: Mapping[str, Any], request: FileRequest
) -> Iterator[Outcomes]:
    """Yield a function that extracts from windows of lines, in order, with a model on each device.

    With several devices, each has a process of its own, and at most two windows for each process are in memory.

    Args:
        model: as in ``Extractor.from_pretrained``, as ``options``.
        devices: the devices; on CPUs, the processes share the threads.
        options: of the extractor.
        request: what is asked.

    Raises:
        UmieError: the model cannot be loaded, or a process ended.
    """
    if len(devices) == 1:
        worker = Worker(Extractor.from_pretrained(model, device=devices[0], **options), request)
        yield lambda windows: (outcome for window in windows for outcome in worker.outcomes(window))
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(len(devices)):
        numbers.put(number)
    threads = max(1, torch.get_num_threads() // len(devices))
    given = (model, list(devices), dict(options), request, threads, loaded_plugins(), sorted(chosen_names()), numbers)
    pool = ProcessPoolExecutor(len(devices), context, _start, given)

    def outcomes(windows: Iterable[Sequence[SourceLine]]) -> Iterator[Outcome]:
        waiting: deque[Future[list[Outcome]]] = deque()
        for window in windows:
            waiting.append(pool.submit(_outcomes, window))
            if len(waiting) == 2 * len(devices):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    try:
        yield outcomes
    except BrokenProcessPool as error:
        raise UmieError(
            "a process ended, perhaps for lack of memory: run it again to go on, with fewer devices or smaller batches"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Worker | UmieError | None = None  # of this process, if it is one of several
_names: Sequence[str] = ()  # of ``no_relation_names``


def _start(
    model: str | Path,
    devices: Sequence[str | None],
    options: Mapping[str, Any],
    request: FileRequest,
    threads: int,
    plugins: Sequence[str],
    names: Sequence[str],
    numbers: Any,
) -> None:
    """Load the model of a process; its error is raised with the first window."""
    global _names, _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    _names = names
    try:
        load_plugins(plugins)
        device = devices[numbers.get()]
        _worker = Worker(Extractor.from_pretrained(model, device=device, **options), request)
    except UmieError as error:
        _worker = error


def _end_with_parent() -> None:
    """End this process with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcomes(window: Sequence[SourceLine]) -> list[Outcome]:
    if not isinstance(_worker, Worker):
        return [Outcome(error=_worker)]
    with no_relation_names(_names):
        return _worker.outcomes(window)
