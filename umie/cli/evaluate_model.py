"""`umie evaluate --model`: a checkpoint on annotated data, generated, scored and written up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.cli.console import err
from umie.cli.evaluate_display import print_comparison, print_labels, print_scores, say
from umie.cli.options import tell
from umie.errors import UmieError
from umie.versions import file_digest, versions

if TYPE_CHECKING:
    from umie.data.source import Source
    from umie.evaluation.checkpoint import OnBatch
    from umie.records import Record

SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True)
class Job:
    """The options of the command; see its help."""

    model: Path
    data: str
    output: Path
    format: str
    images: Path | None
    regions: Path | None
    mapping: Path | None
    train: Path | None
    tasks: Sequence[str] | None
    modality: str
    title: str | None
    limit: int | None
    decodings: Sequence[str]
    events: str
    schema: str
    num_beams: int
    missing_images: str | None
    batch_size: int
    device: str | None
    dtype: str
    labels: bool
    seed: int
    resamples: int


def evaluate_model(job: Job) -> None:
    """Generate, score, print the tables, and write the folder of the report."""
    from transformers.utils import logging

    from umie.evaluation.checkpoint import evaluate_checkpoint
    from umie.evaluation.schema import choose_tasks
    from umie.extraction.loading import load_checkpoint
    from umie.reports.checkpoint_folder import check_folder, weights_of, whole_folder, write_folder
    from umie.types import check_image_policy

    check_folder(job.output)
    if job.missing_images is not None:
        check_image_policy(job.missing_images)
    logging.disable_progress_bar()
    with whole_folder(job.output) as folder:
        records, train, about = _read(job, folder)
        model, processor = load_checkpoint(job.model, job.device, job.dtype)
        processor.missing_images = job.missing_images or processor.missing_images
        usable = processor.usable(records)
        notes = list(about.pop("notes"))
        if len(usable) < len(records):
            reason, lost = next(iter(processor.unreadable.values())), len(records) - len(usable)
            notes.append(f"records left out, as their images cannot be read: {lost:,}; the first: {reason}")
        if model.fusion.uses_image and not any(record.image is not None for record in usable):
            notes.append("no record names an image, so that the model saw text alone; --images says where they are")
        asked = choose_tasks(processor, usable, job.tasks, schema=job.schema, source=job.data)
        notes += asked.notes
        for note in notes:
            tell(f"note: {note}", "yellow")
        with _progress() as on_batch:
            results = evaluate_checkpoint(
                model,
                processor,
                usable,
                asked,
                decodings=job.decodings,
                events=job.events,
                train=train,
                resamples=job.resamples,
                seed=job.seed,
                batch_size=job.batch_size,
                on_batch=on_batch,
                num_beams=job.num_beams,
            )
        title = f"{job.model} on {job.data}{'' if job.title is None else f', {job.title}'}"
        facts = {
            "notes": notes,
            "weights": weights_of(model, job.model),
            "data": {
                **about,
                "records": len(records),
                "with an image": sum(item.image is not None for item in records),
            },
            "settings": {
                "tasks": list(asked.scored),
                "schema": job.schema,
                "labels": {name: list(task.labels) for name, task in asked.tasks.items()},
                "events of MEAE": job.events,
                "beams": job.num_beams,
                "longest input": processor.max_input_tokens,
                "longest answer": processor.max_target_tokens,
                "missing images": processor.missing_images,
                "device": str(model.device),
                "precision": str(model.dtype).removeprefix("torch."),
                "seed": job.seed,
                "resamples": job.resamples,
            },
            "versions": versions("torch", "transformers", "numpy", "scipy"),
        }
        write_folder(folder, title, results, facts, usable)
    _print(job, results)


def _print(job: Job, results: Sequence[Any]) -> None:
    from umie.reports.checkpoint_page import notes_of

    for result in results:
        if len(results) > 1:
            say(f"{result.decoding} decoding")
        print_scores(result.report)
        if job.labels:
            print_labels(result.report)
        if result.oracles:
            say("meae was told the annotated events: its score is none of a system alone")
        for note in notes_of(result):
            say(f"note: {note}")
    if len(results) > 1:
        print_comparison(results[0].report, results[0].decoding, results[1].decoding)
    say(f"Written: {job.output / 'report.md'}")


def _read(job: Job, folder: Path) -> tuple[list[Record], list[Record] | None, dict[str, Any]]:
    """Return the records, those of training where they are given, and what the report says about them."""
    from umie.scoring import MODALITIES, modality_of

    about: dict[str, Any] = {"notes": []}
    if job.format == SYNTHETIC:
        records, train = _drawn(job, folder, about)
    else:
        source = _source(job, Path(job.data))
        records = list(islice(source.records(), job.limit))
        train = None if job.train is None else list(_source(job, job.train).records())
        about |= {"file": job.data, "sha256": file_digest(job.data), "format": job.format}
        if job.images is not None:
            about["images"] = str(job.images)
    if not records:
        raise UmieError(f"{job.data}: holds no record: give a file of annotated records")
    if job.modality in MODALITIES:
        records = [record for record in records if modality_of(record) == job.modality]
        if not records:
            raise UmieError(f"{job.data}: no record is of the modality {job.modality!r}: choose another --modality")
        about["modality"] = job.modality
    if job.limit is not None and job.format != SYNTHETIC:
        about["notes"].append(f"the first {job.limit:,} records of the data only (--limit)")
    return records, train, about


def _source(job: Job, path: Path) -> Source:
    from umie.data.source import Source

    return Source(path, job.format, job.images, job.regions, job.mapping)


def _drawn(job: Job, folder: Path, about: dict[str, Any]) -> tuple[list[Record], list[Record] | None]:
    from umie.data.synthetic import SPLITS, SyntheticConfig, ceilings, scenes, write_synthetic
    from umie.errors import check_choice
    from umie.records import read_jsonl

    check_choice("--data", job.data, SPLITS)
    default = SyntheticConfig()
    sizes = dict.fromkeys(SPLITS, 0) | {job.data: job.limit or getattr(default, job.data)}
    config = SyntheticConfig(**sizes)
    files = write_synthetic(folder / "data", config)
    records = list(read_jsonl(files[job.data]))
    train = None
    if job.train is not None:
        check_choice("--train", str(job.train), SPLITS)
        train = [scene.record for scene in scenes(default, str(job.train))]
    about |= {"embedded data set": job.data, "seed": config.seed, "image share": config.image_share}
    known = ", ".join(f"{task} {100 * value:.1f}" for task, value in ceilings(config).items())
    about["notes"].append(f"no system that sees the text alone can be expected to pass {known} (meae: told the events)")
    return records, train


@contextmanager
def _progress() -> Iterator[OnBatch]:
    """Show on standard error how far each task is: a bar where it is a terminal, else a line when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bars: dict[tuple[str, str], TaskID] = {}

        def on_batch(decoding: str, task: str, done: int, total: int) -> None:
            if (decoding, task) not in bars:
                bars[decoding, task] = progress.add_task(f"{task}, {decoding}", total=total)
            progress.update(bars[decoding, task], completed=done)
            if done == total and not err.is_terminal:
                tell(f"{task}, {decoding}: generated")

        yield on_batch


def job_from(options: Mapping[str, Any]) -> Job:
    """Return the job of some options of the command.

    Raises:
        UmieError: an option that is needed is missing.
    """
    for name, what in (("data", "a file of annotated records"), ("output", "a folder for the report")):
        if options[name] is None:
            raise UmieError(f"--{name} is missing: give {what}")
    return Job(**options)
