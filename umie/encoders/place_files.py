"""Segments and tracks from files of annotation, found by the name of the sound or video."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umie.encoders.proposing import AnnotationError, Candidates, P, PlaceProposer, ProposerConfig
from umie.errors import UmieError, at, check_text, shown
from umie.files import inside, parse_json, read_json, read_lines
from umie.records.places import PLACES, PLURALS

WITHOUT = "without annotation"


@dataclass(frozen=True, kw_only=True)
class PlaceFileConfig(ProposerConfig):
    """Options of places from files.

    Args:
        path: a JSON, JSONL or table file for all media, or a directory with a file per medium, named like it except for
            the suffix.
        nms: see ProposerConfig; by default no annotated place is suppressed.
    """

    path: str | None = None
    nms: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("path", self.path)
        if self.path is None:
            raise UmieError("path is not set: use a file or directory of annotations, e.g. --option path=FILE")
        if not Path(self.path).exists():
            raise UmieError(f"path is {self.path!r}: use an existing file or directory of annotations")


class PlaceFileProposer(PlaceProposer[P]):
    """Places from files; subclasses implement ``_of_json``, ``_of_text``, ``_table_of_text`` and ``_candidates``.

    JSON is an object ``{"1.wav": PLACES, ...}`` with the media's file names, with or without suffix, and JSONL has an
    object with a name and its places in each line, as records have. A medium without annotation has no places. A file
    for all media is read at once; one that cannot be read for a single medium is an AnnotationError.
    """

    config: PlaceFileConfig
    suffixes: tuple[str, ...]  # of files for one medium, except JSON

    def __init__(self, config: PlaceFileConfig) -> None:
        super().__init__(config)
        self._path = Path(config.path or "")
        self._num_annotated = self._num_without = 0
        self._table: dict[str, list[Any]] | None = None
        if self._path.is_file():
            self._table = {}
            names: dict[str, str] = {}
            for name, places in self._read_table():
                known = names.setdefault(Path(name).name, name)
                if known != name:
                    raise UmieError(f"{self._path}: {shown(known)} and {shown(name)} have one file name: rename one")
                self._table.setdefault(Path(name).name, []).extend(places)

    @abstractmethod
    def _of_json(self, value: Mapping[str, Any]) -> Any:
        """Return a place from its JSON object; raise UmieError if it is not valid."""

    @abstractmethod
    def _of_text(self, path: Path) -> list[Any]:
        """Return the places in a text file for one medium."""

    @abstractmethod
    def _table_of_text(self, path: Path) -> Iterator[tuple[str, list[Any]]]:
        """Yield the names and places in a text file for all media."""

    @abstractmethod
    def _candidates(self, places: list[Any], source: Any) -> Candidates[P]:
        """Return the places as candidates within the medium; raise UmieError if it cannot be read."""

    def candidates(self, source: Any, text: str | None, name: str | None) -> Candidates[P]:
        """Return the annotated places of the medium ``name``; see ``MediumProposer.candidates``."""
        if name is None:
            raise UmieError(
                f"a {PLURALS[self.medium][:-1]} in memory has no name to find its annotation by: pass its path"
            )
        try:
            places = self._found(Path(name))
        except UmieError as error:
            self._num_annotated += 1
            raise AnnotationError(str(error)) from error
        if places is None:
            self._num_without += 1
            self.counts[f"{PLURALS[self.medium]} {WITHOUT}"] += 1
        self._num_annotated += places is not None
        return self._candidates(places or [], source)

    def check(self) -> None:
        """Raise UmieError if there were media, and none of them has an annotation."""
        if self._num_without and not self._num_annotated:
            raise UmieError(
                f"{self._path}: has no annotation of any of the {self._num_without:,} {PLURALS[self.medium]}: it must "
                "name those of these records"
            )

    def _found(self, name: Path) -> list[Any] | None:
        if self._table is not None:
            return next((self._table[key] for key in (name.name, name.stem) if key in self._table), None)
        for suffix in (".json", *self.suffixes):
            path = inside(self._path, name.stem + suffix)
            if path.exists():
                if suffix != ".json":
                    return self._of_text(path)
                content = read_json(path, allow_nan=True)
                with at(str(path)):
                    return self._list_of(content)
        return None

    def _read_table(self) -> Iterator[tuple[str, list[Any]]]:
        if self._path.suffix == ".json":
            content = read_json(self._path, allow_nan=True)
            with at(str(self._path)):
                if not isinstance(content, dict):
                    raise UmieError(f"is {shown(content)}: expected an object, {PLACES[self.medium]} by file name")
                for name, places in content.items():
                    with at(shown(name)):
                        yield name, self._list_of(places)
        elif self._path.suffix == ".jsonl":
            for number, line in read_lines(self._path):
                if line.strip():
                    with at(f"{self._path}:{number}"):
                        yield self._of_line(line)
        else:
            yield from self._table_of_text(self._path)

    def _of_line(self, line: str) -> tuple[str, list[Any]]:
        value = parse_json(line, allow_nan=True)
        name = value.get(self.medium) if isinstance(value, Mapping) else None
        if not isinstance(name, str):
            raise UmieError(f"is {shown(value)}: expected an object with {self.medium}, a file name")
        return name, self._of_object(value)

    def _of_object(self, value: Mapping[str, Any]) -> list[Any]:
        """Return the places in an object that names its medium."""
        kind = PLACES[self.medium]
        return self._list_of(value[kind]) if kind in value else [self._of_json(value)]

    def _list_of(self, value: object) -> list[Any]:
        kind = PLACES[self.medium]
        if not isinstance(value, list):
            raise UmieError(f"{kind} is {shown(value)}: expected a list of {kind}")
        found = []
        for number, item in enumerate(value, start=1):
            with at(f"{kind[:-1]} {number}"):
                if not isinstance(item, Mapping):
                    raise UmieError(f"is {shown(item)}: expected a JSON object")
                found.append(self._of_json(item))
        return found


def number_of(value: object, name: str) -> float:
    """Return a number of an annotation, which may be written as a string; it may be NaN or infinite."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise UmieError(f"{name} is {shown(value)}: expected a number")


def label_of(value: Mapping[str, Any]) -> str | None:
    """Return the label of a JSON object, if it has one."""
    label = value.get("label")
    if not isinstance(label, str | None):
        raise UmieError(f"label is {shown(label)}: use a string")
    return label or None


def score_of(value: Mapping[str, Any]) -> float:
    """Return the score of a JSON object, 1 if it has none."""
    score = 1.0 if value.get("score") is None else number_of(value["score"], "score")
    if not math.isfinite(score):
        raise UmieError(f"score is {score}: use a finite number")
    return score
