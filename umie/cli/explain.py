"""`umie explain`: did the image matter, for one text or over a data set?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from umie.cli.console import print_json, print_line, print_note, show
from umie.cli.extract import read_region
from umie.cli.options import (
    Device,
    Format,
    FormatOptions,
    Images,
    JsonFlag,
    NoRelation,
    Plugins,
    Regions,
    Threshold,
    source_of,
    text_of,
    threshold_of,
)
from umie.cli.progress import counting, disable_progress_bars
from umie.errors import UmieError, check_local

if TYPE_CHECKING:
    from umie.extraction import Attention, Extractor
    from umie.extraction.explain import Explanation


def explain(
    text: Annotated[str | None, typer.Argument(help="The text, unless --data.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")
    ] = None,
    image: Annotated[list[str] | None, typer.Option(help="An image of the text. Repeatable.")] = None,
    other: Annotated[list[str] | None, typer.Option(help="An image to use instead. Repeatable.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="A region of the image, as in umie extract. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task such as mner or mre; by default those of the model. Repeatable.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A file of records instead of a text.")] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the decisions about each record, as JSONL.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Of a text, draw where the fusion looks for each item, over the regions: PNG, PDF or SVG."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the other images and of the intervals.")] = 0,
    threshold: Threshold = None,
    device: Device = None,
    plugin: Plugins = None,
    no_relation: NoRelation = None,
    json_flag: JsonFlag = False,
) -> None:
    """Say what a model finds only because of the image: with it, without it, with a gray one, and with another one.

    For a text, a table of the items that are found with any of the images: their probabilities, or - where they are not
    found. With --data, the decisions are the items that are found with the record's image or with the one that is
    named, changed are those that are found with only one of the two, and the 95% interval of their share is over the
    records. Of a record that lists its annotated tasks, only decisions of these count. The other image is that of
    another record. Regions stay where they are, and answers of a model that was trained with regions are about them.
    Items are compared by what they say about the text: their regions count only if they have no words.

    For a text, a second table says where the fusion looks from the words of each item: its attention to the image as a
    whole and to each region; --figure draws it.

        umie explain -m best "Kids at the Salvation Army" --image kids.jpg --other beach.jpg
        umie explain -m best "Kids at the Salvation Army" --image kids.jpg --region 0,0,.5,1 --figure attention.png
        umie explain -m best --data test.txt -f twitter --images images -o decisions.jsonl

    Exit code: 0 success, 2 bad input.
    """
    from umie.extraction import Extractor
    from umie.hub import check_saved
    from umie.records import no_relation_names
    from umie.registry import load_plugins

    if model is None:
        raise UmieError("--model is missing: use the directory of a saved variant or a hub name")
    if (text is None) == (data is None):
        raise UmieError("pass either a text with --image, or a file with --data")
    check_saved(model)
    load_plugins(plugin or ())
    disable_progress_bars()
    lowest = threshold_of(threshold) if threshold else None
    if data is None:
        if not image:
            raise UmieError("--image is missing: the image that is explained")
        if output is not None:
            raise UmieError("--output requires --data: the result of a text is printed")
        if figure is not None:
            from umie.reports.style import check_figures, check_format

            check_figures("a figure")
            check_format(figure)
            if not region:
                raise UmieError("--figure shows the attention to the regions of the image: pass some with --region")
        for name, paths in (("--image", image), ("--other", other or ())):
            for path in paths:
                check_local(name, path)
        extractor = Extractor.from_pretrained(model, device=device, threshold=lowest)
        places = [read_region(one) for one in region or ()] or None
        with no_relation_names(no_relation or ()):
            found = extractor.explain(text_of(text or ""), image, other=other, regions=places, tasks=task)
            attention = _attention(extractor, found)
        if json_flag:
            seen = [{"words": list(one.span), "task": one.task, "weights": dict(one.weights)} for one in attention]
            print_json({**found.to_json(), **({"attention": seen} if seen else {})})
        else:
            _show(found)
            _show_attention(attention, found)
        if figure is not None and not attention:
            print_note("note: no item has attention, so there is no figure")
        elif figure is not None:
            from umie.reports.attention_figure import MAX_ITEMS, draw_attention

            draw_attention(attention, found.extractions["given"].record, figure)
            cut = f" ({MAX_ITEMS} of {len(attention)} items)" if len(attention) > MAX_ITEMS else ""
            print_note(f"Written: {figure}{cut}")
        return
    if image or other or region:
        raise UmieError("--image, --other and --region cannot be used with --data: its records have their own")
    if figure is not None:
        raise UmieError("--figure draws the attention of one text: pass a text with --image and --region")
    source = source_of(data, format_name, images, regions, format_option)
    extractor = Extractor.from_pretrained(model, device=device, threshold=lowest)
    with no_relation_names(no_relation or ()):
        _explain_data(extractor, source, task, output, overwrite, seed, json_flag)


def _attention(extractor: Extractor, found: Explanation) -> list[Attention]:
    """Return where the fusion looks; nothing for one without attention."""
    try:
        return extractor.attention(found.extractions["given"])
    except UmieError as error:
        print_note(f"note: {error}")
        return []


def _show_attention(attention: list[Attention], found: Explanation) -> None:
    from umie.extraction.attention import rows_of

    header, *rows = rows_of(attention, found.extractions["given"].record)
    if rows:
        table = Table(*header, box=None)
        for line in rows:
            table.add_row(*map(escape, line))
        print_line("")
        show(table)


def _explain_data(
    extractor: Any, source: Any, task: list[str] | None, output: Path | None, overwrite: bool, seed: int, as_json: bool
) -> None:
    from umie.experiments.data_sets import with_shuffled_images
    from umie.extraction.explain import effects, explain_many
    from umie.files import atomic_write, check_distinct, json_text

    if output is not None:
        check_distinct([source.path, output])
        if output.exists() and not overwrite:
            raise UmieError(f"{output} exists: use another --output, or --overwrite")
    every = list(source.named())
    records = [record for record in every if record.image is not None]
    if not records:
        raise UmieError(f"{source.path}: no record has an image; for other formats than JSONL, use --images")
    if len(records) < len(every):
        print_note(f"note: {len(every) - len(records):,} of {len(every):,} records have no image and are left out")
    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(atomic_write(output))
        count = stack.enter_context(counting(f"explaining {source.path.name}", len(records)))

        def counted(found: Iterable[Explanation]) -> Iterator[Explanation]:
            for record, one in zip(records, found, strict=True):
                one = one.about(record.annotated_for)
                if file is not None:
                    file.write(json_text(one.to_json()) + "\n")
                yield one.bare()
                count()

        try:
            others = with_shuffled_images(records, seed, keeps_regions=True)
        except UmieError as error:  # e.g. there is only one image
            print_note(f"note: without the images of other records: {error}")
            others = None
        shares = effects(counted(explain_many(extractor, records, others, tasks=task)), seed)
    if as_json:
        print_json({name: {view: effect._asdict() for view, effect in own.items()} for name, own in shares.items()})
    elif not shares:
        print_line("Nothing was found with any image.")
    else:
        table = Table("task", "image", "changed", "decisions", "share", "95% interval", box=None)
        for name, own in shares.items():
            for view, effect in own.items():
                cells = f"{effect.changed:,}", f"{effect.decisions:,}", f"{effect.share:.3f}"
                table.add_row(name, view, *cells, f"{effect.low:.3f} to {effect.high:.3f}")
        show(table)
    if output is not None:
        print_line(f"Written: {output}")


def _show(found: Explanation) -> None:
    from umie.extraction.explain import VIEWS

    if not found.decisions:
        print_line(str(found))
        return
    table = Table("", *found.extractions, box=None)
    for line in found.rows():
        table.add_row(*map(escape, line))
    show(table)
    for view in found.views:
        changed, number = found.counts(view)
        print_line(f"{changed} of {number} items are found only with the image, or only {VIEWS[view]}")
