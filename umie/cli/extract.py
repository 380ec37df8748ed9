"""`umie extract`: extracts from a text and its image, or from a file of records, with a saved variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import print_json, print_line, print_note, show
from umie.cli.options import Device, NoRelation, Plugins, text_of
from umie.cli.progress import counting, disable_progress_bars
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.extraction import Extraction
    from umie.records import Argument, Places, Record, Region, Span


def extract(
    text: Annotated[str | None, typer.Argument(help="The text, unless --input is used.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image of the text. Repeatable.")] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="A region of the image: x1,y1,x2,y2 relative to its size (0 to 1); of the second image x1,y1,x2,y2,1, "
            "and so on. Repeatable."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task such as mner, mre, med or meae; by default those of the model. Repeatable."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label to use in place of the model's: LABEL or TASK=LABEL. Repeatable.")
    ] = None,
    plugin: Plugins = None,
    input_file: Annotated[Path | None, typer.Option("--input", "-i", help="A JSONL file of records.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSONL file to write.")] = None,
    details: Annotated[
        Path | None, typer.Option(help="Also write boxes in pixels, gates and warnings to this JSONL file.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Directory of the images of --input; by default its own directory.")
    ] = None,
    missing_images: Annotated[
        str | None, typer.Option(help="How to treat an image that cannot be read: error, text_only or skip.")
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Continue after a bad line or image of --input; see OUTPUT.rejected.jsonl."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a complete --output.")] = False,
    constrained: Annotated[
        bool, typer.Option("--constrained/--free", help="Whether to allow only well-formed answers.")
    ] = True,
    max_pairs: Annotated[int, typer.Option(min=1, help="Maximum number of entity pairs to ask about in a text.")] = 132,
    num_beams: Annotated[int, typer.Option(min=1, help="Number of beams; 1 is greedy decoding.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries per batch; does not change the answers.")] = 16,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    json_flag: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    no_relation: NoRelation = None,
) -> None:
    """Extract entities, relations, events and their arguments from a text and its image, or from a file.

    The model is the directory of a saved variant, or a hub name (owner/model). For example:

        umie extract --model best "Kids at the Salvation Army" --image kids.jpg
        umie extract --model best "HMS Belfast" --task mner --label ship
        umie extract --model best -i in.jsonl -o out.jsonl --images photos

    Each line of --input is a record, at least {"text": "..."}. Its "image" is a path relative to --images ("images" is
    a list of several), and its "regions" are boxes relative to the image size, such as {"box": [0.1, 0.2, 0.5, 0.9]}
    (with "image": 1 in the second image). MRE asks about the pairs in
    "relations", or else about all pairs of the entities found. MEAE asks about "events" only if med is not among the
    tasks. The output has one record per line in the same order, which `umie evaluate --predictions` can score.

    Further keys of a line are copied. With --skip-bad, lines that are invalid or whose image cannot be read are written
    to out.jsonl.rejected.jsonl with the reason; lines without text and image always are.

    To resume an interrupted run, run the same command again; --missing-images and --skip-bad may change. Finished lines
    are kept in out.jsonl.part, and out.jsonl appears when it is complete, with its digest in out.jsonl.sha256. A
    complete output is replaced only with --overwrite.

    Exit code: 0 success, 2 invalid input, 130 interrupted.
    """
    from umie.hub import check_saved
    from umie.records import no_relation_names
    from umie.registry import load_plugins

    if model is None:
        raise UmieError("--model is missing: use the directory of a saved variant or a hub name")
    if (text is None) == (input_file is None):
        raise UmieError("pass either a text or a file with --input")
    check_saved(model)
    load_plugins(plugin or ())
    labels = _labels([text_of(one) for one in label or ()], task)
    options: dict[str, Any] = {
        "constrained": constrained,
        "max_pairs": max_pairs,
        "missing_images": missing_images,
        "num_beams": num_beams,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    if input_file is not None:
        if output is None:
            raise UmieError("--output is missing: use the name of the JSONL file to write")
        if image or region or json_flag:
            raise UmieError(
                "--image, --region and --json cannot be used with --input: its records have images and regions"
            )
        options |= {"details": details, "images": images, "tasks": task, "labels": labels, "skip_bad": skip_bad}
        options["overwrite"] = overwrite
        with no_relation_names(no_relation or ()):
            _extract_file(model, input_file, output, options)
        return
    if output is not None or details is not None or images is not None or skip_bad or overwrite:
        raise UmieError(
            "--output, --details, --images, --skip-bad and --overwrite require --input: the result of a text is printed"
        )
    from umie.extraction import Extractor

    disable_progress_bars()
    regions = [_region(given) for given in region or ()] or None
    extractor = Extractor.from_pretrained(model, **options)
    with no_relation_names(no_relation or ()):
        found = extractor.extract(text_of(str(text)), image or None, tasks=task, labels=labels, regions=regions)
    for notice in found.warnings:
        print_note(f"warning: {notice.message}", "yellow")
    if json_flag:
        print_json(found.to_json())
    else:
        show_extraction(found)


def _extract_file(model: str, source: Path, output: Path, options: Mapping[str, Any]) -> None:
    from umie.extraction import extract_file
    from umie.extraction.result import NOTICES

    disable_progress_bars()
    finished = (0, 0)
    try:
        with ExitStack() as stack:
            count: Callable[[], None] | None = None

            def show_progress(done: int, total: int) -> None:
                nonlocal count, finished
                finished = (done, total)
                if count is not None:
                    count()
                    return
                if done:
                    print_note(f"resuming: {done:,} of {total:,} records are finished")
                count = stack.enter_context(counting(f"extracting from {source.name}", total - done))

            summary = extract_file(
                model,
                source,
                output,
                on_progress=show_progress,
                note=lambda line: print_note(f"warning: {line}", "yellow"),
                **options,
            )
    except KeyboardInterrupt as error:
        done, total = finished
        kept = f"{done:,} of {total:,} records are finished, in {output}.part" if done else "no record is finished yet"
        print_note(f"umie: interrupted: {kept}; run the same command again to go on")
        raise typer.Exit(130) from error
    details = options["details"]
    more, num_new = "; use --details FILE to see which" if details is None else "", summary.total - summary.resumed
    for kind, number in summary.warnings.most_common():
        print_note(f"warning: {NOTICES[kind]}: {number:,} of {num_new:,} records{more}", "yellow")
    if summary.further:
        print_note(f"note: keys that are not those of a record were copied: {', '.join(list(summary.further)[:8])}")
    rejected = output.with_name(f"{output.name}.rejected.jsonl")
    for number, what in ((summary.rejected, "are invalid or have no readable image"), (summary.empty, "have no text")):
        if number:
            print_note(f"warning: {number:,} of {summary.total:,} lines {what}; see {rejected}", "yellow")
    counts = ((summary.written, "written"), (summary.rejected, "rejected"), (summary.empty, "without text"))
    listed = ", ".join(f"{number:,} {what}" for number, what in counts if number or what == "written")
    print_line(f"records: {summary.total:,}" + ("" if summary.written == summary.total else f" ({listed})"))
    for path in (output, details, rejected if rejected.exists() else None):
        if path is not None:
            print_line(f"{'Complete' if summary.was_complete else 'Written'}: {path}")
    if summary.was_complete:
        print_note(f"note: {output} was complete: the same command wrote it earlier; --overwrite extracts again")


def _labels(given: Sequence[str], tasks: Sequence[str] | None) -> dict[str, list[str]] | None:
    if not given:
        return None
    from umie.tasks import registry

    labels: dict[str, list[str]] = {}
    for text in given:
        task, equals, label = text.partition("=")
        if not (equals and task in registry):
            if tasks is None or len(tasks) != 1:
                raise UmieError(f"--label {text!r}: name its task, e.g. mner={text}, or use exactly one --task")
            task, label = tasks[0], text
        labels.setdefault(task, []).append(label)
    return labels


def _region(text: str) -> Region:
    from umie.records import Region

    try:
        x1, y1, x2, y2, *number = text.split(",")
        box = float(x1), float(y1), float(x2), float(y2)
        (image,) = map(int, number or ["0"])
    except ValueError as error:
        raise UmieError(
            f"--region {text!r}: use four numbers x1,y1,x2,y2 relative to the image size, and the number of the image "
            "if it is not the first, 0"
        ) from error
    return Region(box, image=image)


def show_extraction(found: Extraction) -> None:
    """Print a table for each kind of item, and the gate of each task."""
    if found.entities:
        entities = [(item.type, *_mention(found.record, item.span, item.places)) for item in found.entities]
        _show("Entities", ("type", "text or place", "characters"), entities)
    if found.relations:
        relations = []
        for item in found.relations:
            head, head_offsets = _mention(found.record, item.head, item.head_places)
            tail, tail_offsets = _mention(found.record, item.tail, item.tail_places)
            relations.append((head, item.type, tail, f"{head_offsets}, {tail_offsets}"))
        _show("Relations", ("head", "type", "tail", "characters"), relations)
    if found.events:
        rows: list[tuple[str, ...]] = []
        for event in found.events:
            trigger = ("(in the image)" if found.record.media == ("image",) else "(not in the text)", "")
            if event.trigger is not None or event.places:
                trigger = _mention(found.record, event.trigger, event.places)
            rows.append((event.type, "", *trigger, ""))
            rows += [("", argument.role, *_filler(found, argument)) for argument in event.arguments]
        columns: tuple[str, ...] = ("event", "role", "text or region", "characters", "pixels")
        if not any(row[-1] for row in rows):  # the image sizes are unknown
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        _show("Events", columns, rows)
    if not (found.entities or found.relations or found.events):
        print_line("Nothing was found.")
    gates = [f"{task} {gate:+.3f}" for task, gate in found.gate.items() if gate is not None]
    if gates:
        print_line(f"gate: {', '.join(gates)}")


def _filler(found: Extraction, argument: Argument) -> tuple[str, str, str]:
    region = found.region(argument)
    if region is None or argument.span is not None:
        return *_mention(found.record, argument.span, argument.places), ""
    name = f"region {argument.regions[0]}" + (f" ({region.label})" if region.label else "")
    pixels = found.pixel_box(argument)
    relative = ", ".join(f"{edge:.2f}" for edge in region.box)
    return name, f"box {relative}", "" if pixels is None else ", ".join(map(str, pixels))


def _mention(record: Record, span: Span | None, places: Places) -> tuple[str, str]:
    """Return the text of a mention with the names of the places that show it, and its offsets."""
    names = " ".join(places.names)
    if span is None:
        return names, ""
    return f"{record.surface(span)} ({names})" if names else record.surface(span), f"{span[0]}-{span[1]}"


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    show(table)
