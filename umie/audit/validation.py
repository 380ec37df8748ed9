"""Validation of a file: everything that is wrong with it, as it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from umie.audit.checks import Finding, check_record
from umie.audit.ids import IdLog
from umie.data.source import Source
from umie.errors import UmieError


@dataclass
class Validation:
    """How many records were read, and what was found; a record that cannot be read is not among the records."""

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
    """Check a file from its first line to its last; nothing ends it early but a file that cannot be read at all.

    Memory does not grow with the file: findings are handed on as they come, and ids are kept on disk. Repeated ids
    are reported at the end.

    Args:
        source: the file.
        report: called with the place and what is wrong there; a record that cannot be read has its place in the
            message, and an empty one here.
        images: whether to seek the files of the images.
        progress: called once for each record.

    Returns:
        The counts.
    """
    result = Validation()

    def tell(place: str, finding: Finding) -> None:
        if finding.is_error:
            result.errors += 1
        else:
            result.warnings += 1
        report(place, finding)

    def unreadable(error: UmieError) -> None:
        tell("", Finding(True, str(error)))

    ids = IdLog()
    try:
        for number, record in source.numbered(unreadable):
            result.records += 1
            progress()
            for finding in check_record(record, images=images):
                tell(source.place(number), finding)
            if record.id is not None:
                ids.add(record.id, number)
        if not result.records and not result.errors:
            unreadable(UmieError(f"{source.path}: holds no records"))
        for repeated in ids.repeated():
            message = f"id {repeated.id!r} is also that of {source.place(repeated.first)}: give each record its own"
            tell(source.place(repeated.place), Finding(True, message))
    finally:
        ids.close()
    return result
