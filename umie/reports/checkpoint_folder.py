"""The folder of an evaluated checkpoint: page, numbers, figures, predictions; it appears whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.evaluation.checkpoint import Evaluated
from umie.files import atomic_folder, atomic_write
from umie.model import UmieModel
from umie.records import Record, write_jsonl
from umie.reports.checkpoint_figures import draw_gates, draw_labels
from umie.reports.checkpoint_page import gate_figures, notes_of, page
from umie.reports.score_figure import draw
from umie.scoring import to_json
from umie.versions import file_digest

SCORES = "scores.json"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder`` that takes its place where the block ends without an exception.

    Raises:
        UmieError: a file is there, or a folder that no evaluation wrote.
    """
    check_folder(folder)
    with atomic_folder(folder) as made:
        yield made


def check_folder(folder: Path) -> None:
    """Raise UmieError where no report can be written: on a file, or on a folder with something else in it."""
    if folder.exists() and not folder.is_dir():
        raise UmieError(f"{folder}: is a file: give --output the name of a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / SCORES).is_file():
        raise UmieError(f"{folder}: holds something else than an evaluation: give --output another folder")


def write_folder(
    folder: Path, title: str, results: Sequence[Evaluated], facts: Mapping[str, Any], records: Sequence[Record]
) -> None:
    """Write ``report.md``, ``scores.json``, figures, ``gold.jsonl`` and the predictions of each task.

    Args:
        folder: an empty folder.
        title: of the page.
        results: one for each way of decoding.
        facts: what the scores rest on; see ``page``.
        records: the annotated records.
    """
    figures: dict[str, str] = {}
    for result in results:
        behind = f"-{result.decoding}"
        if result.report.lines:
            draw(result.report, folder / f"scores{behind}.png")
            figures[f"scores{behind}"] = f"scores{behind}.png"
        if draw_labels(result.report, folder / f"labels{behind}.png"):
            figures[f"labels{behind}"] = f"labels{behind}.png"
        for task, predicted in result.predictions.items():
            write_jsonl(folder / f"predictions{behind}" / f"{task}.jsonl", predicted)
    gates = results[0].gates  # decoding does not change them, but through the events that MEAE is asked about
    if any(gates.values()):
        draw_gates(gates, folder / "gates.png")
        figures["gates"] = "gates.png"
    write_jsonl(folder / "gold.jsonl", records)
    with atomic_write(folder / SCORES) as file:
        json.dump(_numbers(title, results, facts), file, indent=1, ensure_ascii=False)
    with atomic_write(folder / "report.md") as file:
        file.write(page(title, results, facts, figures))


def weights_of(model: UmieModel, folder: Path) -> dict[str, Any]:
    """Return which weights a folder holds: parts, size, and a hash of each file of them."""
    config = model.config
    parts = {name: dict(getattr(config, name) or {}).get("name") for name in ("encoder", "fusion", "decoder")}
    return {
        "folder": str(folder),
        "sha256": {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **parts,
        "decoder source": dict(config.decoder or {}).get("source", "-"),
    }


def _numbers(title: str, results: Sequence[Evaluated], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        **facts,
        "decodings": {
            result.decoding: {
                **to_json(result.report),
                "gates": {task: gate_figures(own) for task, own in result.gates.items() if own},
                "counts": {task: dict(counts) for task, counts in result.counts.items()},
                "oracles": result.oracles,
                "unreadable": result.unreadable,
                "seconds": {task: round(value, 3) for task, value in result.seconds.items()},
                "notes": notes_of(result),
            }
            for result in results
        },
    }
