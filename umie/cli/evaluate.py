"""`umie evaluate`: scores of a checkpoint on annotated data, or of a file of predictions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.options import NO_RELATION_HELP, check_figure, part_options
from umie.cli.progress import Display, disable_progress_bars
from umie.errors import UmieError, check_choice
from umie.files import check_distinct

CHECKPOINT, FILES, BOTH = "A checkpoint", "A file of predictions", "Both"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None, _option(CHECKPOINT, "--model", "-m", metavar="<path>", help="Directory or hub name of a variant.")
    ] = None,
    data: Annotated[
        str | None, _option(CHECKPOINT, metavar="<path>", help="Annotated records; for an embedded set: dev or test.")
    ] = None,
    output: Annotated[Path | None, _option(CHECKPOINT, "--output", "-o", help="Directory of the report.")] = None,
    overwrite: Annotated[bool, _option(CHECKPOINT, "--overwrite", help="Replace an earlier report.")] = False,
    format_name: Annotated[
        str,
        _option(
            BOTH,
            "--format",
            "-f",
            help="Format of --data, --gold and --train: jsonl, twitter, gmner, ..., synthetic, synthetic_media.",
        ),
    ] = "jsonl",
    images: Annotated[Path | None, _option(BOTH, help="Directory of the images, sounds and videos.")] = None,
    regions: Annotated[
        Path | None, _option(BOTH, help="Annotation of regions: VOC files for twitter and gmner.")
    ] = None,
    format_option: Annotated[
        list[str] | None,
        _option(BOTH, metavar="NAME=VALUE", help="Option of the format, e.g. mapping=FILE for swig; repeatable."),
    ] = None,
    title: Annotated[str | None, _option(CHECKPOINT, help="Name of the data in the report, e.g. dev.")] = None,
    limit: Annotated[
        int | None, _option(CHECKPOINT, metavar="<int>", min=1, help="Evaluate only the first records.")
    ] = None,
    decoding: Annotated[
        str,
        _option(CHECKPOINT, metavar="<str>", help="constrained (well-formed answers only), free, or both to compare."),
    ] = "constrained",
    events: Annotated[
        str, _option(CHECKPOINT, metavar="<str>", help="Events that MEAE is asked about: predicted (by MED) or gold.")
    ] = "predicted",
    schema: Annotated[
        str, _option(CHECKPOINT, metavar="<str>", help="Labels to ask for: those of the checkpoint or of the data.")
    ] = "checkpoint",
    num_beams: Annotated[int, _option(CHECKPOINT, metavar="<int>", min=1, help="Beams; 1 is greedy decoding.")] = 1,
    missing_images: Annotated[
        str | None, _option(CHECKPOINT, metavar="<str>", help="For unreadable media: error, text_only or skip.")
    ] = None,
    blind: Annotated[
        list[str] | None,
        _option(CHECKPOINT, metavar="<str>", help="A medium to hide from the model: image, video, audio; repeatable."),
    ] = None,
    batch_size: Annotated[
        int, _option(CHECKPOINT, metavar="<int>", min=1, help="Queries per batch; does not change scores.")
    ] = 64,
    device: Annotated[
        str | None, _option(CHECKPOINT, help="cpu, cuda, cuda:1. (default: a GPU if there is one)")
    ] = None,
    dtype: Annotated[str, _option(CHECKPOINT, metavar="<str>", help="float32, bfloat16 or float16.")] = "float32",
    predictions: Annotated[Path | None, _option(FILES, help="Predictions of a system, JSONL.")] = None,
    gold: Annotated[Path | None, _option(FILES, help="The annotated records.")] = None,
    other: Annotated[
        Path | None, _option(FILES, help="Predictions of another system to compare with, by two paired tests.")
    ] = None,
    json_file: Annotated[Path | None, _option(FILES, "--json", help="Write all scores to this JSON file.")] = None,
    groundings: Annotated[
        Path | None, _option(FILES, help="Write the verdict on each place that shows an item to this JSONL file.")
    ] = None,
    figure: Annotated[
        Path | None, _option(FILES, help="Draw the scores (with --labels also of labels): PNG, PDF or SVG.")
    ] = None,
    train: Annotated[
        Path | None, _option(BOTH, help="Training records for the baselines. (default: baselines learn from gold)")
    ] = None,
    task: Annotated[
        list[str] | None, _option(BOTH, help="Task to score; repeatable. (default: all tasks of the annotation)")
    ] = None,
    modality: Annotated[
        str, _option(BOTH, metavar="<str>", help="Only text-only, image-only or multimedia records, or e.g. T+A.")
    ] = "all",
    group_by: Annotated[
        str,
        _option(
            BOTH,
            metavar="<str>",
            help="Groups of records that are also scored by themselves: combination (of media), items (their number), "
            "alignment (whether text and media show the same items).",
        ),
    ] = "combination",
    labels: Annotated[bool, _option(BOTH, "--labels", help="Also print the score of each label.")] = False,
    seed: Annotated[int, _option(BOTH, metavar="<int>", min=0, help="Seed of the resamples.")] = 0,
    resamples: Annotated[
        int, _option(BOTH, metavar="<int>", min=100, max=100_000, help="Resamples for intervals and tests.")
    ] = 1000,
    no_relation: Annotated[
        list[str] | None,
        _option(
            BOTH,
            "--no-relation",
            metavar="NAME",
            help=NO_RELATION_HELP,
        ),
    ] = None,
    plugin: Annotated[
        list[Path] | None, _option(BOTH, help="Python file that registers tasks or other parts; repeatable.")
    ] = None,
) -> None:
    """Score a checkpoint or a file of predictions, with 95% intervals.

    A checkpoint is evaluated on annotated data. The report contains report.md, scores.json, figures and predictions.

        umie evaluate --model best --data test.jsonl --output report
        umie evaluate -m best --data test.txt --format mnre --decoding both -o out
        umie evaluate --model best --data test --format synthetic -o report

    Predictions of any system are scored from a JSONL file with one record per line, which has predicted items in place
    of the annotation; on one line, for example:

        {"id": "7", "text": "In Rome",
         "entities": [{"type": "location", "span": [3, 7]}]}

        umie evaluate --predictions p.jsonl --gold g.jsonl --labels
        umie evaluate --predictions p.jsonl --gold txt/test.txt --format gmner --regions xml

    Lines are joined by id if each has a unique one, otherwise by order. A mention without offsets, {"type": "location",
    "text": "Rome"}, is scored only by its string. docs/scores.md defines all measures.

    With --task, records that are not annotated for these tasks need no line. So the predictions of one task in a report
    (predictions-constrained/mner.jsonl) or in a grid (cells/HASH/mner.jsonl) can be scored again.

    Exit code: 0 scored, 2 bad input.
    """
    given = dict(locals())  # not context.params: before typer 0.29 they are not converted, so paths are strings
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        is_of_other_mode = getattr(param, "rich_help_panel", None) == (CHECKPOINT if model is None else FILES)
        if is_of_other_mode and source is not None and source.name == "COMMANDLINE":
            if model is None and predictions is None and gold is None:
                raise UmieError(f"{param.opts[0]} requires --model, the checkpoint to evaluate")
            used = "--predictions and --gold" if model is None else "--model"
            raise UmieError(f"{param.opts[0]} has no effect with {used}: omit {param.opts[0]}, or {used}")
    from umie.cli.evaluate_display import print_checkpoint, print_files
    from umie.records import no_relation_names
    from umie.registry import load_plugins

    load_plugins(plugin or ())
    if model is None:
        if predictions is None or gold is None:
            raise UmieError("use --model and --data for a checkpoint, or --predictions and --gold")
        check_figure(figure)
        inputs = {path.resolve(): path for path in (predictions, gold, other, train) if path is not None}
        check_distinct([*inputs.values(), *(path for path in (json_file, groundings, figure) if path is not None)])
        from umie.reports.predictions import PredictionFiles, score_files
        from umie.resumable import digest_file, is_changed

        for path in (predictions, other):
            if path is not None and is_changed(path):
                differs = f"its digest in {digest_file(path)} differs"
                print_note(f"warning: {path} is not as it was written: {differs}", "yellow")
        of_format = part_options(format_option or (), "--format-option")
        files = PredictionFiles(predictions, gold, other, train, format_name, images, regions, of_format)
        with no_relation_names(no_relation or ()):
            scores = score_files(
                files, tasks=task, modality=modality, group_by=group_by, resamples=resamples, seed=seed
            )
        print_notes(Counter(), scores.doubtful)
        print_files(scores, with_labels=labels)
        if json_file is not None:
            scores.write_json(json_file)
            print_line(f"Written: {json_file}")
        if groundings is not None:
            num_lines = scores.write_groundings(groundings)
            print_line(f"Written: {groundings} ({num_lines:,} groundings)")
        for path in scores.draw(figure, with_labels=labels) if figure is not None else ():
            print_line(f"Written: {path}")
        return
    if data is None or output is None:
        raise UmieError(f"--{'data' if data is None else 'output'} is missing: it is required with --model")
    from umie.reports.checkpoint import EvaluationOptions, evaluate_to_folder
    from umie.reports.style import check_figures

    check_figures()
    check_choice("--decoding", decoding, ("constrained", "free", "both"))
    disable_progress_bars()
    names = [field.name for field in dataclasses.fields(EvaluationOptions)]
    options = {name: value for name, value in given.items() if name in names}
    options |= {"format": format_name, "format_options": part_options(format_option or (), "--format-option")}
    options |= {"tasks": task, "decodings": ("constrained", "free") if decoding == "both" else (decoding,)}
    with no_relation_names(no_relation or ()), Display() as display:

        def on_batch(decoding: str, task: str, done: int, total: int) -> None:
            display.phase(f"{task}, {decoding}", total)
            display.advance(done)

        def on_notes(notes: Sequence[str]) -> None:
            for note in notes:
                print_note(f"note: {note}", "yellow")

        report = evaluate_to_folder(EvaluationOptions(**options), on_notes=on_notes, on_batch=on_batch)
    print_checkpoint(report.results, with_labels=labels)
    print_line(f"Written: {output / 'report.md'}")
