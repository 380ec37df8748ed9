"""Checks that no file is used as two splits: scores on training records, or on those that chose the model, mislead."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from umie.audit.texts import normalize
from umie.errors import UmieError
from umie.experiments.data_config import DataConfig
from umie.records import MEDIA, Record
from umie.types import SPLITS

_REASONS = {
    frozenset(("train", "dev")): "scores on training records do not tell which checkpoint is best",
    frozenset(("train", "test")): "scores on training records say nothing about new texts",
    frozenset(("dev", "test")): "the records that choose the checkpoint would also be those that are scored",
}
_NO_DEV = ", or leave out dev (of a run: the last model is then used as the best)"

MIN_CONTAINED = 20  # fewer records may occur in another split by chance

Place = tuple[str, str]  # data set and split


def check_files(config: DataConfig, root: Path) -> None:
    """Raise UmieError if two splits are the same file, under whatever names; paths are relative to ``root``.

    Different data sets may share a file if they have no task in common.
    """
    found: dict[tuple[int, int], list[Place]] = {}
    for name, one in config.sets.items():
        for split in SPLITS if not one.is_drawn else ():
            path = root / str(one.options.get(split))
            if one.options.get(split) is not None and path.exists():  # a missing file is reported by its reader
                status = path.stat()
                found.setdefault((status.st_dev, status.st_ino), []).append((name, split))
    for places in found.values():
        for first, second in _rivals(config, places):
            path = root / str(config.sets[first[0]].options[first[1]])
            raise _error(config, first, second, f"are the same file, {path}")


def check_content(config: DataConfig, records: Mapping[str, Mapping[str, Sequence[Record]]]) -> None:
    """Raise UmieError if two splits have the same texts and media, in any order and with any annotation.

    So have splits one of which contains all records of the other, unless these are few.

    Args:
        config: the data sets.
        records: the records by data set and split.
    """
    found: dict[Place, Counter[tuple[str, ...]]] = {
        (name, split): Counter(_identity(record) for record in own)
        for name, splits in records.items()
        for split, own in splits.items()
        if own
    }
    for first, second in _rivals(config, list(found)):
        if found[first] == found[second]:
            raise _error(config, first, second, "have the same records")
        fewer, more = sorted((first, second), key=lambda place: found[place].total())
        if found[fewer].total() >= MIN_CONTAINED and found[fewer] <= found[more]:
            raise _error(
                config, first, second, f"overlap: one contains all {found[fewer].total():,} records of the other"
            )


def _identity(record: Record) -> tuple[str, ...]:
    return normalize(record.text), *(os.path.normpath(str(getattr(record, medium))) for medium in MEDIA)


def _rivals(config: DataConfig, places: Sequence[Place]) -> Iterator[tuple[Place, Place]]:
    """Yield the pairs of different splits of data sets with a task in common."""
    for first, second in itertools.combinations(places, 2):
        if first[1] != second[1] and config.sets[first[0]].tasks.keys() & config.sets[second[0]].tasks.keys():
            yield first, second


def _error(config: DataConfig, first: Place, second: Place, how: str) -> UmieError:
    names = " and ".join(split if config.is_single else f"{split} of {name}" for name, split in (first, second))
    splits = frozenset((first[1], second[1]))
    return UmieError(f"data: {names} {how}: {_REASONS[splits]}; use another file{_NO_DEV if 'dev' in splits else ''}")
