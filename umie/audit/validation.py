"""Validation of a file: every error and every warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from umie.audit.checks import Finding, check_record
from umie.data.source import Source
from umie.errors import UmieError


@dataclass
class Validation:
    """The number of records that could be read, and the numbers of errors and warnings."""

    records: int = 0
    errors: int = 0
    warnings: int = 0


def validate(
    source: Source,
    report: Callable[[str, Finding], None],
    *,
    images: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Validation:
    """Check all records of a file; only a file that cannot be read as a whole is an exception.

    Args:
        source: the file.
        report: called with the location and the finding; the location is empty for a malformed record, whose
            message begins with it.
        images: whether to check that the image files exist.
        progress: called once per record.

    Returns:
        The counts.
    """
    result = Validation()

    def note(place: str, finding: Finding) -> None:
        if finding.is_error:
            result.errors += 1
        else:
            result.warnings += 1
        report(place, finding)

    def note_malformed(error: UmieError) -> None:
        note("", Finding(True, str(error)))

    first_uses: dict[str, int] = {}
    for number, record in source.numbered(note_malformed):
        result.records += 1
        progress()
        for finding in check_record(record, images=images):
            note(source.place(number), finding)
        if record.id is not None and (first := first_uses.setdefault(record.id, number)) != number:
            message = f"id {record.id!r} is already used at {source.place(first)}: ids must be unique"
            note(source.place(number), Finding(True, message))
    if not result.records and not result.errors:
        note_malformed(UmieError(f"{source.path}: contains no records"))
    return result
