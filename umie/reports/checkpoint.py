"""evaluate_to_folder: evaluate a saved checkpoint on annotated data and write a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from umie.data.embedded import EMBEDDED
from umie.data.source import Source
from umie.errors import UmieError, check_choice
from umie.evaluation.checkpoint import DecodingResult, OnBatch, evaluate_checkpoint
from umie.evaluation.schema import choose_tasks
from umie.files import atomic_folder, atomic_write, json_text
from umie.hub import check_saved
from umie.loading import load
from umie.model import UmieModel
from umie.model_parts import ENCODER_SLOTS
from umie.processor import UmieProcessor
from umie.records import MEDIA, Record, read_jsonl, write_jsonl
from umie.records.no_relation import doubt, doubtful_labels
from umie.records.places import A_MEDIUM, PLURALS
from umie.reports.checkpoint_page import notes_of, page
from umie.reports.gates import draw_gates
from umie.reports.score_figure import draw_labels, draw_scores
from umie.scoring import check_modality, has_modality, to_json
from umie.scoring.gates import gate_summary
from umie.scoring.groups import GROUPINGS, check_grouping
from umie.types import SPLITS, check_image_policy
from umie.versions import file_digest, versions

PAGE, SCORES, GOLD, GATES, DATA = "report.md", "scores.json", "gold.jsonl", "gates.png", "data"
_CONTENT = (PAGE, SCORES, GOLD, GATES, DATA, "scores-*.png", "labels-*.png", "predictions-*")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The options of an evaluation; the defaults are those of ``umie evaluate``.

    Args:
        model: the directory of a saved variant, or the name of a repository.
        data: a file of annotated records; a split (``train``, ``dev``, ``test``) of an embedded set.
        output: the directory to write.
        overwrite: replace an earlier report in ``output``.
        format: a format of ``umie.data``, or an embedded set: ``synthetic``, ``synthetic_media``.
        images: the folder of the images.
        regions: the annotation of regions, for formats with a separate one.
        format_options: further options of the format; see ``umie.data.format_options``.
        train: training records for the baselines, in the same format.
        tasks: the tasks to score; None scores those that both the data and the checkpoint support.
        modality: score only the records of one modality of M2E2 or of one combination, such as ``T+A``, or ``all``.
        group_by: the groups of records that are also scored by themselves: ``combination``, ``items``, ``alignment``.
        title: a name of the data in the report.
        limit: evaluate only the first records.
        decodings: ``constrained``, ``free``, or both to compare them.
        events: the events that MEAE is asked about, ``predicted`` or ``gold``.
        schema: ask for the labels of the ``checkpoint`` or the ``data``.
        num_beams: the number of beams; 1 is greedy decoding.
        missing_images: ``error``, ``text_only`` or ``skip``; None keeps the processor's setting.
        blind: media that are hidden from the model, to see how much they matter.
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
    group_by: str = "combination"
    title: str | None = None
    limit: int | None = None
    decodings: Sequence[str] = ("constrained",)
    events: str = "predicted"
    schema: str = "checkpoint"
    num_beams: int = 1
    missing_images: str | None = None
    blind: Sequence[str] | None = None
    batch_size: int = 64
    device: str | None = None
    dtype: str = "float32"
    resamples: int = 1000
    seed: int = 0


class EvaluationReport(NamedTuple):
    """The results of ``evaluate_to_folder``, one for each decoding, and notes about data and labels behind them."""

    results: list[DecodingResult]
    notes: list[str]


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
    _check_folder(options.output, options.overwrite)
    check_modality(options.modality)
    check_grouping(options.group_by)
    if options.missing_images is not None:
        check_image_policy(options.missing_images)
    for medium in options.blind or ():
        check_choice("blind", medium, MEDIA)
    with atomic_folder(options.output) as folder:
        records, train, source, notes = _read(options, folder / DATA)
        model, processor = load(options.model, options.device, options.dtype)
        processor.missing_images = options.missing_images or processor.missing_images
        processor.blind = frozenset(medium for medium in MEDIA if medium in (options.blind or ()))
        usable = processor.usable(records)
        if skipped := len(records) - len(usable):
            reason = next(iter(processor.unreadable.values()))
            notes.append(f"records skipped because of unreadable images: {skipped:,}; first: {reason}")
        if model.fusion.uses_image and not any(record.media for record in usable):
            notes.append(
                "no record has an image, so the model used only the text; set the folder of images with --images"
            )
        notes += _ignored_media(model, processor, usable)
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
            train=train,
            group_by=options.group_by,
            resamples=options.resamples,
            seed=options.seed,
            batch_size=options.batch_size,
            on_batch=on_batch,
            num_beams=options.num_beams,
        )
        having = {f"with {name}": sum(medium in one.media for one in records) for medium, name in A_MEDIUM.items()}
        facts = {
            "notes": notes,
            "weights": _weights(model, options.model),
            "data": {**source, "records": len(records), **having},
            "settings": {
                "tasks": list(selection.scored),
                "schema": options.schema,
                "labels": {name: list(task.labels) for name, task in selection.tasks.items()},
                "events of MEAE": options.events,
                "beams": options.num_beams,
                "longest input": processor.max_input_tokens,
                "longest answer": processor.max_target_tokens,
                "missing images": processor.missing_images,
                **({"hidden from the model": ", ".join(options.blind)} if options.blind else {}),
                "device": str(model.device),
                "precision": str(model.dtype).removeprefix("torch."),
                "seed": options.seed,
                "resamples": options.resamples,
                "groups": GROUPINGS[options.group_by],
            },
            "versions": versions("torch", "transformers", "numpy", "scipy"),
        }
        title = f"{options.model} on {options.data}{'' if options.title is None else f', {options.title}'}"
        _write(folder, title, results, facts, usable)
    return EvaluationReport(results, notes)


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Raise UmieError unless a path is new, an empty directory or, with ``overwrite``, an earlier report."""
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


