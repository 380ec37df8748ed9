"""The directory of an evaluated checkpoint: page, numbers, figures and predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from umie.errors import UmieError
from umie.evaluation.checkpoint import DecodingResult
from umie.evaluation.gates import gate_summary
from umie.files import atomic_write
from umie.model import UmieModel
from umie.records import Record, write_jsonl
from umie.reports.checkpoint_page import notes_of, page
from umie.reports.gates import draw_gates
from umie.reports.score_figure import draw_labels, draw_scores
from umie.scoring import to_json
from umie.versions import file_digest

PAGE, SCORES, GOLD, GATES, DATA = "report.md", "scores.json", "gold.jsonl", "gates.png", "data"
_CONTENT = (PAGE, SCORES, GOLD, GATES, DATA, "scores-*.png", "labels-*.png", "predictions-*")


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Raise UmieError if a report must not be written to a path.

    Args:
        folder: the directory to write. An existing one must be empty or, with ``overwrite``, an earlier report.
        overwrite: replace an earlier report.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UmieError(f"{folder}: is a file: use a directory for --output")
    names = [path.name for path in folder.iterdir()]
    if not names:
        return
    foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in _CONTENT)]
    if foreign or SCORES not in names:
        example = sorted(foreign or names)[0]
        raise UmieError(
            f"{folder}: contains files that do not belong to an evaluation, e.g. {example}: use another --output"
        )
    if not overwrite:
        raise UmieError(f"{folder}: already contains an evaluation: use another --output, or --overwrite to replace it")


def write_folder(
    folder: Path,
    title: str,
    results: Sequence[DecodingResult],
    facts: Mapping[str, Any],
    records: Sequence[Record],
) -> None:
    """Write ``report.md``, ``scores.json``, figures, ``gold.jsonl`` and the predictions of each task.

    Args:
        folder: an empty directory.
        title: the title of the page.
        results: one for each decoding.
        facts: the setup; see ``page``.
        records: the annotated records.
    """
    figures: dict[str, str] = {}
    for result in results:
        scores, labels = f"scores-{result.decoding}", f"labels-{result.decoding}"
        if result.report.lines:
            draw_scores(result.report, folder / f"{scores}.png")
            figures[scores] = f"{scores}.png"
        if draw_labels(result.report, folder / f"{labels}.png"):
            figures[labels] = f"{labels}.png"
        for task, predicted in result.predictions.items():
            write_jsonl(folder / f"predictions-{result.decoding}" / f"{task}.jsonl", predicted)
    gates = {task.upper(): own for task, own in results[0].gates.items() if own}
    if gates:  # those of the first decoding: only the events that MEAE is asked about can differ in the second
        draw_gates(gates, folder / GATES)
        figures["gates"] = GATES
    write_jsonl(folder / GOLD, records)
    with atomic_write(folder / SCORES) as file:
        json.dump(_numbers(title, results, facts), file, indent=1, ensure_ascii=False)
    with atomic_write(folder / PAGE) as file:
        file.write(page(title, results, facts, figures))


def weights_of(model: UmieModel, name: str | Path) -> dict[str, Any]:
    """Return the name of a checkpoint, its parts and size, and the digests of its local weight files."""
    config = model.config
    parts = {slot: dict(getattr(config, slot) or {}).get("name") for slot in ("encoder", "fusion", "decoder")}
    return {
        "folder": str(name),
        "sha256": {path.name: file_digest(path) for path in sorted(Path(name).glob("*.safetensors"))},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **parts,
        "decoder source": dict(config.decoder or {}).get("source", "-"),
    }


def _numbers(title: str, results: Sequence[DecodingResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        **facts,
        "decodings": {
            result.decoding: {
                **to_json(result.report),
                "gates": {task: gate_summary(own) for task, own in result.gates.items() if own},
                "counts": {task: dict(counts) for task, counts in result.counts.items()},
                "oracles": result.oracles,
                "unreadable": result.unreadable,
                "seconds": {task: round(value, 3) for task, value in result.seconds.items()},
                "notes": notes_of(result),
            }
            for result in results
        },
    }
