"""extract_file: extracts from a file to a JSONL file, in bounded memory, and can be resumed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import umie
from umie.errors import UmieError, check_flag, check_kind, check_local, shown
from umie.extraction.extractor import WINDOW_BATCHES, Extractor, Labels
from umie.extraction.rows import ENDINGS
from umie.extraction.source import read_items, stream_items
from umie.extraction.worker import FileRequest, Outcome, Worker, extracting
from umie.files import check_distinct
from umie.hub import check_saved, find_file
from umie.processor import FILE as PROCESSOR_FILE
from umie.records.no_relation import chosen_names
from umie.registry import loaded_plugins
from umie.resumable import ResumableLines
from umie.versions import file_digest

MAX_KEYS = 100  # that are counted, so that memory stays bounded


@dataclass
class FileSummary:
    """The result of ``extract_file``: the numbers of lines of the file, and of those that earlier calls had finished.

    ``total`` is the sum of ``written``, ``rejected`` and ``empty``, also of earlier calls. The lines without a result
    are in ``<output>.rejected.jsonl``: ``rejected`` ones are invalid or a medium cannot be read, ``empty`` ones have
    neither text nor media. ``was_complete`` says that the same call had finished earlier, so that nothing was done.
    ``warnings`` has for each kind of warning (see ``umie.extraction.result.NOTICES``) the number of records of this
    call that have one, ``further`` for each key that is not one of a record the number of lines of this call that have
    it, and ``damage`` a sentence about a damaged unfinished output.
    """

    total: int
    resumed: int = 0
    written: int = 0
    rejected: int = 0
    empty: int = 0
    warnings: Counter[str] = field(default_factory=Counter)
    further: Counter[str] = field(default_factory=Counter)
    damage: str | None = None
    was_complete: bool = False


def extract_file(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    details: str | Path | None = None,
    images: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    labels: Labels | None = None,
    columns: Mapping[str, str] | None = None,
    device: str | Sequence[str] | None = None,
    batch_size: int = 16,
    missing_images: str | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] = warnings.warn,
    **options: Any,
) -> FileSummary:
    """Extract from every record of a file; after an interruption, the same call resumes where it stopped.

    Finished lines are kept in ``<output>.part``. The output gets its name when it is complete, and its SHA-256 digest
    is in ``<output>.sha256``. Lines without a result are in ``<output>.rejected.jsonl``, with number and reason. If the
    same call has finished earlier, nothing is done.

    Args:
        model: the directory of a saved variant and its processor, or a hub name, ``owner/model``.
        source: the file of records, by its ending: CSV, TSV, Parquet, ``.txt`` (a text per line), else JSONL. Keys and
            columns that are not those of a record are copied to the output.
        output: the JSONL file to write, one record per line in the order of ``source``.
        details: a second JSONL file to write, with places in pixels and seconds, gates and warnings.
        images: the directory of the media; by default that of ``source``.
        tasks: as in ``Extractor.extract``.
        labels: as in ``Extractor.extract``.
        columns: of a table, the columns of the fields of a record; see ``records_from_rows``.
        device: as in ``Extractor.from_pretrained``. With several, such as ``["cuda:0", "cuda:1"]`` or ``["cpu"] * 4``,
            as many processes share the work; a script then needs ``if __name__ == "__main__"``.
        batch_size: queries per batch; it does not change the output.
        missing_images: as in ``Extractor``; it may differ when a run is resumed.
        skip_bad: reject a line that is invalid or has an unreadable medium, and continue; it may differ, too.
        overwrite: replace complete files, also those of the same call.
        on_progress: called with the number of finished records and the total: once before the model is loaded, then
            after each record.
        note: called with a sentence if an unfinished output is damaged.
        options: further options of ``Extractor.from_pretrained`` and of the constructor.

    Raises:
        UmieError: without ``skip_bad``, a line is invalid (detected before the model is loaded) or a medium cannot be
            read and ``missing_images`` is ``error``; or the output, unfinished or complete, belongs to a call with
            other arguments.
    """
    check_flag("skip_bad", skip_bad)
    check_flag("overwrite", overwrite)
    given = {"source": source, "output": output, "details": details, "images": images}
    for name, path in given.items():
        if path is not None or name in ("source", "output"):
            check_kind(name, path, str | os.PathLike, "pass a path")
            check_local(name, path)
    source = Path(source)
    images = None if images is None else Path(images)
    paths = [Path(path) for path in (output, details) if path is not None]
    rejected = paths[0].with_name(f"{paths[0].name}.rejected.jsonl")
    devices = [device] if isinstance(device, str | None) else list(device)
    if not devices or not all(isinstance(one, str | None) for one in devices):
        raise UmieError(f"device is {shown(device)}: pass a device such as 'cpu', or a list of them")
    for path in paths:
        if path.suffix.lower() in ENDINGS:
            raise UmieError(f"{path}: the output is JSONL: name it {path.with_suffix('.jsonl').name}")
    check_saved(model)
    check_distinct([source, *paths, rejected])
    if images is not None and not images.is_dir():
        raise UmieError(f"images: {images} is not a directory")
    total = num_empty = 0
    for item in read_items(source, images, columns):
        if item.error is not None and not (item.is_empty or skip_bad):
            raise UmieError(f"{source}:{item.number}: {item.error} (to go on without it: --skip-bad, skip_bad=True)")
        total += 1
        num_empty += item.is_empty
    if not total:
        raise UmieError(f"{source}: contains no records")
    run = _fingerprint(model, source, images, tasks, labels, options | ({"columns": columns} if columns else {}))
    lines = ResumableLines(paths, run, optional=[rejected])
    if not overwrite and lines.is_complete():
        return _with_counts(FileSummary(total, total, was_complete=True, empty=num_empty), paths[0])
    with lines.open():
        summary = FileSummary(total, lines.done, empty=num_empty, damage=lines.damage)
        if lines.damage is not None:
            note(lines.damage)
        if on_progress is not None:
            on_progress(lines.done, total)
        if lines.done < total:
            chosen = {"batch_size": batch_size, "missing_images": missing_images, **options}
            request = FileRequest(str(source), tasks, labels, has_details=details is not None, skip_bad=skip_bad)
            read = enumerate(read_items(source, images, columns))
            items = (item for index, item in read if not lines.is_done(index))
            windows = iter(lambda: list(islice(items, WINDOW_BATCHES * batch_size)), [])
            with extracting(model, devices, chosen, request) as outcomes:
                for _ in _write(outcomes(windows), lines, summary):
                    if on_progress is not None:
                        on_progress(lines.done, total)
    return _with_counts(summary, paths[0])


def extract_stream(
    extractor: Extractor,
    source: IO[bytes],
    write: Callable[[str], None],
    reject: Callable[[str], None],
    *,
    name: str = "standard input",
    images: str | Path = ".",
    tasks: Sequence[str] | None = None,
    labels: Labels | None = None,
    skip_bad: bool = False,
) -> FileSummary:
    """Extract from each line of a stream as from those of a file; results are written as soon as a batch is complete.

    Args:
        extractor: the model; ``batch_size`` lines are read at once.
        source: lines of JSON records.
        write: called with each result, in order.
        reject: called with the JSON of each line without a result, as in ``<output>.rejected.jsonl``.
        name: of the stream, for messages.
        images: the directory of the media.
        tasks: as in ``Extractor.extract``.
        labels: as in ``Extractor.extract``.
        skip_bad: as in ``extract_file``.

    Raises:
        UmieError: as ``extract_file``; if a line or a medium is bad, the results of earlier lines are written.
    """
    summary = FileSummary(0)
    worker = Worker(copy.copy(extractor), FileRequest(name, tasks, labels, has_details=False, skip_bad=skip_bad))
    streams = _Streams(write, reject, summary)
    items = stream_items(source, name, Path(images))
    while window := list(islice(items, extractor.batch_size)):
        bad = [one.error is not None and not (one.is_empty or skip_bad) for one in window]
        good = window[: bad.index(True)] if any(bad) else window
        outcomes: Iterable[Outcome] = worker.outcomes(good)
        if any(one.error is not None for one in outcomes):  # one by one, so that the lines before it are written
            outcomes = (outcome for one in good for outcome in worker.outcomes([one]))
        for outcome in _write(outcomes, streams, summary):
            summary.total += 1
            summary.empty += outcome.is_empty
        if good is not window:
            item = window[len(good)]
            raise UmieError(f"{name}:{item.number}: {item.error} (to go on without it: --skip-bad)")
    summary.rejected -= summary.empty
    return summary


class _Streams:
    """Where results are written if there is no file; nothing can be resumed."""

    def __init__(self, write: Callable[[str], None], reject: Callable[[str], None], summary: FileSummary) -> None:
        self._write, self._reject, self._summary = write, reject, summary

    def write(self, *parts: str | None) -> None:
        """Write a result, the first part, or a rejected line, the last one."""
        result, rejected = parts[0], parts[-1]
        if result is not None:
            self._summary.written += 1
            self._write(result)
        if rejected is not None:
            self._summary.rejected += 1
            self._reject(rejected)


def _with_counts(summary: FileSummary, output: Path) -> FileSummary:
    """Set the numbers of written and rejected lines of all calls."""
    with output.open("rb") as file:
        summary.written = sum(1 for _ in file)
    summary.rejected = summary.total - summary.empty - summary.written
    return summary


def _write(outcomes: Iterable[Outcome], lines: ResumableLines | _Streams, summary: FileSummary) -> Iterator[Outcome]:
    """Write the outcomes of lines, count their warnings, and yield each after it was written; raise their errors."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        lines.write(*outcome.parts)
        summary.warnings.update(outcome.kinds)
        room = MAX_KEYS - len(summary.further)
        known = [key for key in outcome.further if key in summary.further]
        summary.further.update([*known, *[key for key in outcome.further if key not in summary.further][:room]])
        yield outcome


def _fingerprint(
    model: str | Path,
    source: Path,
    images: Path | None,
    tasks: Sequence[str] | None,
    labels: Labels | None,
    options: Mapping[str, Any],
) -> str:
    """Return a hash of everything that the output depends on; files of the model count by size and time."""
    folder = find_file(model, PROCESSOR_FILE, revision=options.get("revision")).parent
    files = []
    if Path(model).is_dir():  # the cache directory of a hub repository is named after its commit
        status = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
        files = [[name, found.st_size, found.st_mtime_ns] for name, found in status]
    places = [str(path and path.resolve()) for path in (folder, source, images)]
    digests = [file_digest(source), *map(file_digest, loaded_plugins())]
    content = [umie.__version__, places, files, digests, tasks, labels, options, sorted(chosen_names())]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()
