"""The benchmark of grounded extraction that REAMO describes and did not publish, as a recipe over public sets.

Its fifteen cells are tasks on combinations of media. Each is drawn from a set that a user has: texts are spoken, so
that each mention has its segment, stills become clips, so that each region has its track, and what a combination does
not have is left out. Source: Zhang et al. 2024, Recognizing Everything from All Modalities at Once, the table of data.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from umie.data.media_folder import copy_media
from umie.data.panning import pan_records
from umie.data.sounds import save_sound
from umie.data.source import Source
from umie.data.speaking import speak_records, without_text
from umie.errors import UmieError, at, check_choice, check_keys, check_kind, check_share, check_whole, shown
from umie.files import atomic_write, json_text
from umie.media import Sound, open_sound
from umie.media.speech import Speaker
from umie.records import MEDIA, Medium, Record, write_jsonl
from umie.records.model import place_references, referred
from umie.records.places import LETTERS
from umie.yaml_files import read_yaml

MANIFEST = "muie.json"


class Cell(NamedTuple):
    """A cell of the benchmark: its combination of media, its task, and the set that it is drawn from."""

    combination: str
    tasks: tuple[str, ...]
    source: str

    @property
    def name(self) -> str:
        """The name of its directory, such as ``T+I_Twt17``."""
        return f"{self.combination}_{self.source}"

    @property
    def has_text(self) -> bool:
        """Whether its records have a text."""
        return "T" in self.combination.split("+")

    @property
    def media(self) -> tuple[Medium, ...]:
        """The media of its records."""
        letters = self.combination.split("+")
        return tuple(medium for medium, letter in LETTERS.items() if letter in letters)


_NER, _RE, _EE = ("mner",), ("mre",), ("med", "meae")
_ITEMS = {"mner": "entities", "mre": "relations", "med": "events"}
CELLS = (
    Cell("I", _NER, "PASCAL-C"), Cell("I", _RE, "VRD"), Cell("I", _EE, "imSitu"),
    Cell("V", _EE, "VidSitu"),
    Cell("A", _NER, "ACE05"), Cell("A", _RE, "ReTACRED"),
    Cell("T+I", _NER, "Twt17"), Cell("T+I", _RE, "MNRE"), Cell("T+I", _EE, "M2E2"),
    Cell("T+V", _EE, "VidSitu"),
    Cell("T+A", _NER, "ACE05"), Cell("T+A", _RE, "ReTACRED"),
    Cell("I+A", _RE, "MNRE"),
    Cell("T+I+A", _NER, "Twt17"),
    Cell("A+V", _EE, "VidSitu"),
)  # fmt: skip
"""The fifteen cells; the combinations are written as those of records."""
SOURCES = tuple(dict.fromkeys(cell.source for cell in CELLS))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to build the benchmark.

    Args:
        sources: the file of each set, by its name in SOURCES.
        records: records of each cell.
        unaligned: share of the records with a text and speech in which one mention is silent, so that only the text
            has it.
        seed: seed of what is drawn.
        voice: voice of espeak-ng, for the cells with speech.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    records: int = 200
    unaligned: float = 0.25
    seed: int = 0
    voice: str = "en-us"

    def __post_init__(self) -> None:
        check_whole("records", self.records, 1)
        check_whole("seed", self.seed, 0)
        check_share("unaligned", self.unaligned)
        for name in self.sources:
            check_choice("a source", name, SOURCES)


@dataclass(frozen=True)
class BuiltCell:
    """What became of a cell.

    Args:
        cell: the cell.
        records: the number of its records; 0 if it was not built.
        groundings: the number of places that its annotation names, by medium.
        unaligned: the number of its records with a silent mention.
        checksum: SHA-256 of its records and media; empty if it was not built.
        reason: why it was not built.
    """

    cell: Cell
    records: int = 0
    groundings: Mapping[str, int] = field(default_factory=dict)
    unaligned: int = 0
    checksum: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "cell": self.cell.name, "tasks": self.cell.tasks}


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe: ``sources`` with ``format``, ``file``, ``images``, ``regions`` each, and options of Recipe.

    Paths are relative to the file.

    Raises:
        UmieError: a key or value is wrong.
    """
    path = Path(path)
    values = read_yaml(path, "the recipe")
    with at(str(path)):
        check_kind("the recipe", values, Mapping, "use a mapping with the key sources")
        check_keys("key", values, ["sources", "records", "unaligned", "seed", "voice"])
        given = values.get("sources") or {}
        check_kind("sources", given, Mapping, "use the name of a set and its file: Twt17: {format: twitter, file: ...}")
        check_keys("source", given, SOURCES)
        sources = {}
        for name, own in given.items():
            check_kind(f"sources.{name}", own, Mapping, "use format and file")
            check_keys(f"key in sources.{name}", own, ["format", "file", "images", "regions", "options"])
            if not isinstance(own.get("file"), str):
                raise UmieError(f"sources.{name}.file is {shown(own.get('file'))}: use the path of its test split")
            folders = {key: path.parent / str(own[key]) for key in ("images", "regions") if own.get(key) is not None}
            sources[name] = Source(
                path.parent / own["file"], str(own.get("format", "jsonl")), **folders, options=own.get("options") or {}
            )
        return Recipe(sources=sources, **{key: value for key, value in values.items() if key != "sources"})


