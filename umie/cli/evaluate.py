"""`umie evaluate`: scores of a checkpoint on data, or of a file of predictions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umie.cli.options import MappingFile
from umie.errors import UmieError

_EXAMPLE = """
A checkpoint is asked about annotated data, its answers are scored, and a
report is written: report.md, scores.json, figures and predictions.

    umie evaluate --model best --data test.jsonl --output report
    umie evaluate --model best --data mnre/test.txt --format mnre
      --images images --train mnre/train.txt --decoding both -o report
    umie evaluate --model best --data test --format synthetic -o report

Or predictions of any system are scored. Both files are then JSONL, one
record a line; predictions hold what was found in place of the annotation,
as in

    {"id": "7", "text": "In Rome",
     "entities": [{"type": "location", "span": [3, 7]}]}

on one line. For example:

    umie evaluate --predictions p.jsonl --gold g.jsonl --labels

Lines are joined by id where each has its own, else by order. A mention
without offsets, {"type": "location", "text": "Rome"}, is scored by its
string, under that name only. docs/scores.md defines every figure.

With --task, records that are annotated for none of the tasks need no line,
so that predictions about one task can be scored again, those of a report
(predictions-constrained/mner.jsonl) or of a grid (cells/HASH/mner.jsonl).

Exit code: 0 scored, 2 bad input.
"""


class Decoding(StrEnum):
    """How answers are generated."""

    constrained = "constrained"
    free = "free"
    both = "both"


def evaluate(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Folder of a saved variant.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Annotated records; for the embedded data set its split: dev or test.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder to write the report to.")] = None,
    format_name: Annotated[
        str, typer.Option("--format", "-f", help="What the data is: jsonl, twitter, mnre and so on, or synthetic.")
    ] = "jsonl",
    images: Annotated[Path | None, typer.Option(help="Folder of the images of the data.")] = None,
    regions: Annotated[Path | None, typer.Option(help="What annotates regions: VOC files for twitter, gmner.")] = None,
    mapping: MappingFile = None,
    title: Annotated[str | None, typer.Option(help="What the report calls the data, e.g. 'dev'.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first records of the data only.")] = None,
    decoding: Annotated[
        Decoding, typer.Option(help="Well-formed answers only, any answers, or both, compared.")
    ] = Decoding.constrained,
    events: Annotated[
        str, typer.Option(help="Events that MEAE is asked about: predicted by MED, or gold, an oracle.")
    ] = "predicted",
    schema: Annotated[
        str, typer.Option(help="Whose labels are asked for: those of the checkpoint, or of the data.")
    ] = "checkpoint",
    num_beams: Annotated[int, typer.Option(min=1, help="Beams; 1 is greedy.")] = 1,
    missing_images: Annotated[
        str | None, typer.Option(help="What an image that cannot be read does: error, text_only or skip.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries at once; it changes no score.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    predictions: Annotated[Path | None, typer.Option(help="What a system predicted, JSONL.")] = None,
    gold: Annotated[Path | None, typer.Option(help="The annotated records, JSONL.")] = None,
    other: Annotated[
        Path | None, typer.Option(help="Predictions of another system, to compare with: two paired tests.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training records: baselines learn from them, in place of gold.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task to score: mner, mre, med, meae; may be repeated. By default all that gold has."),
    ] = None,
    modality: Annotated[
        str, typer.Option(help="Only records of one modality: text-only, image-only or multimedia, the splits of M2E2.")
    ] = "all",
    labels: Annotated[bool, typer.Option("--labels", help="Print the score of each label, too.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this JSON file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw F1 and intervals into this PNG.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What resamples are drawn from.")] = 0,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Resamples of the records.")] = 1000,
) -> None:
    """Score a checkpoint or predictions: strict and diagnostic F1 with 95 % intervals, baselines, a report."""
    given = {name for name in context.params if _was_given(context, name)}
    if model is None:
        _refuse(given & _OF_MODEL, "--model", "--predictions and --gold")
        if predictions is None or gold is None:
            raise UmieError("give --model and --data for a checkpoint, or --predictions and --gold")
        from umie.cli.evaluate_files import evaluate_files

        evaluate_files(
            predictions,
            gold,
            other=other,
            train=train,
            task=task,
            modality=modality,
            labels=labels,
            json_file=json_file,
            figure=figure,
            seed=seed,
            resamples=resamples,
        )
        return
    _refuse(given & _OF_FILES, "--predictions", "--model")
    from umie.cli.evaluate_model import evaluate_model, job_from
    from umie.errors import check_choice
    from umie.evaluation.checkpoint import DECODINGS
    from umie.scoring import MODALITIES

    check_choice("--modality", modality, ("all", *MODALITIES))
    options = {name: value for name, value in context.params.items() if name not in _OF_FILES}
    options |= {"format": options.pop("format_name"), "tasks": options.pop("task")}
    options["decodings"] = DECODINGS if decoding == Decoding.both else (options["decoding"].value,)
    del options["decoding"]
    evaluate_model(job_from(options))


evaluate.__doc__ = f"{evaluate.__doc__}\n{_EXAMPLE}"

_OF_FILES = frozenset({"predictions", "gold", "other", "json_file", "figure"})
_OF_MODEL = frozenset(
    {
        "data", "output", "format_name", "images", "regions", "mapping", "title", "limit", "decoding", "events",
        "schema", "num_beams", "missing_images", "batch_size", "device", "dtype",
    }
)  # fmt: skip


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse(names: set[str], owner: str, used: str) -> None:
    """Raise UmieError for options of the other way to call the command, which would have no effect."""
    for name in sorted(names):
        option = {"json_file": "json", "format_name": "format"}.get(name, name).replace("_", "-")
        raise UmieError(f"--{option} goes with {owner}, not with {used}: leave it out")
