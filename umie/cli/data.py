"""`umie data`: work with data sets. This module has `convert`, `validate`, `synthetic` and `synthetic-media`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umie.cli.console import print_line, print_note, print_notes
from umie.cli.data_audit import audit, clean, fingerprint
from umie.cli.data_images import features
from umie.cli.data_mask import mask
from umie.cli.data_media import muie, pan, speak
from umie.cli.data_places import ground, regions, segments, tracks
from umie.cli.data_show import sample, stats
from umie.cli.data_split import split
from umie.cli.options import (
    Format,
    FormatOptions,
    Images,
    JsonlOutput,
    NoImages,
    NoRelation,
    Plugins,
    Regions,
    not_none,
    source_of,
)
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import check_distinct, is_same_file

if TYPE_CHECKING:
    from umie.audit.checks import Finding
    from umie.records import Record


def convert(
    input_file: Annotated[Path, typer.Option("--input", "-i", help="The file of one split.")],
    output: JsonlOutput,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and list records that cannot be read.")] = False,
    no_relation: NoRelation = None,
) -> None:
    """Convert a file of a published data set to JSONL, one record per line.

    A record that cannot be read ends the command with exit code 2, and nothing is written; with --skip-bad, such
    records are listed on standard error and skipped. Without --images, records of formats other than JSONL have no
    images.

    What was changed or assumed is listed with numbers: relations read as none (NA, no_relation, and those of
    --no-relation), ids that occur twice, boxes moved to the border of their image.

    Example:
        umie data convert --format mnre --input train.txt --output train.jsonl
        umie data convert -f twitter -i train.txt -o train.jsonl --images images
    """
    from umie.audit.images import Presence, presence
    from umie.data.consistency import consistent
    from umie.records import no_relation_names, write_jsonl
    from umie.records.labels import LabelForms
    from umie.records.model import annotated_spans
    from umie.records.no_relation import doubtful_labels
    from umie.records.notes import collected_notes, take_note
    from umie.records.offsets import seem_utf16

    if is_same_file(output, input_file):
        raise UmieError(f"{output}: is the input; choose another --output")
    line = re.compile(re.escape(str(input_file)) + r":\d+: ")
    skipped = 0
    before = ""

    def skip(error: UmieError) -> None:
        nonlocal skipped, before
        place = line.match(str(error))
        skipped += place is None or place[0] != before  # JSONL reports every error of a line
        before = place[0] if place else ""
        print_note(f"skipped: {' '.join(str(error).split())}")

    source = source_of(input_file, format_name, images, regions, format_option)
    counts: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    forms = LabelForms()
    items = ("entities", "relations", "events", "regions")

    def counted(records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            counts["records"] += 1
            counts.update({name: len(getattr(record, name)) for name in items})
            spans = (span for _, span in annotated_spans(record.entities, record.relations, record.events))
            if format_name == "jsonl" and seem_utf16(record.text, spans):
                take_note("records whose offsets seem to count UTF-16 units; see --format-option offsets")
            forms.add(record)
            doubtful.update(doubtful_labels(item.type for item in record.relations))
            counts["images"] += len(record.images)
            if images is not None:
                states = [presence(record, "image", number) for number in range(len(record.images))]
                counts.update("found" if state is Presence.FOUND else "missing" for state in states)
            count()
            yield record

    with (
        no_relation_names(no_relation or ()),
        collected_notes() as notes,
        counting(f"converting {input_file.name}") as count,
    ):
        records = counted(consistent(source.records(on_error=skip if skip_bad else None)))
        write_jsonl(output, not_none(records, f"{input_file}: contains no records that can be read"))
    parts = [f"{name}: {counts[name]:,}" for name in ("records", *(name for name in items if counts[name]))]
    found = f"{counts['images']:,} (not checked)"
    if counts["found"] or counts["missing"]:
        found = f"{counts['found']:,} found, {counts['missing']:,} missing"
    print_line("; ".join([*parts, f"images: {found}"]))
    if skip_bad:
        print_line(f"skipped: {skipped:,}")
    print_notes(notes, doubtful)
    for message in forms.collisions():
        print_note(f"warning: {message}", "yellow")
    print_line(f"Written: {output}")


def export(
    input_file: Annotated[
        Path, typer.Option("--input", "-i", help="Annotated records, or the output of umie extract.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; for brat, the directory.")],
    to: Annotated[str, typer.Option("--to", help="conll, brat or label-studio.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    url: Annotated[
        str,
        typer.Option(help="Label Studio: what comes before the name of an image, e.g. /data/local-files/?d=images/."),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")] = False,
) -> None:
    """Write records in the format of another tool: to correct the answers of a model, or to compare.

    conll: entities as BIO tags, one token per line (an entity inside another one is left out). brat: entities,
    relations and events, a .txt and an .ann file per record, annotation.conf, and records.tsv with ids and images.
    label-studio: tasks with predictions, also the boxes of items, and OUTPUT.xml, the labeling interface of the
    project. Items without words are left out of the first two; what is left out is counted.

    Example:
        umie data export -i extracted.jsonl --to label-studio -o tasks.json
        umie data export -i test.txt -f mnre --to brat -o brat
    """
    from umie.data.exports import export as write

    check_distinct([input_file, output, output.with_suffix(".xml")] if to == "label-studio" else [input_file, output])
    source = source_of(input_file, format_name, images, regions, format_option)
    with counting(f"writing {output.name}") as count:

        def counted() -> Iterator[Record]:
            for record in source.records():
                yield record
                count()

        written = write(
            not_none(counted(), f"{input_file}: contains no records"), output, to, url=url, overwrite=overwrite
        )
    print_line("; ".join(f"{name}: {number:,}" for name, number in written.items()))
    print_line(f"Written: {output}")


def validate(
    file: Annotated[Path, typer.Argument(help="The file to check.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    no_images: NoImages = False,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of listed findings; 0 lists all.")] = 0,
    warnings: Annotated[int, typer.Option(min=0, help="Maximum number of listed warnings; 0 lists all.")] = 20,
    no_warnings: Annotated[bool, typer.Option("--no-warnings", help="List only errors.")] = False,
    no_relation: NoRelation = None,
    plugins: Plugins = None,
) -> None:
    """List all errors and warnings of a file.

    Errors are: a line that cannot be read, a span outside the text, a box outside the image, a missing region, a label
    outside the record's schema, a repeated id, an image, sound or video that is missing, outside its directory or
    something else, a segment or track after its end, and a file without records. Warnings are: whitespace around a
    span, repeated annotation, a relation of a span to itself, annotation for a task that the record does not list,
    offsets that seem to count UTF-16 units, relation labels that look like none, and labels that look alike. All
    findings are counted, even if they are not listed.

    Exit code: 0 no errors, 2 errors.

    Example:
        umie data validate train.jsonl --images images --limit 50
        umie data validate twitter2017/train.txt --format twitter --no-images
    """
    from umie.audit.checks import validate as check
    from umie.records import no_relation_names
    from umie.records.notes import collected_notes
    from umie.registry import load_plugins

    load_plugins(plugins or ())
    listed = warned = 0

    def report(place: str, finding: Finding) -> None:
        nonlocal listed, warned
        if not finding.is_error and (no_warnings or (warnings and warned >= warnings)):
            return
        if limit and listed >= limit:
            return
        listed += 1
        warned += not finding.is_error
        severity, style = ("error", "red") if finding.is_error else ("warning", "yellow")
        message = " ".join(f"{f'{place}: ' if place else ''}{finding.message}".split())
        print_line(f"{severity}: {message}", style)

    source = source_of(file, format_name, images, regions, format_option)
    with (
        no_relation_names(no_relation or ()),
        collected_notes() as notes,
        counting(f"checking {file.name}") as count,
    ):
        result = check(source, report, images=not no_images, progress=count)
    print_notes(notes)
    unlisted = result.errors + (0 if no_warnings else result.warnings) - listed
    more = f" ({unlisted:,} not listed; use --limit 0 --warnings 0 to list all)" if unlisted else ""
    print_line(f"{file}: {result.records:,} records read, {result.errors:,} errors, {result.warnings:,} warnings{more}")
    if result.errors:
        raise typer.Exit(2)


Redraw = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier data set in the directory.")]


def synthetic(
    folder: Annotated[Path, typer.Argument(help="Directory for train.jsonl, dev.jsonl, test.jsonl and images.")],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training records.")] = 3000,
    dev: Annotated[int, typer.Option(help="Number of dev records.")] = 300,
    test: Annotated[int, typer.Option(help="Number of test records.")] = 900,
    image_share: Annotated[float, typer.Option(help="Share of records that require the image.")] = 0.62,
    overwrite: Redraw = False,
) -> None:
    """Generate the embedded data set as JSONL with PNG images.

    Also prints the best F1 of each task that a model without images can reach.

    Example:
        umie data synthetic embedded --train 300 --dev 30 --test 90
    """
    from umie.data.synthetic import SyntheticConfig, ceilings, write_synthetic

    config = SyntheticConfig(seed=seed, train=train, dev=dev, test=test, image_share=image_share)
    _check_new(folder, overwrite)
    for name, path in write_synthetic(folder, config).items():
        print_line(f"{name}: {getattr(config, name)} records in {path}")
    shown = ", ".join(f"{task.upper()} {ceiling:.3f}" for task, ceiling in ceilings(config).items())
    print_line(f"best F1 of text only: {shown}")


def synthetic_media(
    folder: Annotated[Path, typer.Argument(help="Directory for train.jsonl, dev.jsonl, test.jsonl and media.")],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training records of each combination.")] = 400,
    dev: Annotated[int, typer.Option(help="Number of dev records of each combination.")] = 40,
    test: Annotated[int, typer.Option(help="Number of test records of each combination.")] = 100,
    media_share: Annotated[float, typer.Option(help="Share of records with a text that require a medium.")] = 0.62,
    first_share: Annotated[
        float, typer.Option(help="Share of records with a text in which the first of two people is the head or agent.")
    ] = 0.75,
    combination: Annotated[
        list[str] | None, typer.Option(help="T text, I image, A sound, V video, e.g. T+I; by default, all nine.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Say what each place shows, as phrases for calls.")] = False,
    captions: Annotated[
        bool, typer.Option("--captions", help="Texts that say what the media show, for the tasks caption and match.")
    ] = False,
    overwrite: Redraw = False,
) -> None:
    """Generate the embedded media set: records with images, sounds and clips, and places in them.

    Also prints the best F1 that a model without some of the media can reach, of types / with places.

    Example:
        umie data synthetic-media media --combination T+I --combination A
        umie data synthetic-media captions --captions --combination T+I
    """
    from umie.data.synthetic_media import COMBINATIONS, SyntheticMediaConfig, ceilings, write_synthetic_media

    config = SyntheticMediaConfig(
        seed=seed,
        train=train,
        dev=dev,
        test=test,
        media_share=media_share,
        first_share=first_share,
        combinations=tuple(combination or COMBINATIONS),
        labels=labels,
        captions=captions,
    )
    _check_new(folder, overwrite)
    for name, path in write_synthetic_media(folder, config).items():
        print_line(f"{name}: {sum(config.sizes(name).values())} records in {path}")
    for name, tasks in ({} if captions else ceilings(config)).items():
        for task, known in tasks.items():
            blind = (
                f"{seen or 'nothing'} {best.typed:.3f} / {best.grounded:.3f}"
                for seen, best in known.items()
                if seen != name
            )
            print_line(f"best F1 of {task.upper()} in {name}, of types / with places, seeing: {', '.join(blind)}")


def _check_new(folder: Path, overwrite: bool) -> None:
    """Raise UmieError if a data set was drawn into a directory before, unless it is to be replaced."""
    from umie.types import SPLITS

    earlier = [path for split in SPLITS if (path := folder / f"{split}.jsonl").exists()]
    if earlier and not overwrite:
        raise UmieError(f"{earlier[0]} exists: use another directory, or --overwrite to draw all splits again")


app = typer.Typer(help="Work with data sets: convert, check, count, inspect, compare.", no_args_is_help=True)
_COMMANDS = (
    convert, export, regions, segments, tracks, ground, validate, stats, sample, audit, clean, fingerprint, split, mask,
    speak, pan, muie, features, synthetic, synthetic_media,
)  # fmt: skip
for command in _COMMANDS:
    app.command()(command)
