"""score_files: score a file of predictions of any system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umie.data.source import JSONL, Source
from umie.files import atomic_write, json_text
from umie.records.no_relation import doubtful_labels
from umie.records.places import place_name
from umie.reports.score_figure import draw_labels, draw_scores
from umie.scoring import Report, read_gold, read_predictions, score_predictions, to_json, unknown_labels
from umie.scoring.groups import check_grouping
from umie.tasks import task_class
from umie.versions import file_digest, versions


@dataclass(frozen=True)
class PredictionFiles:
    """The files of a comparison with gold.

    Args:
        predictions: the predictions of a system, JSONL.
        gold: the annotated records.
        other: the predictions of another system to compare with, JSONL.
        train: training records for the baselines.
        format: the format of the annotated and of the training records.
        images: the directory of their images; needed only by formats whose boxes depend on them.
        regions: the annotation of their regions.
        format_options: options of the format.
    """

    predictions: Path
    gold: Path
    other: Path | None = None
    train: Path | None = None
    format: str = JSONL
    images: Path | None = None
    regions: Path | None = None
    format_options: Mapping[str, Any] = field(default_factory=dict)

    def source(self, path: Path) -> Source:
        """Return a file of annotated records in the format."""
        return Source(path, self.format, self.images, self.regions, self.format_options)


@dataclass(frozen=True)
class FileScores:
    """The scores of a file of predictions.

    Args:
        files: the files.
        report: the scores.
        unknown: by task, the number of predictions with each label that does not occur in gold.
        doubtful: relation labels that look like ``none`` under another name.
        ids: the ids of the annotated records.
    """

    files: PredictionFiles
    report: Report
    unknown: dict[str, Counter[str]] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()
    ids: Sequence[str | None] = ()

    def write_json(self, path: str | Path) -> None:
        """Write the scores, the digests of the files, and the versions of the libraries."""
        named = {name: getattr(self.files, name) for name in ("predictions", "gold", "other", "train")}
        files = {name: file for name, file in named.items() if file is not None}
        content = {
            "files": {name: {"path": str(file), "sha256": file_digest(file)} for name, file in files.items()},
            "versions": versions("numpy", "scipy"),
            **to_json(self.report),
        }
        with atomic_write(path) as file:
            file.write(json_text(content, indent=1) + "\n")

    def write_groundings(self, path: str | Path) -> int:
        """Write the verdict on each predicted and annotated grounding, one a line; return their number.

        A line has the number of the record, from 1, and its id, the task, side, verdict and medium, the name of the
        place on its side, the item's type and offsets, and for relations which end the place shows.
        """
        num_lines = 0
        with atomic_write(path) as file:
            for task, groundings in self.report.groundings.items():
                kind = task_class(task).kind
                for row, found in zip(groundings.rows, groundings.found, strict=True):
                    sides = [("predicted", one) for one in found.predicted]
                    for side, one in (*sides, *(("annotated", one) for one in found.annotated)):
                        label, *offsets = one.item
                        line: dict[str, Any] = {"record": row + 1, "id": self.ids[row], "task": task, "side": side}
                        line |= {"verdict": one.verdict, "medium": one.medium}
                        line |= {"place": place_name(one.medium, one.place), "type": label, "offsets": offsets}
                        line |= {"end": ("head", "tail")[one.part]} if kind == "relations" else {}
                        file.write(json_text(line) + "\n")
                        num_lines += 1
        return num_lines

    def draw(self, path: Path, *, with_labels: bool = False) -> list[Path]:
        """Draw the scores and, if requested, those of the labels next to them, with ``-labels`` added to the name.

        Raises:
            UmieError: there are no scores, or a file cannot be written.
        """
        draw_scores(self.report, path)
        labels = path.with_stem(f"{path.stem}-labels")
        return [path, labels] if with_labels and draw_labels(self.report, labels) else [path]


def score_files(
    files: PredictionFiles,
    *,
    tasks: Sequence[str] | None = None,
    modality: str = "all",
    group_by: str = "combination",
    resamples: int = 1000,
    seed: int = 0,
) -> FileScores:
    """Score a file of predictions; the options are those of ``umie.scoring.score_predictions``.

    Raises:
        UmieError: a file cannot be read, the files do not belong together, or a task cannot be scored.
    """
    check_grouping(group_by)
    gold = read_gold(files.source(files.gold))
    records = [line.record for line in gold]
    predictions = read_predictions(files.predictions, gold, files.gold, tasks)
    other = None if files.other is None else read_predictions(files.other, gold, files.gold, tasks)
    train = None if files.train is None else list(files.source(files.train).records())
    report = score_predictions(
        records,
        predictions,
        tasks=tasks,
        modality=modality,
        group_by=group_by,
        other=other,
        train=train,
        resamples=resamples,
        seed=seed,
    )
    predicted = [one.record for one in predictions]
    unknown = {line.task: unknown_labels(line.task, predicted, records) for line in report.main_lines()}
    relations = (item.type for record in (*records, *predicted) for item in record.relations)
    return FileScores(
        files,
        report,
        {task: labels for task, labels in unknown.items() if labels},
        tuple(doubtful_labels(relations)),
        [record.id for record in records],
    )
