"""`umie extract --input`: a file of records to a file of what was found, in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.cli.console import out
from umie.cli.options import check_distinct, counting_to, tell
from umie.errors import UmieError, at

if TYPE_CHECKING:
    from umie.extraction import Extraction, Extractor
    from umie.records import Record


@dataclass(frozen=True)
class Job:
    """What the lines of the output depend on, beside the versions; the size of a batch does not change them.

    Args:
        model: the folder of the saved variant.
        input: the records.
        output: the file to write.
        details: where gates, boxes in pixels and warnings go, if anywhere.
        images: the folder of the images; None takes that of the input.
        tasks: what to ask.
        labels: the labels to look for in place of the model's.
        options: for ``Extractor.from_pretrained``.
    """

    model: Path
    input: Path
    output: Path
    details: Path | None
    images: Path | None
    tasks: Sequence[str] | None
    labels: Mapping[str, Sequence[str]] | None
    options: Mapping[str, Any]

    def fingerprint(self) -> str:
        """Return a hash of everything that the lines depend on; weights are told by their files' sizes and times."""
        import umie

        try:
            with self.input.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            status = {path.name: path.stat() for path in sorted(self.model.iterdir()) if path.is_file()}
        except OSError as error:
            raise UmieError(f"{error.filename}: cannot read: {error.strerror}") from error
        files = {name: [found.st_size, found.st_mtime_ns] for name, found in status.items()}
        places = [str(path and path.resolve()) for path in (self.model, self.input, self.images)]
        what = [umie.__version__, places, files, self.tasks, self.labels, dict(self.options)]
        digest.update(json.dumps(what, sort_keys=True).encode())
        return digest.hexdigest()


def extract_file(job: Job, setting: Mapping[str, Any]) -> None:
    """Extract from every record of a file; a run that was ended early goes on where it was.

    Args:
        job: what to do.
        setting: device and size of a batch.

    Raises:
        UmieError: a line that cannot be read, named before the model is loaded; an image that cannot be read, under
            the policy ``error``; an output that another run has begun.
    """
    from umie.extraction.resumable import ResumableLines

    check_distinct([path for path in (job.input, job.output, job.details) if path is not None])
    if job.images is not None and not job.images.is_dir():
        raise UmieError(f"{job.images}: no such folder; give --images an existing one, or leave it out")
    if not job.model.is_dir():
        raise UmieError(f"{job.model}: no such folder; give --model one with a saved variant")
    numbers = array("q", (number for number, _ in _records(job)))
    if not numbers:
        raise UmieError(f"{job.input}: holds no record: give a file of records")
    paths = [job.output] if job.details is None else [job.output, job.details]
    notices: Counter[str] = Counter()
    with ResumableLines(paths, job.fingerprint()).open() as lines:
        begun = lines.done
        if begun:
            tell(f"going on behind the {begun:,} records of {len(numbers):,} that are done")
        if begun < len(numbers):
            with counting_to(len(numbers) - begun, f"extracting from {job.input.name}") as count:
                for index, found in enumerate(_found(job, setting, numbers, begun), start=begun):
                    lines.write(*_lines(job, found, numbers[index]))
                    notices.update({notice.kind for notice in found.warnings})
                    count()
    _summarize(job, len(numbers), begun, notices)


def load(model: Path, **options: Any) -> Extractor:
    """Return the extractor of a folder, without progress bars of its own."""
    from transformers.utils import logging

    from umie.extraction import Extractor

    logging.disable_progress_bar()
    return Extractor.from_pretrained(model, **options)


def _records(job: Job) -> Iterator[tuple[int, Record]]:
    from umie.records import read_numbered_jsonl

    for number, record in read_numbered_jsonl(job.input, job.images):
        with at(f"{job.input}:{number}"):
            record.image_path()  # an image outside of the folder is an error before the first one is looked at
        yield number, record


def _found(job: Job, setting: Mapping[str, Any], numbers: Sequence[int], begun: int) -> Iterator[Extraction]:
    extractor = load(job.model, **job.options, **setting)
    return extractor.extract_many(
        (record for _, record in islice(_records(job), begun, None)),
        tasks=job.tasks,
        labels=job.labels,
        place=lambda index: f"{job.input}:{numbers[begun + index]}",
    )


def _lines(job: Job, found: Extraction, number: int) -> list[str]:
    from umie.records import record_to_json

    with at(f"{job.input}:{number}"):
        lines = [record_to_json(found.record)]
    if job.details is not None:
        lines.append(json.dumps({"line": number, **found.to_json()}, ensure_ascii=False))
    return lines


def _summarize(job: Job, total: int, begun: int, notices: Counter[str]) -> None:
    from umie.extraction.result import NOTICES

    of_run = " of this run" if begun else ""
    for kind, number in notices.most_common():
        more = "" if job.details else "; --details FILE tells which"
        tell(f"note: {NOTICES[kind]}: {number:,} of the {total - begun:,} records{of_run}{more}", "yellow")
    out.print(f"records: {total:,}", highlight=False)
    for path in (job.output, job.details):
        if path is not None:
            out.print(f"Written: {path}", highlight=False, markup=False, soft_wrap=True)
