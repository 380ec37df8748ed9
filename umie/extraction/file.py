"""extract_file: extracts from a JSONL file to a JSONL file, in bounded memory, and can be resumed."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import umie
from umie.errors import UmieError, at
from umie.extraction.extractor import Extractor, Labels
from umie.files import check_distinct
from umie.hub import check_saved, find_file
from umie.processor import FILE as PROCESSOR_FILE
from umie.records import Record, read_numbered_jsonl, record_to_json
from umie.records.no_relation import chosen_names
from umie.registry import loaded_plugins
from umie.resumable import ResumableLines
from umie.versions import file_digest


@dataclass
class FileSummary:
    """The result of ``extract_file``: the number of records in the file, and how many an earlier call had finished.

    ``warnings`` has for each kind of warning (see ``umie.extraction.result.NOTICES``) the number of records of this
    call that have one.
    """

    total: int
    resumed: int = 0
    warnings: Counter[str] = field(default_factory=Counter)


def extract_file(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    details: str | Path | None = None,
    images: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    labels: Labels | None = None,
    device: str | None = None,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> FileSummary:
    """Extract from every record of a JSONL file; after an interruption, the same call resumes where it stopped.

    Finished lines are kept in ``<output>.part``. The output gets its name when it is complete.

    Args:
        model: the directory of a saved variant and its processor, or a hub name, ``owner/model``.
        source: the JSONL file of records.
        output: the JSONL file to write, one record per line in the order of ``source``.
        details: a second JSONL file to write, with boxes in pixels, gates and warnings.
        images: the directory of the images; by default that of ``source``.
        tasks: as in ``Extractor.extract``.
        labels: as in ``Extractor.extract``.
        device: as in ``Extractor.from_pretrained``.
        batch_size: queries per batch; it does not change the output.
        on_progress: called with the number of finished records and the total: once before the model is loaded, then
            after each record.
        options: further options of ``Extractor.from_pretrained`` and of the constructor.

    Raises:
        UmieError: a line is invalid (detected before the model is loaded), an image cannot be read and
            ``missing_images`` is ``error``, or the unfinished output belongs to a call with other arguments.
    """
    source = Path(source)
    images = None if images is None else Path(images)
    paths = [Path(path) for path in (output, details) if path is not None]
    check_saved(model)
    check_distinct([source, *paths])
    if images is not None and not images.is_dir():
        raise UmieError(f"images: {images} is not a directory")
    numbers = array("q", (number for number, _ in _records(source, images)))
    if not numbers:
        raise UmieError(f"{source}: contains no records")
    run = _fingerprint(model, source, images, tasks, labels, options)
    with ResumableLines(paths, run).open() as lines:
        summary = FileSummary(len(numbers), lines.done)
        if on_progress is not None:
            on_progress(lines.done, len(numbers))
        if lines.done == len(numbers):
            return summary
        extractor = Extractor.from_pretrained(model, device=device, batch_size=batch_size, **options)
        start = lines.done
        found = extractor.extract_many(
            (record for _, record in islice(_records(source, images), start, None)),
            tasks=tasks,
            labels=labels,
            place=lambda index: f"{source}:{numbers[start + index]}",
        )
        for index, extraction in enumerate(found, start=start):
            with at(f"{source}:{numbers[index]}"):
                written = [record_to_json(extraction.record)]
                if details is not None:
                    line = {"line": numbers[index], **extraction.to_json()}
                    written.append(json.dumps(line, ensure_ascii=False))
                lines.write(*written)
            summary.warnings.update({notice.kind for notice in extraction.warnings})
            if on_progress is not None:
                on_progress(index + 1, len(numbers))
    return summary


def _records(source: Path, images: Path | None) -> Iterator[tuple[int, Record]]:
    for number, record in read_numbered_jsonl(source, images):
        with at(f"{source}:{number}"):
            record.image_path()  # raises for a path outside of the directory
        yield number, record


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
