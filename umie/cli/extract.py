"""`umie extract`: extracts from a text and its media, or from a file of records, with a saved variant."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from umie.cli.console import print_json, print_line, print_note, show
from umie.cli.options import Device, NoRelation, Plugins, Threshold, text_of, threshold_of
from umie.cli.progress import counting, disable_progress_bars
from umie.errors import UmieError, at

if TYPE_CHECKING:
    from umie.extraction import Extraction, FileSummary
    from umie.extraction.result import PixelBox
    from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, Segment, Span, Track

PLACE, PROBABILITY = "pixels, seconds", "probability"  # columns


def extract(
    text: Annotated[str | None, typer.Argument(help="The text, unless there are only media, or --input.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")
    ] = None,
    image: Annotated[list[str] | None, typer.Option(help="An image of the text. Repeatable.")] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="A region of the image: x1,y1,x2,y2 relative to its size (0 to 1); of the second image x1,y1,x2,y2,1, "
            "and so on. Repeatable."
        ),
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="The sound of the text: WAV, or any with PyAV.")] = None,
    segment: Annotated[
        list[str] | None, typer.Option(help="A segment of the sound: start,end in seconds. Repeatable.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="The video of the text, or a folder of its frames.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="A track through the video: 'second,x1,y1,x2,y2 second,x1,y1,x2,y2 ...', boxes as in --region; a "
            "second without a box is one at which it is not visible. Repeatable."
        ),
    ] = None,
    grounder: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to look for what was extracted: MEDIUM=NAME, or 'MEDIUM={name: NAME, option: value}'. "
            "Repeatable."
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
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            help="A file of records: .jsonl, .csv, .tsv, .parquet, .txt (a text per line); or - for JSONL from "
            "standard input.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSONL file to write.")] = None,
    details: Annotated[
        Path | None,
        typer.Option(help="Also write places in pixels and seconds, gates and warnings to this file."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Directory of the media of --input; by default its own directory.")
    ] = None,
    missing_images: Annotated[
        str | None, typer.Option(help="How to treat media that cannot be read: error, text_only or skip.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="The column of a field, in a table: text=tweet; also image, audio, video, id. Repeatable."),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Continue after a bad line or medium of --input; see OUTPUT.rejected.jsonl."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a complete --output.")] = False,
    threshold: Threshold = None,
    urls: Annotated[
        str,
        typer.Option(
            help="Images at URLs: refuse; public: download them, at most 20 MB and 30 s each; any: also from addresses "
            "of private networks."
        ),
    ] = "refuse",
    long_texts: Annotated[
        str, typer.Option(help="Read a text that is too long for the model in windows, or truncate it.")
    ] = "windows",
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
    """Extract entities, relations, events and their arguments from a text and its media, or from a file.

    The model is the directory of a saved variant, or a hub name (owner/model). For example:

        umie extract --model best "Kids at the Salvation Army" --image kids.jpg
        umie extract --model best "HMS Belfast" --task mner --label ship --threshold 0.7
        umie extract --model best --audio call.wav --segment 0.2,0.9
        umie extract --model best -i in.jsonl -o out.jsonl --images photos

    Answers refer to the places that are given: regions of images, segments of the sound, tracks through the video.
    Without any, a medium is seen or heard as a whole; `umie data regions`, `segments` and `tracks` find places. A
    --grounder looks for the words of the items instead, after they are extracted (or for the phrases of a model whose
    answers describe places): --grounder 'image={name: grounding, checkpoint: owlvit}'; see `umie list`.

    A line of a JSONL file is a record, at least {"text": "..."}. Its "image", "audio" and "video" are paths relative to
    --images ("images" is a list of several), and its "regions" are boxes relative to the image size, such as {"box":
    [0.1, 0.2, 0.5, 0.9]} (with "image": 1 in the second image); docs/data.md has "segments" and "tracks". MRE asks
    about the pairs in "relations", or else about all pairs of the entities found. MEAE asks about "events" only if med
    is not among the tasks. The output has one record per line in the same order, which `umie evaluate --predictions`
    can score.

    Of a table, the columns text, image, audio, video and id are read, or those named by --column; the image in a
    Parquet file may be a path or the bytes of an image file. Several devices share a file: --device cuda:0,cuda:1, or
    --device cpu,cpu for two processes on the CPU.

        umie extract --model best -i tweets.csv --column text=tweet -o out.jsonl --threshold 0.7

    Further keys of a line, and columns, are copied. With --skip-bad, lines that are invalid or have a medium that
    cannot be read are written to out.jsonl.rejected.jsonl with the reason; lines without text and media always are.

    With --input -, lines are read from standard input, results are written to standard output as soon as a batch is
    complete (--batch-size 1: each by itself), and rejected lines to standard error; nothing can be resumed:

        cat in.jsonl | umie extract --model best -i - --images photos | gzip > out.jsonl.gz

    To resume an interrupted run, run the same command again; --missing-images and --skip-bad may change. Finished lines
    are kept in out.jsonl.part, and out.jsonl appears when it is complete, with its digest in out.jsonl.sha256. A
    complete output is replaced only with --overwrite.

    Exit code: 0 success, 2 invalid input, 130 interrupted.
    """
    from umie import tasks as all_tasks
    from umie.hub import check_saved
    from umie.records import no_relation_names
    from umie.registry import load_plugins

    if model is None:
        raise UmieError("--model is missing: use the directory of a saved variant or a hub name")
    has_media = bool(image or audio or video)
    if (text is None and not has_media) == (input_file is None):
        raise UmieError(
            "pass either a text or a file with --input; with --image, --audio or --video, the text may be left out"
        )
    check_saved(model)
    load_plugins(plugin or ())
    all_tasks.ordered(task)  # unknown names are found before anything is loaded
    labels = _labels([text_of(one) for one in label or ()], task)
    options: dict[str, Any] = {
        "constrained": constrained,
        "long_texts": long_texts,
        "urls": urls,
        "max_pairs": max_pairs,
        "missing_images": missing_images,
        "num_beams": num_beams,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    if threshold:
        options["threshold"] = threshold_of(threshold)
    if device is not None and "," in device:
        if input_file is None or str(input_file) == "-":
            raise UmieError(f"--device {device}: several devices share a file, --input FILE")
        options["device"] = device.split(",")
    if grounder:
        options["grounders"] = _grounders([text_of(one) for one in grounder])
    if input_file is not None:
        if has_media or region or segment or track or json_flag:
            raise UmieError("media, their places and --json cannot be used with --input: its records have their own")
        columns = _columns(column or ())
        if str(input_file) == "-":
            if columns:
                raise UmieError("--column is for tables; the lines of standard input are JSON")
            if str(output or "-") != "-" or details is not None or overwrite:
                raise UmieError(
                    "--input -: results go to standard output; --output, --details and --overwrite need a file"
                )
            with no_relation_names(no_relation or ()):
                _extract_stream(model, images, task, labels, skip_bad, options)
            return
        if output is None:
            raise UmieError("--output is missing: use the name of the JSONL file to write")
        options |= {"details": details, "images": images, "tasks": task, "labels": labels, "skip_bad": skip_bad}
        options |= {"overwrite": overwrite, "columns": columns or None}
        with no_relation_names(no_relation or ()):
            _extract_file(model, input_file, output, options)
        return
    if output is not None or details is not None or images is not None or column or skip_bad or overwrite:
        raise UmieError(
            "--output, --details, --images, --column, --skip-bad and --overwrite require --input: the result of a text "
            "is printed"
        )
    given: dict[str, Any] = {
        "audio": audio,
        "video": video,
        "regions": [read_region(one) for one in region or ()] or None,
        "segments": [_segment(one) for one in segment or ()] or None,
        "tracks": [_track(one) for one in track or ()] or None,
    }
    if missing_images in (None, "error"):
        for name, path in (*(("--image", one) for one in image or ()), ("--audio", audio), ("--video", video)):
            if path is not None and "://" not in str(path) and not Path(path).exists():
                raise UmieError(f"{name} {path}: no such {name[2:]}")
    from umie.extraction import Extractor
    from umie.extraction.extractor import is_file_name
    from umie.records import Record

    if is_file_name(text or ""):
        print_note(f"warning: {text} is read as a text; it is also a file: --image FILE, or --input FILE", "yellow")
    disable_progress_bars()
    extractor = Extractor.from_pretrained(model, **options)
    with no_relation_names(no_relation or ()):
        given_text = Record(text_of(text)) if text else ""  # a record is never read as the name of a file
        found = extractor.extract(given_text, image or None, tasks=task, labels=labels, **given)
    for notice in found.warnings:
        print_note(f"warning: {notice.message}", "yellow")
    if json_flag:
        print_json(found.to_json())
    else:
        show_extraction(found)


def _extract_stream(
    model: str,
    images: Path | None,
    tasks: Sequence[str] | None,
    labels: Mapping[str, Sequence[str]] | None,
    skip_bad: bool,
    options: Mapping[str, Any],
) -> None:
    from umie.extraction import Extractor, extract_stream

    disable_progress_bars()
    folder = Path() if images is None else images
    if not folder.is_dir():
        raise UmieError(f"--images {folder}: not a directory")

    def write(line: str) -> None:
        sys.stdout.buffer.write(f"{line}\n".encode())  # in any locale, as a file
        sys.stdout.buffer.flush()

    summary = extract_stream(
        Extractor.from_pretrained(model, **options),
        sys.stdin.buffer,
        write,
        lambda line: print_note(f"rejected: {line}", "yellow"),
        images=folder,
        tasks=tasks,
        labels=labels,
        skip_bad=skip_bad,
    )
    _note_warnings(summary, summary.total, "")
    rejected = summary.total - summary.written
    print_note(f"records: {summary.total:,} ({summary.written:,} written, {rejected:,} rejected or without text)")


def _note_warnings(summary: FileSummary, number: int, more: str) -> None:
    """Print how many of a number of records have each kind of warning, and the keys that were copied."""
    from umie.extraction.result import NOTICES

    for kind, warned in summary.warnings.most_common():
        print_note(f"warning: {NOTICES[kind]}: {warned:,} of {number:,} records{more}", "yellow")
    if summary.further:
        print_note(f"note: keys that are not those of a record were copied: {', '.join(list(summary.further)[:8])}")


def _extract_file(model: str, source: Path, output: Path, options: Mapping[str, Any]) -> None:
    from umie.extraction import extract_file

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
    _note_warnings(summary, num_new, more)
    rejected = output.with_name(f"{output.name}.rejected.jsonl")
    bad = "are invalid or have a medium that cannot be read"
    for number, what in ((summary.rejected, bad), (summary.empty, "have neither a text nor media")):
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
                unknown = f"there is no task {task!r}" if equals else "name its task"
                raise UmieError(f"--label {text!r}: {unknown}, e.g. mner={label or text}, or use exactly one --task")
            task, label = tasks[0], text
        labels.setdefault(task, []).append(label)
    return labels


def _columns(given: Sequence[str]) -> dict[str, str]:
    """Return the column of each field."""
    found: dict[str, str] = {}
    for text in given:
        field, equals, column = text.partition("=")
        if not equals or not column or field in found:
            raise UmieError(f"--column {text}: use FIELD=COLUMN, such as text=tweet, once for each field")
        found[field] = text_of(column)
    return found


def _grounders(given: Sequence[str]) -> dict[str, Any]:
    """Return the grounder of each medium, as name and options."""
    from umie.yaml_files import parse_yaml

    found: dict[str, Any] = {}
    for text in given:
        medium, equals, part = text.partition("=")
        with at(f"--grounder {text!r}"):
            if not equals or not part.strip():
                raise UmieError("name the medium and a grounder, such as audio=words")
            if medium in found:
                raise UmieError(f"there is already one for {medium}: use one for each medium")
            found[medium] = parse_yaml(part)
    return found


def read_region(text: str) -> Region:
    """Return the region of ``--region``: four edges, and the number of its image if it is not the first."""
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


def _segment(text: str) -> Segment:
    from umie.records import Segment

    try:
        start, end = map(float, text.split(","))
    except ValueError as error:
        raise UmieError(f"--segment {text!r}: use two numbers start,end in seconds") from error
    with at(f"--segment {text!r}"):
        return Segment((start, end))


def _track(text: str) -> Track:
    from umie.records import Track

    times: list[float] = []
    boxes: list[Any] = []
    try:
        for step in text.split():
            time, *box = map(float, step.split(","))
            times.append(time)
            boxes.append(tuple(box) or None)
    except ValueError as error:
        example = "'0,0.1,0.2,0.5,0.9 0.5,0.2,0.2,0.6,0.9'"
        raise UmieError(f"--track {text!r}: use second,x1,y1,x2,y2 with spaces between them, e.g. {example}") from error
    with at(f"--track {text!r}"):
        return Track(tuple(times), tuple(boxes))


def show_extraction(found: Extraction) -> None:
    """Print a table for each kind of item, and the gate of each task."""
    record = found.record
    if found.entities:
        entities = [
            (item.type, *_mention(record, item.span, item.places), _where(found, item.places), _probability(item))
            for item in found.entities
        ]
        _show("Entities", ("type", "text or place", "characters", PLACE, PROBABILITY), entities)
    if found.relations:
        relations = []
        for item in found.relations:
            head, head_offsets = _mention(record, item.head, item.head_places)
            tail, tail_offsets = _mention(record, item.tail, item.tail_places)
            where = filter(None, (_where(found, places) for places in (item.head_places, item.tail_places)))
            offsets = filter(None, (head_offsets, tail_offsets))
            relations.append((head, item.type, tail, ", ".join(offsets), "; ".join(where), _probability(item)))
        _show("Relations", ("head", "type", "tail", "characters", PLACE, PROBABILITY), relations)
    if found.events:
        rows: list[tuple[str, ...]] = []
        for event in found.events:
            trigger = ("(in the image)" if record.media == ("image",) else "(not in the text)", "")
            if event.trigger is not None or event.places:
                trigger = _mention(record, event.trigger, event.places)
            rows.append((event.type, "", *trigger, _where(found, event.places), _probability(event)))
            rows += [("", one.role, *_filler(found, one), _probability(one)) for one in event.arguments]
        _show("Events", ("event", "role", "text or place", "characters", PLACE, PROBABILITY), rows)
    if not (found.entities or found.relations or found.events):
        print_line("Nothing was found.")
    gates = [f"{task} {gate:+.3f}" for task, gate in found.gate.items() if gate is not None]
    if gates:
        print_line(f"gate: {', '.join(gates)}")


def _probability(item: Entity | Relation | Event | Argument) -> str:
    return "" if item.probability is None else f"{item.probability:.2f}"


def _filler(found: Extraction, argument: Argument) -> tuple[str, str, str]:
    region = found.region(argument)
    if region is None or argument.span is not None or argument.places.without("image"):
        return *_mention(found.record, argument.span, argument.places), _where(found, argument.places)
    name = f"region {argument.regions[0]}" + (f" ({region.label})" if region.label else "")
    relative = ", ".join(f"{edge:.2f}" for edge in region.box)
    return name, f"box {relative}", _edges(found.pixel_box(argument))


def _where(found: Extraction, places: Places) -> str:
    """Return where places are: in pixels, or relative without the size of the image or video; in seconds."""
    from umie.records.places import described

    record, parts = found.record, []
    for region in (record.regions[index] for index in places.regions):
        parts.append(_edges(found.region_pixels(region)) or described(region))
    for track in (record.tracks[index] for index in places.tracks):
        seen = [box for box in found.track_pixels(track) if box is not None]
        path = f": {_edges(seen[0])} to {_edges(seen[-1])}" if seen else ""
        parts.append(f"{described(track)}{path}")
    parts += [described(record.segments[index]) for index in places.segments]
    return "; ".join(parts)


def _edges(box: PixelBox | None) -> str:
    return "" if box is None else ", ".join(map(str, box))


def _mention(record: Record, span: Span | None, places: Places) -> tuple[str, str]:
    """Return the text of a mention with the names of the places that show it, and its offsets."""
    names = " ".join(places.names)
    if span is None:
        return names, ""
    return f"{record.surface(span)} ({names})" if names else record.surface(span), f"{span[0]}-{span[1]}"


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, without columns that are empty."""
    kept = [place for place, name in enumerate(columns) if any(row[place] for row in rows)]
    columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    show(table)
