"""evaluate_to_folder: evaluate a saved checkpoint on annotated data and write a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from umie.data.source import Source
from umie.data.synthetic import SPLITS, SyntheticConfig, ceilings, scenes, write_synthetic
from umie.errors import UmieError, check_choice
from umie.evaluation.checkpoint import DecodingResult, OnBatch, evaluate_checkpoint
from umie.evaluation.schema import TaskSelection, choose_tasks
from umie.files import atomic_folder
from umie.hub import check_saved
from umie.loading import load
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record, read_jsonl
from umie.reports.checkpoint_folder import DATA, check_folder, weights_of, write_folder
from umie.scoring import MODALITIES, modality_of
from umie.types import check_image_policy
from umie.versions import file_digest, versions

SYNTHETIC = "synthetic"
_LIBRARIES = ("torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The options of an evaluation; the defaults are those of ``umie evaluate``.

    Args:
        model: the directory of a saved variant, or the name of a repository.
        data: a file of annotated records; a split (``train``, ``dev``, ``test``) if the format is ``synthetic``.
        output: the directory to write.
        overwrite: replace an earlier report in ``output``.
        format: a format of ``umie.data``, or ``synthetic``, the embedded data set.
        images: the folder of the images.
        regions: the annotation of regions, for formats with a separate one.
        format_options: further options of the format; see ``umie.data.format_options``.
        train: training records for the baselines, in the same format.
        tasks: the tasks to score; None scores those that both the data and the checkpoint support.
        modality: score only the records of one modality of M2E2, or ``all``.
        title: a name of the data in the report.
        limit: evaluate only the first records.
        decodings: ``constrained``, ``free``, or both to compare them.
        events: the events that MEAE is asked about, ``predicted`` or ``gold``.
        schema: ask for the labels of the ``checkpoint`` or the ``data``.
        num_beams: the number of beams; 1 is greedy decoding.
        missing_images: ``error``, ``text_only`` or ``skip``; None keeps the processor's setting.
        batch_size: queries per batch.
        device: e.g. ``cpu`` or ``cuda:1``; None uses a GPU if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        resamples: the number of resamples for intervals and tests.
        seed: their seed.
    """

    model: str | Path
    data: str
    output: Path
    overwrite: bool = False
    format: str = "jsonl"
    images: Path | None = None
    regions: Path | None = None
    format_options: Mapping[str, Any] = field(default_factory=dict)
    train: Path | None = None
    tasks: Sequence[str] | None = None
    modality: str = "all"
    title: str | None = None
    limit: int | None = None
    decodings: Sequence[str] = ("constrained",)
    events: str = "predicted"
    schema: str = "checkpoint"
    num_beams: int = 1
    missing_images: str | None = None
    batch_size: int = 64
    device: str | None = None
    dtype: str = "float32"
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class EvaluationReport:
    """The results of ``evaluate_to_folder``.

    Args:
        results: one for each decoding.
        notes: facts about the data and the labels that affect the scores.
    """

    results: list[DecodingResult]
    notes: list[str]


@dataclass
class _Data:
    """The records to evaluate, training records for the baselines, and their description in the report."""

    records: list[Record]
    train: list[Record] | None
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def evaluate_to_folder(
    options: EvaluationOptions,
    *,
    on_notes: Callable[[Sequence[str]], None] | None = None,
    on_batch: OnBatch | None = None,
) -> EvaluationReport:
    """Evaluate a checkpoint and write ``report.md``, ``scores.json``, figures, gold and predictions.

    The directory appears when it is complete; after an error, an earlier report is unchanged.

    Args:
        options: the options.
        on_notes: called with the notes of the report before the first batch.
        on_batch: called after each batch.

    Raises:
        UmieError: an option is invalid, the data or the model cannot be read, or ``output`` must not be replaced.
    """
    check_saved(options.model)
    check_folder(options.output, overwrite=options.overwrite)
    check_choice("modality", options.modality, ("all", *MODALITIES))
    if options.missing_images is not None:
        check_image_policy(options.missing_images)
    with atomic_folder(options.output) as folder:
        data = _synthetic(options, folder / DATA) if options.format == SYNTHETIC else _read(options)
        _choose_records(data, options)
        model, processor = load(options.model, options.device, options.dtype)
        processor.missing_images = options.missing_images or processor.missing_images
        usable = processor.usable(data.records)
        notes = [*data.notes, *_image_notes(model, processor, data.records, usable)]
        selection = choose_tasks(processor, usable, options.tasks, schema=options.schema, source=options.data)
        notes += selection.notes
        if on_notes is not None:
            on_notes(notes)
        results = evaluate_checkpoint(
            model,
            processor,
            usable,
            selection,
            decodings=options.decodings,
            events=options.events,
            train=data.train,
            resamples=options.resamples,
            seed=options.seed,
            batch_size=options.batch_size,
            on_batch=on_batch,
            num_beams=options.num_beams,
        )
        facts = {
            "notes": notes,
            "weights": weights_of(model, options.model),
            "data": {
                **data.facts,
                "records": len(data.records),
                "with an image": sum(record.image is not None for record in data.records),
            },
            "settings": _settings(options, model, processor, selection),
            "versions": versions(*_LIBRARIES),
        }
        title = f"{options.model} on {options.data}{'' if options.title is None else f', {options.title}'}"
        write_folder(folder, title, results, facts, usable)
    return EvaluationReport(results, notes)