def _read(
    options: EvaluationOptions, folder: Path
) -> tuple[list[Record], list[Record] | None, dict[str, Any], list[str]]:
    """Return the records, training records for the baselines, facts about the data, and notes.

    The files of the embedded data set are written to a folder.
    """
    train: list[Record] | None = None
    if options.format in EMBEDDED:
        check_choice("--data", options.data, SPLITS)
        kind = EMBEDDED[options.format]
        default = kind.config()
        size = options.limit or getattr(default, options.data)
        config = replace(default, **(dict.fromkeys(SPLITS, 0) | {options.data: size}))
        records = list(islice(read_jsonl(kind.write(folder, config)[options.data]), options.limit))
        if options.train is not None:
            check_choice("--train", str(options.train), SPLITS)
            train = list(kind.records(default, str(options.train)))
        facts: dict[str, Any] = {"embedded data set": options.data}
        facts |= {name.replace("_", " "): value for name, value in asdict(config).items() if name not in SPLITS}
        known = ", ".join(f"{task} {value:.3f}" for task, value in kind.ceilings(config, ()).items())
        notes = [f"expected upper bounds of F1 for a system without {kind.unseen}: {known} (meae: with gold events)"]
    else:
        source = Source(Path(options.data), options.format, options.images, options.regions, options.format_options)
        records = list(islice(source.records(), options.limit))
        if options.train is not None:
            train = list(replace(source, path=options.train).records())
        facts = {"file": options.data, "sha256": file_digest(source.path), "format": options.format}
        facts |= {} if options.images is None else {"images": str(options.images)}
        notes = [] if options.limit is None else [f"only the first {options.limit:,} records of the data (--limit)"]
    if not records:
        raise UmieError(f"{options.data}: has no records: use a file of annotated records")
    notes += map(doubt, doubtful_labels(item.type for record in records for item in record.relations))
    if options.modality != "all":
        records = [record for record in records if has_modality(record, options.modality)]
        if not records:
            raise UmieError(f"{options.data}: no record has the modality {options.modality!r}: use another --modality")
        facts["modality"] = options.modality
    return records, train, facts, notes


def _ignored_media(model: UmieModel, processor: UmieProcessor, records: Sequence[Record]) -> Iterator[str]:
    """Yield a note about each medium that records have and the model has no encoder for, unless it is hidden."""
    for medium, slot in ENCODER_SLOTS.items() if model.fusion.uses_image else ():
        having = sum(medium in record.media for record in records)
        if having and medium not in model.media_encoders and medium not in processor.blind:
            yield (
                f"{having:,} of {len(records):,} records have {PLURALS[medium]}, which are ignored: the model was "
                f"trained without {slot}"
            )


def _weights(model: UmieModel, name: str | Path) -> dict[str, Any]:
    """Return the name of a checkpoint, its parts and size, and the digests of its local weight files."""
    slots = (*ENCODER_SLOTS.values(), "fusion", "decoder")
    parts = {slot: dict(part) for slot in slots if (part := getattr(model.config, slot)) is not None}
    return {
        "folder": str(name),
        "sha256": {path.name: file_digest(path) for path in sorted(Path(name).glob("*.safetensors"))},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{slot: part.get("name") for slot, part in parts.items()},
        "decoder source": parts["decoder"].get("source", "-"),
    }


def _write(
    folder: Path, title: str, results: Sequence[DecodingResult], facts: Mapping[str, Any], records: Sequence[Record]
) -> None:
    figures: dict[str, str] = {}
    decodings: dict[str, Any] = {}
    for result in results:
        scores, labels = f"scores-{result.decoding}", f"labels-{result.decoding}"
        if result.report.lines:
            draw_scores(result.report, folder / f"{scores}.png")
            figures[scores] = f"{scores}.png"
        if draw_labels(result.report, folder / f"{labels}.png"):
            figures[labels] = f"{labels}.png"
        for task, predicted in result.predictions.items():
            write_jsonl(folder / f"predictions-{result.decoding}" / f"{task}.jsonl", predicted)
        decodings[result.decoding] = {
            **to_json(result.report),
            "gates": {task: gate_summary(own) for task, own in result.gates.items() if own},
            "counts": {task: dict(counts) for task, counts in result.counts.items()},
            "oracles": result.oracles,
            "unreadable": result.unreadable,
            "seconds": {task: round(value, 3) for task, value in result.seconds.items()},
            "notes": notes_of(result),
        }
    gates = {task.upper(): own for task, own in results[0].gates.items() if own}
    if gates:  # those of the first decoding: only the events that MEAE is asked about can differ in the second
        draw_gates(gates, folder / GATES)
        figures["gates"] = GATES
    write_jsonl(folder / GOLD, records)
    with atomic_write(folder / SCORES) as file:
        file.write(json_text({"title": title, **facts, "decodings": decodings}, indent=1))
    with atomic_write(folder / PAGE) as file:
        file.write(page(title, results, facts, figures))