def build_muie(
    recipe: Recipe,
    folder: str | Path,
    *,
    on_cell: Callable[[BuiltCell], None] = lambda built: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[BuiltCell]:
    """Build every cell whose set is given: ``FOLDER/CELL/records.jsonl`` with its media, and a manifest.

    The same recipe and files give the same checksums on one version of espeak-ng.

    Args:
        recipe: the recipe.
        folder: the directory, which is new.
        on_cell: called after each cell.
        note: called with a sentence about each record that is left out.

    Raises:
        UmieError: the directory has a benchmark, a set cannot be read, or espeak-ng is missing.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise UmieError(f"{folder / MANIFEST}: exists: use another directory")
    built = []
    with ExitStack() as stack:
        speaker: Speaker | None = None
        for cell in CELLS:
            if cell.source not in recipe.sources:
                found = BuiltCell(cell, reason=f"no source {cell.source}")
            else:
                if "audio" in cell.media and speaker is None:
                    speaker = stack.enter_context(Speaker(recipe.voice))
                with at(cell.name):
                    found = _build(cell, recipe, folder / cell.name, speaker, note)
            built.append(found)
            on_cell(found)
    lines = [one.to_json() for one in built]
    with atomic_write(folder / MANIFEST) as file:
        file.write(json_text({"seed": recipe.seed, "unaligned": recipe.unaligned, "cells": lines}, indent=2))
    return built


def _build(cell: Cell, recipe: Recipe, folder: Path, speaker: Speaker | None, note: Callable[[str], None]) -> BuiltCell:
    rng = random.Random(f"{recipe.seed}/{cell.name}")
    eligible = [record for record in recipe.sources[cell.source].named() if _is_eligible(record, cell)]
    if not eligible:
        return BuiltCell(cell, reason=f"no record has items for {cell.tasks[0]} and the media that the cell needs")
    if "video" in cell.media and any(record.video is not None for record in eligible):  # stills are not needed
        eligible = [record for record in eligible if record.video is not None]
    has_media = [record for record in eligible if _has_files(record, cell)]
    if len(has_media) < len(eligible):
        note(
            f"{cell.name}: {len(eligible) - len(has_media):,} of {len(eligible):,} records with items have no file of "
            "their media"
        )
    if not has_media:
        return BuiltCell(cell, reason="no media of its records were found")
    eligible = has_media
    rng.shuffle(eligible)
    silenced: list[str] = []

    def drawn() -> Iterator[Record]:
        for record in _with_media(eligible, cell, folder, speaker, recipe.seed, note):
            if "audio" in cell.media and record.text and rng.random() < recipe.unaligned:
                quieter = _silenced(record, folder, rng)
                silenced.extend([str(record.id)] if quieter is not record else [])
                record = quieter
            record = replace(record, tasks=cell.tasks, image_folder=str(folder))
            if _num_items(record, cell):
                yield record
            else:
                note(
                    f"{cell.name}: record {record.id}: left out, as nothing of its annotation is in {cell.combination}"
                )

    records = list(itertools.islice(drawn(), recipe.records))
    if not records:
        return BuiltCell(cell, reason=f"nothing of the annotation is in {cell.combination}")
    write_jsonl(folder / "records.jsonl", records)
    named = {str(record.id) for record in records}
    places = Counter(
        medium
        for record in records
        for _, own in place_references(record.entities, record.relations, record.events)
        for medium in MEDIA
        for _ in own.of(medium)
    )
    return BuiltCell(
        cell, len(records), dict(places.items()), sum(name in named for name in silenced), _checksum(folder)
    )


def _is_eligible(record: Record, cell: Cell) -> bool:
    """Return whether a record of a set has what a cell needs before speech and clips are made."""
    if not record.text.strip() and (cell.has_text or "audio" in cell.media):
        return False
    if "image" in cell.media and record.image is None:
        return False
    if "video" in cell.media and record.image is None and record.video is None:
        return False
    return _num_items(record, cell) > 0 and not record.more_images


def _has_files(record: Record, cell: Cell) -> bool:
    """Return whether the files exist that a cell needs."""
    needed: tuple[Medium, ...] = ("image",) if record.video is None and "video" in cell.media else cell.media
    paths = (record.path(medium) for medium in needed if getattr(record, medium) is not None)
    return all(path is None or path.exists() for path in paths)


def _num_items(record: Record, cell: Cell) -> int:
    """Return the number of items of the first task of a cell."""
    task = cell.tasks[0]
    return len(getattr(record, _ITEMS[task])) if record.annotated_for(task) else 0


def _with_media(
    records: Sequence[Record],
    cell: Cell,
    folder: Path,
    speaker: Speaker | None,
    seed: int,
    note: Callable[[str], None],
) -> Iterator[Record]:
    """Yield the records with the media of a cell, which are made or copied, and without others."""
    found: Iterator[Record] = map(replace, records)
    if "video" in cell.media and records[0].video is None:
        found = pan_records(found, folder, "clips", seed=seed)
    elif "image" not in cell.media:
        found = (replace(one.regrounded("image", (), {}), image=None) for one in found)
    if speaker is not None and "audio" in cell.media:
        yield from speak_records(found, speaker, folder, "speech", keep_text=cell.has_text, on_left_out=note)
        return
    copied: set[tuple[Path, Path]] = set()
    for record in found:
        copy_media(record, record.media, folder, copied)
        yield record if cell.has_text else without_text(record)


def _silenced(record: Record, folder: Path, rng: random.Random) -> Record:
    """Return a record whose speech is silent where it says one of the mentions, which then has no segment."""
    named = referred(record, "audio")
    if not named:
        return record
    index = rng.choice(named)
    start, end = record.segments[index].interval
    path = folder / str(record.audio)
    sound = open_sound(path)
    samples = sound.samples.copy()
    samples[round(start * sound.rate) : round(end * sound.rate)] = 0
    save_sound(Sound(samples, sound.rate), path)
    kept = [number for number in range(len(record.segments)) if number != index]
    moved = {number: place for place, number in enumerate(kept)}
    return record.regrounded("audio", [record.segments[number] for number in kept], moved)


def _checksum(folder: Path) -> str:
    """Return the SHA-256 of all files in a folder, with their names."""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