def _read(options: EvaluationOptions) -> _Data:
    def source(path: Path) -> Source:
        return Source(path, options.format, options.images, options.regions, options.format_options)

    path = Path(options.data)
    records = list(islice(source(path).records(), options.limit))
    train = None if options.train is None else list(source(options.train).records())
    facts = {"file": options.data, "sha256": file_digest(path), "format": options.format}
    if options.images is not None:
        facts["images"] = str(options.images)
    notes = [] if options.limit is None else [f"only the first {options.limit:,} records of the data (--limit)"]
    return _Data(records, train, facts, notes)


def _synthetic(options: EvaluationOptions, folder: Path) -> _Data:
    """Return a split of the embedded data set, whose files are written to a directory."""
    check_choice("--data", options.data, SPLITS)
    default = SyntheticConfig()
    sizes = dict.fromkeys(SPLITS, 0) | {options.data: options.limit or getattr(default, options.data)}
    config = SyntheticConfig(**sizes)
    files = write_synthetic(folder, config)
    train = None
    if options.train is not None:
        check_choice("--train", str(options.train), SPLITS)
        train = [scene.record for scene in scenes(default, str(options.train))]
    facts = {"embedded data set": options.data, "seed": config.seed, "image share": config.image_share}
    known = ", ".join(f"{task} {100 * value:.1f}" for task, value in ceilings(config).items())
    note = f"expected upper bounds of F1 for a system without images: {known} (meae: with gold events)"
    return _Data(list(read_jsonl(files[options.data])), train, facts, [note])


def _choose_records(data: _Data, options: EvaluationOptions) -> None:
    if not data.records:
        raise UmieError(f"{options.data}: has no records: use a file of annotated records")
    if options.modality in MODALITIES:
        data.records = [record for record in data.records if modality_of(record) == options.modality]
        if not data.records:
            raise UmieError(f"{options.data}: no record has the modality {options.modality!r}: use another --modality")
        data.facts["modality"] = options.modality


def _image_notes(
    model: UmieModel, processor: UmieProcessor, records: Sequence[Record], usable: Sequence[Record]
) -> list[str]:
    notes = []
    if len(usable) < len(records):
        reason = next(iter(processor.unreadable.values()))
        notes.append(f"records skipped because of unreadable images: {len(records) - len(usable):,}; first: {reason}")
    if model.fusion.uses_image and not any(record.image is not None for record in usable):
        notes.append("no record has an image, so the model used only the text; set the folder of images with --images")
    return notes


def _settings(
    options: EvaluationOptions, model: UmieModel, processor: UmieProcessor, selection: TaskSelection
) -> dict[str, Any]:
    return {
        "tasks": list(selection.scored),
        "schema": options.schema,
        "labels": {name: list(task.labels) for name, task in selection.tasks.items()},
        "events of MEAE": options.events,
        "beams": options.num_beams,
        "longest input": processor.max_input_tokens,
        "longest answer": processor.max_target_tokens,
        "missing images": processor.missing_images,
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "seed": options.seed,
        "resamples": options.resamples,
    }
