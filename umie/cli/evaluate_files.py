"""`umie evaluate --predictions`: scores of a file of predictions, of any system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.cli.evaluate_display import print_comparison, print_labels, print_released, print_scores, say
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.scoring import Report


def evaluate_files(
    predictions: Path,
    gold: Path,
    *,
    other: Path | None,
    train: Path | None,
    task: Sequence[str] | None,
    modality: str,
    labels: bool,
    json_file: Path | None,
    figure: Path | None,
    seed: int,
    resamples: int,
) -> None:
    """Score a file of predictions and print the tables; the arguments are the options of the command."""
    from umie.records import read_jsonl
    from umie.scoring import read_gold, read_predictions, score_predictions, unknown_labels

    if figure is not None and figure.suffix != ".png":
        raise UmieError(f"--figure {figure}: give a name that ends in .png")
    wanted = read_gold(gold)
    records = [line.record for line in wanted]
    answers = read_predictions(predictions, wanted, gold, task)
    report = score_predictions(
        records,
        answers,
        tasks=task,
        modality=modality,
        other=None if other is None else read_predictions(other, wanted, gold, task),
        train=None if train is None else list(read_jsonl(train)),
        resamples=resamples,
        seed=seed,
    )
    print_scores(report)
    if labels:
        print_labels(report)
    if other is not None:
        print_comparison(report, predictions, other)
    for released in report.released:
        print_released(released)
    for name in dict.fromkeys(line.task for line in report.lines):
        unknown = unknown_labels(name, [answer.record for answer in answers], records)
        if unknown:
            shown = ", ".join(f"{label} ({count})" for label, count in unknown.most_common(8))
            say(f"note: {name}: {unknown.total()} predictions have labels that gold does not know: {shown}")
    for name, reason in report.left_out.items():
        say(f"left out: {name}: {reason}")
    if json_file is not None:
        files = {"predictions": predictions, "gold": gold, "other": other, "train": train}
        _write_json(json_file, report, {name: path for name, path in files.items() if path is not None})
    if figure is not None:
        from umie.reports.score_figure import draw

        draw(report, figure)
        say(f"Written: {figure}")


def _write_json(path: Path, report: Report, files: dict[str, Path]) -> None:
    from umie.files import atomic_write
    from umie.scoring import to_json
    from umie.versions import file_digest, versions

    content: dict[str, Any] = {
        "files": {name: {"path": str(file), "sha256": file_digest(file)} for name, file in files.items()},
        "versions": versions("numpy", "scipy"),
        **to_json(report),
    }
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    say(f"Written: {path}")
