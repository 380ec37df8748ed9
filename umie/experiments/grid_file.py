"""The file that describes a grid in its directory: the cells that were planned, and what is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import umie
from umie.errors import UmieError, at
from umie.experiments.results import read_sealed, write_sealed
from umie.experiments.scored_tasks import ScoredTask, f1_name, measure_of
from umie.scoring.report import GROUNDED
from umie.tasks import task_class
from umie.versions import file_digest

if TYPE_CHECKING:
    from umie.experiments.grid_run import GridRun

GRID_FILE = "grid.json"
FORMAT = 1
MAX_CELLS = 100_000

Text = Annotated[str, Field(strict=True, max_length=10_000)]
Labels = dict[Text, Text]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class GridCell(_Model):
    """A planned cell of a grid."""

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    seed: Annotated[int, Field(strict=True, ge=0)]
    labels: Labels  # of the options that name the variant, by slot
    options: Labels  # of all options, by slot
    uses_image: Annotated[bool, Field(strict=True)]
    trained_on: tuple[Text, ...]
    setup: dict[str, Any]  # its config without the seed

    @property
    def variant(self) -> str:
        """The name of the variant in tables."""
        return " + ".join(self.labels.values())


class Reference(_Model):
    """Published scores (0..1) of everything that a grid scores; None where nothing was published."""

    title: Text
    source: Text
    values: list[Finite | None]

    @property
    def label(self) -> str:
        """The title and the short source."""
        return f"{self.title} ({self.source.split(':')[0]})"


class GridFile(_Model):
    """A grid as it was planned when it last ran."""

    format: Annotated[int, Field(strict=True)]
    name: Text
    umie: Text  # the version
    split: Text
    f1_name: Text  # what the scores are
    scored: list[ScoredTask]
    mean_over: list[Text]
    records: Labels  # the digest of the records of the split, by scored data set
    num_records: dict[Text, int]
    ceilings: dict[Text, Finite]  # by scored task, of a text-only system
    baselines: dict[Text, tuple[Text, Finite]]  # by scored task, of a system without a model: what it does, and its F1
    references: list[Reference]
    compare_with: Text | None = None  # the variant that the others are compared with
    question: Text = ""  # that the grid is to answer
    command: Text = ""  # that ran it
    notes: list[Text] = Field(default_factory=list)
    terms: Labels = Field(default_factory=dict)  # what the words of its tables mean
    cells: Annotated[list[GridCell], Field(min_length=1, max_length=MAX_CELLS)]


def write_grid_file(run: GridRun, output: Path, *, with_baselines: bool = False) -> None:
    """Describe a grid in its directory; baselines, which take seconds, are computed only on demand."""
    write_sealed(output / GRID_FILE, describe(run, with_baselines=with_baselines).model_dump(mode="json"))


def describe(run: GridRun, *, with_baselines: bool = False) -> GridFile:
    """Return the description of a grid; see ``write_grid_file``."""
    split = run.grid.first.evaluation.split
    scored = list(dict.fromkeys(one.data_set for one in run.scored))
    files = {name: run.data.sets[name].files.get(split) for name in scored}
    line = {
        "format": FORMAT,
        "name": run.grid.name,
        "umie": umie.__version__,
        "split": split,
        "f1_name": f1_name(run.grid.first),
        "scored": [asdict(one) for one in run.scored],
        "mean_over": run.mean_over,
        "records": {name: file_digest(file) for name, file in files.items() if file is not None},
        "num_records": {name: run.data.sets[name].num_records[split] for name in scored},
        "ceilings": run.ceilings,
        "baselines": run.baselines if with_baselines else {},
        "references": [one._asdict() for one in run.references],
        "compare_with": run.grid.compare_with,
        "question": run.grid.question,
        "command": run.grid.command,
        "notes": run.grid.first.notes,
        "terms": _terms(run),
        "cells": [
            {
                "hash": cell.hash,
                "seed": cell.seed,
                "labels": dict(cell.labels),
                "options": dict(cell.options),
                "uses_image": cell.uses_image,
                "trained_on": list(cell.trained_on),
                "setup": cell.setup,
            }
            for cell in run.cells
        ],
    }
    return parse_grid_file(line)


def _terms(run: GridRun) -> dict[str, str]:
    """Return the words of a grid's tables with their meanings."""
    of_images = run.data.has_only_images
    found = {}
    if run.ceilings:
        found["Text-only ceiling"] = (
            f"the highest F1 that is possible without {'the images' if of_images else 'media'}, computed from the "
            "distribution that generated the data."
        )
    if any(one.is_oracle for one in run.scored):
        found["MEAE (oracle events)"] = (
            "arguments are extracted for the annotated events, type and trigger. These are not the scores of a "
            "complete system, which also has to detect the events."
        )
    if any(task_class(one.task).is_staged and not one.is_oracle for one in run.scored):
        found["MEAE"] = "arguments are extracted for the events that MED predicted."
    if grounded := [one.title for one in run.scored if measure_of(run.grid.first, one.task)]:
        found[", ".join(grounded)] = GROUNDED
    about, path = ("an image", "the visual path") if of_images else ("media", "the encoders and the embedding of media")
    if any("gate_mean" in line.get("health", {}) for line in run.results.values()):
        found["Gate"] = f"mean over the queries about {about}."
        found["Gate closed"] = f"share of them with g <= 0, which blocks {path}."
    found["Visual gradient"] = f"norm of the gradient of the loss with respect to {path} after training."
    return found


def read_grid_file(folder: Path) -> GridFile:
    """Return the description in the directory of a grid; raise UmieError if there is none, or it is damaged."""
    path = folder / GRID_FILE
    if not folder.is_dir():
        raise UmieError(f"{folder}: no such directory: use the output directory of a grid, such as runs/NAME")
    if not path.exists():
        raise UmieError(
            f"{folder}: has no {GRID_FILE}: use the output directory of a grid; for one of an earlier version, run "
            "`umie ablate` in it again, which runs only what is missing"
        )
    with at(str(path)):
        try:
            return parse_grid_file(read_sealed(path))
        except OSError as error:
            raise UmieError(f"cannot read: {error.strerror}") from error


def parse_grid_file(line: Mapping[str, Any]) -> GridFile:
    """Return a description of a grid from plain data; raise UmieError if a value is missing or of another type."""
    if line.get("format") != FORMAT:
        raise UmieError(f"its format is {line.get('format')!r}, and this version of umie reads {FORMAT}: use another")
    try:
        found = GridFile.model_validate(dict(line))
    except ValidationError as error:
        first = error.errors()[0]
        raise UmieError(f"not a grid: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    keys = [one.key for one in found.scored]
    hashes = [cell.hash for cell in found.cells]
    if not keys or not set(found.mean_over) <= set(keys) or not found.mean_over or len(set(hashes)) < len(hashes):
        raise UmieError("not a grid: its cells or scored tasks do not fit together")
    if any(len(one.values) != len(keys) for one in found.references):
        raise UmieError("not a grid: its references do not fit its scored tasks")
    return found
